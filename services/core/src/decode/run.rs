//! Runs a program over one body: every value is read once and goes straight to its column.

use super::columns::{Column, Data};
use super::cursor::Cursor;
use super::decimal;
use super::fault::{Fault, ITEM, Outcome, fault};
use super::json::Sink;
use super::program::{DefaultOp, EnumOp, FieldOp, ItemsOp, Op, RecordOp, Target, UnionOp};
use crate::reject::Reason;

/// One record on its way into the columns.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) cursor: Cursor<'a>,
    /// Bytes that the collections and defaults of this record may still take in memory.
    pub(super) budget: usize,
    pub(super) sink: Sink<'a>,
}

impl<'a> Run<'a> {
    /// Appends one row to each of the columns of a record.
    pub(super) fn record(&mut self, record: &'a RecordOp, columns: &mut [Column]) -> Outcome<()> {
        if record.has_extra {
            self.sink.open(b'{');
        }
        for field in &record.fields {
            // A closure for the name: nothing is done for it as long as all is well.
            let within = |fault: Box<Fault>| fault.inside(&field.name);
            match &field.target {
                Target::Column(index, op) => self.value_inlined(op, column(columns, *index)?).map_err(within)?,
                Target::ColumnAndExtra(index, op) => {
                    self.value_with_extra(field, op, column(columns, *index)?).map_err(within)?;
                }
                Target::Extra(node) => {
                    self.sink.key(field.name.as_bytes());
                    self.sink.value(*node, &mut self.cursor).map_err(within)?;
                }
            }
        }
        for default in &record.defaults {
            self.default(default, column(columns, default.column)?).map_err(|fault| fault.inside(&default.name))?;
        }
        if record.has_extra {
            self.sink.close(b'}');
        }
        Ok(())
    }

    /// A field of which only parts are unknown; if this record has none of them, the field is left out of `_extra`.
    fn value_with_extra(&mut self, field: &'a FieldOp, op: &'a Op, column: &mut Column) -> Outcome<()> {
        let mark = self.sink.mark();
        self.sink.key(field.name.as_bytes());
        self.value(op, column)?;
        self.sink.keep_if_more_than(mark);
        Ok(())
    }

    fn default(&mut self, default: &'a DefaultOp, column: &mut Column) -> Outcome<()> {
        self.charge(1, default.encoded.len())?;
        let body = std::mem::replace(&mut self.cursor, Cursor::new(&default.encoded));
        let outcome = self.value(&default.op, column);
        self.cursor = body;
        outcome
    }

    /// Reads one value and appends one row.
    fn value(&mut self, op: &'a Op, column: &mut Column) -> Outcome<()> {
        self.value_inlined(op, column)
    }

    /// What most fields are is dealt with here, the rest in [`Self::uncommon`].
    #[expect(clippy::inline_always, reason = "a call for each field of a flat record would cost a third of its time")]
    #[inline(always)]
    fn value_inlined(&mut self, op: &'a Op, column: &mut Column) -> Outcome<()> {
        let mut op = op;
        if let Op::Union(union) = op
            && !union.has_extra
        {
            op = self.branch(union)?;
        }
        let cursor = &mut self.cursor;
        match (op, &mut column.data) {
            (Op::Double, Data::Double(values)) => values.push(f64::from_le_bytes(cursor.array()?)),
            (Op::Long, Data::Long(values)) => values.push(cursor.long()?),
            (Op::Dictionary, Data::Dictionary { keys, dictionary }) => {
                let at = cursor.position();
                match dictionary.intern(cursor.bytes()?, keys.len()) {
                    Ok(key) => keys.push(key),
                    Err(error) => return not_utf8(at, &error),
                }
            }
            (Op::Enum(symbols), Data::Symbols { keys, .. }) => keys.push(symbol(symbols, cursor)?),
            // Many records have no item in their collections.
            (Op::List(items), Data::List { offsets, .. }) | (Op::Map(items), Data::Map { offsets, .. })
                if !items.has_extra && cursor.is_at_end_of_blocks() =>
            {
                cursor.take(1)?;
                offsets.push(offsets.last().copied().unwrap_or_default());
            }
            (Op::Union(union), _) => {
                let branch = self.branch(union)?;
                self.value(branch, column)?;
                if !branch.has_extra() {
                    self.sink.null();
                }
                // The branch has marked the row already.
                return Ok(());
            }
            (Op::Null, _) => {
                column.push_null();
                return Ok(());
            }
            _ => self.uncommon(op, column)?,
        }
        column.mark_valid();
        Ok(())
    }

