//! The codecs of record batches, each with a bound on what may come out.
//!
//! gzip, snappy and lz4 as Kafka's own clients frame them; zstd is [KIP-110].
//!
//! [KIP-110]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-110%3A+Add+Codec+for+ZStandard+Compression

use std::io::{self, Read};

use zstd::zstd_safe::DCtx;

/// What the Java client puts around snappy blocks: a magic of 8 bytes, two versions, then blocks with their sizes.
/// Other clients send a single bare block.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: usize = 16;

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Why records cannot be decompressed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecompressError {
    #[error("its records are larger than {limit} bytes when decompressed")]
    TooLarge { limit: usize },
    #[error("its {codec:?} compressed records are damaged: {reason}")]
    Damaged { codec: Codec, reason: String },
}

impl Codec {
    /// The codec of a batch with these attributes.
    pub(super) fn of_attributes(attributes: i16) -> Option<Self> {
        Some(match attributes & 0b111 {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }
}

/// Decompresses into a buffer that is used again and again.
pub(super) struct Decompressor {
    output: Vec<u8>,
    /// The most that one batch may become.
    limit: usize,
    zstd: DCtx<'static>,
    snappy: snap::raw::Decoder,
}

impl Decompressor {
    pub(super) fn new(limit: usize) -> Self {
        Self { output: Vec::new(), limit, zstd: DCtx::create(), snappy: snap::raw::Decoder::new() }
    }

    /// Bytes held.
    pub(super) fn memory(&self) -> usize {
        self.output.capacity()
    }

    /// Gives back what one unusually large batch has taken.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        self.output.clear();
        self.output.shrink_to(bytes);
    }

    /// What `input` was before it was compressed.
    pub(super) fn decompress<'a>(&'a mut self, codec: Codec, input: &'a [u8]) -> Result<&'a [u8], DecompressError> {
        let Self { output, limit, zstd, snappy } = self;
        output.clear();
        let outcome = match codec {
            Codec::None => return Ok(input),
            Codec::Gzip => read_all(flate2::read::MultiGzDecoder::new(input), output, *limit),
            Codec::Snappy => decompress_snappy(snappy, input, output, *limit),
            Codec::Lz4 => read_all(lz4_flex::frame::FrameDecoder::new(input), output, *limit),
            Codec::Zstd => read_all(zstd::stream::read::Decoder::with_context(input, zstd), output, *limit),
        };
        match outcome {
            Ok(()) if output.len() > *limit => Err(DecompressError::TooLarge { limit: *limit }),
            Ok(()) => Ok(output),
            Err(error) => Err(DecompressError::Damaged { codec, reason: error.to_string() }),
        }
    }
}

/// At most one byte more than the limit, so that it shows.
fn read_all(decoder: impl Read, output: &mut Vec<u8>, limit: usize) -> io::Result<()> {
    decoder.take(limit as u64 + 1).read_to_end(output).map(drop)
}

fn decompress_snappy(
    decoder: &mut snap::raw::Decoder,
    input: &[u8],
    output: &mut Vec<u8>,
    limit: usize,
) -> io::Result<()> {
    if !input.starts_with(XERIAL_MAGIC) {
        return decompress_snappy_block(decoder, input, output, limit);
    }
    let mut rest = input.get(XERIAL_HEADER..).ok_or(io::ErrorKind::UnexpectedEof)?;
    while !rest.is_empty() && output.len() <= limit {
        let (size, behind) = rest.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
        let size = u32::from_be_bytes(*size) as usize;
        let block = behind.get(..size).ok_or(io::ErrorKind::UnexpectedEof)?;
        decompress_snappy_block(decoder, block, output, limit)?;
        rest = &behind[size..];
    }
    Ok(())
}

fn decompress_snappy_block(
    decoder: &mut snap::raw::Decoder,
    block: &[u8],
    output: &mut Vec<u8>,
    limit: usize,
) -> io::Result<()> {
    // The block says how large it will be; that is not believed beyond the limit.
    let size = snap::raw::decompress_len(block)?;
    let start = output.len();
    if start + size > limit {
        output.resize(limit + 1, 0);
        return Ok(());
    }
    output.resize(start + size, 0);
    let written = decoder.decompress(block, &mut output[start..])?;
    output.truncate(start + written);
    Ok(())
}

impl std::fmt::Debug for Decompressor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Decompressor").field("limit", &self.limit).finish_non_exhaustive()
    }
}
