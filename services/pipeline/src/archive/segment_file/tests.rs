//! Files are read back by the parquet crate, and compared with what its own writer makes of the same rows.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use arrow_schema::{Field, Schema};
use bytes::Bytes;
use kappa_core::archive::HeadersBuilder;
use kappa_core::record::LogBatch;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{PageIndexPolicy, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

fn schema() -> SchemaRef {
    let text = || DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![
        Field::new("sensor", text(), false),
        Field::new("site", text(), true),
        Field::new("offset", DataType::Int64, false),
    ]))
}

/// Rows by their texts, with a dictionary that has these in front.
fn batch(common: &[String], sensors: &[String], sites: &[Option<String>], first_offset: i64) -> RecordBatch {
    let mut values: Vec<String> = common.to_vec();
    let mut key_of = |text: &String| {
        let known = values.iter().position(|value| value == text);
        known.unwrap_or_else(|| {
            values.push(text.clone());
            values.len() - 1
        }) as i32
    };
    let keys: Int32Array = sensors.iter().map(|sensor| Some(key_of(sensor))).collect();
    let sensors: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(StringArray::from(values))));
    let sites: DictionaryArray<Int32Type> = sites.iter().map(Option::as_deref).collect();
    let offsets = Int64Array::from_iter_values(first_offset..first_offset + sensors.len() as i64);
    RecordBatch::try_new(schema(), vec![sensors, Arc::new(sites), Arc::new(offsets)]).unwrap()
}

fn written_by_us(format: &SegmentFormat, batches: &[RecordBatch]) -> Bytes {
    let mut file = SegmentFile::new(format.clone());
    for batch in batches {
        file.write(batch).unwrap();
    }
    let pair = KeyValue::new("kappa.test".to_owned(), "yes".to_owned());
    file.finish(vec![pair]).unwrap().into()
}

fn written_by_the_crate(format: &SegmentFormat, batches: &[RecordBatch]) -> Bytes {
    let mut writer =
        ArrowWriter::try_new(Vec::new(), Arc::clone(&format.schema), Some(format.properties.clone())).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap().into()
}

type Row = (String, Option<String>, i64);

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let text = |column: usize, row: usize| {
        let array = batch.column(column).as_dictionary::<Int32Type>();
        array.key(row).map(|key| array.values().as_string::<i32>().value(key).to_owned())
    };
    let offsets = batch.column(2).as_primitive::<Int64Type>();
    (0..batch.num_rows()).map(|row| (text(0, row).unwrap(), text(1, row), offsets.value(row))).collect()
}

fn batches_of(file: &Bytes) -> (ArrowReaderMetadata, Vec<RecordBatch>) {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let metadata = ArrowReaderMetadata::load(file, options).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file.clone(), metadata.clone());
    (metadata, reader.with_batch_size(1 << 21).build().unwrap().map(Result::unwrap).collect())
}

fn read(file: &Bytes) -> (ArrowReaderMetadata, Vec<Row>) {
    let (metadata, batches) = batches_of(file);
    (metadata, batches.iter().flat_map(rows_of).collect())
}

fn bounds(statistics: Option<&Statistics>) -> (Option<&[u8]>, Option<&[u8]>, Option<u64>) {
    let statistics = statistics.unwrap();
    (statistics.min_bytes_opt(), statistics.max_bytes_opt(), statistics.null_count_opt())
}

