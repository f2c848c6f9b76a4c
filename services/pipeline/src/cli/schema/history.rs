//! `kappa schema history`: the versions of a subject, what each changed, and whether this pipeline reads them.

use std::process::ExitCode;

use clap::Args;
use kappa_core::decode::AvroSchema;
use serde::Serialize;

use super::diff::Difference;
use super::judgement::{Judgement, Verdict, listed};
use crate::cli::checked_reader_schema;
use crate::cli::configuration::ConfigArguments;
use crate::config::Needs;
use crate::ops::advice::Advise;
use crate::registry::{RegisteredVersion, RegistryClient};

const EXAMPLES: &str = "\
Examples:
  kappa schema history -c kappa.toml
  kappa schema history -c kappa.toml --subject kappa.sensors.SensorReading --json
  kappa schema history -c kappa.toml -s event.schema=v2.avsc    before the reader is upgraded: can it read them all?

Exit codes: 0 this pipeline can read every version, 1 it cannot (it says which field and rule) or there was no answer,
2 wrong configuration or use.";

/// List the versions of a subject, what each has changed, and whether this pipeline can read them.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct HistoryArguments {
    /// Subject in the registry [default: <topic>-value].
    #[arg(long)]
    subject: Option<String>,

    /// For programs.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArguments,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    subject: String,
    /// Such as BACKWARD; null where the registry does not tell.
    rule: Option<String>,
    versions: Vec<VersionReport>,
}

#[derive(Debug, Serialize)]
struct VersionReport {
    version: i32,
    id: Option<i32>,
    /// Whether this pipeline can read it.
    pipeline: Judgement,
    /// Against the version before; null for the first, and where one of both is not Avro.
    since_the_one_before: Option<Difference>,
}

pub(super) async fn run(arguments: &HistoryArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load(Needs::Registry)?.config;
    let reader = checked_reader_schema(&config)?;
    let registry = RegistryClient::new(&config.registry)?;
    let subject = arguments.subject.clone().unwrap_or_else(|| format!("{}-value", config.kafka.topic));
    let found = all_versions(&registry, &subject).await;
    let found = found.advise(format!("{subject} has no history"), "check registry.url and --subject")?;
    let mut versions = Vec::with_capacity(found.len());
    let mut before: Option<AvroSchema> = None;
    for version in found {
        let schema = AvroSchema::parse(&version.avsc, &version.references).ok();
        let since = before.as_ref().zip(schema.as_ref()).map(|(before, schema)| Difference::between(before, schema));
        versions.push(VersionReport {
            version: version.version,
            id: version.id,
            pipeline: Judgement::of_writer(&version.avsc, &version.references, &reader, &config),
            since_the_one_before: since,
        });
        before = schema;
    }
    let ok = versions.iter().all(|version| version.pipeline.ok);
    let report = Report { ok, rule: registry.rule(&subject).await.ok(), subject, versions };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn all_versions(
    registry: &RegistryClient,
    subject: &str,
) -> Result<Vec<RegisteredVersion>, crate::registry::RegistryError> {
    let mut found = Vec::new();
    for version in registry.versions(subject).await? {
        found.push(registry.version(subject, &version.to_string()).await?);
    }
    Ok(found)
}

fn print(report: &Report) {
    println!("{} ({})", report.subject, report.rule.as_deref().unwrap_or("the registry does not tell its rule"));
    for version in &report.versions {
        let id = version.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        let answer = if version.pipeline.ok { "yes" } else { "NO" };
        println!("\nversion {}, id {id}; this pipeline can read it: {answer}", version.version);
        let worth_telling = version.pipeline.findings.iter().filter(|finding| finding.verdict != Verdict::Note);
        print!("{}", listed(&worth_telling.cloned().collect::<Vec<_>>(), "  "));
        if let Some(since) = &version.since_the_one_before {
            print!("{}", since.text("  "));
        }
    }
}
