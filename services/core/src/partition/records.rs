//! From log records to rows, events and rejected records.

use std::ops::Range;
use std::sync::Arc;

use super::lookup::Place;
use super::unknown_schemas::UnknownSchemas;
use super::{KnownWriter, PartitionState, Progress, WriterSchema};
use crate::contract::ValidEvent;
use crate::decode::{Decoder, SchemaReference, unframe};
use crate::duplicates::Verdict;
use crate::record::{LogBatch, LogRecord};
use crate::reject::{Reason, Reject};

/// How many events ahead the state of a series is asked for: some hundred nanoseconds of work.
const EVENTS_AHEAD: usize = 12;
/// How many records ahead the place of a key in its dictionary is asked for.
const RECORDS_AHEAD: usize = 8;
/// Records that are decoded before their events are added to the windows: few enough that what the one stage has made is
/// still in a core's cache for the other.
const RECORDS_PER_PASS: usize = 1_024;

/// A stage of [`PartitionState::process_watched`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Records are decoded, judged and digested.
    Decode,
    /// Their events are added to the windows.
    Windows,
}

impl PartitionState {
    /// Takes in the records from `index` on. Records before the current position are passed over.
    pub fn process(&mut self, batch: &LogBatch, index: usize) -> Progress {
        self.process_watched(batch, index, |_| ())
    }

    /// As [`Self::process`]; `done` is called behind each stage of each pass, for whoever measures them.
    pub fn process_watched(&mut self, batch: &LogBatch, index: usize, mut done: impl FnMut(Stage)) -> Progress {
        let mut start = index.max(batch.position_of(self.position));
        loop {
            let end = batch.len().min(start + RECORDS_PER_PASS);
            let progress = self.decode_all(batch, start..end);
            done(Stage::Decode);
            self.add_events();
            done(Stage::Windows);
            if progress != Progress::Consumed || end == batch.len() {
                return progress;
            }
            start = end;
        }
    }

    fn decode_all(&mut self, batch: &LogBatch, records: Range<usize>) -> Progress {
        for index in records.clone() {
            batch.prefetch(index + 2 * RECORDS_AHEAD);
            self.prefetch_key(batch, index + RECORDS_AHEAD);
            let stop = if self.enough_rows_wait() {
                Some(Progress::RowsWait { index })
            } else {
                self.process_record(&batch.get(index), index)
            };
            if let Some(stop) = stop {
                self.segment.digest.update(batch, records.start..index);
                return stop;
            }
        }
        self.segment.digest.update(batch, records);
        Progress::Consumed
    }

    /// A record's key usually repeats the event's first key field: a good guess at what decoding will look up.
    #[inline]
    fn prefetch_key(&self, batch: &LogBatch, index: usize) {
        if let Some(key) = batch.key(index)
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
            Ok(Some(rejected)) => Err(rejected),
            Ok(None) => match self.accept(record) {
                Ok(()) => Ok(()),
                Err(Refusal::NeedsSchema(reference)) => return Some(Progress::NeedsSchema { index, reference }),
                Err(Refusal::Rejected(reject, _)) if self.replay.is_some() => {
                    return Some(Progress::Contradiction { offset: record.offset, reject });
                }
                Err(Refusal::Rejected(reject, schema_id)) => Err((reject, schema_id)),
            },
            Err(reference) => return Some(Progress::NeedsSchema { index, reference }),
        };
        let is_unknown = matches!(&verdict, Err((reject, _)) if reject.reason == Reason::UnknownSchemaId);
        if is_unknown || !self.unknown.is_empty() {
            self.follow_unknown(record, is_unknown);
        }
        match verdict {
            Ok(()) => self.segment.rows += 1,
            Err((reject, schema_id)) => {
                if !reject.reason.is_of_content() {
                    self.quality.refuse_unread(record.timestamp_ms);
                }
                self.segment.reject(record, reject, schema_id);
            }
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
        if self.last_writer.as_ref().is_none_or(|last| last.reference != reference) {
            self.change_writer(reference, record.timestamp_ms)?;
        }
        let Some(LastWriter { decoder, schema_id, is_accepted, .. }) = &self.last_writer else {
            return Err(Refusal::NeedsSchema(reference));
        };
        let (schema_id, is_accepted) = (*schema_id, *is_accepted);
        let row = self.columns.rows();
        decoder.decode(body, &mut self.columns).map_err(|reject| Refusal::Rejected(reject, schema_id))?;
        let settings = &self.settings;
        let event = match settings.event.check(&self.columns, row, record.timestamp_ms, &settings.time_limits) {
            Ok(event) => event,
            Err(reject) => {
                self.refuse_row(row, record.timestamp_ms);
                return Err(Refusal::Rejected(reject, schema_id));
            }
        };
        // The contract may have been another one when a segment was sealed that is gone through again.
        if self.replay.is_none()
            && let Err(reject) = self.judge.judge(&self.columns, row)
        {
            self.refuse_row(row, record.timestamp_ms);
            return Err(Refusal::Rejected(reject, schema_id));
        }
        let settings = &self.settings;
        let key_field = settings.event.key_columns().next().map(|column| self.columns.column(column));
        let repeats_key_field = record.key.zip(key_field).is_some_and(|(key, field)| field.is_text(row, key));
        self.metadata.append(record, schema_id, repeats_key_field);
        let place = self.lookup.place_of(&self.columns, row);
        self.events.push(DecodedEvent { row, place, event, offset: record.offset });
        if !is_accepted {
            self.first_accepted(reference);
        }
        Ok(())
    }

