//! The part of a rule that is ours: `implementation`.

use std::collections::BTreeMap;
use std::time::Duration;

use humantime_serde::re::humantime;
use kappa_core::contract::rules::{Bounds, Demand, Severity};

use super::mapping::{Findings, Mapping};
use super::model::RuleKind;
use super::tree::Value;

/// The rules that there are.
pub(super) const RULES: [&str; 7] =
    ["required", "length", "range", "allowed", "max_event_age", "max_future_skew", "unique"];

/// Reads a rule below a property (`field`), or below the object.
pub(super) fn read(
    findings: &mut Findings,
    mapping: &Mapping<'_>,
    field: Option<&str>,
    severity: Severity,
) -> Option<RuleKind> {
    findings.needed(mapping, "rule", "which of ours it is");
    let rule = findings.word(mapping, "rule", &RULES)?;
    if rule == "unique" {
        return unique(findings, mapping, severity);
    }
    if field.is_none() {
        findings.add(&mapping.place, format!("`{rule}` is about a field: it belongs below a property"));
        return None;
    }
    match rule.as_str() {
        "required" => {
            findings.known(mapping, &["rule"], "the rule `required`");
            Some(RuleKind::Judged(Demand::Required))
        }
        "length" => {
            findings.known(mapping, &["rule", "min", "max"], "the rule `length`");
            let (min, max) = (findings.count(mapping, "min"), findings.count(mapping, "max"));
            Some(RuleKind::Judged(Demand::Length { min: min.unwrap_or(0), max: max.unwrap_or(usize::MAX) }))
        }
        "allowed" => {
            findings.known(mapping, &["rule", "values"], "the rule `allowed`");
            Some(RuleKind::Judged(Demand::Allowed(findings.texts(mapping, "values"))))
        }
        "max_event_age" => limit(findings, mapping, severity).map(RuleKind::MaxEventAge),
        "max_future_skew" => limit(findings, mapping, severity).map(RuleKind::MaxFutureSkew),
        _ => range(findings, mapping).map(RuleKind::Judged),
    }
}

fn range(findings: &mut Findings, mapping: &Mapping<'_>) -> Option<Demand> {
    if mapping.get("by").is_none() && mapping.get("values").is_none() {
        findings.known(mapping, &["rule", "by", "values", "min", "max", "unit"], "the rule `range`");
        return Some(Demand::Range(bounds(findings, mapping)));
    }
    findings.known(mapping, &["rule", "by", "values"], "the rule `range` with `by`");
    let by = findings.needed(mapping, "by", "the field whose values have bounds of their own");
    let Some((node, place)) = mapping.get("values") else {
        findings.add(&mapping.place, "has no `values`: the bounds for each value of the field in `by`");
        return None;
    };
    let values = findings.mapping(node, place)?;
    let mut all = Vec::new();
    for (value, node, place) in values.entries() {
        let Some(of_value) = findings.mapping(node, place) else { continue };
        findings.known(&of_value, &["min", "max", "unit"], "a range");
        all.push((value.to_owned(), bounds(findings, &of_value)));
    }
    Some(Demand::RangeBy { by, bounds: all })
}

/// The units that bounds are in.
pub(super) fn units(findings: &mut Findings, mapping: &Mapping<'_>) -> BTreeMap<String, String> {
    let own = findings.text(mapping, "unit").map(|unit| (String::new(), unit));
    let mut units: BTreeMap<_, _> = own.into_iter().collect();
    if let Some((node, place)) = mapping.get("values")
        && let Value::Map(_) = node.value
        && let Some(values) = findings.mapping(node, place)
    {
        for (value, node, place) in values.entries() {
            let of_value = findings.mapping(node, place);
            let unit = of_value.and_then(|of_value| findings.text(&of_value, "unit"));
            units.extend(unit.map(|unit| (value.to_owned(), unit)));
        }
    }
    units
}

fn bounds(findings: &mut Findings, mapping: &Mapping<'_>) -> Bounds {
    Bounds {
        min: findings.number(mapping, "min").unwrap_or(f64::NEG_INFINITY),
        max: findings.number(mapping, "max").unwrap_or(f64::INFINITY),
    }
}

/// A bound on event times. `[limits]` enforces it, and refuses.
fn limit(findings: &mut Findings, mapping: &Mapping<'_>, severity: Severity) -> Option<Duration> {
    findings.known(mapping, &["rule", "duration"], "a rule about event times");
    if severity == Severity::Warning {
        findings.add(&mapping.place, "`[limits]` enforces this rule and refuses records: its severity is `error`");
    }
    let text = findings.needed(mapping, "duration", "such as 30d or 5m");
    let (_, place) = mapping.get("duration")?;
    let duration = humantime::parse_duration(&text).ok();
    if duration.is_none() {
        findings.add(&place, format!("{text:?} is no duration such as 30d, 5m or 90s"));
    }
    duration
}

fn unique(findings: &mut Findings, mapping: &Mapping<'_>, severity: Severity) -> Option<RuleKind> {
    findings.known(mapping, &["rule", "fields", "action"], "the rule `unique`");
    let fields = findings.texts(mapping, "fields");
    if fields.is_empty() {
        findings.add(&mapping.place, "has no `fields`: which together are there once");
    }
    findings.needed(mapping, "action", "`mark`: repetitions are archived and marked, and counted in no window");
    findings.word(mapping, "action", &["mark"])?;
    if severity == Severity::Error {
        findings.add(&mapping.place, "repetitions are marked and not refused: the severity is `warning`");
    }
    Some(RuleKind::Unique(fields))
}
