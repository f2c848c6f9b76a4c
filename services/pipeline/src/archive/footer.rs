//! The footer of a segment: what was decided when it was sealed, provable from the archive alone.

use std::collections::HashMap;
use std::num::ParseIntError;
use std::sync::Arc;

use bytes::Bytes;
use kappa_core::partition::RejectedOffsets;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt as _};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader};

use super::thrift::is_whole_metadata;

/// Version of the footer's layout.
const VERSION: u32 = 1;

/// How much of the end of an object is asked for first; most footers fit.
const FIRST_READ: u64 = 64 << 10;

/// Magic bytes at both ends, and the length of the footer.
const SMALLEST_FILE: u64 = 12;

/// Key-values under `kappa.` in the Parquet footer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentFooter {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// First log position.
    pub start: i64,
    /// The log position behind the last.
    pub end: i64,
    /// Accepted records: rows of the file.
    pub rows: u64,
    /// The field that numbers a sensor's readings, if duplicates were told apart.
    pub sequence: Option<String>,
    /// Rows that are marked as duplicates. Older versions of the program did not count them.
    pub duplicates: Option<u64>,
    /// Rejected offsets with their reasons. Rows and rejects together are all that the log delivered.
    pub rejected: RejectedOffsets,
    /// Digest of the log records of the range: 32 hexadecimal digits.
    pub digest: String,
    /// The reader schema in force.
    pub reader_schema: String,
    /// The data contract in force, and a fingerprint of its rules; none without rules, and in files of older versions.
    pub contract: Option<String>,
}

/// Why a footer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FooterError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] object_store::Error),
    /// Not Parquet.
    #[error("it is not a readable Parquet file: {0}")]
    Parquet(#[from] ParquetError),
    /// A segment of a newer version of the program.
    #[error("its footer has version {found}, this program reads up to {VERSION}: run a newer version")]
    TooNew {
        /// The version found.
        found: u32,
    },
    /// Parquet, but not a segment of ours.
    #[error("its footer has no valid `kappa.{0}`")]
    Field(&'static str),
}

impl FooterError {
    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Store(error) if !matches!(error, object_store::Error::NotFound { .. }))
    }
}

impl SegmentFooter {
    /// As Parquet key-values.
    pub fn key_values(&self) -> Vec<KeyValue> {
        let pairs = [
            ("topic", self.topic.clone()),
            ("partition", self.partition.to_string()),
            ("start_offset", self.start.to_string()),
            ("end_offset", self.end.to_string()),
            ("rows", self.rows.to_string()),
            ("rejects", self.rejected.to_json()),
            ("digest", self.digest.clone()),
            ("reader_schema", self.reader_schema.clone()),
            ("version", VERSION.to_string()),
        ];
        let optional = [
            ("sequence", self.sequence.clone()),
            ("duplicates", self.duplicates.map(|count| count.to_string())),
            ("contract", self.contract.clone()),
        ];
        let optional = optional.into_iter().filter_map(|(key, value)| Some((key, value?)));
        pairs.into_iter().chain(optional).map(|(key, value)| KeyValue::new(format!("kappa.{key}"), value)).collect()
    }

    /// From Parquet metadata.
    pub fn from_metadata(metadata: &ParquetMetaData) -> Result<Self, FooterError> {
        let pairs = metadata.file_metadata().key_value_metadata();
        let pairs: HashMap<&str, &str> = pairs
            .into_iter()
            .flatten()
            .filter_map(|pair| Some((pair.key.strip_prefix("kappa.")?, pair.value.as_deref()?)))
            .collect();
        let text = |name: &'static str| pairs.get(name).copied().ok_or(FooterError::Field(name));
        let number =
            |name: &'static str| text(name)?.parse::<i64>().map_err(|_: ParseIntError| FooterError::Field(name));
        match text("version")?.parse() {
            Ok(VERSION) => {}
            Ok(found) if found > VERSION => return Err(FooterError::TooNew { found }),
            _ => return Err(FooterError::Field("version")),
        }
        Ok(Self {
            topic: text("topic")?.to_owned(),
            partition: i32::try_from(number("partition")?).map_err(|_| FooterError::Field("partition"))?,
            start: number("start_offset")?,
            end: number("end_offset")?,
            rows: u64::try_from(number("rows")?).map_err(|_| FooterError::Field("rows"))?,
            sequence: pairs.get("sequence").map(|field| (*field).to_owned()),
            duplicates: match pairs.get("duplicates") {
                Some(count) => Some(count.parse().map_err(|_| FooterError::Field("duplicates"))?),
                None => None,
            },
            rejected: RejectedOffsets::from_json(text("rejects")?).ok_or(FooterError::Field("rejects"))?,
            digest: text("digest")?.to_owned(),
            reader_schema: text("reader_schema")?.to_owned(),
            contract: text("contract").ok().map(str::to_owned),
        })
    }