    /// The first record of this schema is accepted. Another owner, who has asked the registry earlier, may have refused it: which
    /// of both holds is known when the segment is durable.
    #[cold]
    fn first_accepted(&mut self, reference: SchemaReference) {
        if let Some(last) = &mut self.last_writer {
            last.is_accepted = true;
        }
        if let Some(known) = self.writers.get_mut(&reference) {
            known.is_accepted = true;
        }
        self.segment.is_undecided |= self.replay.is_none() && self.settings.awaited.acceptances;
    }

    /// Counts and takes back the row of a record that is refused for what it says.
    #[cold]
    fn refuse_row(&mut self, row: usize, timestamp_ms: i64) {
        self.quality.refuse(&self.columns, row, timestamp_ms);
        self.take_back(row);
    }

    /// Takes back the rows from `row` on.
    #[cold]
    fn take_back(&mut self, row: usize) {
        self.columns.truncate(row);
        self.judge.forget_symbols(&self.columns);
    }

    /// Adds the decoded events to the windows, in log order. A loop of its own, so that the state of the series to come
    /// is on its way from memory while this one's is worked on.
    fn add_events(&mut self) {
        let Self { events, lookup, windows, columns, duplicates, quality, metadata, segment, .. } = self;
        for next in 0..events.len() {
            if let Some(far) = events.get(next + 2 * EVENTS_AHEAD) {
                lookup.prefetch(far.place);
            }
            if let Some(near) = events.get(next + EVENTS_AHEAD)
                && let Some(series) = lookup.series_at(near.place)
            {
                windows.prefetch(series, near.event.time_ms);
                if let Some(duplicates) = duplicates {
                    duplicates.prefetch(series);
                }
            }
            let DecodedEvent { row, place, event, offset } = events[next];
            let series = match lookup.series_at(place) {
                Some(series) => series,
                None => lookup.look_up_by_text(columns, row, windows),
            };
            let verdict = match duplicates {
                Some(duplicates) if event.sequence > 0 => {
                    duplicates.judge(series, || windows.sensor(series), event.sequence, event.time_ms)
                }
                _ => Verdict::Untold,
            };
            quality.accept(columns, row, metadata.timestamp_ms(row), event, verdict);
            if verdict == Verdict::Duplicate {
                metadata.mark_duplicate(row);
                segment.duplicates += 1;
                continue;
            }
            windows.add(series, event.time_ms, event.value, event.bad_quality, offset);
        }
        events.clear();
    }

