//! One partition as a pure state machine: log records in, archive rows, window rows and rejects out.
//!
//! [`PartitionState`] knows nothing of Kafka, stores or clocks. The shell feeds it batches; it stops at a record when
//! it needs something that only the shell can give ([`Progress`]): a schema from the registry, or a decision to cut
//! the segment. Everything that it says is a function of the records it was given, so two owners of a partition, or a
//! replay after a crash, say the same.

mod lookup;
mod rejects;
mod segment;
mod sites;
mod unknown_schemas;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};

pub use rejects::RejectedOffsets;
pub use segment::{RejectCause, RejectedRecords, SegmentCut};

use crate::anomaly::ConfiguredDetector;
use crate::archive::{MetadataColumns, archive_schema};
use crate::contract::{EventFields, NoSuchField, TimeLimits, ValidEvent};
use crate::decode::{Columns, DecodeLimits, Decoder, ReaderSchema, SchemaReference, unframe};
use crate::record::{LogBatch, LogRecord};
use crate::reject::{Reason, Reject};
use crate::rows::{AnomalyRow, SensorRow, WindowRow};
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};
use crate::windows::{WindowSettings, Windows};

use lookup::SeriesLookup;
use segment::OpenSegment;
use sites::{SensorSites, SiteColumns};
use unknown_schemas::UnknownSchemas;

/// How many events ahead the state of a series is asked for: some hundred nanoseconds of work.
const EVENTS_AHEAD: usize = 12;
/// How many records ahead the place of a key in its dictionary is asked for.
const RECORDS_AHEAD: usize = 8;

/// Everything that decides what a log prefix means. The same for all partitions.
#[derive(Debug, Clone)]
pub struct PartitionSettings {
    /// The topic, as snapshots name it.
    pub topic: String,
    /// The schema that records are read as.
    pub reader: ReaderSchema,
    /// Arrow schema of the archive, from [`crate::archive::archive_schema`].
    pub archive_schema: SchemaRef,
    /// Which fields make an event.
    pub event: EventFields,
    /// Bounds on event times.
    pub time_limits: TimeLimits,
    /// Bounds on what a record may hold.
    pub decode_limits: DecodeLimits,
    /// How windows are cut.
    pub windows: WindowSettings,
    /// How anomalies are told.
    pub detector: ConfiguredDetector,
    /// Rows after which [`PartitionState::process`] stops for [`PartitionState::take_rows`].
    pub rows_per_batch: usize,
    /// Decoded bytes after which it stops, however few the rows are.
    pub bytes_per_batch: usize,
    /// Seed of the series hash: any number; it changes no output.
    pub hash_seed: u64,
}

impl PartitionSettings {
    /// The same, but for the reader schema: another version of it.
    pub fn read_by(&self, reader: ReaderSchema) -> Result<Self, NoSuchField> {
        let event = self.event.in_version(&self.reader, &reader)?;
        Ok(Self { archive_schema: archive_schema(&reader), event, reader, ..self.clone() })
    }
}

/// What is known of a writer's schema.
#[derive(Debug, Clone)]
pub enum WriterSchema {
    /// Records of it can be read.
    Readable {
        /// Compiled against the reader schema.
        decoder: Arc<Decoder>,
        /// The registry's number for it, also where records name it by GUID.
        id: Option<i32>,
    },
    /// Every record of it is rejected with this.
    Refused(Reject),
}

/// How far [`PartitionState::process`] came.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// All records were taken in.
    Consumed,
    /// Enough rows wait: [`PartitionState::take_rows`] and go on from there.
    RowsWait {
        /// Where to go on.
        index: usize,
    },
    /// The record at `index` is of a schema that was not told yet: [`PartitionState::learn`] it and go on from there.
    NeedsSchema {
        /// Where to go on.
        index: usize,
        /// The schema to look up.
        reference: SchemaReference,
    },
    /// The segment must be cut before the record at `index`: it is of a later hour, or behind the end of a segment
    /// that is replayed.
    SegmentEnds {
        /// Where to go on after the cut.
        index: usize,
    },
    /// A record that an adopted footer counts as accepted is not acceptable: the log or the registry has changed.
    Contradiction {
        /// Its offset.
        offset: i64,
        /// What is wrong with it now.
        reject: Reject,
    },
}

