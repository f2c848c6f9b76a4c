//! Every type of Avro into Arrow, through Parquet and back; the rules of schema resolution, one by one; the limits.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it stands")]

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::Schema;
use kappa_core::decode::{Columns, CompileError, DecodeLimits, Decoder, ReaderSchema, SchemaError};
use kappa_core::reject::{Reason, Reject};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use support::{Plain, plain_of_array};

#[path = "support/decode.rs"]
mod support;

/// A record of one field `x`.
fn record_of(x: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{{"name":"x","type":{x}}}]}}"#)
}

fn compiled(writer: &str, reader: &str) -> Result<(Decoder, Columns, ReaderSchema), CompileError> {
    let reader = ReaderSchema::parse(reader).unwrap();
    let limits = DecodeLimits::default();
    let decoder = Decoder::compile(writer, &[], &reader, &limits)?;
    let columns = reader.new_columns(&limits);
    Ok((decoder, columns, reader))
}

/// The rows of bodies of a one-field record.
fn read(writer: &str, reader: &str, bodies: &[&[u8]]) -> Vec<Result<Plain, Reject>> {
    let (decoder, mut columns, _) = compiled(writer, reader).unwrap();
    let outcomes: Vec<_> = bodies.iter().map(|body| decoder.decode(body, &mut columns)).collect();
    let (arrays, _) = columns.take();
    let mut row = 0..;
    outcomes.into_iter().map(|outcome| outcome.map(|()| plain_of_array(&arrays[0], row.next().unwrap()))).collect()
}

fn read_x(writer: &str, reader: &str, body: &[u8]) -> Result<Plain, Reject> {
    read(&record_of(writer), &record_of(reader), &[body]).remove(0)
}

fn incompatible(writer: &str, reader: &str) -> (String, String) {
    match compiled(writer, reader) {
        Err(CompileError::Incompatible { path, rule }) => (path, rule),
        other => panic!("{other:?}"),
    }
}

