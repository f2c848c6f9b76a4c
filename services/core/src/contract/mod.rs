//! Validity: what a decoded record must satisfy to count as an event.
//!
//! Event times are judged against the Kafka timestamp of the same record, never against a clock: the verdict on a
//! record is the same today and in a replay next year. So one broken sensor clock can neither create endless windows
//! nor drag the watermark.

pub mod judge;
pub mod rules;

use arrow_schema::DataType;

use crate::decode::{Column, Columns, ReaderSchema};
use crate::reject::{Reason, Reject};

/// Which fields of the reader schema make an event. The names come from `[event]` in the configuration.
#[derive(Debug, Clone)]
pub struct EventFields {
    /// Columns of the series key, with their names for messages.
    key: Vec<(usize, String)>,
    time: (usize, String),
    value: (usize, String),
    /// Column of the quality, and the symbol that counts as bad.
    quality: Option<(usize, String)>,
    /// Column that says where a sensor stands.
    site: Option<usize>,
    /// Column that numbers a sensor's readings.
    sequence: Option<(usize, String)>,
}

/// Bounds on event times, from `[limits]`.
#[derive(Debug, Clone)]
pub struct TimeLimits {
    /// How much older than the record timestamp an event may be, in milliseconds.
    pub max_event_age_ms: i64,
    /// How far ahead of the record timestamp an event may be, in milliseconds.
    pub max_future_skew_ms: i64,
}

/// A configured field that the reader schema does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event.{setting} names the field `{field}`, which the reader schema does not have")]
pub struct NoSuchField {
    /// Setting in `[event]`.
    pub setting: &'static str,
    /// The name that was looked for.
    pub field: String,
}

/// What the windows need of a valid record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValidEvent {
    /// Event time, milliseconds since the epoch.
    pub time_ms: i64,
    /// The measured value: finite.
    pub value: f64,
    /// Whether the quality is the configured bad one.
    pub bad_quality: bool,
    /// The sensor's number for it, from 1 on; 0 if it has none.
    pub sequence: i64,
}

impl EventFields {
    /// Finds the configured fields in the reader schema.
    pub fn bind(
        reader: &ReaderSchema,
        key: &[String],
        time: &str,
        value: &str,
        quality: Option<(&str, &str)>,
    ) -> Result<Self, NoSuchField> {
        let find = |setting, field: &str| {
            let index = reader.index_of(field);
            index.map(|index| (index, field.to_owned())).ok_or(NoSuchField { setting, field: field.to_owned() })
        };
        let quality = match quality {
            Some((field, bad)) => Some((find("quality", field)?.0, bad.to_owned())),
            None => None,
        };
        Ok(Self {
            key: key.iter().map(|field| find("key", field)).collect::<Result<_, _>>()?,
            time: find("time", time)?,
            value: find("value", value)?,
            quality,
            site: None,
            sequence: None,
        })
    }

    /// The same fields, and the one that says where a sensor stands.
    pub fn with_site(mut self, reader: &ReaderSchema, field: Option<&str>) -> Result<Self, NoSuchField> {
        let find = |field: &str| reader.index_of(field).ok_or(NoSuchField { setting: "site", field: field.to_owned() });
        self.site = field.map(find).transpose()?;
        Ok(self)
    }

    /// The same fields, and the one that numbers a sensor's readings.
    pub fn with_sequence(mut self, reader: &ReaderSchema, field: Option<&str>) -> Result<Self, NoSuchField> {
        let find = |field: &str| {
            let column = reader.index_of(field).ok_or(NoSuchField { setting: "sequence", field: field.to_owned() })?;
            Ok((column, field.to_owned()))
        };
        self.sequence = field.map(find).transpose()?;
        Ok(self)
    }

    /// The same parts, played by the fields of another version of the reader schema.
    pub fn in_version(&self, reader: &ReaderSchema, other: &ReaderSchema) -> Result<Self, NoSuchField> {
        let find = |setting, (column, field): &(usize, String)| -> Result<(usize, String), NoSuchField> {
            let found =
                reader.counterpart(*column, other).ok_or_else(|| NoSuchField { setting, field: field.clone() })?;
            Ok((found, other.arrow_fields()[found].name().clone()))
        };
        let quality = self.quality.as_ref();
        Ok(Self {
            key: self.key.iter().map(|key| find("key", key)).collect::<Result<_, _>>()?,
            time: find("time", &self.time)?,
            value: find("value", &self.value)?,
            // A version without them made its events without them.
            quality: quality.and_then(|(column, bad)| Some((reader.counterpart(*column, other)?, bad.clone()))),
            site: self.site.and_then(|column| reader.counterpart(column, other)),
            sequence: self.sequence.as_ref().and_then(|sequence| find("sequence", sequence).ok()),
        })
    }