/// Random rows of `sensors` different texts, in batches whose dictionaries grow, repeat or have nothing in common.
fn random_batches(random: &mut ChaCha8Rng, sensors: usize, width: usize, batches: usize) -> Vec<RecordBatch> {
    let name = |number: usize| format!("sensor-{number:0>width$}");
    let mut common: Vec<String> = Vec::new();
    let mut offset = 0;
    let mut made = Vec::new();
    for _ in 0..batches {
        match random.random_range(0..3) {
            0 => common.clear(),
            1 => common.push(name(common.len())),
            _ => {}
        }
        let rows = random.random_range(1..9_000);
        let constant_site = random.random_bool(0.5);
        let texts: Vec<String> = (0..rows).map(|_| name(random.random_range(0..sensors))).collect();
        let sites: Vec<Option<String>> = (0..rows)
            .map(|row| match row % 3 {
                0 if !constant_site => None,
                _ if constant_site => Some("north".to_owned()),
                _ => Some(format!("site-{}", random.random_range(0..5))),
            })
            .collect();
        made.push(batch(&common, &texts, &sites, offset));
        offset += i64::from(rows);
    }
    made
}

#[test]
fn rows_statistics_and_page_index_are_what_the_parquet_crate_would_write() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for (sensors, width) in [(1, 1), (2, 20), (300, 6), (3_000, 6), (3_000, 600)] {
        let batches = random_batches(&mut random, sensors, width, 12);
        let format = SegmentFormat::new(schema(), &["sensor".to_owned()]);
        let (ours, theirs) = (written_by_us(&format, &batches), written_by_the_crate(&format, &batches));
        let ((ours, our_rows), (theirs, their_rows)) = (read(&ours), read(&theirs));
        assert_eq!(our_rows, batches.iter().flat_map(rows_of).collect::<Vec<_>>());
        assert_eq!(our_rows, their_rows);
        assert_eq!(ours.schema().fields(), theirs.schema().fields());
        let (our_group, their_group) = (ours.metadata().row_group(0), theirs.metadata().row_group(0));
        for column in 0..2 {
            let (our_column, their_column) = (our_group.column(column), their_group.column(column));
            assert_eq!(our_column.num_values(), their_column.num_values());
            if width < 64 {
                assert_eq!(bounds(our_column.statistics()), bounds(their_column.statistics()));
            }
            let larger = our_column.compressed_size() as f64 / their_column.compressed_size() as f64;
            assert!(larger < 1.1, "column {column} of {sensors} sensors takes {larger:.2} times as much");
        }
        let index = ours.metadata().page_index_for_row_group(0);
        assert!(index.column_index(1).is_none(), "page statistics were asked for one column only");
        assert_eq!(index.column_index(0).is_none(), width > 64);
        check_page_bounds(&ours, &our_rows);
    }
}

/// Every page's bounds hold for the rows that the offset index says it has, and are met.
fn check_page_bounds(metadata: &ArrowReaderMetadata, rows: &[Row]) {
    let index = metadata.metadata().page_index_for_row_group(0);
    let pages = index.offset_index(0).unwrap().page_locations();
    let Some(ColumnIndexMetaData::BYTE_ARRAY(index)) = index.column_index(0) else { return };
    let starts: Vec<usize> = pages.iter().map(|page| page.first_row_index as usize).collect();
    assert_eq!(starts.len(), rows.len().div_ceil(20_000));
    for (page, start) in starts.iter().enumerate() {
        let end = starts.get(page + 1).copied().unwrap_or(rows.len());
        let texts = || rows[*start..end].iter().map(|(sensor, ..)| sensor.as_bytes());
        assert_eq!(index.min_value(page), texts().min());
        assert_eq!(index.max_value(page), texts().max());
    }
}

#[test]
fn a_dictionary_beyond_a_page_gives_way_to_plain_values() {
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let batches = random_batches(&mut random, 20_000, 100, 14);
    let format = SegmentFormat::new(schema(), &[]);
    let (ours, rows) = read(&written_by_us(&format, &batches));
    assert_eq!(rows, batches.iter().flat_map(rows_of).collect::<Vec<_>>());
    let encodings: Vec<_> = ours.metadata().row_group(0).column(0).encodings().collect();
    assert!(encodings.contains(&Encoding::PLAIN) && encodings.contains(&Encoding::RLE_DICTIONARY), "{encodings:?}");
}

