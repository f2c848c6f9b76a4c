//! A small model of Avro for the decoder's tests: random types, values and evolutions, and what rows must hold.
//!
//! Choices come from a tape of numbers, which proptest shrinks; behind its end every choice is the first, simplest one.

use std::collections::HashMap;

use apache_avro::types::Value;
use serde_json::{Value as Json, json};

pub use evolve::{Evolved, evolve};
pub use plain::{Plain, plain_of_array, plain_of_value};

mod evolve;
mod plain;

/// A source of choices.
pub struct Tape {
    numbers: Vec<u32>,
    at: usize,
    names: usize,
}

impl Tape {
    pub fn new(numbers: Vec<u32>) -> Self {
        Self { numbers, at: 0, names: 0 }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        let number = self.numbers.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        number as usize % bound
    }

    /// True in one of so many cases.
    pub fn one_in(&mut self, cases: usize) -> bool {
        self.below(cases) == cases - 1
    }

    pub fn bits(&mut self) -> u64 {
        let number = |tape: &mut Self| u64::from(tape.numbers.get(tape.at).copied().unwrap_or(0));
        let high = number(self);
        self.at += 1;
        let low = number(self);
        self.at += 1;
        high << 32 | low
    }

    fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    /// A logical type: its name and the underlying type.
    Logical(&'static str, Box<Type>),
    Decimal {
        precision: u32,
        scale: u32,
        fixed: Option<(String, usize)>,
    },
    Fixed(String, usize),
    Enum {
        name: String,
        symbols: Vec<String>,
        default: Option<String>,
    },
    Record {
        name: String,
        aliases: Vec<String>,
        fields: Vec<Field>,
    },
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: String,
    pub aliases: Vec<String>,
    pub of: Type,
    pub default: Option<Json>,
}

impl Type {
    pub fn json(&self) -> Json {
        match self {
            Self::Null => json!("null"),
            Self::Boolean => json!("boolean"),
            Self::Int => json!("int"),
            Self::Long => json!("long"),
            Self::Float => json!("float"),
            Self::Double => json!("double"),
            Self::Bytes => json!("bytes"),
            Self::String => json!("string"),
            Self::Logical(name, underlying) => match underlying.json() {
                Json::Object(mut object) => {
                    object.insert("logicalType".to_owned(), json!(name));
                    Json::Object(object)
                }
                primitive => json!({"type": primitive, "logicalType": name}),
            },
            Self::Decimal { precision, scale, fixed: None } => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
            }
            Self::Decimal { precision, scale, fixed: Some((name, size)) } => json!({"type": "fixed", "name": name,
                "size": size, "logicalType": "decimal", "precision": precision, "scale": scale}),
            Self::Fixed(name, size) => json!({"type": "fixed", "name": name, "size": size}),
            Self::Enum { name, symbols, default } => {
                let mut object = json!({"type": "enum", "name": name, "symbols": symbols});
                if let Some(default) = default {
                    object["default"] = json!(default);
                }
                object
            }
            Self::Record { name, aliases, fields } => {
                let fields: Vec<_> = fields.iter().map(Field::json).collect();
                json!({"type": "record", "name": name, "aliases": aliases, "fields": fields})
            }
            Self::Array(items) => json!({"type": "array", "items": items.json()}),
            Self::Map(values) => json!({"type": "map", "values": values.json()}),
            Self::Union(branches) => branches.iter().map(Self::json).collect(),
        }
    }

    /// What a union calls the branch.
    fn word(&self) -> String {
        match self {
            Self::Logical(_, underlying) => underlying.word(),
            Self::Decimal { fixed: None, .. } => "bytes".to_owned(),
            Self::Decimal { fixed: Some((name, _)), .. }
            | Self::Fixed(name, _)
            | Self::Enum { name, .. }
            | Self::Record { name, .. } => name.clone(),
            Self::Array(_) => "array".to_owned(),
            Self::Map(_) => "map".to_owned(),
            other => other.json().as_str().unwrap_or("union").to_owned(),
        }
    }

    /// What apache-avro cannot tell apart by a value.
    fn kind(&self) -> String {
        match self {
            Self::Logical(_, underlying) => underlying.kind(),
            Self::Decimal { .. } | Self::Fixed(..) => "bytes".to_owned(),
            Self::Enum { .. } => "enum".to_owned(),
            Self::Record { .. } | Self::Map(_) => "record".to_owned(),
            other => other.word(),
        }
    }

    fn is_null(&self) -> bool {
        *self == Self::Null
    }
}

impl Field {
    fn json(&self) -> Json {
        let mut object = json!({"name": self.name, "type": self.of.json(), "aliases": self.aliases});
        if let Some(default) = &self.default {
            object["default"] = default.clone();
        }
        object
    }
}

