//! A record as JSON by its writer's schema, as far as it can be read, and back: for people who look at a refused record
//! and mend it. Nothing on the way of an event comes through here.
//!
//! The JSON is that of `_extra` (see [`super::json`]). The way back takes for a union the first branch that fits.

use serde_json::Value;

use super::cursor::Cursor;
use super::fault::Outcome;
use super::json::Sink;
use super::schema::{self, Kind, Logical, NodeId, Schema, SchemaError};
use super::{DecodeLimits, decimal};
use crate::reject::Reject;

/// A schema to look at records with, whether or not the pipeline could read what it writes.
#[derive(Debug, Clone)]
pub struct NaturalSchema {
    schema: Schema,
    max_depth: usize,
    max_bytes: usize,
}

/// A record as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The fields that could be read whole: name, and value as JSON text.
    pub fields: Vec<(String, String)>,
    /// Why the reading ended early.
    pub failure: Option<ReadingFailure>,
}

/// Where and why a record cannot be read any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadingFailure {
    /// Reason and sentence, as the pipeline would give them.
    pub reject: Reject,
    /// The field in which it happened; `None` behind the last one.
    pub field: Option<String>,
    /// The byte of the body at which the value starts that cannot be read.
    pub byte: usize,
}

impl Reading {
    /// The fields as one JSON object.
    pub fn json(&self) -> String {
        let members = self.fields.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}

impl NaturalSchema {
    /// Parses the text of a schema of a record, with those that it refers to, each behind those that it uses itself.
    pub fn parse(avsc: &str, references: &[String], limits: &DecodeLimits) -> Result<Self, SchemaError> {
        let schema = schema::parse(avsc, references)?;
        if !matches!(schema.node(schema.root()).kind, Kind::Record { .. }) {
            let problem = format!("a record is needed, this is a {}", schema.describe(schema.root()));
            return Err(SchemaError::Invalid { at: "the schema".to_owned(), problem });
        }
        Ok(Self {
            schema,
            max_depth: limits.max_depth.min(DecodeLimits::DEEPEST),
            max_bytes: limits.max_record_bytes.min(DecodeLimits::LARGEST_RECORD),
        })
    }

    /// Reads a body field by field until its end or the first fault.
    pub fn read(&self, body: &[u8]) -> Reading {
        let mut reading = Reading { fields: Vec::new(), failure: None };
        let Kind::Record { fields, .. } = &self.schema.node(self.schema.root()).kind else { return reading };
        let mut cursor = Cursor::new(body);
        for field in fields {
            let mut text = Vec::new();
            let limit = self.max_bytes.saturating_mul(super::columns::EXTRA_FACTOR);
            let mut sink = Sink { schema: &self.schema, text: &mut text, limit, max_depth: self.max_depth, values: 0 };
            let start = cursor.position();
            let read = sink.value(field.node, &mut cursor).map_err(|fault| fault.inside(&field.name));
            if let Err(failure) = failed(read, start, Some(&field.name)) {
                reading.failure = Some(failure);
                return reading;
            }
            reading.fields.push((field.name.clone(), String::from_utf8_lossy(&text).into_owned()));
        }
        reading.failure = failed(cursor.end(), cursor.position(), None).err();
        reading
    }

    /// The body of a record; an error names the field that does not fit.
    pub fn write(&self, record: &Value) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        self.encode(self.schema.root(), record, &mut out)?;
        Ok(out)
    }

