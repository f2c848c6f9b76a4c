//! One column under construction, and how its rows are read back before they become Arrow arrays.

use arrow_buffer::i256;
use arrow_schema::DataType;

use super::dictionary::Dictionary;
use crate::decode::schema::Ticks;

/// One column of the rows decoded so far.
///
/// Reading is for the hot path of the windows: a match and an index, no allocation. Whatever does not fit (another
/// type, a null, a row that is not there) reads as `None`.
#[derive(Debug, Clone)]
pub struct Column {
    pub(in crate::decode) data: Data,
    /// One flag a row where nulls are possible; packed into bits only when the rows are handed out.
    pub(super) validity: Option<Vec<bool>>,
    pub(super) data_type: DataType,
    /// Unit of a timestamp; milliseconds for a plain long.
    pub(super) ticks: Ticks,
}

/// The values of a column, one variant for each way to store them.
#[derive(Debug, Clone)]
pub(in crate::decode) enum Data {
    /// Rows of the null type: nothing but their number.
    Null(usize),
    Boolean(Vec<bool>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Decimal128(Vec<i128>),
    Decimal256(Vec<i256>),
    Fixed {
        size: usize,
        bytes: Vec<u8>,
    },
    Binary {
        offsets: Vec<i32>,
        bytes: Vec<u8>,
    },
    Utf8 {
        offsets: Vec<i32>,
        text: String,
    },
    /// Strings that repeat.
    Dictionary {
        keys: Vec<i32>,
        dictionary: Box<Dictionary>,
    },
    /// Symbols of the reader's enum.
    Symbols {
        keys: Vec<i32>,
        symbols: std::sync::Arc<[String]>,
    },
    /// A record, or a union of several types with one member for each, exactly one of them set.
    Struct {
        rows: usize,
        children: Vec<Column>,
    },
    List {
        offsets: Vec<i32>,
        items: Box<Column>,
    },
    Map {
        offsets: Vec<i32>,
        keys: Box<Column>,
        values: Box<Column>,
    },
}

impl Column {
    /// The Arrow type that [`super::Columns::take`] gives it.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether rows may be null.
    pub fn is_nullable(&self) -> bool {
        self.validity.is_some() || matches!(self.data, Data::Null(_))
    }

