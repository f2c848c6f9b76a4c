//! Encoding a segment as Parquet, off the record path: it is the largest cost of an event.
//!
//! An [`EncoderLane`] is a thread that encodes the batches it is sent, in order. Its queue is short: a partition whose
//! lane is behind waits, and backpressure travels up to ingest. In tests the lane may be inline.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::sync::{mpsc, oneshot};

use super::footer::SegmentFooter;
use crate::memory::{MemoryBudget, Reservation};

/// Batches that may wait for a lane.
const QUEUE: usize = 4;

/// Rows of a row group: enough for good dictionaries, small enough to read in parallel.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// Columns whose pages carry statistics, besides the event's key and time fields.
const PAGE_STATISTICS: [&str; 2] = ["_offset", "_timestamp"];

/// A batch could not be encoded: a defect of the program, never of the data.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot encode the segment as Parquet: {0}")]
pub struct EncodeError(String);

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

    async fn run(&self, job: impl FnOnce() + Send + 'static) {
        match self {
            Self::Inline => job(),
            // The thread ends only after the last sender.
            Self::Thread(sender) => _ = sender.send(Box::new(job)).await,
        }
    }
}

/// How segments are encoded; made once, shared by all.
#[derive(Debug, Clone)]
pub struct SegmentFormat {
    schema: SchemaRef,
    properties: WriterProperties,
}

impl SegmentFormat {
    /// `indexed`: the event's key and time fields, whose pages carry statistics.
    pub fn new(schema: SchemaRef, indexed: &[String]) -> Self {
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap_or_default()))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by(concat!("kappa ", env!("CARGO_PKG_VERSION")).to_owned());
        for field in schema.fields() {
            let path = ColumnPath::from(field.name().as_str());
            if is_counter(field.data_type()) {
                // Offsets, times and sequences rise by little: deltas beat a dictionary in size and in time.
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path.clone(), Encoding::DELTA_BINARY_PACKED);
            }
            if indexed.contains(field.name()) || PAGE_STATISTICS.contains(&field.name().as_str()) {
                properties = properties.set_column_statistics_enabled(path, EnabledStatistics::Page);
            }
        }
        Self { schema, properties: properties.build() }
    }
}

fn is_counter(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int64 | DataType::Timestamp(..) | DataType::Date32 | DataType::Time64(_))
}

/// One segment on its way to becoming a file.
#[derive(Debug)]
pub struct SegmentEncoder {
    lane: EncoderLane,
    file: Arc<Mutex<FileState>>,
    /// Bytes that the file holds in memory, encoded or half-encoded.
    held: Arc<AtomicUsize>,
    /// Bytes of rows that wait for the lane.
    waiting: Arc<AtomicUsize>,
    reservation: Reservation,
}

/// What a lane works on.
enum FileState {
    Writing(Box<ArrowWriter<Vec<u8>>>),
    Failed(EncodeError),
    Finished,
}

impl fmt::Debug for FileState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writing(writer) => formatter.debug_tuple("Writing").field(&writer.bytes_written()).finish(),
            Self::Failed(error) => formatter.debug_tuple("Failed").field(error).finish(),
            Self::Finished => formatter.write_str("Finished"),
        }
    }
}

impl SegmentEncoder {
    /// An empty segment.
    pub fn new(format: &SegmentFormat, lane: EncoderLane, budget: &Arc<MemoryBudget>) -> Result<Self, EncodeError> {
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&format.schema), Some(format.properties.clone()))
            .map_err(|error| EncodeError(error.to_string()))?;
        Ok(Self {
            lane,
            file: Arc::new(Mutex::new(FileState::Writing(Box::new(writer)))),
            held: Arc::new(AtomicUsize::new(0)),
            waiting: Arc::new(AtomicUsize::new(0)),
            reservation: budget.reserve(0),
        })
    }

    /// Appends rows; waits while the lane is behind.
    pub async fn write(&mut self, rows: RecordBatch) {
        let bytes = rows.get_array_memory_size();
        let reservation = self.reservation.sibling(bytes);
        self.waiting.fetch_add(bytes, Ordering::Relaxed);
        let (file, held, waiting) = (Arc::clone(&self.file), Arc::clone(&self.held), Arc::clone(&self.waiting));
        let job = move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if let FileState::Writing(writer) = &mut *file {
                match writer.write(&rows) {
                    Ok(()) => held.store(writer.bytes_written() + writer.memory_size(), Ordering::Relaxed),
                    Err(error) => *file = FileState::Failed(EncodeError(error.to_string())),
                }
            }
            drop(rows);
            drop(reservation);
            waiting.fetch_sub(bytes, Ordering::Relaxed);
        };
        self.lane.run(job).await;
        self.reservation.resize(self.held.load(Ordering::Relaxed));
    }

    /// Bytes so far: no less than what the file will have, as rows that are not encoded yet count in full.
    pub fn size(&self) -> usize {
        self.held.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed)
    }

    /// Writes the footer and gives the file, with the share of memory that it holds.
    pub async fn finish(self, footer: &SegmentFooter) -> Result<(Bytes, Reservation), EncodeError> {
        let (done, result) = oneshot::channel();
        let (file, key_values) = (self.file, footer.key_values());
        let job = move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let finished = match std::mem::replace(&mut *file, FileState::Finished) {
                FileState::Writing(mut writer) => {
                    key_values.into_iter().for_each(|pair| writer.append_key_value_metadata(pair));
                    writer.into_inner().map_err(|error| EncodeError(error.to_string()))
                }
                FileState::Failed(error) => Err(error),
                FileState::Finished => Err(EncodeError("the segment was finished twice".to_owned())),
            };
            _ = done.send(finished);
        };
        self.lane.run(job).await;
        let file = result.await.map_err(|_| EncodeError("the encoder thread is gone".to_owned()))??;
        let mut reservation = self.reservation;
        reservation.resize(file.len());
        Ok((Bytes::from(file), reservation))
    }
}
