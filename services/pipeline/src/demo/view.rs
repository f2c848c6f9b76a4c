//! What the demo shows while it runs: one picture of the moment, made by the observer and drawn by the screen.

use std::collections::VecDeque;
use std::time::Duration;

use super::hot_store_reader::HotStoreGlance;
use super::produced::Punctuality;
use crate::ops::status::{MemoryReport, PartitionStatus, TotalsReport};

/// Points of the rate curve that are kept.
const RATE_HISTORY: usize = 240;

/// How far the demo is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Records flow.
    #[default]
    Running,
    /// The fleet has stopped; its last records are being acknowledged.
    StoppingFleet,
    /// The pipeline reads what is left in the log.
    Draining,
    /// The pipeline seals its segments and commits.
    Sealing,
    /// What was found is compared with what was produced.
    Comparing,
}

impl Stage {
    /// For the title.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::StoppingFleet => "ending 1/4: the fleet stops",
            Self::Draining => "ending 2/4: reading what is left in the log",
            Self::Sealing => "ending 3/4: sealing segments, committing offsets",
            Self::Comparing => "ending 4/4: comparing",
        }
    }
}

/// One picture.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// How far the demo is.
    pub stage: Stage,
    /// Since the start of the fleet.
    pub elapsed: Duration,
    /// When it ends by itself.
    pub time_limit: Option<Duration>,
    /// Records a second that were asked for.
    pub target_rate: u32,
    /// Acknowledged records.
    pub produced: u64,
    /// Of them, in the last seconds, per second.
    pub produced_rate: f64,
    /// How the producer keeps its schedule.
    pub punctuality: Punctuality,
    /// Records the pipeline has processed, good and bad ones.
    pub consumed: u64,
    /// Of them, in the last seconds, per second.
    pub consumed_rate: f64,
    /// The curve of `consumed_rate`, oldest first.
    pub rate_history: VecDeque<u64>,
    /// Records in the log that are not processed.
    pub lag_records: u64,
    /// The lag of the partition that is farthest behind, in time.
    pub lag_seconds: f64,
    /// Line by line as on the pipeline's board.
    pub partitions: Vec<PartitionStatus>,
    /// The pipeline's own totals.
    pub totals: Option<TotalsReport>,
    /// The pipeline's own memory.
    pub memory: Option<MemoryReport>,
    /// Of this process: pipeline, fleet and embedded broker together.
    pub resident_bytes: Option<u64>,
    /// What ClickHouse shows.
    pub hot_store: HotStoreGlance,
    /// How old the newest event is that ClickHouse shows.
    pub freshness: Option<Duration>,
    /// The second version of the schema, once it is registered.
    pub evolution: Option<EvolutionView>,
    /// What does not go well.
    pub problems: Vec<String>,
    /// Where to look on while it runs.
    pub addresses: Vec<(&'static str, String)>,
}

/// How the second version of the schema gets about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvolutionView {
    /// Its id.
    pub schema_id: u32,
    /// When it was registered, since the start of the fleet.
    pub at: Duration,
    /// Acknowledged events by it.
    pub events: u64,
}

impl EvolutionView {
    /// For the screen and for logs.
    pub fn text(&self) -> String {
        format!("schema changed at {}: {} events by id {}", clock(self.at), grouped(self.events), self.schema_id)
    }
}

impl View {
    /// Adds a point to the curve.
    pub fn push_rate(&mut self, rate: f64) {
        if self.rate_history.len() == RATE_HISTORY {
            self.rate_history.pop_front();
        }
        self.rate_history.push_back(rate.max(0.0) as u64);
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes, for a person.
pub fn sized(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}

/// A time as `m:ss`.
pub fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped() {
        let texts: Vec<_> = [0, 12, 999, 1_000, 123_456, 1_234_567].into_iter().map(grouped).collect();
        assert_eq!(texts, ["0", "12", "999", "1,000", "123,456", "1,234,567"]);
    }

    #[test]
    fn the_curve_keeps_its_newest_points() {
        let mut view = View::default();
        for rate in 0..1_000 {
            view.push_rate(f64::from(rate));
        }
        assert_eq!((view.rate_history.len(), view.rate_history.back()), (RATE_HISTORY, Some(&999)));
    }
}
