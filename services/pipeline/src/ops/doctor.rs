//! `kappa doctor`: asks everything that the pipeline depends on, and says what is wrong and what to do about it.
//!
//! The checks run at once, each with its own limit of time, and none changes anything but the probes' own objects.

mod hot_store;
mod kafka;
mod registry;
mod stores;

use std::fmt;
use std::time::Duration;

use kappa_core::decode::ReaderSchema;
use serde::Serialize;

use super::advice::{Advised, causes};
use super::memory_limit::memory_limit;
use crate::config::Config;

/// Longest time for one group of checks.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// It works, and somebody should look at it.
    Warn,
    /// The pipeline would not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { name: name.into(), outcome: Outcome::Ok, detail: detail.into(), advice: None }
    }

    fn warn(name: impl Into<String>, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warn, advice: Some(advice.into()), ..Self::ok(name, detail) }
    }

    fn fail(name: impl Into<String>, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, advice: Some(advice.into()), ..Self::ok(name, detail) }
    }

    /// A failure whose advice, if it has one, comes with the error.
    fn error(name: impl Into<String>, error: &anyhow::Error) -> Self {
        let advice = error.downcast_ref::<Advised>().map(|advised| advised.advice().to_owned());
        Self { outcome: Outcome::Fail, advice, ..Self::ok(name, causes(error).join(": ")) }
    }
}

/// All checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Whether the pipeline can be expected to work.
    pub healthy: bool,
    /// In the order of the event's way.
    pub checks: Vec<Check>,
}

/// Runs all checks.
pub async fn examine(config: &Config) -> Diagnosis {
    let (reader, schema_checks) = reader_schema(config);
    let (kafka, registry, stores, hot_store) = tokio::join!(
        limited("kafka", kafka::check(config)),
        limited("registry", registry::check(config, reader.as_ref())),
        stores::check(config),
        limited("hot store", hot_store::check(config)),
    );
    let mut checks = Vec::new();
    for group in [kafka, registry, schema_checks, stores, hot_store, vec![memory(config)]] {
        checks.extend(group);
    }
    let healthy = checks.iter().all(|check| check.outcome != Outcome::Fail);
    Diagnosis { healthy, checks }
}

async fn limited(name: &str, checks: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    let late = |_| {
        let detail = format!("no answer in {} s", TIMEOUT.as_secs());
        vec![Check::fail(name, detail, "check the address, and that no firewall swallows the connection")]
    };
    tokio::time::timeout(TIMEOUT, checks).await.unwrap_or_else(late)
}

fn reader_schema(config: &Config) -> (Option<ReaderSchema>, Vec<Check>) {
    const NAME: &str = "reader schema";
    let text = match config.reader_schema() {
        Ok(text) => text,
        Err(error) => return (None, vec![Check::error(NAME, &error)]),
    };
    let reader = match ReaderSchema::parse(&text) {
        Ok(reader) => reader,
        Err(error) => {
            return (None, vec![Check::fail(NAME, error.to_string(), "mend the schema that event.schema names")]);
        }
    };
    let check = match config.validate_against(&reader) {
        Ok(()) => {
            let fields = reader.arrow_fields().len();
            Check::ok(NAME, format!("{fields} fields, series by {}", config.event.key.join(", ")))
        }
        Err(error) => Check::fail(NAME, error.to_string(), "name fields of the reader schema in [event]"),
    };
    (Some(reader), vec![check])
}

fn memory(config: &Config) -> Check {
    const NAME: &str = "memory";
    const ADVICE: &str = "lower limits.memory, or give the process more: besides the budget it needs some 200 MiB";
    let budget = config.limits.memory;
    let Some(limit) = memory_limit() else {
        return Check::warn(
            NAME,
            "the system does not say how much there is",
            "compare it with limits.memory yourself",
        );
    };
    let detail = format!("limits.memory is {} MiB of {} MiB", budget >> 20, limit >> 20);
    match budget.saturating_mul(100) / limit.max(1) {
        0..=70 => Check::ok(NAME, detail),
        71..=90 => Check::warn(NAME, detail, ADVICE),
        _ => Check::fail(NAME, detail, ADVICE),
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
        for check in &self.checks {
            let outcome = match check.outcome {
                Outcome::Ok => "ok",
                Outcome::Warn => "warn",
                Outcome::Fail => "FAIL",
            };
            let indent = format!("\n{:1$}", "", 8 + width);
            writeln!(formatter, "{outcome:<4}  {:<width$}  {}", check.name, check.detail.replace('\n', &indent))?;
            if let Some(advice) = check.advice.as_ref().filter(|_| check.outcome != Outcome::Ok) {
                writeln!(formatter, "{:4}  {:width$}  what to do: {advice}", "", "")?;
            }
        }
        let count = |outcome| self.checks.iter().filter(|check| check.outcome == outcome).count();
        let (warnings, failures) = (count(Outcome::Warn), count(Outcome::Fail));
        write!(formatter, "{} checks, {warnings} warnings, {failures} failures", self.checks.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn with_nothing_there_every_dependency_fails_and_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("url = \"file://{}/{name}\"", directory.path().display());
        let text = format!(
            "[kafka]\nbrokers = \"127.0.0.1:1\"\n[registry]\nurl = \"http://127.0.0.1:1\"\n[hot_store]\nurl = \
             \"http://127.0.0.1:1\"\n[archive]\n{}\n[dead_letter]\n{}\n[state]\n{}\n",
            url("archive"),
            url("dead"),
            url("state"),
        );
        let diagnosis = examine(&Config::from_toml(&text).unwrap()).await;
        assert!(!diagnosis.healthy);
        let outcome = |name: &str| diagnosis.checks.iter().find(|check| check.name == name).map(|check| check.outcome);
        assert_eq!(outcome("kafka brokers"), Some(Outcome::Fail));
        assert_eq!(outcome("registry"), Some(Outcome::Fail));
        assert_eq!(outcome("reader schema"), Some(Outcome::Ok));
        assert_eq!(outcome("archive"), Some(Outcome::Ok));
        assert_eq!(outcome("hot store"), Some(Outcome::Fail));
        let failed = diagnosis.checks.iter().filter(|check| check.outcome == Outcome::Fail);
        assert!(failed.clone().all(|check| check.advice.is_some()), "{diagnosis}");
        assert!(diagnosis.to_string().contains("what to do:"), "{diagnosis}");
    }
}