fn text(text: &str) -> Plain {
    Plain::Text(text.to_owned())
}

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
        (r#"{"type":"array","items":"string"}"#, vec![2, 2, b'a', 2, 2, b'b', 0], Plain::List(vec![text("a"), text("b")])),
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
    let mut fields = vec![r#"{"name":"f0","type":{"type":"record","name":"T0","fields":[{"name":"a","type":"int"}]}}"#.to_owned()];
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
fn defaults_of_every_type_fill_what_the_writer_lacks() {
    let cases = [
        (r#""boolean""#, "true", Plain::Boolean(true)),
        (r#""int""#, "-1", Plain::Number(-1)),
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "5", Plain::Number(5)),
        (r#""float""#, "1", Plain::Float(1.0_f32.to_bits())),
        (r#""double""#, "1e3", Plain::Double(1e3_f64.to_bits())),
        (r#""string""#, r#""x""#, text("x")),
        (r#""bytes""#, r#""\u0000\u00ff""#, Plain::Bytes(vec![0, 255])),
        (r#"{"type":"fixed","name":"F","size":2}"#, r#""\u0000\u00ff""#, Plain::Bytes(vec![0, 255])),
        (r#"{"type":"bytes","logicalType":"decimal","precision":4}"#, r#""\u00ff""#, Plain::Decimal("-1".to_owned())),
        (r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, r#""B""#, text("B")),
        (r#"["null","string"]"#, "null", Plain::Null),
        (r#"["null","string"]"#, r#""any branch""#, text("any branch")),
        (r#"["string","null"]"#, r#""first""#, text("first")),
        (r#"{"type":"array","items":"int"}"#, "[1,2]", Plain::List(vec![Plain::Number(1), Plain::Number(2)])),
        (r#"{"type":"map","values":"int"}"#, r#"{"a":1}"#, Plain::Map(vec![("a".to_owned(), Plain::Number(1))])),
        (
            r#"{"type":"record","name":"P","fields":[{"name":"a","type":"int"},{"name":"b","type":"int","default":7}]}"#,
            r#"{"a":1}"#,
            Plain::Record(vec![("a".to_owned(), Plain::Number(1)), ("b".to_owned(), Plain::Number(7))]),
        ),
    ];
    let writer = r#"{"type":"record","name":"R","fields":[]}"#;
    for (of, default, expected) in cases {
        let reader = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"x","type":{of},"default":{default}}}]}}"#);
        assert_eq!(read(writer, &reader, &[&[]]), [Ok(expected)], "{of}");
    }
    for (of, default) in [(r#""int""#, "3000000000"), (r#""string""#, "1"), (r#""bytes""#, r#""\u0100""#)] {
        let reader = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"x","type":{of},"default":{default}}}]}}"#);
        assert!(matches!(ReaderSchema::parse(&reader), Err(SchemaError::Invalid { at, .. }) if at == "`R.x`"), "{of}");
    }
    let (path, rule) = incompatible(writer, &record_of(r#""int""#));
    assert_eq!(path, "x");
    assert!(rule.contains("no default"), "{rule}");
}

#[test]
fn promotions_are_those_of_the_specification_and_no_others() {
    let float = 0.5_f32.to_le_bytes();
    let allowed: [(&str, &str, &[u8], Plain); 9] = [
        ("int", "long", &[3], Plain::Number(-2)),
        ("int", "float", &[3], Plain::Float((-2.0_f32).to_bits())),
        ("int", "double", &[3], Plain::Double((-2.0_f64).to_bits())),
        ("long", "float", &[3], Plain::Float((-2.0_f32).to_bits())),
        ("long", "double", &[3], Plain::Double((-2.0_f64).to_bits())),
        ("float", "double", &float, Plain::Double(0.5_f64.to_bits())),
        ("string", "bytes", &[2, b'x'], Plain::Bytes(vec![b'x'])),
        ("bytes", "string", &[2, b'x'], text("x")),
        ("boolean", "boolean", &[0], Plain::Boolean(false)),
    ];
    let all = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    for writer in all {
        for reader in all {
            let found = allowed.iter().find(|(from, to, ..)| *from == writer && *to == reader);
            let (writer_type, reader_type) = (format!("\"{writer}\""), format!("\"{reader}\""));
            match found {
                Some((_, _, body, expected)) => {
                    assert_eq!(read_x(&writer_type, &reader_type, body), Ok(expected.clone()), "{writer} {reader}");
                    let nullable = format!("[\"null\",\"{reader}\"]");
                    assert_eq!(read_x(&writer_type, &nullable, body), Ok(expected.clone()), "{writer} {nullable}");
                }
                None if writer == reader => {}
                None => {
                    let (path, rule) = incompatible(&record_of(&writer_type), &record_of(&reader_type));
                    assert_eq!((path.as_str(), rule), ("x", format!("the writer's {writer} cannot be read as {reader}")));
                }
            }
        }
    }
    assert_eq!(read_x(r#""bytes""#, r#""string""#, &[2, 0xff]).unwrap_err().reason, Reason::InvalidUtf8);
}

#[test]
fn unions_are_resolved_on_both_sides() {
    // The writer's branch decides, record by record.
    let rows = read(&record_of(r#"["null","string","int"]"#), &record_of(r#""double""#), &[&[4, 2], &[0], &[2, 0], &[6], &[1]]);
    assert_eq!(rows[0], Ok(Plain::Double(1.0_f64.to_bits())));
    let reasons: Vec<_> = rows[1..].iter().map(|row| row.clone().unwrap_err().reason).collect();
    let (refused, no_branch) = (Reason::IncompatibleSchema, Reason::InvalidUnionBranch);
    assert_eq!(reasons, [refused.clone(), refused, no_branch.clone(), no_branch]);
    // The very same type before a promotion, a promotion in the order of the branches.
    let member = |name: &str, value| (name.to_owned(), value);
    let row = read_x(r#""int""#, r#"["long","int"]"#, &[2]);
    assert_eq!(row, Ok(Plain::Record(vec![member("long", Plain::Null), member("int", Plain::Number(1))])));
    let row = read_x(r#""int""#, r#"["string","double","long"]"#, &[2]);
    let set = vec![member("string", Plain::Null), member("double", Plain::Double(1.0_f64.to_bits())), member("long", Plain::Null)];
    assert_eq!(row, Ok(Plain::Record(set)));
    let (path, rule) = incompatible(&record_of(r#""boolean""#), &record_of(r#"["null","long"]"#));
    assert_eq!((path.as_str(), rule.as_str()), ("x", "the reader's union has no branch for the writer's boolean"));
    // Of two enums, the one with the writer's name, even if the other has the symbol too.
    let two = |first: &str, second: &str| {
        let of = |name: &str| format!(r#"{{"type":"enum","name":"{name}","symbols":["A"]}}"#);
        format!("[{},{}]", of(first), of(second))
    };
    let row = read_x(&two("E", "F"), &two("ns.F", "E"), &[2, 0]);
    assert_eq!(row, Ok(Plain::Record(vec![member("F", text("A")), member("E", Plain::Null)])));
    // No branch of the writer's union fits: no record can.
    incompatible(&record_of(r#"["null","string"]"#), &record_of(r#""double""#));
}

#[test]
fn enums_map_by_name_and_fall_back_to_the_default() {
    let of = |symbols: &str, default: &str| format!(r#"{{"type":"enum","name":"E","symbols":{symbols}{default}}}"#);
    let writer = record_of(&of(r#"["A","B","C"]"#, ""));
    let rows = read(&writer, &record_of(&of(r#"["C","A"]"#, "")), &[&[0], &[2], &[4], &[6], &[1]]);
    assert_eq!((&rows[0], &rows[2]), (&Ok(text("A")), &Ok(text("C"))));
    for row in [1, 3, 4] {
        assert_eq!(rows[row].clone().unwrap_err().reason, Reason::InvalidEnum);
    }
    assert!(rows[1].clone().unwrap_err().detail.starts_with("field `x`: symbol `B` at byte 0 is not in the reader's enum"));
    let rows = read(&writer, &record_of(&of(r#"["C","A"]"#, r#","default":"A""#)), &[&[2]]);
    assert_eq!(rows, [Ok(text("A"))]);
}

#[test]
fn names_and_aliases() {
    let fixed = |name: &str, size, more: &str| format!(r#"{{"type":"fixed","name":"{name}","size":{size}{more}}}"#);
    // The unqualified name counts; an alias helps; the size must match.
    assert!(read_x(&fixed("a.F", 1, ""), &fixed("b.F", 1, ""), &[1]).is_ok());
    assert!(read_x(&fixed("a.F", 1, ""), &fixed("G", 1, r#","aliases":["a.F"]"#), &[1]).is_ok());
    let (_, rule) = incompatible(&record_of(&fixed("F", 1, "")), &record_of(&fixed("G", 1, "")));
    assert!(rule.contains("`F` is neither called like the reader's `G` nor its alias"), "{rule}");
    let (_, rule) = incompatible(&record_of(&fixed("F", 1, "")), &record_of(&fixed("F", 2, "")));
    assert_eq!(rule, "fixed `F` has 1 bytes, the reader's has 2");
    // Field aliases; the same name wins over an alias.
    let writer = r#"{"type":"record","name":"R","fields":[{"name":"old","type":"int"},{"name":"older","type":"int"}]}"#;
    let reader = r#"{"type":"record","name":"R","fields":[{"name":"x","type":"int","aliases":["older"]}]}"#;
    assert_eq!(read(writer, reader, &[&[2, 4]]), [Ok(Plain::Number(2))]);
    // A decimal's precision and scale must match.
    let decimal = |scale| format!(r#"{{"type":"bytes","logicalType":"decimal","precision":9,"scale":{scale}}}"#);
    let (_, rule) = incompatible(&record_of(&decimal(1)), &record_of(&decimal(2)));
    assert_eq!(rule, "the writer's decimal(9,1) is not the reader's decimal(9,2)");
    // Other logical types take no part: the number stays, as in Java.
    let (millis, micros) = (r#"{"type":"long","logicalType":"timestamp-millis"}"#, r#"{"type":"long","logicalType":"timestamp-micros"}"#);
    assert_eq!(read_x(millis, micros, &[2]), Ok(Plain::Number(1)));
    assert_eq!(read_x(r#""int""#, millis, &[2]), Ok(Plain::Number(1)));
}

#[test]
fn types_of_other_subjects_and_of_namespaces_are_found() {
    let references = [
        r#"{"type":"enum","name":"Unit","namespace":"si","symbols":["K","V"]}"#.to_owned(),
        r#"{"type":"record","name":"si.Quantity","fields":[{"name":"unit","type":"Unit"},{"name":"value","type":"double"}]}"#
            .to_owned(),
    ];
    let writer = r#"{"type":"record","name":"R","namespace":"other","fields":[{"name":"x","type":"si.Quantity"}]}"#;
    let reader = r#"{"type":"record","name":"R","fields":[{"name":"x","type":{"type":"record","name":"Quantity","fields":[
        {"name":"unit","type":{"type":"enum","name":"Unit","symbols":["V","K"]}}]}}]}"#;
    let reader = ReaderSchema::parse(reader).unwrap();
    let limits = DecodeLimits::default();
    let decoder = Decoder::compile(writer, &references, &reader, &limits).unwrap();
    let mut columns = reader.new_columns(&limits);
    decoder.decode(&[&[0][..], &0.1_f64.to_le_bytes()].concat(), &mut columns).unwrap();
    let (arrays, extra) = columns.take();
    assert_eq!(plain_of_array(&arrays[0], 0), Plain::Record(vec![("unit".to_owned(), text("K"))]));
    assert_eq!(extra.as_string::<i32>().value(0), r#"{"x":{"value":0.1}}"#);
    let missing = Decoder::compile(writer, &[], &reader, &limits).unwrap_err();
    assert_eq!(missing, CompileError::NotAvro("`R.x`: type `si.Quantity` is not defined".to_owned()));
    assert_eq!(Reject::from(missing).reason, Reason::SchemaNotAvro);
}

/// The one-field writer type and body, and the `_extra` of a reader without fields.
fn extra_of(of: &str, body: &[u8]) -> Result<String, Reject> {
    let (decoder, mut columns, _) = compiled(&record_of(of), r#"{"type":"record","name":"R","fields":[]}"#).unwrap();
    decoder.decode(body, &mut columns)?;
    Ok(columns.take().1.as_string::<i32>().value(0).to_owned())
}

#[test]
fn unknown_fields_are_kept_as_json() {
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (r#""null""#, vec![], "null"),
        (r#""boolean""#, vec![1], "true"),
        (r#""long""#, vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "-9223372036854775808"),
        (r#""float""#, 0.1_f32.to_le_bytes().to_vec(), "0.1"),
        (r#""double""#, 1e300_f64.to_le_bytes().to_vec(), "1e300"),
        (r#""double""#, (-0.0_f64).to_le_bytes().to_vec(), "-0.0"),
        (r#""double""#, f64::NAN.to_le_bytes().to_vec(), r#""NaN""#),
        (r#""float""#, f32::NEG_INFINITY.to_le_bytes().to_vec(), r#""-Infinity""#),
        (r#""string""#, b"\x08\"\\\n\x01".to_vec(), r#""\"\\\n\u0001""#),
        (r#""bytes""#, vec![4, 0, 255], r#""AP8=""#),
        (r#"{"type":"enum","name":"E","symbols":["A","B"]}"#, vec![2], r#""B""#),
        (r#"{"type":"bytes","logicalType":"decimal","precision":5,"scale":2}"#, vec![4, 0xfb, 0x2e], r#""-12.34""#),
        (
            r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#,
            (0..16).collect(),
            r#""00010203-0405-0607-0809-0a0b0c0d0e0f""#,
        ),
        (r#"["null","int"]"#, vec![2, 2], "1"),
        (r#"{"type":"array","items":"int"}"#, vec![4, 2, 4, 2, 6, 0], "[1,2,3]"),
        (r#"{"type":"map","values":"int"}"#, vec![4, 2, b'k', 2, 2, b'k', 4, 0], r#"{"k":1,"k":2}"#),
        (
            r#"{"type":"record","name":"P","fields":[{"name":"a","type":"int"},{"name":"b","type":["null","P"]}]}"#,
            vec![2, 2, 4, 0],
            r#"{"a":1,"b":{"a":2,"b":null}}"#,
        ),
    ];
    for (of, body, expected) in cases {
        assert_eq!(extra_of(of, &body), Ok(format!(r#"{{"x":{expected}}}"#)), "{of}");
    }
    assert_eq!(extra_of(r#""string""#, &[2, 0xff]).unwrap_err().reason, Reason::InvalidUtf8);
    assert_eq!(extra_of(r#""boolean""#, &[2]).unwrap_err().reason, Reason::InvalidEnum);
}

#[test]
fn unknown_parts_stand_under_the_path_of_what_is_known() {
    let point = |more: &str| format!(r#"{{"type":"record","name":"P","fields":[{{"name":"lat","type":"int"}}{more}]}}"#);
    let altitude = r#",{"name":"alt","type":"int"}"#;
    let (decoder, mut columns, _) =
        compiled(&record_of(&format!(r#"["null",{}]"#, point(altitude))), &record_of(&format!(r#"["null",{}]"#, point("")))).unwrap();
    for body in [&[0][..], &[2, 2, 4], &[0]] {
        decoder.decode(body, &mut columns).unwrap();
    }
    let extra = columns.take().1;
    assert_eq!(extra.as_string::<i32>().iter().collect::<Vec<_>>(), [None, Some(r#"{"x":{"alt":2}}"#), None]);
    let array = |point: String| record_of(&format!(r#"{{"type":"array","items":["null",{point}]}}"#));
    let (decoder, mut columns, _) = compiled(&array(point(altitude)), &array(point(""))).unwrap();
    for body in [&[4, 0, 2, 2, 4, 0][..], &[0], &[2, 0, 0]] {
        decoder.decode(body, &mut columns).unwrap();
    }
    let extra = columns.take().1;
    assert_eq!(extra.as_string::<i32>().iter().collect::<Vec<_>>(), [Some(r#"{"x":[null,{"alt":2}]}"#), None, None]);
}

#[test]
fn lengths_depth_and_expansion_are_bounded() {
    let count = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let reason = |of: &str, body: &[u8]| read_x(of, of, body).unwrap_err();
    let reject = reason(r#"{"type":"map","values":"string"}"#, &[&count[..], &[2, b'k']].concat());
    assert_eq!(reject.reason, Reason::InvalidLength);
    let expected = "field `x`: map count 9223372036854775807 at byte 0 is more than the 2 bytes left can hold";
    assert_eq!(reject.detail, expected);
    assert_eq!(reason(r#"{"type":"array","items":"null"}"#, &count).reason, Reason::TooLarge);
    assert_eq!(reason(r#"{"type":"array","items":"int"}"#, &[200, 1, 2]).reason, Reason::InvalidLength);
    // The size of a block is negative, too large, or wrong.
    for body in [&[1, 1, 2, 0][..], &[1, 200, 1, 0], &[1, 4, 2, 0]] {
        assert_eq!(reason(r#"{"type":"array","items":"int"}"#, body).reason, Reason::InvalidLength, "{body:?}");
    }
    assert_eq!(reason(r#""int""#, &[0x80, 0x80, 0x80, 0x80, 0x10]).reason, Reason::InvalidLength);
    assert_eq!(reason(r#""string""#, &[4, b'x']).reason, Reason::TruncatedBody);
    assert_eq!(reason(r#""double""#, &[0; 7]).reason, Reason::TruncatedBody);
    assert_eq!(reason(r#""double""#, &[0; 9]).reason, Reason::TrailingBytes);
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":2}"#;
    assert_eq!(reason(decimal, &[2, 100]).reason, Reason::InvalidLength);
    assert_eq!(reason(decimal, &[0]).reason, Reason::InvalidLength);
    // A million records of nothing but defaults.
    let empty = r#"{"type":"array","items":{"type":"record","name":"P","fields":[]}}"#;
    let full = r#"{"type":"array","items":{"type":"record","name":"P","fields":[{"name":"s","type":"string","default":"0123456789"}]}}"#;
    let rows = read(&record_of(empty), &record_of(full), &[&[0x80, 0x89, 0x7a, 0]]);
    assert_eq!(rows[0].clone().unwrap_err().reason, Reason::TooLarge);
    // Into `_extra`: endless nulls, and endless depth.
    let endless = extra_of(r#"{"type":"array","items":"null"}"#, &count).unwrap_err();
    assert_eq!(endless.reason, Reason::TooLarge);
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    assert_eq!(extra_of(list, &[2, 2, 0]), Ok(r#"{"x":{"next":{"next":{"next":null}}}}"#.to_owned()));
    assert_eq!(extra_of(list, &[2; 1000]).unwrap_err().reason, Reason::TooDeep);
    let itself = r#"{"type":"record","name":"L","fields":[{"name":"me","type":"L"}]}"#;
    assert_eq!(extra_of(itself, &[]).unwrap_err().reason, Reason::TooDeep);
    let large = vec![0; (1 << 20) + 1];
    assert_eq!(reason(r#""string""#, &large).reason, Reason::TooLarge);
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
        let (decoder, mut columns, _) = compiled(&record_of(r#""string""#).replace("string", "long"), &record_of(of)).unwrap();
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
