//! Reads the primitives of Avro's binary encoding from the body of one record.
//!
//! Every length is checked against the bytes that are left before anything is done with it. Positions in messages
//! count bytes from the start of the body, behind the framing.

use super::fault::{Outcome, fault};
use crate::reject::Reason;

/// Bytes of the longest varint of a 64-bit number.
const LONGEST_VARINT: usize = 10;

/// A position in one body. Moving it writes one word, so that what is read next never waits for a store of two.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    body: &'a [u8],
    /// Bytes read so far; never more than there are.
    at: usize,
}

/// The head of one block of array items or map entries.
pub(super) struct Block {
    /// Number of items, zero at the end of the collection.
    pub(super) count: usize,
    /// Bytes that must be left behind the block, where the writer said how large the block is.
    pub(super) left_behind: Option<usize>,
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    /// Bytes read so far.
    #[inline]
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes not yet read.
    #[inline]
    pub(super) fn remaining(&self) -> usize {
        self.body.len() - self.at
    }

    #[inline]
    fn rest(&self) -> &'a [u8] {
        self.body.get(self.at..).unwrap_or_default()
    }

    /// A zigzag varint: `long`, and every length, count and index.
    #[inline]
    pub(super) fn long(&mut self) -> Outcome<i64> {
        if let Some(byte) = self.body.get(self.at)
            && *byte < 0x80
        {
            self.at += 1;
            return Ok(unzigzag(u64::from(*byte)));
        }
        self.long_of_many_bytes()
    }

    #[inline]
    fn long_of_many_bytes(&mut self) -> Outcome<i64> {
        // With ten bytes at hand the loop unrolls without a bounds check per byte.
        let rest = self.rest();
        let found = match rest.first_chunk::<LONGEST_VARINT>() {
            Some(chunk) => varint(chunk),
            None => varint(rest),
        };
        let Some((value, bytes)) = found else {
            return self.bad_varint();
        };
        self.at += bytes;
        Ok(unzigzag(value))
    }

    #[cold]
    #[inline(never)]
    fn bad_varint(&self) -> Outcome<i64> {
        let at = self.position();
        if self.remaining() < LONGEST_VARINT {
            return fault(Reason::TruncatedBody, format!("the body ends in the number that starts at byte {at}"));
        }
        fault(Reason::InvalidLength, format!("the number at byte {at} does not fit in 64 bits"))
    }

    /// A zigzag varint that must fit in 32 bits.
    #[inline]
    pub(super) fn int(&mut self) -> Outcome<i32> {
        let at = self.position();
        let value = self.long()?;
        match i32::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) => fault(Reason::InvalidLength, format!("int {value} at byte {at} does not fit in 32 bits")),
        }
    }

    /// The next `count` bytes as they are.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Outcome<&'a [u8]> {
        let Some(taken) = self.rest().get(..count) else {
            return self.too_short(count);
        };
        self.at += count;
        Ok(taken)
    }

    /// The next bytes as an array.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let Some(taken) = self.rest().first_chunk::<N>() else {
            return self.too_short(N);
        };
        self.at += N;
        Ok(*taken)
    }

    #[cold]
    #[inline(never)]
    fn too_short<T>(&self, needed: usize) -> Outcome<T> {
        let (at, left) = (self.position(), self.remaining());
        fault(Reason::TruncatedBody, format!("{needed} bytes are needed at byte {at}, the body has {left} left"))
    }

    /// A length and that many bytes: `bytes` and `string`.
    #[inline]
    pub(super) fn bytes(&mut self) -> Outcome<&'a [u8]> {
        let at = self.at;
        let length = self.long()?;
        let taken = usize::try_from(length).ok().and_then(|length| self.rest().get(..length));
        let Some(taken) = taken else {
            return self.bad_length(at, length);
        };
        self.at += taken.len();
        Ok(taken)
    }

    #[cold]
    #[inline(never)]
    fn bad_length<T>(&self, at: usize, length: i64) -> Outcome<T> {
        if length < 0 {
            return fault(Reason::InvalidLength, format!("length {length} at byte {at} is negative"));
        }
        // A longer length is what a cut-off body looks like; one beyond any record is not.
        let reason = if length > i64::from(i32::MAX) { Reason::InvalidLength } else { Reason::TruncatedBody };
        let left = self.remaining();
        fault(reason, format!("length {length} at byte {at} is more than the {left} bytes left"))
    }

    /// `boolean`: one byte, 0 or 1.
    #[inline]
    pub(super) fn boolean(&mut self) -> Outcome<bool> {
        let at = self.position();
        match self.array::<1>()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => fault(Reason::InvalidEnum, format!("boolean {other} at byte {at} is neither 0 nor 1")),
        }
    }

    /// Nothing may be left when all fields are read.
    #[inline]
    pub(super) fn end(&self) -> Outcome<()> {
        if self.remaining() == 0 {
            return Ok(());
        }
        let (at, left) = (self.position(), self.remaining());
        fault(Reason::TrailingBytes, format!("{left} bytes are left behind the last field, which ends at byte {at}"))
    }

    /// The head of the next block of an array or map whose items take at least `smallest` bytes each.
    ///
    /// A negative count is followed by the size of the block in bytes (Avro 1.12, "Arrays").
    #[inline]
    pub(super) fn block(&mut self, what: &str, smallest: usize) -> Outcome<Block> {
        if self.is_at_end_of_blocks() {
            self.at += 1;
            return Ok(Block { count: 0, left_behind: None });
        }
        self.block_of_items(what, smallest)
    }

    /// Whether an array or map ends here: at its start, one without items.
    #[inline]
    pub(super) fn is_at_end_of_blocks(&self) -> bool {
        self.body.get(self.at) == Some(&0)
    }

    fn block_of_items(&mut self, what: &str, smallest: usize) -> Outcome<Block> {
        let at = self.position();
        let count = self.long()?;
        let left_behind = if count < 0 { Some(self.block_size(what)?) } else { None };
        let count = count.unsigned_abs();
        let room = left_behind.map_or(self.remaining(), |behind| self.remaining() - behind) as u64;
        if count.checked_mul(smallest as u64).is_none_or(|bytes| bytes > room) || count > i64::MAX as u64 {
            let detail = format!("{what} count {count} at byte {at} is more than the {room} bytes left can hold");
            return fault(Reason::InvalidLength, detail);
        }
        Ok(Block { count: usize::try_from(count).unwrap_or(usize::MAX), left_behind })
    }

    #[cold]
    fn block_size(&mut self, what: &str) -> Outcome<usize> {
        let at = self.position();
        let size = self.long()?;
        let left = self.remaining();
        if let Some(behind) = usize::try_from(size).ok().and_then(|size| left.checked_sub(size)) {
            return Ok(behind);
        }
        let detail = format!("{what} block size {size} at byte {at} is not within the {left} bytes left");
        fault(Reason::InvalidLength, detail)
    }

    /// Checks that a block was exactly as large as its writer said.
    #[inline]
    pub(super) fn end_block(&self, what: &str, block: &Block) -> Outcome<()> {
        match block.left_behind {
            Some(behind) if behind != self.remaining() => {
                let at = self.position();
                let detail = format!("the {what} block that ends at byte {at} has another size than it says");
                fault(Reason::InvalidLength, detail)
            }
            _ => Ok(()),
        }
    }
}