/// A random record type with at least one field.
pub fn random_record(tape: &mut Tape, depth: usize) -> Type {
    let fields = (0..=tape.below(if depth == 0 { 7 } else { 3 })).map(|_| random_field(tape, depth)).collect();
    Type::Record { name: tape.name("R"), aliases: Vec::new(), fields }
}

fn random_field(tape: &mut Tape, depth: usize) -> Field {
    let of = random_type(tape, depth + 1);
    Field { name: tape.name("f"), aliases: Vec::new(), of, default: None }
}

pub fn random_type(tape: &mut Tape, depth: usize) -> Type {
    if tape.one_in(5) {
        let inner = random_plain(tape, depth);
        return match tape.below(3) {
            0 => Type::Union(vec![Type::Null, inner]),
            1 => Type::Union(vec![inner, Type::Null]),
            _ => random_union(tape, depth, inner),
        };
    }
    random_plain(tape, depth)
}

fn random_union(tape: &mut Tape, depth: usize, first: Type) -> Type {
    let mut branches = vec![first];
    for _ in 0..=tape.below(3) {
        let branch = if tape.one_in(4) { Type::Null } else { random_plain(tape, depth + 1) };
        // apache-avro 0.22 chooses the reader's branch by the value, which does not know its type's name: of two enums
        // it takes the first with the symbol, a decimal goes to any branch of bytes, a record to a map. The specification goes by
        // the name, so only one of each kind here.
        if branches.iter().all(|other| other.kind() != branch.kind() && other.word() != branch.word()) {
            branches.push(branch);
        }
    }
    Type::Union(branches)
}

/// Any type but a union and null.
fn random_plain(tape: &mut Tape, depth: usize) -> Type {
    let logical = |name, of| Type::Logical(name, Box::new(of));
    match tape.below(if depth > 3 { 20 } else { 24 }) {
        0 => Type::Int,
        1 => Type::Long,
        2 => Type::Float,
        3 | 4 => Type::Double,
        5..=7 => Type::String,
        8 => Type::Bytes,
        9 => Type::Boolean,
        10 => Type::Fixed(tape.name("F"), 1 + tape.below(20)),
        11 | 12 => {
            let symbols = (0..=tape.below(4)).map(|index| format!("S{index}")).collect();
            Type::Enum { name: tape.name("E"), symbols, default: None }
        }
        13 => logical("timestamp-millis", Type::Long),
        14 => logical("local-timestamp-micros", Type::Long),
        15 => logical("timestamp-nanos", Type::Long),
        16 => logical("date", Type::Int),
        17 => logical("time-micros", Type::Long),
        18 => Type::Decimal { precision: 1 + tape.below(30) as u32, scale: tape.below(2) as u32, fixed: None },
        19 => Type::Decimal { precision: 40, scale: 7, fixed: Some((tape.name("D"), 17 + tape.below(10))) },
        20 => random_record(tape, depth),
        21 => Type::Map(Box::new(random_type(tape, depth + 1))),
        _ => Type::Array(Box::new(random_type(tape, depth + 1))),
    }
}

/// A random value of a type, as apache-avro encodes it.
pub fn random_value(tape: &mut Tape, of: &Type) -> Value {
    match of {
        Type::Null => Value::Null,
        Type::Boolean => Value::Boolean(tape.below(2) == 1),
        Type::Int => Value::Int(random_long(tape) as i32),
        Type::Long => Value::Long(random_long(tape)),
        Type::Float => Value::Float(f32::from_bits(tape.bits() as u32)),
        Type::Double => Value::Double(f64::from_bits(tape.bits())),
        Type::Bytes => Value::Bytes(random_bytes(tape)),
        Type::String => Value::String(random_text(tape)),
        Type::Logical(name, _) => {
            let long = random_long(tape);
            match *name {
                "timestamp-millis" => Value::TimestampMillis(long),
                "local-timestamp-micros" => Value::LocalTimestampMicros(long),
                "timestamp-nanos" => Value::TimestampNanos(long),
                "date" => Value::Date(long as i32),
                "time-micros" => Value::TimeMicros(long),
                other => panic!("{other}"),
            }
        }
        // apache-avro 0.22 wants as many bytes as the precision may need, however small the number.
        Type::Decimal { precision, fixed, .. } => {
            let bound = 10_i128.pow((*precision).min(30));
            let number = i128::from(random_long(tape)) % bound;
            let size = fixed.as_ref().map_or(17, |(_, size)| *size);
            let mut bytes = vec![if number < 0 { 0xff } else { 0 }; size - 16];
            bytes.extend_from_slice(&number.to_be_bytes());
            Value::Decimal(bytes.into())
        }
        Type::Fixed(_, size) => Value::Fixed(*size, (0..*size).map(|_| tape.below(256) as u8).collect()),
        Type::Enum { symbols, .. } => {
            let symbol = tape.below(symbols.len());
            Value::Enum(symbol as u32, symbols[symbol].clone())
        }
        Type::Record { fields, .. } => {
            Value::Record(fields.iter().map(|field| (field.name.clone(), random_value(tape, &field.of))).collect())
        }
        Type::Array(items) => Value::Array((0..tape.below(4)).map(|_| random_value(tape, items)).collect()),
        Type::Map(values) => {
            let entries: HashMap<_, _> =
                (0..tape.below(4)).map(|_| (random_text(tape), random_value(tape, values))).collect();
            Value::Map(entries)
        }
        Type::Union(branches) => {
            let branch = tape.below(branches.len());
            Value::Union(branch as u32, Box::new(random_value(tape, &branches[branch])))
        }
    }
}

