//! Readers that grew out of writers, in the ways that the specification allows and some that it doesn't.

use serde_json::{Value as Json, json};

use super::{Field, Tape, Type, random_long, random_plain, random_text};

/// A reader's type that grew out of a writer's.
pub struct Evolved {
    pub reader: Type,
    /// The writer's type under the reader's names. The bytes are the same, and apache-avro needs it, since it does not
    /// follow aliases when it reads.
    pub renamed: Type,
}

fn unchanged(of: &Type) -> Evolved {
    Evolved { reader: of.clone(), renamed: of.clone() }
}

/// Evolves a type; `within_union` keeps to what leaves the branch recognisable for apache-avro.
pub fn evolve(tape: &mut Tape, writer: &Type, within_union: bool) -> Evolved {
    let evolved = evolve_plain(tape, writer, within_union);
    if within_union || matches!(writer, Type::Union(_) | Type::Null) || !tape.one_in(6) {
        return evolved;
    }
    Evolved { reader: Type::Union(vec![Type::Null, evolved.reader]), renamed: evolved.renamed }
}

fn evolve_plain(tape: &mut Tape, writer: &Type, within_union: bool) -> Evolved {
    let promote = !within_union && tape.one_in(3);
    match writer {
        Type::Int if promote => with_reader(writer, [Type::Long, Type::Float, Type::Double][tape.below(3)].clone()),
        Type::Long if promote => with_reader(writer, [Type::Float, Type::Double][tape.below(2)].clone()),
        Type::Float if promote => with_reader(writer, Type::Double),
        Type::String if promote => with_reader(writer, Type::Bytes),
        Type::Bytes if promote => with_reader(writer, Type::String),
        Type::Enum { name, symbols, .. } => {
            let mut symbols = symbols.clone();
            let at = tape.below(symbols.len() + 1);
            symbols.insert(at, "ADDED".to_owned());
            if tape.one_in(3) {
                symbols.remove(tape.below(symbols.len()));
            }
            let default = (tape.below(2) == 1).then(|| symbols[0].clone());
            with_reader(writer, Type::Enum { name: name.clone(), symbols, default })
        }
        Type::Record { name, fields, .. } => evolve_record(tape, name, fields, within_union),
        Type::Array(items) => {
            let items = evolve(tape, items, within_union);
            Evolved { reader: Type::Array(Box::new(items.reader)), renamed: Type::Array(Box::new(items.renamed)) }
        }
        Type::Map(values) => {
            let values = evolve(tape, values, within_union);
            Evolved { reader: Type::Map(Box::new(values.reader)), renamed: Type::Map(Box::new(values.renamed)) }
        }
        Type::Union(branches) => evolve_union(tape, branches),
        other => unchanged(other),
    }
}

fn with_reader(writer: &Type, reader: Type) -> Evolved {
    Evolved { reader, renamed: writer.clone() }
}

fn evolve_union(tape: &mut Tape, branches: &[Type]) -> Evolved {
    let set: Vec<_> = branches.iter().filter(|branch| !branch.is_null()).collect();
    if let [only] = set.as_slice()
        && tape.one_in(4)
    {
        // Null is no longer allowed: an error for the records that have it.
        return Evolved { reader: (*only).clone(), renamed: Type::Union(branches.to_vec()) };
    }
    let evolved: Vec<_> = branches.iter().map(|branch| evolve(tape, branch, true)).collect();
    let renamed = Type::Union(evolved.iter().map(|branch| branch.renamed.clone()).collect());
    let mut readers: Vec<_> = evolved.into_iter().map(|branch| branch.reader).collect();
    let shift = tape.below(readers.len());
    readers.rotate_left(shift);
    if tape.one_in(4) && readers.iter().all(|branch| branch.word() != "boolean") {
        readers.push(Type::Boolean);
    }
    Evolved { reader: Type::Union(readers), renamed }
}

fn evolve_record(tape: &mut Tape, name: &str, fields: &[Field], within_union: bool) -> Evolved {
    let (mut read, mut renamed) = (Vec::new(), Vec::new());
    for field in fields {
        let evolved = evolve(tape, &field.of, within_union);
        let mut seen = Field { of: evolved.renamed, ..field.clone() };
        if tape.one_in(6) {
            renamed.push(seen);
            continue;
        }
        let mut reader = Field { of: evolved.reader, ..field.clone() };
        if tape.one_in(6) {
            reader.aliases = vec!["never".to_owned(), field.name.clone()];
            reader.name = tape.name("renamed");
            seen.name.clone_from(&reader.name);
        }
        renamed.push(seen);
        read.push(reader);
    }
    while read.is_empty() || tape.one_in(3) {
        let name = tape.name("added");
        let (of, default) = random_default(tape);
        read.insert(tape.below(read.len() + 1), Field { name, aliases: Vec::new(), of, default: Some(default) });
    }
    let shift = tape.below(read.len());
    read.rotate_left(shift);
    // In a union apache-avro tries the records in turn, whatever their names.
    let (reader_name, aliases) = if !within_union && tape.one_in(4) {
        (tape.name("R"), vec![name.to_owned()])
    } else {
        (name.to_owned(), vec![])
    };
    Evolved {
        renamed: Type::Record { name: reader_name.clone(), aliases: Vec::new(), fields: renamed },
        reader: Type::Record { name: reader_name, aliases, fields: read },
    }
}

/// A type with a default, within what apache-avro reads by the specification: its byte defaults are UTF-8 where the
/// specification says ISO-8859-1, so these stay ASCII, and it does not take integers for a union's branch.
fn random_default(tape: &mut Tape) -> (Type, Json) {
    let field = |name: &str, of| Field { name: name.to_owned(), aliases: Vec::new(), of, default: None };
    match tape.below(12) {
        0 => (Type::Union(vec![Type::Null, random_plain(tape, 3)]), Json::Null),
        1 => (Type::Long, json!(random_long(tape) >> 1)),
        2 => (Type::Int, json!(-7)),
        3 => (Type::Double, json!(1.5)),
        4 => (Type::Float, json!(3)),
        5 => (Type::String, json!(random_text(tape))),
        6 => (Type::Bytes, json!("ab\u{1}")),
        7 => (Type::Fixed(tape.name("F"), 3), json!("xyz")),
        8 => (Type::Enum { name: tape.name("E"), symbols: vec!["A".into(), "B".into()], default: None }, json!("B")),
        9 => (Type::Array(Box::new(Type::Long)), json!([1, 2, 3])),
        10 => (Type::Map(Box::new(Type::String)), json!({"k": "v", "": "w"})),
        _ => {
            let fields = vec![field("a", Type::Double), field("b", Type::Union(vec![Type::Null, Type::String]))];
            (Type::Record { name: tape.name("R"), aliases: Vec::new(), fields }, json!({"a": 2.5, "b": null}))
        }
    }
}
