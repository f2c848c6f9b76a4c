//! What this pipeline makes of a writer's records: by its reader schema, and by what `[event]` needs.

use std::fmt::Write as _;

use kappa_core::decode::{AvroSchema, CompileError, Decoder, Effect, Finding, ReaderSchema};
use serde::Serialize;

use crate::config::{Config, EventConfig};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It must not be so.
    No,
    /// Somebody should have meant it.
    Warning,
    /// Nothing is lost.
    Note,
}

/// A finding with its weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// Path of the field; empty for the schema as a whole.
    pub(super) field: String,
    /// Stable name of what it comes to.
    pub(super) effect: &'static str,
    /// The rule, and what was found.
    pub(super) rule: String,
}

/// All findings about a writer, the worst first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Judgement {
    pub(super) ok: bool,
    pub(super) findings: Vec<Judged>,
}

impl Judgement {
    pub(super) fn of_writer(avsc: &str, references: &[String], reader: &ReaderSchema, config: &Config) -> Self {
        let no = |field: String, effect: Effect, rule: String| Judged {
            verdict: Verdict::No,
            field,
            effect: effect.name(),
            rule,
        };
        // The decoder has the last word: it knows limits too.
        let error = Decoder::compile(avsc, references, reader, &config.decode_limits()).err();
        let mut findings: Vec<Judged> = match AvroSchema::parse(avsc, references) {
            Ok(writer) => {
                let found = writer.read_by(&AvroSchema::from(reader));
                found.into_iter().map(|finding| judge(finding, &config.event)).collect()
            }
            Err(_) => Vec::new(),
        };
        match error {
            Some(CompileError::NotAvro(problem)) => {
                findings = vec![no(String::new(), Effect::Unreadable, format!("not a valid Avro schema: {problem}"))];
            }
            Some(CompileError::Incompatible { path, rule })
                if findings.iter().all(|found| found.verdict != Verdict::No) =>
            {
                findings.push(no(path, Effect::Unreadable, rule));
            }
            _ => {}
        }
        findings.sort_by_key(|finding| finding.verdict);
        Self { ok: findings.iter().all(|finding| finding.verdict != Verdict::No), findings }
    }

    /// The first thing that must not be so, in a sentence.
    pub(super) fn first_no(&self) -> Option<String> {
        let finding = self.findings.iter().find(|finding| finding.verdict == Verdict::No)?;
        Some(if finding.field.is_empty() {
            finding.rule.clone()
        } else {
            format!("field `{}`: {}", finding.field, finding.rule)
        })
    }
}

/// Weighs a finding. Readable is not enough for the fields that make an event.
fn judge(finding: Finding, event: &EventConfig) -> Judged {
    let Finding { field, effect, sentence } = finding;
    let role = role_of(&field, event);
    let (verdict, rule) = match (effect, role) {
        (Effect::Unreadable, _) => (Verdict::No, sentence),
        (Effect::Defaulted, Some(role)) => {
            (Verdict::No, format!("{sentence}; event.{role} needs the sensor's own, not one for all"))
        }
        (Effect::Reinterpreted, Some("time")) => (Verdict::No, format!("{sentence}; event.time would be wrong")),
        (Effect::SomeRefused | Effect::Reinterpreted, _) => (Verdict::Warning, sentence),
        (Effect::Unknown, _) => (Verdict::Note, format!("{sentence}: kept in `_extra`")),
        (Effect::Converted | Effect::Defaulted, _) => (Verdict::Note, sentence),
    };
    Judged { verdict, field, effect: effect.name(), rule }
}

fn role_of(field: &str, event: &EventConfig) -> Option<&'static str> {
    if event.key.iter().any(|key| key == field) {
        return Some("key");
    }
    match field {
        _ if field == event.time => Some("time"),
        _ if field == event.value => Some("value"),
        _ => None,
    }
}

/// One line a finding, the fields below one another.
pub(super) fn listed(findings: &[Judged], indent: &str) -> String {
    let width = findings.iter().map(|finding| finding.field.chars().count()).max().unwrap_or(0).max(6);
    findings.iter().fold(String::new(), |mut text, finding| {
        let verdict = match finding.verdict {
            Verdict::No => "NO",
            Verdict::Warning => "warning",
            Verdict::Note => "note",
        };
        let field = if finding.field.is_empty() { "(whole)" } else { &finding.field };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{indent}{verdict:<8} {field:<width$}  {}", finding.rule);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn judged(writer: &str) -> Vec<(Verdict, String, &'static str)> {
        let config = Sources::default().with_flag("event.key", "id", "t").with_flag("event.time", "at", "t").with_flag(
            "event.value",
            "v",
            "t",
        );
        let config = config.load(crate::config::Needs::Nothing).unwrap().config;
        let reader = ReaderSchema::parse(
            r#"{"type":"record","name":"R","fields":[
            {"name":"id","type":"string","default":""},
            {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"},"default":0},
            {"name":"v","type":"double","default":0},
            {"name":"kind","type":{"type":"enum","name":"K","symbols":["A","B"],"default":"B"},"default":"A"}]}"#,
        );
        let judgement = Judgement::of_writer(writer, &[], &reader.unwrap(), &config);
        assert_eq!(judgement.ok, judgement.first_no().is_none());
        judgement.findings.into_iter().map(|found| (found.verdict, found.field, found.effect)).collect()
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#)
    }

    #[test]
    fn what_makes_an_event_may_not_be_a_default_or_mean_something_else() {
        let of = |verdict, field: &str, effect| (verdict, field.to_owned(), effect);
        let no_value = record(r#"{"name":"id","type":"string"},{"name":"at","type":"long"}"#);
        let expected = [
            of(Verdict::No, "v", "defaulted"),
            of(Verdict::Note, "at", "converted"),
            of(Verdict::Note, "kind", "defaulted"),
        ];
        assert_eq!(judged(&no_value), expected);
        let other_unit = record(
            r#"{"name":"id","type":"string"},{"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
               {"name":"v","type":["null","double"]},{"name":"new","type":"int"},
               {"name":"kind","type":{"type":"enum","name":"K","symbols":["C"]}}"#,
        );
        let expected = [
            of(Verdict::No, "at", "reinterpreted"),
            of(Verdict::Warning, "v", "some_refused"),
            of(Verdict::Warning, "kind", "reinterpreted"),
            of(Verdict::Note, "new", "unknown"),
        ];
        assert_eq!(judged(&other_unit), expected);
        assert_eq!(judged("{"), [of(Verdict::No, "", "unreadable")]);
        assert_eq!(judged(r#""string""#), [of(Verdict::No, "", "unreadable")]);
    }
}
