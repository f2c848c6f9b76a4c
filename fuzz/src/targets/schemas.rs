//! Readers of what producers write: schemas, and bodies by them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;
use kappa_core::decode::{DecodeLimits, Decoder, ReaderSchema};
use support::{Tape, evolve, random_record, random_value};
use xxhash_rust::xxh3::xxh3_64;

use super::MIB;
use crate::fuzzer::Target;
use crate::input::{Input, push_block};

#[path = "../../../services/core/tests/from_outside/support/decode/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "of the decoder's tests, which use more of it"
)]
mod support;

/// Small, so that an input can reach them.
const LIMITS: DecodeLimits = DecodeLimits { max_depth: 16, max_record_bytes: 64 << 10, max_schema_bytes: 64 << 10 };

/// Bodies of random writers' schemas, read as random readers' schemas that follow from them.
#[derive(Debug)]
pub struct Payload;

impl Payload {
    fn tape(input: &mut Input<'_>) -> Tape {
        let choices = input.block();
        Tape::new(choices.chunks(2).map(|two| u32::from(two[0]) | u32::from(*two.get(1).unwrap_or(&0)) << 8).collect())
    }
}

impl Target for Payload {
    fn name(&self) -> &'static str {
        "payload"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        // What the first bytes choose is written down by the reference.
        let seed = |number: u64| {
            let choices: Vec<u8> =
                (0..40_u64).map(|at| xxh3_64(&[number.to_le_bytes(), at.to_le_bytes()].concat()) as u8).collect();
            let mut input = Vec::new();
            push_block(&mut input, &choices);
            let mut tape = Self::tape(&mut Input::new(&input));
            let writer = random_record(&mut tape, 0);
            _ = evolve(&mut tape, &writer, false);
            let schema = Schema::parse(&writer.json()).ok()?;
            let encoder = GenericDatumWriter::builder(&schema).build().ok()?;
            for _ in 0..3 {
                push_block(&mut input, &encoder.write_value_to_vec(random_value(&mut tape, &writer)).ok()?);
            }
            Some(input)
        };
        (0..150).filter_map(seed).collect()
    }

    fn run(&self, input: &[u8]) -> String {
        let mut input = Input::new(input);
        let mut tape = Self::tape(&mut input);
        let writer = random_record(&mut tape, 0);
        let evolved = evolve(&mut tape, &writer, false);
        let reader = match evolved.reader {
            support::Type::Union(mut branches) => branches.remove(1),
            other => other,
        };
        let reader = match ReaderSchema::parse(&reader.json().to_string()) {
            Ok(reader) => reader,
            Err(error) => return format!("reader: {error}"),
        };
        let decoder = match Decoder::compile(&writer.json().to_string(), &[], &reader, &LIMITS) {
            Ok(decoder) => decoder,
            Err(error) => return format!("writer: {error}"),
        };
        let mut columns = reader.new_columns(&LIMITS);
        let mut answer = String::new();
        let mut rows = 0;
        while !input.is_empty() && rows < 64 {
            let body = input.block();
            match decoder.decode(body, &mut columns) {
                Ok(()) => rows += 1,
                Err(reject) => _ = write!(answer, "{reject};"),
            }
            assert_eq!(columns.rows(), rows, "a record is one row or none");
        }
        let (arrays, extra) = columns.take();
        for array in arrays.iter().chain([&extra]) {
            assert_eq!(array.len(), rows, "all columns are of one length");
            array.to_data().validate_full().expect("what was decoded is valid Arrow");
        }
        answer
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 64 * input.len()
    }
}

/// Texts in place of schemas: the writer's from the registry, and the reader's.
#[derive(Debug)]
pub struct SchemaText {
    reader: ReaderSchema,
}

impl SchemaText {
    /// Against the built-in reader schema.
    pub fn new() -> Self {
        Self { reader: ReaderSchema::parse(&text_of("schemas/sensor-reading.avsc")).expect("the built-in schema") }
    }
}

impl Default for SchemaText {
    fn default() -> Self {
        Self::new()
    }
}

impl Target for SchemaText {
    fn name(&self) -> &'static str {
        "schema"
    }

    fn seeds(&self) -> Vec<Vec<u8>> {
        let random = |number: u32| {
            let mut tape = Tape::new(
                (0..60).map(|at| xxh3_64(&[number.to_le_bytes(), u32::to_le_bytes(at)].concat()) as u32).collect(),
            );
            random_record(&mut tape, 0).json().to_string().into_bytes()
        };
        let own = text_of("schemas/sensor-reading.avsc").into_bytes();
        std::iter::once(own).chain((0..40).map(random)).collect()
    }

    fn run(&self, input: &[u8]) -> String {
        let text = String::from_utf8_lossy(input);
        let written = Decoder::compile(&text, &[], &self.reader, &LIMITS);
        let compiled = match &written {
            Ok(decoder) => {
                let mut columns = self.reader.new_columns(&LIMITS);
                decoder
                    .decode(&input[..input.len().min(64)], &mut columns)
                    .map_or_else(|reject| reject.to_string(), |()| "a row".to_owned())
            }
            Err(error) => error.to_string(),
        };
        let read = match ReaderSchema::parse(&text) {
            // What may be written may be read by itself.
            Ok(reader) => Decoder::compile(reader.json(), &[], &reader, &LIMITS)
                .map_or_else(|error| error.to_string(), |_| "read".to_owned()),
            Err(error) => error.to_string(),
        };
        format!("{compiled} | {read}")
    }

    fn memory_allowed(&self, input: &[u8]) -> usize {
        16 * MIB + 2_000 * input.len()
    }
}

fn text_of(path: &str) -> String {
    let file: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()))
}
