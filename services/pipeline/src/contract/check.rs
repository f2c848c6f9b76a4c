//! A contract held against the reader schema and the configuration: what it says must be so.

use std::time::Duration;

use arrow_schema::{DataType, Field};
use humantime_serde::re::humantime;
use kappa_core::contract::rules::{Demand, Severity};
use kappa_core::decode::ReaderSchema;
use serde_json::Value;

use super::model::{DataContract, DeclaredRule, Property, RuleKind, ServiceLevel};
use super::problem::Problem;
use super::rules_for;
use crate::config::{Config, nearest_of};
use crate::ops::migrate::days_kept;

/// What is wrong with a contract that could be read.
pub(super) fn check(contract: &DataContract, reader: &ReaderSchema, config: &Config) -> Vec<Problem> {
    let mut problems = rules_for(contract, reader).err().unwrap_or_default();
    let agreement = Agreement { contract, reader, config };
    problems.extend(agreement.fields());
    problems.extend(contract.rules.iter().filter_map(|rule| agreement.rule(rule)));
    problems.extend(contract.levels.iter().filter_map(|level| agreement.level(level)));
    problems.sort_by_key(|problem| problem.place.line);
    problems
}

struct Agreement<'a> {
    contract: &'a DataContract,
    reader: &'a ReaderSchema,
    config: &'a Config,
}

impl Agreement<'_> {
    /// Each field of the schema is described, and nothing else is.
    fn fields(&self) -> Vec<Problem> {
        let object = &self.contract.object;
        let fields = self.reader.arrow_fields();
        let avro: Value = serde_json::from_str(self.reader.json()).unwrap_or_default();
        let mut problems = Vec::new();
        for property in &object.properties {
            let Some(field) = fields.iter().find(|field| *field.name() == property.name) else {
                let near = nearest_of(&property.name, fields.iter().map(|field| field.name().as_str()));
                let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                let message = format!("the schema has no field `{}`{near}", property.name);
                problems.push(Problem::new(&property.place, message));
                continue;
            };
            problems.extend(self.field(property, field, &avro).map(|message| Problem::new(&property.place, message)));
        }
        let is_described = |field: &Field| object.properties.iter().any(|property| property.name == *field.name());
        for field in fields.iter().filter(|field| !is_described(field)) {
            let message = format!("does not describe the field `{}` of the schema", field.name());
            problems.push(Problem::new(&object.place.at("properties", object.place.line), message));
        }
        problems
    }

    fn field(&self, property: &Property, field: &Field, avro: &Value) -> Option<String> {
        let name = &property.name;
        if let Some(said) = &property.logical_type
            && let fitting = logical_types(field.data_type())
            && !fitting.is_empty()
            && !fitting.contains(&said.as_str())
        {
            let (found, wanted) = (field.data_type(), fitting.join(" or "));
            return Some(format!("`{name}`: logicalType is {said}; the schema has {found}, which is {wanted}"));
        }
        let types = avro_types(avro, name);
        if let Some(said) = &property.physical_type
            && !types.is_empty()
            && !types.iter().any(|found| found.eq_ignore_ascii_case(said))
        {
            return Some(format!("`{name}`: physicalType is {said}; in the schema it is {}", types.join(", or ")));
        }
        match (property.required, field.is_nullable()) {
            (true, true) if !self.is_refused_without(name) => Some(format!(
                "`{name}`: required, but the schema lets it be null, and no rule `required` with severity error \
                 refuses that"
            )),
            (false, false) => Some(format!("`{name}`: not required, but in the schema it is never null")),
            _ => None,
        }
    }

    fn is_refused_without(&self, field: &str) -> bool {
        let event = &self.config.event;
        let is_of_event = event.key.iter().chain([&event.time, &event.value]).any(|needed| needed == field);
        let refuses = |rule: &DeclaredRule| {
            rule.field.as_deref() == Some(field)
                && rule.severity == Severity::Error
                && rule.kind == RuleKind::Judged(Demand::Required)
        };
        is_of_event || self.contract.rules.iter().any(refuses)
    }

    fn rule(&self, rule: &DeclaredRule) -> Option<Problem> {
        let limits = &self.config.limits;
        let message = match &rule.kind {
            RuleKind::Judged(_) => None,
            RuleKind::MaxEventAge(age) => self.limit(rule, "limits.max_event_age", *age, limits.max_event_age),
            RuleKind::MaxFutureSkew(skew) => self.limit(rule, "limits.max_future_skew", *skew, limits.max_future_skew),
            RuleKind::Unique(fields) => self.unique(&rule.name, fields),
        };
        Some(Problem::new(&rule.place, message?))
    }

    /// Told are repetitions of a sensor's numbers, as the configuration names them.
    fn unique(&self, rule: &str, fields: &[String]) -> Option<String> {
        if let Some(field) = fields.iter().find(|field| self.reader.index_of(field).is_none()) {
            return Some(format!("rule {rule}: the schema has no field `{field}`"));
        }
        let event = &self.config.event;
        let Some(sequence) = &event.sequence else {
            return Some(format!("rule {rule}: repetitions are told by event.sequence, which names no field"));
        };
        let told: Vec<&String> = event.key.iter().take(1).chain([sequence]).collect();
        let is_told = fields.len() == told.len() && told.iter().all(|field| fields.contains(field));
        let told = told.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        (!is_told).then(|| {
            let said = fields.join(", ");
            format!("rule {rule}: repetitions are told by {told} (event.key, event.sequence), not by {said}")
        })
    }

    /// Enforced is what the configuration says.
    fn limit(&self, rule: &DeclaredRule, key: &str, said: Duration, enforced: Duration) -> Option<String> {
        let time = &self.config.event.time;
        if rule.field.as_deref() != Some(time) {
            return Some(format!("rule {}: event times are judged by `{time}` (event.time)", rule.name));
        }
        let shown = humantime::format_duration;
        (said != enforced).then(|| {
            let (name, said, enforced) = (&rule.name, shown(said), shown(enforced));
            format!("rule {name}: {said} here, {enforced} in {key}, which is what is enforced: they must agree")
        })
    }

    fn level(&self, level: &ServiceLevel) -> Option<Problem> {
        let message = match level.property.to_lowercase().as_str() {
            "retention" | "re" => self.retention(level),
            "completeness" => self.completeness(level),
            "latency" | "ly" | "freshness" | "frequency" | "fy" => positive_time(level).err(),
            _ => None,
        };
        Some(Problem::new(&level.place, message?))
    }

    fn retention(&self, level: &ServiceLevel) -> Option<String> {
        let days = match positive_time(level) {
            Ok(seconds) => seconds / SECONDS_OF_A_DAY,
            Err(message) => return Some(message),
        };
        let table = level.element.as_deref()?;
        let kept = days_kept(table)?;
        if days > f64::from(kept) {
            return Some(format!("promises {days} days of {table}; the table's TTL drops rows after {kept}"));
        }
        let age = self.config.limits.max_event_age;
        let is_shorter = days * SECONDS_OF_A_DAY < age.as_secs_f64();
        is_shorter.then(|| {
            let age = humantime::format_duration(age);
            format!("{days} days of {table} are fewer than limits.max_event_age, {age}: what comes late would be gone")
        })
    }

    fn completeness(&self, level: &ServiceLevel) -> Option<String> {
        let is_share = level.number.is_some_and(|number| (0.0..=100.0).contains(&number));
        let is_percent = matches!(level.unit.as_deref(), Some("percent" | "%"));
        if !is_share || !is_percent {
            return Some("completeness is a number from 0 to 100 with the unit percent".to_owned());
        }
        let elements = level.element.as_deref().unwrap_or_default();
        let mut fields = elements.split(',').map(|element| element.trim().rsplit('.').next().unwrap_or_default());
        let sequence = self.config.event.sequence.as_deref();
        let problem = |field: &str| match self.reader.index_of(field) {
            None => Some(format!("completeness of `{field}`: the schema has no such field")),
            Some(_) if sequence == Some(field) => None,
            Some(_) => {
                let sequence = sequence.unwrap_or("none");
                Some(format!("completeness of `{field}`: it is measured by event.sequence, {sequence}"))
            }
        };
        fields.find_map(problem)
    }
}

