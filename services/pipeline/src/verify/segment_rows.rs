//! A segment's rows, decoded from Parquet with the format's own library: only what windows are made of.

use std::collections::HashMap;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Float32Type, Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use kappa_core::contract::rules::ContractRules;
use kappa_core::decode::ReaderSchema;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::contract::{Breach, RowRules};
use super::totals::ArchivedEvent;
use crate::archive::SegmentFooter;
use crate::config::EventConfig;

/// Rows decoded at once.
const BATCH_ROWS: usize = 8_192;

/// The column that marks duplicates.
const MARKS: &str = "_duplicate";

/// Which columns make an event, from `[event]`.
#[derive(Debug, Clone)]
pub(super) struct EventColumns {
    pub(super) key: Vec<String>,
    pub(super) time: String,
    value: String,
    quality: Option<String>,
    bad_quality: String,
    site: Option<String>,
    /// Names that these fields had in earlier versions of the reader schema.
    former: HashMap<String, Vec<String>>,
}

impl EventColumns {
    pub(super) fn new(event: &EventConfig, reader: &ReaderSchema) -> Self {
        let fields = event.key.iter().chain([&event.time, &event.value]).chain(&event.quality).chain(&event.site);
        Self {
            former: fields.map(|field| (field.clone(), reader.aliases_of(field).to_vec())).collect(),
            key: event.key.clone(),
            time: event.time.clone(),
            value: event.value.clone(),
            quality: event.quality.clone(),
            bad_quality: event.bad_quality.clone(),
            site: event.site.clone(),
        }
    }

    /// The same fields under the names that they have in a segment, which may be of an earlier version of the schema.
    /// A version without quality took no event for bad.
    pub(super) fn in_segment(&self, schema: &Schema) -> Self {
        let has = |name: &&String| schema.field_with_name(name).is_ok();
        let find = |field: &String| {
            let former = self.former.get(field).into_iter().flatten();
            std::iter::once(field).chain(former).find(has).unwrap_or(field).clone()
        };
        Self {
            key: self.key.iter().map(find).collect(),
            time: find(&self.time),
            value: find(&self.value),
            quality: self.quality.as_ref().map(find).filter(|name| has(&name)),
            site: self.site.as_ref().map(find).filter(|name| has(&name)),
            ..self.clone()
        }
    }

    /// Names of the columns to read. Older segments have no marks.
    fn names<'a>(&'a self, sequence: Option<&'a str>, marks: Option<&'a str>) -> Vec<&'a str> {
        let key = self.key.iter().map(String::as_str);
        let others = [self.time.as_str(), self.value.as_str(), "_partition", "_offset", "_timestamp"];
        let optional = [self.quality.as_deref(), self.site.as_deref(), sequence, marks];
        key.chain(others).chain(optional.into_iter().flatten()).collect()
    }
}

/// A segment that is being read. Errors are sentences: the object is damaged, or no segment of ours.
pub(super) struct SegmentReader {
    pub(super) footer: SegmentFooter,
    batches: ParquetRecordBatchReader,
    columns: EventColumns,
    /// The rules of the contract, where it was these that were in force.
    rules: Option<RowRules>,
}

impl std::fmt::Debug for SegmentReader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SegmentReader").field("footer", &self.footer).finish_non_exhaustive()
    }
}