/// The varint in front of `bytes` and how many bytes it takes; `None` if it does not end or overflows.
#[inline]
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(LONGEST_VARINT).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            let overflows = index == LONGEST_VARINT - 1 && *byte > 1;
            return (!overflows).then_some((value, index + 1));
        }
    }
    None
}

#[inline]
fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Result<i64, Reason> {
        let mut cursor = Cursor::new(bytes);
        let value = cursor.long().map_err(|fault| fault.into_reject().reason)?;
        assert_eq!(cursor.remaining(), 0);
        Ok(value)
    }

    #[test]
    fn varints_cover_all_64_bits_and_no_more() {
        assert_eq!(long(&[0]), Ok(0));
        assert_eq!(long(&[1]), Ok(-1));
        assert_eq!(long(&[0x80, 1]), Ok(64));
        assert_eq!(long(&[0x80, 0]), Ok(0));
        let widest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(long(&widest), Ok(i64::MIN));
        let mut overflowing = widest;
        overflowing[9] = 2;
        assert_eq!(long(&overflowing), Err(Reason::InvalidLength));
        assert_eq!(long(&[0xff; 11]), Err(Reason::InvalidLength));
        assert_eq!(long(&[0xff; 3]), Err(Reason::TruncatedBody));
        assert_eq!(long(&[]), Err(Reason::TruncatedBody));
    }

    #[test]
    fn lengths_are_checked_before_use() {
        let reason = |bytes: &[u8]| match Cursor::new(bytes).bytes() {
            Ok(found) => Ok(found.to_vec()),
            Err(fault) => Err(fault.into_reject().reason),
        };
        assert_eq!(reason(&[4, 7, 8]), Ok(vec![7, 8]));
        assert_eq!(reason(&[4, 7]), Err(Reason::TruncatedBody));
        assert_eq!(reason(&[1]), Err(Reason::InvalidLength));
        assert_eq!(reason(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Err(Reason::InvalidLength));
    }
}
