//! Schema texts that nobody would write: whatever comes from a registry, the parser answers and never falls over.

use kappa_core::decode::{DecodeLimits, Decoder, ReaderSchema};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;

/// Words that take the parser somewhere, right and wrong ones.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "null", "boolean", "int", "long", "float", "double", "bytes", "string", "record", "enum", "array", "map",
            "fixed", "error", "decimal", "date", "timestamp-millis", "uuid", "duration", "R", "a.R", "x", "y", "",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "type",
        "name",
        "namespace",
        "fields",
        "items",
        "values",
        "symbols",
        "size",
        "default",
        "aliases",
        "logicalType",
        "precision",
        "scale",
        "order",
        "doc",
    ])
    .prop_map(str::to_owned)
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => word().prop_map(Value::String),
        1 => any::<i64>().prop_map(Value::from),
        1 => (0..40_i64).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        prop_oneof![
            1 => vec(inner.clone(), 0..5).prop_map(Value::Array),
            2 => vec((key(), inner.clone()), 0..6).prop_map(|members| Value::Object(members.into_iter().collect())),
            // Closer to a schema than chance would come.
            2 => (word(), vec((word(), inner.clone(), inner), 0..4)).prop_map(|(name, fields)| {
                let fields: Vec<_> = fields
                    .into_iter()
                    .map(|(name, of, default)| serde_json::json!({"name": name, "type": of, "default": default}))
                    .collect();
                serde_json::json!({"type": "record", "name": name, "fields": fields})
            }),
        ]
    })
}

const READER: &str = r#"{"type":"record","name":"R","fields":[
    {"name":"x","type":["null","double"],"default":null},{"name":"y","type":"string","default":""}]}"#;

/// Compiles, and decodes something if that works.
fn survives(text: &str) {
    let limits = DecodeLimits::default();
    let Ok(reader) = ReaderSchema::parse(READER) else {
        return;
    };
    if let Ok(decoder) = Decoder::compile(text, &[], &reader, &limits) {
        let mut columns = reader.new_columns(&limits);
        for body in [&[][..], &[0; 8], &[2; 40], &[1; 40]] {
            let before = columns.rows();
            let outcome = decoder.decode(body, &mut columns);
            assert_eq!(columns.rows() - before, usize::from(outcome.is_ok()));
        }
        columns.take();
    }
    if let Ok(reader) = ReaderSchema::parse(text) {
        let mut columns = reader.new_columns(&limits);
        if let Ok(decoder) = Decoder::compile(text, &[], &reader, &limits) {
            let _ = decoder.decode(&[0; 64], &mut columns);
        }
        let (arrays, _) = columns.take();
        assert_eq!(arrays.len(), reader.arrow_fields().len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_json_never_panics(json in json()) {
        survives(&json.to_string());
    }

    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        survives(&text);
    }

    #[test]
    fn a_damaged_schema_never_panics(at in 0..READER.len(), with in any::<char>(), cut in any::<bool>()) {
        let mut text = READER.to_owned();
        if cut { text.truncate(at) } else { text.insert(at, with) }
        survives(&text);
    }
}

#[test]
fn deep_and_long_schemas_are_refused() {
    let deep = format!("{}{}", r#"{"type":"array","items":"#.repeat(5000), "\"int\"");
    survives(&deep);
    let chain: Vec<_> = (1..9000)
        .map(|level| format!(r#"{{"name":"f{level}","type":{{"type":"record","name":"T{level}","fields":[{{"name":"a","type":["null","T{}"]}}]}}}}"#, level - 1))
        .collect();
    let first = r#"{"name":"f0","type":{"type":"record","name":"T0","fields":[{"name":"a","type":"int"}]}}"#;
    survives(&format!(r#"{{"type":"record","name":"R","fields":[{first},{}]}}"#, chain.join(",")));
}
