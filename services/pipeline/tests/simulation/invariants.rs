//! What must hold, judged by code that shares nothing with the pipeline but the file formats.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use bytes::Bytes;
use futures::{FutureExt as _, TryStreamExt as _};
use kappa_core::rows::OWN_ROW;
use kappa_pipeline::archive::SegmentFooter;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaDataReader;

use crate::group_and_log::Brokers;
use crate::hot_store::{HotTables, SimHotStore};
use crate::records::{Content, SimRecord, Writer};
use crate::scenario::{LATENESS_MS, WINDOW_MS};
use crate::world::{World, lock};

/// One archive object.
#[derive(Debug)]
struct Segment {
    footer: SegmentFooter,
    /// Offset and value of each row.
    rows: Vec<(i64, f64)>,
    /// Offsets of the rows that are marked as duplicates.
    duplicates: BTreeSet<i64>,
}

/// What is durable, to be compared with what is committed.
pub(crate) struct Durable {
    pub(crate) store: Arc<InMemory>,
    pub(crate) tables: Arc<Mutex<HotTables>>,
    pub(crate) world: Arc<World>,
    /// Segments by their start: the footers that were read so far, since a run commits often.
    pub(crate) footers: Mutex<BTreeMap<i64, SegmentFooter>>,
}

impl Durable {
    /// Invariant C, at the moment of the commit: the snapshot is there, the archive is a chain that reaches that far,
    /// the dead letters of its rejects and the rows of its events are written.
    pub(crate) fn check_commit(&self, first: i64, offset: i64) {
        // Nothing in memory ever waits.
        let checked = self.try_check_commit(first, offset).now_or_never().unwrap_or(Err("the store waits".to_owned()));
        if let Err(broken) = checked {
            self.world.breaks(format!("C: {offset} was committed, but {broken}"));
        }
    }

    async fn try_check_commit(&self, first: i64, offset: i64) -> Result<(), String> {
        let snapshot = Path::from(format!("state/readings/00000/{offset:020}.snapshot"));
        self.store.head(&snapshot).await.map_err(|_| format!("there is no snapshot {snapshot}"))?;
        self.read_new_footers().await?;
        let dead_letters = keys(&self.store, "dead").await?;
        let with_dead_letters: BTreeSet<i64> = dead_letters.iter().filter_map(|(_, name)| start_of(name)).collect();
        let positions = snapshot_positions(&self.store).await?;
        let footers = lock(&self.footers);
        let mut end = first;
        let mut rows = 0;
        for (start, footer) in footers.range(..offset) {
            if *start != end {
                return Err(format!("the archive has a gap from {end} to {start}"));
            }
            if footer.rejected.count() > 0 && !with_dead_letters.contains(start) {
                return Err(format!("the rejects of [{start}, {}) are no dead letters", footer.end));
            }
            end = footer.end;
            rows += footer.rows - footer.duplicates.unwrap_or_default();
        }
        if end != offset {
            return Err(format!("the archive ends at {end}"));
        }
        // One that is astray would be taken for the state as soon as a segment happens to end there.
        let on_the_chain =
            |position: &i64| *position == first || footers.values().any(|footer| footer.end == *position);
        if let Some(astray) = positions.iter().find(|position| !on_the_chain(position)) {
            return Err(format!("there is a snapshot at {astray}, where no segment ends"));
        }
        let counted: u64 = lock(&self.tables).windows.values().map(|row| row.count).sum();
        if counted < rows {
            return Err(format!("the hot store has counted {counted} of {rows} events"));
        }
        Ok(())
    }

    async fn read_new_footers(&self) -> Result<(), String> {
        for (key, name) in keys(&self.store, "archive").await? {
            let start = start_of(&name).ok_or(format!("odd key {key}"))?;
            if lock(&self.footers).contains_key(&start) {
                continue;
            }
            let content = self.store.get(&key).await.map_err(|error| error.to_string())?;
            let content = content.bytes().await.map_err(|error| error.to_string())?;
            let metadata =
                ParquetMetaDataReader::new().parse_and_finish(&content).map_err(|error| error.to_string())?;
            let footer = SegmentFooter::from_metadata(&metadata).map_err(|error| error.to_string())?;
            lock(&self.footers).insert(start, footer);
        }
        Ok(())
    }
}

