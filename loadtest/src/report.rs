//! The report: a JSON for programs and an HTML page, complete in itself, for people.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use crate::checks::Check;
use crate::cost::{Position, Prices, bill};
use crate::detection::Detection;
use crate::environment::Environment;
use crate::gates::{Gate, Readings, Verdict, judge};
use crate::measured::{Figure, Measured, milliseconds};
use crate::progress::grouped;
use crate::scenario::Scenario;
use crate::timeline::{Columns, columns, latency_by_second};

const PAGE: &str = include_str!("../assets/report.html");
const CHARTS: &str = include_str!("../../assets/uplot/uPlot.iife.min.js");
const CHARTS_STYLE: &str = include_str!("../../assets/uplot/uPlot.min.css");

/// The percentiles of the latency plot.
const PERCENTILES: [f64; 22] = [
    0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 97.0, 98.0, 99.0, 99.5, 99.7, 99.8, 99.9, 99.95,
    99.97, 99.99, 100.0,
];

/// Everything, as it is written.
#[derive(Debug, Serialize)]
pub struct Report {
    kind: &'static str,
    verdict: Verdict,
    /// Name of the scenario.
    name: String,
    ended_early: bool,
    started_ms: i64,
    scenario: Scenario,
    environment: Environment,
    gates: Vec<Gate>,
    /// Stable numbers by name, for `--compare`.
    pub figures: Vec<Figure>,
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unchecked: Option<String>,
    latency: Latency,
    generator: GeneratorReport,
    detection: Option<Detection>,
    cost: Cost,
    timeline: Columns,
    /// The part that is judged, seconds from the start.
    steady: (f64, f64),
}

/// What a billion events like these cost, by list prices.
#[derive(Debug, Serialize)]
struct Cost {
    bill: Vec<Position>,
    prices: Prices,
}

/// The distribution of latency, and how far it can be trusted.
#[derive(Debug, Serialize)]
struct Latency {
    canaries_sent: u64,
    canaries_judged: u64,
    /// Percentile and milliseconds.
    percentiles: Vec<(f64, f64)>,
    polls: u64,
    poll_failures: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_poll_failure: Option<String>,
    /// Time from answer to answer: a latency is too long by at most this. Median, 99th percentile, largest.
    poll_gap_ms: [f64; 3],
    /// Time that ClickHouse took to answer. Median, 99th percentile, largest.
    poll_answer_ms: [f64; 3],
}

#[derive(Debug, Serialize)]
struct GeneratorReport {
    records: u64,
    valid: u64,
    late: u64,
    invalid: u64,
    never_sent: u64,
    failed: u64,
    slipped: u64,
    slip_limit_ms: f64,
    slip_p50_ms: f64,
    slip_p99_ms: f64,
    slip_p999_ms: f64,
    slip_max_ms: f64,
    sending_seconds: f64,
    flushing_seconds: f64,
}

impl Report {
    /// Of a run.
    pub fn new(measured: &mut Measured, environment: Environment) -> anyhow::Result<Self> {
        let (verdict, gates) = judge(&measured.scenario.gates, &Readings::of(measured)?);
        let latencies = latency_by_second(&measured.arrivals, measured.start_ms);
        let curve = measured.scenario.curve();
        let steady = measured.steady();
        let figures = measured.figures()?;
        let prices = Prices::load(None)?;
        Ok(Self {
            kind: "kappa-load",
            verdict,
            name: measured.name.clone(),
            ended_early: measured.ended_early,
            started_ms: measured.start_ms,
            environment,
            gates,
            cost: Cost { bill: bill(&figures, &prices), prices },
            figures,
            checks: measured.checks.clone(),
            unchecked: measured.unchecked.clone(),
            latency: latency(measured)?,
            generator: generator(measured),
            detection: measured.detection.clone(),
            timeline: columns(&measured.samples, &latencies, |at| curve.rate_at(at)),
            steady: (steady.start, steady.end),
            scenario: measured.scenario.clone(),
        })
    }

