//! The verdict: what was asked for, what was measured, and whether the one is within the other.

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use crate::checks::Check;
use crate::measured::Measured;
use crate::scenario::Gates;
use crate::send::Outcome;
use crate::shape::RateCurve;
use crate::statistics::{largest, quantile};

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every gate is passed.
    Passed,
    /// At least one is not.
    Failed,
    /// The generator or Kafka was the limit: nothing can be said about the pipeline.
    NotValid,
}

impl Verdict {
    /// The program's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::NotValid => 3,
        }
    }

    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::NotValid => "not valid",
        }
    }
}

/// One gate.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gate {
    /// Which.
    pub name: &'static str,
    /// What was asked for.
    pub limit: String,
    /// What was measured.
    pub measured: String,
    /// Whether it is passed.
    pub passed: bool,
    /// What it judges.
    pub judges: Subject,
}

/// What a gate judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// The run itself: whether the others mean anything.
    Validity,
    /// The pipeline.
    Pipeline,
}

/// What the gates look at.
#[derive(Debug, Clone, Default)]
pub struct Readings {
    rate: f64,
    lag_growth: f64,
    lag_seconds: f64,
    latency_p50: Duration,
    latency_p99: Duration,
    latency_p999: Duration,
    canaries_missing: u64,
    canaries_seen: u64,
    memory_growth: Option<f64>,
    drain: Option<Duration>,
    failed_deliveries: u64,
    differing: Vec<Check>,
    checks: usize,
    unchecked: Option<String>,
    recall: Option<f64>,
    precision: Option<f64>,
    slipped_share: f64,
    worst_slip: Duration,
    /// What waited for Kafka, in time at the rate: median and 90th percentile.
    waiting: (Duration, Duration),
}

impl Readings {
    /// Of a run.
    pub fn of(measured: &Measured) -> anyhow::Result<Self> {
        let latency = measured.steady_latency()?;
        let at = |percent| Duration::from_micros(latency.value_at_percentile(percent));
        let seconds: Vec<f64> = measured.steady_samples().iter().map(|sample| sample.lag_seconds).collect();
        Ok(Self {
            rate: measured.rate_sent(),
            lag_growth: measured.lag_growth(),
            lag_seconds: largest(&seconds),
            latency_p50: at(50.0),
            latency_p99: at(99.0),
            latency_p999: at(99.9),
            canaries_missing: measured.canaries_missing,
            canaries_seen: latency.len(),
            memory_growth: measured.memory_growth(),
            drain: measured.drain,
            differing: measured.checks.iter().filter(|check| !check.is_ok()).cloned().collect(),
            checks: measured.checks.len(),
            unchecked: measured.unchecked.clone(),
            recall: measured.detection.as_ref().and_then(|detection| detection.recall),
            precision: measured.detection.as_ref().and_then(|detection| detection.precision),
            ..Self::of_sending(&measured.outcome, &measured.scenario.curve(), &measured.steady())
        })
    }

    /// Only what the gates of the run itself look at.
    pub fn of_sending(outcome: &Outcome, curve: &RateCurve, part: &Range<f64>) -> Self {
        let waiting = outcome.waiting_seconds(curve, part);
        let waiting_at = |share| Duration::from_secs_f64(quantile(&waiting, share));
        Self {
            failed_deliveries: outcome.failed,
            slipped_share: outcome.punctuality.slipped_share(),
            worst_slip: outcome.punctuality.worst,
            waiting: (waiting_at(0.5), waiting_at(0.9)),
            ..Self::default()
        }
    }
}

/// Judges. The first gates are those of the run itself.
pub fn judge(gates: &Gates, readings: &Readings) -> (Verdict, Vec<Gate>) {
    let mut judged = judge_validity(gates, readings);
    judge_lag(gates, readings, &mut judged);
    judge_latency(gates, readings, &mut judged);
    judge_memory_and_drain(gates, readings, &mut judged);
    if gates.exact {
        judged.push(exactness(readings));
    }
    judge_detection(gates, readings, &mut judged);
    let has_failed = |subject| judged.iter().any(|gate| gate.judges == subject && !gate.passed);
    let verdict = match (has_failed(Subject::Validity), has_failed(Subject::Pipeline)) {
        (true, _) => Verdict::NotValid,
        (false, true) => Verdict::Failed,
        (false, false) => Verdict::Passed,
    };
    (verdict, judged)
}

