//! Defaults of the reader's fields, turned from JSON into Avro's binary encoding, so that the decoder reads them with
//! the same operations as any body.

use serde_json::Value;

use super::schema::{Kind, NodeId, Schema};

/// Appends the encoding of `json` as a value of type `node`; an error says what does not fit.
///
/// The specification asks that a union's default be of its first branch; newer versions allow any branch, and so does
/// this: the first that fits is taken.
pub(super) fn encode(schema: &Schema, node: NodeId, json: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    match (&schema.node(node).kind, json) {
        (Kind::Null, Value::Null) => {}
        (Kind::Boolean, Value::Bool(value)) => out.push(u8::from(*value)),
        (Kind::Int, Value::Number(number)) => {
            let value = number.as_i64().and_then(|value| i32::try_from(value).ok());
            long(i64::from(value.ok_or_else(|| misfit(schema, node, json))?), out);
        }
        (Kind::Long, Value::Number(number)) => long(number.as_i64().ok_or_else(|| misfit(schema, node, json))?, out),
        (Kind::Float, Value::Number(number)) => {
            let value = number.as_f64().ok_or_else(|| misfit(schema, node, json))?;
            out.extend_from_slice(&(value as f32).to_le_bytes());
        }
        (Kind::Double, Value::Number(number)) => {
            let value = number.as_f64().ok_or_else(|| misfit(schema, node, json))?;
            out.extend_from_slice(&value.to_le_bytes());
        }
        (Kind::String, Value::String(value)) => bytes(value.as_bytes(), out),
        (Kind::Bytes, Value::String(value)) => {
            bytes(&latin1(value).ok_or_else(|| misfit(schema, node, json))?, out);
        }
        (Kind::Fixed { size, .. }, Value::String(value)) => {
            let content = latin1(value).filter(|content| content.len() == *size);
            out.extend_from_slice(&content.ok_or_else(|| misfit(schema, node, json))?);
        }
        (Kind::Enum { symbols, .. }, Value::String(value)) => {
            let symbol = symbols.iter().position(|symbol| symbol == value);
            long(symbol.ok_or_else(|| misfit(schema, node, json))? as i64, out);
        }
        (Kind::Array(items), Value::Array(values)) => {
            if !values.is_empty() {
                long(values.len() as i64, out);
            }
            for value in values {
                encode(schema, *items, value, out)?;
            }
            out.push(0);
        }
        (Kind::Map(values), Value::Object(entries)) => {
            if !entries.is_empty() {
                long(entries.len() as i64, out);
            }
            for (key, value) in entries {
                bytes(key.as_bytes(), out);
                encode(schema, *values, value, out)?;
            }
            out.push(0);
        }
        (Kind::Record { fields, .. }, Value::Object(members)) => {
            for field in fields {
                let member = members.get(&field.name).or(field.default.as_ref());
                let member = member.ok_or_else(|| format!("{json} lacks the field `{}`", field.name))?;
                encode(schema, field.node, member, out)?;
            }
        }
        (Kind::Union(branches), _) => return union(schema, node, branches, json, out),
        _ => return Err(misfit(schema, node, json)),
    }
    Ok(())
}

fn union(schema: &Schema, node: NodeId, branches: &[NodeId], json: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    for (index, branch) in branches.iter().enumerate() {
        long(index as i64, out);
        if encode(schema, *branch, json, out).is_ok() {
            return Ok(());
        }
        out.truncate(start);
    }
    Err(misfit(schema, node, json))
}

fn misfit(schema: &Schema, node: NodeId, json: &Value) -> String {
    format!("{json} is no {}", schema.describe(node))
}

/// "Default values for bytes and fixed fields are JSON strings, where Unicode code points 0-255 are mapped to unsigned
/// 8-bit byte values 0-255."
fn latin1(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

fn bytes(content: &[u8], out: &mut Vec<u8>) {
    long(content.len() as i64, out);
    out.extend_from_slice(content);
}

/// Appends a zigzag varint.
pub(super) fn long(value: i64, out: &mut Vec<u8>) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
