//! The JSON of `_extra`: what a writer knows and the reader doesn't, kept so that nothing is lost.
//!
//! Natural JSON, not Avro's: union values without the name of their branch; numbers as numbers (floats in the shortest
//! form that reads back exactly), NaN and infinities as strings; enums and strings as strings; bytes and fixed as
//! base64 (RFC 4648, padded); decimals as strings in plain notation; a fixed uuid in its canonical form; times and
//! dates as the number that the writer sent. A map's keys stay as they were sent, repeated ones too. Parts of a known
//! record, array or map stand under its name: in an array at the index of their item, `null` where an item has none.

use std::io::Write;

use super::cursor::Cursor;
use super::decimal;
use super::fault::{ITEM, Outcome, fault};
use super::frame::write_uuid;
use super::run::{no_branch, no_symbol, not_utf8};
use super::schema::{Field, Kind, Logical, Node, NodeId, Schema};
use crate::reject::Reason;

/// Where `_extra` of one record is written.
#[derive(Debug)]
pub(super) struct Sink<'a> {
    /// The writer's schema, by which the unknown values are read.
    pub(super) schema: &'a Schema,
    pub(super) text: &'a mut Vec<u8>,
    /// Length of `text` beyond which the record is refused.
    pub(super) limit: usize,
    pub(super) max_depth: usize,
    /// Unknown values written so far.
    pub(super) values: usize,
}

/// A place to return to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    length: usize,
    values: usize,
}

