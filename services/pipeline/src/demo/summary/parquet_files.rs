//! What is found in Parquet files on disk, read with nothing but the format's own library.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use parquet::schema::types::Type;

/// The archive of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveFindings {
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows.
    pub rows: u64,
    /// Of them, those that are marked as having been there already.
    pub duplicates: u64,
    /// By partition: the position up to which the segments follow one another without gap or overlap, from 0 on.
    pub contiguous_to: BTreeMap<i32, i64>,
}

/// The dead letters of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFindings {
    /// Number of files.
    pub files: u64,
    /// Their rows by reason.
    pub by_reason: BTreeMap<String, u64>,
}

/// Rows of one writer's schema.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchemaRows {
    /// All of them.
    pub rows: u64,
    /// Of them, those with fields that the reader does not know.
    pub with_extra: u64,
}

/// Counts the rows of all segments below `directory` by the id of the schema that they were written with.
pub fn rows_by_schema(directory: &Path) -> anyhow::Result<BTreeMap<i32, SchemaRows>> {
    let mut by_schema: BTreeMap<i32, SchemaRows> = BTreeMap::new();
    for path in parquet_files(directory)? {
        let describe = || format!("count the schemas in {}", path.display());
        let file = File::open(&path).with_context(describe)?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).with_context(describe)?;
        let columns = ProjectionMask::columns(builder.parquet_schema(), ["_schema_id", "_extra"]);
        for batch in builder.with_projection(columns).build().with_context(describe)? {
            let batch = batch.with_context(describe)?;
            let (ids, extra) = (batch.column_by_name("_schema_id"), batch.column_by_name("_extra"));
            let (ids, extra) = ids.zip(extra).ok_or_else(|| anyhow!("a column is missing")).with_context(describe)?;
            for (row, id) in ids.as_primitive::<Int32Type>().iter().enumerate() {
                let counts = by_schema.entry(id.unwrap_or_default()).or_default();
                counts.rows += 1;
                counts.with_extra += u64::from(extra.is_valid(row));
            }
        }
    }
    Ok(by_schema)
}

/// Reads the footers of all segments below `directory`.
pub(super) fn read_archive(directory: &Path) -> anyhow::Result<ArchiveFindings> {
    let mut findings = ArchiveFindings::default();
    let mut segments: BTreeMap<i32, Vec<(i64, i64)>> = BTreeMap::new();
    for path in parquet_files(directory)? {
        let describe = || format!("read the footer of {}", path.display());
        let reader = open(&path)?;
        let metadata = reader.metadata().file_metadata();
        findings.files += 1;
        findings.bytes += fs::metadata(&path).with_context(describe)?.len();
        findings.rows += metadata.num_rows() as u64;
        let entries = metadata.key_value_metadata().map(Vec::as_slice).unwrap_or_default();
        let number = |key: &str| -> anyhow::Result<i64> {
            let entry = entries.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.as_deref());
            Ok(entry.ok_or_else(|| anyhow!("no {key} in it"))?.parse()?)
        };
        let partition = number("kappa.partition").with_context(describe)?;
        let range =
            (number("kappa.start_offset").with_context(describe)?, number("kappa.end_offset").with_context(describe)?);
        findings.duplicates += number("kappa.duplicates").with_context(describe)?.max(0) as u64;
        segments.entry(partition as i32).or_default().push(range);
    }
    findings.contiguous_to =
        segments.into_iter().map(|(partition, ranges)| (partition, contiguous_to(ranges))).collect();
    Ok(findings)
}

