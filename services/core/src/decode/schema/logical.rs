//! Logical types (specification 1.12, "Logical Types").

use std::fmt;

use serde_json::{Map, Value};

use super::Kind;

/// A logical type that is valid on its underlying type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Logical {
    /// On `bytes` or `fixed`: an unscaled two's-complement integer, big endian.
    Decimal { precision: u8, scale: i8 },
    /// On `string`, or on `fixed` of 16 bytes.
    Uuid,
    /// On `int`: days since the epoch.
    Date,
    /// On `int`: milliseconds after midnight.
    TimeMillis,
    /// On `long`: microseconds after midnight.
    TimeMicros,
    /// On `long`: ticks since the epoch, an instant.
    Timestamp(Ticks),
    /// On `long`: ticks since the epoch of a clock on the wall, in no zone.
    LocalTimestamp(Ticks),
    /// On `fixed` of 12 bytes: months, days, milliseconds, each 32 bits little endian.
    Duration,
}

/// Unit of a timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Ticks {
    Millis,
    Micros,
    Nanos,
}

/// Digits of the largest decimal that Arrow has. One with more is read as its underlying type.
const MOST_DIGITS: u64 = 76;

impl Logical {
    /// The logical type that `attributes` declare on `kind`.
    ///
    /// `None` if there is none, or if it is unknown or invalid: "language implementations must ignore unknown logical
    /// types when reading, and should use the underlying Avro type".
    pub(super) fn of(kind: &Kind, attributes: &Map<String, Value>) -> Option<Self> {
        let name = attributes.get("logicalType")?.as_str()?;
        match (name, kind) {
            ("decimal", Kind::Bytes) => decimal(attributes, u64::MAX),
            ("decimal", Kind::Fixed { size, .. }) => decimal(attributes, digits_of_bytes(*size)),
            ("uuid", Kind::String | Kind::Fixed { size: 16, .. }) => Some(Self::Uuid),
            ("date", Kind::Int) => Some(Self::Date),
            ("time-millis", Kind::Int) => Some(Self::TimeMillis),
            ("time-micros", Kind::Long) => Some(Self::TimeMicros),
            ("timestamp-millis", Kind::Long) => Some(Self::Timestamp(Ticks::Millis)),
            ("timestamp-micros", Kind::Long) => Some(Self::Timestamp(Ticks::Micros)),
            ("timestamp-nanos", Kind::Long) => Some(Self::Timestamp(Ticks::Nanos)),
            ("local-timestamp-millis", Kind::Long) => Some(Self::LocalTimestamp(Ticks::Millis)),
            ("local-timestamp-micros", Kind::Long) => Some(Self::LocalTimestamp(Ticks::Micros)),
            ("local-timestamp-nanos", Kind::Long) => Some(Self::LocalTimestamp(Ticks::Nanos)),
            ("duration", Kind::Fixed { size: 12, .. }) => Some(Self::Duration),
            _ => None,
        }
    }
}

impl fmt::Display for Logical {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ticks = |ticks: &Ticks| match ticks {
            Ticks::Millis => "millis",
            Ticks::Micros => "micros",
            Ticks::Nanos => "nanos",
        };
        match self {
            Self::Decimal { precision, scale } => write!(formatter, "decimal({precision},{scale})"),
            Self::Uuid => formatter.write_str("uuid"),
            Self::Date => formatter.write_str("date"),
            Self::TimeMillis => formatter.write_str("time-millis"),
            Self::TimeMicros => formatter.write_str("time-micros"),
            Self::Timestamp(unit) => write!(formatter, "timestamp-{}", ticks(unit)),
            Self::LocalTimestamp(unit) => write!(formatter, "local-timestamp-{}", ticks(unit)),
            Self::Duration => formatter.write_str("duration"),
        }
    }
}

fn decimal(attributes: &Map<String, Value>, most_digits: u64) -> Option<Logical> {
    let precision = attributes.get("precision")?.as_u64()?;
    let scale = match attributes.get("scale") {
        Some(scale) => scale.as_u64()?,
        None => 0,
    };
    if precision == 0 || precision > most_digits.min(MOST_DIGITS) || scale > precision {
        return None;
    }
    Some(Logical::Decimal { precision: u8::try_from(precision).ok()?, scale: i8::try_from(scale).ok()? })
}

/// `floor(log10(2^(8 * size - 1) - 1))`: the digits that always fit in a fixed of that size.
fn digits_of_bytes(size: usize) -> u64 {
    let bits = (size as u64).saturating_mul(8).saturating_sub(1);
    // log10(2) to 18 digits; exact for every size that MOST_DIGITS lets through.
    (u128::from(bits) * 301_029_995_663_981_195 / 1_000_000_000_000_000_000) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_sizes_hold_as_many_digits_as_the_specification_says() {
        let digits: Vec<_> = [0, 1, 2, 4, 8, 16, 32].into_iter().map(digits_of_bytes).collect();
        assert_eq!(digits, [0, 2, 4, 9, 18, 38, 76]);
    }
}