/// A segment that somebody has sealed already, to be gone through again with the decisions of its footer.
#[derive(Debug, Clone, PartialEq)]
pub struct Replay {
    /// The log position behind its last.
    pub end: i64,
    /// What was rejected, and why.
    pub rejected: RejectedOffsets,
}

/// The state of one partition at a log position.
#[derive(Debug)]
pub struct PartitionState {
    settings: Arc<PartitionSettings>,
    partition: i32,
    /// The next log position.
    position: i64,
    segment: OpenSegment,
    replay: Option<Replay>,
    writers: BTreeMap<SchemaReference, WriterSchema>,
    /// Schemas that the registry did not know, by a decision that is durable or will be with the open segment.
    unknown: UnknownSchemas,
    /// The registry's answer "unknown" to [`Progress::NeedsSchema`], for the record that asked.
    just_unknown: Option<SchemaReference>,
    /// The writer of the last record: most records have the same.
    last_writer: Option<(SchemaReference, Arc<Decoder>, Option<i32>)>,
    columns: Columns,
    metadata: MetadataColumns,
    lookup: SeriesLookup,
    sites: SensorSites,
    windows: Windows,
    /// Events of the records just decoded, about to be added to the windows.
    events: Vec<DecodedEvent>,
    /// Identity of the topic, carried from snapshot to snapshot.
    topic_id: Option<String>,
}

/// Where a snapshot was taken, readable without the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The topic.
    pub topic: String,
    /// The topic's identity, where the client could read it.
    pub topic_id: Option<String>,
    /// The partition.
    pub partition: i32,
    /// The log position.
    pub position: i64,
}

impl PartitionState {
    /// The empty state at a log position: nothing was seen before it.
    pub fn empty(settings: Arc<PartitionSettings>, partition: i32, position: i64, topic_id: Option<String>) -> Self {
        let site_columns = SiteColumns {
            sensor: settings.event.key_columns().next().unwrap_or_default(),
            site: settings.event.site_column(),
            time: settings.event.time_column(),
        };
        Self {
            columns: settings.reader.new_columns(&settings.decode_limits).with_hash_seed(settings.hash_seed),
            metadata: MetadataColumns::new(partition),
            lookup: SeriesLookup::new(settings.event.key_columns()),
            sites: SensorSites::new(site_columns, settings.hash_seed),
            windows: Windows::new(settings.windows.clone(), settings.detector.clone(), settings.hash_seed),
            events: Vec::new(),
            segment: OpenSegment::new(position),
            replay: None,
            writers: BTreeMap::new(),
            unknown: UnknownSchemas::default(),
            just_unknown: None,
            last_writer: None,
            settings,
            partition,
            position,
            topic_id,
        }
    }

    /// The state that a snapshot holds, at its position.
    pub fn restore(settings: Arc<PartitionSettings>, snapshot: &[u8]) -> Result<(Self, SnapshotHeader), SnapshotError> {
        let mut reader = SnapshotReader::open(snapshot)?;
        let topic = reader.text()?.to_owned();
        let topic_id = Some(reader.text()?).filter(|id| !id.is_empty()).map(str::to_owned);
        let partition = reader.u32()? as i32;
        let position = reader.i64()?;
        let mut state = Self::empty(settings, partition, position, topic_id.clone());
        state.unknown = UnknownSchemas::load(&mut reader)?;
        state.windows.load(&mut reader)?;
        reader.finish()?;
        state.check_key()?;
        Ok((state, SnapshotHeader { topic, topic_id, partition, position }))
    }

    /// A series is named by as many fields as before. Their names may have changed.
    fn check_key(&self) -> Result<(), SnapshotError> {
        let configured = self.settings.event.key_columns().len();
        let taken = self.windows.key_lengths().find(|taken| *taken != configured);
        taken.map_or(Ok(()), |taken| {
            Err(SnapshotError::Settings {
                setting: "event.key",
                taken: format!("{taken} fields"),
                configured: format!("{configured}"),
                advice: "series already written would change their meaning; keep the fields, or start a new group with \
                         new state, archive and tables",
            })
        })
    }