    /// The operation for the branch that the body names.
    #[inline]
    fn branch(&mut self, union: &'a UnionOp) -> Outcome<&'a Op> {
        let at = self.cursor.position();
        let index = self.cursor.long()?;
        match usize::try_from(index).ok().and_then(|index| union.branches.get(index)) {
            Some(branch) => Ok(branch),
            None => no_branch(at, index, union.branches.len()),
        }
    }

    #[inline(never)]
    fn uncommon(&mut self, op: &'a Op, column: &mut Column) -> Outcome<()> {
        let cursor = &mut self.cursor;
        match (op, &mut column.data) {
            (Op::Boolean, Data::Boolean(values)) => values.push(cursor.boolean()?),
            (Op::Int, Data::Int(values)) => values.push(cursor.int()?),
            (Op::IntToLong, Data::Long(values)) => values.push(i64::from(cursor.int()?)),
            (Op::IntToFloat, Data::Float(values)) => values.push(cursor.int()? as f32),
            (Op::IntToDouble, Data::Double(values)) => values.push(f64::from(cursor.int()?)),
            (Op::LongToFloat, Data::Float(values)) => values.push(cursor.long()? as f32),
            (Op::LongToDouble, Data::Double(values)) => values.push(cursor.long()? as f64),
            (Op::Float, Data::Float(values)) => values.push(f32::from_le_bytes(cursor.array()?)),
            (Op::FloatToDouble, Data::Double(values)) => values.push(f64::from(f32::from_le_bytes(cursor.array()?))),
            (Op::Text, Data::Utf8 { offsets, text }) => push_text(cursor, offsets, text)?,
            (Op::Bytes, Data::Binary { offsets, bytes }) => {
                bytes.extend_from_slice(cursor.bytes()?);
                offsets.push(bytes.len() as i32);
            }
            (Op::Fixed(size), Data::Fixed { bytes, .. }) => bytes.extend_from_slice(cursor.take(*size)?),
            (Op::Decimal { size, digits }, Data::Decimal128(values)) => {
                values.push(decimal::read(cursor, *size, *digits)?.as_i128());
            }
            (Op::Decimal { size, digits }, Data::Decimal256(values)) => {
                values.push(decimal::read(cursor, *size, *digits)?);
            }
            (Op::Record(record), Data::Struct { rows, children }) => {
                self.record(record, children)?;
                *rows += 1;
            }
            (Op::Member(member, inner), Data::Struct { rows, children }) => {
                for (index, child) in children.iter_mut().enumerate() {
                    if index == *member {
                        self.value(inner, child).map_err(|fault| fault.inside("(union)"))?;
                    } else {
                        child.push_null();
                    }
                }
                *rows += 1;
            }
            (Op::List(items), Data::List { offsets, items: column }) => {
                self.list(items, column)?;
                offsets.push(column.rows() as i32);
            }
            (Op::Map(items), Data::Map { offsets, keys, values }) => {
                self.map(items, keys, values)?;
                offsets.push(values.rows() as i32);
            }
            (Op::Refuse(why), _) => return fault(Reason::IncompatibleSchema, why.to_string()),
            _ => return misfit(),
        }
        Ok(())
    }

    fn list(&mut self, items: &'a ItemsOp, column: &mut Column) -> Outcome<()> {
        if items.has_extra {
            self.sink.open(b'[');
        }
        loop {
            let block = self.cursor.block("array", items.smallest)?;
            if block.count == 0 {
                break;
            }
            self.charge(block.count, items.width)?;
            for _ in 0..block.count {
                if items.has_extra {
                    self.sink.comma();
                }
                self.value(&items.item, column).map_err(|fault| fault.inside(ITEM))?;
            }
            self.cursor.end_block("array", &block)?;
        }
        if items.has_extra {
            self.sink.close(b']');
        }
        Ok(())
    }

    fn map(&mut self, items: &'a ItemsOp, keys: &mut Column, values: &mut Column) -> Outcome<()> {
        let Data::Utf8 { offsets, text } = &mut keys.data else {
            return misfit();
        };
        if items.has_extra {
            self.sink.open(b'{');
        }
        loop {
            let block = self.cursor.block("map", items.smallest)?;
            if block.count == 0 {
                break;
            }
            self.charge(block.count, items.width)?;
            for _ in 0..block.count {
                let start = text.len();
                push_text(&mut self.cursor, offsets, text)?;
                if items.has_extra {
                    self.sink.key(&text.as_bytes()[start..]);
                }
                self.value(&items.item, values).map_err(|fault| fault.inside(ITEM))?;
            }
            self.cursor.end_block("map", &block)?;
        }
        if items.has_extra {
            self.sink.close(b'}');
        }
        Ok(())
    }

    /// Takes `count` times `width` bytes off what this record may expand to.
    #[inline]
    fn charge(&mut self, count: usize, width: usize) -> Outcome<()> {
        match count.checked_mul(width).and_then(|bytes| self.budget.checked_sub(bytes)) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => too_large(count, width, &self.cursor),
        }
    }
}

