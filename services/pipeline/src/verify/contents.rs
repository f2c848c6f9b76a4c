//! One partition's archive from the first segment to the last: rows against footers, windows and flags against the hot
//! store. One segment is in memory, and the next on its way.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Shared;
use super::chain::{Chain, Segment};
use super::compare::{Comparison, Progressed};
use super::contract::Breach;
use super::dead_letters;
use super::flags::{Flagged, Flags};
use super::hot_rows::in_range;
use super::listing;
use super::quality::{Cells, ExpectedQuality, QualityComparison};
use super::repeats::Told;
use super::replay::{ExpectedRow, Replay};
use super::report::{Check, shown_time};
use super::scope::Scope;
use super::segment_rows::{Rows, SegmentReader};
use super::totals::ArchivedEvent;

/// Rows that wait to be compared with the hot store; a query a slice.
const ROWS_A_SLICE: usize = 200_000;
/// Segments after which flags are compared, however few they are.
const SEGMENTS_A_SLICE: usize = 500;

const HOUR_MS: i64 = 3_600_000;

/// Where one partition has got to.
struct Contents<'a> {
    shared: &'a Arc<Shared>,
    partition: i32,
    comparison: Comparison<'a>,
    scope: Scope,
    /// Windows that start before were compared.
    compared_before_ms: i64,
    late: Vec<ExpectedRow>,
    /// Late contributions of segments from here on wait.
    late_from: i64,
    flagged: Vec<Flagged>,
    /// Flags at offsets from here on wait.
    flagged_from: i64,
    segments_since_flags: usize,
    /// Segments whose quality waits to be compared.
    quality: Vec<ExpectedQuality>,
}

/// Goes through the unbroken part of a chain. `durable`: everything before it is written.
pub(super) async fn check(shared: &Arc<Shared>, partition: i32, chain: &Chain, durable: i64) -> anyhow::Result<()> {
    let report = &shared.report;
    if chain.is_broken() {
        let from = chain.range().map_or(0, |(_, end)| end);
        let because =
            format!("partition {partition}: what lies behind offset {from}, because the chain is broken there");
        report.not_checked(Check::Windows, because.clone());
        report.not_checked(Check::Anomalies, because.clone());
        report.not_checked(Check::DeadLetters, because);
    }
    let (start, end) = match chain.range() {
        Some(range) => range,
        None if chain.is_broken() => return Ok(()),
        // Nothing is archived yet: then nothing may be in the hot store but provisional rows.
        None => (durable, durable),
    };
    let mut scope = shared.scope;
    if chain.head_is_missing
        && let Some(first) = chain.segments.first()
    {
        let latest_ms = (first.object.hour + 1) * HOUR_MS;
        scope = scope.behind_missing_head(latest_ms, shared.max_future_skew_ms, shared.windows.length_ms);
        shared.sample.begin_at(scope.from_ms);
        let from = shown_time(scope.from_ms);
        let because =
            format!("partition {partition}: windows before {from}, which may hold events of expired segments");
        report.not_checked(Check::Windows, because);
    }
    let is_partial = chain.head_is_missing || chain.unbroken_segments().iter().any(|segment| !scope.needs(segment));
    if is_partial {
        let because = format!(
            "partition {partition}: whether the right events are flagged, because the detector would need all segments; \
             each flag was looked for in the archive"
        );
        report.not_checked(Check::Anomalies, because);
        let because = format!(
            "partition {partition}: whether the right readings are marked, because that would need all segments"
        );
        report.not_checked(Check::Duplicates, because);
    }
    let flags = if is_partial { Flags::AsStored(HashMap::new()) } else { Flags::Recomputed(shared.detector.clone()) };
    let comparison = Comparison {
        report,
        partition,
        progressed: Progressed { committed: durable, end },
        is_whole: !is_partial,
        windows_expired_before_ms: shared.windows_expired_before_ms,
        anomalies_expired_before_ms: shared.anomalies_expired_before_ms,
    };
    let from_the_start = if chain.head_is_missing { start } else { 0 };
    let mut contents = Contents {
        shared,
        partition,
        comparison,
        scope,
        compared_before_ms: scope.from_ms,
        late: Vec::new(),
        late_from: from_the_start,
        flagged: Vec::new(),
        flagged_from: from_the_start,
        segments_since_flags: 0,
        quality: Vec::new(),
    };
    let replay = Replay::new(shared.windows.clone(), flags, scope);
    contents.go_through(chain.unbroken_segments(), replay).await
}