/// Judges the run itself: whether the generator or Kafka was the limit.
pub fn judge_validity(gates: &Gates, readings: &Readings) -> Vec<Gate> {
    let gate = |name, limit, measured, passed| Gate { name, limit, measured, passed, judges: Subject::Validity };
    let (median, p90) = readings.waiting;
    vec![
        gate(
            "the generator kept its schedule",
            format!("at most {} of the events more than {} late", percent(gates.slips), span(gates.slip_limit)),
            format!("{} were; the worst by {}", percent(readings.slipped_share), span(readings.worst_slip)),
            readings.slipped_share <= gates.slips,
        ),
        gate(
            "Kafka took every event at once",
            format!("at p90, what waits for it is worth at most {} of the rate", span(gates.waiting)),
            format!("p90 {}, median {}", span(p90), span(median)),
            p90 <= gates.waiting,
        ),
        gate(
            "Kafka acknowledged every event",
            "all".to_owned(),
            format!("{} not acknowledged", readings.failed_deliveries),
            readings.failed_deliveries == 0,
        ),
    ]
}

fn judge_lag(gates: &Gates, readings: &Readings, judged: &mut Vec<Gate>) {
    if let Some(limit) = gates.lag_growth {
        let growth = readings.lag_growth / readings.rate.max(1e-3);
        judged.push(Gate {
            name: "sustained: the lag does not grow",
            limit: format!("by at most {} of the rate", percent(limit)),
            measured: format!("{:+.1} records a second, {:.2} %", readings.lag_growth, growth * 100.0),
            passed: growth <= limit,
            judges: Subject::Pipeline,
        });
    }
    if let Some(limit) = gates.lag_seconds {
        judged.push(Gate {
            name: "lag",
            limit: format!("at most {limit} s"),
            measured: format!("at most {:.2} s", readings.lag_seconds),
            passed: readings.lag_seconds <= limit,
            judges: Subject::Pipeline,
        });
    }
}

fn judge_latency(gates: &Gates, readings: &Readings, judged: &mut Vec<Gate>) {
    let limits = [
        ("latency p50", gates.latency_p50, readings.latency_p50),
        ("latency p99", gates.latency_p99, readings.latency_p99),
        ("latency p99.9", gates.latency_p999, readings.latency_p999),
    ];
    for (name, limit, measured) in limits {
        let Some(limit) = limit else {
            continue;
        };
        judged.push(Gate {
            name,
            limit: format!("at most {}", span(limit)),
            measured: span(measured),
            passed: measured <= limit && readings.canaries_seen > 0,
            judges: Subject::Pipeline,
        });
    }
    judged.push(Gate {
        name: "every canary became visible",
        limit: "all".to_owned(),
        measured: format!("{} seen, {} never", readings.canaries_seen, readings.canaries_missing),
        passed: readings.canaries_missing == 0 && readings.canaries_seen > 0,
        judges: Subject::Pipeline,
    });
}

fn judge_memory_and_drain(gates: &Gates, readings: &Readings, judged: &mut Vec<Gate>) {
    // Without a pid, or after a short run, nothing is known of it, which is no fault of the pipeline.
    if let (Some(limit), Some(growth)) = (gates.memory_growth, readings.memory_growth) {
        judged.push(Gate {
            name: "memory stays flat",
            limit: format!("second half at most {} above the first", percent(limit)),
            measured: format!("{:+.1} %", growth * 100.0),
            passed: growth <= limit,
            judges: Subject::Pipeline,
        });
    }
    if let Some(limit) = gates.drain {
        judged.push(Gate {
            name: "the rest is processed soon",
            limit: format!("within {}", span(limit)),
            measured: readings.drain.map_or("never".to_owned(), span),
            passed: readings.drain.is_some_and(|drain| drain <= limit),
            judges: Subject::Pipeline,
        });
    }
}

fn exactness(readings: &Readings) -> Gate {
    let measured = match (&readings.unchecked, readings.differing.first()) {
        (Some(why), _) => format!("not known: {why}"),
        (None, Some(check)) => {
            let others = readings.differing.len() - 1;
            let more = if others > 0 { format!(", and {others} more") } else { String::new() };
            format!("{}: {} expected, {} found{more}", check.what, check.expected, check.found)
        }
        (None, None) => format!("{} counts agree", readings.checks),
    };
    Gate {
        name: "nothing lost, nothing twice",
        limit: "all counts agree".to_owned(),
        measured,
        passed: readings.unchecked.is_none() && readings.differing.is_empty() && readings.checks > 0,
        judges: Subject::Pipeline,
    }
}

fn judge_detection(gates: &Gates, readings: &Readings, judged: &mut Vec<Gate>) {
    let limits =
        [("anomaly recall", gates.recall, readings.recall), ("anomaly precision", gates.precision, readings.precision)];
    for (name, limit, measured) in limits {
        let Some(limit) = limit else {
            continue;
        };
        judged.push(Gate {
            name,
            limit: format!("at least {}", percent(limit)),
            measured: measured.map_or("nothing to tell it by".to_owned(), percent),
            passed: measured.is_some_and(|measured| measured >= limit),
            judges: Subject::Pipeline,
        });
    }
}

