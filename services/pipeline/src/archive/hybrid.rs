//! Parquet's hybrid of run lengths and bit packing, for definition levels and dictionary indices (parquet-format,
//! `Encodings.md`, "Run Length Encoding / Bit-Packing Hybrid").

use crate::leb128;

/// Literals come in groups of so many; a run must fill a group to be worth its header.
const GROUP: usize = 8;

/// Bits that hold every number below `count`, at least one: some readers take a width of zero amiss.
pub(super) fn width_for(count: usize) -> u8 {
    (usize::BITS - count.saturating_sub(1).leading_zeros()).max(1) as u8
}

/// Appends `values`, each of which fits in `width` bits (1 to 32).
pub(super) fn encode(values: &[u32], width: u8, out: &mut Vec<u8>) {
    let mut literals_from = 0;
    let mut at = 0;
    while let Some(value) = values.get(at) {
        let run = values[at..].iter().take_while(|other| *other == value).count();
        // Literals are padded only at the very end: elsewhere the run lends what their last group lacks.
        let lent = (at - literals_from).next_multiple_of(GROUP) - (at - literals_from);
        at += run;
        if run >= lent + GROUP {
            push_literals(&values[literals_from..at - run + lent], width, out);
            push_run(*value, run - lent, width, out);
            literals_from = at;
        }
    }
    push_literals(&values[literals_from..], width, out);
}

/// Appends what `push` does, with its length in front: so pages have their levels.
pub(super) fn push_with_length(out: &mut Vec<u8>, push: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    push(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// Appends one run.
pub(super) fn push_run(value: u32, length: usize, width: u8, out: &mut Vec<u8>) {
    leb128::push(out, (length as u64) << 1);
    out.extend_from_slice(&value.to_le_bytes()[..usize::from(width).div_ceil(8)]);
}

fn push_literals(values: &[u32], width: u8, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let groups = values.len().div_ceil(GROUP);
    leb128::push(out, (groups as u64) << 1 | 1);
    let end = out.len() + groups * usize::from(width);
    let (mut bits, mut count) = (0_u64, 0);
    for value in values {
        bits |= u64::from(*value) << count;
        count += u32::from(width);
        if count >= 32 {
            out.extend_from_slice(&(bits as u32).to_le_bytes());
            bits >>= 32;
            count -= 32;
        }
    }
    out.extend_from_slice(&bits.to_le_bytes()[..(count as usize).div_ceil(8)]);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the encoding back, after the specification and by another way than it was written: bit by bit.
    fn decode(mut bytes: &[u8], width: u8, count: usize) -> Vec<u32> {
        let mut values = Vec::new();
        while values.len() < count {
            let mut header = 0;
            for shift in (0..).step_by(7) {
                let (byte, rest) = bytes.split_first().unwrap();
                bytes = rest;
                header |= usize::from(byte & 0x7f) << shift;
                if *byte < 0x80 {
                    break;
                }
            }
            if header & 1 == 1 {
                let (packed, rest) = bytes.split_at((header >> 1) * usize::from(width));
                bytes = rest;
                let bit = |index: usize| u32::from(packed[index / 8] >> (index % 8) & 1);
                values.extend((0..(header >> 1) * 8).map(|index| {
                    (0..usize::from(width)).map(|place| bit(index * usize::from(width) + place) << place).sum::<u32>()
                }));
            } else {
                let (value, rest) = bytes.split_at(usize::from(width).div_ceil(8));
                bytes = rest;
                let mut four = [0; 4];
                four[..value.len()].copy_from_slice(value);
                values.extend(std::iter::repeat_n(u32::from_le_bytes(four), header >> 1));
            }
        }
        assert!(bytes.is_empty() && values[count..].iter().all(|padding| *padding == 0));
        values.truncate(count);
        values
    }

    #[test]
    fn what_is_written_is_read_back() {
        for width in 1..=32 {
            let mask = u32::MAX >> (32 - u32::from(width));
            for length in [0, 1, 7, 8, 9, 63, 64, 200] {
                // Runs of changing length between values in no order.
                let mut values = Vec::new();
                let mut state = 17_u32;
                while values.len() < length {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let run = if state >> 30 == 0 { state >> 26 } else { 1 };
                    values.extend(std::iter::repeat_n(state.rotate_left(7) & mask, run as usize));
                }
                values.truncate(length);
                let mut bytes = Vec::new();
                encode(&values, width, &mut bytes);
                assert_eq!(decode(&bytes, width, length), values, "{width} bits, {length} values");
            }
        }
    }

    #[test]
    fn one_value_throughout_costs_three_bytes() {
        let mut bytes = Vec::new();
        encode(&vec![1; 5_000], 1, &mut bytes);
        assert_eq!(bytes, [0x90, 0x4e, 1]);
        assert_eq!([0, 1, 2, 3, 256, 257].map(width_for), [1, 1, 1, 2, 8, 9]);
    }
}
