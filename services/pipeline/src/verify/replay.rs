//! (B) The windows, recomputed from the archive by a plain reading of `docs/architecture.md`. It shares no code with the
//! pipeline's windows: maps instead of slots, closing by number instead of by scan, other sums.
//!
//! * The watermark is the largest event time so far; it advances before the event is placed.
//! * Windows whose end lies the allowed lateness behind the watermark are closed.
//! * An event of an open window counts in the window's own row, one of a closed window in the late contribution of the
//!   segment that it is in.
//! * At the end of a segment series that were silent for long are forgotten, if they are an eighth of all.
//!
//! Memory: open windows, what a segment has of late events, and the rows that wait to be taken.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use kappa_core::rows::SeriesKey;
use kappa_core::windows::WindowSettings;

use super::flags::{Flagged, Flags, Memory};
use super::repeats::Repeats;
use super::scope::Scope;
use super::totals::{ArchivedEvent, Totals};

/// Why a row is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A window that is closed, by the event at this offset.
    Closed { by: i64 },
    /// A window that is open at the end of the archive.
    Open,
    /// The late contribution of a segment.
    Late { segment: i64, end: i64 },
}

/// A row that the hot store should have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExpectedRow {
    pub(super) series: Arc<SeriesKey>,
    pub(super) window_start_ms: i64,
    pub(super) totals: Totals,
    pub(super) standing: Standing,
}

#[derive(Debug)]
struct Series {
    key: Arc<SeriesKey>,
    last_time_ms: i64,
    memory: Memory,
}

/// The state of one partition at a log position.
#[derive(Debug)]
pub(super) struct Replay {
    settings: WindowSettings,
    scope: Scope,
    pub(super) flags: Flags,
    pub(super) repeats: Repeats,
    watermark_ms: Option<i64>,
    /// The number of the first window that is not closed.
    first_open: Option<i64>,
    /// Numbers of the series by their joined key texts.
    numbers: HashMap<String, u32>,
    series: HashMap<u32, Series>,
    next_number: u32,
    /// Open windows by number, then by series.
    open: BTreeMap<i64, HashMap<u32, Totals>>,
    /// Late events of the segment at hand.
    late: HashMap<(u32, i64), Totals>,
    /// Rows of windows that have closed since they were last taken.
    closed: Vec<ExpectedRow>,
    flagged: Vec<Flagged>,
    joined: String,
}

impl Replay {
    pub(super) fn new(settings: WindowSettings, flags: Flags, scope: Scope) -> Self {
        Self {
            settings,
            scope,
            // Where flags can be told again, so can duplicates.
            repeats: Repeats::new(matches!(flags, Flags::Recomputed(_))),
            flags,
            watermark_ms: None,
            first_open: None,
            numbers: HashMap::new(),
            series: HashMap::new(),
            next_number: 0,
            open: BTreeMap::new(),
            late: HashMap::new(),
            closed: Vec::new(),
            flagged: Vec::new(),
            joined: String::new(),
        }
    }

    /// Takes in the next event of the partition.
    pub(super) fn add(&mut self, key: &[&str], event: &ArchivedEvent) {
        self.advance_watermark(event.time_ms, event.offset);
        let number = self.number_of(key);
        let Some(series) = self.series.get_mut(&number) else { return };
        series.last_time_ms = series.last_time_ms.max(event.time_ms);
        let (distance, flag) = self.flags.observe(&mut series.memory, &series.key, event);
        let window = event.time_ms.div_euclid(self.settings.length_ms);
        if !self.scope.holds(window * self.settings.length_ms) {
            return;
        }
        let is_flagged = flag.is_some();
        self.flagged.extend(flag);
        let is_late = self.first_open.is_some_and(|first_open| window < first_open);
        let totals = if is_late {
            self.late.get_mut(&(number, window))
        } else {
            self.open.entry(window).or_default().get_mut(&number)
        };
        if let Some(totals) = totals {
            totals.add(event, distance, is_flagged);
            return;
        }
        let totals = Totals::of(event, distance, is_flagged);
        if is_late {
            self.late.insert((number, window), totals);
        } else {
            self.open.entry(window).or_default().insert(number, totals);
        }
    }

