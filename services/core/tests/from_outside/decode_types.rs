//! Every type of Avro into Arrow, through Parquet and back; rows read and taken back.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::Schema;
use kappa_core::decode::{DecodeLimits, ReaderSchema, SchemaError};
use kappa_core::reject::Reason;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::support::decode::{Plain, plain_of_array};
use crate::support::read::{compiled, record_of, text};

fn through_parquet(reader: &ReaderSchema, arrays: Vec<ArrayRef>) -> RecordBatch {
    let schema = Arc::new(Schema::new(reader.arrow_fields().clone()));
    let batch = RecordBatch::try_new(schema, arrays).unwrap();
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(file)).unwrap().build().unwrap();
    let back = reader.next().unwrap().unwrap();
    assert_eq!(back.schema().fields(), batch.schema().fields());
    assert_eq!(back, batch);
    back
}

/// Type, body, value: each goes through the decoder, an Arrow array and a Parquet file.
#[test]
fn every_type_survives_parquet() {
    let number = |value| Plain::Number(value);
    let bytes = |value: &[u8]| Plain::Bytes(value.to_vec());
    let decimal = |value: &str| Plain::Decimal(value.to_owned());
    let member = |name: &str, value| (name.to_owned(), value);
    let wide: [u8; 32] = std::array::from_fn(|index| if index == 0 { 0x10 } else { index as u8 });
    let cases: Vec<(&str, Vec<u8>, Plain)> = vec![
        (r#""null""#, vec![], Plain::Null),
        (r#""boolean""#, vec![1], Plain::Boolean(true)),
        (r#""int""#, vec![3], number(-2)),
        (r#""long""#, vec![0x80, 2], number(128)),
        (r#""float""#, 1.5_f32.to_le_bytes().to_vec(), Plain::Float(1.5_f32.to_bits())),
        (r#""double""#, f64::NAN.to_le_bytes().to_vec(), Plain::Double(f64::NAN.to_bits())),
        (r#""bytes""#, vec![4, 0, 255], bytes(&[0, 255])),
        (r#""string""#, vec![4, 0xc3, 0xa9], text("\u{e9}")),
        (r#"{"type":"fixed","name":"F","size":3}"#, vec![1, 2, 3], bytes(&[1, 2, 3])),
        (r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, vec![2], text("B")),
        (r#"{"type":"int","logicalType":"date"}"#, vec![2], number(1)),
        (r#"{"type":"int","logicalType":"time-millis"}"#, vec![2], number(1)),
        (r#"{"type":"long","logicalType":"time-micros"}"#, vec![2], number(1)),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, vec![1], number(-1)),
        (r#"{"type":"long","logicalType":"timestamp-micros"}"#, vec![1], number(-1)),
        (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, vec![1], number(-1)),
        (r#"{"type":"long","logicalType":"local-timestamp-millis"}"#, vec![1], number(-1)),
        (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, vec![1], number(-1)),
        (r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#, vec![1], number(-1)),
        (r#"{"type":"string","logicalType":"uuid"}"#, vec![2, b'u'], text("u")),
        (r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#, vec![7; 16], bytes(&[7; 16])),
        (r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#, vec![7; 12], bytes(&[7; 12])),
        (r#"{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}"#, vec![4, 0xfb, 0x2e], decimal("-1234")),
        (
            r#"{"type":"fixed","name":"D","size":32,"logicalType":"decimal","precision":76}"#,
            wide.to_vec(),
            decimal(&arrow_buffer::i256::from_be_bytes(wide).to_string()),
        ),
        // Invalid or unknown logical types are read as what is underneath.
        (r#"{"type":"bytes","logicalType":"decimal","precision":77}"#, vec![2, 9], bytes(&[9])),
        (r#"{"type":"bytes","logicalType":"decimal","precision":1,"scale":2}"#, vec![2, 9], bytes(&[9])),
        (r#"{"type":"fixed","name":"D","size":2,"logicalType":"decimal","precision":5}"#, vec![1, 2], bytes(&[1, 2])),
        (r#"{"type":"bytes","logicalType":"big-decimal"}"#, vec![2, 9], bytes(&[9])),
        (r#"{"type":"int","logicalType":"timestamp-millis"}"#, vec![2], number(1)),
        (r#"{"type":"string","logicalType":"postcode"}"#, vec![2, b'x'], text("x")),
        (r#"["null","string"]"#, vec![2, 2, b'x'], text("x")),
        (r#"["null","string"]"#, vec![0], Plain::Null),
        (r#"["double"]"#, [&[0][..], &2.0_f64.to_le_bytes()].concat(), Plain::Double(2.0_f64.to_bits())),
        (
            r#"{"type":"array","items":"string"}"#,
            vec![2, 2, b'a', 2, 2, b'b', 0],
            Plain::List(vec![text("a"), text("b")]),
        ),
        (r#"{"type":"array","items":"null"}"#, vec![4, 0], Plain::List(vec![Plain::Null, Plain::Null])),
        (r#"{"type":"array","items":["null","int"]}"#, vec![4, 0, 2, 2, 0], Plain::List(vec![Plain::Null, number(1)])),
        // A block with its size in bytes in front.
        (r#"{"type":"array","items":"int"}"#, vec![3, 4, 2, 4, 0], Plain::List(vec![number(1), number(2)])),
        (r#"{"type":"map","values":"long"}"#, vec![2, 2, b'k', 4, 0], Plain::Map(vec![member("k", number(2))])),
        (
            r#"{"type":"map","values":{"type":"array","items":["null","boolean"]}}"#,
            vec![2, 2, b'k', 2, 0, 0, 0],
            Plain::Map(vec![member("k", Plain::List(vec![Plain::Null]))]),
        ),
        (
            r#"["null",{"type":"record","name":"P","fields":[{"name":"a","type":"int"},{"name":"b","type":"string"}]}]"#,
            vec![2, 2, 2, b'x'],
            Plain::Record(vec![member("a", number(1)), member("b", text("x"))]),
        ),
        (
            r#"["null",{"type":"record","name":"P","fields":[{"name":"a","type":"int"},{"name":"b","type":"string"}]}]"#,
            vec![0],
            Plain::Null,
        ),
        (
            r#"["string","null","long",{"type":"fixed","name":"ns.long","size":1}]"#,
            vec![6, 9],
            Plain::Record(vec![
                member("string", Plain::Null),
                member("long", Plain::Null),
                member("long_2", bytes(&[9])),
            ]),
        ),
        (r#"["string","null","long"]"#, vec![2], Plain::Null),
    ];
    for (of, body, expected) in cases {
        let schema = record_of(of);
        let (decoder, mut columns, reader) = compiled(&schema, &schema).unwrap();
        for _ in 0..3 {
            decoder.decode(&body, &mut columns).unwrap_or_else(|reject| panic!("{of}: {reject}"));
        }
        let (arrays, extra) = columns.take();
        assert_eq!(extra.null_count(), 3);
        let back = through_parquet(&reader, arrays);
        for row in 0..3 {
            assert_eq!(plain_of_array(back.column(0), row), expected, "{of}");
        }
    }
}

#[test]
fn what_cannot_be_a_column_is_refused_with_its_name() {
    for of in [
        r#"{"type":"record","name":"E","fields":[]}"#,
        r#"{"type":"fixed","name":"F","size":0}"#,
        r#"{"type":"enum","name":"E","symbols":[]}"#,
    ] {
        let error = ReaderSchema::parse(&record_of(of)).unwrap_err();
        assert!(matches!(&error, SchemaError::Unsupported { at, .. } if at == "x"), "{error}");
    }
    let recursive = r#"{"type":"record","name":"a.Node","fields":[{"name":"next","type":["null","Node"]}]}"#;
    let error = ReaderSchema::parse(recursive).unwrap_err();
    assert_eq!(error, SchemaError::Recursive { name: "a.Node".to_owned(), at: "next".to_owned() });
    assert!(ReaderSchema::parse(r#""string""#).is_err());
    assert!(ReaderSchema::parse("{").is_err());
    // Each level doubles the columns.
    let mut fields =
        vec![r#"{"name":"f0","type":{"type":"record","name":"T0","fields":[{"name":"a","type":"int"}]}}"#.to_owned()];
    for level in 1..40 {
        let below = level - 1;
        fields.push(format!(
            r#"{{"name":"f{level}","type":{{"type":"record","name":"T{level}","fields":[{{"name":"a","type":"T{below}"}},{{"name":"b","type":"T{below}"}}]}}}}"#
        ));
    }
    let laughs = format!(r#"{{"type":"record","name":"R","fields":[{}]}}"#, fields.join(","));
    assert!(matches!(ReaderSchema::parse(&laughs), Err(SchemaError::TooLarge(_))));
}

#[test]
fn a_row_can_be_taken_back_with_all_that_it_brought() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"s","type":"string"},{"name":"v","type":"double"}]}"#;
    let (decoder, mut columns, reader) = compiled(schema, schema).unwrap();
    let body = |text: &str| [&[text.len() as u8 * 2][..], text.as_bytes(), &1.5_f64.to_le_bytes()].concat();
    decoder.decode(&body("a"), &mut columns).unwrap();
    decoder.decode(&body("b"), &mut columns).unwrap();
    assert_eq!(columns.column(0).symbol_count(), 2);
    columns.truncate(1);
    assert!(decoder.decode(&body("c")[..5], &mut columns).is_err());
    let column = columns.column(0);
    assert_eq!((column.symbol_count(), column.symbol_at(0), column.symbol_at(1)), (1, Some(0), None));
    assert_eq!((column.symbol_name(0), column.str_at(0), column.bytes_at(0)), ("a", Some("a"), Some(&b"a"[..])));
    assert_eq!((columns.column(1).double_at(0), columns.column(1).long_at(0)), (Some(1.5), None));
    assert_eq!((reader.index_of("v"), reader.index_of("w")), (Some(1), None));
    // The dictionary lives on: the key stays what it was.
    columns.take();
    decoder.decode(&body("b"), &mut columns).unwrap();
    decoder.decode(&body("a"), &mut columns).unwrap();
    assert_eq!((columns.column(0).symbol_at(0), columns.column(0).symbol_at(1)), (Some(1), Some(0)));
    assert_eq!(columns.column(0).dictionary_generation(), 0);
    let other = ReaderSchema::parse(&record_of(r#""int""#)).unwrap();
    let misfit = decoder.decode(&body("a"), &mut other.new_columns(&DecodeLimits::default())).unwrap_err();
    assert_eq!(misfit.reason, Reason::IncompatibleSchema);
}

#[test]
fn a_dictionary_that_grows_too_large_starts_afresh() {
    let (decoder, mut columns, _) = compiled(&record_of(r#""string""#), &record_of(r#""string""#)).unwrap();
    let mut body = vec![0x90, 0x4e];
    body.resize(2 + 5000, b'x');
    for number in 0..7000_u32 {
        body[2..6].copy_from_slice(format!("{number:04}").as_bytes());
        decoder.decode(&body, &mut columns).unwrap();
    }
    assert_eq!(columns.column(0).dictionary_generation(), 0);
    columns.take();
    assert_eq!((columns.column(0).dictionary_generation(), columns.column(0).symbol_count()), (1, 0));
}

#[test]
fn times_are_read_as_milliseconds() {
    for (of, ticks, millis) in [
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, -1, -1),
        (r#"{"type":"long","logicalType":"timestamp-micros"}"#, -1, -1),
        (r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#, -1_000_001, -2),
        (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, 1_999_999, 1),
        (r#""long""#, 7, 7),
    ] {
        let (decoder, mut columns, _) =
            compiled(&record_of(r#""string""#).replace("string", "long"), &record_of(of)).unwrap();
        let mut body = Vec::new();
        let mut rest = ((ticks << 1) ^ (ticks >> 63)) as u64;
        while rest >= 0x80 {
            body.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        body.push(rest as u8);
        decoder.decode(&body, &mut columns).unwrap();
        assert_eq!(columns.column(0).time_millis_at(0), Some(millis), "{of}");
        assert_eq!(columns.column(0).long_at(0), Some(ticks), "{of}");
    }
}
