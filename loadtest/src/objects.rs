//! What lies on S3: the segments of the archive, proved by their footers, and the dead letters.
//!
//! Read with nothing but the format's own library: the judge shares no code with the pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt as _};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::RowAccessor as _;
use parquet::schema::types::Type;
use serde::Deserialize;

use crate::target::Place;

/// How much of the end of an object is asked for first; most footers fit.
const FIRST_READ: u64 = 64 << 10;

/// Objects that are read at the same time.
const CONCURRENT_READS: usize = 8;

/// How many objects there are, and how large they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stock {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A range of the log, by partition: from the first position to the one behind the last.
pub type LogRange = Vec<(i64, i64)>;

/// What the archive holds of a range of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archived {
    /// Events: rows of segments.
    pub rows: u64,
    /// Refused records by reason, as the footers have them.
    pub rejects: BTreeMap<String, u64>,
    /// Where a partition's segments do not follow one another, overlap, or do not reach the end.
    pub gaps: Vec<String>,
}

/// The footer of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Footer {
    partition: usize,
    start: i64,
    end: i64,
    rows: u64,
    rejects: Vec<RejectedRun>,
}

/// First offset, count and reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct RejectedRun(i64, i64, String);

/// Counts the objects below a place.
pub async fn stock(place: &Place) -> anyhow::Result<Stock> {
    let mut stock = Stock::default();
    for object in list(place).await? {
        stock.objects += 1;
        stock.bytes += object.size;
    }
    Ok(stock)
}

async fn list(place: &Place) -> anyhow::Result<Vec<ObjectMeta>> {
    let objects = place.store.list(Some(&place.prefix)).try_collect().await;
    objects.with_context(|| {
        format!("cannot list {}: check the credentials (AWS_ variables) and the address", place.prefix)
    })
}

/// Reads the footers of all segments that hold something of the range.
pub async fn archived(place: &Place, range: &LogRange) -> anyhow::Result<Archived> {
    let segments = list(place).await?.into_iter().filter(|object| may_concern(object, range));
    let footers: Vec<Footer> = stream::iter(segments)
        .map(|object| {
            let store = Arc::clone(&place.store);
            async move { read_footer(&store, &object).await.with_context(|| object.location.to_string()) }
        })
        .buffer_unordered(CONCURRENT_READS)
        .try_collect()
        .await?;
    Ok(add_up(footers, range))
}

/// Names are `<partition>-<start>.parquet`: a segment that starts behind the range is not read.
fn may_concern(object: &ObjectMeta, range: &LogRange) -> bool {
    let name = object.location.filename().unwrap_or_default();
    let Some((partition, start)) = name.trim_end_matches(".parquet").split_once('-') else {
        return false;
    };
    let (Ok(partition), Ok(start)) = (partition.parse::<usize>(), start.parse::<i64>()) else {
        return false;
    };
    range.get(partition).is_some_and(|(from, to)| from < to && start < *to)
}

