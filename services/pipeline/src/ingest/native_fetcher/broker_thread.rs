//! The loop of a thread `kappa-fetch-N`: one broker, one connection, one request under way.
//!
//! The next request is sent before the records of the last answer are read, so that the broker works meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kappa_core::record::LogBatch;
use metrics::Histogram;
use tracing::{debug, info, warn};

use super::super::broker_queries::pauses;
use super::board::{Board, HELD_BACK, Parcel, Question, Task};
use super::connection::{Connection, ConnectionError};
use super::decompress::Decompressor;
use super::protocol::{FETCH, OFFSET_FOR_LEADER_EPOCH, read_end_of_epoch, read_fetch, write_end_of_epoch, write_fetch};
use super::record_batch::{AbortedTransactions, Header, NextBatch, RecordBatch, RecordBatches, Unreadable};
use crate::memory::Reservation;
use crate::ops::metrics::FETCH_DURATION;

/// Bytes of one delivery of large records.
const DELIVERY_BYTES: usize = 1 << 20;
/// What a partition may have beyond its share before the rest of an answer is dropped and fetched again later: how many
/// bytes come of compressed ones is only guessed before.
const OVERSHOOT: usize = 4 << 20;
/// Buffers that are larger than this are given back once they are no longer needed.
const KEPT_BUFFER: usize = 8 << 20;
/// A connection that held so long was a good one: after it the first attempt comes soon again.
const GOOD_CONNECTION: Duration = Duration::from_secs(30);

/// What the thread owns.
pub(super) struct BrokerThread {
    broker: i32,
    board: Arc<Board>,
    answer: Vec<u8>,
    decompressor: Decompressor,
    /// For the two buffers above.
    reservation: Reservation,
    /// From a request to its answer.
    duration: Histogram,
    /// Whether the broker could not be used, so that it is said once.
    failing: bool,
}

impl BrokerThread {
    pub(super) fn new(broker: i32, board: Arc<Board>) -> Self {
        Self {
            broker,
            answer: Vec::new(),
            decompressor: Decompressor::new(board.settings.expanded_limit),
            reservation: board.shared.budget.reserve(0),
            duration: metrics::histogram!(FETCH_DURATION),
            failing: false,
            board,
        }
    }

    /// Runs until the consumer is stopped.
    pub(super) fn run(mut self) {
        let mut waits = pauses();
        while let Some((host, port)) = self.board.wait_for_partitions(self.broker) {
            let connected = Instant::now();
            let outcome = self.connect(&host, port).and_then(|connection| self.serve(connection));
            self.make_room(0);
            match outcome {
                Ok(()) | Err(ConnectionError::Stopped) => continue,
                Err(error) if !std::mem::replace(&mut self.failing, true) => {
                    warn!(broker = self.broker, "cannot fetch from {host}:{port}, trying on: {error}");
                }
                Err(error) => debug!(broker = self.broker, "still cannot fetch from {host}:{port}: {error}"),
            }
            self.board.connection_lost(self.broker);
            if connected.elapsed() > GOOD_CONNECTION {
                waits = pauses();
            }
            self.board.pause(waits.next().unwrap_or_default());
        }
    }

    fn connect(&self, host: &str, port: u16) -> Result<Connection, ConnectionError> {
        let board = Arc::clone(&self.board);
        Connection::open(host, port, &self.board.settings, &|| board.shared.is_stopping())
    }

    /// Fetches until the broker has no partition of ours any more.
    fn serve(&mut self, mut connection: Connection) -> Result<(), ConnectionError> {
        debug!(broker = self.broker, "connected for fetching");
        let board = Arc::clone(&self.board);
        let stopping = || board.shared.is_stopping();
        let mut under_way = None;
        loop {
            if stopping() {
                return Ok(());
            }
            let Some((question, sent)) = under_way.take() else {
                match board.next_task(self.broker) {
                    Task::Fetch(question) => under_way = Some(self.ask(&mut connection, question)?),
                    Task::CheckEpochs(epochs) => self.check_epochs(&mut connection, &epochs)?,
                    Task::Wait => board.pause(HELD_BACK),
                    Task::Leave => return Ok(()),
                }
                continue;
            };
            let wait = Duration::from_millis(question.terms.max_wait_ms.max(0) as u64);
            let mut buffer = std::mem::take(&mut self.answer);
            let body = connection.receive(&mut buffer, wait, &stopping)?;
            self.duration.record(sent.elapsed());
            let fetched = read_fetch(body, &board.shared.topic)?;
            if fetched.error != 0 {
                return Err(ConnectionError::Refused(fetched.error));
            }
            if std::mem::take(&mut self.failing) {
                info!(broker = self.broker, "can be fetched from again");
            }
            let size = body.len();
            connection.throttle(fetched.throttle_ms);
            let parcels = board.note(&question, fetched.partitions);
            if let Task::Fetch(question) = board.next_task(self.broker) {
                under_way = Some(self.ask(&mut connection, question)?);
            }
            let started = Instant::now();
            for parcel in parcels {
                self.deliver(&parcel);
                self.make_room(size);
            }
            board.shared.taken_since(started);
            self.answer = buffer;
            self.trim();
        }
    }

    fn ask(&self, connection: &mut Connection, question: Question) -> Result<(Question, Instant), ConnectionError> {
        let topic = &self.board.shared.topic;
        connection.send(FETCH, |frame| write_fetch(frame, question.terms, topic, &question.partitions))?;
        Ok((question, Instant::now()))
    }

