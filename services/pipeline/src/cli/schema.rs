//! `kappa schema register|check`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use kappa_core::decode::Decoder;

use super::checked_reader_schema;
use super::configuration::ConfigArguments;
use crate::config::{Config, Needs};
use crate::ops::advice::{Advise, advised};
use crate::registry::RegistryClient;

const REGISTER_EXAMPLES: &str = "\
Examples:
  kappa schema register -c kappa.toml schemas/sensor-reading.avsc
  kappa schema register -s registry.url=http://localhost:8081 --subject readings-value v2.avsc

Registering the same schema again gives the id that it has.";

const CHECK_EXAMPLES: &str = "\
Examples:
  kappa schema check -c kappa.toml v2.avsc

Two questions: does the registry's rule let it follow the latest version, and can this pipeline read it?
Exit code 1 if either answer is no. Nothing is registered.";

/// `kappa schema`
#[derive(Debug, Subcommand)]
pub(super) enum SchemaCommand {
    /// Register a schema that this pipeline can read.
    #[command(after_help = REGISTER_EXAMPLES)]
    Register(SchemaArguments),
    /// Say whether a schema could be registered and read.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(SchemaArguments),
}

#[derive(Debug, Args)]
pub(super) struct SchemaArguments {
    /// The Avro schema.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Subject in the registry [default: <topic>-value].
    #[arg(long)]
    subject: Option<String>,

    #[command(flatten)]
    config: ConfigArguments,
}

/// What both commands need.
struct Question {
    avsc: String,
    subject: String,
    config: Config,
    registry: RegistryClient,
}

pub(super) async fn dispatch(command: SchemaCommand) -> anyhow::Result<ExitCode> {
    match command {
        SchemaCommand::Register(arguments) => register(Question::new(&arguments)?).await,
        SchemaCommand::Check(arguments) => check(Question::new(&arguments)?).await,
    }
}

impl Question {
    fn new(arguments: &SchemaArguments) -> anyhow::Result<Self> {
        let config = arguments.config.load(Needs::Registry)?.config;
        let avsc = read(&arguments.file)?;
        let subject = arguments.subject.clone().unwrap_or_else(|| format!("{}-value", config.kafka.topic));
        let registry = RegistryClient::new(&config.registry)?;
        Ok(Self { avsc, subject, config, registry })
    }

    /// Why this pipeline could not read records of the schema, if it could not.
    fn unreadable(&self) -> anyhow::Result<Option<String>> {
        let reader = checked_reader_schema(&self.config)?;
        let decoder = Decoder::compile(&self.avsc, &[], &reader, &self.config.decode_limits());
        Ok(decoder.err().map(|error| error.to_string()))
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

async fn register(question: Question) -> anyhow::Result<ExitCode> {
    if let Some(reason) = question.unreadable()? {
        return Err(advised(
            format!("this pipeline could not read it: {reason}"),
            "mend the schema, or first give the pipeline a reader schema (event.schema) that can take it",
        ));
    }
    let id = question.registry.register(&question.subject, &question.avsc).await;
    let id = id.advise(
        format!("{} was not registered", question.subject),
        "`kappa schema check` says what the registry's rule has against it; see also registry.url",
    )?;
    println!("{} has the schema id {id}", question.subject);
    Ok(ExitCode::SUCCESS)
}

async fn check(question: Question) -> anyhow::Result<ExitCode> {
    let unreadable = question.unreadable()?;
    let rule = question.registry.check_compatibility(&question.subject, &question.avsc).await;
    let rule = rule.advise("the registry could not be asked", "check registry.url")?;
    let subject = &question.subject;
    match (rule.compatible, rule.subject_is_new) {
        (true, true) => println!("registry   yes: {subject} is new"),
        (true, false) => println!("registry   yes: its rule lets the schema follow the latest of {subject}"),
        (false, _) => println!("registry   NO: its rule does not let the schema follow the latest of {subject}"),
    }
    for message in &rule.messages {
        println!("           {message}");
    }
    match &unreadable {
        None => println!("pipeline   yes: records of this schema can be read"),
        Some(reason) => println!("pipeline   NO: {reason}"),
    }
    let fine = rule.compatible && unreadable.is_none();
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
