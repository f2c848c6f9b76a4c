//! The archive: one Parquet object per segment, whose creation is the segment's commit point.

mod chunk;
mod dictionary_column;
mod encoder;
mod footer;
mod hybrid;
mod keys;
mod segment_file;
mod thrift;
mod unchanging;

pub use encoder::{EncodeError, Encoder, EncoderLane, GrowingFile, SegmentEncoder};
pub use footer::{FooterError, SegmentFooter, read_footer, read_metadata};
pub use keys::{segment_key, snapshot_key, snapshot_prefix, start_key};
pub(crate) use segment_file::COMPRESSOR_BYTES;
pub use segment_file::{SegmentFile, SegmentFormat};
