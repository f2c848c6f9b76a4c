//! The verdict: what was asked for, what was measured, and whether the one is within the other.

use std::time::Duration;

use serde::Serialize;

use crate::checks::Check;
use crate::measured::{Measured, milliseconds};
use crate::statistics::largest;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every gate is passed.
    Passed,
    /// At least one is not.
    Failed,
    /// The generator did not keep its schedule: nothing can be said about the pipeline.
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
            failed_deliveries: measured.outcome.failed,
            differing: measured.checks.iter().filter(|check| !check.is_ok()).cloned().collect(),
            checks: measured.checks.len(),
            unchecked: measured.unchecked.clone(),
            recall: measured.detection.as_ref().and_then(|detection| detection.recall),
            precision: measured.detection.as_ref().and_then(|detection| detection.precision),
            slipped_share: measured.slipped_share(),
            worst_slip: measured.outcome.punctuality.worst,
        })
    }
}

/// Judges. The first gate is the generator's own.
pub fn judge(gates: &crate::scenario::Gates, readings: &Readings) -> (Verdict, Vec<Gate>) {
    let slips = Gate {
        name: "the generator kept its schedule",
        limit: format!("at most {} of the events more than {:?} late", percent(gates.slips), gates.slip_limit),
        measured: format!(
            "{} were; the worst by {:.0} ms",
            percent(readings.slipped_share),
            milliseconds(readings.worst_slip)
        ),
        passed: readings.slipped_share <= gates.slips,
    };
    let is_valid = slips.passed;
    let mut judged = vec![slips];
    judge_delivery(readings, &mut judged);
    judge_lag(gates, readings, &mut judged);
    judge_latency(gates, readings, &mut judged);
    judge_memory_and_drain(gates, readings, &mut judged);
    if gates.exact {
        judged.push(exactness(readings));
    }
    judge_detection(gates, readings, &mut judged);
    let verdict = match (is_valid, judged.iter().all(|gate| gate.passed)) {
        (false, _) => Verdict::NotValid,
        (true, true) => Verdict::Passed,
        (true, false) => Verdict::Failed,
    };
    (verdict, judged)
}

fn judge_delivery(readings: &Readings, judged: &mut Vec<Gate>) {
    judged.push(Gate {
        name: "Kafka acknowledged every record",
        limit: "all".to_owned(),
        measured: format!("{} not acknowledged", readings.failed_deliveries),
        passed: readings.failed_deliveries == 0,
    });
}

fn judge_lag(gates: &crate::scenario::Gates, readings: &Readings, judged: &mut Vec<Gate>) {
    if let Some(limit) = gates.lag_growth {
        let growth = readings.lag_growth / readings.rate.max(1e-3);
        judged.push(Gate {
            name: "sustained: the lag does not grow",
            limit: format!("by at most {} of the rate", percent(limit)),
            measured: format!("{:+.1} records a second, {}", readings.lag_growth, percent(growth)),
            passed: growth <= limit,
        });
    }
    if let Some(limit) = gates.lag_seconds {
        judged.push(Gate {
            name: "lag",
            limit: format!("at most {limit} s"),
            measured: format!("at most {:.2} s", readings.lag_seconds),
            passed: readings.lag_seconds <= limit,
        });
    }
}

fn judge_latency(gates: &crate::scenario::Gates, readings: &Readings, judged: &mut Vec<Gate>) {
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
            limit: format!("at most {limit:?}"),
            measured: format!("{:.0} ms", milliseconds(measured)),
            passed: measured <= limit && readings.canaries_seen > 0,
        });
    }
    judged.push(Gate {
        name: "every canary became visible",
        limit: "all".to_owned(),
        measured: format!("{} seen, {} never", readings.canaries_seen, readings.canaries_missing),
        passed: readings.canaries_missing == 0 && readings.canaries_seen > 0,
    });
}

fn judge_memory_and_drain(gates: &crate::scenario::Gates, readings: &Readings, judged: &mut Vec<Gate>) {
    // Without a pid nothing is known of the memory, which is no fault of the pipeline.
    if let (Some(limit), Some(growth)) = (gates.memory_growth, readings.memory_growth) {
        judged.push(Gate {
            name: "memory stays flat",
            limit: format!("second half at most {} above the first", percent(limit)),
            measured: format!("{:+.1} %", growth * 100.0),
            passed: growth <= limit,
        });
    }
    if let Some(limit) = gates.drain {
        judged.push(Gate {
            name: "the rest is processed soon",
            limit: format!("within {limit:?}"),
            measured: readings.drain.map_or("never".to_owned(), |drain| format!("{:.1} s", drain.as_secs_f64())),
            passed: readings.drain.is_some_and(|drain| drain <= limit),
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
    }
}

fn judge_detection(gates: &crate::scenario::Gates, readings: &Readings, judged: &mut Vec<Gate>) {
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
        });
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent.abs() < 0.1 && percent != 0.0 { format!("{percent:.4} %") } else { format!("{percent:.1} %") }
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
        assert_eq!(verdict(|r| r.failed_deliveries = 1), failed("Kafka acknowledged every record"));
        assert_eq!(verdict(|r| r.differing.push(check)), failed("nothing lost, nothing twice"));
        assert_eq!(verdict(|r| r.unchecked = Some("S3 is away".to_owned())), failed("nothing lost, nothing twice"));
        assert_eq!(verdict(|r| r.recall = Some(0.4)), failed("anomaly recall"));
    }

    #[test]
    fn a_generator_that_was_late_makes_the_run_not_valid() {
        let (verdict, failed) = verdict(|readings| readings.slipped_share = 0.01);
        assert_eq!((verdict, failed.as_slice()), (Verdict::NotValid, ["the generator kept its schedule"].as_slice()));
        assert_eq!((Verdict::Passed.exit_code(), Verdict::Failed.exit_code(), verdict.exit_code()), (0, 1, 3));
    }
}