async fn read_footer(store: &Arc<dyn ObjectStore>, object: &ObjectMeta) -> anyhow::Result<Footer> {
    let mut wanted = FIRST_READ.min(object.size);
    loop {
        let options =
            GetOptions { range: Some(GetRange::Bounded(object.size - wanted..object.size)), ..GetOptions::default() };
        let tail = store.get_opts(&object.location, options).await?.bytes().await?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&tail, object.size) {
            Ok(()) => return footer_of(&reader.finish()?),
            Err(ParquetError::NeedMoreData(needed)) if needed as u64 > wanted && needed as u64 <= object.size => {
                wanted = needed as u64;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn footer_of(metadata: &ParquetMetaData) -> anyhow::Result<Footer> {
    let file = metadata.file_metadata();
    let entries = file.key_value_metadata().map(Vec::as_slice).unwrap_or_default();
    let text = |name: &str| {
        let entry = entries.iter().find(|entry| entry.key == name).and_then(|entry| entry.value.as_deref());
        entry.ok_or_else(|| anyhow!("its footer has no {name}"))
    };
    let footer = Footer {
        partition: text("kappa.partition")?.parse()?,
        start: text("kappa.start_offset")?.parse()?,
        end: text("kappa.end_offset")?.parse()?,
        rows: text("kappa.rows")?.parse()?,
        rejects: serde_json::from_str(text("kappa.rejects")?)?,
    };
    if footer.rows != file.num_rows() as u64 {
        bail!("its footer says {} rows, and it has {}", footer.rows, file.num_rows());
    }
    Ok(footer)
}

fn add_up(mut footers: Vec<Footer>, range: &LogRange) -> Archived {
    footers.sort_by_key(|footer| (footer.partition, footer.start));
    let mut archived = Archived::default();
    for (partition, &(from, to)) in range.iter().enumerate() {
        let mut reached = from;
        for footer in footers.iter().filter(|footer| footer.partition == partition && footer.end > from) {
            let (start, end) = (footer.start.max(from), footer.end.min(to));
            if start != reached {
                archived.gaps.push(format!("partition {partition}: {reached} to {start}"));
            }
            reached = reached.max(end);
            let mut refused = 0;
            for RejectedRun(first, count, reason) in &footer.rejects {
                let inside = ((first + count).min(end) - (*first).max(start)).max(0) as u64;
                refused += inside;
                *archived.rejects.entry(reason.clone()).or_default() += inside;
            }
            archived.rows += ((end - start).max(0) as u64).saturating_sub(refused);
        }
        if reached < to {
            archived.gaps.push(format!("partition {partition}: {reached} to {to}"));
        }
    }
    archived.rejects.retain(|_, count| *count > 0);
    archived
}

/// Counts the dead letters of a range of the log, by reason.
pub async fn dead_letters(place: &Place, range: &LogRange) -> anyhow::Result<BTreeMap<String, u64>> {
    let objects = list(place).await?.into_iter().filter(|object| may_concern(object, range));
    let mut sum: BTreeMap<String, u64> = BTreeMap::new();
    for object in objects {
        let content = place.store.get(&object.location).await?.bytes().await?;
        let reasons = reasons_in(content, range).with_context(|| format!("cannot read {}", object.location))?;
        for (reason, count) in reasons {
            *sum.entry(reason).or_default() += count;
        }
    }
    Ok(sum)
}

fn reasons_in(content: Bytes, range: &LogRange) -> anyhow::Result<BTreeMap<String, u64>> {
    let reader = SerializedFileReader::new(content)?;
    let schema = reader.metadata().file_metadata().schema();
    let fields = ["partition", "offset", "reason"]
        .into_iter()
        .map(|name| {
            let field = schema.get_fields().iter().find(|field| field.name() == name);
            field.cloned().ok_or_else(|| anyhow!("it has no column `{name}`"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build()?;
    let mut counts = BTreeMap::new();
    for row in reader.get_row_iter(Some(projection))? {
        let row = row?;
        // Columns come in the order of the file, whatever the projection's.
        let names: Vec<&String> = row.get_column_iter().map(|(name, _)| name).collect();
        let index = |wanted: &str| names.iter().position(|name| *name == wanted).unwrap_or(usize::MAX);
        let (partition, offset) = (row.get_int(index("partition"))?, row.get_long(index("offset"))?);
        let is_ours = range.get(partition as usize).is_some_and(|(from, to)| (*from..*to).contains(&offset));
        if is_ours {
            *counts.entry(row.get_string(index("reason"))?.clone()).or_default() += 1;
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    use super::*;

    fn file(columns: Vec<(&str, ArrayRef)>, footer: &[(&str, &str)]) -> Bytes {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let entries = footer.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), (*value).to_owned())).collect();
        let properties = WriterProperties::builder().set_key_value_metadata(Some(entries)).build();
        let mut out = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut out, batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        out.into()
    }

    fn place(directory: &std::path::Path) -> Place {
        let store = object_store::local::LocalFileSystem::new_with_prefix(directory).unwrap();
        Place { store: Arc::new(store), prefix: "topic".into() }
    }

    fn write(directory: &std::path::Path, name: &str, content: &[u8]) {
        let path = directory.join("topic/date=2026-11-25/hour=00");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(name), content).unwrap();
    }

    fn segment(directory: &std::path::Path, start: i64, end: i64, rejects: &str, rows: usize) {
        let footer = [
            ("kappa.partition", "0"),
            ("kappa.start_offset", &start.to_string()),
            ("kappa.end_offset", &end.to_string()),
            ("kappa.rows", &rows.to_string()),
            ("kappa.rejects", rejects),
        ];
        let column: ArrayRef = Arc::new(Int64Array::from(vec![7; rows]));
        write(directory, &format!("00000-{start:020}.parquet"), &file(vec![("_offset", column)], &footer));
    }

    #[tokio::test]
    async fn footers_prove_rows_rejects_and_that_nothing_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        segment(directory.path(), 0, 100, r#"[[4,2,"tombstone"],[90,5,"bad_magic"]]"#, 93);
        segment(directory.path(), 100, 150, "[]", 50);
        let place = place(directory.path());
        let all = archived(&place, &vec![(0, 150), (9, 9)]).await.unwrap();
        assert_eq!((all.rows, all.gaps.len()), (143, 0));
        assert_eq!(all.rejects, BTreeMap::from([("bad_magic".to_owned(), 5), ("tombstone".to_owned(), 2)]));
        // A range that begins and ends within segments.
        let part = archived(&place, &vec![(92, 120)]).await.unwrap();
        assert_eq!((part.rows, part.gaps.len(), part.rejects["bad_magic"]), (25, 0, 3));
        let beyond = archived(&place, &vec![(0, 200)]).await.unwrap();
        assert_eq!(beyond.gaps, ["partition 0: 150 to 200"]);
        segment(directory.path(), 160, 200, "[]", 40);
        let torn = archived(&place, &vec![(0, 200)]).await.unwrap();
        assert_eq!((torn.rows, torn.gaps), (183, vec!["partition 0: 150 to 160".to_owned()]));
        assert_eq!(stock(&place).await.unwrap().objects, 3);
    }

    #[tokio::test]
    async fn dead_letters_are_counted_by_reason_within_the_range() {
        let directory = tempfile::tempdir().unwrap();
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("topic", Arc::new(StringArray::from(vec!["t"; 4]))),
            ("partition", Arc::new(Int32Array::from(vec![0, 0, 0, 0]))),
            ("offset", Arc::new(Int64Array::from(vec![1, 2, 3, 30]))),
            ("detail", Arc::new(StringArray::from(vec!["d"; 4]))),
            ("reason", Arc::new(StringArray::from(vec!["tombstone", "bad_magic", "tombstone", "tombstone"]))),
        ];
        write(directory.path(), "00000-00000000000000000000.parquet", &file(columns, &[]));
        let found = dead_letters(&place(directory.path()), &vec![(1, 30)]).await.unwrap();
        assert_eq!(found, BTreeMap::from([("bad_magic".to_owned(), 1), ("tombstone".to_owned(), 2)]));
    }
}