    /// What decides how records are read now.
    pub fn settings(&self) -> &Arc<PartitionSettings> {
        &self.settings
    }

    /// Reads on by another version of the reader schema: that of a segment which is gone through again. Only where a
    /// segment begins, with no row waiting; the windows go on.
    pub fn switch_settings(&mut self, settings: Arc<PartitionSettings>) {
        debug_assert!(self.columns.rows() == 0 && self.segment.first_timestamp_ms.is_none(), "a segment begins");
        let fresh = Self::empty(settings, self.partition, self.position, None);
        self.settings = fresh.settings;
        self.columns = fresh.columns;
        self.lookup = fresh.lookup;
        self.sites = fresh.sites;
        // Compiled against the other.
        self.writers.clear();
        self.last_writer = None;
    }

    /// The identity of the topic that the state belongs to, where the brokers said it.
    pub fn topic_id(&self) -> Option<&str> {
        self.topic_id.as_deref()
    }

    /// The state as a snapshot. All rows must have been taken.
    pub fn snapshot(&self) -> Vec<u8> {
        let mut writer = SnapshotWriter::new();
        writer.text(&self.settings.topic);
        writer.text(self.topic_id.as_deref().unwrap_or_default());
        writer.u32(self.partition as u32);
        writer.i64(self.position);
        self.unknown.save(&mut writer);
        self.windows.save(&mut writer);
        writer.finish()
    }

    /// From here to `replay.end`, decides nothing anew: what the footer rejected is rejected for the same reason, and
    /// everything else must decode.
    pub fn begin_replay(&mut self, replay: Replay) {
        self.replay = Some(replay);
    }

    /// Tells what is known of a writer's schema.
    pub fn learn(&mut self, reference: SchemaReference, writer: WriterSchema) {
        self.writers.insert(reference, writer);
    }

    /// Tells that the registry does not know the schema that was asked for.
    pub fn learn_unknown(&mut self, reference: SchemaReference) {
        self.just_unknown = Some(reference);
    }

    /// Takes in the records from `index` on. Records before the current position are passed over.
    pub fn process(&mut self, batch: &LogBatch, index: usize) -> Progress {
        self.process_watched(batch, index, || ())
    }

    /// As [`Self::process`]; `decoded` is called between its two stages, for whoever measures them: before it, records
    /// are decoded, judged and digested; behind it, they are added to the windows.
    pub fn process_watched(&mut self, batch: &LogBatch, index: usize, decoded: impl FnOnce()) -> Progress {
        let progress = self.decode_all(batch, index);
        decoded();
        self.add_events();
        progress
    }

    fn decode_all(&mut self, batch: &LogBatch, index: usize) -> Progress {
        let start = index.max(batch.position_of(self.position));
        for index in start..batch.len() {
            batch.prefetch(index + 2 * RECORDS_AHEAD);
            self.prefetch_key(batch, index + RECORDS_AHEAD);
            let stop = if self.enough_rows_wait() {
                Some(Progress::RowsWait { index })
            } else {
                self.process_record(&batch.get(index), index)
            };
            if let Some(stop) = stop {
                self.segment.digest.update(batch, start..index);
                return stop;
            }
        }
        self.segment.digest.update(batch, start..batch.len());
        Progress::Consumed
    }

    /// A record's key usually repeats the event's first key field: a good guess at what decoding will look up.
    #[inline]
    fn prefetch_key(&self, batch: &LogBatch, index: usize) {
        if index < batch.len()
            && let Some(key) = batch.get(index).key
            && let Some(column) = self.settings.event.key_columns().next()
        {
            self.columns.column(column).prefetch_text(key);
        }
    }

