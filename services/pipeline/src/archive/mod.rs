//! The archive: one Parquet object per segment, whose creation is the segment's commit point.

mod encoder;
mod footer;
mod keys;

pub use encoder::{EncodeError, EncoderLane, SegmentEncoder, SegmentFormat};
pub use footer::{FooterError, SegmentFooter, read_footer};
pub use keys::{segment_key, snapshot_key, snapshot_prefix};