impl Sink<'_> {
    pub(super) fn mark(&self) -> Mark {
        Mark { length: self.text.len(), values: self.values }
    }

    /// Forgets what was written since the mark, unless an unknown value is in it.
    pub(super) fn keep_if_more_than(&mut self, mark: Mark) {
        if self.values == mark.values {
            self.text.truncate(mark.length);
        }
    }

    pub(super) fn open(&mut self, bracket: u8) {
        self.text.push(bracket);
    }

    pub(super) fn close(&mut self, bracket: u8) {
        self.text.push(bracket);
    }

    pub(super) fn null(&mut self) {
        self.text.extend_from_slice(b"null");
    }

    /// Separates from the value before, if there is one.
    pub(super) fn comma(&mut self) {
        if !matches!(self.text.last(), Some(b'{' | b'[')) {
            self.text.push(b',');
        }
    }

    /// The key of the next member; valid UTF-8.
    pub(super) fn key(&mut self, name: &[u8]) {
        self.comma();
        self.string(std::str::from_utf8(name).unwrap_or_default());
        self.text.push(b':');
    }

    /// Reads one value of the writer's type `node` and writes it.
    pub(super) fn value(&mut self, node: NodeId, cursor: &mut Cursor<'_>) -> Outcome<()> {
        self.values += 1;
        self.nested(node, cursor, 0)
    }

    fn nested(&mut self, node: NodeId, cursor: &mut Cursor<'_>, depth: usize) -> Outcome<()> {
        let at = cursor.position();
        if depth > self.max_depth {
            return fault(Reason::TooDeep, format!("the value at byte {at} nests deeper than {}", self.max_depth));
        }
        if self.text.len() > self.limit {
            return fault(Reason::TooLarge, format!("`_extra` is too large at byte {at} of the body"));
        }
        let schema = self.schema;
        let node = schema.node(node);
        match &node.kind {
            Kind::Null => self.null(),
            Kind::Boolean => self.print(cursor.boolean()?),
            Kind::Int => self.print(cursor.int()?),
            Kind::Long => self.print(cursor.long()?),
            Kind::Float => {
                let value = f32::from_le_bytes(cursor.array()?);
                self.float(value, value.is_finite());
            }
            Kind::Double => {
                let value = f64::from_le_bytes(cursor.array()?);
                self.float(value, value.is_finite());
            }
            Kind::String => {
                let at = cursor.position();
                match std::str::from_utf8(cursor.bytes()?) {
                    Ok(value) => self.string(value),
                    Err(error) => return not_utf8(at, &error),
                }
            }
            Kind::Bytes => self.bytes(node, None, cursor)?,
            Kind::Fixed { size, .. } => self.bytes(node, Some(*size), cursor)?,
            Kind::Enum { name, symbols, .. } => {
                let at = cursor.position();
                let index = cursor.long()?;
                let Some(symbol) = usize::try_from(index).ok().and_then(|index| symbols.get(index)) else {
                    return no_symbol(at, &name.full, index, symbols.len());
                };
                self.string(symbol);
            }
            Kind::Union(branches) => {
                let at = cursor.position();
                let index = cursor.long()?;
                let Some(branch) = usize::try_from(index).ok().and_then(|index| branches.get(index)) else {
                    return no_branch(at, index, branches.len());
                };
                self.nested(*branch, cursor, depth + 1)?;
            }
            Kind::Record { fields, .. } => self.record(fields, cursor, depth)?,
            Kind::Array(items) => self.array(*items, cursor, depth)?,
            Kind::Map(values) => self.map(*values, cursor, depth)?,
        }
        Ok(())
    }

    fn record(&mut self, fields: &[Field], cursor: &mut Cursor<'_>, depth: usize) -> Outcome<()> {
        self.open(b'{');
        for field in fields {
            self.key(field.name.as_bytes());
            self.nested(field.node, cursor, depth + 1).map_err(|fault| fault.inside(&field.name))?;
        }
        self.close(b'}');
        Ok(())
    }

    /// Items may take no bytes in the body, but they do in `text`, whose limit ends the longest array.
    fn array(&mut self, items: NodeId, cursor: &mut Cursor<'_>, depth: usize) -> Outcome<()> {
        self.open(b'[');
        loop {
            let block = cursor.block("array", 0)?;
            if block.count == 0 {
                break;
            }
            for _ in 0..block.count {
                self.comma();
                self.nested(items, cursor, depth + 1).map_err(|fault| fault.inside(ITEM))?;
            }
            cursor.end_block("array", &block)?;
        }
        self.close(b']');
        Ok(())
    }

    fn map(&mut self, values: NodeId, cursor: &mut Cursor<'_>, depth: usize) -> Outcome<()> {
        self.open(b'{');
        loop {
            let block = cursor.block("map", 1)?;
            if block.count == 0 {
                break;
            }
            for _ in 0..block.count {
                let at = cursor.position();
                let key = cursor.bytes()?;
                if let Err(error) = std::str::from_utf8(key) {
                    return not_utf8(at, &error);
                }
                self.key(key);
                self.nested(values, cursor, depth + 1).map_err(|fault| fault.inside(ITEM))?;
            }
            cursor.end_block("map", &block)?;
        }
        self.close(b'}');
        Ok(())
    }

    fn bytes(&mut self, node: &Node, size: Option<usize>, cursor: &mut Cursor<'_>) -> Outcome<()> {
        if let Some(Logical::Decimal { precision, scale }) = node.logical {
            let value = decimal::read(cursor, size, precision)?;
            self.text.push(b'"');
            decimal::write(self.text, value, scale);
            self.text.push(b'"');
            return Ok(());
        }
        let bytes = match size {
            Some(size) => cursor.take(size)?,
            None => cursor.bytes()?,
        };
        self.text.push(b'"');
        match (node.logical, <[u8; 16]>::try_from(bytes)) {
            (Some(Logical::Uuid), Ok(uuid)) => {
                let mut canonical = String::with_capacity(36);
                // Writing to a string cannot fail.
                let _ = write_uuid(&mut canonical, uuid);
                self.text.extend_from_slice(canonical.as_bytes());
            }
            _ => base64(self.text, bytes),
        }
        self.text.push(b'"');
        Ok(())
    }

    fn string(&mut self, value: &str) {
        // Writing to a vector cannot fail.
        let _ = serde_json::to_writer(&mut *self.text, value);
    }

    fn print(&mut self, value: impl std::fmt::Display) {
        let _ = write!(self.text, "{value}");
    }

    /// Rust's `Debug` of a float is the shortest text that reads back exactly, and valid JSON if finite.
    fn float(&mut self, value: impl std::fmt::Debug, is_finite: bool) {
        let quote = if is_finite { "" } else { "\"" };
        let start = self.text.len();
        let _ = write!(self.text, "{quote}{value:?}{quote}");
        // The spelling of Avro's own JSON encoding.
        let spelling: &[u8] = match &self.text[start..] {
            b"\"inf\"" => b"\"Infinity\"",
            b"\"-inf\"" => b"\"-Infinity\"",
            _ => return,
        };
        self.text.truncate(start);
        self.text.extend_from_slice(spelling);
    }
}

/// Appends the base64 of `bytes`, padded.
fn base64(text: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * index) & 63) as usize];
            text.push(if index <= chunk.len() { digit } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            let mut text = Vec::new();
            base64(&mut text, bytes.as_bytes());
            assert_eq!(String::from_utf8(text).as_deref(), Ok(expected));
        }
    }
}
