//! The bytes of a snapshot: little endian, no padding, a version in front and a checksum behind.
//!
//! Written by hand because a snapshot must be the same bytes for the same state, for years: two owners of a partition
//! write the same object. The layout belongs to [`FORMAT_VERSION`]; whoever changes it raises the number and keeps
//! reading the older ones.

use xxhash_rust::xxh3::xxh3_64;

/// Raised with every change of the layout.
pub const FORMAT_VERSION: u16 = 2;

const MAGIC: &[u8; 6] = b"KAPPA\0";
const CHECKSUM: usize = 8;

/// Why a snapshot cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The first bytes are not those of a snapshot.
    #[error("not a Kappa snapshot: it does not begin with the magic bytes")]
    NotASnapshot,
    /// The checksum does not fit the bytes.
    #[error("the snapshot is damaged: its checksum does not match its {0} bytes")]
    Damaged(usize),
    /// Written by a newer version.
    #[error("the snapshot has format version {found}, this program reads up to {FORMAT_VERSION}: run a newer version")]
    TooNew {
        /// The version found.
        found: u16,
    },
    /// The bytes end early, or hold a length or text that cannot be.
    #[error("the snapshot is malformed at byte {0}")]
    Malformed(usize),
    /// It was taken under settings that change what rows mean.
    #[error("the snapshot was taken with {setting} = {taken}, now it is {configured}: {advice}")]
    Settings {
        /// Which setting.
        setting: &'static str,
        /// Its value in the snapshot.
        taken: String,
        /// Its value now.
        configured: String,
        /// The way out.
        advice: &'static str,
    },
}

impl SnapshotError {
    /// Whether other bytes were read than were written once, as far as one can tell.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::NotASnapshot | Self::Damaged(_))
    }
}

/// Builds a snapshot.
#[derive(Debug)]
pub struct SnapshotWriter(Vec<u8>);

/// Reads a snapshot; every length is checked against what is left before anything is allocated.
#[derive(Debug)]
pub struct SnapshotReader<'a> {
    bytes: &'a [u8],
    position: usize,
    version: u16,
}

impl SnapshotWriter {
    /// Starts with magic and version.
    pub fn new() -> Self {
        let mut bytes = Vec::with_capacity(4096);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        Self(bytes)
    }

    /// Appends a number.
    pub fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    /// Appends a number.
    pub fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Appends a number.
    pub fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Appends a number.
    pub fn i64(&mut self, number: i64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Appends a number, bit by bit: NaN and negative zero survive.
    pub fn f64(&mut self, number: f64) {
        self.u64(number.to_bits());
    }

    /// Appends a text with its length.
    pub fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Closes with the checksum.
    pub fn finish(mut self) -> Vec<u8> {
        let checksum = xxh3_64(&self.0);
        self.u64(checksum);
        self.0
    }
}

impl Default for SnapshotWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> SnapshotReader<'a> {
    /// Checks magic, checksum and version.
    pub fn open(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        if !bytes.starts_with(MAGIC) {
            return Err(SnapshotError::NotASnapshot);
        }
        let Some(body_length) = bytes.len().checked_sub(CHECKSUM).filter(|length| *length >= MAGIC.len() + 2) else {
            return Err(SnapshotError::Damaged(bytes.len()));
        };
        let (body, checksum) = bytes.split_at(body_length);
        if checksum != xxh3_64(body).to_le_bytes() {
            return Err(SnapshotError::Damaged(bytes.len()));
        }
        let mut reader = Self { bytes: body, position: MAGIC.len(), version: 0 };
        let found = u16::from_le_bytes(reader.take()?);
        if found > FORMAT_VERSION {
            return Err(SnapshotError::TooNew { found });
        }
        reader.version = found;
        Ok(reader)
    }

    /// Of the layout that follows.
    pub fn version(&self) -> u16 {
        self.version
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], SnapshotError> {
        let mut out = [0; N];
        out.copy_from_slice(self.slice(N)?);
        Ok(out)
    }

    fn slice(&mut self, length: usize) -> Result<&'a [u8], SnapshotError> {
        let left = self.bytes.get(self.position..).unwrap_or_default();
        let slice = left.get(..length).ok_or_else(|| self.malformed())?;
        self.position += length;
        Ok(slice)
    }

    /// The error for content that cannot be, at the current position.
    pub fn malformed(&self) -> SnapshotError {
        SnapshotError::Malformed(self.position)
    }

    /// Reads a number.
    pub fn u8(&mut self) -> Result<u8, SnapshotError> {
        Ok(u8::from_le_bytes(self.take()?))
    }

    /// Reads a number.
    pub fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_le_bytes(self.take()?))
    }

    /// Reads a number.
    pub fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.take()?))
    }

    /// Reads a number.
    pub fn i64(&mut self) -> Result<i64, SnapshotError> {
        Ok(i64::from_le_bytes(self.take()?))
    }

    /// Reads a number.
    pub fn f64(&mut self) -> Result<f64, SnapshotError> {
        Ok(f64::from_bits(self.u64()?))
    }

    /// Reads a text.
    pub fn text(&mut self) -> Result<&'a str, SnapshotError> {
        let length = self.u32()? as usize;
        let bytes = self.slice(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed())
    }

    /// Reads how many items follow, of at least `item_size` bytes each.
    pub fn count(&mut self, item_size: usize) -> Result<usize, SnapshotError> {
        let count = self.u32()? as usize;
        if count.saturating_mul(item_size) > self.bytes.len() - self.position {
            return Err(self.malformed());
        }
        Ok(count)
    }

    /// Checks that nothing is left.
    pub fn finish(self) -> Result<(), SnapshotError> {
        if self.position == self.bytes.len() { Ok(()) } else { Err(self.malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut writer = SnapshotWriter::new();
        writer.u32(2);
        writer.text("grüße");
        writer.f64(f64::NAN);
        writer.i64(-5);
        writer.finish()
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = sample();
        let mut reader = SnapshotReader::open(&bytes).expect("opens");
        assert_eq!(reader.count(4), Ok(2));
        assert_eq!(reader.text(), Ok("grüße"));
        assert!(reader.f64().expect("a number").is_nan());
        assert_eq!(reader.i64(), Ok(-5));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn damage_anywhere_is_noticed() {
        let good = sample();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert!(SnapshotReader::open(&bad).is_err(), "byte {position}");
            assert!(SnapshotReader::open(&good[..position]).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let mut bytes = sample();
        bytes.truncate(bytes.len() - CHECKSUM);
        bytes[MAGIC.len()] = 9;
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        assert_eq!(SnapshotReader::open(&bytes).map(|_| ()), Err(SnapshotError::TooNew { found: 9 }));
    }

    #[test]
    fn impossible_counts_are_refused_before_allocation() {
        let mut writer = SnapshotWriter::new();
        writer.u32(u32::MAX);
        let bytes = writer.finish();
        let mut reader = SnapshotReader::open(&bytes).expect("opens");
        assert!(reader.count(100).is_err());
    }
}