impl Contents<'_> {
    async fn go_through(&mut self, segments: &[Segment], mut replay: Replay) -> anyhow::Result<()> {
        let mut upcoming = self.fetch_next(segments);
        for (index, segment) in segments.iter().enumerate() {
            if !self.scope.needs(segment) {
                if let Some((_, largest_ms)) = segment.times_ms {
                    replay.skip_segment(largest_ms, segment.end);
                }
                self.shared.progress.done(segment.rows);
                continue;
            }
            let Some(fetched) = upcoming.take() else { break };
            let object = fetched.await??;
            upcoming = self.fetch_next(&segments[index + 1..]);
            let outcome = self.segment(segment, object, &mut replay).await?;
            if let Err(sentence) = outcome {
                let (partition, key) = (self.partition, &segment.object.key);
                let sentence = format!("partition {partition}: archive object {key}: {sentence}");
                self.shared.report.differs(Check::Chain, Some(partition), segment.start, sentence);
                let because =
                    format!("partition {partition}: what lies behind offset {}, because of that", segment.start);
                self.shared.report.not_checked(Check::Windows, because.clone());
                self.shared.report.not_checked(Check::Anomalies, because);
                return Ok(());
            }
        }
        self.compare_closed(&mut replay).await?;
        self.compare_open(&mut replay).await?;
        let end = self.comparison.progressed.end;
        self.shared.sample.reached(self.partition, end, replay.closed_before_ms());
        self.compare_late(None).await?;
        self.compare_quality().await?;
        self.compare_flags(None).await
    }

    /// Begins to fetch the next segment that is needed.
    fn fetch_next(&self, segments: &[Segment]) -> Option<JoinHandle<anyhow::Result<Option<Bytes>>>> {
        let key = segments.iter().find(|segment| self.scope.needs(segment))?.object.key.clone();
        let shared = Arc::clone(self.shared);
        Some(tokio::spawn(async move { listing::read(&shared.stores.archive, &key).await }))
    }

    /// Goes through one segment. A sentence: it is not what it should be, and nothing behind it can be checked.
    async fn segment(
        &mut self,
        segment: &Segment,
        object: Option<Bytes>,
        replay: &mut Replay,
    ) -> anyhow::Result<Result<(), String>> {
        let Some(object) = object else { return Ok(Err("it was listed, but is not there any more".to_owned())) };
        let reader = match SegmentReader::open(object, &self.shared.columns, &self.shared.contract) {
            Ok(reader) => reader,
            Err(sentence) => return Ok(Err(sentence)),
        };
        if segment.rejects > 0 {
            dead_letters::check(self.shared, segment, &reader.footer, self.comparison.progressed.committed).await?;
        }
        if let Flags::AsStored(_) = replay.flags {
            replay.flags = Flags::AsStored(self.stored_flags(segment).await?);
        }
        let empty = Replay::new(self.shared.windows.clone(), Flags::AsStored(HashMap::new()), self.scope);
        let mut work = SegmentWork {
            cells: Cells::default(),
            duplicates: 0,
            reader,
            replay: std::mem::replace(replay, empty),
            seen: 0,
            last_offset: None,
        };
        work.replay.repeats.begin_segment(work.reader.footer.sequence.as_deref());
        let outcome = loop {
            let shared = Arc::clone(self.shared);
            let (partition, segment) = (self.partition, segment.clone());
            let (returned, outcome) = spawn_blocking(move || {
                let outcome = work.step(&shared, partition, &segment);
                (work, outcome)
            })
            .await?;
            work = returned;
            match outcome {
                Ok(true) => self.compare_closed(&mut work.replay).await?,
                Ok(false) => break work.check_count(),
                Err(sentence) => break Err(sentence),
            }
        };
        *replay = work.replay;
        if outcome.is_err() {
            return Ok(outcome);
        }
        // Older versions of the program did not count.
        if let Some(duplicates) = work.reader.footer.duplicates {
            if duplicates != work.duplicates {
                let found = work.duplicates;
                return Ok(Err(format!("{found} rows are marked as duplicates, its footer says {duplicates}")));
            }
            let is_expired = segment.object.hour * HOUR_MS < self.shared.quality_expired_before_ms;
            let Segment { start, end, rejects: rejected, .. } = *segment;
            let cells = work.cells.by_name();
            self.quality.push(ExpectedQuality { start, end, cells, rejected, is_expired });
        }
        self.late.extend(replay.end_segment(segment.start, segment.end));
        self.take_flagged(replay);
        self.compare_what_is_enough(segment.end, replay).await?;
        Ok(Ok(()))
    }

    async fn compare_what_is_enough(&mut self, end: i64, replay: &mut Replay) -> anyhow::Result<()> {
        self.segments_since_flags += 1;
        if replay.waiting() >= ROWS_A_SLICE {
            self.compare_closed(replay).await?;
        }
        if self.late.len() >= ROWS_A_SLICE {
            self.compare_late(Some(end)).await?;
        }
        let cells: usize = self.quality.iter().map(|segment| segment.cells.len()).sum();
        if self.quality.len() >= SEGMENTS_A_SLICE || cells >= ROWS_A_SLICE {
            self.compare_quality().await?;
        }
        if self.flagged.len() >= ROWS_A_SLICE || self.segments_since_flags >= SEGMENTS_A_SLICE {
            self.compare_flags(Some(end)).await?;
        }
        Ok(())
    }

    async fn compare_closed(&mut self, replay: &mut Replay) -> anyhow::Result<()> {
        let closed_before_ms = replay.closed_before_ms().min(self.scope.to_ms);
        let range = Scope { from_ms: self.compared_before_ms, to_ms: closed_before_ms };
        if closed_before_ms <= self.compared_before_ms {
            return Ok(());
        }
        self.compare_own(replay.take_closed(), range, closed_before_ms).await?;
        self.compared_before_ms = closed_before_ms;
        Ok(())
    }

    async fn compare_open(&mut self, replay: &mut Replay) -> anyhow::Result<()> {
        let range = Scope { from_ms: self.compared_before_ms, to_ms: self.scope.to_ms };
        if range.from_ms >= range.to_ms {
            return Ok(());
        }
        self.compare_own(replay.take_open(), range, replay.closed_before_ms()).await
    }

    async fn compare_own(
        &mut self,
        expected: Vec<ExpectedRow>,
        range: Scope,
        closed_before_ms: i64,
    ) -> anyhow::Result<()> {
        self.offer(&expected);
        self.shared.report.examined(Check::Windows, "windows recomputed", expected.len() as u64);
        let condition = format!("segment = -1 AND {}", in_range("window_start", range));
        let (found, is_all) = self.shared.hot.windows(self.partition, &condition, expected.len()).await?;
        self.comparison.windows(expected, found, is_all, closed_before_ms);
        Ok(())
    }

    /// Late contributions of the segments that begin before `end`, or of all others.
    async fn compare_late(&mut self, end: Option<i64>) -> anyhow::Result<()> {
        let expected = std::mem::take(&mut self.late);
        self.offer(&expected);
        self.shared.report.examined(Check::Windows, "late contributions recomputed", expected.len() as u64);
        let before = end.map(|end| format!(" AND segment < {end}")).unwrap_or_default();
        let range = in_range("window_start", self.scope);
        let condition = format!("segment >= {}{before} AND {range}", self.late_from);
        let (found, is_all) = self.shared.hot.windows(self.partition, &condition, expected.len()).await?;
        self.comparison.windows(expected, found, is_all, i64::MAX);
        self.late_from = end.unwrap_or(i64::MAX);
        Ok(())
    }

    async fn compare_flags(&mut self, end: Option<i64>) -> anyhow::Result<()> {
        let expected = std::mem::take(&mut self.flagged);
        self.segments_since_flags = 0;
        if !self.comparison.is_whole {
            return Ok(());
        }
        self.shared.report.examined(Check::Anomalies, "flags recomputed", expected.len() as u64);
        let before = end.map(|end| format!(" AND `offset` < {end}")).unwrap_or_default();
        let range = self.events_in_scope();
        let condition = format!("`offset` >= {}{before} AND {range}", self.flagged_from);
        let (found, is_all) = self.shared.hot.anomalies(self.partition, &condition, expected.len()).await?;
        self.comparison.anomalies(expected, found, is_all);
        self.flagged_from = end.unwrap_or(i64::MAX);
        Ok(())
    }

    /// Quality of the segments since the last call.
    async fn compare_quality(&mut self) -> anyhow::Result<()> {
        let expected = std::mem::take(&mut self.quality);
        let (Some(first), Some(last)) = (expected.first(), expected.last()) else { return Ok(()) };
        let Comparison { report, partition, progressed, is_whole, .. } = self.comparison;
        let starts = if is_whole {
            format!("segment >= {} AND segment < {}", first.start, last.end)
        } else {
            // Others, which were not gone through, may lie between them.
            let starts: Vec<String> = expected.iter().map(|segment| segment.start.to_string()).collect();
            format!("segment IN ({})", starts.join(", "))
        };
        let found = self.shared.hot.quality(self.partition, &starts).await?;
        let Progressed { committed, end } = progressed;
        QualityComparison { report, partition, committed, end, has_marks: is_whole }.compare(&expected, found);
        Ok(())
    }

    fn events_in_scope(&self) -> String {
        in_range("event_time", self.scope)
    }

    /// The flags that the hot store has for a segment, where they cannot be recomputed.
    async fn stored_flags(&self, segment: &Segment) -> anyhow::Result<HashMap<i64, Flagged>> {
        let range = self.events_in_scope();
        let condition = format!("`offset` >= {} AND `offset` < {} AND {range}", segment.start, segment.end);
        let (found, _) = self.shared.hot.anomalies(self.partition, &condition, segment.rows as usize).await?;
        Ok(found.into_iter().map(|flag| (flag.offset, flag)).collect())
    }

    fn take_flagged(&mut self, replay: &mut Replay) {
        let seen = replay.take_flagged();
        match std::mem::replace(&mut replay.flags, Flags::AsStored(HashMap::new())) {
            // Each stored flag must be an archived event, as the archive has it.
            Flags::AsStored(stored) => self.comparison.anomalies(seen, stored.into_values().collect(), true),
            recomputed @ Flags::Recomputed(_) => {
                replay.flags = recomputed;
                self.flagged.extend(seen);
            }
        }
    }

    fn offer(&self, rows: &[ExpectedRow]) {
        let committed = self.comparison.progressed.committed;
        for row in rows {
            self.shared.sample.offer(self.partition, row, committed);
        }
    }
}