    fn number_of(&mut self, key: &[&str]) -> u32 {
        self.joined.clear();
        for part in key {
            // The length in front keeps ("ab", "c") and ("a", "bc") apart.
            // Writing into a string cannot fail.
            _ = write!(self.joined, "{}:{part}", part.len());
        }
        if let Some(number) = self.numbers.get(&self.joined) {
            return *number;
        }
        let number = self.next_number;
        self.next_number += 1;
        let key = Arc::new(SeriesKey::new(key.iter().copied()));
        self.series.insert(number, Series { key, last_time_ms: i64::MIN, memory: Memory::default() });
        self.numbers.insert(self.joined.clone(), number);
        number
    }

    fn advance_watermark(&mut self, time_ms: i64, offset: i64) {
        if self.watermark_ms.is_some_and(|watermark| time_ms <= watermark) {
            return;
        }
        self.watermark_ms = Some(time_ms);
        // Window n is closed if (n + 1) * length + lateness <= watermark.
        let first_open = (time_ms - self.settings.allowed_lateness_ms).div_euclid(self.settings.length_ms);
        if self.first_open.is_some_and(|before| first_open <= before) {
            return;
        }
        self.first_open = Some(first_open);
        let still_open = self.open.split_off(&first_open);
        for (window, by_series) in std::mem::replace(&mut self.open, still_open) {
            for (number, totals) in by_series {
                let row = self.row(number, window, totals, Standing::Closed { by: offset });
                self.closed.extend(row);
            }
        }
    }

    fn row(&self, number: u32, window: i64, totals: Totals, standing: Standing) -> Option<ExpectedRow> {
        let series = Arc::clone(&self.series.get(&number)?.key);
        Some(ExpectedRow { series, window_start_ms: window * self.settings.length_ms, totals, standing })
    }

    /// The segment ends: gives its late contributions.
    pub(super) fn end_segment(&mut self, start: i64, end: i64) -> Vec<ExpectedRow> {
        let late = std::mem::take(&mut self.late);
        let standing = Standing::Late { segment: start, end };
        let rows = late.into_iter().filter_map(|((number, window), totals)| self.row(number, window, totals, standing));
        let rows = rows.collect();
        self.forget_silent_series();
        if let Some(before_ms) = self.silent_before_ms() {
            self.repeats.forget_silent(before_ms);
        }
        rows
    }

    /// Series that were not seen since are silent.
    fn silent_before_ms(&self) -> Option<i64> {
        Some(self.watermark_ms?.saturating_sub(self.settings.forget_after_ms))
    }

    /// A segment without events in scope, of which the largest event time is known.
    pub(super) fn skip_segment(&mut self, largest_time_ms: i64, end: i64) {
        self.advance_watermark(largest_time_ms, end - 1);
    }

    fn forget_silent_series(&mut self) {
        let Some(horizon) = self.silent_before_ms() else { return };
        if !self.series.values().any(|series| series.last_time_ms < horizon) {
            return;
        }
        let with_window: HashSet<u32> = self.open.values().flat_map(HashMap::keys).copied().collect();
        let silent = self
            .series
            .iter()
            .filter(|(number, series)| series.last_time_ms < horizon && !with_window.contains(*number));
        let silent: HashSet<u32> = silent.map(|(number, _)| *number).collect();
        if silent.len() * 8 < self.series.len() {
            return;
        }
        self.series.retain(|number, _| !silent.contains(number));
        self.numbers.retain(|_, number| !silent.contains(number));
    }

    /// Rows of the windows that have closed since the last call. Windows before [`Self::closed_before_ms`] are complete.
    pub(super) fn take_closed(&mut self) -> Vec<ExpectedRow> {
        std::mem::take(&mut self.closed)
    }

    /// How many rows wait to be taken.
    pub(super) fn waiting(&self) -> usize {
        self.closed.len()
    }

    /// Flagged events since the last call.
    pub(super) fn take_flagged(&mut self) -> Vec<Flagged> {
        std::mem::take(&mut self.flagged)
    }

    /// All windows that start before this are closed.
    pub(super) fn closed_before_ms(&self) -> i64 {
        self.first_open.map_or(i64::MIN, |first_open| first_open.saturating_mul(self.settings.length_ms))
    }

    /// Rows of the windows that are open at the end.
    pub(super) fn take_open(&mut self) -> Vec<ExpectedRow> {
        let open = std::mem::take(&mut self.open);
        let open = open.into_iter().flat_map(|(window, by_series)| {
            by_series.into_iter().map(move |(number, totals)| (number, window, totals))
        });
        open.filter_map(|(number, window, totals)| self.row(number, window, totals, Standing::Open)).collect()
    }
}

#[cfg(test)]
mod tests;
