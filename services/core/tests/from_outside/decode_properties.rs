//! The decoder against apache-avro, an independent implementation, and against damaged bodies.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{AvroResult, Schema};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use kappa_core::decode::{AvroSchema, Columns, CompileError, DecodeLimits, Decoder, Effect, ReaderSchema};
use kappa_core::reject::Reason;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::decode::{
    Evolved, Plain, Tape, Type, evolve, extra_of, plain_of_array, plain_of_value, random_record, random_value,
};

/// What apache-avro makes of a body, resolved to the reader's schema if one is given.
fn reference(writer: &Schema, mut body: &[u8], reader: Option<&Schema>) -> AvroResult<Value> {
    GenericDatumReader::builder(writer).maybe_reader_schema(reader).build()?.read_value(&mut body)
}

/// One writer, one reader, and some records of the writer.
struct Case {
    writer: Type,
    evolved: Evolved,
    values: Vec<Value>,
    bodies: Vec<Vec<u8>>,
}

fn case(numbers: Vec<u32>) -> Case {
    let mut tape = Tape::new(numbers);
    let writer = random_record(&mut tape, 0);
    let evolved = evolve(&mut tape, &writer, false);
    // The top of a topic is a record, so that it may not become nullable.
    let evolved = match evolved.reader {
        Type::Union(mut branches) => Evolved { reader: branches.remove(1), ..evolved },
        _ => evolved,
    };
    let schema = Schema::parse(&writer.json()).unwrap();
    let values: Vec<_> = (0..=tape.below(6)).map(|_| random_value(&mut tape, &writer)).collect();
    let encoder = GenericDatumWriter::builder(&schema).build().unwrap();
    let bodies = values.iter().map(|value| encoder.write_value_to_vec(value.clone()).unwrap()).collect();
    Case { writer, evolved, values, bodies }
}

fn rows(arrays: &[ArrayRef]) -> Vec<Vec<Plain>> {
    let count = arrays.first().map_or(0, Array::len);
    (0..count).map(|row| arrays.iter().map(|array| plain_of_array(array, row)).collect()).collect()
}

fn check_types(reader: &ReaderSchema, arrays: &[ArrayRef]) {
    for (field, array) in reader.arrow_fields().iter().zip(arrays) {
        assert_eq!(field.data_type(), array.data_type());
        assert!(field.is_nullable() || array.null_count() == 0);
        array.to_data().validate_full().unwrap();
    }
}

/// What people are told beforehand is what the decoder does: the same field, the same rule.
fn check_explanation(writer: &str, reader: &ReaderSchema, error: Option<&CompileError>) {
    let writer = AvroSchema::parse(writer, &[]).unwrap();
    let findings = writer.read_by(&AvroSchema::from(reader));
    let broken = findings.into_iter().find(|finding| finding.effect == Effect::Unreadable);
    let broken = broken.map(|finding| CompileError::Incompatible { path: finding.field, rule: finding.sentence });
    assert_eq!(broken.as_ref(), error);
}

fn agrees_with_apache_avro(numbers: Vec<u32>) {
    let Case { writer, evolved, values, bodies } = case(numbers);
    let reader = ReaderSchema::parse(&evolved.reader.json().to_string()).unwrap();
    let limits = DecodeLimits::default();
    let decoder = Decoder::compile(&writer.json().to_string(), &[], &reader, &limits);
    check_explanation(&writer.json().to_string(), &reader, decoder.as_ref().err());
    let (renamed, target) =
        (Schema::parse(&evolved.renamed.json()).unwrap(), Schema::parse(&evolved.reader.json()).unwrap());
    let mut columns = reader.new_columns(&limits);
    let (mut expected, mut extras) = (Vec::new(), Vec::new());
    for (value, body) in values.iter().zip(&bodies) {
        let reference = reference(&renamed, body, Some(&target));
        let outcome = match &decoder {
            Ok(decoder) => decoder.decode(body, &mut columns).map_err(|reject| reject.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match (reference, outcome) {
            (Ok(reference), Ok(())) => {
                let Plain::Record(fields) = plain_of_value(&reference, &evolved.reader) else { panic!() };
                expected.push(fields.into_iter().map(|(_, value)| value).collect::<Vec<_>>());
                extras.push(extra_of(value, &writer, &evolved.reader));
            }
            (Err(_), Err(_)) => {}
            (reference, outcome) => {
                panic!(
                    "writer {}\nreader {}\nvalue {value:?}\napache-avro {reference:?}\nKappa {outcome:?}",
                    writer.json(),
                    evolved.reader.json()
                )
            }
        }
        assert_eq!(columns.rows(), expected.len());
    }
    let (arrays, extra) = columns.take();
    check_types(&reader, &arrays);
    assert_eq!(rows(&arrays), expected, "writer {}\nreader {}", writer.json(), evolved.reader.json());
    for (row, expected) in extras.into_iter().enumerate() {
        let found = extra.as_string::<i32>();
        let found = found.is_valid(row).then(|| serde_json::from_str::<serde_json::Value>(found.value(row)).unwrap());
        assert!(
            same_json(found.as_ref(), expected.as_ref()),
            "writer {}\nreader {}\n{found:?}\n{expected:?}",
            writer.json(),
            evolved.reader.json()
        );
    }
}

/// Equal but for bytes, which the model does not spell out, and for the empty objects that hold a place in an array.
fn same_json(found: Option<&serde_json::Value>, expected: Option<&serde_json::Value>) -> bool {
    use serde_json::Value as Json;
    match (found, expected) {
        (Some(Json::Object(found)), Some(Json::Object(expected))) => {
            found.len() == expected.len() && found.iter().all(|(key, value)| same_json(Some(value), expected.get(key)))
        }
        (Some(Json::Array(found)), Some(Json::Array(expected))) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| same_json(Some(found), Some(expected)))
        }
        (Some(Json::String(_)), Some(Json::String(expected))) if expected == "(bytes)" => true,
        // A record, array or map without anything unknown in it, in a place that must be filled.
        (Some(found), Some(Json::Null)) => is_hollow(found),
        (found, expected) => found == expected,
    }
}