    #[inline]
    fn process_record(&mut self, record: &LogRecord<'_>, index: usize) -> Option<Progress> {
        if self.segment_ends_before(record) {
            return Some(Progress::SegmentEnds { index });
        }
        let verdict = match self.rejected_in_replay(record) {
            Some(rejected) => Err(rejected),
            None => match self.accept(record) {
                Ok(()) => Ok(()),
                Err(Refusal::NeedsSchema(reference)) => return Some(Progress::NeedsSchema { index, reference }),
                Err(Refusal::Rejected(reject, _)) if self.replay.is_some() => {
                    return Some(Progress::Contradiction { offset: record.offset, reject });
                }
                Err(Refusal::Rejected(reject, schema_id)) => Err((reject, schema_id)),
            },
        };
        let is_unknown = matches!(&verdict, Err((reject, _)) if reject.reason == Reason::UnknownSchemaId);
        if is_unknown || !self.unknown.is_empty() {
            self.follow_unknown(record, is_unknown);
        }
        match verdict {
            Ok(()) => self.segment.rows += 1,
            Err((reject, schema_id)) => self.segment.reject(record, reject, schema_id),
        }
        self.segment.first_timestamp_ms.get_or_insert(record.timestamp_ms);
        self.position = record.offset + 1;
        None
    }

    #[inline]
    fn segment_ends_before(&self, record: &LogRecord<'_>) -> bool {
        match &self.replay {
            Some(replay) => record.offset >= replay.end,
            None => self.segment.is_of_a_later_hour(record.timestamp_ms),
        }
    }

    /// Decodes, judges and counts one record; leaves no trace of one that it refuses.
    #[inline]
    fn accept(&mut self, record: &LogRecord<'_>) -> Result<(), Refusal> {
        let (reference, body) =
            unframe(record.value, record.headers).map_err(|reject| Refusal::Rejected(reject, None))?;
        if self.last_writer.as_ref().is_none_or(|(last, ..)| *last != reference) {
            self.change_writer(reference, record.timestamp_ms)?;
        }
        let Some((_, decoder, schema_id)) = &self.last_writer else { return Err(Refusal::NeedsSchema(reference)) };
        let schema_id = *schema_id;
        let row = self.columns.rows();
        decoder.decode(body, &mut self.columns).map_err(|reject| Refusal::Rejected(reject, schema_id))?;
        let settings = &self.settings;
        let event = match settings.event.check(&self.columns, row, record.timestamp_ms, &settings.time_limits) {
            Ok(event) => event,
            Err(reject) => {
                self.columns.truncate(row);
                return Err(Refusal::Rejected(reject, schema_id));
            }
        };
        let key_field = settings.event.key_columns().next().map(|column| self.columns.column(column));
        let repeats_key_field = record.key.zip(key_field).is_some_and(|(key, field)| field.is_text(row, key));
        self.metadata.append(record, schema_id, repeats_key_field);
        let place = self.lookup.place_of(&self.columns, row);
        self.events.push(DecodedEvent { row, place, event, offset: record.offset });
        Ok(())
    }

    /// Adds the decoded events to the windows, in log order. A loop of its own, so that the state of the series to come
    /// is on its way from memory while this one's is worked on.
    fn add_events(&mut self) {
        let Self { events, lookup, windows, columns, .. } = self;
        for next in 0..events.len() {
            if let Some(far) = events.get(next + 2 * EVENTS_AHEAD) {
                lookup.prefetch(far.place);
            }
            if let Some(near) = events.get(next + EVENTS_AHEAD)
                && let Some(series) = lookup.series_at(near.place)
            {
                windows.prefetch(series, near.event.time_ms);
            }
            let DecodedEvent { row, event, offset, .. } = events[next];
            let series = lookup.series_of(columns, row, windows);
            windows.add(series, event.time_ms, event.value, event.bad_quality, offset);
        }
        events.clear();
    }

