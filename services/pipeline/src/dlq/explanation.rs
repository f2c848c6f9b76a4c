//! What each reason means, where it usually comes from, and what to do.

use std::borrow::Cow;

use kappa_core::reject::Reason;
use serde::Serialize;

use crate::contract::{DataContract, RuleKind, demanded};

/// About a reason. `ADDRESS` in a command stands for the record's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the words say it")]
pub struct Explanation {
    pub reason: String,
    pub meaning: Cow<'static, str>,
    pub cause: Cow<'static, str>,
    pub remedy: Cow<'static, str>,
    pub commands: &'static [&'static str],
}

const RELABEL: &[&str] =
    &["kappa dlq redrive ADDRESS --as-schema ID --dry-run", "kappa dlq redrive ADDRESS --as-schema ID"];
const SHOW: &[&str] = &["kappa dlq show ADDRESS"];

/// What is known about a reason; one that this version does not know is told as it is. `contract`: the one in force.
pub fn explain_reason(name: &str, contract: Option<&DataContract>) -> Explanation {
    let explain = |meaning: &'static str, cause: &'static str, remedy: &'static str, commands| Explanation {
        reason: name.to_owned(),
        meaning: meaning.into(),
        cause: cause.into(),
        remedy: remedy.into(),
        commands,
    };
    let Some(reason) = Reason::parse(name) else {
        return explain(
            "this version of kappa does not know the reason",
            "a newer version has written it",
            "use that version",
            SHOW,
        );
    };
    match reason {
        Reason::EmptyValue => explain(
            "the value has no bytes; an event has a header of five bytes at least",
            "a producer without the registry's serializer, or one that sends a heartbeat",
            "mend the producer; there is nothing in it to be sent again",
            SHOW,
        ),
        Reason::Tombstone => explain(
            "the value is null: Kafka's delete marker, which means nothing for events",
            "a producer that was written for a compacted topic, or a connector that deletes",
            "mend the producer; there is nothing in it to be sent again",
            SHOW,
        ),
        Reason::BadMagic => explain(
            "the first byte is not the 0 of the Confluent framing (magic 0, schema id, body)",
            "JSON or text in place of Avro, or Avro without the registry's serializer",
            "mend the producer; if the value is an Avro body without a frame, send it again with its schema's id",
            RELABEL,
        ),
        Reason::TruncatedHeader => explain(
            "the framing ends before its schema id does",
            "a value cut off on its way, or one that is no Avro and begins with a 0",
            "mend the producer; what is missing is in no place to be found",
            SHOW,
        ),
        Reason::UnknownSchemaId => explain(
            "the registry answers, and does not know the schema that the record names",
            "a producer that registers with another registry or context, or a registry restored from an older copy",
            "bring the schema into the registry and send the records again; or name the schema that they were written with",
            RELABEL,
        ),
        Reason::SchemaNotAvro => explain(
            "the schema that the record names is registered as something else than Avro, or is no valid Avro",
            "a producer of JSON Schema or Protobuf on this topic",
            "mend the producer, or name the Avro schema that the body was written with",
            RELABEL,
        ),
        Reason::IncompatibleSchema => explain(
            "the writer's schema cannot be read as the pipeline's own by the rules of Avro",
            "a field that the pipeline needs was dropped, or has another type",
            "give the pipeline a schema (event.schema) that can read it, restart it, and send the records again",
            &["kappa schema check THE-WRITERS.avsc", "kappa dlq redrive --reason incompatible_schema --dry-run"],
        ),
        Reason::TruncatedBody => explain(
            "the body ends in the middle of a value",
            "written with another schema than the one that is named, or cut off",
            "find the schema that it was written with, and send it again with that id",
            RELABEL,
        ),
        Reason::TrailingBytes => explain(
            "bytes are left behind the last field",
            "written with a newer schema than the one that is named, or two bodies in one record",
            "find the schema that it was written with, and send it again with that id; or drop the bytes with --jq .",
            &["kappa dlq redrive ADDRESS --as-schema ID --dry-run", "kappa dlq redrive ADDRESS --jq . --dry-run"],
        ),
        Reason::InvalidUtf8 | Reason::InvalidUnionBranch | Reason::InvalidLength => explain(
            "the bytes are not what the named schema says",
            "written with another schema than the one that is named, or by a serializer of one's own",
            "find the schema that it was written with, and send it again with that id",
            RELABEL,
        ),
        Reason::InvalidEnum => explain(
            "an enum names a symbol that it does not have, or that the pipeline's schema has neither it nor a default",
            "a producer with a newer schema, or bytes of another schema",
            "give the enum a default or the symbol in the pipeline's schema, restart it, and send the records again",
            &["kappa dlq redrive --reason invalid_enum --dry-run"],
        ),
        Reason::TooDeep => explain(
            "the record nests deeper than limits.max_depth",
            "a recursive type without an end, or an attack",
            "if it is right, raise limits.max_depth on all instances, and send the records again",
            &["kappa dlq redrive --reason too_deep --dry-run"],
        ),
        Reason::TooLarge => explain(
            "the record, or what it would take in memory, is larger than limits.max_record_bytes",
            "a blob among the attributes",
            "if it is right, raise limits.max_record_bytes on all instances, and send the records again; or leave the blob out",
            &[
                "kappa dlq redrive --reason too_large --dry-run",
                "kappa dlq redrive ADDRESS --jq '.attributes = {}' --dry-run",
            ],
        ),
        Reason::NonFiniteValue => explain(
            "the measured value is NaN or infinite",
            "a sensor that is broken or not calibrated",
            "mend the sensor; a value that is known can be put in",
            &["kappa dlq redrive ADDRESS --jq '.value = 0.0' --dry-run"],
        ),
        Reason::EventTimeTooOld => explain(
            "the event is older than limits.max_event_age before its Kafka timestamp",
            "a clock that was reset, seconds in place of milliseconds, or a backfill",
            "a backfill: raise limits.max_event_age on all instances. Seconds: multiply",
            &["kappa dlq redrive ADDRESS --jq '.event_time *= 1000' --dry-run"],
        ),
        Reason::EventTimeInFuture => explain(
            "the event is more than limits.max_future_skew ahead of its Kafka timestamp",
            "a clock that is ahead, or microseconds in place of milliseconds",
            "once its time has come it passes as it is; or take the time at which Kafka got it",
            &[
                "kappa dlq redrive ADDRESS --dry-run",
                "kappa dlq redrive ADDRESS --jq '.event_time = $record.timestamp' --dry-run",
            ],
        ),
        Reason::Contract(rule)
            if let Some(broken) = contract.and_then(|contract| broken_rule(name, &rule, contract)) =>
        {
            broken
        }
        Reason::Contract(_) => explain(
            "the record breaks a rule of the data contract",
            "a field that makes the event is null, or out of its bounds",
            "mend the producer; what is known can be put in",
            &["kappa dlq redrive ADDRESS --jq '.sensor_id = $record.key' --dry-run"],
        ),
    }
}

