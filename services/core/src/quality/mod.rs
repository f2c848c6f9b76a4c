//! Quality of what a partition's records bring, by site, metric and minute of arrival: how much was valid, how much is
//! missing, what came twice, and how old it was.
//!
//! Rows are contributions of a segment, as those of late events are: they add up over segments, and a replay of a segment
//! comes to the same rows. So they are written when a segment is sealed, not before.

use std::collections::BTreeMap;

use crate::contract::ValidEvent;
use crate::decode::Columns;
use crate::duplicates::Verdict;
use crate::rows::{QualityCounts, QualityRow};

const MINUTE_MS: i64 = 60_000;

/// No cell is known for these symbols.
const UNKNOWN: u32 = u32::MAX;

/// A metric whose symbol does not fit is looked up by its text.
const MOST_METRIC_BITS: u32 = 8;

/// Which columns tell cells apart.
#[derive(Debug, Clone, Copy)]
pub struct QualityColumns {
    /// Where a sensor stands.
    pub site: Option<usize>,
    /// What it measures: the second field of the series key.
    pub metric: Option<usize>,
}

/// What the open segment of a partition has brought so far.
#[derive(Debug)]
pub struct Quality {
    columns: QualityColumns,
    cells: Vec<QualityCounts>,
    /// Which cell belongs to (site, metric, minute of arrival).
    by_name: BTreeMap<(Box<str>, Box<str>, i64), u32>,
    /// The same for one minute by the symbols of site and metric, as long as the dictionaries stay the same.
    by_symbol: Vec<u32>,
    minute: i64,
    /// Minute and cell of the last record that could not be read: where one is broken, many are.
    unread: Option<(i64, u32)>,
    generation: u64,
    /// Bits of a place that the symbol of the metric takes.
    metric_bits: u32,
    /// Bytes of all names.
    name_bytes: usize,
}

impl Quality {
    /// Nothing was brought.
    pub fn new(columns: QualityColumns) -> Self {
        Self {
            columns,
            cells: Vec::new(),
            by_name: BTreeMap::new(),
            by_symbol: Vec::new(),
            minute: i64::MIN,
            unread: None,
            generation: 0,
            metric_bits: 0,
            name_bytes: 0,
        }
    }

    /// Counts the accepted event of a row.
    #[inline]
    pub fn accept(&mut self, columns: &Columns, row: usize, arrived_ms: i64, event: ValidEvent, verdict: Verdict) {
        let counts = self.cell(columns, row, arrived_ms);
        match verdict {
            Verdict::Duplicate => {
                counts.duplicates += 1;
                return;
            }
            Verdict::New { missing } => counts.missing += missing,
            Verdict::Restart => counts.restarts += 1,
            Verdict::Untold => {}
        }
        let delay_ms = arrived_ms.saturating_sub(event.time_ms);
        counts.delay_max_ms = if counts.accepted == 0 { delay_ms } else { counts.delay_max_ms.max(delay_ms) };
        counts.delay_sum_ms = counts.delay_sum_ms.saturating_add(delay_ms);
        counts.accepted += 1;
        counts.bad_quality += u64::from(event.bad_quality);
    }

    /// Counts a record that was decoded into a row, and then refused.
    pub fn refuse(&mut self, columns: &Columns, row: usize, arrived_ms: i64) {
        // Not by symbols: those that the record brought go with it, and will be others' then.
        let cell = self.cell_of_texts(columns, row, arrived_ms.div_euclid(MINUTE_MS));
        self.cells[cell as usize].rejected += 1;
    }

    /// Counts a record that could not be decoded.
    pub fn refuse_unread(&mut self, arrived_ms: i64) {
        let minute = arrived_ms.div_euclid(MINUTE_MS);
        let known = self.unread.filter(|(of, _)| *of == minute).map(|(_, cell)| cell);
        let cell = known.unwrap_or_else(|| self.cell_by_name("", "", minute));
        self.unread = Some((minute, cell));
        self.cells[cell as usize].rejected += 1;
    }