const SECONDS_OF_A_DAY: f64 = 86_400.0;

/// The time that a level names, in seconds.
fn positive_time(level: &ServiceLevel) -> Result<f64, String> {
    let property = &level.property;
    let number = level.number.filter(|number| *number > 0.0);
    let number = number.ok_or_else(|| format!("{property} is {:?}, where a number above 0 is needed", level.value))?;
    let seconds = match level.unit.as_deref().unwrap_or_default().to_lowercase().as_str() {
        "ms" | "millisecond" | "milliseconds" => 0.001,
        "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => SECONDS_OF_A_DAY,
        "w" | "wk" | "week" | "weeks" => 7.0 * SECONDS_OF_A_DAY,
        "y" | "yr" | "year" | "years" => 365.0 * SECONDS_OF_A_DAY,
        other => return Err(format!("{property} has the unit {other:?}; it may be ms, s, m, h, d, w or y")),
    };
    Ok(number * seconds)
}

/// The logical types of the standard that a column may have; none where anything goes.
fn logical_types(data_type: &DataType) -> &'static [&'static str] {
    match data_type {
        DataType::Utf8 | DataType::Dictionary(..) => &["string"],
        DataType::Boolean => &["boolean"],
        DataType::Int32 | DataType::Int64 => &["integer", "number"],
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) | DataType::Decimal256(..) => &["number"],
        DataType::Date32 => &["date"],
        DataType::Time32(_) | DataType::Time64(_) => &["time"],
        DataType::Timestamp(..) => &["timestamp"],
        DataType::List(_) => &["array"],
        DataType::Struct(_) | DataType::Map(..) => &["object"],
        _ => &[],
    }
}

/// How the Avro type of a field is called: its logical type and the one below it. None where it is a name.
fn avro_types(avro: &Value, field: &str) -> Vec<String> {
    let fields = avro["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let found = fields.iter().find(|candidate| candidate["name"] == field);
    found.map(|found| type_names(&found["type"])).unwrap_or_default()
}

fn type_names(of: &Value) -> Vec<String> {
    const PRIMITIVE: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    const COMPLEX: [&str; 5] = ["record", "enum", "array", "map", "fixed"];
    match of {
        Value::String(name) if PRIMITIVE.contains(&name.as_str()) || COMPLEX.contains(&name.as_str()) => {
            vec![name.clone()]
        }
        Value::Object(object) => {
            let logical = object.get("logicalType").and_then(Value::as_str).map(str::to_owned);
            logical.into_iter().chain(type_names(&of["type"])).collect()
        }
        Value::Array(branches) => {
            let set: Vec<_> = branches.iter().filter(|branch| *branch != "null").collect();
            if let [one] = set.as_slice() { type_names(one) } else { vec!["union".to_owned()] }
        }
        _ => Vec::new(),
    }
}
