//! One dead letter as far as it can be seen: the record, the event decoded up to the fault, the bytes around it.

use std::fmt::{self, Write as _};

use kappa_core::decode::unframe;
use serde::Serialize;
use serde_json::{Map, Value};

use super::explanation::{Explanation, explain_reason};
use super::expression::json_of;
use super::judge::{Judge, Verdict, as_batch};
use super::ledger::Ledger;
use super::selection::Address;
use super::summary::readable;
use crate::dead_letters::DeadLetter;
use crate::ops::hex;
use crate::verify::shown_time;

/// Bytes in a line of the hexadecimal view.
const LINE: usize = 16;
/// Lines before and behind the one with the fault, where the value is long.
const LINES_AROUND: usize = 6;

/// Everything that is known of a dead letter.
#[derive(Debug, Serialize)]
pub struct Exhibit {
    topic: String,
    /// PARTITION/OFFSET.
    address: String,
    timestamp: String,
    reason: String,
    detail: String,
    attempt: i32,
    key: Option<String>,
    headers: Vec<(String, Option<String>)>,
    /// The schema that the framing names: a number or a GUID.
    schema: Option<String>,
    /// Its text, if the registry knows it.
    schema_text: Option<Value>,
    /// The fields that could be read.
    event: Option<Map<String, Value>>,
    /// What ended the reading, in the writer's own schema.
    failure: Option<Failure>,
    value_bytes: Option<usize>,
    value_hex: Option<String>,
    /// What the pipeline would say now.
    now: Verdict,
    /// When it was sent again.
    redriven: Option<String>,
    #[serde(skip)]
    value: Vec<u8>,
    explanation: Explanation,
}

#[derive(Debug, Serialize)]
struct Failure {
    field: Option<String>,
    detail: String,
    /// Byte of the whole value.
    value_byte: usize,
}

impl Exhibit {
    /// Looks at a dead letter.
    pub async fn of(letter: &DeadLetter, judge: &mut Judge, ledger: &Ledger) -> anyhow::Result<Self> {
        let address = Address::of(letter);
        let batch = as_batch(letter.value.as_deref(), &letter.headers, letter.timestamp_ms);
        let record = batch.get(0);
        let (mut schema, mut schema_text, mut event, mut failure) = (None, None, None, None);
        if let Ok((reference, body)) = unframe(record.value, record.headers) {
            schema = Some(reference.to_string());
            if let Ok(writer) = judge.writer(reference).await? {
                schema_text = serde_json::from_str(&writer.avsc).ok();
                let reading = writer.natural.read(body);
                let frame = letter.value.as_ref().map_or(0, Vec::len) - body.len();
                failure = reading.failure.as_ref().map(|failure| Failure {
                    field: failure.field.clone(),
                    detail: failure.reject.detail.clone(),
                    value_byte: frame + failure.byte,
                });
                let fields = reading.fields.iter();
                event = Some(fields.map(|(name, text)| (name.clone(), json_of(text))).collect());
            }
        }
        // As a redrive would send it: with a timestamp of its own.
        let timestamp_ms = chrono::Utc::now().timestamp_millis();
        let now = judge.verdict(letter.value.as_deref(), &letter.headers, timestamp_ms).await?;
        Ok(Self {
            topic: letter.topic.clone(),
            address: address.to_string(),
            timestamp: shown_time(letter.timestamp_ms),
            reason: letter.reason.clone(),
            detail: letter.detail.clone(),
            attempt: letter.attempt,
            key: letter.key.as_deref().map(readable),
            headers: letter
                .headers
                .iter()
                .map(|(name, content)| (name.clone(), content.as_deref().map(readable)))
                .collect(),
            schema,
            schema_text,
            event,
            failure,
            value_bytes: letter.value.as_ref().map(Vec::len),
            value_hex: letter.value.as_deref().map(hex),
            now,
            redriven: ledger.batch_of(address).map(|batch| batch.intent.at.clone()),
            value: letter.value.clone().unwrap_or_default(),
            explanation: explain_reason(&letter.reason, judge.contract()),
        })
    }