    #[cold]
    fn change_writer(&mut self, reference: SchemaReference, timestamp_ms: i64) -> Result<(), Refusal> {
        match self.writers.get(&reference) {
            None if self.just_unknown == Some(reference) => {
                self.just_unknown = None;
                self.segment.is_undecided |= self.settings.awaited.refusals;
                Err(Refusal::Rejected(UnknownSchemas::reject(reference), id_of(reference)))
            }
            None if self.unknown.holds(reference, timestamp_ms) => {
                Err(Refusal::Rejected(UnknownSchemas::reject(reference), id_of(reference)))
            }
            None => Err(Refusal::NeedsSchema(reference)),
            Some(KnownWriter { schema: WriterSchema::Refused(reject), .. }) => {
                Err(Refusal::Rejected(reject.clone(), id_of(reference)))
            }
            Some(KnownWriter { schema: WriterSchema::Readable { decoder, id }, is_accepted }) => {
                self.last_writer = Some(LastWriter {
                    reference,
                    decoder: Arc::clone(decoder),
                    schema_id: id.or(id_of(reference)),
                    is_accepted: *is_accepted,
                });
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
    /// A schema that it needs for that is the error.
    fn rejected_in_replay(&mut self, record: &LogRecord<'_>) -> Result<Option<(Reject, Option<i32>)>, SchemaReference> {
        let reason = self.replay.as_ref().and_then(|replay| replay.rejected.reason_of(record.offset));
        let Some(reason) = reason.cloned() else { return Ok(None) };
        let reference = unframe(record.value, record.headers).ok().map(|(reference, _)| reference);
        if let Some(reference) = reference
            && reason.is_of_content()
            && !self.writers.contains_key(&reference)
        {
            // What it said of site and metric was counted when it was rejected, and is again.
            if self.just_unknown != Some(reference) {
                return Err(reference);
            }
            self.just_unknown = None;
        }
        let detail = self.detail_again(record, &reason);
        Ok(Some((Reject::new(reason, detail), reference.and_then(id_of))))
    }

    /// The sentence for a reject whose reason is given: found again where the record still fails for that reason.
    fn detail_again(&mut self, record: &LogRecord<'_>, reason: &Reason) -> String {
        let settings = Arc::clone(&self.settings);
        let row = self.columns.rows();
        let found = unframe(record.value, record.headers).and_then(|(reference, body)| {
            match self.writers.get(&reference).map(|known| &known.schema) {
                Some(WriterSchema::Readable { decoder, .. }) => {
                    decoder.decode(body, &mut self.columns)?;
                    if reason.is_of_content() {
                        self.quality.refuse(&self.columns, row, record.timestamp_ms);
                    }
                    settings.event.check(&self.columns, row, record.timestamp_ms, &settings.time_limits)?;
                    let Reason::Contract(rule) = reason else { return Ok(()) };
                    let sentence = self.judge.sentence(&self.columns, row, rule);
                    sentence.map_or(Ok(()), |sentence| Err(Reject::new(reason.clone(), sentence)))
                }
                Some(WriterSchema::Refused(reject)) => Err(reject.clone()),
                None if *reason == Reason::UnknownSchemaId => Err(UnknownSchemas::reject(reference)),
                None => Ok(()),
            }
        });
        self.take_back(row);
        match found {
            Err(reject) if reject.reason == *reason => reject.detail,
            _ => format!("rejected as {reason} when its segment was sealed"),
        }
    }

    #[inline]
    fn enough_rows_wait(&self) -> bool {
        let rejects = &self.segment.rejects;
        self.columns.rows().max(rejects.len()) >= self.settings.rows_per_batch
            || self.columns.grown().max(rejects.bytes()) >= self.settings.bytes_per_batch
    }
}

/// The writer of the last record.
#[derive(Debug)]
pub(super) struct LastWriter {
    reference: SchemaReference,
    decoder: Arc<Decoder>,
    /// The registry's number for it.
    schema_id: Option<i32>,
    /// As of [`KnownWriter`].
    is_accepted: bool,
}

/// A valid event, decoded into a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct DecodedEvent {
    /// Row of the columns that holds its key.
    row: usize,
    /// Where its series will be looked up.
    place: Place,
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