/// A rule of the contract, in its own words, and whom to ask.
fn broken_rule(reason: &str, rule: &str, contract: &DataContract) -> Option<Explanation> {
    let declared = contract.rule(rule).filter(|declared| matches!(declared.kind, RuleKind::Judged(_)))?;
    let field = declared.field.as_deref().unwrap_or_default();
    let (title, owner) = (contract.title(), contract.contact());
    Some(Explanation {
        reason: reason.to_owned(),
        meaning: format!(
            "the record breaks the rule {rule} of the data contract {title}: `{field}` must be {}",
            demanded(declared)
        )
        .into(),
        cause: declared.description.clone().into(),
        remedy: format!("mend the producer; what is known can be put in. If the rule is wrong, ask its owner: {owner}")
            .into(),
        commands: &["kappa contract docs", "kappa dlq redrive ADDRESS --jq '.FIELD = VALUE' --dry-run"],
    })
}

impl std::fmt::Display for Explanation {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(out, "{}\n", self.reason)?;
        writeln!(out, "{:<11}{}", "means", self.meaning)?;
        writeln!(out, "{:<11}{}", "usually", self.cause)?;
        write!(out, "{:<11}{}", "do", self.remedy)?;
        for command in self.commands {
            write!(out, "\n{:<11}{}", "command", command.replace("ADDRESS", "PARTITION/OFFSET"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_explained_and_its_commands_are_ours() {
        for name in Reason::names().chain(["contract_key_missing"]) {
            let explanation = explain_reason(name, None);
            assert!(!explanation.meaning.contains("does not know the reason"), "{name}");
            assert!(!explanation.commands.is_empty(), "{name}");
            assert!(explanation.commands.iter().all(|command| command.starts_with("kappa ")), "{name}");
        }
        assert!(explain_reason("of_tomorrow", None).meaning.contains("does not know"));
    }

    #[test]
    fn a_rule_of_the_contract_is_told_in_its_words_with_its_owner() {
        let (contract, _) = crate::contract::read(crate::contract::BUILT_IN_CONTRACT);
        let told = explain_reason("contract_value_range", Some(&contract)).to_string();
        for said in
            ["value_range", "`value` must be by `metric`: TEMPERATURE: -90 to 1000 Cel", "sensor-platform@example.com"]
        {
            assert!(told.contains(said), "{said} is missing in\n{told}");
        }
        // No rule of the file, but what `[event]` needs.
        let told = explain_reason("contract_value_missing", Some(&contract)).to_string();
        assert!(told.contains("breaks a rule"), "{told}");
    }
}
