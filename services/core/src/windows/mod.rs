//! Tumbling windows per series, by event time, closed by a watermark that comes from the data alone.
//!
//! The watermark of a partition is its largest valid event time. A window is open until the watermark passes its end
//! plus the allowed lateness; its row may be written any number of times meanwhile, each time with all that it holds.
//! An event for a closed window is never dropped: it goes into the *late contribution* of its segment, a row of its
//! own beside the window's row. So the hot store is exact however late data comes (Akidau et al. 2015 call the two
//! accumulating panes and discrete late panes; here both are upserts).

mod accumulator;
mod series;

use std::collections::BTreeMap;

pub use accumulator::{Accumulator, Event, RowIdentity};
pub use series::{SeriesId, SeriesTable};

use crate::anomaly::{AnomalyDetector, ConfiguredDetector};
use crate::prefetch::prefetch;
use crate::rows::{AnomalyRow, OWN_ROW, WindowRow};
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};

/// How windows are cut and how long they wait.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowSettings {
    /// Length of a window in milliseconds.
    pub length_ms: i64,
    /// How far the watermark may be past the end of a window before it closes, in milliseconds.
    pub allowed_lateness_ms: i64,
    /// A series that was silent for so long, in event time, is forgotten at the next segment, with what its detector
    /// has learnt. Bounds the memory of a fleet whose sensors come and go.
    pub forget_after_ms: i64,
}

/// No event was seen yet.
const NO_WATERMARK: i64 = i64::MIN;
/// A slot that holds no window.
const EMPTY: i64 = i64::MIN;

/// All windows of one partition.
#[derive(Debug)]
pub struct Windows {
    settings: WindowSettings,
    detector: ConfiguredDetector,
    watermark_ms: i64,
    /// Windows with a smaller number are closed.
    first_open: i64,
    series: SeriesTable,
    per_series: Vec<PerSeries>,
    /// Open windows: `slots_per_series` neighbours for each series, by window number modulo that.
    slots: Vec<Slot>,
    slots_per_series: usize,
    /// Slots that changed since their row was last taken.
    dirty: Vec<u32>,
    /// Windows closed since rows were last taken.
    closed: Vec<ClosedWindow>,
    /// What this segment adds to windows that were closed when it came.
    late: BTreeMap<(SeriesId, i64), Accumulator>,
    anomalies: Vec<AnomalyRow>,
    late_events: u64,
}

/// What the detector remembers of a series.
type Memory = <ConfiguredDetector as AnomalyDetector>::Memory;

#[derive(Debug, Clone)]
struct PerSeries {
    last_time_ms: i64,
    memory: Memory,
}

#[derive(Debug, Clone)]
struct Slot {
    /// Window number: event time divided by the length. [`EMPTY`] if none.
    window: i64,
    dirty: bool,
    sums: Accumulator,
}

#[derive(Debug)]
struct ClosedWindow {
    series: SeriesId,
    window: i64,
    sums: Accumulator,
}

impl Windows {
    /// No series, no watermark.
    pub fn new(settings: WindowSettings, detector: ConfiguredDetector, hash_seed: u64) -> Self {
        // Open at once: the window of the watermark, and those before it that still wait for late events.
        let waiting = settings.allowed_lateness_ms.div_euclid(settings.length_ms) as usize;
        Self {
            slots_per_series: waiting + 2,
            settings,
            detector,
            watermark_ms: NO_WATERMARK,
            first_open: i64::MIN,
            series: SeriesTable::new(hash_seed),
            per_series: Vec::new(),
            slots: Vec::new(),
            dirty: Vec::new(),
            closed: Vec::new(),
            late: BTreeMap::new(),
            anomalies: Vec::new(),
            late_events: 0,
        }
    }

    /// The id of a series.
    pub fn series_id(&mut self, key: &[&str]) -> SeriesId {
        let id = self.series.intern(key);
        if id as usize == self.per_series.len() {
            self.per_series.push(PerSeries { last_time_ms: i64::MIN, memory: Memory::default() });
            let empty = Slot { window: EMPTY, dirty: false, sums: Accumulator::default() };
            self.slots.extend(std::iter::repeat_n(empty, self.slots_per_series));
        }
        id
    }

    /// The first field of a series' key: its sensor.
    pub fn sensor(&self, series: SeriesId) -> &str {
        self.series.key(series).parts().next().unwrap_or_default()
    }

    /// Begins to load what [`Self::add`] will need of a series.
    #[inline]
    pub fn prefetch(&self, series: SeriesId, time_ms: i64) {
        prefetch(&self.per_series, series as usize);
        prefetch(&self.slots, self.slot_of(series, time_ms.div_euclid(self.settings.length_ms)));
    }

    #[inline]
    fn slot_of(&self, series: SeriesId, window: i64) -> usize {
        series as usize * self.slots_per_series + window.rem_euclid(self.slots_per_series as i64) as usize
    }

