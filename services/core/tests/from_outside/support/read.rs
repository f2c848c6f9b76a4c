//! Decoding a few bodies of records of one field.

use kappa_core::decode::{Columns, CompileError, DecodeLimits, Decoder, ReaderSchema};
use kappa_core::reject::Reject;

use super::decode::{Plain, plain_of_array};

/// A record of one field `x`.
pub fn record_of(x: &str) -> String {
    format!(r#"{{"type":"record","name":"R","fields":[{{"name":"x","type":{x}}}]}}"#)
}

pub fn compiled(writer: &str, reader: &str) -> Result<(Decoder, Columns, ReaderSchema), CompileError> {
    let reader = ReaderSchema::parse(reader).unwrap();
    let limits = DecodeLimits::default();
    let decoder = Decoder::compile(writer, &[], &reader, &limits)?;
    let columns = reader.new_columns(&limits);
    Ok((decoder, columns, reader))
}

/// The rows of bodies of a one-field record.
pub fn read(writer: &str, reader: &str, bodies: &[&[u8]]) -> Vec<Result<Plain, Reject>> {
    let (decoder, mut columns, _) = compiled(writer, reader).unwrap();
    let outcomes: Vec<_> = bodies.iter().map(|body| decoder.decode(body, &mut columns)).collect();
    let (arrays, _) = columns.take();
    let mut row = 0..;
    outcomes.into_iter().map(|outcome| outcome.map(|()| plain_of_array(&arrays[0], row.next().unwrap()))).collect()
}

pub fn read_x(writer: &str, reader: &str, body: &[u8]) -> Result<Plain, Reject> {
    read(&record_of(writer), &record_of(reader), &[body]).remove(0)
}

pub fn incompatible(writer: &str, reader: &str) -> (String, String) {
    match compiled(writer, reader) {
        Err(CompileError::Incompatible { path, rule }) => (path, rule),
        other => panic!("{other:?}"),
    }
}

pub fn text(text: &str) -> Plain {
    Plain::Text(text.to_owned())
}