/// The first log position of the segment that an object is named after.
fn start_of(name: &str) -> Option<i64> {
    name.get(6..26)?.parse().ok()
}

/// Keys of all objects below a prefix, with their last parts.
async fn keys(store: &InMemory, prefix: &str) -> Result<Vec<(Path, String)>, String> {
    let listed = store.list(Some(&Path::from(prefix)));
    let named = listed.map_ok(|object| {
        let name = object.location.filename().unwrap_or_default().to_owned();
        (object.location, name)
    });
    named.try_collect().await.map_err(|error| error.to_string())
}

/// A to D, when all is quiet.
pub(crate) async fn check_all(
    store: &Arc<InMemory>,
    hot_store: &SimHotStore,
    brokers: &Arc<Brokers>,
    world: &Arc<World>,
) -> Result<(), String> {
    if let Some(broken) = world.broken() {
        return Err(broken);
    }
    let first = brokers.first();
    let mut records = brokers.records();
    records.retain(|record| record.offset >= first);
    let segments = read_archive(store).await?;
    let decided = check_chain(&segments, &records, first)?;
    check_rows(&segments, &records, &decided)?;
    check_dead_letters(store, &decided, &records).await?;
    let duplicates = check_duplicates(&segments, &records, &decided)?;
    check_windows(&hot_store.tables, &records, |offset| decided.contains_key(&offset) || duplicates.contains(&offset))?;
    check_quality(&hot_store.tables, &segments)?;
    check_anomalies(&hot_store.tables, &records)?;
    world.count(|outcome| {
        outcome.records = records.len() as u64;
        outcome.segments = segments.len() as u64;
        outcome.rejects = decided.len() as u64;
        let tables = lock(&hot_store.tables);
        outcome.late_rows = tables.windows.keys().filter(|key| key.2 != OWN_ROW).count() as u64;
        outcome.anomalies = tables.anomalies.len() as u64;
        outcome.readings_again = duplicates.len() as u64;
    });
    Ok(())
}

async fn objects(store: &InMemory, prefix: &str) -> Result<Vec<(Path, Bytes)>, String> {
    let listed: Vec<_> =
        store.list(Some(&Path::from(prefix))).try_collect().await.map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    for object in listed {
        let content = store.get(&object.location).await.map_err(|error| error.to_string())?;
        found.push((object.location, content.bytes().await.map_err(|error| error.to_string())?));
    }
    Ok(found)
}

/// Segments by their start.
async fn read_archive(store: &InMemory) -> Result<BTreeMap<i64, Segment>, String> {
    let mut segments = BTreeMap::new();
    for (key, content) in objects(store, "archive").await? {
        let builder = ParquetRecordBatchReaderBuilder::try_new(content).map_err(|error| format!("{key}: {error}"))?;
        let footer = SegmentFooter::from_metadata(builder.metadata()).map_err(|error| format!("{key}: {error}"))?;
        let (mut rows, mut duplicates) = (Vec::new(), BTreeSet::new());
        for batch in builder.build().map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            let column = |name: &str| batch.column_by_name(name).ok_or(format!("{key} has no {name}"));
            let offsets = column("_offset")?.as_primitive::<Int64Type>().values();
            let values = column("value")?.as_primitive::<Float64Type>().values();
            rows.extend(offsets.iter().copied().zip(values.iter().copied()));
            let marks = column("_duplicate")?.as_boolean();
            let marked = offsets.iter().zip(marks.iter()).filter(|(_, mark)| *mark == Some(true));
            duplicates.extend(marked.map(|(offset, _)| *offset));
        }
        if !key.as_ref().ends_with(&format!("00000-{:020}.parquet", footer.start)) {
            return Err(format!("A: {key} holds the segment that starts at {}", footer.start));
        }
        segments.insert(footer.start, Segment { footer, rows, duplicates });
    }
    Ok(segments)
}

