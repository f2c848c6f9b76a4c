//! Values in a form in which a row of an Arrow array and a value of apache-avro can be compared.

use apache_avro::types::Value;
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType,
    Time64MicrosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_buffer::i256;
use arrow_schema::{DataType, TimeUnit};

use super::Type;

/// A value without its type. Floats by their bits, so that a NaN is equal to itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plain {
    Null,
    Boolean(bool),
    Number(i64),
    Float(u32),
    Double(u64),
    Decimal(String),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Plain>),
    /// Sorted by key: apache-avro keeps no order.
    Map(Vec<(String, Plain)>),
    Record(Vec<(String, Plain)>),
}

/// One row of an array.
pub fn plain_of_array(array: &dyn Array, row: usize) -> Plain {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return Plain::Null;
    }
    let number = |value: i32| Plain::Number(i64::from(value));
    match array.data_type() {
        DataType::Boolean => Plain::Boolean(array.as_boolean().value(row)),
        DataType::Int32 => number(array.as_primitive::<Int32Type>().value(row)),
        DataType::Date32 => number(array.as_primitive::<Date32Type>().value(row)),
        DataType::Time32(_) => number(array.as_primitive::<Time32MillisecondType>().value(row)),
        DataType::Int64 => Plain::Number(array.as_primitive::<Int64Type>().value(row)),
        DataType::Time64(_) => Plain::Number(array.as_primitive::<Time64MicrosecondType>().value(row)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Plain::Number(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Plain::Number(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Timestamp(_, _) => Plain::Number(array.as_primitive::<TimestampNanosecondType>().value(row)),
        DataType::Float32 => Plain::Float(array.as_primitive::<Float32Type>().value(row).to_bits()),
        DataType::Float64 => Plain::Double(array.as_primitive::<Float64Type>().value(row).to_bits()),
        DataType::Decimal128(..) => Plain::Decimal(array.as_primitive::<Decimal128Type>().value(row).to_string()),
        DataType::Decimal256(..) => Plain::Decimal(array.as_primitive::<Decimal256Type>().value(row).to_string()),
        DataType::Utf8 => Plain::Text(array.as_string::<i32>().value(row).to_owned()),
        DataType::Binary => Plain::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::FixedSizeBinary(_) => Plain::Bytes(array.as_fixed_size_binary().value(row).to_vec()),
        DataType::Dictionary(..) => {
            let dictionary = array.as_dictionary::<Int32Type>();
            plain_of_array(dictionary.values(), dictionary.keys().value(row) as usize)
        }
        DataType::Struct(fields) => {
            let members = fields.iter().zip(array.as_struct().columns());
            Plain::Record(members.map(|(field, member)| (field.name().clone(), plain_of_array(member, row))).collect())
        }
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Plain::List((0..items.len()).map(|item| plain_of_array(&items, item)).collect())
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
            let mut entries: Vec<_> =
                (0..entries.len()).map(|entry| (keys.value(entry).to_owned(), plain_of_array(values, entry))).collect();
            entries.sort();
            Plain::Map(entries)
        }
        other => panic!("{other}"),
    }
}

/// A value that apache-avro resolved to the reader's type.
pub fn plain_of_value(value: &Value, of: &Type) -> Plain {
    match (value, of) {
        (Value::Union(_, inner), Type::Union(branches)) => {
            let set: Vec<_> = branches.iter().filter(|branch| !branch.is_null()).collect();
            let Value::Union(branch, _) = value else { panic!() };
            let branch = &branches[*branch as usize];
            if branch.is_null() {
                return Plain::Null;
            }
            if set.len() == 1 {
                return plain_of_value(inner, branch);
            }
            let member = |other: &&Type| {
                let value = if *other == branch { plain_of_value(inner, branch) } else { Plain::Null };
                (other.word(), value)
            };
            Plain::Record(set.iter().map(member).collect())
        }
        (Value::Null, _) => Plain::Null,
        (Value::Boolean(value), _) => Plain::Boolean(*value),
        (Value::Int(value) | Value::Date(value) | Value::TimeMillis(value), _) => Plain::Number(i64::from(*value)),
        (
            Value::Long(value)
            | Value::TimeMicros(value)
            | Value::TimestampMillis(value)
            | Value::TimestampMicros(value)
            | Value::TimestampNanos(value)
            | Value::LocalTimestampMillis(value)
            | Value::LocalTimestampMicros(value)
            | Value::LocalTimestampNanos(value),
            _,
        ) => Plain::Number(*value),
        (Value::Float(value), _) => Plain::Float(value.to_bits()),
        (Value::Double(value), _) => Plain::Double(value.to_bits()),
        (Value::Decimal(value), _) => {
            let bytes = Vec::<u8>::try_from(value).unwrap();
            let mut wide = [if bytes[0] < 0x80 { 0 } else { 0xff }; 32];
            wide[32 - bytes.len()..].copy_from_slice(&bytes);
            Plain::Decimal(i256::from_be_bytes(wide).to_string())
        }
        (Value::String(value) | Value::Enum(_, value), _) => Plain::Text(value.clone()),
        (Value::Bytes(value) | Value::Fixed(_, value), _) => Plain::Bytes(value.clone()),
        (Value::Array(values), Type::Array(items)) => {
            Plain::List(values.iter().map(|value| plain_of_value(value, items)).collect())
        }
        (Value::Map(entries), Type::Map(of)) => {
            let mut entries: Vec<_> =
                entries.iter().map(|(key, value)| (key.clone(), plain_of_value(value, of))).collect();
            entries.sort();
            Plain::Map(entries)
        }
        (Value::Record(values), Type::Record { fields, .. }) => {
            let members = values.iter().zip(fields);
            Plain::Record(
                members.map(|((name, value), field)| (name.clone(), plain_of_value(value, &field.of))).collect(),
            )
        }
        (value, of) => panic!("{value:?} is no {of:?}"),
    }
}
