//! Where the sensors stand: which site the newest event of each names.
//!
//! A column of few changes among many rows. So the rows are gone through once more, apart from the hot loop: for each
//! one comparison of two small numbers, and the text only where they differ.

use hashbrown::HashMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::archive::MetadataColumns;
use crate::decode::Columns;
use crate::rows::SensorRow;

/// For a row whose site is null.
const NO_SITE: u32 = u32::MAX - 1;
/// For a sensor of which no row was seen since the dictionaries started afresh.
const NOT_SEEN: u32 = u32::MAX;

/// Sensors remembered beyond so many times the series that have state are forgotten, all at once, and told anew.
const REMEMBERED_PER_SERIES: usize = 4;
const REMEMBERED_AT_LEAST: usize = 4_096;

/// Which columns say where a sensor stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct SiteColumns {
    /// The first key field.
    pub(super) sensor: usize,
    pub(super) site: Option<usize>,
    pub(super) time: usize,
}

/// Finds the sensors whose site is new or has changed.
#[derive(Debug)]
pub(super) struct SensorSites {
    columns: SiteColumns,
    /// Seed of the hashes, so that no producer can choose names that collide.
    seed: u64,
    /// Rows of the decoded columns gone through already.
    scanned: usize,
    /// Symbol of the site by symbol of the sensor, for as long as the dictionaries stay the same.
    last: Vec<u32>,
    generation: u64,
    /// Hash of the site by hash of the sensor, of all that was found since the start.
    known: HashMap<u64, u64>,
    /// Found and not taken yet, by sensor: a site that changes with every event is told once.
    waiting: HashMap<Box<str>, SensorRow>,
    /// Bytes of the texts that wait.
    waiting_bytes: usize,
}

impl SensorSites {
    pub(super) fn new(columns: SiteColumns, seed: u64) -> Self {
        Self {
            columns,
            seed,
            scanned: 0,
            last: Vec::new(),
            generation: 0,
            known: HashMap::new(),
            waiting: HashMap::new(),
            waiting_bytes: 0,
        }
    }

    /// Goes through the rows that were decoded since the last call.
    pub(super) fn scan(&mut self, columns: &Columns, metadata: &MetadataColumns) {
        self.follow_dictionaries(columns);
        let sensors = columns.column(self.columns.sensor);
        let sites = self.columns.site.map(|site| columns.column(site));
        for row in self.scanned..columns.rows() {
            let site = sites.and_then(|sites| sites.symbol_at(row)).unwrap_or(NO_SITE);
            if let Some(sensor) = sensors.symbol_at(row) {
                let sensor = sensor as usize;
                if sensor >= self.last.len() {
                    self.last.resize((sensor + 1).next_power_of_two(), NOT_SEEN);
                }
                if self.last[sensor] == site {
                    continue;
                }
                self.last[sensor] = site;
            }
            self.compare_texts(columns, metadata, row);
        }
        self.scanned = columns.rows();
    }

    /// The decoded rows were taken away.
    pub(super) fn rows_are_gone(&mut self) {
        self.scanned = 0;
    }

    /// What was found since the last call, in the order of the names.
    pub(super) fn take(&mut self, series: usize) -> Vec<SensorRow> {
        if self.known.len() > REMEMBERED_AT_LEAST.max(series * REMEMBERED_PER_SERIES) {
            self.known = HashMap::new();
            self.last.clear();
        }
        self.waiting_bytes = 0;
        let mut rows: Vec<_> = self.waiting.drain().map(|(_, row)| row).collect();
        rows.sort_unstable_by(|left, right| left.sensor.cmp(&right.sensor));
        rows
    }

    pub(super) fn memory(&self) -> usize {
        self.last.capacity() * size_of::<u32>()
            + self.known.capacity() * 2 * size_of::<u64>()
            + self.waiting.capacity() * size_of::<(Box<str>, SensorRow)>()
            + self.waiting_bytes
    }

    /// Dictionaries start anew only when rows are taken out of the columns.
    fn follow_dictionaries(&mut self, columns: &Columns) {
        let used = std::iter::once(self.columns.sensor).chain(self.columns.site);
        let generation = used.map(|column| columns.column(column).dictionary_generation()).sum();
        if generation != self.generation {
            self.generation = generation;
            self.last.clear();
        }
    }

    #[cold]
    fn compare_texts(&mut self, columns: &Columns, metadata: &MetadataColumns, row: usize) {
        let Some(sensor) = columns.column(self.columns.sensor).str_at(row) else { return };
        let site = self.columns.site.and_then(|site| columns.column(site).str_at(row)).unwrap_or_default();
        let (sensor_hash, site_hash) = (self.hash(sensor), self.hash(site));
        if self.known.insert(sensor_hash, site_hash) == Some(site_hash) {
            return;
        }
        let found = SensorRow {
            sensor: sensor.into(),
            site: site.into(),
            seen_at_ms: columns.column(self.columns.time).time_millis_at(row).unwrap_or_default(),
            version: metadata.offset(row) + 1,
        };
        self.waiting_bytes += 2 * sensor.len() + site.len();
        self.waiting.insert(sensor.into(), found);
    }

    fn hash(&self, text: &str) -> u64 {
        xxh3_64_with_seed(text.as_bytes(), self.seed)
    }
}