    /// How it ended.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The gates that are not passed.
    pub fn failed_gates(&self) -> impl Iterator<Item = &'static str> {
        self.gates.iter().filter(|gate| !gate.passed).map(|gate| gate.name)
    }

    /// A figure by its name; 0 if it was not measured.
    pub fn figure(&self, name: &str) -> f64 {
        self.figures.iter().find(|figure| figure.name == name).map_or(0.0, |figure| figure.value)
    }

    /// Writes `<stem>.json` and `<stem>.html` into the directory; where the page is.
    pub fn write(&self, directory: &Path, stem: &str) -> anyhow::Result<PathBuf> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let json = directory.join(format!("{stem}.json"));
        let page = directory.join(format!("{stem}.html"));
        fs::write(&json, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", json.display()))?;
        fs::write(&page, self.page()?).with_context(|| format!("cannot write {}", page.display()))?;
        Ok(page)
    }

    fn page(&self) -> anyhow::Result<String> {
        // The data must not end the element that it stands in.
        let data = serde_json::to_string(self)?.replace("</", "<\\/");
        Ok(PAGE
            .replacen("/*CHARTS_STYLE*/", CHARTS_STYLE, 1)
            .replacen("/*CHARTS*/", &CHARTS.replace("</script", "<\\/script"), 1)
            .replacen("/*DATA*/", &data, 1))
    }

    /// For the terminal.
    pub fn summary(&self) -> String {
        let mut lines = vec![format!(
            "{}: {} events/s for {:.0} s, {} events sent",
            self.name,
            grouped(self.figure("rate_sent")),
            self.generator.sending_seconds,
            grouped(self.generator.records as f64)
        )];
        lines.push(format!(
            "latency from intended time to visible in ClickHouse: p50 {:.0} ms, p99 {:.0} ms, p99.9 {:.0} ms, max {:.0} ms ({} canaries; measured at most {:.0} ms too long)",
            self.figure("latency_p50_ms"),
            self.figure("latency_p99_ms"),
            self.figure("latency_p999_ms"),
            self.figure("latency_max_ms"),
            grouped(self.latency.canaries_judged as f64),
            self.latency.poll_gap_ms[1],
        ));
        lines.push(format!(
            "lag p50 {} records, max {}; kappa {:.2} cores, {:.0} MiB; generator {:.2} cores, slips {:.4} %, worst {:.0} ms; waiting for Kafka p90 {:.0} ms",
            grouped(self.figure("lag_records_p50")),
            grouped(self.figure("lag_records_max")),
            self.figure("kappa_cpu_cores"),
            self.figure("kappa_rss_p50_mib"),
            self.figure("generator_cpu_cores"),
            self.figure("slipped_share"),
            self.generator.slip_max_ms,
            self.figure("kafka_waiting_p90_ms"),
        ));
        if let Some(detection) = &self.detection {
            let kinds = detection.by_kind.iter().map(|(kind, hits)| {
                format!("{} of {} {}", hits.found, hits.injected, format!("{kind:?}").to_lowercase())
            });
            let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0));
            lines.push(format!(
                "anomalies found: {}; recall {}, precision {}",
                kinds.collect::<Vec<_>>().join(", "),
                share(detection.recall),
                share(detection.precision)
            ));
        }
        for gate in &self.gates {
            let mark = if gate.passed { "ok    " } else { "FAILED" };
            lines.push(format!("  {mark}  {}: {} ({})", gate.name, gate.measured, gate.limit));
        }
        let early = if self.ended_early { " (ended early, by hand)" } else { "" };
        lines.push(format!("verdict: {}{early}", self.verdict.text()));
        lines.join("\n")
    }
}

fn latency(measured: &mut Measured) -> anyhow::Result<Latency> {
    let histogram = measured.steady_latency()?;
    let sent = measured.arrivals.len() as u64 + measured.canaries_missing;
    let percentiles = PERCENTILES
        .into_iter()
        .map(|percentile| (percentile, histogram.value_at_percentile(percentile) as f64 / 1_000.0))
        .collect();
    let polls = &mut measured.polls;
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percent| polls.at(percent));
    let tenths = |time| (milliseconds(time) * 10.0).round() / 10.0;
    Ok(Latency {
        canaries_sent: sent,
        canaries_judged: histogram.len(),
        percentiles,
        polls: polls.polls(),
        poll_failures: polls.failures,
        last_poll_failure: polls.last_failure.clone(),
        poll_gap_ms: [p50.0, p99.0, max.0].map(tenths),
        poll_answer_ms: [p50.1, p99.1, max.1].map(tenths),
    })
}

fn generator(measured: &Measured) -> GeneratorReport {
    let outcome = &measured.outcome;
    let punctuality = &outcome.punctuality;
    GeneratorReport {
        records: outcome.sent.records(),
        valid: outcome.sent.valid,
        late: outcome.sent.late,
        invalid: outcome.sent.invalid_records(),
        never_sent: punctuality.never_sent,
        failed: outcome.failed,
        slipped: punctuality.slipped,
        slip_limit_ms: milliseconds(measured.scenario.gates.slip_limit),
        slip_p50_ms: milliseconds(punctuality.delay_at(50.0)),
        slip_p99_ms: milliseconds(punctuality.delay_at(99.0)),
        slip_p999_ms: milliseconds(punctuality.delay_at(99.9)),
        slip_max_ms: milliseconds(punctuality.worst),
        sending_seconds: outcome.sending.as_secs_f64(),
        flushing_seconds: outcome.flushing.as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_complete_in_itself() {
        for placeholder in ["/*CHARTS_STYLE*/", "/*CHARTS*/", "/*DATA*/"] {
            assert_eq!(PAGE.matches(placeholder).count(), 1, "{placeholder}");
        }
        let page = PAGE.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
            assert!(!CHARTS_STYLE.contains(outside), "{outside}");
        }
        assert!(CHARTS.contains("v1.6.32"), "the licence file beside it is for this version");
    }
}