    fn encode(&self, node: NodeId, json: &Value, out: &mut Vec<u8>) -> Result<(), String> {
        let misfit = || format!("{} is no {}", shortened(json), self.schema.describe(node));
        let described = self.schema.node(node);
        match (&described.kind, json) {
            (Kind::Null, Value::Null) => {}
            (Kind::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
            (Kind::Int, Value::Number(_)) => {
                let value = whole(json).and_then(|value| i32::try_from(value).ok()).ok_or_else(misfit)?;
                long(i64::from(value), out);
            }
            (Kind::Long, Value::Number(_)) => long(whole(json).ok_or_else(misfit)?, out),
            (Kind::Float, _) => out.extend_from_slice(&(float(json).ok_or_else(misfit)? as f32).to_le_bytes()),
            (Kind::Double, _) => out.extend_from_slice(&float(json).ok_or_else(misfit)?.to_le_bytes()),
            (Kind::String, Value::String(text)) => bytes(text.as_bytes(), out),
            (Kind::Bytes, Value::String(text)) => {
                let content = match described.logical {
                    Some(Logical::Decimal { precision, scale }) => decimal::parse(text, precision, scale),
                    _ => from_base64(text),
                };
                bytes(&content.ok_or_else(misfit)?, out);
            }
            (Kind::Fixed { size, .. }, Value::String(text)) => {
                let content = match described.logical {
                    Some(Logical::Decimal { precision, scale }) => {
                        decimal::parse(text, precision, scale).and_then(|number| decimal::widen(&number, *size))
                    }
                    Some(Logical::Uuid) => from_uuid(text),
                    _ => from_base64(text),
                };
                out.extend_from_slice(&content.filter(|content| content.len() == *size).ok_or_else(misfit)?);
            }
            (Kind::Enum { symbols, .. }, Value::String(text)) => {
                let symbol = symbols.iter().position(|symbol| symbol == text);
                long(symbol.ok_or_else(misfit)? as i64, out);
            }
            (Kind::Array(items), Value::Array(values)) => {
                count(values.len(), out);
                for value in values {
                    self.encode(*items, value, out)?;
                }
                out.push(0);
            }
            (Kind::Map(values), Value::Object(entries)) => {
                count(entries.len(), out);
                for (key, value) in entries {
                    bytes(key.as_bytes(), out);
                    self.encode(*values, value, out).map_err(|problem| format!("`{key}`: {problem}"))?;
                }
                out.push(0);
            }
            (Kind::Record { fields, .. }, Value::Object(members)) => {
                if let Some(unknown) = members.keys().find(|name| fields.iter().all(|field| field.name != **name)) {
                    return Err(format!("`{}` has no field `{unknown}`", self.schema.describe(node)));
                }
                for field in fields {
                    let value = members.get(&field.name).or(field.default.as_ref());
                    let value = value.ok_or_else(|| format!("the field `{}` is missing", field.name))?;
                    self.encode(field.node, value, out)
                        .map_err(|problem| format!("field `{}`: {problem}", field.name))?;
                }
            }
            (Kind::Union(branches), _) => {
                let start = out.len();
                for (index, branch) in branches.iter().enumerate() {
                    long(index as i64, out);
                    if self.encode(*branch, json, out).is_ok() {
                        return Ok(());
                    }
                    out.truncate(start);
                }
                return Err(misfit());
            }
            _ => return Err(misfit()),
        }
        Ok(())
    }
}

fn failed(outcome: Outcome<()>, start: usize, field: Option<&str>) -> Result<(), ReadingFailure> {
    outcome.map_err(|fault| {
        let reject = fault.into_reject();
        let byte = byte_of(&reject.detail).unwrap_or(start);
        ReadingFailure { reject, field: field.map(ToOwned::to_owned), byte }
    })
}

/// All sentences about a body say `at byte N` of the value that cannot be read.
fn byte_of(detail: &str) -> Option<usize> {
    let (_, behind) = detail.rsplit_once("at byte ")?;
    let digits = behind.split(|letter: char| !letter.is_ascii_digit()).next()?;
    digits.parse().ok()
}

fn shortened(json: &Value) -> String {
    const SHOWN: usize = 60;
    let text = json.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A whole number, also one that arithmetic has made a float of.
fn whole(json: &Value) -> Option<i64> {
    /// Beyond, floats do not hold every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let of_float = |value: f64| (value.fract() == 0.0 && value.abs() <= EXACT).then_some(value as i64);
    json.as_i64().or_else(|| json.as_f64().filter(|_| !json.is_u64()).and_then(of_float))
}

fn float(json: &Value) -> Option<f64> {
    match json {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn count(items: usize, out: &mut Vec<u8>) {
    if items > 0 {
        long(items as i64, out);
    }
}

fn bytes(content: &[u8], out: &mut Vec<u8>) {
    long(content.len() as i64, out);
    out.extend_from_slice(content);
}

fn long(value: i64, out: &mut Vec<u8>) {
    super::defaults::long(value, out);
}

fn from_uuid(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    (digits.len() == 32).then(|| digits.chunks(2).map(pair).collect())?
}

/// RFC 4648, padded.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let sextet = |letter: u8| {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(u32::from(value))
    };
    let letters = text.as_bytes();
    if !letters.len().is_multiple_of(4) {
        return None;
    }
    let padding = letters.iter().rev().take_while(|letter| **letter == b'=').count();
    let content = letters.get(..letters.len() - padding.min(2))?;
    let mut out = Vec::with_capacity(letters.len() / 4 * 3);
    for chunk in content.chunks(4) {
        let mut bits = 0;
        for index in 0..4 {
            bits = bits << 6 | chunk.get(index).map_or(Some(0), |letter| sextet(*letter))?;
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reject::Reason;

    const SCHEMA: &str = r#"{"type": "record", "name": "R", "fields": [
        {"name": "id", "type": "string"},
        {"name": "n", "type": "long"},
        {"name": "x", "type": "double"},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A", "B"]}},
        {"name": "maybe", "type": ["null", "float", "string"]},
        {"name": "raw", "type": "bytes"},
        {"name": "cost", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}},
        {"name": "uuid", "type": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}},
        {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "int"}}},
        {"name": "inner", "type": {"type": "record", "name": "I", "fields": [{"name": "b", "type": "boolean"}]}}
    ]}"#;

    fn schema() -> NaturalSchema {
        NaturalSchema::parse(SCHEMA, &[], &DecodeLimits::default()).unwrap()
    }

    fn record() -> Value {
        json!({
            "id": "süd", "n": -9_007_199_254_740_993_i64, "x": "NaN", "kind": "B", "maybe": 0.5, "raw": "AP8Q",
            "cost": "-1234567890123456.05", "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f",
            "tags": {"a": [1, -2], "": []}, "inner": {"b": true}
        })
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let schema = schema();
        let body = schema.write(&record()).unwrap();
        let reading = schema.read(&body);
        assert_eq!(reading.failure, None);
        assert_eq!(serde_json::from_str::<Value>(&reading.json()).unwrap(), record());
        assert_eq!(schema.write(&serde_json::from_str(&reading.json()).unwrap()), Ok(body));
    }

    #[test]
    fn a_broken_record_is_read_up_to_the_fault() {
        let schema = schema();
        let body = schema.write(&record()).unwrap();
        let cut = schema.read(&body[..8]);
        let names: Vec<_> = cut.fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["id"]);
        let failure = cut.failure.unwrap();
        assert_eq!(
            (failure.reject.reason, failure.field.as_deref(), failure.byte),
            (Reason::TruncatedBody, Some("n"), 5)
        );
        let mut longer = body.clone();
        longer.push(7);
        let failure = schema.read(&longer).failure.unwrap();
        assert_eq!((failure.reject.reason, failure.field, failure.byte), (Reason::TrailingBytes, None, body.len()));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let schema = schema();
        let with = |name: &str, value: Value| {
            let mut changed = record();
            changed[name] = value;
            schema.write(&changed).unwrap_err()
        };
        for (name, value, said) in [
            ("n", json!(1.5), "field `n`: 1.5 is no long"),
            ("kind", json!("C"), "field `kind`: \"C\" is no K"),
            ("maybe", json!(true), "field `maybe`: true is no union"),
            ("raw", json!("!"), "is no bytes"),
            ("cost", json!("1.234"), "is no bytes"),
            ("extra", json!(1), "has no field `extra`"),
        ] {
            let problem = with(name, value);
            assert!(problem.contains(said), "{problem}");
        }
        assert!(schema.write(&json!({"id": "x"})).unwrap_err().contains("`n` is missing"));
        assert!(NaturalSchema::parse("\"string\"", &[], &DecodeLimits::default()).is_err());
    }

    #[test]
    fn whole_numbers_may_come_as_floats() {
        let schema = schema();
        let mut changed = record();
        changed["n"] = json!(5.0);
        let reading = schema.read(&schema.write(&changed).unwrap());
        assert_eq!(reading.fields[1], ("n".to_owned(), "5".to_owned()));
    }
}
