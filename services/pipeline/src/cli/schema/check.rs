//! `kappa schema check`: a proposed schema, judged before it is registered.

use std::process::ExitCode;

use clap::Args;
use kappa_core::decode::AvroSchema;
use serde::Serialize;

use super::diff::{ChangeLine, Direction, change_lines, listed_changes};
use super::judgement::{Judged, Judgement, listed};
use super::{Proposal, ProposalArguments};
use crate::ops::advice::Advise;
use crate::registry::{RegisteredVersion, RegistryError};

const EXAMPLES: &str = "\
Examples:
  kappa schema check -c kappa.toml v2.avsc
  kappa schema check -c kappa.toml --json v2.avsc | jq '.pipeline.findings[] | select(.verdict == \"no\")'
  kappa schema check -c kappa.toml --strategy topic-record --reference geo.Position=geo.Position-value:1 v2.avsc

For a pull request. Two questions: does the registry's rule let it follow what is registered, and can this pipeline read
it, with what [event] needs? Each \"no\" names the field and the rule. Nothing is registered.
Exit codes: 0 both yes, 1 a no or no answer, 2 wrong configuration or use.";

/// Say whether a schema could be registered and read, and what would change.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct CheckArguments {
    #[command(flatten)]
    proposal: ProposalArguments,

    /// For programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    file: String,
    subject: String,
    /// The version that it would follow; null where the subject is new.
    follows: Option<i32>,
    registry: RegistryVerdict,
    pipeline: Judgement,
    changes: Vec<ChangeLine>,
}

/// What the registry's rule says.
#[derive(Debug, Serialize)]
struct RegistryVerdict {
    ok: bool,
    /// Such as BACKWARD; null where the registry does not tell.
    rule: Option<String>,
    /// Why the rule was applied here and not by the registry: some cannot judge schemas with references.
    judged_here_because: Option<String>,
    /// Versions that it may not follow.
    refused: Vec<RefusedVersion>,
}

#[derive(Debug, Serialize)]
struct RefusedVersion {
    version: i32,
    /// What the rule has against it, by our own reckoning: registries seldom say.
    findings: Vec<Judged>,
    /// The registry's words.
    messages: Vec<String>,
}

pub(super) async fn run(arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let proposal = Proposal::new(&arguments.proposal).await?;
    let report = examine(&proposal).await.advise("the registry could not be asked", "check registry.url")?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn examine(proposal: &Proposal) -> Result<Report, RegistryError> {
    let Proposal { subject, registry, .. } = proposal;
    let latest = match registry.latest(subject).await {
        Ok(latest) => Some(latest),
        Err(RegistryError::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    let verdict = ask_registry(proposal, latest.as_ref()).await?;
    let pipeline = proposal.judgement();
    let proposed = AvroSchema::parse(&proposal.schema.avsc, &proposal.references);
    let before = latest.as_ref().map(|latest| AvroSchema::parse(&latest.avsc, &latest.references));
    let changes = match (proposed, before) {
        (Ok(proposed), Some(Ok(before))) => change_lines(&proposed.changes_since(&before)),
        _ => Vec::new(),
    };
    Ok(Report {
        ok: verdict.ok && pipeline.ok,
        file: proposal.file.display().to_string(),
        subject: subject.clone(),
        follows: latest.map(|latest| latest.version),
        registry: verdict,
        pipeline,
        changes,
    })
}

/// A transitive rule is about all versions, any other about the latest.
async fn ask_registry(
    proposal: &Proposal,
    latest: Option<&RegisteredVersion>,
) -> Result<RegistryVerdict, RegistryError> {
    let Proposal { subject, registry, .. } = proposal;
    let rule = registry.rule(subject).await.ok();
    let Some(latest) = latest else {
        return Ok(RegistryVerdict { ok: true, rule, judged_here_because: None, refused: Vec::new() });
    };
    let is_transitive = rule.as_ref().is_some_and(|rule| rule.ends_with("_TRANSITIVE"));
    let versions = if is_transitive { registry.versions(subject).await? } else { vec![latest.version] };
    let (mut refused, mut judged_here_because) = (Vec::new(), None);
    for version in versions {
        let (compatible, messages) = match registry.check_compatibility(subject, version, &proposal.schema).await {
            Err(RegistryError::Refused { message, .. }) if proposal.is_valid_with_references() => {
                judged_here_because = Some(message);
                (against(proposal, rule.as_deref(), version).await?.is_empty(), Vec::new())
            }
            // Not a schema at all, for the registry.
            Err(RegistryError::Refused { message, .. }) => (false, vec![message]),
            answer => answer.map(|answer| (answer.compatible, answer.messages))?,
        };
        if !compatible {
            let findings = against(proposal, rule.as_deref(), version).await?;
            refused.push(RefusedVersion { version, findings, messages });
        }
    }
    Ok(RegistryVerdict { ok: refused.is_empty(), rule, judged_here_because, refused })
}

/// What the rule has against following that version.
async fn against(proposal: &Proposal, rule: Option<&str>, version: i32) -> Result<Vec<Judged>, RegistryError> {
    let before = proposal.registry.version(&proposal.subject, &version.to_string()).await?;
    let parsed = (
        AvroSchema::parse(&before.avsc, &before.references),
        AvroSchema::parse(&proposal.schema.avsc, &proposal.references),
    );
    let (Ok(before), Ok(proposed)) = parsed else { return Ok(Vec::new()) };
    let directions =
        Direction::ALL.into_iter().filter(|direction| rule.is_none_or(|rule| direction.is_demanded_by(rule)));
    Ok(directions.flat_map(|direction| direction.broken(&before, &proposed)).collect())
}

fn print(report: &Report) {
    let Report { subject, registry, pipeline, .. } = report;
    let rule = registry.rule.as_deref().unwrap_or("its rule");
    match report.follows {
        None => println!("registry   yes: {subject} is new ({rule})"),
        Some(version) if registry.ok => {
            println!("registry   yes: {rule} lets it follow version {version} of {subject}");
        }
        Some(_) => {
            for refused in &registry.refused {
                println!("registry   NO: {rule} does not let it follow version {} of {subject}", refused.version);
                print!("{}", listed(&refused.findings, "  "));
                refused.messages.iter().for_each(|message| println!("  {message}"));
            }
        }
    }
    if let Some(because) = &registry.judged_here_because {
        println!("  by that rule, applied here: the registry does not judge schemas with references ({because})");
    }
    if pipeline.ok {
        println!("pipeline   yes: records of this schema can be read");
    } else {
        println!("pipeline   NO: records of this schema go to the dead letters, or would be counted wrongly");
    }
    print!("{}", listed(&pipeline.findings, "  "));
    if let Some(version) = report.follows {
        println!("changes since version {version}{}", if report.changes.is_empty() { ": none" } else { "" });
        print!("{}", listed_changes(&report.changes, "  "));
    }
}
