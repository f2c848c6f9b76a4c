//! A look at Parquet's metadata before it is read: the reader reserves memory for the children that a group claims to
//! have, and goes down to them by recursion. A damaged byte may claim 16 GiB.

use std::ops::RangeInclusive;

use crate::leb128;

/// Parquet's own metadata is eight deep.
const DEEPEST: u32 = 32;

/// Groups within groups of a schema.
const DEEPEST_SCHEMA: usize = 256;

/// `FileMetaData.schema`, a list of elements.
const SCHEMA: &[i16] = &[2];
/// `SchemaElement.num_children` in it.
const NUMBER_OF_CHILDREN: &[i16] = &[2, 5];

// Types of Thrift's compact protocol. Of a boolean field the type is the value.
const BOOLEAN: RangeInclusive<u8> = 1..=2;
const BYTE: RangeInclusive<u8> = 3..=3;
const NUMBER: RangeInclusive<u8> = 4..=6;
const BINARY: RangeInclusive<u8> = 8..=8;
const LIST: RangeInclusive<u8> = 9..=10;
const STRUCT: RangeInclusive<u8> = 12..=12;
const ANY: RangeInclusive<u8> = 1..=12;

/// The types that a field may have. The reader goes by the number of a field alone, so one of another type makes it take
/// the bytes that follow for something else than they are. Told for all that may come before the end of the schema:
/// behind it, nothing is reserved but what lists claim, and those it bounds itself.
fn types_of(field: &[i16]) -> RangeInclusive<u8> {
    // FileMetaData: 1 version, 2 schema, 3 num_rows, 4 row_groups, 5 key_value_metadata, 6 created_by, 7 column_orders.
    // SchemaElement, in 2: 4 name, 10 logicalType, the others numbers.
    // LogicalType, in 10, a union: 5 decimal, 7 and 8 time and timestamp, 10 int, 16 variant, 17 and 18 geometry and geography.
    match field {
        [1 | 3] | [2, 1..=3 | 5..=9] | [2, 10, 5, 1 | 2] | [2, 10, 18, 2] => NUMBER,
        [2 | 4 | 5 | 7] => LIST,
        [6] | [5, 1 | 2] | [2, 4] | [2, 10, 17 | 18, 1] => BINARY,
        [7, _] | [2, 10] | [2, 10, _] | [2, 10, 7 | 8, 2] | [2, 10, 7 | 8, 2, _] => STRUCT,
        [2, 10, 7 | 8, 1] | [2, 10, 10, 2] => BOOLEAN,
        [2, 10, 10 | 16, 1] => BYTE,
        _ => ANY,
    }
}

/// Whether these bytes are file metadata in Thrift's compact protocol and nothing else: each list has the elements that it
/// claims, each group of the schema its children.
///
/// Source: the Thrift project's `doc/specs/thrift-compact-protocol.md`; `parquet.thrift` of the Parquet format.
pub(super) fn is_whole_metadata(bytes: &[u8]) -> bool {
    let mut walk = Walk { rest: bytes, fields: Vec::new(), children: Vec::new() };
    walk.structure(DEEPEST).is_some() && walk.rest.is_empty() && is_a_tree(&walk.children)
}

/// Whether as many elements follow each element, depth first, as it claims to have children.
fn is_a_tree(children: &[u64]) -> bool {
    // How many are still to come of the root, and of each group that is open.
    let mut to_come = vec![1_u64];
    for &claimed in children {
        while to_come.last() == Some(&0) {
            to_come.pop();
        }
        let Some(siblings) = to_come.last_mut() else { return false };
        *siblings -= 1;
        to_come.push(claimed);
        if to_come.len() > DEEPEST_SCHEMA {
            return false;
        }
    }
    to_come.iter().all(|to_come| *to_come == 0)
}

struct Walk<'a> {
    rest: &'a [u8],
    /// The field that is walked over, within those that it is in.
    fields: Vec<i16>,
    /// How many children each element of the schema claims to have.
    children: Vec<u64>,
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
            let kind = header & 15;
            self.fields.push(field);
            if !types_of(&self.fields).contains(&kind) {
                return None;
            }
            if !BOOLEAN.contains(&kind) {
                self.value(kind, depth)?;
            }
            self.fields.pop();
        }
    }

    fn value(&mut self, kind: u8, depth: u32) -> Option<()> {
        match kind {
            1..=3 => self.skip(1),
            4..=6 => {
                let number = self.signed()?;
                if self.fields == NUMBER_OF_CHILDREN {
                    *self.children.last_mut()? = u64::try_from(number).ok()?;
                }
                Some(())
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
            if self.fields == SCHEMA {
                self.children.push(0);
            }
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

    /// A struct with a field of each kind, behind those that metadata have: booleans, byte, numbers, double, text, lists, a
    /// map, a struct; and a schema of one element.
    const EVERY_KIND: &[u8] = &[
        0x29, 0x1C, 0, 0x91, 0x12, 0x13, 7, 0x14, 0x80, 1, 0x17, 0, 0, 0, 0, 0, 0, 0, 0, 0x18, 2, b'a', b'b', 0x19,
        0x25, 1, 2, 0x19, 0x11, 1, 0x1B, 1, 0x85, 1, b'k', 3, 0x1C, 0x15, 1, 0, 0x05, 0xC8, 1, 9, 0,
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
    fn a_group_that_claims_other_children_than_there_are_is_refused() {
        // Field 2, a list of three structs; in the first of them field 5.
        let group = |children: &[u8]| [&[0x29, 0x3C, 0x55], children, &[0, 0, 0, 0]].concat();
        assert!(is_whole_metadata(&group(&[4])));
        assert!(!is_whole_metadata(&group(&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F])));
        assert!(!is_whole_metadata(&group(&[1])), "less than none");
        assert!(!is_whole_metadata(&group(&[6])) && !is_whole_metadata(&group(&[2])), "one more, one less");
    }

    #[test]
    fn groups_within_groups_have_an_end() {
        let nested = |depth: usize| [vec![1; depth], vec![0]].concat();
        assert!(is_a_tree(&[2, 1, 0, 2, 0, 0]) && is_a_tree(&nested(100)));
        assert!(!is_a_tree(&nested(100_000)));
        assert!(!is_a_tree(&[]) && !is_a_tree(&[0, 0]) && !is_a_tree(&[1, 1]));
    }

    #[test]
    fn a_field_of_another_type_than_the_reader_takes_it_for_is_refused() {
        let schema = |kind: u8| [&[kind], &EVERY_KIND[1..]].concat();
        assert!(is_whole_metadata(&schema(0x29)));
        // A number; the bytes behind it are a struct of their own to whom goes by types.
        assert!(!is_whole_metadata(&[0x25, 0x1C, 0]) && !is_whole_metadata(&schema(0x25)));
        // What is behind the end of the struct is not metadata.
        assert!(!is_whole_metadata(&[EVERY_KIND, &[0]].concat()));
    }

    #[test]
    fn no_depth_takes_the_stack() {
        assert!(!is_whole_metadata(&vec![0x1C; 1 << 20]));
        assert!(!is_whole_metadata(&vec![0x19; 1 << 20]));
    }
}