#[inline]
fn push_text(cursor: &mut Cursor<'_>, offsets: &mut Vec<i32>, text: &mut String) -> Outcome<()> {
    let at = cursor.position();
    match std::str::from_utf8(cursor.bytes()?) {
        Ok(value) => text.push_str(value),
        Err(error) => return not_utf8(at, &error),
    }
    offsets.push(text.len() as i32);
    Ok(())
}

#[inline]
fn symbol(symbols: &EnumOp, cursor: &mut Cursor<'_>) -> Outcome<i32> {
    let at = cursor.position();
    let index = cursor.long()?;
    match usize::try_from(index).ok().and_then(|index| symbols.symbols.get(index)) {
        Some(Ok(key)) => Ok(*key),
        Some(Err(unknown)) => unknown_symbol(at, symbols, unknown),
        None => no_symbol(at, &symbols.name, index, symbols.symbols.len()),
    }
}

#[inline]
fn column(columns: &mut [Column], index: usize) -> Outcome<&mut Column> {
    match columns.get_mut(index) {
        Some(column) => Ok(column),
        None => misfit(),
    }
}

/// Cannot happen: decoder and columns are checked to be of the same reader schema.
#[cold]
#[inline(never)]
fn misfit<T>() -> Outcome<T> {
    fault(Reason::IncompatibleSchema, "the columns are not of the decoder's reader schema".to_owned())
}

#[cold]
#[inline(never)]
fn unknown_symbol(at: usize, symbols: &EnumOp, symbol: &str) -> Outcome<i32> {
    let name = &symbols.name;
    let detail = format!("symbol `{symbol}` at byte {at} is not in the reader's enum `{name}`, which has no default");
    fault(Reason::InvalidEnum, detail)
}

/// An index that the writer's enum does not have.
#[cold]
#[inline(never)]
pub(super) fn no_symbol<T>(at: usize, name: &str, index: i64, count: usize) -> Outcome<T> {
    fault(Reason::InvalidEnum, format!("symbol {index} at byte {at} of the {count} symbols of enum `{name}`"))
}

/// A branch that the writer's union does not have.
#[cold]
#[inline(never)]
pub(super) fn no_branch<T>(at: usize, index: i64, count: usize) -> Outcome<T> {
    fault(Reason::InvalidUnionBranch, format!("branch {index} at byte {at} of a union of {count} branches"))
}

/// A string whose bytes are not UTF-8.
#[cold]
#[inline(never)]
pub(super) fn not_utf8<T>(at: usize, error: &std::str::Utf8Error) -> Outcome<T> {
    fault(Reason::InvalidUtf8, format!("the string at byte {at} is not UTF-8: {error}"))
}

#[cold]
#[inline(never)]
fn too_large(count: usize, width: usize, cursor: &Cursor<'_>) -> Outcome<()> {
    let at = cursor.position();
    let detail =
        format!("{count} items of at least {width} bytes in memory, at byte {at}, are more than the limit allows");
    fault(Reason::TooLarge, detail)
}