    /// Why it was refused and what to do, in place of what it holds.
    pub fn explained(&self) -> String {
        let mut out = format!("{}  {}\n\n", self.address, self.reason);
        let mut section = |title: &str, text: &str| {
            let _ = writeln!(out, "{title:<11}{text}");
        };
        section("found", &self.detail);
        section("means", &self.explanation.meaning);
        section("usually", &self.explanation.cause);
        section("do", &self.explanation.remedy);
        match &self.now {
            _ if self.redriven.is_some() => section("now", "it was sent again already; it is never sent twice"),
            Verdict::Accepted => {
                section("now", "the pipeline would take it as it is");
                section("command", &format!("kappa dlq redrive {} --dry-run", self.address));
            }
            Verdict::Refused { reason, detail } => {
                let same = if *reason == self.reason { "would be refused again" } else { "would be refused, now as" };
                section("now", &format!("{same} {reason}: {detail}"));
                for command in self.explanation.commands {
                    section("command", &command.replace("ADDRESS", &self.address));
                }
            }
        }
        out
    }
}

/// Lines of sixteen bytes; the one at which the fault is stands in brackets.
fn hex_view(value: &[u8], marked: Option<usize>) -> String {
    let mut out = String::new();
    let center = marked.unwrap_or(0) / LINE;
    let (first, last) = (center.saturating_sub(LINES_AROUND), center + LINES_AROUND);
    let mut skipped = false;
    for (number, line) in value.chunks(LINE).enumerate() {
        if !(first..=last).contains(&number) {
            if !skipped {
                out.push_str("  …\n");
            }
            skipped = true;
            continue;
        }
        skipped = false;
        let _ = write!(out, "  {:06x} ", number * LINE);
        for index in 0..LINE {
            let at = number * LINE + index;
            let byte = line.get(index).map_or_else(|| "  ".to_owned(), |byte| format!("{byte:02x}"));
            let (before, behind) = if marked == Some(at) { ('[', ']') } else { (' ', ' ') };
            let _ = write!(out, "{before}{byte}{behind}");
        }
        let text: String =
            line.iter().map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' }).collect();
        let _ = writeln!(out, " {text}");
    }
    if marked == Some(value.len()) && value.len().is_multiple_of(LINE) {
        let _ = writeln!(out, "  {:06x} [  ]", value.len());
    }
    out
}

impl fmt::Display for Exhibit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{} {}  {}", self.topic, self.address, self.timestamp)?;
        writeln!(out, "reason    {}", self.reason)?;
        writeln!(out, "detail    {}", self.detail)?;
        match &self.now {
            Verdict::Accepted => writeln!(out, "now       the pipeline would take it as it is")?,
            Verdict::Refused { reason, detail } => writeln!(out, "now       {reason}: {detail}")?,
        }
        if let Some(at) = &self.redriven {
            writeln!(out, "redriven  {at}")?;
        }
        if self.attempt > 0 {
            writeln!(out, "attempt   {}: it was sent again and refused again", self.attempt)?;
        }
        writeln!(out, "key       {}", self.key.as_deref().unwrap_or("none"))?;
        for (name, content) in &self.headers {
            writeln!(out, "header    {name}: {}", content.as_deref().unwrap_or("null"))?;
        }
        match (&self.schema, &self.schema_text) {
            (None, _) => writeln!(out, "schema    its bytes name none")?,
            (Some(name), None) => writeln!(out, "schema    {name}, which the registry does not have as Avro")?,
            (Some(name), Some(text)) => writeln!(out, "schema    {name}: {text}")?,
        }
        if let Some(event) = &self.event {
            writeln!(out, "event     as far as it can be read:")?;
            for (name, value) in event {
                writeln!(out, "  {name}: {value}")?;
            }
            if let Some(failure) = &self.failure {
                writeln!(out, "  {} ✗ {}", failure.field.as_deref().unwrap_or("(end)"), failure.detail)?;
            }
        }
        match self.value_bytes {
            None => write!(out, "value     null"),
            Some(bytes) => {
                let marked = self.failure.as_ref().map(|failure| failure.value_byte);
                writeln!(out, "value     {bytes} bytes")?;
                write!(out, "{}", hex_view(&self.value, marked).trim_end_matches('\n'))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_at_fault_stands_in_brackets() {
        let value: Vec<u8> = (0..40).collect();
        let view = hex_view(&value, Some(18));
        assert_eq!(view.lines().count(), 3);
        assert!(view.contains(" 11 [12] 13 "), "{view}");
        assert!(hex_view(&value[..32], Some(32)).ends_with("000020 [  ]\n"));
        let long = vec![0; 10_000];
        let view = hex_view(&long, Some(5_000));
        assert_eq!(view.lines().count(), 2 * LINES_AROUND + 3, "{view}");
    }
}