#[test]
fn a_column_of_nulls_and_a_file_without_rows_can_be_read() {
    let format = SegmentFormat::new(schema(), &["site".to_owned()]);
    let sensors = vec!["s".to_owned(); 30_000];
    let rows = batch(&[], &sensors, &vec![None; 30_000], 5);
    let (metadata, read_back) = read(&written_by_us(&format, std::slice::from_ref(&rows)));
    assert_eq!(read_back, rows_of(&rows));
    let nulls = bounds(metadata.metadata().row_group(0).column(1).statistics());
    assert_eq!(nulls, (None, None, Some(30_000)));
    let (metadata, read_back) = read(&written_by_us(&format, &[]));
    assert!(read_back.is_empty());
    let pairs = metadata.metadata().file_metadata().key_value_metadata().unwrap();
    assert!(pairs.iter().any(|pair| pair.key == "kappa.test"));
}

#[test]
fn a_row_group_ends_before_it_grows_too_large() {
    let format = SegmentFormat::new(schema(), &[]);
    let rows = batch(&[], &vec!["s".to_owned(); 400_000], &vec![None; 400_000], 0);
    let (metadata, read_back) = read(&written_by_us(&format, &[rows.clone(), rows.clone(), rows]));
    let groups: Vec<_> = metadata.metadata().row_groups().iter().map(RowGroupMetaData::num_rows).collect();
    assert_eq!((groups, read_back.len()), (vec![800_000, 400_000], 1_200_000));
}

#[test]
fn numbers_that_repeat_get_a_dictionary_and_others_are_split_by_byte() {
    let field = |name| Field::new(name, DataType::Float64, true);
    let schema = Arc::new(Schema::new(vec![field("repeating"), field("unique"), field("absent")]));
    let column =
        |value: &dyn Fn(i32) -> Option<f64>| -> ArrayRef { Arc::new((0..9_000).map(value).collect::<Float64Array>()) };
    let numbers = vec![
        column(&|row| Some(f64::from(row % 700) / 10.0)),
        column(&|row| (row % 5 != 0).then(|| f64::from(row).sqrt())),
        column(&|_| None),
    ];
    let rows = RecordBatch::try_new(Arc::clone(&schema), numbers).unwrap();
    let file = written_by_us(&SegmentFormat::new(schema, &[]), &[rows.clone(), rows.clone()]);
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().with_batch_size(9_000);
    let group = reader.metadata().row_group(0);
    let encodings = |column: usize| group.column(column).encodings().collect::<Vec<_>>();
    assert!(encodings(0).contains(&Encoding::RLE_DICTIONARY), "{:?}", encodings(0));
    assert!(encodings(1).contains(&Encoding::BYTE_STREAM_SPLIT), "{:?}", encodings(1));
    let read_back: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
    assert_eq!(read_back, vec![rows.clone(), rows]);
}

/// `changed`: so many of the fields have other values than usual, in half of the rows.
fn hardly_changing(rows: usize, changed: usize) -> RecordBatch {
    let is_changed = |field: usize, row: usize| field < changed && row % 2 == 1;
    let numbers = |field: usize| (0..rows).map(move |row| if is_changed(field, row) { row as i32 } else { 7 });
    let flags = |field: usize, usual: bool| (0..rows).map(move |row| usual != is_changed(field, row));
    let mut log = LogBatch::default();
    for row in 0..rows {
        let some = [("name", Some(&b"value"[..])), ("none", None)];
        log.push(row as i64, 0, None, None, some.into_iter().filter(|_| is_changed(7, row)));
    }
    let mut headers = HeadersBuilder::new();
    (0..rows).for_each(|row| headers.append(&log.get(row)));
    let columns: Vec<(&str, ArrayRef, bool)> = vec![
        ("number", Arc::new(Int32Array::from_iter_values(numbers(0))), false),
        ("number or none", Arc::new(numbers(1).map(Some).collect::<Int32Array>()), true),
        ("flag", Arc::new(flags(2, false).map(Some).collect::<BooleanArray>()), false),
        ("flag or none", Arc::new(flags(3, true).map(Some).collect::<BooleanArray>()), true),
        (
            "no bytes",
            Arc::new((0..rows).map(|row| is_changed(4, row).then_some(b"bytes")).collect::<BinaryArray>()),
            true,
        ),
        ("no text", Arc::new((0..rows).map(|row| is_changed(5, row).then_some("text")).collect::<StringArray>()), true),
        ("no double", Arc::new((0..rows).map(|row| is_changed(6, row).then_some(0.5)).collect::<Float64Array>()), true),
        ("no headers", headers.finish(), true),
        ("no time", Arc::new((0..rows).map(|row| is_changed(8, row).then_some(9)).collect::<Int64Array>()), true),
    ];
    let fields: Vec<Field> =
        columns.iter().map(|(name, array, nulls)| Field::new(*name, array.data_type().clone(), *nulls)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array, _)| array).collect())
        .unwrap()
}