/// A: the chain is contiguous from `first` to the end of the log, and rows and rejects are all records. Returns the
/// rejected offsets with their reasons.
fn check_chain(
    segments: &BTreeMap<i64, Segment>,
    records: &[SimRecord],
    first: i64,
) -> Result<BTreeMap<i64, String>, String> {
    let mut end = first;
    let mut rejected = BTreeMap::new();
    for (start, segment) in segments {
        let footer = &segment.footer;
        if *start != end || footer.end <= *start {
            return Err(format!("A: a segment [{start}, {}) follows one that ends at {end}", footer.end));
        }
        end = footer.end;
        let inside = || records.iter().filter(|record| (*start..footer.end).contains(&record.offset));
        let delivered = inside().count() as u64;
        if footer.rows + footer.rejected.count() != delivered || footer.rows != segment.rows.len() as u64 {
            return Err(format!("A: [{start}, {end}) has {delivered} records, but its footer says {footer:?}"));
        }
        for record in inside() {
            if let Some(reason) = footer.rejected.reason_of(record.offset) {
                rejected.insert(record.offset, reason.name().into_owned());
            }
        }
    }
    let log_end = records.last().map_or(first, |record| record.offset + 1);
    if end != log_end {
        return Err(format!("A: the archive ends at {end}, the log at {log_end}"));
    }
    Ok(rejected)
}

/// Rows are the accepted records, and the decisions are right.
fn check_rows(
    segments: &BTreeMap<i64, Segment>,
    records: &[SimRecord],
    rejected: &BTreeMap<i64, String>,
) -> Result<(), String> {
    let rows: Vec<(i64, f64)> = segments.values().flat_map(|segment| segment.rows.iter().copied()).collect();
    let mut expected = Vec::new();
    for record in records {
        let reason = rejected.get(&record.offset).map(String::as_str);
        let right = match (&record.content, record.writer) {
            (Content::Bad("tombstone"), _) => reason == Some("tombstone"),
            (_, Writer::Unknown) => reason == Some("unknown_schema_id"),
            (_, Writer::KnownLater) if reason == Some("unknown_schema_id") => true,
            (Content::Bad(bad), _) => reason == Some(bad),
            (Content::Reading { .. }, _) => reason.is_none(),
        };
        if !right {
            return Err(format!("{record:?} was judged {reason:?}"));
        }
        if let (None, Content::Reading { value, .. }) = (reason, &record.content) {
            expected.push((record.offset, *value));
        }
    }
    if rows != expected {
        return Err(format!(
            "A: the archive has {} rows, {} were expected, or in another order",
            rows.len(),
            expected.len()
        ));
    }
    Ok(())
}

/// D: each reject exactly once, with its reason and its bytes.
async fn check_dead_letters(
    store: &InMemory,
    rejected: &BTreeMap<i64, String>,
    records: &[SimRecord],
) -> Result<(), String> {
    let mut found = BTreeMap::new();
    for (key, content) in objects(store, "dead").await? {
        let builder = ParquetRecordBatchReaderBuilder::try_new(content).map_err(|error| format!("{key}: {error}"))?;
        for batch in builder.build().map_err(|error| error.to_string())? {
            let batch = batch.map_err(|error| error.to_string())?;
            let column = |name: &str| batch.column_by_name(name).ok_or(format!("{key} has no {name}"));
            let offsets = column("offset")?.as_primitive::<Int64Type>();
            let reasons = column("reason")?.as_string::<i32>();
            let values = column("value")?.as_binary::<i32>();
            for (row, offset) in offsets.values().iter().enumerate() {
                let value = values.iter().nth(row).flatten().map(<[u8]>::to_vec);
                if found.insert(*offset, (reasons.value(row).to_owned(), value)).is_some() {
                    return Err(format!("D: offset {offset} is twice in the dead letters"));
                }
            }
        }
    }
    let raw: BTreeMap<i64, _> = records.iter().map(|record| (record.offset, record.value.clone())).collect();
    let expected: BTreeMap<i64, _> = rejected
        .iter()
        .map(|(offset, reason)| (*offset, (reason.clone(), raw.get(offset).cloned().flatten())))
        .collect();
    if found != expected {
        return Err(format!("D: the dead letters are {:?}, not {:?}", found.keys(), expected.keys()));
    }
    Ok(())
}

