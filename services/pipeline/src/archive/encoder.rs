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

    /// What comes next begins a row group.
    fn end_row_group(&mut self) -> Result<(), ParquetError>;

    /// Bytes so far, encoded or half-encoded.
    fn size(&self) -> usize;

    /// Bytes that it holds in memory.
    fn memory(&self) -> usize;

    /// Writes the footer and gives the file.
    fn finish(self, key_values: Vec<KeyValue>) -> Result<Vec<u8>, ParquetError>;

    /// Bytes that a part holds in memory.
    fn memory_of(part: &Self::Part) -> usize;
}

/// The archive object of a segment on its way.
pub type SegmentEncoder = Encoder<SegmentFile>;

/// A file on its way, on a lane.
#[derive(Debug)]
pub struct Encoder<F> {
    lane: EncoderLane,
    file: Arc<Mutex<CountedFile<F>>>,
    /// Bytes of the file so far, encoded or half-encoded.
    encoded: Arc<AtomicUsize>,
    /// Bytes of parts that wait for the lane.
    waiting: Arc<AtomicUsize>,
    budget: Arc<MemoryBudget>,
}

/// What a lane works on, and its share of memory: settled by the lane, since only there it is known.
#[derive(Debug)]
struct CountedFile<F> {
    state: FileState<F>,
    reservation: Reservation,
}

#[derive(Debug)]
enum FileState<F> {
    Writing(Box<F>),
    Failed(EncodeError),
    Finished,
}

impl<F: GrowingFile> CountedFile<F> {
    /// Works on the file, unless it has failed already; gives its size.
    fn work(&mut self, work: impl FnOnce(&mut F) -> Result<(), ParquetError>) -> usize {
        let FileState::Writing(file) = &mut self.state else { return 0 };
        match work(file) {
            Ok(()) => {
                self.reservation.resize(file.memory());
                file.size()
            }
            Err(error) => {
                self.state = FileState::Failed(error.into());
                self.reservation.resize(0);
                0
            }
        }
    }

    /// Writes the footer and gives the file.
    fn finish(&mut self, key_values: Vec<KeyValue>) -> Result<(Bytes, Reservation), EncodeError> {
        let mut file = match std::mem::replace(&mut self.state, FileState::Finished) {
            FileState::Writing(file) => file.finish(key_values).map_err(EncodeError::from)?,
            FileState::Failed(error) => return Err(error),
            FileState::Finished => return Err(EncodeError("the file was finished twice".to_owned())),
        };
        file.shrink_to_fit();
        let nothing = self.reservation.sibling(0);
        let mut reservation = std::mem::replace(&mut self.reservation, nothing);
        reservation.resize(file.len());
        Ok((Bytes::from(file), reservation))
    }
}

impl<F: GrowingFile> Encoder<F> {
    /// An empty file.
    pub fn new(file: F, lane: EncoderLane, budget: &Arc<MemoryBudget>) -> Self {
        let state = FileState::Writing(Box::new(file));
        Self {
            lane,
            file: Arc::new(Mutex::new(CountedFile { state, reservation: budget.reserve(0) })),
            encoded: Arc::new(AtomicUsize::new(0)),
            waiting: Arc::new(AtomicUsize::new(0)),
            budget: Arc::clone(budget),
        }
    }

    /// Appends a part; waits while the lane is behind.
    pub async fn write(&mut self, part: F::Part) {
        let bytes = F::memory_of(&part);
        let reservation = self.budget.reserve(bytes);
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Arc::clone(&self.waiting);
        self.work(move |file| {
            let started = Instant::now();
            let written = file.write(&part);
            metrics::histogram!(STAGE_DURATION, "stage" => "encode").record(started.elapsed());
            drop(part);
            drop(reservation);
            waiting.fetch_sub(bytes, Ordering::Relaxed);
            written
        })
        .await;
    }

    /// No more parts will come: what is half-encoded takes no more memory than the file will have, however long it then
    /// waits for its store.
    pub async fn close(&mut self) {
        self.work(F::end_row_group).await;
    }

    /// In the order of the calls.
    async fn work(&self, work: impl FnOnce(&mut F) -> Result<(), ParquetError> + Send + 'static) {
        let (file, encoded) = (Arc::clone(&self.file), Arc::clone(&self.encoded));
        let job = move || {
            let size = file.lock().unwrap_or_else(PoisonError::into_inner).work(work);
            encoded.store(size, Ordering::Relaxed);
        };
        self.lane.run(job).await;
    }

    /// Bytes so far: no less than what the file will have, as parts that are not encoded yet count in full.
    pub fn size(&self) -> usize {
        self.encoded.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed)
    }

    /// Writes the footer and gives the file, with the share of memory that it holds.
    pub async fn finish(self, key_values: Vec<KeyValue>) -> Result<(Bytes, Reservation), EncodeError> {
        let file = self.file;
        let job = move || file.lock().unwrap_or_else(PoisonError::into_inner).finish(key_values);
        let finished = self.lane.compute(job).await;
        finished.ok_or_else(|| EncodeError("the encoder thread is gone".to_owned()))?
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, RecordBatch};
    use arrow_schema::{DataType, Field, Schema};

    use super::super::segment_file::SegmentFormat;
    use super::*;

    /// Rows that hardly become smaller.
    fn rows(count: i64) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("noise", DataType::Int64, false)]));
        let noise = (0..count)
            .map(|row| (row + 1).wrapping_mul(-7_046_029_254_386_353_131).rotate_left(31).wrapping_mul(row | 1));
        RecordBatch::try_new(schema, vec![Arc::new(noise.collect::<Int64Array>())]).unwrap()
    }

    #[tokio::test]
    async fn a_segment_that_waits_is_counted_in_full() {
        let budget = MemoryBudget::new(1 << 30);
        let format = SegmentFormat::new(rows(1).schema(), &[]);
        let mut waiting = Vec::new();
        for number in 1..=20 {
            let mut encoder =
                SegmentEncoder::new(SegmentFile::new(format.clone()), EncoderLane::start(number).unwrap(), &budget);
            // One batch only, as where memory is short and segments are cut early.
            encoder.write(rows(20_000)).await;
            encoder.close().await;
            assert!(encoder.lane.compute(|| ()).await.is_some());
            assert!(budget.used() >= number * 120_000, "{number} segments of 130,000 B hold {} B", budget.used());
            waiting.push(encoder);
        }
        drop(waiting);
        assert_eq!(budget.used(), 0);
    }
}
