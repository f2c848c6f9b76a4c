//! One partition as a pure state machine: log records in, archive rows, window rows and rejects out.
//!
//! [`PartitionState`] knows nothing of Kafka, stores or clocks. The shell feeds it batches; it stops at a record when
//! it needs something that only the shell can give ([`Progress`]): a schema from the registry, or a decision to cut
//! the segment. Everything that it says is a function of the records it was given, so two owners of a partition, or a
//! replay after a crash, say the same.

mod lookup;
mod records;
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
use crate::contract::judge::RuleJudge;
use crate::contract::rules::ContractRules;
use crate::contract::{EventFields, NoSuchField, TimeLimits};
use crate::decode::{Columns, DecodeLimits, Decoder, ReaderSchema, SchemaReference};
use crate::duplicates::Duplicates;
use crate::quality::{Quality, QualityColumns};
use crate::reject::Reject;
use crate::rows::{AnomalyRow, SensorRow, WindowRow};
use crate::snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};
use crate::windows::{WindowSettings, Windows};

use lookup::SeriesLookup;
pub use records::Stage;
use records::{DecodedEvent, LastWriter};
use segment::OpenSegment;
use sites::{SensorSites, SiteColumns};
use unknown_schemas::UnknownSchemas;

/// Snapshots hold duplicates from this format on.
const DUPLICATES_SINCE: u16 = 2;

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
    /// The rules of the data contract; none where there is none.
    pub contract: ContractRules,
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
    /// Which answers of the registry make a segment undecided.
    pub awaited: AwaitedAnswers,
}

/// Which answers of the registry no row may rest on before the footer that holds them is durable. The protocol awaits both;
/// the simulation shows what comes of it otherwise. See `docs/decisions/0005-undecided-segments.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AwaitedAnswers {
    /// That it does not know a schema.
    pub refusals: bool,
    /// That it does.
    pub acceptances: bool,
}

impl AwaitedAnswers {
    /// What the protocol needs.
    pub const BOTH: Self = Self { refusals: true, acceptances: true };
}