impl SegmentReader {
    pub(super) fn open(object: Bytes, columns: &EventColumns, contract: &ContractRules) -> Result<Self, String> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(object).map_err(|error| error.to_string())?;
        let footer = SegmentFooter::from_metadata(builder.metadata()).map_err(|error| error.to_string())?;
        let columns = columns.in_segment(builder.schema());
        let marks = builder.schema().field_with_name(MARKS).is_ok().then_some(MARKS);
        let rules = RowRules::of(contract, footer.contract.as_deref());
        let names = columns.names(footer.sequence.as_deref(), marks);
        let names: Vec<&str> = names.into_iter().chain(rules.iter().flat_map(RowRules::columns)).collect();
        for name in &names {
            if builder.schema().field_with_name(name).is_err() {
                return Err(format!("it has no column `{name}`"));
            }
        }
        let mask = ProjectionMask::columns(builder.parquet_schema(), names);
        let batches = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
        let batches = batches.map_err(|error| error.to_string())?;
        Ok(Self { footer, batches, columns, rules })
    }

    /// The next rows; `None` behind the last.
    pub(super) fn next_rows(&mut self) -> Option<Result<Rows, String>> {
        let batch = self.batches.next()?;
        Some(batch.map_err(|error| error.to_string()).and_then(|batch| {
            let mut rows = Rows::new(&batch, &self.columns, self.footer.sequence.as_deref())?;
            if let Some(rules) = &self.rules {
                rows.breaches = rules.breaches(&batch, &rows.offsets)?;
            }
            Ok(rows)
        }))
    }
}

/// Some rows of a segment.
#[derive(Debug)]
pub(super) struct Rows {
    key: Vec<TextColumn>,
    times: (Vec<i64>, ArrayRef),
    values: (Vec<f64>, ArrayRef),
    quality: Option<TextColumn>,
    bad_quality: String,
    sites: Option<TextColumn>,
    /// Empty where none are numbered.
    sequences: Vec<i64>,
    /// Empty where none are marked.
    marks: Vec<bool>,
    pub(super) partitions: Vec<i32>,
    pub(super) offsets: Vec<i64>,
    pub(super) timestamps: Vec<i64>,
    /// Rows that a rule of the contract forbids.
    pub(super) breaches: Vec<Breach>,
}

impl Rows {
    fn new(batch: &RecordBatch, columns: &EventColumns, sequence: Option<&str>) -> Result<Self, String> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("it has no column `{name}`"));
        let text = |name: &str| TextColumn::new(name, column(name)?);
        let times = column(&columns.time)?;
        let values = column(&columns.value)?;
        let partitions = column("_partition")?.as_primitive_opt::<Int32Type>().ok_or("its `_partition` is no int32")?;
        let offsets = column("_offset")?.as_primitive_opt::<Int64Type>().ok_or("its `_offset` is no int64")?;
        Ok(Self {
            key: columns.key.iter().map(|name| text(name)).collect::<Result<_, _>>()?,
            times: (milliseconds(&columns.time, times)?, times.clone()),
            values: (doubles(&columns.value, values)?, values.clone()),
            quality: columns.quality.as_deref().map(text).transpose()?,
            bad_quality: columns.bad_quality.clone(),
            sites: columns.site.as_deref().map(text).transpose()?,
            sequences: sequence.map_or(Ok(Vec::new()), |name| integers(name, column(name)?))?,
            marks: batch.column_by_name(MARKS).map_or(Ok(Vec::new()), |marks| booleans(MARKS, marks))?,
            partitions: partitions.values().to_vec(),
            offsets: offsets.values().to_vec(),
            timestamps: milliseconds("_timestamp", column("_timestamp")?)?,
            breaches: Vec::new(),
        })
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Where the sensor of a row stands; empty where the event does not say.
    pub(super) fn site(&self, row: usize) -> &str {
        self.sites.as_ref().and_then(|sites| sites.get(row)).unwrap_or_default()
    }

    /// The event of a row; its key goes into `key`. An accepted record has all of it.
    pub(super) fn event<'a>(&'a self, row: usize, key: &mut Vec<&'a str>) -> Result<ArchivedEvent, String> {
        key.clear();
        let offset = self.offsets[row];
        for column in &self.key {
            key.push(column.get(row).ok_or_else(|| format!("the key of offset {offset} is null"))?);
        }
        if self.times.1.is_null(row) || self.values.1.is_null(row) {
            return Err(format!("time or value of offset {offset} is null"));
        }
        let quality = self.quality.as_ref().and_then(|column| column.get(row));
        let value = self.values.0[row];
        if !value.is_finite() {
            return Err(format!("the value of offset {offset} is {value}"));
        }
        Ok(ArchivedEvent {
            offset,
            time_ms: self.times.0[row],
            value,
            is_bad: quality.is_some_and(|quality| quality == self.bad_quality),
            sequence: self.sequences.get(row).copied().unwrap_or_default(),
            is_marked: self.marks.get(row).copied().unwrap_or_default(),
        })
    }
}

