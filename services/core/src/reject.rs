//! Why a record was refused: a closed list of reasons, each with a sentence for the person who has to act.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Why a record went to the dead letters. Stable: dashboards, alerts and redrives go by these names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The value is there but has no bytes.
    EmptyValue,
    /// The value is null: Kafka's delete marker, which means nothing for events.
    Tombstone,
    /// The first byte is not the magic 0 of the Confluent framing.
    BadMagic,
    /// The framing ends before its schema id does.
    TruncatedHeader,
    /// The registry says that it does not know the schema id.
    UnknownSchemaId,
    /// The registered schema is not Avro, or is not valid Avro.
    SchemaNotAvro,
    /// The writer's schema cannot be resolved to the reader's by the rules of the Avro specification.
    IncompatibleSchema,
    /// The body ends in the middle of a value.
    TruncatedBody,
    /// Bytes are left behind the last field.
    TrailingBytes,
    /// A string is not UTF-8.
    InvalidUtf8,
    /// A union names a branch that it does not have.
    InvalidUnionBranch,
    /// An enum names a symbol that it, or the reader without a default, does not have.
    InvalidEnum,
    /// A length or count is negative, overflows, or is more than the record can hold.
    InvalidLength,
    /// Nested deeper than `limits.max_depth`.
    TooDeep,
    /// The record, or what it would expand to, is larger than `limits.max_record_bytes`.
    TooLarge,
    /// The measured value is NaN or infinite.
    NonFiniteValue,
    /// Event time is older than `limits.max_event_age` before the record timestamp.
    EventTimeTooOld,
    /// Event time is more than `limits.max_future_skew` ahead of the record timestamp.
    EventTimeInFuture,
    /// A rule of the data contract; the name stands behind `contract_`.
    Contract(Arc<str>),
}

/// Prefix of the reasons that come from the data contract.
const CONTRACT: &str = "contract_";

/// The reasons with fixed names.
const NAMED: [(Reason, &str); 18] = [
    (Reason::EmptyValue, "empty_value"),
    (Reason::Tombstone, "tombstone"),
    (Reason::BadMagic, "bad_magic"),
    (Reason::TruncatedHeader, "truncated_header"),
    (Reason::UnknownSchemaId, "unknown_schema_id"),
    (Reason::SchemaNotAvro, "schema_not_avro"),
    (Reason::IncompatibleSchema, "incompatible_schema"),
    (Reason::TruncatedBody, "truncated_body"),
    (Reason::TrailingBytes, "trailing_bytes"),
    (Reason::InvalidUtf8, "invalid_utf8"),
    (Reason::InvalidUnionBranch, "invalid_union_branch"),
    (Reason::InvalidEnum, "invalid_enum"),
    (Reason::InvalidLength, "invalid_length"),
    (Reason::TooDeep, "too_deep"),
    (Reason::TooLarge, "too_large"),
    (Reason::NonFiniteValue, "non_finite_value"),
    (Reason::EventTimeTooOld, "event_time_too_old"),
    (Reason::EventTimeInFuture, "event_time_in_future"),
];

impl Reason {
    /// A rule of the data contract.
    pub fn contract(rule: &str) -> Self {
        Self::Contract(rule.into())
    }

    /// The stable snake_case name.
    pub fn name(&self) -> Cow<'static, str> {
        if let Self::Contract(rule) = self {
            return format!("{CONTRACT}{rule}").into();
        }
        let named = NAMED.iter().find(|(reason, _)| reason == self);
        named.map_or(Cow::Borrowed(""), |(_, name)| Cow::Borrowed(name))
    }

    /// Whether the record could be read, and was refused for what it says.
    pub fn is_of_content(&self) -> bool {
        matches!(self, Self::NonFiniteValue | Self::EventTimeTooOld | Self::EventTimeInFuture | Self::Contract(_))
    }

    /// All names that are fixed: those of contract rules come on top.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(_, name)| *name)
    }

    /// The reason of that name; `None` for one that this version does not know.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(rule) = name.strip_prefix(CONTRACT) {
            return Some(Self::contract(rule));
        }
        NAMED.iter().find(|(_, candidate)| *candidate == name).map(|(reason, _)| reason.clone())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name())
    }
}

/// A record refused: the reason, and what was expected and found, at which byte or field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Reject {
    /// From the closed list.
    pub reason: Reason,
    /// A sentence for a person.
    pub detail: String,
}

impl Reject {
    /// A refusal with its sentence.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    /// The field at fault, by its path, and what is wrong with it; an empty path where it is the record as a whole.
    pub fn field_and_problem(&self) -> (&str, &str) {
        let about_a_field = self.detail.strip_prefix(FIELD).and_then(|rest| rest.split_once(PROBLEM));
        about_a_field.unwrap_or(("", &self.detail))
    }
}

const FIELD: &str = "field `";
const PROBLEM: &str = "`: ";

/// The sentence about a field; an empty path stands for the record as a whole.
pub(crate) fn about_field(path: &str, problem: &str) -> String {
    if path.is_empty() { problem.to_owned() } else { format!("{FIELD}{path}{PROBLEM}{problem}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_leads_back_to_its_reason() {
        for (reason, name) in NAMED {
            assert_eq!(reason.name(), name);
            assert_eq!(Reason::parse(name), Some(reason));
        }
        assert_eq!(Reason::parse("contract_range").map(|reason| reason.name()).as_deref(), Some("contract_range"));
        assert_eq!(Reason::parse("no_such_reason"), None);
    }

    #[test]
    fn the_field_of_a_sentence_is_found_again() {
        for (path, problem) in [("a.b[]", "the writer's `X`: no"), ("", "no record")] {
            let reject = Reject::new(Reason::IncompatibleSchema, about_field(path, problem));
            assert_eq!(reject.field_and_problem(), (path, problem));
        }
    }
}