/// B: what is marked is what came again, by the rules of `docs/architecture.md`, written down anew.
fn check_duplicates(
    segments: &BTreeMap<i64, Segment>,
    records: &[SimRecord],
    rejected: &BTreeMap<i64, String>,
) -> Result<BTreeSet<i64>, String> {
    struct Life {
        numbers: BTreeSet<i64>,
        newest_ms: i64,
        since_ms: i64,
    }
    let mut lives: BTreeMap<&str, Life> = BTreeMap::new();
    let mut duplicates = BTreeSet::new();
    for record in records.iter().filter(|record| !rejected.contains_key(&record.offset)) {
        let Content::Reading { series, time_ms, number, .. } = &record.content else { continue };
        let (time_ms, number) = (*time_ms, *number);
        let life =
            lives.entry(series).or_insert(Life { numbers: BTreeSet::new(), newest_ms: time_ms, since_ms: i64::MIN });
        let highest = life.numbers.last().copied();
        if time_ms < life.since_ms
            || highest.is_some_and(|highest| number <= highest - 256 && time_ms <= life.newest_ms)
        {
            continue;
        }
        if highest.is_some_and(|highest| number <= highest) && time_ms > life.newest_ms {
            *life = Life { numbers: BTreeSet::from([number]), newest_ms: time_ms, since_ms: time_ms };
        } else if life.numbers.insert(number) {
            life.newest_ms = life.newest_ms.max(time_ms);
        } else {
            duplicates.insert(record.offset);
        }
    }
    let marked: BTreeSet<i64> = segments.values().flat_map(|segment| segment.duplicates.iter().copied()).collect();
    if marked != duplicates {
        let odd: Vec<_> = marked.symmetric_difference(&duplicates).collect();
        return Err(format!("B: {odd:?} are marked and came not again, or the other way round"));
    }
    Ok(duplicates)
}

/// B: of each segment the quality adds up to its footer.
fn check_quality(tables: &Mutex<HotTables>, segments: &BTreeMap<i64, Segment>) -> Result<(), String> {
    let mut found: BTreeMap<i64, (u64, u64, u64)> = BTreeMap::new();
    for quality in lock(tables).quality.values() {
        let (counts, sums) = (&quality.row.counts, found.entry(quality.segment).or_default());
        *sums = (sums.0 + counts.accepted, sums.1 + counts.duplicates, sums.2 + counts.rejected);
    }
    let sums_of = |segment: &Segment| {
        let duplicates = segment.duplicates.len() as u64;
        (segment.footer.rows - duplicates, duplicates, segment.footer.rejected.count())
    };
    let expected: BTreeMap<i64, _> = segments.iter().map(|(start, segment)| (*start, sums_of(segment))).collect();
    if found != expected {
        return Err(format!("B: the quality of the segments is {found:?}, not {expected:?}"));
    }
    Ok(())
}