fn is_hollow(json: &serde_json::Value) -> bool {
    match json {
        serde_json::Value::Null => true,
        serde_json::Value::Object(members) => members.values().all(is_hollow),
        serde_json::Value::Array(items) => items.iter().all(is_hollow),
        _ => false,
    }
}

/// Damages a body in one of the ways of the real world.
fn damage(tape: &mut Tape, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let at = tape.below(body.len() + 1);
    match tape.below(6) {
        0 => body.truncate(at),
        1 if at < body.len() => body[at] ^= 1 << tape.below(8),
        2 => body.insert(at, tape.below(256) as u8),
        3 => {
            let bytes: Vec<_> = (0..tape.below(12)).map(|_| tape.below(256) as u8).collect();
            let end = (at + tape.below(4)).min(body.len());
            body.splice(at..end, bytes);
        }
        4 => body = (0..tape.below(60)).map(|_| tape.below(256) as u8).collect(),
        _ => {
            // A huge count or length.
            let end = (at + 1).min(body.len());
            body.splice(
                at..end,
                [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01].into_iter().skip(tape.below(9)),
            );
        }
    }
    body
}

fn survives_damage(numbers: Vec<u32>, damages: Vec<u32>) {
    let Case { writer, evolved, bodies, .. } = case(numbers);
    let reader = ReaderSchema::parse(&evolved.reader.json().to_string()).unwrap();
    let limits = DecodeLimits { max_record_bytes: 4096, ..DecodeLimits::default() };
    let Ok(decoder) = Decoder::compile(&writer.json().to_string(), &[], &reader, &limits) else {
        return;
    };
    let renamed = Schema::parse(&evolved.renamed.json()).unwrap();
    let (mut columns, mut clean) = (reader.new_columns(&limits), reader.new_columns(&limits));
    let mut tape = Tape::new(damages);
    for round in 0..4 {
        for body in &bodies {
            let damaged = damage(&mut tape, body);
            let before = (columns.rows(), columns.memory());
            match decoder.decode(&damaged, &mut columns) {
                // The damage makes another valid record.
                Ok(()) => columns.truncate(before.0),
                Err(reject) => assert!(!reject.detail.is_empty()),
            }
            assert_eq!(columns.rows(), before.0);
            assert!(columns.memory() <= before.1 + 64 * 4096, "{} after {}", columns.memory(), before.1);
            // Where apache-avro runs out of bytes, there cannot be a record. (It reads them in the same order.)
            let reference = reference(&renamed, &damaged, None);
            if reference.is_err_and(|error| error.to_string().contains("fill whole buffer")) {
                assert!(decoder.decode(&damaged, &mut columns).is_err());
            }
            let outcome = decoder.decode(body, &mut columns);
            assert_eq!(outcome, decoder.decode(body, &mut clean));
            if round == 0 && outcome.is_ok() {
                assert_exact_end(&decoder, body, &mut columns);
            }
        }
        if round == 1 {
            assert_same(&reader, &mut columns, &mut clean);
        }
    }
    assert_same(&reader, &mut columns, &mut clean);
}

/// A body that is good as it is must be refused with any byte less, and with one more.
fn assert_exact_end(decoder: &Decoder, body: &[u8], columns: &mut Columns) {
    for length in 0..body.len() {
        assert!(decoder.decode(&body[..length], columns).is_err());
    }
    let longer = [body, &[0]].concat();
    assert_eq!(decoder.decode(&longer, columns).map_err(|reject| reject.reason), Err(Reason::TrailingBytes));
}

fn assert_same(reader: &ReaderSchema, columns: &mut Columns, clean: &mut Columns) {
    let ((arrays, extra), (clean_arrays, clean_extra)) = (columns.take(), clean.take());
    check_types(reader, &arrays);
    assert_eq!(arrays, clean_arrays);
    assert_eq!(&extra, &clean_extra);
    assert_eq!(rows(&arrays), rows(&clean_arrays));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_are_what_apache_avro_resolves(numbers in vec(any::<u32>(), 0..400)) {
        agrees_with_apache_avro(numbers);
    }

    #[test]
    fn a_damaged_record_leaves_its_neighbours_alone(
        numbers in vec(any::<u32>(), 0..300),
        damages in vec(any::<u32>(), 0..400),
    ) {
        survives_damage(numbers, damages);
    }
}
