//! Numbers in seven bits a byte, the low ones first: how RowBinary, Parquet and Avro write lengths.

/// Appends an unsigned number.
pub(crate) fn push(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

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
