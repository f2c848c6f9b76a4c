//! A contract as a page for people, in Markdown.

use std::fmt::Write as _;

use humantime_serde::re::humantime;
use kappa_core::contract::rules::{Bounds, Demand, Severity};

use super::model::{DataContract, DeclaredRule, RuleKind};

/// The page, whole.
pub fn page(contract: &DataContract) -> String {
    let mut out = String::new();
    let title = if contract.name.is_empty() { &contract.id } else { &contract.name };
    let DataContract { id, version, status, .. } = contract;
    let domain = contract.domain.as_deref().map(|domain| format!(", domain {domain}")).unwrap_or_default();
    let lines = [
        format!("# Data contract: {title}"),
        format!("`{id}` {version}, {status}{domain}. Generated from the contract by `kappa contract docs`."),
        contract.purpose.clone(),
        contract.usage.as_ref().map(|usage| format!("**Use.** {usage}")).unwrap_or_default(),
        contract.limitations.as_ref().map(|limits| format!("**Limits.** {limits}")).unwrap_or_default(),
        format!(
            "**Whom to ask.** {}. {}",
            contract.contact(),
            contract.team.description.as_deref().unwrap_or_default()
        ),
    ];
    for line in lines.iter().filter(|line| !line.is_empty()) {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}\n", line.trim_end());
    }
    fields(&mut out, contract);
    rules(&mut out, contract);
    levels(&mut out, contract);
    people(&mut out, contract);
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn fields(out: &mut String, contract: &DataContract) {
    let object = &contract.object;
    let _ = writeln!(out, "## Fields\n");
    let said = [&object.description, &object.granularity];
    let said: Vec<_> = said.into_iter().flatten().map(|text| sentence(text)).collect();
    if !said.is_empty() {
        let _ = writeln!(out, "{}\n", said.join(" "));
    }
    let header = ["field", "type", "meaning", "unit", "always there", "class", "personal data", "examples"];
    let rows = object.properties.iter().map(|property| {
        let physical = property.physical_type.clone().or(property.logical_type.clone());
        vec![
            format!("`{}`", property.name),
            physical.unwrap_or_default(),
            property.description.clone(),
            property.unit.clone().unwrap_or_default(),
            if property.required { "yes" } else { "no" }.to_owned(),
            property.classification.clone(),
            property.pii.clone().unwrap_or_default(),
            property.examples.join(", "),
        ]
    });
    table(out, &header, rows);
}

fn rules(out: &mut String, contract: &DataContract) {
    let _ = writeln!(out, "## Rules\n");
    let _ = writeln!(
        out,
        "Judged at ingestion, each record by itself. A refused record goes to the dead letters with a sentence that names field, \
         value and bound; a counted one is accepted, and `kappa_contract_violations_total` counts it.\n"
    );
    let header = ["rule", "about", "what must hold", "otherwise", "why"];
    let rows = contract.rules.iter().map(|rule| {
        let why = [Some(&rule.description), rule.impact.as_ref()];
        let why: Vec<_> = why.into_iter().flatten().map(|text| sentence(text)).collect();
        vec![format!("`{}`", rule.name), about(rule), demand(rule), otherwise(rule), why.join(" ")]
    });
    table(out, &header, rows);
    if !contract.other_rules.is_empty() {
        let _ = writeln!(out, "Agreed, and seen to by others than the pipeline:\n");
        let rows = contract.other_rules.iter();
        let rows = rows.map(|rule| vec![rule.about.clone(), rule.kind.clone(), rule.description.clone()]);
        table(out, &["about", "by", "what"], rows);
    }
}

fn about(rule: &DeclaredRule) -> String {
    match (&rule.field, &rule.kind) {
        (_, RuleKind::Unique(fields)) => listed_fields(fields),
        (Some(field), _) => format!("`{field}`"),
        (None, _) => "the record".to_owned(),
    }
}

fn listed_fields(fields: &[String]) -> String {
    fields.iter().map(|field| format!("`{field}`")).collect::<Vec<_>>().join(", ")
}

