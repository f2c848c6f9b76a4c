//! Numbers in seven bits a byte, the low ones first: how RowBinary, Parquet and Avro write lengths.

/// Appends an unsigned number.
pub(crate) fn push(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes an unsigned number off the front. None if it does not end, or is too large.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7F);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_and_what_is_none_is_refused() {
        for number in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            push(&mut out, number);
            out.push(9);
            let mut rest = out.as_slice();
            assert_eq!((take(&mut rest), rest), (Some(number), [9].as_slice()));
        }
        for bytes in [
            [].as_slice(),
            &[0x80],
            &[0xFF; 9],
            &[0xFF; 11],
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2],
        ] {
            assert_eq!(take(&mut &*bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn seven_bits_a_byte_the_low_ones_first() {
        let mut out = Vec::new();
        for number in [0, 127, 128, 300, u64::MAX] {
            push(&mut out, number);
        }
        assert_eq!(out[..6], [0, 127, 0x80, 1, 0xAC, 2]);
        assert_eq!(out[6..], [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]);
    }
}
