//! What a decoder does with a body, fixed when writer and reader schema meet: no names are looked up later.

use super::schema::NodeId;

/// Reads one value of the writer and appends one row to one column of the reader.
#[derive(Debug)]
pub(super) enum Op {
    Null,
    Boolean,
    Int,
    IntToLong,
    IntToFloat,
    IntToDouble,
    Long,
    LongToFloat,
    LongToDouble,
    Float,
    FloatToDouble,
    Double,
    /// A string, or bytes that must be one, into a dictionary.
    Dictionary,
    /// A string, or bytes that must be one.
    Text,
    /// Bytes or a string.
    Bytes,
    Fixed(usize),
    /// A two's-complement integer of at most so many digits; with a size for a fixed, else with a length in front.
    Decimal {
        size: Option<usize>,
        digits: u8,
    },
    Enum(Box<EnumOp>),
    Record(Box<RecordOp>),
    List(Box<ItemsOp>),
    Map(Box<ItemsOp>),
    /// A union of the writer: the index in front says which.
    Union(Box<UnionOp>),
    /// One of several types of a reader's union: the member of that index is set, the others are null.
    Member(usize, Box<Op>),
    /// A branch that the reader has no place for, and why. Only an error if a record has it.
    Refuse(Box<str>),
}

/// Writer symbols to reader symbols.
#[derive(Debug)]
pub(super) struct EnumOp {
    pub(super) name: Box<str>,
    /// For each symbol of the writer the reader's key, or the symbol's name where the reader has neither it nor a
    /// default.
    pub(super) symbols: Box<[Result<i32, Box<str>>]>,
}

/// The fields of a record in the writer's order, then what the writer doesn't have.
#[derive(Debug)]
pub(super) struct RecordOp {
    pub(super) fields: Box<[FieldOp]>,
    pub(super) defaults: Box<[DefaultOp]>,
    /// Whether some value below goes to `_extra`.
    pub(super) has_extra: bool,
}

/// One field of the writer.
#[derive(Debug)]
pub(super) struct FieldOp {
    /// The writer's name for it.
    pub(super) name: Box<str>,
    pub(super) target: Target,
}

/// Where a field of the writer goes.
#[derive(Debug)]
pub(super) enum Target {
    /// To the reader's field of that index.
    Column(usize, Op),
    /// To the reader's field of that index, with parts that go to `_extra`.
    ColumnAndExtra(usize, Op),
    /// To `_extra` as a whole; the node of the writer's schema says what it is.
    Extra(NodeId),
}

/// A field that only the reader has.
#[derive(Debug)]
pub(super) struct DefaultOp {
    pub(super) name: Box<str>,
    pub(super) column: usize,
    /// The default, encoded as a reader-schema value.
    pub(super) encoded: Box<[u8]>,
    pub(super) op: Op,
}

/// Array items or map values.
#[derive(Debug)]
pub(super) struct ItemsOp {
    pub(super) item: Op,
    /// Fewest bytes that one item takes in a body.
    pub(super) smallest: usize,
    /// Bytes that one item takes in memory, at least.
    pub(super) width: usize,
    pub(super) has_extra: bool,
}

/// The branches of a writer's union.
#[derive(Debug)]
pub(super) struct UnionOp {
    pub(super) branches: Box<[Op]>,
    pub(super) has_extra: bool,
}

impl Op {
    /// Whether some value below goes to `_extra`; then reading it appends exactly one JSON value there.
    pub(super) fn has_extra(&self) -> bool {
        match self {
            Self::Record(record) => record.has_extra,
            Self::List(items) | Self::Map(items) => items.has_extra,
            Self::Union(union) => union.has_extra,
            Self::Member(_, inner) => inner.has_extra(),
            _ => false,
        }
    }
}
