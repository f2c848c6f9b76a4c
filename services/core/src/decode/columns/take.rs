//! From columns to Arrow arrays, without copying the values.

use std::sync::Arc;

use arrow_array::types::{
    Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int32Type, Int64Type, Time32MillisecondType,
    Time64MicrosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
};
use arrow_array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, DictionaryArray, FixedSizeBinaryArray, ListArray,
    MapArray, NullArray, PrimitiveArray, StringArray, StructArray,
};
use arrow_buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, FieldRef, Fields, TimeUnit};

use super::column::{Column, Data};
use super::dictionary::text_array;

impl Column {
    /// Hands out all rows and starts empty, with room for about as many.
    pub(super) fn take(&mut self) -> ArrayRef {
        let nulls = self.take_nulls();
        let data_type = &self.data_type;
        match &mut self.data {
            Data::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
            Data::Boolean(values) => Arc::new(BooleanArray::new(hand_out(values).into(), nulls)),
            Data::Int(values) => ints(hand_out(values), nulls, data_type),
            Data::Long(values) => longs(hand_out(values), nulls, data_type),
            Data::Float(values) => primitive::<Float32Type>(hand_out(values), nulls, data_type),
            Data::Double(values) => primitive::<Float64Type>(hand_out(values), nulls, data_type),
            Data::Decimal128(values) => primitive::<Decimal128Type>(hand_out(values), nulls, data_type),
            Data::Decimal256(values) => primitive::<Decimal256Type>(hand_out(values), nulls, data_type),
            Data::Fixed { size, bytes } => {
                let values = Buffer::from_vec(hand_out(bytes));
                Arc::new(FixedSizeBinaryArray::new(*size as i32, values, nulls))
            }
            Data::Binary { offsets, bytes } => {
                let values = Buffer::from_vec(hand_out(bytes));
                Arc::new(BinaryArray::new(hand_out_offsets(offsets), values, nulls))
            }
            Data::Utf8 { offsets, text } => {
                let room = String::with_capacity(room_for(text.len()));
                let text = std::mem::replace(text, room).into_bytes();
                let array = StringArray::try_new(hand_out_offsets(offsets), Buffer::from_vec(text), nulls);
                Arc::new(array.expect("text is checked before it is appended"))
            }
            Data::Dictionary { keys, dictionary } => {
                let mut keys = hand_out(keys);
                let values = dictionary.share(&mut keys, |row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)));
                dictionary.end_batch();
                dictionary_array(keys, nulls, values)
            }
            Data::Symbols { keys, symbols } => {
                let mut offsets = vec![0];
                offsets.extend(symbols.iter().scan(0, |end, symbol| {
                    *end += symbol.len() as i32;
                    Some(*end)
                }));
                dictionary_array(hand_out(keys), nulls, text_array(offsets, symbols.concat().into_bytes(), None))
            }
            Data::Struct { rows, children } => {
                let arrays = children.iter_mut().map(Column::take).collect();
                let rows = std::mem::take(rows);
                let array = StructArray::try_new_with_length(struct_fields(data_type), arrays, nulls, rows);
                Arc::new(array.expect("all members of a record have as many rows as the record"))
            }
            Data::List { offsets, items } => {
                let array = ListArray::try_new(child_field(data_type), hand_out_offsets(offsets), items.take(), nulls);
                Arc::new(array.expect("the offsets of an array count its items"))
            }
            Data::Map { offsets, keys, values } => {
                let field = child_field(data_type);
                let entries =
                    StructArray::new(struct_fields(field.data_type()), vec![keys.take(), values.take()], None);
                let array = MapArray::try_new(field, hand_out_offsets(offsets), entries, nulls, false);
                Arc::new(array.expect("the offsets of a map count its entries"))
            }
        }
    }

    /// The validity as bits; `None` where no row is null.
    fn take_nulls(&mut self) -> Option<NullBuffer> {
        let validity = hand_out(self.validity.as_mut()?);
        let nulls = NullBuffer::from(validity);
        (nulls.null_count() > 0).then_some(nulls)
    }
}

fn ints(values: Vec<i32>, nulls: Option<NullBuffer>, data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Date32 => primitive::<Date32Type>(values, nulls, data_type),
        DataType::Time32(_) => primitive::<Time32MillisecondType>(values, nulls, data_type),
        _ => primitive::<Int32Type>(values, nulls, data_type),
    }
}

fn longs(values: Vec<i64>, nulls: Option<NullBuffer>, data_type: &DataType) -> ArrayRef {
    match data_type {
        DataType::Time64(_) => primitive::<Time64MicrosecondType>(values, nulls, data_type),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            primitive::<TimestampMillisecondType>(values, nulls, data_type)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            primitive::<TimestampMicrosecondType>(values, nulls, data_type)
        }
        DataType::Timestamp(_, _) => primitive::<TimestampNanosecondType>(values, nulls, data_type),
        _ => primitive::<Int64Type>(values, nulls, data_type),
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: Vec<T::Native>,
    nulls: Option<NullBuffer>,
    data_type: &DataType,
) -> ArrayRef {
    let array = PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls);
    // Adds what the Rust type lacks: time zone, precision and scale.
    Arc::new(array.with_data_type(data_type.clone()))
}

fn dictionary_array(keys: Vec<i32>, nulls: Option<NullBuffer>, values: ArrayRef) -> ArrayRef {
    let keys = PrimitiveArray::<Int32Type>::new(ScalarBuffer::from(keys), nulls);
    let array = DictionaryArray::try_new(keys, values);
    Arc::new(array.expect("every key was handed out by the dictionary"))
}

fn struct_fields(data_type: &DataType) -> Fields {
    match data_type {
        DataType::Struct(fields) => fields.clone(),
        _ => Fields::empty(),
    }
}

fn child_field(data_type: &DataType) -> FieldRef {
    match data_type {
        DataType::List(field) | DataType::Map(field, _) => Arc::clone(field),
        other => unreachable!("{other} has no child, but its column has"),
    }
}

/// All values, with room for about as many left behind.
pub(crate) fn hand_out<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(room_for(values.len()));
    std::mem::replace(values, room)
}

pub(super) fn hand_out_offsets(offsets: &mut Vec<i32>) -> OffsetBuffer<i32> {
    let taken = hand_out(offsets);
    offsets.push(0);
    OffsetBuffer::new(ScalarBuffer::from(taken))
}

/// An eighth on top, so that batches that vary a little do not grow again.
fn room_for(length: usize) -> usize {
    length + length / 8
}
