//! The rules of schema resolution (Avro 1.12), one by one.

use arrow_array::cast::AsArray;
use kappa_core::decode::{CompileError, DecodeLimits, Decoder, ReaderSchema, SchemaError};
use kappa_core::reject::{Reason, Reject};

use crate::support::decode::{Plain, plain_of_array};
use crate::support::read::{incompatible, read, read_x, record_of, text};

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
        let reader =
            format!(r#"{{"type":"record","name":"R","fields":[{{"name":"x","type":{of},"default":{default}}}]}}"#);
        assert_eq!(read(writer, &reader, &[&[]]), [Ok(expected)], "{of}");
    }
    for (of, default) in [(r#""int""#, "3000000000"), (r#""string""#, "1"), (r#""bytes""#, r#""\u0100""#)] {
        let reader =
            format!(r#"{{"type":"record","name":"R","fields":[{{"name":"x","type":{of},"default":{default}}}]}}"#);
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
                    assert_eq!(
                        (path.as_str(), rule),
                        ("x", format!("the writer's {writer} cannot be read as {reader}"))
                    );
                }
            }
        }
    }
    assert_eq!(read_x(r#""bytes""#, r#""string""#, &[2, 0xff]).unwrap_err().reason, Reason::InvalidUtf8);
}

#[test]
fn unions_are_resolved_on_both_sides() {
    // The writer's branch decides, record by record.
    let rows = read(
        &record_of(r#"["null","string","int"]"#),
        &record_of(r#""double""#),
        &[&[4, 2], &[0], &[2, 0], &[6], &[1]],
    );
    assert_eq!(rows[0], Ok(Plain::Double(1.0_f64.to_bits())));
    let reasons: Vec<_> = rows[1..].iter().map(|row| row.clone().unwrap_err().reason).collect();
    let (refused, no_branch) = (Reason::IncompatibleSchema, Reason::InvalidUnionBranch);
    assert_eq!(reasons, [refused.clone(), refused, no_branch.clone(), no_branch]);
    // The very same type before a promotion, a promotion in the order of the branches.
    let member = |name: &str, value| (name.to_owned(), value);
    let row = read_x(r#""int""#, r#"["long","int"]"#, &[2]);
    assert_eq!(row, Ok(Plain::Record(vec![member("long", Plain::Null), member("int", Plain::Number(1))])));
    let row = read_x(r#""int""#, r#"["string","double","long"]"#, &[2]);
    let set = vec![
        member("string", Plain::Null),
        member("double", Plain::Double(1.0_f64.to_bits())),
        member("long", Plain::Null),
    ];
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
    assert!(
        rows[1].clone().unwrap_err().detail.starts_with("field `x`: symbol `B` at byte 0 is not in the reader's enum")
    );
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
    let (millis, micros) =
        (r#"{"type":"long","logicalType":"timestamp-millis"}"#, r#"{"type":"long","logicalType":"timestamp-micros"}"#);
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