/// B: windows equal a fold over the accepted records, written down anew.
fn check_windows(
    tables: &Mutex<HotTables>,
    records: &[SimRecord],
    is_left_out: impl Fn(i64) -> bool,
) -> Result<(), String> {
    #[derive(Debug, Default, PartialEq)]
    struct Sums {
        on_time: u64,
        late: u64,
        min: f64,
        max: f64,
        sum: f64,
    }
    let mut expected: BTreeMap<(String, i64), Sums> = BTreeMap::new();
    let mut watermark = i64::MIN;
    for record in records.iter().filter(|record| !is_left_out(record.offset)) {
        let Content::Reading { series, time_ms, value, .. } = &record.content else { continue };
        watermark = watermark.max(*time_ms);
        let start = time_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
        let sums = expected.entry((series.clone(), start)).or_insert(Sums {
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            ..Sums::default()
        });
        let is_late = start + WINDOW_MS + LATENESS_MS <= watermark;
        *(if is_late { &mut sums.late } else { &mut sums.on_time }) += 1;
        sums.min = sums.min.min(*value);
        sums.max = sums.max.max(*value);
        sums.sum += value;
    }
    let mut found: BTreeMap<(String, i64), Sums> = BTreeMap::new();
    for ((series, start, segment), row) in &lock(tables).windows {
        let sums = found.entry((series.clone(), *start)).or_insert(Sums {
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            ..Sums::default()
        });
        *(if *segment == OWN_ROW { &mut sums.on_time } else { &mut sums.late }) += row.count;
        sums.min = sums.min.min(row.min);
        sums.max = sums.max.max(row.max);
        sums.sum += row.sum;
    }
    for (key, wanted) in &expected {
        let close = |found: &Sums| (found.sum - wanted.sum).abs() < 1e-6;
        let same = |found: &Sums| {
            (found.on_time, found.late, found.min, found.max) == (wanted.on_time, wanted.late, wanted.min, wanted.max)
        };
        match found.get(key) {
            Some(found) if same(found) && close(found) => {}
            other => return Err(format!("B: window {key:?} is {other:?}, not {wanted:?}")),
        }
    }
    if found.len() != expected.len() {
        return Err(format!("B: {} windows, {} expected", found.len(), expected.len()));
    }
    Ok(())
}

/// B: each flagged event is a row with its own value, and windows have counted as many.
fn check_anomalies(tables: &Mutex<HotTables>, records: &[SimRecord]) -> Result<(), String> {
    let tables = lock(tables);
    let mut rows: BTreeMap<(String, i64), u64> = BTreeMap::new();
    for (offset, row) in &tables.anomalies {
        let found = records.iter().find(|record| record.offset == *offset).map(|record| &record.content);
        let series = row.series.parts().collect::<Vec<_>>().join("/");
        let is_right = found.is_some_and(|content| {
            let expected = (&series, &row.event_time_ms, &row.value);
            matches!(content, Content::Reading { series, time_ms, value, .. } if (series, time_ms, value) == expected)
        });
        if !is_right {
            return Err(format!("B: the anomaly at {offset} is {row:?}, the record {found:?}"));
        }
        *rows.entry((series, row.event_time_ms.div_euclid(WINDOW_MS) * WINDOW_MS)).or_default() += 1;
    }
    let mut counted: BTreeMap<(String, i64), u64> = BTreeMap::new();
    for ((series, start, _), row) in tables.windows.iter().filter(|(_, row)| row.anomalies > 0) {
        *counted.entry((series.clone(), *start)).or_default() += row.anomalies;
    }
    if rows != counted {
        return Err(format!("B: windows have counted the anomalies {counted:?}, the rows are {rows:?}"));
    }
    Ok(())
}

/// Where there are snapshots, in no order.
pub(crate) async fn snapshot_positions(store: &InMemory) -> Result<Vec<i64>, String> {
    let mut positions = Vec::new();
    for (key, name) in keys(store, "state").await? {
        match name.strip_suffix(".snapshot") {
            Some(position) => positions.push(position.parse().map_err(|_| format!("odd key {key}"))?),
            None if name == "start" => {}
            None => return Err(format!("{key} is no snapshot")),
        }
    }
    Ok(positions)
}

/// Whatever is in the archive and the dead letters is of `records` and of no other topic.
pub(crate) async fn check_nothing_else(store: &InMemory, records: &[SimRecord]) -> Result<u64, String> {
    let segments = read_archive(store).await?;
    let end = segments.values().map(|segment| segment.footer.end).max().unwrap_or(0);
    let archived: Vec<_> = records.iter().filter(|record| record.offset < end).cloned().collect();
    let decided = check_chain(&segments, &archived, 0)?;
    check_rows(&segments, &archived, &decided)?;
    check_dead_letters(store, &decided, records).await?;
    Ok(archived.len() as u64)
}