fn span(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1_000.0)
    } else {
        format!("{} s", (seconds * 100.0).round() / 100.0)
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 {
        "none".to_owned()
    } else if percent.abs() < 0.1 {
        format!("{percent:.4} %")
    } else {
        format!("{percent:.1} %")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenarios;

    fn good() -> Readings {
        Readings {
            rate: 50_000.0,
            latency_p50: Duration::from_millis(600),
            latency_p99: Duration::from_millis(1_300),
            latency_p999: Duration::from_millis(1_500),
            canaries_seen: 1_000,
            memory_growth: Some(0.01),
            drain: Some(Duration::from_secs(1)),
            checks: 6,
            ..Readings::default()
        }
    }

    fn verdict(change: impl FnOnce(&mut Readings)) -> (Verdict, Vec<&'static str>) {
        let mut gates = Scenarios::load(None).unwrap().get("steady").unwrap().gates;
        (gates.recall, gates.latency_p50) = (Some(0.5), Some(Duration::from_secs(2)));
        let mut readings = good();
        readings.recall = Some(0.9);
        change(&mut readings);
        let (verdict, judged) = judge(&gates, &readings);
        (verdict, judged.into_iter().filter(|gate| !gate.passed).map(|gate| gate.name).collect())
    }

    #[test]
    fn each_gate_fails_alone() {
        assert_eq!(verdict(|_| ()), (Verdict::Passed, vec![]));
        let failed = |name| (Verdict::Failed, vec![name]);
        let check = Check { what: "events".to_owned(), expected: 2, found: 1 };
        assert_eq!(verdict(|r| r.lag_growth = 501.0), failed("sustained: the lag does not grow"));
        assert_eq!(verdict(|r| r.lag_growth = -9_000.0), (Verdict::Passed, vec![]));
        assert_eq!(verdict(|r| r.lag_seconds = 11.0), failed("lag"));
        assert_eq!(verdict(|r| r.latency_p50 = Duration::from_secs(3)), failed("latency p50"));
        assert_eq!(verdict(|r| r.latency_p99 = Duration::from_secs(4)), failed("latency p99"));
        assert_eq!(verdict(|r| r.latency_p999 = Duration::from_secs(6)), failed("latency p99.9"));
        assert_eq!(verdict(|r| r.canaries_missing = 1), failed("every canary became visible"));
        assert_eq!(verdict(|r| r.memory_growth = Some(0.2)), failed("memory stays flat"));
        assert_eq!(verdict(|r| r.memory_growth = None), (Verdict::Passed, vec![]));
        assert_eq!(verdict(|r| r.drain = None), failed("the rest is processed soon"));
        assert_eq!(verdict(|r| r.differing.push(check)), failed("nothing lost, nothing twice"));
        assert_eq!(verdict(|r| r.unchecked = Some("S3 is away".to_owned())), failed("nothing lost, nothing twice"));
        assert_eq!(verdict(|r| r.recall = Some(0.4)), failed("anomaly recall"));
    }

    #[test]
    fn numbers_are_for_people() {
        let spans = [50, 999, 1_000, 1_340, 90_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(spans, ["50 ms", "999 ms", "1 s", "1.34 s", "90 s"]);
        assert_eq!([0.0, 0.000_2, 0.15].map(percent), ["none", "0.0200 %", "15.0 %"]);
    }

    #[test]
    fn a_limit_that_is_not_the_pipelines_makes_the_run_not_valid() {
        let not_valid = |name| (Verdict::NotValid, vec![name]);
        assert_eq!(verdict(|r| r.slipped_share = 0.01), not_valid("the generator kept its schedule"));
        assert_eq!(verdict(|r| r.waiting.1 = Duration::from_millis(501)), not_valid("Kafka took every event at once"));
        assert_eq!(verdict(|r| r.waiting.1 = Duration::from_millis(500)), (Verdict::Passed, vec![]));
        assert_eq!(verdict(|r| r.failed_deliveries = 1), not_valid("Kafka acknowledged every event"));
        // Whatever becomes of the pipeline then.
        assert_eq!(verdict(|r| (r.slipped_share, r.lag_seconds) = (0.01, 60.0)).0, Verdict::NotValid);
        let codes = [Verdict::Passed, Verdict::Failed, Verdict::NotValid].map(Verdict::exit_code);
        assert_eq!(codes, [0, 1, 3]);
    }
}