/// Strings, plain or by dictionary.
#[derive(Debug)]
pub(super) struct TextColumn {
    /// For the nulls.
    array: ArrayRef,
    /// Index into `texts` by row; `None` if each row has its own.
    keys: Option<Vec<usize>>,
    texts: StringArray,
}

impl TextColumn {
    pub(super) fn new(name: &str, array: &ArrayRef) -> Result<Self, String> {
        let wrong = || format!("its column `{name}` is of type {}, not text", array.data_type());
        if let Some(dictionary) = array.as_any_dictionary_opt() {
            let texts = dictionary.values().as_string_opt::<i32>().ok_or_else(wrong)?.clone();
            let keys = if texts.is_empty() { vec![0; array.len()] } else { dictionary.normalized_keys() };
            return Ok(Self { array: array.clone(), keys: Some(keys), texts });
        }
        let texts = array.as_string_opt::<i32>().ok_or_else(wrong)?.clone();
        Ok(Self { array: array.clone(), keys: None, texts })
    }

    pub(super) fn get(&self, row: usize) -> Option<&str> {
        if self.array.is_null(row) {
            return None;
        }
        let index = self.keys.as_ref().map_or(row, |keys| keys[row]);
        (index < self.texts.len() && !self.texts.is_null(index)).then(|| self.texts.value(index))
    }
}

/// Times in milliseconds, rounded down; a plain number counts as milliseconds.
fn milliseconds(name: &str, array: &ArrayRef) -> Result<Vec<i64>, String> {
    if let Some(times) = array.as_primitive_opt::<TimestampMillisecondType>() {
        return Ok(times.values().to_vec());
    }
    if let Some(times) = array.as_primitive_opt::<TimestampMicrosecondType>() {
        return Ok(times.values().iter().map(|time| time.div_euclid(1_000)).collect());
    }
    if let Some(times) = array.as_primitive_opt::<TimestampNanosecondType>() {
        return Ok(times.values().iter().map(|time| time.div_euclid(1_000_000)).collect());
    }
    let times = array.as_primitive_opt::<Int64Type>();
    Ok(times.ok_or_else(|| format!("its column `{name}` is of type {}, no time", array.data_type()))?.values().to_vec())
}

/// Zero for nulls.
fn integers(name: &str, array: &ArrayRef) -> Result<Vec<i64>, String> {
    if let Some(numbers) = array.as_primitive_opt::<Int64Type>() {
        return Ok(numbers.iter().map(Option::unwrap_or_default).collect());
    }
    let numbers = array.as_primitive_opt::<Int32Type>();
    let numbers = numbers.ok_or_else(|| format!("its column `{name}` is of type {}, no integer", array.data_type()))?;
    Ok(numbers.iter().map(|number| number.map_or(0, i64::from)).collect())
}

fn booleans(name: &str, array: &ArrayRef) -> Result<Vec<bool>, String> {
    let booleans = array.as_boolean_opt();
    let booleans =
        booleans.ok_or_else(|| format!("its column `{name}` is of type {}, no boolean", array.data_type()))?;
    Ok(booleans.iter().map(Option::unwrap_or_default).collect())
}

pub(super) fn doubles(name: &str, array: &ArrayRef) -> Result<Vec<f64>, String> {
    Ok(match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().values().to_vec(),
        DataType::Float32 => {
            array.as_primitive::<Float32Type>().values().iter().map(|value| f64::from(*value)).collect()
        }
        DataType::Int64 => array.as_primitive::<Int64Type>().values().iter().map(|value| *value as f64).collect(),
        DataType::Int32 => array.as_primitive::<Int32Type>().values().iter().map(|value| f64::from(*value)).collect(),
        other => return Err(format!("its column `{name}` is of type {other}, no number")),
    })
}