    fn check_epochs(&self, connection: &mut Connection, epochs: &[(i32, i32)]) -> Result<(), ConnectionError> {
        let topic = &self.board.shared.topic;
        connection.send(OFFSET_FOR_LEADER_EPOCH, |frame| write_end_of_epoch(frame, topic, epochs))?;
        let mut buffer = Vec::new();
        let body = connection.receive(&mut buffer, Duration::ZERO, &|| self.board.shared.is_stopping())?;
        self.board.note_epochs(epochs, &read_end_of_epoch(body, topic)?);
        Ok(())
    }

    /// Counts the buffers in the memory budget.
    fn make_room(&mut self, answer: usize) {
        self.reservation.resize(answer.max(self.answer.capacity()) + self.decompressor.memory());
    }

    /// Gives back what an unusually large answer has taken.
    fn trim(&mut self) {
        if self.answer.capacity() > KEPT_BUFFER {
            self.answer = Vec::new();
        }
        if self.decompressor.memory() > KEPT_BUFFER {
            self.decompressor.shrink_to(KEPT_BUFFER);
        }
        self.make_room(0);
    }

    /// Reads the records of a partition and sends them to its worker.
    pub(super) fn deliver(&mut self, parcel: &Parcel<'_>) {
        let mut delivery = Pending::new(parcel, &self.board);
        let outcome = delivery.read(&mut self.decompressor);
        delivery.send();
        let (next, arena_bytes) = (delivery.next, delivery.arena_bytes);
        parcel.outlet.slot.note_without_records(delivery.records_end, next);
        self.board.note_read(parcel, arena_bytes);
        let lost = match outcome {
            Ok(()) => parcel.lost.clone(),
            Err(unreadable) if self.board.read_again(parcel, next) => {
                warn!(partition = parcel.partition, offset = next, "fetching again what cannot be read: {unreadable}");
                None
            }
            Err(unreadable) => Some(self.board.unreadable(parcel.partition, next, &unreadable.to_string())),
        };
        if let Some(lost) = lost {
            self.board.forget(&parcel.outlet.slot);
            parcel.outlet.lose(lost);
        }
    }
}

/// Records of one partition that become batches for its worker.
struct Pending<'a> {
    parcel: &'a Parcel<'a>,
    board: &'a Board,
    batch: LogBatch,
    /// Records below were delivered, or are not wanted.
    next: i64,
    /// Behind the last record that was read.
    records_end: i64,
    /// How many records are still to come, as far as the batches say.
    records_ahead: usize,
    arena_bytes: usize,
}

impl<'a> Pending<'a> {
    fn new(parcel: &'a Parcel<'a>, board: &'a Board) -> Self {
        Self {
            parcel,
            board,
            batch: LogBatch::default(),
            next: parcel.from,
            records_end: parcel.from,
            records_ahead: parcel.records,
            arena_bytes: 0,
        }
    }

    fn read(&mut self, decompressor: &mut Decompressor) -> Result<(), Unreadable> {
        let mut aborted = AbortedTransactions::new(&self.parcel.aborted);
        let mut batches = RecordBatches::new(self.parcel.bytes);
        while let NextBatch::Whole(batch) = batches.next()? {
            if batch.end_offset <= self.next {
                continue;
            }
            let is_aborted = aborted.contains(&batch);
            if batch.is_control() {
                aborted.marker(&batch);
            } else if !is_aborted {
                if self.is_too_much() && self.board.rewind(self.parcel, self.next) {
                    return Ok(());
                }
                self.read_batch(&batch, decompressor)?;
            }
            self.next = batch.end_offset;
            self.records_ahead = self.records_ahead.saturating_sub(batch.records);
        }
        Ok(())
    }

    fn is_too_much(&self) -> bool {
        let slot = &self.parcel.outlet.slot;
        !slot.is_assigned() || slot.backlog(0).bytes > self.parcel.share + OVERSHOOT
    }

    fn read_batch(&mut self, batch: &RecordBatch<'_>, decompressor: &mut Decompressor) -> Result<(), Unreadable> {
        let mut records = batch.open(decompressor)?;
        let average = records.size / batch.records.max(1);
        let mut headers: Vec<Header<'_>> = Vec::new();
        let mut room = 0;
        let mut left = batch.records;
        while let Some(record) = records.next()? {
            left -= 1;
            if record.offset < self.next {
                continue;
            }
            if room == 0 {
                room = self.make_room(left + 1, average);
            }
            record.headers(&mut headers)?;
            let sent_headers = headers.iter().map(|(name, content)| (name.as_ref(), *content));
            self.batch.push(record.offset, record.timestamp_ms, record.key, record.value, sent_headers);
            headers.clear();
            self.next = record.offset + 1;
            self.records_end = self.next;
            room -= 1;
            if room == 0 || self.batch.byte_len() >= DELIVERY_BYTES {
                room = 0;
                if self.is_full() {
                    self.send();
                }
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= self.board.shared.limits.records_per_batch || self.batch.byte_len() >= DELIVERY_BYTES
    }

    /// Makes room for some of `left` records of about `average` bytes; for how many.
    fn make_room(&mut self, left: usize, average: usize) -> usize {
        let full = self.board.shared.limits.records_per_batch.saturating_sub(self.batch.len());
        let most = full.min(DELIVERY_BYTES / average.max(1)).max(1);
        if self.batch.is_empty() {
            // Small batches are gathered: room for all of them at once.
            let records = most.min(self.records_ahead.max(left));
            self.batch = LogBatch::with_capacity(records, records * average);
        } else {
            self.batch.reserve(left.min(most), left.min(most) * average);
        }
        left.min(most)
    }

    /// Sends what was gathered.
    fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return;
        }
        self.arena_bytes += batch.memory();
        if !self.board.shared.deliver(&self.parcel.outlet, batch, Some(self.parcel.high_watermark)) {
            debug!(partition = self.parcel.partition, "nobody takes its records any more");
            self.board.forget(&self.parcel.outlet.slot);
        }
    }
}