fn random_long(tape: &mut Tape) -> i64 {
    let bits = tape.bits() as i64;
    bits >> tape.below(64)
}

fn random_text(tape: &mut Tape) -> String {
    const PIECES: [&str; 8] = ["a", "", "sensor-", "\u{e9}", "\"", "\n\u{1}", "\u{1f600}", "0123456789abcdef"];
    (0..tape.below(4)).map(|_| PIECES[tape.below(PIECES.len())]).collect()
}

fn random_bytes(tape: &mut Tape) -> Vec<u8> {
    (0..tape.below(20)).map(|_| tape.below(256) as u8).collect()
}

/// What `_extra` must hold for a value of the writer, as far as the reader lacks it.
pub fn extra_of(value: &Value, writer: &Type, reader: &Type) -> Option<Json> {
    match (value, writer, reader) {
        (Value::Union(branch, inner), Type::Union(branches), _) => extra_of(inner, &branches[*branch as usize], reader),
        (_, _, Type::Union(readers)) => {
            let same = readers.iter().find(|branch| branch.word() == writer.word());
            let nullable = readers.iter().find(|branch| !branch.is_null() && readers.len() == 2);
            extra_of(value, writer, same.or(nullable)?)
        }
        (Value::Record(values), Type::Record { fields, .. }, Type::Record { fields: read, .. }) => {
            let mut extra = serde_json::Map::new();
            for ((_, value), field) in values.iter().zip(fields) {
                let known = read.iter().find(|other| other.name == field.name || other.aliases.contains(&field.name));
                let part = match known {
                    Some(known) => extra_of(value, &field.of, &known.of).filter(|part| !part.is_null()),
                    None => Some(natural_json(value)),
                };
                extra.extend(part.map(|part| (field.name.clone(), part)));
            }
            Some(Json::Object(extra)).filter(|extra| *extra != json!({}))
        }
        (Value::Array(values), Type::Array(of), Type::Array(read)) => {
            let parts: Vec<_> = values.iter().map(|value| extra_of(value, of, read)).collect();
            parts.iter().any(Option::is_some).then(|| parts.into_iter().map(Option::unwrap_or_default).collect())
        }
        (Value::Map(values), Type::Map(of), Type::Map(read)) => {
            let part = |(key, value): (&String, &Value)| (key.clone(), extra_of(value, of, read).unwrap_or_default());
            let parts: serde_json::Map<_, _> = values.iter().map(part).collect();
            parts.values().any(|part| !part.is_null()).then_some(Json::Object(parts))
        }
        _ => None,
    }
}

fn natural_json(value: &Value) -> Json {
    let number = |finite: bool, text: String| {
        if finite { serde_json::from_str(&text).unwrap() } else { json!(text.replace("inf", "Infinity")) }
    };
    match value {
        Value::Null => Json::Null,
        Value::Boolean(value) => json!(value),
        Value::Int(value) | Value::Date(value) | Value::TimeMillis(value) => json!(value),
        Value::Long(value)
        | Value::TimeMicros(value)
        | Value::TimestampMillis(value)
        | Value::TimestampNanos(value)
        | Value::LocalTimestampMicros(value) => json!(value),
        Value::Float(value) => number(value.is_finite(), format!("{value:?}")),
        Value::Double(value) => number(value.is_finite(), format!("{value:?}")),
        Value::String(value) | Value::Enum(_, value) => json!(value),
        Value::Union(_, inner) => natural_json(inner),
        Value::Array(values) => values.iter().map(natural_json).collect(),
        Value::Map(entries) => {
            Json::Object(entries.iter().map(|(key, value)| (key.clone(), natural_json(value))).collect())
        }
        Value::Record(fields) => {
            Json::Object(fields.iter().map(|(name, value)| (name.clone(), natural_json(value))).collect())
        }
        // Their text has tests of its own.
        _ => json!("(bytes)"),
    }
}