    /// Column that says where a sensor stands.
    pub fn site_column(&self) -> Option<usize> {
        self.site
    }

    /// The field that numbers a sensor's readings.
    pub fn sequence_field(&self) -> Option<&str> {
        self.sequence.as_ref().map(|(_, field)| field.as_str())
    }

    /// Column of the event time.
    pub fn time_column(&self) -> usize {
        self.time.0
    }

    /// Columns of the series key, in order.
    pub fn key_columns(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.key.iter().map(|(column, _)| *column)
    }

    /// Judges the record decoded into `row` of `columns`.
    #[expect(
        clippy::inline_always,
        reason = "a result of this size, handed over in memory, costs more than the checks"
    )]
    #[inline(always)]
    pub fn check(
        &self,
        columns: &Columns,
        row: usize,
        record_timestamp_ms: i64,
        limits: &TimeLimits,
    ) -> Result<ValidEvent, Reject> {
        for (column, name) in &self.key {
            if columns.column(*column).symbol_at(row).is_none() && is_missing(columns.column(*column), row) {
                return Err(missing("key", name));
            }
        }
        let Some(time_ms) = columns.column(self.time.0).time_millis_at(row) else {
            return Err(missing("time", &self.time.1));
        };
        let Some(value) = columns.column(self.value.0).double_at(row) else {
            return Err(missing("value", &self.value.1));
        };
        if !value.is_finite() {
            return Err(self.not_finite(value));
        }
        let ahead_ms = time_ms.saturating_sub(record_timestamp_ms);
        if ahead_ms > limits.max_future_skew_ms || ahead_ms < -limits.max_event_age_ms {
            return Err(self.bad_time(ahead_ms, record_timestamp_ms, limits));
        }
        let bad_quality = self
            .quality
            .as_ref()
            .is_some_and(|(column, bad)| columns.column(*column).str_at(row).is_some_and(|quality| quality == bad));
        let number = self.sequence.as_ref().and_then(|(column, _)| columns.column(*column).long_at(row));
        Ok(ValidEvent { time_ms, value, bad_quality, sequence: number.unwrap_or_default().max(0) })
    }

    #[cold]
    fn not_finite(&self, value: f64) -> Reject {
        let detail = format!("field `{}` is {value}; a measurement must be a finite number", self.value.1);
        Reject::new(Reason::NonFiniteValue, detail)
    }

    /// For an event time outside of the limits.
    #[cold]
    fn bad_time(&self, ahead_ms: i64, record_timestamp_ms: i64, limits: &TimeLimits) -> Reject {
        let field = &self.time.1;
        if ahead_ms > 0 {
            let detail = format!(
                "field `{field}` is {ahead_ms} ms ahead of the record timestamp {record_timestamp_ms}; at most {} ms are \
                 allowed (limits.max_future_skew)",
                limits.max_future_skew_ms
            );
            return Reject::new(Reason::EventTimeInFuture, detail);
        }
        let detail = format!(
            "field `{field}` is {} ms older than the record timestamp {record_timestamp_ms}; at most {} ms are allowed \
             (limits.max_event_age)",
            ahead_ms.saturating_neg(),
            limits.max_event_age_ms
        );
        Reject::new(Reason::EventTimeTooOld, detail)
    }
}

/// Whether a field holds text: a string or an enum.
pub fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 => true,
        DataType::Dictionary(_, values) => **values == DataType::Utf8,
        _ => false,
    }
}

/// Whether a field holds a number: an int, long, float or double.
pub fn is_number(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int32 | DataType::Int64 | DataType::Float32 | DataType::Float64)
}

fn is_missing(column: &Column, row: usize) -> bool {
    column.str_at(row).is_none()
}

/// A field that the pipeline cannot do without, null in this record.
#[cold]
fn missing(rule: &str, field: &str) -> Reject {
    let detail = format!("field `{field}` is null, but event.{rule} needs it");
    Reject::new(Reason::contract(&format!("{rule}_missing")), detail)
}
