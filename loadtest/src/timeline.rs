//! The run, second by second.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

use crate::canary::Arrival;
use crate::process::{Network, Usage};
use crate::statistics::{largest, quantile};

/// A rate over less than this, seconds, tells nothing: the last sample may follow at once upon the one before.
const SHORTEST_STEP: f64 = 0.4;

/// What was seen at a moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Seconds from the start of the schedule.
    pub at: f64,
    /// Records handed to the producer so far.
    pub sent: u64,
    /// Of these, not acknowledged by Kafka yet: the pipeline cannot see them.
    pub waiting: u64,
    /// Records that the pipeline has taken in since the start.
    pub taken_in: u64,
    /// Records acknowledged by Kafka that it has not taken in yet, by the harness's own books.
    pub lag_records: f64,
    /// The same as the pipeline tells; a partition that is stuck does not know how long the log has become.
    pub lag_told: f64,
    /// How far behind it is, without the time that its records waited for Kafka.
    pub lag_seconds: f64,
    /// Whether it answered; if not, its lag is what Kafka has acknowledged since.
    pub has_answered: bool,
    /// Of each process.
    pub usages: BTreeMap<String, Usage>,
    /// Of the machine.
    pub network: Network,
}

/// Latencies of the canaries that were meant to happen within one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct SecondOfLatency {
    /// The median, milliseconds.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

/// Columns for the charts; all of one length. What is not known in a second is null.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Columns {
    /// Seconds from the start.
    pub at: Vec<f64>,
    /// Events a second that were due.
    pub rate_intended: Vec<f64>,
    /// Events a second that were sent.
    pub rate_sent: Vec<f64>,
    /// Events a second that the pipeline took in.
    pub rate_taken_in: Vec<f64>,
    /// Records not acknowledged by Kafka yet.
    pub waiting: Vec<u64>,
    /// Records acknowledged and not processed yet.
    pub lag_records: Vec<f64>,
    /// Seconds behind.
    pub lag_seconds: Vec<f64>,
    /// Latency by the second in which the events were meant to happen.
    pub latency_p50_ms: Vec<Option<f64>>,
    /// 99th percentile.
    pub latency_p99_ms: Vec<Option<f64>>,
    /// The largest.
    pub latency_max_ms: Vec<Option<f64>>,
    /// Cores in use, by process.
    pub cpu_cores: BTreeMap<String, Vec<f64>>,
    /// Resident memory, by process.
    pub rss_mib: BTreeMap<String, Vec<f64>>,
    /// Written to the disk, MiB a second, by process.
    pub disk_mib_per_second: BTreeMap<String, Vec<f64>>,
    /// On the loopback and on all other interfaces, MiB a second.
    pub network_mib_per_second: BTreeMap<String, Vec<f64>>,
}

/// Latencies by the second, counted from the start, in which the events were meant to happen.
pub fn latency_by_second(arrivals: &[Arrival], start_ms: i64) -> BTreeMap<i64, SecondOfLatency> {
    let mut by_second: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
    for arrival in arrivals {
        let second = (arrival.intended_ms - start_ms).div_euclid(1_000);
        by_second.entry(second).or_default().push(arrival.latency_us as f64 / 1_000.0);
    }
    by_second
        .into_iter()
        .map(|(second, latencies)| {
            let of_second = SecondOfLatency {
                p50_ms: quantile(&latencies, 0.5),
                p99_ms: quantile(&latencies, 0.99),
                max_ms: largest(&latencies),
            };
            (second, of_second)
        })
        .collect()
}

/// The samples within a stretch of time, seconds from the start.
pub fn within(samples: &[Sample], time: Range<f64>) -> Vec<&Sample> {
    samples.iter().filter(|sample| time.contains(&sample.at)).collect()
}

/// The columns of the charts.
pub fn columns(
    samples: &[Sample],
    latencies: &BTreeMap<i64, SecondOfLatency>,
    rate_at: impl Fn(f64) -> f64,
) -> Columns {
    let mut columns = Columns::default();
    let Some((mut before, others)) = samples.split_first() else {
        return columns;
    };
    for now in others {
        let seconds = now.at - before.at;
        if seconds < SHORTEST_STEP {
            continue;
        }
        columns.at.push((now.at * 10.0).round() / 10.0);
        columns.rate_intended.push(rate_at(f64::midpoint(before.at, now.at)).round());
        columns.rate_sent.push((now.sent.saturating_sub(before.sent) as f64 / seconds).round());
        columns.rate_taken_in.push((now.taken_in.saturating_sub(before.taken_in) as f64 / seconds).round());
        columns.waiting.push(now.waiting);
        columns.lag_records.push(now.lag_records);
        columns.lag_seconds.push(rounded(now.lag_seconds));
        let latency = latencies.get(&(before.at.round() as i64));
        columns.latency_p50_ms.push(latency.map(|second| rounded(second.p50_ms)));
        columns.latency_p99_ms.push(latency.map(|second| rounded(second.p99_ms)));
        columns.latency_max_ms.push(latency.map(|second| rounded(second.max_ms)));
        for (name, usage) in &now.usages {
            let last = before.usages.get(name).copied().unwrap_or(*usage);
            let push = |column: &mut BTreeMap<String, Vec<f64>>, value: f64| {
                let values = column.entry(name.clone()).or_default();
                // A process that came later has nothing to tell of the time before.
                values.resize(columns.at.len() - 1, 0.0);
                values.push(rounded(value));
            };
            push(&mut columns.cpu_cores, (usage.cpu_seconds - last.cpu_seconds) / seconds);
            push(&mut columns.rss_mib, usage.rss_mib);
            push(&mut columns.disk_mib_per_second, (usage.disk_written_mib - last.disk_written_mib) / seconds);
        }
        let network = [
            ("loopback", now.network.loopback_mib - before.network.loopback_mib),
            ("other", now.network.other_mib - before.network.other_mib),
        ];
        for (name, mib) in network {
            columns.network_mib_per_second.entry(name.to_owned()).or_default().push(rounded(mib / seconds));
        }
        before = now;
    }
    columns
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_rates_between_samples() {
        let usage = |cpu_seconds| Usage { cpu_seconds, rss_mib: 10.0, ..Usage::default() };
        let sample = |at: f64, sent, taken_in, cpu: f64| Sample {
            at,
            sent,
            taken_in,
            usages: BTreeMap::from([("kappa".to_owned(), usage(cpu))]),
            ..Sample::default()
        };
        let arrivals = [
            Arrival { intended_ms: 10_100, latency_us: 500_000 },
            Arrival { intended_ms: 10_900, latency_us: 700_000 },
            Arrival { intended_ms: 12_000, latency_us: 900_000 },
        ];
        let latencies = latency_by_second(&arrivals, 10_000);
        let samples =
            [sample(0.0, 0, 0, 1.0), sample(1.0, 100, 80, 1.5), sample(3.0, 300, 290, 3.5), sample(3.1, 300, 300, 3.9)];
        let columns = columns(&samples, &latencies, |_| 100.0);
        assert_eq!((columns.rate_sent, columns.rate_taken_in), (vec![100.0, 100.0], vec![80.0, 105.0]));
        assert_eq!(columns.cpu_cores["kappa"], [0.5, 1.0]);
        assert_eq!(columns.latency_p50_ms, [Some(500.0), None]);
        assert_eq!(columns.latency_max_ms, [Some(700.0), None]);
        assert_eq!(within(&samples, 0.5..2.0).len(), 1);
        assert!(super::columns(&[], &latencies, |_| 100.0).at.is_empty());
    }
}