    /// Dictionaries start anew only when rows are taken out of the columns; call this then.
    pub fn follow_dictionaries(&mut self, columns: &Columns) {
        let used = self.columns.site.into_iter().chain(self.columns.metric);
        let generation = used.map(|column| columns.column(column).dictionary_generation()).sum();
        if generation != self.generation {
            self.generation = generation;
            self.by_symbol.clear();
        }
    }

    /// What came since the last call, in the order of the names.
    pub fn take(&mut self) -> Vec<QualityRow> {
        let cells = std::mem::take(&mut self.cells);
        let names = std::mem::take(&mut self.by_name);
        self.by_symbol.clear();
        self.unread = None;
        self.name_bytes = 0;
        let row = |((site, metric, minute), cell): ((Box<str>, Box<str>, i64), u32)| QualityRow {
            site,
            metric,
            minute_ms: minute.saturating_mul(MINUTE_MS),
            counts: cells[cell as usize].clone(),
        };
        names.into_iter().map(row).collect()
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        let name = size_of::<((Box<str>, Box<str>, i64), u32)>();
        self.cells.capacity() * size_of::<QualityCounts>()
            + self.by_name.len() * name * 2
            + self.by_symbol.capacity() * size_of::<u32>()
            + self.name_bytes
    }

    #[inline]
    fn cell(&mut self, columns: &Columns, row: usize, arrived_ms: i64) -> &mut QualityCounts {
        let minute = arrived_ms.div_euclid(MINUTE_MS);
        if minute == self.minute
            && let Some(place) = self.place(columns, row)
            && let Some(cell) = self.by_symbol.get(place).copied()
            && cell != UNKNOWN
        {
            return &mut self.cells[cell as usize];
        }
        self.cell_by_text(columns, row, minute)
    }

    /// Where the cell of a row is looked up; `None` where its texts have no symbols.
    #[inline]
    fn place(&self, columns: &Columns, row: usize) -> Option<usize> {
        let symbol = |column: Option<usize>| {
            let Some(column) = column.map(|column| columns.column(column)) else { return Some(0) };
            match column.symbol_at(row) {
                Some(symbol) => Some(symbol as usize + 1),
                None => column.str_at(row).is_none().then_some(0),
            }
        };
        let metric = symbol(self.columns.metric)?;
        (metric >> self.metric_bits == 0).then_some(symbol(self.columns.site)? << self.metric_bits | metric)
    }

    #[cold]
    fn cell_by_text(&mut self, columns: &Columns, row: usize, minute: i64) -> &mut QualityCounts {
        let metrics = self.columns.metric.map_or(0, |metric| columns.column(metric).symbol_count()) as u64;
        let metric_bits = (u64::BITS - metrics.leading_zeros()).min(MOST_METRIC_BITS);
        if (minute, metric_bits) != (self.minute, self.metric_bits) {
            (self.minute, self.metric_bits) = (minute, metric_bits);
            self.by_symbol.clear();
        }
        let cell = self.cell_of_texts(columns, row, minute);
        if let Some(place) = self.place(columns, row) {
            if place >= self.by_symbol.len() {
                self.by_symbol.resize((place + 1).next_power_of_two(), UNKNOWN);
            }
            self.by_symbol[place] = cell;
        }
        &mut self.cells[cell as usize]
    }

    fn cell_of_texts(&mut self, columns: &Columns, row: usize, minute: i64) -> u32 {
        let text = |column: Option<usize>| column.and_then(|column| columns.column(column).str_at(row)).unwrap_or("");
        self.cell_by_name(text(self.columns.site), text(self.columns.metric), minute)
    }

    fn cell_by_name(&mut self, site: &str, metric: &str, minute: i64) -> u32 {
        let Self { by_name, cells, name_bytes, .. } = self;
        *by_name.entry((site.into(), metric.into(), minute)).or_insert_with(|| {
            *name_bytes += site.len() + metric.len();
            cells.push(QualityCounts::default());
            cells.len() as u32 - 1
        })
    }
}