    /// Adds one accepted event, at log position `offset`.
    #[inline]
    pub fn add(&mut self, series: SeriesId, time_ms: i64, value: f64, bad_quality: bool, offset: i64) {
        let window = time_ms.div_euclid(self.settings.length_ms);
        if time_ms > self.watermark_ms {
            self.advance_watermark(time_ms);
        }
        let per_series = &mut self.per_series[series as usize];
        per_series.last_time_ms = per_series.last_time_ms.max(time_ms);
        let verdict = self.detector.observe(&mut per_series.memory, time_ms, value);
        if let Some(kind) = verdict.kind {
            self.anomalies.push(AnomalyRow {
                series: std::sync::Arc::clone(self.series.key(series)),
                event_time_ms: time_ms,
                value,
                expected: verdict.expected,
                score: crate::anomaly::score_of(verdict.distance),
                kind,
                offset,
            });
        }
        let anomaly = verdict.kind.is_some();
        let event = Event { time_ms, value, bad_quality, distance: verdict.distance, anomaly };
        if window < self.first_open {
            self.late_events += 1;
            self.late.entry((series, window)).or_default().add(&event);
            return;
        }
        self.add_to_open(series, window, &event);
    }

    #[inline]
    fn add_to_open(&mut self, series: SeriesId, window: i64, event: &Event) {
        let index = self.slot_of(series, window);
        let slot = &mut self.slots[index];
        if slot.window != window {
            // Windows that shared this slot are closed and were taken out: open ones span fewer numbers than slots.
            slot.window = window;
            slot.sums = Accumulator::default();
        }
        slot.sums.add(event);
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(index as u32);
        }
    }

    fn advance_watermark(&mut self, time_ms: i64) {
        self.watermark_ms = time_ms;
        let first_open = (time_ms - self.settings.allowed_lateness_ms).div_euclid(self.settings.length_ms);
        if first_open > self.first_open {
            self.first_open = first_open;
            self.close_windows();
        }
    }

    /// Takes out all windows below `first_open`: one pass over all slots, once per window length of event time.
    #[cold]
    fn close_windows(&mut self) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            if slot.window == EMPTY || slot.window >= self.first_open {
                continue;
            }
            let series = (index / self.slots_per_series) as SeriesId;
            self.closed.push(ClosedWindow { series, window: slot.window, sums: std::mem::take(&mut slot.sums) });
            slot.window = EMPTY;
        }
        let slots = &mut self.slots;
        self.dirty.retain(|index| {
            let slot = &mut slots[*index as usize];
            slot.dirty = slot.window != EMPTY;
            slot.dirty
        });
    }

    /// Rows of the windows closed since the last call, true up to `version`.
    pub fn take_closed(&mut self, version: i64, rows: &mut Vec<WindowRow>) {
        let mut closed = std::mem::take(&mut self.closed);
        rows.extend(closed.drain(..).map(|closed| {
            let identity = self.identity(closed.series, closed.window, OWN_ROW, true, version);
            closed.sums.row(&identity)
        }));
        // Its memory stays: as many close with the next minute.
        self.closed = closed;
    }

    /// Rows of the open windows that changed since their row was last taken, true up to `version`.
    pub fn take_changed(&mut self, version: i64, rows: &mut Vec<WindowRow>) {
        rows.reserve(self.dirty.len());
        for index in std::mem::take(&mut self.dirty) {
            let series = index / self.slots_per_series as u32;
            self.slots[index as usize].dirty = false;
            let slot = &self.slots[index as usize];
            rows.push(slot.sums.row(&self.identity(series, slot.window, OWN_ROW, false, version)));
        }
    }

    /// The late contributions of the segment that started at `segment` and ends at `version`.
    pub fn take_late(&mut self, segment: i64, version: i64, rows: &mut Vec<WindowRow>) {
        for ((series, window), sums) in std::mem::take(&mut self.late) {
            rows.push(sums.row(&self.identity(series, window, segment, true, version)));
        }
    }

    /// Events flagged since the last call.
    pub fn take_anomalies(&mut self) -> Vec<AnomalyRow> {
        std::mem::take(&mut self.anomalies)
    }

    fn identity(&self, series: SeriesId, window: i64, segment: i64, closed: bool, version: i64) -> RowIdentity<'_> {
        let window_start_ms = window * self.settings.length_ms;
        RowIdentity { series: self.series.key(series), window_start_ms, segment, closed, version }
    }

    /// Forgets series that were silent for long, if there are enough of them to pay for rebuilding the table. Called
    /// only between segments, with no row waiting, so that it is a function of the log prefix like all else.
    ///
    /// Returns whether series ids have changed.
    pub fn forget_silent_series(&mut self) -> bool {
        let Some(horizon) = self.silent_before_ms() else { return false };
        let is_silent = |windows: &Self, id: usize| {
            let slots = &windows.slots[id * windows.slots_per_series..][..windows.slots_per_series];
            windows.per_series[id].last_time_ms < horizon && slots.iter().all(|slot| slot.window == EMPTY)
        };
        let silent = (0..self.per_series.len()).filter(|id| is_silent(self, *id)).count();
        if silent == 0 || silent * 8 < self.per_series.len() {
            return false;
        }
        let mut kept = Self::new(self.settings.clone(), self.detector.clone(), self.series.seed());
        for id in (0..self.per_series.len()).filter(|id| !is_silent(self, *id)) {
            let key: Vec<&str> = self.series.key(id as SeriesId).parts().collect();
            let new_id = kept.series_id(&key) as usize;
            kept.per_series[new_id] = self.per_series[id].clone();
            for within in 0..self.slots_per_series {
                let slot = &self.slots[id * self.slots_per_series + within];
                kept.slots[new_id * self.slots_per_series + within] = slot.clone();
            }
        }
        self.series = kept.series;
        self.per_series = kept.per_series;
        self.slots = kept.slots;
        true
    }

    /// What was not seen since is forgotten.
    pub fn silent_before_ms(&self) -> Option<i64> {
        Some(self.watermark_ms()?.saturating_sub(self.settings.forget_after_ms))
    }

    /// The largest valid event time so far, milliseconds since the epoch.
    pub fn watermark_ms(&self) -> Option<i64> {
        (self.watermark_ms != NO_WATERMARK).then_some(self.watermark_ms)
    }

    /// Of how many fields the keys of the series are.
    pub(crate) fn key_lengths(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.series.len()).map(|id| self.series.key(id as SeriesId).parts().len())
    }

    /// Series known.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Windows that are open now. Walks all slots.
    pub fn open_windows(&self) -> usize {
        self.slots.iter().filter(|slot| slot.window != EMPTY).count()
    }

    /// Rows that wait to be taken.
    pub fn waiting_rows(&self) -> usize {
        self.dirty.len() + self.closed.len() + self.late.len()
    }

    /// Late events so far, since this state was made or restored.
    pub fn late_events(&self) -> u64 {
        self.late_events
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        self.series.memory()
            + self.per_series.capacity() * size_of::<PerSeries>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.closed.capacity() * size_of::<ClosedWindow>()
            + self.late.len() * (size_of::<Accumulator>() + 32)
            + self.anomalies.capacity() * size_of::<AnomalyRow>()
    }

    /// Writes watermark, series and open windows. All rows must have been taken: a snapshot is true only together
    /// with what was written before it.
    pub fn save(&self, into: &mut SnapshotWriter) {
        debug_assert!(self.waiting_rows() == 0 && self.anomalies.is_empty(), "rows are taken before a snapshot");
        into.i64(self.settings.length_ms);
        into.i64(self.settings.allowed_lateness_ms);
        into.i64(self.watermark_ms);
        into.u32(self.series.len() as u32);
        for (id, per_series) in self.per_series.iter().enumerate() {
            let key = self.series.key(id as SeriesId);
            into.u8(key.parts().len() as u8);
            key.parts().for_each(|part| into.text(part));
            into.i64(per_series.last_time_ms);
            ConfiguredDetector::save(&per_series.memory, into);
            let slots = &self.slots[id * self.slots_per_series..][..self.slots_per_series];
            let open = slots.iter().filter(|slot| slot.window != EMPTY);
            into.u32(open.clone().count() as u32);
            for slot in open {
                into.i64(slot.window);
                slot.sums.save(into);
            }
        }
    }

    /// Reads what [`Self::save`] wrote into an empty `self`.
    pub fn load(&mut self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        self.check_settings(from)?;
        self.watermark_ms = from.i64()?;
        if self.watermark_ms != NO_WATERMARK {
            let lateness_ago = self.watermark_ms.saturating_sub(self.settings.allowed_lateness_ms);
            self.first_open = lateness_ago.div_euclid(self.settings.length_ms);
        }
        for expected_id in 0..from.count(1)? {
            let parts = (0..from.u8()?).map(|_| from.text()).collect::<Result<Vec<_>, _>>()?;
            let id = self.series_id(&parts) as usize;
            if id != expected_id {
                return Err(from.malformed());
            }
            let last_time_ms = from.i64()?;
            self.per_series[id] = PerSeries { last_time_ms, memory: ConfiguredDetector::load(from)? };
            for _ in 0..from.count(8 + Accumulator::SNAPSHOT_BYTES)? {
                let window = from.i64()?;
                let sums = Accumulator::load(from)?;
                let index = self.slot_of(id as SeriesId, window);
                self.slots[index] = Slot { window, dirty: false, sums };
            }
        }
        Ok(())
    }

    fn check_settings(&self, from: &mut SnapshotReader<'_>) -> Result<(), SnapshotError> {
        let advice = "windows already written would change their meaning; keep the setting, or start a new group \
                      with new state, archive and tables";
        for (setting, configured) in [
            ("windows.length", self.settings.length_ms),
            ("windows.allowed_lateness", self.settings.allowed_lateness_ms),
        ] {
            let taken = from.i64()?;
            if taken != configured {
                let (taken, configured) = (format!("{taken} ms"), format!("{configured} ms"));
                return Err(SnapshotError::Settings { setting, taken, configured, advice });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
