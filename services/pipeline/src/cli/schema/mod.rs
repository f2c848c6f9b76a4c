//! `kappa schema register|check|diff|history`.

mod check;
mod diff;
mod history;
mod judgement;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use kappa_core::decode::{AvroSchema, ReaderSchema};

use super::checked_reader_schema;
use super::configuration::ConfigArguments;
use crate::config::{Config, Needs};
use crate::ops::advice::{Advise, advised};
use crate::registry::{ProposedSchema, RegistryClient, SchemaReferral};
use check::CheckArguments;
use diff::DiffArguments;
use history::HistoryArguments;
use judgement::Judgement;

const REGISTER_EXAMPLES: &str = "\
Examples:
  kappa schema register -c kappa.toml schemas/sensor-reading.avsc
  kappa schema register -s registry.url=http://localhost:8081 --subject readings-value v2.avsc
  kappa schema register -c kappa.toml --strategy record --reference geo.Position=geo.Position-value:1 v3.avsc

Registering the same schema again gives the id that it has. What this pipeline could not read is not registered.";

/// `kappa schema`
#[derive(Debug, Subcommand)]
pub(super) enum SchemaCommand {
    /// Register a schema that this pipeline can read.
    #[command(after_help = REGISTER_EXAMPLES)]
    Register(RegisterArguments),
    Check(CheckArguments),
    Diff(DiffArguments),
    History(HistoryArguments),
}

#[derive(Debug, Args)]
pub(super) struct RegisterArguments {
    #[command(flatten)]
    proposal: ProposalArguments,
}

/// A schema that is not registered yet.
#[derive(Debug, Args)]
struct ProposalArguments {
    /// The Avro schema.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Where it belongs in the registry [default: what --strategy says].
    #[arg(long)]
    subject: Option<String>,

    /// How the producers' serializers name the subject.
    #[arg(long, value_enum, default_value_t = Strategy::Topic, conflicts_with = "subject")]
    strategy: Strategy,

    /// A named type that the schema takes from another subject, such as geo.Position=geo.Position-value:1; more than once
    /// if need be.
    #[arg(long, value_name = "TYPE=SUBJECT:VERSION", value_parser = source::parse_referral)]
    reference: Vec<SchemaReferral>,

    #[command(flatten)]
    config: ConfigArguments,
}

/// The subject name strategies of the Confluent serializers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Strategy {
    /// `TopicNameStrategy`: TOPIC-value.
    Topic,
    /// `RecordNameStrategy`: the full name of the record.
    Record,
    /// `TopicRecordNameStrategy`: TOPIC-RECORD.
    TopicRecord,
}

impl Strategy {
    fn subject(self, topic: &str, record: &str) -> String {
        match self {
            Self::Topic => format!("{topic}-value"),
            Self::Record => record.to_owned(),
            Self::TopicRecord => format!("{topic}-{record}"),
        }
    }
}

/// A schema that is not registered yet, with all that is needed to judge it.
struct Proposal {
    file: PathBuf,
    subject: String,
    schema: ProposedSchema,
    /// The texts of what it refers to.
    references: Vec<String>,
    config: Config,
    reader: ReaderSchema,
    registry: RegistryClient,
}

pub(super) async fn dispatch(command: SchemaCommand) -> anyhow::Result<ExitCode> {
    match command {
        SchemaCommand::Register(arguments) => register(Proposal::new(&arguments.proposal).await?).await,
        SchemaCommand::Check(arguments) => check::run(&arguments).await,
        SchemaCommand::Diff(arguments) => diff::run(&arguments).await,
        SchemaCommand::History(arguments) => history::run(&arguments).await,
    }
}

impl Proposal {
    async fn new(arguments: &ProposalArguments) -> anyhow::Result<Self> {
        let config = arguments.config.load(Needs::Registry)?.config;
        let avsc = source::read(&arguments.file)?;
        let reader = checked_reader_schema(&config)?;
        let registry = RegistryClient::new(&config.registry)?;
        let references = registry.texts(&arguments.reference).await;
        let references =
            references.advise("what the schema refers to is not there", "register that first, then this")?;
        let subject = arguments.subject.clone();
        let subject = subject.unwrap_or_else(|| {
            // What is no record is refused in any case, whatever its subject.
            let name = AvroSchema::parse(&avsc, &references).ok().map(|schema| schema.name().to_owned());
            arguments.strategy.subject(&config.kafka.topic, &name.unwrap_or_default())
        });
        let schema = ProposedSchema { avsc, references: arguments.reference.clone() };
        Ok(Self { file: arguments.file.clone(), subject, schema, references, config, reader, registry })
    }

    /// Whether it takes types from other subjects, and is a schema together with them.
    fn is_valid_with_references(&self) -> bool {
        !self.references.is_empty() && AvroSchema::parse(&self.schema.avsc, &self.references).is_ok()
    }

    /// What this pipeline would make of its records.
    fn judgement(&self) -> Judgement {
        Judgement::of_writer(&self.schema.avsc, &self.references, &self.reader, &self.config)
    }
}

async fn register(proposal: Proposal) -> anyhow::Result<ExitCode> {
    let judgement = proposal.judgement();
    if let Some(reason) = judgement.first_no() {
        return Err(advised(
            format!("this pipeline could not read it: {reason}"),
            "mend the schema, or first give the pipeline a reader schema (event.schema) that can take it",
        ));
    }
    let id = proposal.registry.register(&proposal.subject, &proposal.schema).await;
    let id = id.advise(
        format!("{} was not registered", proposal.subject),
        "`kappa schema check` says what the registry's rule has against it; see also registry.url",
    )?;
    println!("{} has the schema id {id}", proposal.subject);
    Ok(ExitCode::SUCCESS)
}