    /// Whether the row is null, or not there.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match (&self.validity, &self.data) {
            (_, Data::Null(_)) => true,
            (Some(validity), _) => !validity.get(row).copied().unwrap_or(false),
            (None, _) => row >= self.rows(),
        }
    }

    #[inline]
    fn is_hidden(&self, row: usize) -> bool {
        self.validity.as_ref().is_some_and(|validity| !validity.get(row).copied().unwrap_or(false))
    }

    /// A boolean.
    #[inline]
    pub fn boolean_at(&self, row: usize) -> Option<bool> {
        match &self.data {
            Data::Boolean(values) if !self.is_hidden(row) => values.get(row).copied(),
            _ => None,
        }
    }

    /// An int or long, whatever its logical type.
    #[inline]
    pub fn long_at(&self, row: usize) -> Option<i64> {
        if self.is_hidden(row) {
            return None;
        }
        match &self.data {
            Data::Long(values) => values.get(row).copied(),
            Data::Int(values) => values.get(row).map(|value| i64::from(*value)),
            _ => None,
        }
    }

    /// An int, long, float or double. A long beyond 2^53 is rounded.
    #[inline]
    pub fn double_at(&self, row: usize) -> Option<f64> {
        if self.is_hidden(row) {
            return None;
        }
        match &self.data {
            Data::Double(values) => values.get(row).copied(),
            Data::Float(values) => values.get(row).map(|value| f64::from(*value)),
            Data::Long(values) => values.get(row).map(|value| *value as f64),
            Data::Int(values) => values.get(row).map(|value| f64::from(*value)),
            _ => None,
        }
    }

    /// A point in time in milliseconds since the epoch, rounded down: timestamps and local timestamps of any unit, and
    /// a plain long, which is taken as milliseconds.
    #[inline]
    pub fn time_millis_at(&self, row: usize) -> Option<i64> {
        let Data::Long(values) = &self.data else {
            return None;
        };
        if self.is_hidden(row) {
            return None;
        }
        let ticks = *values.get(row)?;
        Some(match self.ticks {
            Ticks::Millis => ticks,
            Ticks::Micros => ticks.div_euclid(1_000),
            Ticks::Nanos => ticks.div_euclid(1_000_000),
        })
    }

    /// Text: a string, a uuid, or the symbol of an enum.
    #[inline]
    pub fn str_at(&self, row: usize) -> Option<&str> {
        if self.is_hidden(row) {
            return None;
        }
        match &self.data {
            Data::Dictionary { keys, dictionary } => dictionary.get(*keys.get(row)? as usize),
            Data::Symbols { keys, symbols } => symbols.get(*keys.get(row)? as usize).map(String::as_str),
            Data::Utf8 { offsets, text } => text.get(span(offsets, row)?),
            _ => None,
        }
    }

    /// How many bytes the text of the row has, without a look at it.
    #[inline]
    pub fn text_bytes_at(&self, row: usize) -> Option<usize> {
        if self.is_hidden(row) {
            return None;
        }
        match &self.data {
            Data::Dictionary { keys, dictionary } => dictionary.bytes_of(*keys.get(row)? as usize),
            Data::Symbols { keys, symbols } => symbols.get(*keys.get(row)? as usize).map(String::len),
            Data::Utf8 { offsets, .. } => span(offsets, row).map(|span| span.len()),
            _ => None,
        }
    }

    /// Whether the text of the row is `text`; the cheapest way to ask right after the row was decoded.
    #[inline]
    pub fn is_text(&self, row: usize, text: &[u8]) -> bool {
        match &self.data {
            Data::Dictionary { keys, dictionary } if !self.is_hidden(row) => {
                keys.get(row).is_some_and(|key| dictionary.is_text(*key as usize, text))
            }
            _ => self.str_at(row).is_some_and(|found| found.as_bytes() == text),
        }
    }

    /// Begins to load what decoding `text` into this column will look at.
    #[inline]
    pub fn prefetch_text(&self, text: &[u8]) {
        if let Data::Dictionary { dictionary, .. } = &self.data {
            dictionary.prefetch(text);
        }
    }

    /// See [`super::Columns::with_hash_seed`].
    pub(super) fn set_hash_seed(&mut self, seed: u64) {
        if let Data::Dictionary { dictionary, .. } = &mut self.data {
            dictionary.seed(seed);
        }
    }

    /// The bytes of a string, bytes, fixed, uuid, or the symbol of an enum.
    #[inline]
    pub fn bytes_at(&self, row: usize) -> Option<&[u8]> {
        match &self.data {
            Data::Binary { offsets, bytes } if !self.is_hidden(row) => bytes.get(span(offsets, row)?),
            Data::Fixed { size, bytes } if !self.is_hidden(row) => bytes.get(row * size..(row + 1) * size),
            _ => self.str_at(row).map(str::as_bytes),
        }
    }

    /// A small number that stands for the text of the row: the index of an enum symbol in the reader's schema, or the
    /// dictionary key of a string, good for as long as [`Self::dictionary_generation`] stays the same.
    #[inline]
    pub fn symbol_at(&self, row: usize) -> Option<u32> {
        match &self.data {
            Data::Dictionary { keys, .. } | Data::Symbols { keys, .. } if !self.is_hidden(row) => {
                keys.get(row).map(|key| *key as u32)
            }
            _ => None,
        }
    }

    /// How many symbols there are; all numbers below it have a name.
    #[inline]
    pub fn symbol_count(&self) -> usize {
        match &self.data {
            Data::Dictionary { dictionary, .. } => dictionary.len(),
            Data::Symbols { symbols, .. } => symbols.len(),
            _ => 0,
        }
    }

    /// The text that a symbol stands for; empty for a number that is no symbol.
    #[inline]
    pub fn symbol_name(&self, symbol: u32) -> &str {
        match &self.data {
            Data::Dictionary { dictionary, .. } => dictionary.get(symbol as usize).unwrap_or_default(),
            Data::Symbols { symbols, .. } => symbols.get(symbol as usize).map(String::as_str).unwrap_or_default(),
            _ => "",
        }
    }

    /// Counts how often the numbers of [`Self::symbol_at`] started afresh. It only changes in
    /// [`super::Columns::take`], and never for an enum.
    #[inline]
    pub fn dictionary_generation(&self) -> u64 {
        match &self.data {
            Data::Dictionary { dictionary, .. } => dictionary.generation(),
            _ => 0,
        }
    }

    /// Whether it keeps each string once.
    pub(in crate::decode) fn is_dictionary(&self) -> bool {
        matches!(self.data, Data::Dictionary { .. })
    }

    /// The members of a record or union; empty for anything else.
    pub(in crate::decode) fn children(&self) -> &[Self] {
        match &self.data {
            Data::Struct { children, .. } => children,
            _ => &[],
        }
    }

    /// The member of that index; the column itself where it has no such member.
    pub(in crate::decode) fn child(&self, index: usize) -> &Self {
        self.children().get(index).unwrap_or(self)
    }

    /// The items of an array or the values of a map; the column itself where it has none.
    pub(in crate::decode) fn items(&self) -> &Self {
        match &self.data {
            Data::List { items, .. } => items,
            Data::Map { values, .. } => values,
            _ => self,
        }
    }

    /// Rows appended, committed or not.
    pub(in crate::decode) fn rows(&self) -> usize {
        match &self.data {
            Data::Null(rows) | Data::Struct { rows, .. } => *rows,
            Data::Boolean(values) => values.len(),
            Data::Int(values) => values.len(),
            Data::Long(values) => values.len(),
            Data::Float(values) => values.len(),
            Data::Double(values) => values.len(),
            Data::Decimal128(values) => values.len(),
            Data::Decimal256(values) => values.len(),
            Data::Fixed { size, bytes } => bytes.len() / size,
            Data::Dictionary { keys, .. } | Data::Symbols { keys, .. } => keys.len(),
            Data::Binary { offsets, .. }
            | Data::Utf8 { offsets, .. }
            | Data::List { offsets, .. }
            | Data::Map { offsets, .. } => offsets.len() - 1,
        }
    }
}

/// Where a row lies in what the offsets count.
#[inline]
fn span(offsets: &[i32], row: usize) -> Option<std::ops::Range<usize>> {
    Some(*offsets.get(row)? as usize..*offsets.get(row + 1)? as usize)
}