impl PartitionSettings {
    /// The same, but for the reader schema: another version of it. `sequence`: the field that numbered the readings then. For
    /// segments that are gone through again by the verdicts in their footers, so no rule of the contract is judged.
    pub fn read_by(&self, reader: ReaderSchema, sequence: Option<&str>) -> Result<Self, NoSuchField> {
        let event = self.event.in_version(&self.reader, &reader)?.with_sequence(&reader, sequence)?;
        let contract = ContractRules::default();
        Ok(Self { archive_schema: archive_schema(&reader), event, reader, contract, ..self.clone() })
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

/// A writer's schema, as the state has it.
#[derive(Debug)]
struct KnownWriter {
    schema: WriterSchema,
    /// Whether a record of it was accepted since the restore: that it may be is in the archive by now, or will be with the
    /// open segment.
    is_accepted: bool,
}

/// How far [`PartitionState::process`] came.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// All records were taken in.
    Consumed,
    /// Enough rows or rejected records wait: [`PartitionState::take_rows`] and [`PartitionState::take_rejects`], and go
    /// on from there.
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
    writers: BTreeMap<SchemaReference, KnownWriter>,
    /// Schemas that the registry did not know, by a decision that is durable or will be with the open segment.
    unknown: UnknownSchemas,
    /// The registry's answer "unknown" to [`Progress::NeedsSchema`], for the record that asked.
    just_unknown: Option<SchemaReference>,
    /// The writer of the last record: most records have the same.
    last_writer: Option<LastWriter>,
    columns: Columns,
    metadata: MetadataColumns,
    lookup: SeriesLookup,
    judge: RuleJudge,
    /// Rows of the decoded columns that were gone through for rules that only warn.
    warned_rows: usize,
    sites: SensorSites,
    /// `None` where no field numbers the readings.
    duplicates: Option<Duplicates>,
    windows: Windows,
    quality: Quality,
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
        let quality_columns =
            QualityColumns { site: settings.event.site_column(), metric: settings.event.key_columns().nth(1) };
        Self {
            columns: settings.reader.new_columns(&settings.decode_limits).with_hash_seed(settings.hash_seed),
            metadata: MetadataColumns::new(partition),
            lookup: SeriesLookup::new(settings.event.key_columns()),
            judge: RuleJudge::new(settings.contract.clone()),
            warned_rows: 0,
            sites: SensorSites::new(site_columns, settings.hash_seed),
            duplicates: settings.event.sequence_field().map(|field| Duplicates::new(field, settings.hash_seed)),
            quality: Quality::new(quality_columns),
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
        if reader.version() >= DUPLICATES_SINCE {
            let settings = &state.settings;
            state.duplicates = Duplicates::load(settings.event.sequence_field(), settings.hash_seed, &mut reader)?;
        }
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
        self.judge = fresh.judge;
        self.warned_rows = 0;
        self.sites = fresh.sites;
        self.quality = fresh.quality;
        if self.duplicates.as_ref().map(Duplicates::field) != self.settings.event.sequence_field() {
            self.duplicates = fresh.duplicates;
        }
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
        match &self.duplicates {
            Some(duplicates) => duplicates.save(&mut writer),
            None => Duplicates::save_none(&mut writer),
        }
        writer.finish()
    }

    /// From here to `replay.end`, decides nothing anew: what the footer rejected is rejected for the same reason, and
    /// everything else must decode.
    pub fn begin_replay(&mut self, replay: Replay) {
        self.replay = Some(replay);
    }

    /// Tells what is known of a writer's schema.
    pub fn learn(&mut self, reference: SchemaReference, writer: WriterSchema) {
        self.writers.insert(reference, KnownWriter { schema: writer, is_accepted: false });
    }

    /// Tells that the registry does not know the schema that was asked for.
    pub fn learn_unknown(&mut self, reference: SchemaReference) {
        self.just_unknown = Some(reference);
    }

    /// The rows decoded since the last call as one batch for the archive; `None` if there are none.
    pub fn take_rows(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        if self.columns.rows() == 0 {
            return Ok(None);
        }
        self.sites.scan(&self.columns, &self.metadata);
        self.sites.rows_are_gone();
        self.count_warnings();
        self.warned_rows = 0;
        let (decoded, extra) = self.columns.take();
        self.lookup.follow_dictionaries(&self.columns);
        self.judge.follow_dictionaries(&self.columns);
        self.quality.follow_dictionaries(&self.columns);
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

    /// The records rejected since the last call, for the dead letters of the open segment.
    pub fn take_rejects(&mut self) -> RejectedRecords {
        self.segment.rejects.take()
    }

    /// How many accepted records broke a rule of the contract that only warns, since the last call, by the rule's name.
    /// Those of a segment that is gone through again are not judged.
    pub fn take_warnings(&mut self) -> Vec<(String, u64)> {
        self.count_warnings();
        self.judge.take_warnings()
    }

    fn count_warnings(&mut self) {
        let rows = self.warned_rows..self.columns.rows();
        self.warned_rows = rows.end;
        if self.replay.is_none() {
            self.judge.count_warnings(&self.columns, rows);
        }
    }

    /// Whether the open segment holds a decision that is not a function of the log alone: the registry did not know a
    /// schema, or knew one of which no record was accepted since the restore, and which another owner may have asked for
    /// before it was registered. No row may leave before the segment's footer is durable, so it should be cut soon.
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
        let silent_before_ms = self.windows.silent_before_ms();
        if self.windows.forget_silent_series() {
            self.lookup.clear();
            self.duplicates.iter_mut().for_each(Duplicates::forget_series);
        }
        if let (Some(duplicates), Some(silent_before_ms)) = (&mut self.duplicates, silent_before_ms) {
            duplicates.forget_silent(silent_before_ms);
        }
        // The registry may have learnt of them by now.
        self.writers.retain(|_, known| matches!(known.schema, WriterSchema::Readable { .. }));
        self.replay = None;
        Some(SegmentCut {
            start: segment.start,
            end,
            first_timestamp_ms,
            rows: segment.rows,
            duplicates: segment.duplicates,
            digest: segment.digest.finish(),
            rejected_offsets: segment.rejected_offsets,
            rejects: segment.rejects,
            is_undecided,
            window_rows,
            anomalies,
            sensors: self.sites.take(self.windows.series_count()),
            quality: self.quality.take(),
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

    /// Of them, readings that were there already.
    pub fn segment_duplicates(&self) -> u64 {
        self.segment.duplicates
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
        let duplicates = self.duplicates.as_ref().map_or(0, Duplicates::memory);
        let events = self.events.capacity() * size_of::<DecodedEvent>();
        let state = self.windows.memory() + duplicates + self.quality.memory() + events + self.metadata.memory();
        let lookups = self.lookup.memory() + self.judge.memory() + self.sites.memory();
        state + self.columns.memory() + lookups + rejects
    }
}
