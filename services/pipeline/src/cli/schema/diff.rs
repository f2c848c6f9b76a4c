//! `kappa schema diff`: two schemas held against one another.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use kappa_core::decode::{AvroSchema, Change, Effect};
use serde::Serialize;

use super::judgement::{Judged, Verdict, listed};
use super::source;
use crate::cli::configuration::ConfigArguments;
use crate::config::Needs;

const EXAMPLES: &str = "\
Examples:
  kappa schema diff v1.avsc v2.avsc
  kappa schema diff -c kappa.toml sensor-readings-value:latest v2.avsc
  kappa schema diff -c kappa.toml reader v2.avsc
  kappa schema diff --json v1.avsc v2.avsc | jq '.forward'

A schema is a file, SUBJECT:VERSION or SUBJECT:latest in the registry, or `reader`, the one of event.schema.
Exit codes: 0 each can read what the other writes, 1 one of them cannot (it says which, the field and the rule),
2 wrong configuration or use.";

/// Show what has changed between two schemas, and whether each can read what the other writes.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct DiffArguments {
    /// The older schema.
    #[arg(value_name = "OLD")]
    old: String,

    /// The newer schema.
    #[arg(value_name = "NEW")]
    new: String,

    /// For programs.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArguments,
}

/// One difference, for people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ChangeLine {
    field: String,
    change: &'static str,
    what: String,
}

/// Who reads what whom writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// The newer schema reads what the older one wrote.
    Backward,
    /// The older schema reads what the newer one writes.
    Forward,
}

impl Direction {
    pub(super) const ALL: [Self; 2] = [Self::Backward, Self::Forward];

    /// Whether a rule of the registry asks for it.
    pub(super) fn is_demanded_by(self, rule: &str) -> bool {
        let name = match self {
            Self::Backward => "BACKWARD",
            Self::Forward => "FORWARD",
        };
        rule.starts_with(name) || rule.starts_with("FULL")
    }

    /// Why it cannot read every record, field by field; empty if it can.
    pub(super) fn broken(self, old: &AvroSchema, new: &AvroSchema) -> Vec<Judged> {
        let (writer, reader) = match self {
            Self::Backward => (old, new),
            Self::Forward => (new, old),
        };
        let is_broken = |effect: Effect| matches!(effect, Effect::Unreadable | Effect::SomeRefused);
        let unreadable = writer.read_by(reader).into_iter().filter(|finding| is_broken(finding.effect));
        let judged = unreadable.map(|finding| Judged {
            verdict: Verdict::No,
            field: finding.field,
            effect: finding.effect.name(),
            rule: finding.sentence,
        });
        judged.collect()
    }

    fn words(self) -> &'static str {
        match self {
            Self::Backward => "backward   the new reads what the old wrote:",
            Self::Forward => "forward    the old reads what the new writes:",
        }
    }
}

/// Two schemas, held against one another.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    pub(super) changes: Vec<ChangeLine>,
    /// Why the new cannot read what the old wrote; empty if it can.
    pub(super) backward: Vec<Judged>,
    /// Why the old cannot read what the new writes; empty if it can.
    pub(super) forward: Vec<Judged>,
}

impl Difference {
    pub(super) fn between(old: &AvroSchema, new: &AvroSchema) -> Self {
        Self {
            changes: change_lines(&new.changes_since(old)),
            backward: Direction::Backward.broken(old, new),
            forward: Direction::Forward.broken(old, new),
        }
    }

    fn is_compatible(&self) -> bool {
        self.backward.is_empty() && self.forward.is_empty()
    }

    pub(super) fn text(&self, indent: &str) -> String {
        let mut text = listed_changes(&self.changes, indent);
        for (direction, broken) in [(Direction::Backward, &self.backward), (Direction::Forward, &self.forward)] {
            let answer = if broken.is_empty() { "yes" } else { "NO" };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{indent}{} {answer}", direction.words());
            text.push_str(&listed(broken, &format!("{indent}  ")));
        }
        text
    }
}

pub(super) async fn run(arguments: &DiffArguments) -> anyhow::Result<ExitCode> {
    let asks_registry =
        [&arguments.old, &arguments.new].into_iter().any(|source| source::subject_and_version(source).is_some());
    let needs = if asks_registry { Needs::Registry } else { Needs::Nothing };
    let config = arguments.config.load(needs)?.config;
    let (old, new) = (source::schema(&arguments.old, &config).await?, source::schema(&arguments.new, &config).await?);
    let difference = Difference::between(&old, &new);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&difference)?);
    } else {
        if difference.changes.is_empty() {
            println!("no change, but for documentation perhaps");
        }
        print!("{}", difference.text(""));
    }
    Ok(if difference.is_compatible() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) fn change_lines(changes: &[Change]) -> Vec<ChangeLine> {
    let line = |change: &Change| ChangeLine {
        field: change.field.clone(),
        change: change.kind.name(),
        what: change.sentence.clone(),
    };
    changes.iter().map(line).collect()
}

/// One line a change, the fields below one another.
pub(super) fn listed_changes(changes: &[ChangeLine], indent: &str) -> String {
    let width = changes.iter().map(|change| change.field.chars().count()).max().unwrap_or(0).max(7);
    changes.iter().fold(String::new(), |mut text, change| {
        let sign = match change.change {
            "added" => '+',
            "removed" => '-',
            _ => '~',
        };
        let field = if change.field.is_empty() { "(whole)" } else { &change.field };
        let _ = writeln!(text, "{indent}{sign} {field:<width$}  {}", change.what);
        text
    })
}