    #[cold]
    fn change_writer(&mut self, reference: SchemaReference, timestamp_ms: i64) -> Result<(), Refusal> {
        match self.writers.get(&reference) {
            None if self.just_unknown == Some(reference) => {
                self.just_unknown = None;
                self.segment.is_undecided = true;
                Err(Refusal::Rejected(UnknownSchemas::reject(reference), id_of(reference)))
            }
            None if self.unknown.holds(reference, timestamp_ms) => {
                Err(Refusal::Rejected(UnknownSchemas::reject(reference), id_of(reference)))
            }
            None => Err(Refusal::NeedsSchema(reference)),
            Some(WriterSchema::Refused(reject)) => Err(Refusal::Rejected(reject.clone(), id_of(reference))),
            Some(WriterSchema::Readable { decoder, id }) => {
                let id = id.or(id_of(reference));
                self.last_writer = Some((reference, Arc::clone(decoder), id));
                Ok(())
            }
        }
    }

    #[cold]
    fn follow_unknown(&mut self, record: &LogRecord<'_>, is_unknown: bool) {
        if let Ok((reference, _)) = unframe(record.value, record.headers) {
            self.unknown.follow(reference, record.timestamp_ms, is_unknown);
        }
    }

    /// What the footer of a replayed segment says of this record, if it was rejected.
    fn rejected_in_replay(&mut self, record: &LogRecord<'_>) -> Option<(Reject, Option<i32>)> {
        let reason = self.replay.as_ref()?.rejected.reason_of(record.offset)?.clone();
        let schema_id = unframe(record.value, record.headers).ok().and_then(|(reference, _)| id_of(reference));
        let detail = self.detail_again(record, &reason);
        Some((Reject::new(reason, detail), schema_id))
    }

    /// The sentence for a reject whose reason is given: found again where the record still fails for that reason.
    fn detail_again(&mut self, record: &LogRecord<'_>, reason: &Reason) -> String {
        let settings = Arc::clone(&self.settings);
        let row = self.columns.rows();
        let found =
            unframe(record.value, record.headers).and_then(|(reference, body)| match self.writers.get(&reference) {
                Some(WriterSchema::Readable { decoder, .. }) => {
                    decoder.decode(body, &mut self.columns)?;
                    settings.event.check(&self.columns, row, record.timestamp_ms, &settings.time_limits).map(|_| ())
                }
                Some(WriterSchema::Refused(reject)) => Err(reject.clone()),
                None if *reason == Reason::UnknownSchemaId => Err(UnknownSchemas::reject(reference)),
                None => Ok(()),
            });
        self.columns.truncate(row);
        match found {
            Err(reject) if reject.reason == *reason => reject.detail,
            _ => format!("rejected as {reason} when its segment was sealed"),
        }
    }

    /// The rows decoded since the last call as one batch for the archive; `None` if there are none.
    pub fn take_rows(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.columns.rows() == 0 {
            return Ok(None);
        }
        self.sites.scan(&self.columns, &self.metadata);
        self.sites.rows_are_gone();
        let (decoded, extra) = self.columns.take();
        self.lookup.follow_dictionaries(&self.columns);
        self.metadata.finish(&self.settings.archive_schema, decoded, extra).map(Some)
    }

    /// Bytes that the waiting rows have brought.
    pub fn waiting_bytes(&self) -> usize {
        self.columns.grown()
    }

    /// Decoded rows that wait for [`Self::take_rows`].
    pub fn waiting_rows(&self) -> usize {
        self.columns.rows()
    }

    #[inline]
    fn enough_rows_wait(&self) -> bool {
        let rejects = &self.segment.rejects;
        self.columns.rows().max(rejects.len()) >= self.settings.rows_per_batch
            || self.columns.grown().max(rejects.bytes()) >= self.settings.bytes_per_batch
    }

    /// The records rejected since the last call, for the dead letters of the open segment.
    pub fn take_rejects(&mut self) -> RejectedRecords {
        std::mem::take(&mut self.segment.rejects)
    }

    /// Whether the open segment holds a decision that is not a function of the log alone: the registry did not know a
    /// schema. No row may leave before the segment's footer is durable, so it should be cut soon.
    pub fn is_undecided(&self) -> bool {
        self.segment.is_undecided
    }