/// A segment on its way through the replay.
struct SegmentWork {
    reader: SegmentReader,
    replay: Replay,
    cells: Cells,
    /// Rows that are marked.
    duplicates: u64,
    /// Rows so far.
    seen: u64,
    last_offset: Option<i64>,
}

impl SegmentWork {
    /// Goes on until enough rows wait to be compared (`true`) or the segment is through.
    fn step(&mut self, shared: &Shared, partition: i32, segment: &Segment) -> Result<bool, String> {
        while let Some(rows) = self.reader.next_rows() {
            let rows = rows?;
            self.check_rows(&rows, partition, segment)?;
            for Breach { offset, rule } in &rows.breaches {
                let key = &segment.object.key;
                let sentence = format!(
                    "partition {partition}: archive object {key}: offset {offset} breaks the rule {rule} of the data \
                     contract that was in force"
                );
                shared.report.differs(Check::Chain, Some(partition), *offset, sentence);
            }
            let (mut key, duplicates_before) = (Vec::new(), self.duplicates);
            for row in 0..rows.len() {
                let event = rows.event(row, &mut key)?;
                let sensor = key.first().copied().unwrap_or_default();
                let told = self.replay.repeats.tell(sensor, &event);
                let (site, metric) = (rows.site(row), key.get(1).copied().unwrap_or_default());
                self.count(site, metric, rows.timestamps[row], &event, told);
                if event.is_marked != (told == Told::Duplicate) {
                    tell_mark(shared, partition, sensor, &event);
                }
                if !event.is_marked {
                    self.replay.add(&key, &event);
                }
            }
            shared.report.examined(Check::Duplicates, "readings", rows.len() as u64);
            shared.report.examined(Check::Duplicates, "duplicates", self.duplicates - duplicates_before);
            shared.progress.done(rows.len() as u64);
            if self.replay.waiting() >= ROWS_A_SLICE {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn count(&mut self, site: &str, metric: &str, arrived_ms: i64, event: &ArchivedEvent, told: Told) {
        self.duplicates += u64::from(event.is_marked);
        self.cells.of(site, metric, arrived_ms).add(event, arrived_ms, told);
    }

    fn check_rows(&mut self, rows: &Rows, partition: i32, segment: &Segment) -> Result<(), String> {
        let footer = &self.reader.footer;
        if let Some(other) = rows.partitions.iter().find(|found| **found != partition) {
            return Err(format!("a row says that it is of partition {other}"));
        }
        for offset in &rows.offsets {
            if !(segment.start..segment.end).contains(offset) {
                return Err(format!("a row has offset {offset}, outside of [{}, {})", segment.start, segment.end));
            }
            if self.last_offset.is_some_and(|last| last >= *offset) {
                return Err(format!("offset {offset} stands behind one that is not smaller"));
            }
            if let Some(reason) = footer.rejected.reason_of(*offset) {
                return Err(format!("offset {offset} is a row, and in the footer a reject ({reason})"));
            }
            self.last_offset = Some(*offset);
        }
        if self.seen == 0 && rows.offsets.first() == Some(&segment.start) {
            check_hour(segment, rows.timestamps[0])?;
        }
        self.seen += rows.len() as u64;
        Ok(())
    }

    fn check_count(&self) -> Result<(), String> {
        let wanted = self.reader.footer.rows;
        if self.seen == wanted {
            Ok(())
        } else {
            Err(format!("{} rows can be read, its footer says {wanted}", self.seen))
        }
    }
}

fn tell_mark(shared: &Shared, partition: i32, sensor: &str, event: &ArchivedEvent) {
    let ArchivedEvent { offset, sequence, is_marked, .. } = event;
    let what = if *is_marked {
        "is marked as a duplicate, but was not there before"
    } else {
        "was there before, but is not marked"
    };
    let sentence = format!("partition {partition}, offset {offset}: reading {sequence} of {sensor} {what}");
    shared.report.differs(Check::Duplicates, Some(partition), *offset, sentence);
}

/// Date and hour of a key are those of the segment's first record.
pub(super) fn check_hour(segment: &Segment, first_timestamp_ms: i64) -> Result<(), String> {
    if first_timestamp_ms.div_euclid(HOUR_MS) == segment.object.hour {
        return Ok(());
    }
    Err(format!("it lies under another hour than its first record has ({})", shown_time(first_timestamp_ms)))
}
