//! Counting rows of a column by what they hold: one look at its type, then a plain loop over its values.

use std::ops::Range;

use super::column::{Column, Data};

impl Column {
    /// How many of these rows hold a number that is not from `min` to `max`; nulls do not count, NaN does.
    pub fn count_outside(&self, rows: Range<usize>, min: f64, max: f64) -> u64 {
        match &self.data {
            Data::Double(values) => self.count_where(values, rows, |value| !(value >= min && value <= max)),
            Data::Float(values) => self.count_where(values, rows, |value| {
                let value = f64::from(value);
                !(value >= min && value <= max)
            }),
            // Converting a bound saturates, and so does what it is compared with.
            Data::Long(values) => {
                let (min, max) = (min.ceil() as i64, max.floor() as i64);
                self.count_where(values, rows, |value| value < min || value > max)
            }
            Data::Int(values) => {
                let (min, max) = (min.ceil() as i64, max.floor() as i64);
                self.count_where(values, rows, |value| i64::from(value) < min || i64::from(value) > max)
            }
            _ => 0,
        }
    }

    /// Adds up what `weights` says of these rows' symbols, and 1 for each null if `with_nulls`; `None` for a column without
    /// symbols, and where a symbol has no weight.
    pub fn count_symbols(&self, rows: Range<usize>, weights: &[u8], with_nulls: bool) -> Option<u64> {
        let (Data::Dictionary { keys, .. } | Data::Symbols { keys, .. }) = &self.data else { return None };
        if weights.len() < self.symbol_count() || weights.is_empty() {
            return None;
        }
        let keys = keys.get(rows.clone()).unwrap_or_default();
        // Of a null the key is no symbol's.
        let weight = |key: &i32| weights.get(*key as usize).copied().unwrap_or_default();
        let Some(validity) = &self.validity else {
            return Some(keys.iter().map(|key| u64::from(weight(key))).sum());
        };
        let validity = validity.get(rows).unwrap_or_default();
        let of_null = u8::from(with_nulls);
        let of_row = |(key, is_valid): (&i32, &bool)| u64::from(if *is_valid { weight(key) } else { of_null });
        Some(keys.iter().zip(validity).map(of_row).sum())
    }

    fn count_where<T: Copy>(&self, values: &[T], rows: Range<usize>, is_wanted: impl Fn(T) -> bool) -> u64 {
        let values = values.get(rows.clone()).unwrap_or_default();
        let Some(validity) = &self.validity else {
            return values.iter().map(|value| u64::from(is_wanted(*value))).sum();
        };
        let validity = validity.get(rows).unwrap_or_default();
        values.iter().zip(validity).map(|(value, is_valid)| u64::from(*is_valid & is_wanted(*value))).sum()
    }
}
