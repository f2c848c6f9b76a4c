//! Decimals: two's-complement integers, big endian (specification 1.12, "Decimal").

use std::fmt::Write;

use arrow_buffer::i256;

use super::cursor::Cursor;
use super::fault::{Outcome, fault};
use crate::reject::Reason;

/// Reads the unscaled integer of a decimal of at most `digits` digits: a fixed of `size` bytes, or bytes.
///
/// A number with more digits than the schema promises is refused: Parquet would silently cut it.
pub(super) fn read(cursor: &mut Cursor<'_>, size: Option<usize>, digits: u8) -> Outcome<i256> {
    let at = cursor.position();
    let bytes = match size {
        Some(size) => cursor.take(size)?,
        None => cursor.bytes()?,
    };
    match integer(bytes) {
        Some(value) if fits(value, digits) => Ok(value),
        Some(_) => fault(Reason::InvalidLength, format!("the decimal at byte {at} has more than {digits} digits")),
        None => {
            let length = bytes.len();
            fault(
                Reason::InvalidLength,
                format!("the {length} bytes of the decimal at byte {at} are no number of {digits} digits"),
            )
        }
    }
}

/// The number of those bytes; `None` for no bytes, or if it needs more than 256 bits.
fn integer(bytes: &[u8]) -> Option<i256> {
    let sign = if bytes.first()? & 0x80 == 0 { 0x00 } else { 0xff };
    let mut widened = [sign; 32];
    let (surplus, low) = bytes.split_at(bytes.len().saturating_sub(32));
    widened[32 - low.len()..].copy_from_slice(low);
    let same_sign = (widened[0] ^ sign) & 0x80 == 0;
    (same_sign && surplus.iter().all(|byte| *byte == sign)).then(|| i256::from_be_bytes(widened))
}

fn fits(value: i256, digits: u8) -> bool {
    let Some(bound) = i256::from_i128(10).checked_pow(u32::from(digits)) else {
        return true;
    };
    value < bound && value.checked_neg().is_some_and(|negated| negated < bound)
}

/// Appends the number in plain notation, as in `-0.05`.
pub(super) fn write(text: &mut Vec<u8>, value: i256, scale: i8) {
    let mut digits = String::new();
    let negative = value < i256::ZERO;
    let magnitude = value.checked_abs().unwrap_or(i256::MAX);
    let scale = scale.max(0) as usize;
    // Writing to a string cannot fail. At least one digit stays in front of the point.
    let _ = write!(digits, "{magnitude}");
    let padding = (scale + 1).saturating_sub(digits.len());
    let point = digits.len() + padding - scale;
    if negative {
        text.push(b'-');
    }
    for (index, digit) in std::iter::repeat_n(b'0', padding).chain(digits.bytes()).enumerate() {
        if index == point {
            text.push(b'.');
        }
        text.push(digit);
    }
}

/// The bytes of a number in plain notation, as few as it takes; `None` if it is none with so many digits.
pub(super) fn parse(text: &str, digits: u8, scale: i8) -> Option<Vec<u8>> {
    let scale = scale.max(0) as usize;
    let (sign, magnitude) = text.strip_prefix('-').map_or(("", text), |magnitude| ("-", magnitude));
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_number(whole) || !is_number(fraction) || fraction.len() > scale {
        return None;
    }
    let value = i256::from_string(&format!("{sign}{whole}{fraction:0<scale$}")).filter(|value| fits(*value, digits))?;
    let bytes = value.to_be_bytes();
    let fill = if value < i256::ZERO { 0xff } else { 0x00 };
    let surplus = bytes.windows(2).take_while(|pair| pair[0] == fill && (pair[0] ^ pair[1]) & 0x80 == 0).count();
    Some(bytes[surplus..].to_vec())
}

/// The same number in so many bytes; `None` if it needs more.
pub(super) fn widen(number: &[u8], size: usize) -> Option<Vec<u8>> {
    let fill = if number.first()? & 0x80 == 0 { 0x00 } else { 0xff };
    let missing = size.checked_sub(number.len())?;
    Some([vec![fill; missing], number.to_vec()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_length_are_sign_extended() {
        let number = |bytes: &[u8]| integer(bytes).and_then(i256::to_i128);
        assert_eq!(number(&[]), None);
        assert_eq!(number(&[0x7f]), Some(127));
        assert_eq!(number(&[0xff]), Some(-1));
        assert_eq!(number(&[0x00, 0x80]), Some(128));
        assert_eq!(number(&[0xff; 40]), Some(-1));
        let mut too_wide = [0; 33];
        too_wide[0] = 1;
        assert_eq!(integer(&too_wide), None);
        let mut sign_lost = [0; 33];
        sign_lost[1] = 0x80;
        assert_eq!(integer(&sign_lost), None);
    }

    #[test]
    fn digits_are_counted_exactly() {
        for (value, digits, expected) in
            [(99, 2, true), (100, 2, false), (-99, 2, true), (-100, 2, false), (0, 1, true)]
        {
            assert_eq!(fits(i256::from_i128(value), digits), expected, "{value}");
        }
        assert!(!fits(i256::MIN, 76));
    }

    #[test]
    fn plain_notation() {
        let written = |value, scale| {
            let mut text = Vec::new();
            write(&mut text, i256::from_i128(value), scale);
            String::from_utf8(text).unwrap_or_default()
        };
        assert_eq!(written(1234, 2), "12.34");
        assert_eq!(written(-5, 2), "-0.05");
        assert_eq!(written(0, 0), "0");
        assert_eq!(written(100, 3), "0.100");
        assert_eq!(written(-7, 0), "-7");
    }
}
