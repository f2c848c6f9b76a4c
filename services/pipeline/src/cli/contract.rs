//! `kappa contract check|docs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use kappa_core::decode::ReaderSchema;
use serde::Serialize;

use super::WrongUse;
use super::configuration::ConfigArguments;
use crate::config::{Config, Needs};
use crate::contract::{self, ContractSource, Problem};

const CHECK_EXAMPLES: &str = "\
Examples:
  kappa contract check                                                  the contract in force, of kappa.toml
  kappa contract check schemas/sensor-reading.contract.yaml
  kappa contract check my.contract.yaml --schema my.avsc -c kappa.toml
  kappa contract check --json my.contract.yaml | jq -r '.problems[].message'

For a pull request. Is the file a contract of the Open Data Contract Standard, does it describe the fields of the schema as
they are, can its rules be judged, and does it agree with the configuration? All that is wrong is said at once, with line and
path. Asks nobody.
Exit codes: 0 nothing is wrong, 1 something is, 2 wrong configuration or use.";

const DOCS_EXAMPLES: &str = "\
Examples:
  kappa contract docs                                                   the contract in force
  kappa contract docs schemas/sensor-reading.contract.yaml > docs/data-contract.md";

/// `kappa contract`
#[derive(Debug, Subcommand)]
pub(super) enum ContractCommand {
    /// Say everything that is wrong with a contract, its schema and the configuration together.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArguments),
    /// Print the contract as a page in Markdown.
    #[command(after_help = DOCS_EXAMPLES)]
    Docs(DocsArguments),
}

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// The contract [default: contract.file, else the built-in one].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    /// The Avro schema of the records [default: event.schema, else the built-in one].
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,

    /// For programs.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Debug, Args)]
pub(super) struct DocsArguments {
    /// The contract [default: contract.file, else the built-in one].
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    ok: bool,
    contract: String,
    rules: usize,
    /// What footers say of it; null where nothing can be judged.
    label: Option<String>,
    problems: &'a [Problem],
}

pub(super) fn dispatch(command: &ContractCommand) -> anyhow::Result<ExitCode> {
    match command {
        ContractCommand::Check(arguments) => check(arguments),
        ContractCommand::Docs(arguments) => docs(arguments),
    }
}

fn check(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load(Needs::Nothing)?.config;
    let avsc = match &arguments.schema {
        Some(file) => read(file)?,
        None => config.reader_schema().map_err(|error| WrongUse(format!("{error:#}")))?,
    };
    let reader = ReaderSchema::parse(&avsc).context("the reader schema is not usable")?;
    let (source, text) = text_of(arguments.file.as_deref(), &config)?;
    let (contract, problems) = contract::check(&text, &reader, &config);
    if arguments.json {
        let rules = contract::rules_for(&contract, &reader).ok();
        let report = Report {
            ok: problems.is_empty(),
            contract: contract.title(),
            rules: contract.rules.len(),
            label: rules.and_then(|rules| rules.label().map(str::to_owned)),
            problems: &problems,
        };
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else if problems.is_empty() {
        let (title, rules) = (contract.title(), contract.rules.len());
        println!("{source}: {title} with {rules} rules fits the schema and the configuration");
    } else {
        for problem in &problems {
            println!("{problem}");
        }
        println!("{source}: {} problems", problems.len());
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn docs(arguments: &DocsArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load(Needs::Nothing)?.config;
    let (source, text) = text_of(arguments.file.as_deref(), &config)?;
    let (contract, problems) = contract::read(&text);
    if let Some(problem) = problems.first() {
        return Err(anyhow::anyhow!("{source}: {problem}; `kappa contract check` says all that is wrong"));
    }
    print!("{}", contract::page(&contract));
    Ok(ExitCode::SUCCESS)
}

/// The contract that was named, or the one in force.
fn text_of(file: Option<&Path>, config: &Config) -> Result<(ContractSource, String), WrongUse> {
    let source = file.map_or_else(|| ContractSource::of(config), |file| ContractSource::File(file.to_owned()));
    match source.text() {
        Ok(Some(text)) => Ok((source, text)),
        Ok(None) => Err(WrongUse(
            "no contract is in force: name a file, or set contract.file (a schema of event.schema has none of its own)"
                .to_owned(),
        )),
        Err(error) => Err(WrongUse(format!("cannot read {source}: {error}"))),
    }
}

fn read(file: &Path) -> Result<String, WrongUse> {
    std::fs::read_to_string(file).map_err(|error| WrongUse(format!("cannot read {}: {error}", file.display())))
}