    /// Rows for the hot store, true up to the current position: windows that closed, flagged events and, if
    /// `provisional`, the open windows that changed. None while the segment [`Self::is_undecided`].
    pub fn take_hot_rows(&mut self, provisional: bool) -> (Vec<WindowRow>, Vec<AnomalyRow>) {
        if self.is_undecided() {
            return (Vec::new(), Vec::new());
        }
        self.take_rows_of_windows(provisional)
    }

    /// Sensors whose site is new or has changed, true up to the current position. None while the segment
    /// [`Self::is_undecided`].
    ///
    /// What was told is not part of a snapshot: after a restore each sensor is told again at its next event, with a newer
    /// version of what is there already.
    pub fn take_sensors(&mut self) -> Vec<SensorRow> {
        if self.is_undecided() {
            return Vec::new();
        }
        self.sites.scan(&self.columns, &self.metadata);
        self.sites.take(self.windows.series_count())
    }

    fn take_rows_of_windows(&mut self, provisional: bool) -> (Vec<WindowRow>, Vec<AnomalyRow>) {
        let mut rows = Vec::new();
        self.windows.take_closed(self.position, &mut rows);
        if provisional {
            self.windows.take_changed(self.position, &mut rows);
        }
        (rows, self.windows.take_anomalies())
    }

    /// Cuts the segment at the current position and opens the next. [`Self::take_rows`] first.
    ///
    /// `None` if the segment holds no record.
    pub fn cut(&mut self) -> Option<SegmentCut> {
        debug_assert!(self.columns.rows() == 0, "archive rows are taken before the cut");
        let first_timestamp_ms = self.segment.first_timestamp_ms?;
        let end = self.position;
        let segment = std::mem::replace(&mut self.segment, OpenSegment::new(end));
        let is_undecided = segment.is_undecided;
        let (mut window_rows, anomalies) = self.take_rows_of_windows(true);
        self.windows.take_late(segment.start, end, &mut window_rows);
        if self.windows.forget_silent_series() {
            self.lookup.clear();
        }
        // The registry may have learnt of them by now.
        self.writers.retain(|_, writer| matches!(writer, WriterSchema::Readable { .. }));
        self.replay = None;
        Some(SegmentCut {
            start: segment.start,
            end,
            first_timestamp_ms,
            rows: segment.rows,
            digest: segment.digest.finish(),
            rejected_offsets: segment.rejected_offsets,
            rejects: segment.rejects,
            is_undecided,
            window_rows,
            anomalies,
            sensors: self.sites.take(self.windows.series_count()),
            snapshot: self.snapshot(),
        })
    }

    /// The next log position.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// The partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// The log positions of the open segment.
    pub fn segment(&self) -> Range<i64> {
        self.segment.start..self.position
    }

    /// Kafka timestamp of the open segment's first record.
    pub fn segment_first_timestamp_ms(&self) -> Option<i64> {
        self.segment.first_timestamp_ms
    }

    /// Accepted records of the open segment.
    pub fn segment_rows(&self) -> u64 {
        self.segment.rows
    }

    /// Rejected records of the open segment that wait for [`Self::take_rejects`].
    pub fn waiting_rejects(&self) -> &RejectedRecords {
        &self.segment.rejects
    }

    /// The windows: watermark, series and counters.
    pub fn windows(&self) -> &Windows {
        &self.windows
    }

    /// Bytes held, for the memory budget.
    pub fn memory(&self) -> usize {
        let rejects = self.segment.rejects.memory() + self.segment.rejected_offsets.memory();
        self.windows.memory() + self.columns.memory() + self.lookup.memory() + self.sites.memory() + rejects
    }
}

/// A valid event, decoded into a row.
#[derive(Debug, Clone, Copy)]
struct DecodedEvent {
    /// Row of the columns that holds its key.
    row: usize,
    /// Where its series will be looked up.
    place: usize,
    event: ValidEvent,
    offset: i64,
}

/// Why a record was not accepted.
enum Refusal {
    NeedsSchema(SchemaReference),
    Rejected(Reject, Option<i32>),
}

fn id_of(reference: SchemaReference) -> Option<i32> {
    match reference {
        SchemaReference::Id(id) => Some(id),
        SchemaReference::Guid(_) => None,
    }
}
