//! `kappa metrics`: the table of metrics for people and for programs.

use std::fmt::Write as _;

use metrics::Unit;
use serde_json::json;

use super::catalogue::METRICS;

/// The forms in which the table is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TableFormat {
    /// A table for people: `docs/metrics.md` is this.
    Markdown,
    /// For programs.
    Json,
}

const INTRODUCTION: &str = "\
# Metrics

What `/metrics` of `kappa run` exports. This page is generated: `kappa metrics > docs/metrics.md`; for programs there is
`kappa metrics --format json`. A histogram has the series `_bucket`, `_sum` and `_count`.

";

/// The whole table as text.
pub fn document(format: TableFormat) -> anyhow::Result<String> {
    match format {
        TableFormat::Markdown => Ok(markdown()),
        TableFormat::Json => json(),
    }
}

fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind.name(),
            unit_name(metric.unit),
            labels.join(", "),
            metric.help
        );
    }
    text
}

fn json() -> anyhow::Result<String> {
    let lines: Vec<_> = METRICS
        .iter()
        .map(|metric| {
            json!({
                "name": metric.name,
                "type": metric.kind,
                "unit": unit_name(metric.unit),
                "labels": metric.labels,
                "meaning": metric.help,
            })
        })
        .collect();
    Ok(serde_json::to_string_pretty(&lines)? + "\n")
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_documentation_is_up_to_date() {
        let page = include_str!("../../../../../docs/metrics.md");
        assert_eq!(page, markdown(), "write it anew: target/release/kappa metrics > docs/metrics.md");
    }

    #[test]
    fn programs_get_the_same_lines() {
        let lines: serde_json::Value = serde_json::from_str(&json().unwrap()).unwrap();
        assert_eq!(lines.as_array().unwrap().len(), METRICS.len());
        let lag =
            lines.as_array().unwrap().iter().find(|line| line["name"] == "kafka_consumergroup_lag_seconds").unwrap();
        assert_eq!((&lag["type"], &lag["unit"]), (&"gauge".into(), &"seconds".into()));
        assert_eq!(lag["labels"], json!(["consumergroup", "topic", "partition"]));
    }
}
