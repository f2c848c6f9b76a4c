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

    fn count_where<T: Copy>(&self, values: &[T], rows: Range<usize>, is_wanted: impl Fn(T) -> bool) -> u64 {
        let values = values.get(rows.clone()).unwrap_or_default();
        let Some(validity) = &self.validity else {
            return values.iter().map(|value| u64::from(is_wanted(*value))).sum();
        };
        let validity = validity.get(rows).unwrap_or_default();
        values.iter().zip(validity).map(|(value, is_valid)| u64::from(*is_valid & is_wanted(*value))).sum()
    }
}
