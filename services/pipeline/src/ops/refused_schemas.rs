//! Schemas whose records are refused, each with the field and the rule: for the log, `/status`, and an alert that says
//! what to mend.

use std::sync::Mutex;

use kappa_core::reject::{Reason, Reject};
use serde::Serialize;

use super::now_ms;
use super::status::lock;

/// Entries kept. Each is a label of a metric, so there must be an end to them.
const MOST: usize = 64;

/// Of these, ids that the registry does not know: records of garbage have ever new ones.
const MOST_UNKNOWN: usize = 4;

/// A schema of which nothing was refused for so long is forgotten.
const FORGOTTEN_AFTER_MS: i64 = 3_600_000;

/// A schema, and a field of it that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedSchema {
    /// Id or GUID, as the records name it.
    pub schema: String,
    /// Why its records are refused.
    pub reason: String,
    /// Path of the field; empty for the schema as a whole.
    pub field: String,
    /// What the rule demands and what was found.
    pub rule: String,
    /// Records refused for that since it was first seen.
    pub records: u64,
    /// When it was first seen, milliseconds since the epoch.
    pub first_seen_ms: i64,
    /// When it was seen last.
    pub last_seen_ms: i64,
}

/// Whether a reason is one of schemas, and not of single records.
pub fn is_of_schemas(reason: &Reason) -> bool {
    matches!(reason, Reason::IncompatibleSchema | Reason::SchemaNotAvro | Reason::UnknownSchemaId)
}

/// The refused schemas that were seen lately. Bounded.
#[derive(Debug, Default)]
pub(super) struct RefusedSchemas(Mutex<Vec<RefusedSchema>>);

impl RefusedSchemas {
    /// Counts refused records of a schema. Gives the entry if it is new.
    pub(super) fn add(&self, schema: &str, reject: &Reject, records: u64) -> Option<RefusedSchema> {
        self.add_at(schema, reject, records, now_ms())
    }

    fn add_at(&self, schema: &str, reject: &Reject, records: u64, now_ms: i64) -> Option<RefusedSchema> {
        let (field, rule) = reject.field_and_problem();
        let reason = reject.reason.name();
        let mut entries = lock(&self.0);
        let same =
            |entry: &&mut RefusedSchema| entry.schema == schema && entry.reason == reason && entry.field == field;
        if let Some(entry) = entries.iter_mut().find(same) {
            entry.records += records;
            entry.last_seen_ms = now_ms;
            return None;
        }
        forget_old(&mut entries, now_ms);
        let of_reason = entries.iter().filter(|entry| entry.reason == reason).count();
        let is_full = entries.len() >= MOST || (reject.reason == Reason::UnknownSchemaId && of_reason >= MOST_UNKNOWN);
        if is_full {
            return None;
        }
        let entry = RefusedSchema {
            schema: schema.to_owned(),
            reason: reason.into_owned(),
            field: field.to_owned(),
            rule: rule.to_owned(),
            records,
            first_seen_ms: now_ms,
            last_seen_ms: now_ms,
        };
        entries.push(entry.clone());
        Some(entry)
    }

    /// Those seen lately, in the order in which they were first seen.
    pub(super) fn report(&self) -> Vec<RefusedSchema> {
        let mut entries = lock(&self.0);
        forget_old(&mut entries, now_ms());
        entries.clone()
    }
}

fn forget_old(entries: &mut Vec<RefusedSchema>, now_ms: i64) {
    entries.retain(|entry| now_ms.saturating_sub(entry.last_seen_ms) < FORGOTTEN_AFTER_MS);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incompatible(field: &str) -> Reject {
        Reject::new(
            Reason::IncompatibleSchema,
            format!("field `{field}`: the writer's string cannot be read as double"),
        )
    }

    #[test]
    fn a_schema_and_field_is_new_once() {
        let refused = RefusedSchemas::default();
        let entry = refused.add("7", &incompatible("value"), 2).expect("new");
        assert_eq!(
            (entry.field.as_str(), entry.rule.as_str()),
            ("value", "the writer's string cannot be read as double")
        );
        assert_eq!(refused.add("7", &incompatible("value"), 3), None);
        assert!(
            refused.add("7", &incompatible("unit"), 1).is_some()
                && refused.add("8", &incompatible("value"), 1).is_some()
        );
        let counts: Vec<_> =
            refused.report().into_iter().map(|entry| (entry.schema, entry.field, entry.records)).collect();
        let of = |schema: &str, field: &str, records| (schema.to_owned(), field.to_owned(), records);
        assert_eq!(counts, [of("7", "value", 5), of("7", "unit", 1), of("8", "value", 1)]);
    }

    #[test]
    fn neither_garbage_nor_time_fills_the_memory() {
        let refused = RefusedSchemas::default();
        for id in 0..1_000 {
            let unknown = Reject::new(Reason::UnknownSchemaId, format!("the registry does not know schema {id}"));
            refused.add_at(&id.to_string(), &unknown, 1, 0);
        }
        assert_eq!(lock(&refused.0).len(), MOST_UNKNOWN);
        for id in 0..1_000 {
            refused.add_at(&id.to_string(), &incompatible("value"), 1, 0);
        }
        assert_eq!(lock(&refused.0).len(), MOST);
        assert!(refused.add_at("new", &incompatible("value"), 1, FORGOTTEN_AFTER_MS).is_some());
        assert_eq!(lock(&refused.0).len(), 1);
    }
}
