//! Latency as a user of ClickHouse sees it: from the time an event was meant to happen to its row being visible.
//!
//! Each partition has a dedicated series, sent open loop. Its row of a window carries `last_time`; as the series is in
//! order, an event is visible as soon as `last_time` has reached its time. What a stall delays is counted from the
//! intended times, so nothing is left out because something else was slow (no coordinated omission). The time that
//! counts is the one at which the answer has arrived: a latency is too long by at most the time between two questions.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::click_house::{ClickHouse, quoted};
use crate::fleet::canary_id;

/// How far back windows are looked at: what is on the way longer than this is found late, not never.
const LOOK_BACK_MS: i64 = 30 * 60_000;

/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 7_200_000_000;

/// Canaries on their way, by partition in the order of their times; and those that have arrived.
#[derive(Debug)]
pub struct CanaryBook(Mutex<Pages>);

#[derive(Debug)]
struct Pages {
    on_the_way: Vec<VecDeque<i64>>,
    sent: u64,
    arrived: Vec<Arrival>,
}

/// A canary that became visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Its intended time, milliseconds since the epoch.
    pub intended_ms: i64,
    /// From then to the answer that showed it.
    pub latency_us: u64,
}

impl CanaryBook {
    /// For partitions 0 to below `partitions`.
    pub fn new(partitions: i32) -> Self {
        let on_the_way = (0..partitions).map(|_| VecDeque::new()).collect();
        Self(Mutex::new(Pages { on_the_way, sent: 0, arrived: Vec::new() }))
    }

    /// A canary was sent.
    pub fn sent(&self, partition: i32, intended_ms: i64) {
        let mut pages = self.pages();
        pages.sent += 1;
        if let Some(waiting) = pages.on_the_way.get_mut(partition as usize) {
            waiting.push_back(intended_ms);
        }
    }

    /// An answer, at `now_us` since the epoch, showed the partition's canary with this time.
    pub fn seen(&self, partition: i32, last_time_ms: i64, now_us: i64) {
        let mut pages = self.pages();
        let pages = &mut *pages;
        let Some(waiting) = pages.on_the_way.get_mut(partition as usize) else {
            return;
        };
        while let Some(&intended_ms) = waiting.front()
            && intended_ms <= last_time_ms
        {
            waiting.pop_front();
            let latency_us = (now_us - intended_ms * 1_000).max(0) as u64;
            pages.arrived.push(Arrival { intended_ms, latency_us });
        }
    }

    /// Canaries sent and not seen yet.
    pub fn missing(&self) -> u64 {
        self.pages().on_the_way.iter().map(|waiting| waiting.len() as u64).sum()
    }

    /// Canaries sent.
    pub fn total(&self) -> u64 {
        self.pages().sent
    }

    /// How long the oldest canary has been on its way.
    pub fn oldest_wait(&self, now_us: i64) -> Duration {
        let pages = self.pages();
        let oldest = pages.on_the_way.iter().filter_map(|waiting| waiting.front()).min();
        oldest.map_or(Duration::ZERO, |&oldest| Duration::from_micros((now_us - oldest * 1_000).max(0) as u64))
    }

    /// All that have arrived.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.pages().arrived.clone()
    }

    /// The latest of those that have arrived.
    pub fn latest_arrivals(&self, count: usize) -> Vec<Arrival> {
        let pages = self.pages();
        pages.arrived[pages.arrived.len().saturating_sub(count)..].to_vec()
    }

    /// A panic while the lock was held can leave only numbers that are not quite right.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How well ClickHouse was asked: the measuring error.
#[derive(Debug, Clone, Default)]
pub struct PollQuality {
    /// Time from answer to answer, microseconds.
    gaps_us: Vec<u64>,
    /// Time that each answer took, microseconds.
    answers_us: Vec<u64>,
    /// Questions that were not answered.
    pub failures: u64,
    /// The last failure.
    pub last_failure: Option<String>,
}

impl PollQuality {
    /// Questions that were answered.
    pub fn polls(&self) -> u64 {
        self.answers_us.len() as u64
    }

    /// The time from answer to answer below which so many percent stay, and the time an answer took.
    pub fn at(&mut self, percent: f64) -> (Duration, Duration) {
        (percentile_us(&mut self.gaps_us, percent), percentile_us(&mut self.answers_us, percent))
    }
}