/// What a rule demands, in words.
pub fn demand(rule: &DeclaredRule) -> String {
    let with_unit = |bounds: &Bounds, of: &str| match rule.units.get(of) {
        Some(unit) => format!("{bounds} {unit}"),
        None => bounds.to_string(),
    };
    match &rule.kind {
        RuleKind::Judged(Demand::Required) => "there, and not empty".to_owned(),
        RuleKind::Judged(Demand::Length { min, max }) if *max == usize::MAX => format!("at least {min} bytes"),
        RuleKind::Judged(Demand::Length { min, max }) => format!("{min} to {max} bytes"),
        RuleKind::Judged(Demand::Range(bounds)) => with_unit(bounds, ""),
        RuleKind::Judged(Demand::RangeBy { by, bounds }) => {
            let each = bounds.iter().map(|(value, bounds)| format!("{value}: {}", with_unit(bounds, value)));
            format!("by `{by}`: {}", each.collect::<Vec<_>>().join("; "))
        }
        RuleKind::Judged(Demand::Allowed(values)) => format!("one of {}", values.join(", ")),
        RuleKind::MaxEventAge(age) => {
            format!("at most {} older than its Kafka timestamp", humantime::format_duration(*age))
        }
        RuleKind::MaxFutureSkew(skew) => {
            format!("at most {} ahead of its Kafka timestamp", humantime::format_duration(*skew))
        }
        RuleKind::Unique(_) => "together once".to_owned(),
    }
}

fn otherwise(rule: &DeclaredRule) -> String {
    match (&rule.kind, rule.severity) {
        (RuleKind::MaxEventAge(_), _) => "refused: `event_time_too_old` (`limits.max_event_age`)".to_owned(),
        (RuleKind::MaxFutureSkew(_), _) => "refused: `event_time_in_future` (`limits.max_future_skew`)".to_owned(),
        (RuleKind::Unique(_), _) => "archived and marked, counted in no window".to_owned(),
        (RuleKind::Judged(_), Severity::Error) => format!("refused: `contract_{}`", rule.name),
        (RuleKind::Judged(_), Severity::Warning) => "counted".to_owned(),
    }
}

fn levels(out: &mut String, contract: &DataContract) {
    if contract.levels.is_empty() {
        return;
    }
    let _ = writeln!(out, "## Service levels\n");
    let rows = contract.levels.iter().map(|level| {
        let promise = format!("{} {}", level.value, level.unit.as_deref().unwrap_or_default());
        vec![
            level.property.clone(),
            promise.trim_end().to_owned(),
            level.element.as_deref().map(|element| format!("`{element}`")).unwrap_or_default(),
            level.driver.clone().unwrap_or_default(),
            level.description.clone().unwrap_or_default(),
        ]
    });
    table(out, &["property", "promise", "of", "for", "meaning"], rows);
}

fn people(out: &mut String, contract: &DataContract) {
    let team = format!("Team: {}", contract.team.name);
    let sections = [
        (team.as_str(), "who", &contract.team.members),
        ("Support", "channel", &contract.support),
        ("Roles", "role", &contract.roles),
        ("Servers", "server", &contract.servers),
    ];
    for (title, name, entries) in sections.into_iter().filter(|(_, _, entries)| !entries.is_empty()) {
        let _ = writeln!(out, "## {title}\n");
        let rows = entries.iter().map(|entry| {
            let facts = entry.facts.iter().filter(|(key, _)| key != "description");
            let facts = facts.map(|(key, value)| format!("{key}: {value}")).collect::<Vec<_>>().join(", ");
            vec![entry.name.clone(), facts, entry.fact("description").unwrap_or_default().to_owned()]
        });
        table(out, &[name, "facts", "meaning"], rows);
    }
}

/// The columns that have anything in them.
fn table(out: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let rows: Vec<Vec<String>> = rows.collect();
    let is_used = |column: &usize| rows.iter().any(|row| row.get(*column).is_some_and(|cell| !cell.is_empty()));
    let columns: Vec<usize> = (0..header.len()).filter(is_used).collect();
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let _ = writeln!(out, "{}", line(columns.iter().map(|column| header[*column].to_owned()).collect()));
    let _ = writeln!(out, "{}|", "|---".repeat(columns.len()));
    for row in &rows {
        // Whatever a person wrote stays in its cell.
        let cell = |column: &usize| row[*column].replace('|', "\\|").split_whitespace().collect::<Vec<_>>().join(" ");
        let _ = writeln!(out, "{}", line(columns.iter().map(cell).collect()));
    }
    out.push('\n');
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}