/// Reads the reasons of all dead letters below `directory`.
pub(super) fn read_dead_letters(directory: &Path) -> anyhow::Result<DeadLetterFindings> {
    let mut findings = DeadLetterFindings::default();
    for path in parquet_files(directory)? {
        let describe = || format!("read the reasons in {}", path.display());
        let reader = open(&path)?;
        let schema = reader.metadata().file_metadata().schema();
        let reason = schema.get_fields().iter().find(|field| field.name() == "reason");
        let reason = reason.ok_or_else(|| anyhow!("no column `reason`")).with_context(describe)?;
        let projection = Type::group_type_builder(schema.name())
            .with_fields(vec![Arc::clone(reason)])
            .build()
            .with_context(describe)?;
        findings.files += 1;
        for row in reader.get_row_iter(Some(projection)).with_context(describe)? {
            let row = row.with_context(describe)?;
            let reason = row.get_string(0).with_context(describe)?;
            match findings.by_reason.get_mut(reason) {
                Some(count) => *count += 1,
                None => {
                    findings.by_reason.insert(reason.clone(), 1);
                }
            }
        }
    }
    Ok(findings)
}

fn open(path: &Path) -> anyhow::Result<SerializedFileReader<File>> {
    let describe = || format!("open {}", path.display());
    SerializedFileReader::new(File::open(path).with_context(describe)?).with_context(describe)
}

fn parquet_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// How far segments follow one another from 0 on. Any gap or overlap ends it.
fn contiguous_to(mut ranges: Vec<(i64, i64)>) -> i64 {
    ranges.sort_unstable();
    let mut end = 0;
    for (start, next_end) in ranges {
        if start != end {
            return end;
        }
        end = next_end;
    }
    end
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
    use parquet::arrow::ArrowWriter;
    use parquet::file::metadata::KeyValue;
    use parquet::file::properties::WriterProperties;

    use super::*;

    fn write(path: &Path, footer: &[(&str, i64)], columns: Vec<(&str, ArrayRef)>) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let entries = footer.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.to_string())).collect();
        let properties = WriterProperties::builder().set_key_value_metadata(Some(entries)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    fn write_segment(directory: &Path, partition: i64, start: i64, end: i64, rows: usize) {
        let path = directory.join(format!("topic/date=2026-11-25/{partition:05}-{start:020}.parquet"));
        let range = [("kappa.start_offset", start), ("kappa.end_offset", end)];
        let footer = [("kappa.partition", partition), ("kappa.duplicates", 1), range[0], range[1]];
        write(&path, &footer, vec![("_offset", Arc::new(Int64Array::from(vec![1; rows])) as ArrayRef)]);
    }

    #[test]
    fn footers_tell_rows_and_gaps() {
        let directory = tempfile::tempdir().unwrap();
        write_segment(directory.path(), 0, 0, 10, 9);
        write_segment(directory.path(), 0, 10, 30, 20);
        write_segment(directory.path(), 1, 0, 5, 5);
        write_segment(directory.path(), 1, 6, 9, 3);
        let found = read_archive(directory.path()).unwrap();
        assert_eq!((found.files, found.rows, found.duplicates), (4, 37, 4));
        assert_eq!(found.contiguous_to, BTreeMap::from([(0, 30), (1, 5)]));
    }

    #[test]
    fn rows_are_counted_by_schema() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a/b.parquet", "a/c.parquet"] {
            let ids: ArrayRef = Arc::new(Int32Array::from(vec![1, 5, 5]));
            let extra: ArrayRef = Arc::new(StringArray::from(vec![None, Some("{}"), None]));
            write(&directory.path().join(name), &[], vec![("_schema_id", ids), ("_extra", extra)]);
        }
        let expected = [(1, SchemaRows { rows: 2, with_extra: 0 }), (5, SchemaRows { rows: 4, with_extra: 2 })];
        assert_eq!(rows_by_schema(directory.path()).unwrap(), BTreeMap::from(expected));
    }

    #[test]
    fn reasons_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let reasons: DictionaryArray<Int32Type> = ["tombstone", "bad_magic", "tombstone"].into_iter().collect();
        let other: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        write(&directory.path().join("a/b.parquet"), &[], vec![("offset", other), ("reason", Arc::new(reasons))]);
        let found = read_dead_letters(directory.path()).unwrap();
        assert_eq!(found.files, 1);
        assert_eq!(found.by_reason, BTreeMap::from([("bad_magic".to_owned(), 1), ("tombstone".to_owned(), 2)]));
    }
}