    /// Whether two owners came to the same segment. Neither reader schema nor contract count: old and new versions of
    /// them may run side by side, and the first one's file stands.
    pub fn is_same_segment(&self, other: &Self) -> bool {
        self.end == other.end && self.digest == other.digest && self.rejected == other.rejected
    }
}

/// Reads the footer of a segment, by one or two ranged requests.
pub async fn read_footer(store: &Arc<dyn ObjectStore>, key: &Path) -> Result<SegmentFooter, FooterError> {
    let size = store.head(key).await?.size;
    SegmentFooter::from_metadata(&read_metadata(store, key, size).await?)
}

/// Reads the Parquet metadata of an object of `size` bytes, by one or two ranged requests.
pub async fn read_metadata(
    store: &Arc<dyn ObjectStore>,
    key: &Path,
    size: u64,
) -> Result<ParquetMetaData, FooterError> {
    if size < SMALLEST_FILE {
        return Err(ParquetError::EOF(format!("{size} bytes are too few")).into());
    }
    let mut wanted = FIRST_READ;
    loop {
        let tail = read_tail(store, key, size, wanted).await?;
        if metadata_in(&tail).is_some_and(|metadata| !is_whole_metadata(metadata)) {
            return Err(ParquetError::General("its metadata is damaged".to_owned()).into());
        }
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&tail, size) {
            Ok(()) => return Ok(reader.finish()?),
            Err(ParquetError::NeedMoreData(needed)) if (needed as u64) > wanted && (needed as u64) <= size => {
                wanted = needed as u64;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// The metadata, if all of it is in the last bytes of a file: behind it are its length and the magic bytes.
fn metadata_in(tail: &[u8]) -> Option<&[u8]> {
    let (rest, _magic) = tail.split_last_chunk::<4>()?;
    let (rest, length) = rest.split_last_chunk::<4>()?;
    rest.get(rest.len().checked_sub(u32::from_le_bytes(*length) as usize)?..)
}

async fn read_tail(store: &Arc<dyn ObjectStore>, key: &Path, size: u64, wanted: u64) -> object_store::Result<Bytes> {
    let range = GetRange::Bounded(size.saturating_sub(wanted)..size);
    let options = GetOptions { range: Some(range), ..GetOptions::default() };
    store.get_opts(key, options).await?.bytes().await
}

#[cfg(test)]
mod tests {
    use parquet::file::metadata::FileMetaData;
    use parquet::schema::types::{SchemaDescriptor, Type};

    use super::*;

    fn metadata(key_values: Vec<KeyValue>) -> ParquetMetaData {
        let schema = Type::group_type_builder("schema").build().unwrap();
        let schema = Arc::new(SchemaDescriptor::new(Arc::new(schema)));
        ParquetMetaData::new(FileMetaData::new(2, 0, None, Some(key_values), schema, None), Vec::new())
    }

    fn footer() -> SegmentFooter {
        SegmentFooter {
            topic: "readings".to_owned(),
            partition: 3,
            start: 5,
            end: 12,
            rows: 7,
            sequence: Some("sequence".to_owned()),
            duplicates: Some(2),
            rejected: RejectedOffsets::default(),
            digest: "0".repeat(32),
            reader_schema: "{}".to_owned(),
            contract: Some("c 1 0".to_owned()),
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name_and_whatever_else_it_holds() {
        let mut pairs = footer().key_values();
        assert_eq!(SegmentFooter::from_metadata(&metadata(pairs.clone())).unwrap(), footer());
        let version = pairs.iter_mut().find(|pair| pair.key == "kappa.version").unwrap();
        version.value = Some("2".to_owned());
        let mut older = footer().key_values();
        older.retain(|pair| pair.key != "kappa.contract");
        assert_eq!(SegmentFooter::from_metadata(&metadata(older)).unwrap().contract, None);
        pairs.retain(|pair| pair.key != "kappa.rejects");
        let error = SegmentFooter::from_metadata(&metadata(pairs)).unwrap_err().to_string();
        assert!(error.contains("version 2") && error.contains("run a newer version"), "{error}");
    }
}
