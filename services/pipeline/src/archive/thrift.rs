//! A look at Parquet's metadata before it is read: the reader reserves memory for what is claimed to follow, and a
//! damaged byte may claim 16 GiB.

use crate::leb128;

/// Parquet's own metadata is eight deep.
const DEEPEST: u32 = 32;

/// Where metadata tell how many children a group has: `FileMetaData.schema`, `SchemaElement.num_children`.
const NUMBER_OF_CHILDREN: [i16; 2] = [2, 5];

/// Whether a struct in Thrift's compact protocol is whole, and claims no more elements of a list, or children of a
/// group, than there are bytes: each takes at least one.
///
/// Source: the Thrift project's `doc/specs/thrift-compact-protocol.md`; `parquet.thrift` of the Parquet format.
pub(super) fn is_whole_metadata(bytes: &[u8]) -> bool {
    Walk { rest: bytes, most: bytes.len() as u64, fields: Vec::new() }.structure(DEEPEST).is_some()
}

struct Walk<'a> {
    rest: &'a [u8],
    /// How many of anything there can be.
    most: u64,
    /// The field that is walked over, within those that it is in.
    fields: Vec<i16>,
}

impl Walk<'_> {
    fn structure(&mut self, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let mut field: i16 = 0;
        loop {
            let header = self.byte()?;
            if header == 0 {
                return Some(());
            }
            field = match header >> 4 {
                0 => i16::try_from(self.signed()?).ok()?,
                step => field.checked_add(i16::from(step))?,
            };
            // Of a boolean field the type is the value.
            if !matches!(header & 15, 1 | 2) {
                self.fields.push(field);
                self.value(header & 15, depth)?;
                self.fields.pop();
            }
        }
    }

    fn value(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => {
                let number = self.signed()?;
                let fits = self.fields != NUMBER_OF_CHILDREN || u64::try_from(number).is_ok_and(|n| n <= self.most);
                fits.then_some(())
            }
            7 => self.skip(8),
            8 => {
                let length = self.number()?;
                self.skip(length)
            }
            9 | 10 => self.list(depth),
            11 => self.map(depth),
            12 => self.structure(depth),
            _ => None,
        }
    }

    fn list(&mut self, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.number()?,
            count => u64::from(count),
        };
        self.elements(count, &[header & 15], depth)
    }

    fn map(&mut self, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let count = self.number()?;
        if count == 0 {
            return Some(());
        }
        let kinds = self.byte()?;
        self.elements(count, &[kinds >> 4, kinds & 15], depth)
    }

    fn elements(&mut self, count: u64, kinds: &[u8], depth: u32) -> Option<()> {
        if count > self.rest.len() as u64 {
            return None;
        }
        for _ in 0..count {
            for &kind in kinds {
                self.value(kind, depth)?;
            }
        }
        Some(())
    }

    fn number(&mut self) -> Option<u64> {
        leb128::take(&mut self.rest)
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn skip(&mut self, length: u64) -> Option<()> {
        self.rest = self.rest.get(usize::try_from(length).ok()?..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A struct with a field of each kind: booleans, byte, numbers, double, text, lists, a map, a struct.
    const EVERY_KIND: &[u8] = &[
        0x11, 0x12, 0x13, 7, 0x14, 0x80, 1, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0x18, 2, b'a', b'b', 0x19, 0x25, 1, 2, 0x19,
        0x11, 1, 0x1B, 1, 0x85, 1, b'k', 3, 0x1C, 0x15, 1, 0, 0x05, 0xC8, 1, 9, 0,
    ];

    #[test]
    fn every_kind_of_field_is_walked_over() {
        assert!(is_whole_metadata(EVERY_KIND));
    }

    #[test]
    fn what_ends_early_is_refused() {
        for end in 0..EVERY_KIND.len() {
            assert!(!is_whole_metadata(&EVERY_KIND[..end]), "{end} bytes");
        }
    }

    #[test]
    fn a_list_that_claims_more_than_there_is_is_refused() {
        assert!(!is_whole_metadata(&[0x19, 0xF5, 0xFF, 0xFF, 0xFF, 0xFF, 0x07, 1, 0]));
        assert!(!is_whole_metadata(&[0x1B, 0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0x55, 1, 0]));
    }

    #[test]
    fn a_group_that_claims_more_children_than_there_are_bytes_is_refused() {
        // Field 2, a list of one struct; in it field 5.
        let group = |children: &[u8]| [&[0x29, 0x1C, 0x55], children, &[0, 0]].concat();
        assert!(is_whole_metadata(&group(&[4])));
        assert!(!is_whole_metadata(&group(&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F])));
        assert!(!is_whole_metadata(&group(&[1])), "less than none");
    }

    #[test]
    fn no_depth_takes_the_stack() {
        assert!(!is_whole_metadata(&vec![0x1C; 1 << 20]));
        assert!(!is_whole_metadata(&vec![0x19; 1 << 20]));
    }
}
