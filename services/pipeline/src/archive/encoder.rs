//! Encoding a segment and its dead letters as Parquet, off the record path: it is the largest cost of an event.
//!
//! An [`EncoderLane`] is a thread that encodes the batches it is sent, in order. Its queue is short: a partition whose
//! lane is behind waits, and backpressure travels up to ingest. In tests the lane may be inline.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use tokio::sync::{mpsc, oneshot};

use super::segment_file::SegmentFile;
use crate::memory::{MemoryBudget, Reservation};
use crate::ops::metrics::STAGE_DURATION;

/// Batches that may wait for a lane.
const QUEUE: usize = 4;

/// A batch could not be encoded: a defect of the program, never of the data.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot encode as Parquet: {0}")]
pub struct EncodeError(String);

impl From<ParquetError> for EncodeError {
    fn from(error: ParquetError) -> Self {
        Self(error.to_string())
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Where batches are encoded.
#[derive(Clone)]
pub enum EncoderLane {
    /// On the calling thread.
    Inline,
    /// On a thread of its own.
    Thread(mpsc::Sender<Job>),
}

impl fmt::Debug for EncoderLane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Inline => "EncoderLane::Inline",
            Self::Thread(_) => "EncoderLane::Thread",
        })
    }
}

impl EncoderLane {
    /// Starts a thread; it ends when the last clone of the lane is dropped.
    pub fn start(number: usize) -> std::io::Result<Self> {
        let (sender, mut jobs) = mpsc::channel::<Job>(QUEUE);
        std::thread::Builder::new().name(format!("kappa-encode-{number}")).spawn(move || {
            while let Some(job) = jobs.blocking_recv() {
                job();
            }
        })?;
        Ok(Self::Thread(sender))
    }

    /// Runs a job behind those that wait, and gives what it returns; `None` if it panicked.
    pub async fn compute<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        self.run(move || _ = done.send(job())).await;
        result.await.ok()
    }

    async fn run(&self, job: impl FnOnce() + Send + 'static) {
        match self {
            Self::Inline => job(),
            // The thread ends only after the last sender.
            Self::Thread(sender) => _ = sender.send(Box::new(job)).await,
        }
    }
}

/// A Parquet file that is written part by part.
pub trait GrowingFile: Send + 'static {
    /// What is appended to it.
    type Part: Send + 'static;

    /// Appends a part.
    fn write(&mut self, part: &Self::Part) -> Result<(), ParquetError>;

    /// Bytes that the file holds in memory, encoded or half-encoded.
    fn memory(&self) -> usize;

    /// Writes the footer and gives the file.
    fn finish(self, key_values: Vec<KeyValue>) -> Result<Vec<u8>, ParquetError>;

    /// Bytes that a part holds.
    fn memory_of(part: &Self::Part) -> usize;
}

/// The archive object of a segment on its way.
pub type SegmentEncoder = Encoder<SegmentFile>;

/// A file on its way, on a lane.
#[derive(Debug)]
pub struct Encoder<F> {
    lane: EncoderLane,
    file: Arc<Mutex<FileState<F>>>,
    /// Bytes that the file holds in memory, encoded or half-encoded.
    held: Arc<AtomicUsize>,
    /// Bytes of parts that wait for the lane.
    waiting: Arc<AtomicUsize>,
    reservation: Reservation,
}

/// What a lane works on.
#[derive(Debug)]
enum FileState<F> {
    Writing(Box<F>),
    Failed(EncodeError),
    Finished,
}

impl<F: GrowingFile> Encoder<F> {
    /// An empty file.
    pub fn new(file: F, lane: EncoderLane, budget: &Arc<MemoryBudget>) -> Self {
        Self {
            lane,
            file: Arc::new(Mutex::new(FileState::Writing(Box::new(file)))),
            held: Arc::new(AtomicUsize::new(0)),
            waiting: Arc::new(AtomicUsize::new(0)),
            reservation: budget.reserve(0),
        }
    }

    /// Appends a part; waits while the lane is behind.
    pub async fn write(&mut self, part: F::Part) {
        let bytes = F::memory_of(&part);
        let reservation = self.reservation.sibling(bytes);
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let (file, held, waiting) = (Arc::clone(&self.file), Arc::clone(&self.held), Arc::clone(&self.waiting));
        let job = move || {
            let mut state = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let FileState::Writing(file) = &mut *state {
                let started = Instant::now();
                match file.write(&part) {
                    Ok(()) => held.store(file.memory(), Ordering::Relaxed),
                    Err(error) => *state = FileState::Failed(error.into()),
                }
                metrics::histogram!(STAGE_DURATION, "stage" => "encode").record(started.elapsed());
            }
            drop(part);
            drop(reservation);
            waiting.fetch_sub(bytes, Ordering::Relaxed);
        };
        self.lane.run(job).await;
        self.reservation.resize(self.held.load(Ordering::Relaxed));
    }

    /// Bytes so far: no less than what the file will have, as parts that are not encoded yet count in full.
    pub fn size(&self) -> usize {
        self.held.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed)
    }

    /// Writes the footer and gives the file, with the share of memory that it holds.
    pub async fn finish(self, key_values: Vec<KeyValue>) -> Result<(Bytes, Reservation), EncodeError> {
        let file = self.file;
        let job = move || {
            let mut state = file.lock().unwrap_or_else(PoisonError::into_inner);
            match std::mem::replace(&mut *state, FileState::Finished) {
                FileState::Writing(file) => file.finish(key_values).map_err(EncodeError::from),
                FileState::Failed(error) => Err(error),
                FileState::Finished => Err(EncodeError("the file was finished twice".to_owned())),
            }
        };
        let finished = self.lane.compute(job).await;
        let file = finished.ok_or_else(|| EncodeError("the encoder thread is gone".to_owned()))??;
        let mut reservation = self.reservation;
        reservation.resize(file.len());
        Ok((Bytes::from(file), reservation))
    }
}