#[test]
fn columns_that_never_change_and_those_that_do_at_last_are_what_the_parquet_crate_would_write() {
    let usual = |rows| hardly_changing(rows, 0);
    for batches in [
        vec![usual(1)],
        vec![usual(9_000), usual(1), usual(20_000)],
        vec![usual(9_000), hardly_changing(100, 3), usual(70)],
        vec![usual(8_192), usual(8_193), hardly_changing(3, 9)],
        vec![hardly_changing(5, 9), usual(30_000)],
        vec![usual(800_000), usual(400_000), hardly_changing(10, 9)],
    ] {
        let format = SegmentFormat::new(batches[0].schema(), &[]);
        let (ours, theirs) = (written_by_us(&format, &batches), written_by_the_crate(&format, &batches));
        let ((our_metadata, our_rows), (their_metadata, their_rows)) = (batches_of(&ours), batches_of(&theirs));
        assert_eq!(our_rows.len(), 1);
        assert_eq!(our_rows, their_rows);
        assert_eq!(our_metadata.schema().fields(), their_metadata.schema().fields());
        if batches.iter().map(RecordBatch::num_rows).sum::<usize>() > ROW_GROUP_ROWS {
            // The crate ends its row groups in the middle of a batch.
            continue;
        }
        for (column, theirs) in their_metadata.metadata().row_group(0).columns().iter().enumerate() {
            let ours = our_metadata.metadata().row_group(0).column(column);
            let path = theirs.column_path();
            assert_eq!(bounds(ours.statistics()), bounds(theirs.statistics()), "{path}");
            assert_eq!(ours.num_values(), theirs.num_values(), "{path}");
            assert!(ours.compressed_size() <= theirs.compressed_size() + 32, "{path}: {}", ours.compressed_size());
        }
    }
}

#[test]
fn columns_that_never_change_hold_next_to_nothing() {
    let rows = hardly_changing(50_000, 0);
    let mut file = SegmentFile::new(SegmentFormat::new(rows.schema(), &[]));
    file.write(&rows).unwrap();
    assert!(file.memory() < 1_000, "{} B", file.memory());
    file.write(&hardly_changing(2, 9)).unwrap();
    assert!(file.memory() > 5 * COMPRESSOR_BYTES, "{} B", file.memory());
}

#[test]
fn what_a_column_does_not_know_of_is_about_its_compressor() {
    // Pages of 20,000 rows: of a byte for each row, and of eight.
    let held = [20_000_u64, 160_000].map(|bytes| {
        let noise: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        compressor.compress(&noise).unwrap();
        compressor.context_mut().sizeof() + zstd::zstd_safe::DCtx::create().sizeof()
    });
    assert!(held[0] <= COMPRESSOR_BYTES && COMPRESSOR_BYTES <= held[1] && held[1] <= 2 * COMPRESSOR_BYTES, "{held:?}");
}