fn percentile_us(values: &mut [u64], percent: f64) -> Duration {
    values.sort_unstable();
    let index = (percent / 100.0 * values.len() as f64).ceil() as usize;
    Duration::from_micros(values.get(index.saturating_sub(1)).copied().unwrap_or(0))
}

/// Asks ClickHouse for the canaries until told to stop.
pub async fn poll_canaries(
    click_house: ClickHouse,
    topic: String,
    partitions: i32,
    interval: Duration,
    book: Arc<CanaryBook>,
    mut stop: watch::Receiver<bool>,
) -> PollQuality {
    let ids: Vec<String> = (0..partitions).map(|partition| quoted(&canary_id(partition))).collect();
    let mut quality = PollQuality::default();
    let mut last_answer = Instant::now();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return quality,
        }
        let since = now_us() / 1_000 - LOOK_BACK_MS;
        let question = format!(
            "SELECT partition, toUnixTimestamp64Milli(max(last_time)) FROM `{}`.windows_1m \
             WHERE sensor_id IN ({}) AND window_start >= fromUnixTimestamp64Milli({since}) AND topic = {} GROUP BY partition",
            click_house.database(),
            ids.join(","),
            quoted(&topic),
        );
        let asked = Instant::now();
        match click_house.rows(&question).await {
            Ok(rows) => {
                let now = now_us();
                for row in rows {
                    if let [partition, time] = row.as_slice()
                        && let (Ok(partition), Ok(time)) = (partition.parse(), time.parse())
                    {
                        book.seen(partition, time, now);
                    }
                }
                quality.answers_us.push(asked.elapsed().as_micros() as u64);
                quality.gaps_us.push(last_answer.elapsed().as_micros() as u64);
                last_answer = Instant::now();
            }
            Err(error) => {
                quality.failures += 1;
                quality.last_failure = Some(format!("{error:#}"));
            }
        }
    }
}

/// Latencies in microseconds, as a histogram.
pub fn histogram<'a>(arrivals: impl Iterator<Item = &'a Arrival>) -> anyhow::Result<Histogram<u64>> {
    let mut histogram = Histogram::new_with_bounds(1, LONGEST_US, 3)?;
    for arrival in arrivals {
        histogram.saturating_record(arrival.latency_us);
    }
    Ok(histogram)
}

/// Microseconds since the epoch.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_micros() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_runs_from_the_intended_time_whatever_was_slow() {
        let book = CanaryBook::new(2);
        for number in 0..10 {
            book.sent(0, 1_000 + number * 100);
            book.sent(1, 1_050 + number * 100);
        }
        // Nothing was seen for a while; then one row shows the first eight at once.
        book.seen(0, 1_700, 3_000_000);
        assert_eq!(book.missing(), 12);
        let arrivals = book.arrivals();
        assert_eq!(arrivals.first(), Some(&Arrival { intended_ms: 1_000, latency_us: 2_000_000 }));
        assert_eq!(arrivals.last(), Some(&Arrival { intended_ms: 1_700, latency_us: 1_300_000 }));
        // The same row again changes nothing, nor does a partition that nobody knows.
        book.seen(0, 1_700, 9_000_000);
        book.seen(7, 5_000, 9_000_000);
        assert_eq!((book.missing(), book.total(), book.latest_arrivals(3).len()), (12, 20, 3));
        assert_eq!(book.oldest_wait(2_050_000), Duration::from_secs(1));
        book.seen(0, 1_900, 3_000_000);
        book.seen(1, 1_950, 3_000_000);
        assert_eq!((book.missing(), book.oldest_wait(9_000_000)), (0, Duration::ZERO));
    }

    #[test]
    fn the_histogram_keeps_the_tail() {
        let arrivals: Vec<Arrival> =
            (1..=10_000).map(|number| Arrival { intended_ms: 0, latency_us: number * 100 }).collect();
        let histogram = histogram(arrivals.iter()).unwrap();
        for (percent, expected) in [(50.0, 500_000), (99.0, 990_000), (99.99, 999_900)] {
            let found = histogram.value_at_percentile(percent);
            assert!(found.abs_diff(expected) <= expected / 500, "p{percent}: {found}");
        }
        assert!(histogram.max() >= 999_900);
    }
}
