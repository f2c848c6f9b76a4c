//! What people are told of two versions of a schema, each kind of difference once.

use kappa_core::decode::{AvroSchema, Effect};

const OLD: &str = r#"{"type":"record","name":"Reading","namespace":"a","fields":[
    {"name":"id","type":"string"},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B"],"default":"A"}},
    {"name":"count","type":"int","default":0},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"place","type":{"type":"record","name":"Place","fields":[{"name":"lat","type":"float"},{"name":"room","type":"string"}]}},
    {"name":"tags","type":{"type":"array","items":"int"}},
    {"name":"value","type":["null","double","string"],"default":null},
    {"name":"gone","type":"double"},
    {"name":"self","type":["null","Reading"],"default":null}]}"#;

const NEW: &str = r#"{"type":"record","name":"Reading","namespace":"b","fields":[
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["B","C"]}},
    {"name":"identity","type":"string","aliases":["id"]},
    {"name":"count","type":"long","default":7},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"place","type":{"type":"record","name":"Place","fields":[{"name":"lat","type":"double"},{"name":"floor","type":"int"}]}},
    {"name":"tags","type":{"type":"array","items":"long"}},
    {"name":"value","type":["null","double"],"default":null},
    {"name":"added","type":{"type":"map","values":{"type":"fixed","name":"F","size":2}},"default":{}},
    {"name":"self","type":["null","Reading"],"default":null}]}"#;

fn both() -> (AvroSchema, AvroSchema) {
    (AvroSchema::parse(OLD, &[]).unwrap(), AvroSchema::parse(NEW, &[]).unwrap())
}

#[test]
fn every_change_is_named() {
    let (old, new) = both();
    let changes = new.changes_since(&old);
    let told: Vec<_> =
        changes.iter().map(|change| (change.field.as_str(), change.kind.name(), change.sentence.as_str())).collect();
    let expected = [
        ("", "altered", "record a.Reading -> b.Reading"),
        ("kind", "altered", "enum a.Kind -> b.Kind"),
        ("kind", "altered", "symbols added: C"),
        ("kind", "altered", "symbols removed: A"),
        ("kind", "altered", "default of the enum A -> none"),
        ("identity", "altered", "called `id` before"),
        ("count", "altered", "int -> long"),
        ("count", "altered", "default 0 -> 7"),
        ("at", "altered", "long (timestamp-millis) -> long (timestamp-micros)"),
        ("place", "altered", "record a.Place -> b.Place"),
        ("place.lat", "altered", "float -> double"),
        ("place.floor", "added", "int, no default"),
        ("place.room", "removed", "string"),
        ("tags[]", "altered", "int -> long"),
        ("value", "altered", "null or double or string -> null or double"),
        ("added", "added", "map of fixed F of 2 bytes, default {}"),
        ("", "altered", "fields in another order"),
        ("gone", "removed", "double"),
    ];
    assert_eq!(told, expected);
    assert_eq!(old.changes_since(&old), []);
}

#[test]
fn each_field_is_told_what_becomes_of_it() {
    let (old, new) = both();
    let told = |writer: &AvroSchema, reader: &AvroSchema| -> Vec<(String, Effect, String)> {
        let findings = writer.read_by(reader);
        findings.into_iter().map(|finding| (finding.field, finding.effect, finding.sentence)).collect()
    };
    let of = |field: &str, effect, sentence: &str| (field.to_owned(), effect, sentence.to_owned());
    let no_default = "the writer does not have the field, and the reader has no default for it";
    let unknown = "the reader does not know the field";
    let expected = [
        of("identity", Effect::Converted, "the writer calls it `id`, an alias of the reader's field"),
        of(
            "kind",
            Effect::SomeRefused,
            "`A`: not in the reader's enum, which has no default; records that have it are refused",
        ),
        of("count", Effect::Converted, "int is read as long"),
        of(
            "at",
            Effect::Reinterpreted,
            "timestamp-millis is read as timestamp-micros: the same number, with another meaning",
        ),
        of("place.lat", Effect::Converted, "float is read as double"),
        of("place.room", Effect::Unknown, unknown),
        of("place.floor", Effect::Unreadable, no_default),
        of("tags[]", Effect::Converted, "int is read as long"),
        of(
            "value",
            Effect::SomeRefused,
            "the writer's union has branch `string` here: the reader's union has no branch for the writer's string",
        ),
        of("gone", Effect::Unknown, unknown),
        of("added", Effect::Defaulted, "the writer does not have the field; the reader's default is {}"),
    ];
    assert_eq!(told(&old, &new), expected);
    let expected = [
        of("kind", Effect::Reinterpreted, "`C`: read as `A`, the default of the reader's enum"),
        of("identity", Effect::Unknown, unknown),
        of("count", Effect::Unreadable, "the writer's long cannot be read as int"),
        of(
            "at",
            Effect::Reinterpreted,
            "timestamp-micros is read as timestamp-millis: the same number, with another meaning",
        ),
        of("place.lat", Effect::Unreadable, "the writer's double cannot be read as float"),
        of("place.floor", Effect::Unknown, unknown),
        of("place.room", Effect::Unreadable, no_default),
        of("tags[]", Effect::Unreadable, "the writer's long cannot be read as int"),
        of("added", Effect::Unknown, unknown),
        of("id", Effect::Unreadable, no_default),
        of("gone", Effect::Unreadable, no_default),
    ];
    assert_eq!(told(&new, &old), expected);
    assert_eq!(told(&new, &new), []);
}
