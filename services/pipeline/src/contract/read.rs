//! From the tree of a file to a contract. Keys are those of the Open Data Contract Standard 3.1; what is none of them, and
//! none of ours within an `implementation`, is a mistake: a rule whose bound is misspelt would let everything pass.

use std::collections::BTreeSet;

use kappa_core::contract::rules::Severity;

use super::implementation;
use super::mapping::{Findings, Mapping, shown};
use super::model::{DataContract, DeclaredRule, Listed, OtherRule, Property, SchemaObject, ServiceLevel, Team};
use super::problem::{Place, Problem};
use super::tree;

/// Versions of the standard that are read.
const API_VERSIONS: [&str; 4] = ["v3.1.0", "v3.0.2", "v3.0.1", "v3.0.0"];

const ROOT: &[&str] = &[
    "apiVersion",
    "kind",
    "id",
    "name",
    "version",
    "status",
    "tenant",
    "tags",
    "domain",
    "dataProduct",
    "description",
    "schema",
    "support",
    "price",
    "team",
    "roles",
    "servers",
    "slaDefaultElement",
    "slaProperties",
    "authoritativeDefinitions",
    "customProperties",
    "contractCreatedTs",
];
const DESCRIPTION: &[&str] = &["purpose", "usage", "limitations", "authoritativeDefinitions", "customProperties"];
const OBJECT: &[&str] = &[
    "id",
    "name",
    "physicalName",
    "physicalType",
    "logicalType",
    "businessName",
    "description",
    "tags",
    "properties",
    "relationships",
    "quality",
    "dataGranularityDescription",
    "authoritativeDefinitions",
    "customProperties",
];
const PROPERTY: &[&str] = &[
    "id",
    "name",
    "businessName",
    "description",
    "logicalType",
    "logicalTypeOptions",
    "physicalType",
    "physicalName",
    "required",
    "unique",
    "primaryKey",
    "primaryKeyPosition",
    "partitioned",
    "partitionKeyPosition",
    "classification",
    "encryptedName",
    "transformSourceObjects",
    "transformLogic",
    "transformDescription",
    "examples",
    "criticalDataElement",
    "relationships",
    "quality",
    "tags",
    "items",
    "properties",
    "authoritativeDefinitions",
    "customProperties",
];
const QUALITY: &[&str] = &[
    "id",
    "name",
    "description",
    "type",
    "engine",
    "implementation",
    "severity",
    "dimension",
    "businessImpact",
    "unit",
    "metric",
    "rule",
    "arguments",
    "query",
    "method",
    "schedule",
    "scheduler",
    "tags",
    "customProperties",
    "authoritativeDefinitions",
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
];
const LEVEL: &[&str] =
    &["id", "property", "value", "valueExt", "unit", "element", "driver", "description", "scheduler", "schedule"];
const TEAM: &[&str] = &["id", "name", "description", "members", "tags", "customProperties", "authoritativeDefinitions"];
const DIMENSIONS: &[&str] =
    &["accuracy", "completeness", "conformity", "consistency", "coverage", "timeliness", "uniqueness"];
const LOGICAL_TYPES: &[&str] =
    &["string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"];
const ENGINE: &str = "kappa";

/// Reads a contract. With problems it is as much of one as could be read.
pub(super) fn read(text: &str) -> (DataContract, Vec<Problem>) {
    let mut findings = Findings::default();
    let mut contract = DataContract::default();
    match tree::parse(text) {
        Ok(node) => {
            if let Some(root) = findings.mapping(&node, Place { line: node.line, path: String::new() }) {
                contract = whole(&mut findings, &root);
            }
        }
        Err(error) => {
            findings.add(&Place { line: error.line, path: String::new() }, format!("no YAML: {}", error.message));
        }
    }
    (contract, findings.0)
}

fn whole(findings: &mut Findings, root: &Mapping<'_>) -> DataContract {
    findings.known(root, ROOT, "a contract of the standard");
    findings.needed(root, "apiVersion", "v3.1.0, say");
    findings.word(root, "apiVersion", &API_VERSIONS);
    findings.needed(root, "kind", "DataContract");
    findings.word(root, "kind", &["DataContract"]);
    let mut contract = DataContract {
        id: findings.needed(root, "id", "footers and messages name the contract by it"),
        name: findings.text(root, "name").unwrap_or_default(),
        version: findings.needed(root, "version", "footers and messages name the contract by it"),
        status: findings.needed(root, "status", "draft, active, deprecated or retired, say"),
        domain: findings.text(root, "domain"),
        ..DataContract::default()
    };
    for (key, text) in [("id", &contract.id), ("version", &contract.version)] {
        if text.contains(char::is_whitespace) {
            findings.add(&root.place.at(key, root.place.line), "has white space in it");
        }
    }
    description(findings, root, &mut contract);
    schema(findings, root, &mut contract);
    contract.levels =
        findings.mappings(root, "slaProperties").iter().map(|level| service_level(findings, level)).collect();
    contract.team = team(findings, root);
    contract.support = listed(findings, root, "support", "channel");
    contract.roles = listed(findings, root, "roles", "role");
    contract.servers = listed(findings, root, "servers", "server");
    contract
}

fn description(findings: &mut Findings, root: &Mapping<'_>, contract: &mut DataContract) {
    let Some((node, place)) = root.get("description") else {
        return findings.add(&root.place, "has no `description`: what the data is for (description.purpose)");
    };
    let Some(description) = findings.mapping(node, place) else { return };
    findings.known(&description, DESCRIPTION, "a description");
    contract.purpose = findings.needed(&description, "purpose", "what the data is for");
    contract.usage = findings.text(&description, "usage");
    contract.limitations = findings.text(&description, "limitations");
}

fn schema(findings: &mut Findings, root: &Mapping<'_>, contract: &mut DataContract) {
    let objects = findings.mappings(root, "schema");
    let [object] = objects.as_slice() else {
        let message = format!("`schema` lists {} objects; one is needed, the records of the topic", objects.len());
        return findings.add(&root.place, message);
    };
    findings.known(object, OBJECT, "an object of the schema");
    findings.word(object, "logicalType", &["object"]);
    let mut seen = BTreeSet::new();
    let mut properties = Vec::new();
    for property in findings.mappings(object, "properties") {
        let read = self::property(findings, &property);
        if !read.name.is_empty() && !seen.insert(read.name.clone()) {
            findings.add(&property.place, format!("`{}` is described twice", read.name));
        }
        quality(findings, &property, Some(&read.name), contract);
        properties.push(read);
    }
    contract.object = SchemaObject {
        name: findings.needed(object, "name", "the object is called by it"),
        physical_name: findings.text(object, "physicalName"),
        description: findings.text(object, "description"),
        granularity: findings.text(object, "dataGranularityDescription"),
        properties,
        place: object.place.clone(),
    };
    quality(findings, object, None, contract);
    let mut names = BTreeSet::new();
    for rule in &contract.rules {
        if !names.insert(rule.name.as_str()) {
            findings
                .add(&rule.place, format!("there are two rules {:?}; reasons and counts go by the name", rule.name));
        }
    }
}

fn property(findings: &mut Findings, property: &Mapping<'_>) -> Property {
    findings.known(property, PROPERTY, "a property");
    let custom = custom_properties(findings, property);
    let of_custom = |name: &str| custom.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    let examples = findings.list(property, "examples");
    Property {
        name: findings.needed(property, "name", "the field of the Avro schema"),
        description: findings.needed(property, "description", "what the field means"),
        logical_type: findings.word(property, "logicalType", LOGICAL_TYPES),
        physical_type: findings.text(property, "physicalType"),
        required: findings.flag(property, "required").unwrap_or(false),
        classification: findings.needed(property, "classification", "public, internal or confidential, say"),
        unit: of_custom("unit"),
        pii: of_custom("pii"),
        examples: examples.iter().map(|(node, _)| shown(node)).collect(),
        place: property.place.clone(),
    }
}

fn custom_properties(findings: &mut Findings, mapping: &Mapping<'_>) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for custom in findings.mappings(mapping, "customProperties") {
        findings.known(&custom, &["id", "property", "value", "description"], "a custom property");
        let name = findings.needed(&custom, "property", "its name");
        all.push((name, custom.get("value").map(|(node, _)| shown(node)).unwrap_or_default()));
    }
    all
}

/// The rules below a property (`field`) or the object.
fn quality(findings: &mut Findings, mapping: &Mapping<'_>, field: Option<&str>, contract: &mut DataContract) {
    for rule in findings.mappings(mapping, "quality") {
        findings.known(&rule, QUALITY, "a quality rule");
        let kind = findings.word(&rule, "type", &["text", "library", "sql", "custom"]);
        let engine = findings.text(&rule, "engine");
        if kind.as_deref() == Some("custom") && engine.as_deref() == Some(ENGINE) {
            contract.rules.extend(declared(findings, &rule, field));
            continue;
        }
        if rule.get("implementation").is_some() && engine.is_none() {
            findings.add(&rule.place, format!("has an `implementation` and no engine; ours is `engine: {ENGINE}`"));
        } else if engine.as_deref().is_some_and(|engine| engine.eq_ignore_ascii_case(ENGINE)) {
            findings.add(&rule.place, format!("is no rule of ours: that needs `type: custom` and `engine: {ENGINE}`"));
        }
        contract.other_rules.push(OtherRule {
            about: field.map_or_else(|| "all records".to_owned(), |field| format!("`{field}`")),
            kind: engine.or(findings.text(&rule, "metric")).or(kind).unwrap_or_else(|| "library".to_owned()),
            description: findings.text(&rule, "description").unwrap_or_default(),
        });
    }
}

fn declared(findings: &mut Findings, rule: &Mapping<'_>, field: Option<&str>) -> Option<DeclaredRule> {
    let name = findings.needed(rule, "name", "reasons and counts go by it");
    if !name.is_empty() && !is_snake_case(&name) {
        let (_, place) = rule.get("name")?;
        findings
            .add(&place, format!("{name:?} is no snake_case: letters a to z, digits and underscores, a letter first"));
    }
    let description = findings.needed(rule, "description", "what it is for, in words for who is refused");
    findings.needed(rule, "severity", "error refuses the record, warning only counts it");
    let severity = match findings.word(rule, "severity", &["error", "warning"]).as_deref() {
        Some("warning") => Severity::Warning,
        _ => Severity::Error,
    };
    let Some((node, place)) = rule.get("implementation") else {
        findings.add(&rule.place, "has no `implementation`: the rule and its bounds");
        return None;
    };
    let implementation = findings.mapping(node, place)?;
    let kind = implementation::read(findings, &implementation, field, severity)?;
    Some(DeclaredRule {
        name,
        description,
        dimension: findings.word(rule, "dimension", DIMENSIONS),
        severity,
        impact: findings.text(rule, "businessImpact"),
        field: field.map(str::to_owned),
        kind,
        units: implementation::units(findings, &implementation),
        place: rule.place.clone(),
    })
}

fn is_snake_case(name: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    name.starts_with(|first: char| first.is_ascii_lowercase()) && name.chars().all(plain) && name.len() <= 64
}

fn service_level(findings: &mut Findings, level: &Mapping<'_>) -> ServiceLevel {
    findings.known(level, LEVEL, "a service level");
    let value = level.get("value");
    if value.is_none() {
        findings.add(&level.place, "has no `value`: what is promised");
    }
    let number = value.as_ref().and_then(|(node, _)| match node.value {
        tree::Value::Number(number) => Some(number),
        _ => None,
    });
    ServiceLevel {
        property: findings.needed(level, "property", "latency, completeness or retention, say"),
        value: value.map(|(node, _)| shown(node)).unwrap_or_default(),
        number,
        unit: findings.text(level, "unit"),
        element: findings.text(level, "element"),
        driver: findings.word(level, "driver", &["regulatory", "analytics", "operational"]),
        description: findings.text(level, "description"),
        place: level.place.clone(),
    }
}

fn team(findings: &mut Findings, root: &Mapping<'_>) -> Team {
    let why = "whom to ask when records are refused (team.name, team.members)";
    let Some((node, place)) = root.get("team") else {
        findings.add(&root.place, format!("has no `team`: {why}"));
        return Team::default();
    };
    let Some(team) = findings.mapping(node, place) else { return Team::default() };
    findings.known(&team, TEAM, "a team");
    let members = listed(findings, &team, "members", "username");
    if members.is_empty() {
        findings.add(&team.place, format!("has no members: {why}"));
    }
    Team { name: findings.needed(&team, "name", why), description: findings.text(&team, "description"), members }
}

/// The entries of a list, each called by `name`; the rest as it stands.
fn listed(findings: &mut Findings, mapping: &Mapping<'_>, key: &str, name: &str) -> Vec<Listed> {
    let entries = findings.mappings(mapping, key);
    let one = |entry: &Mapping<'_>| {
        let facts = entry.entries().filter(|(key, ..)| *key != name);
        let facts = facts.map(|(key, node, _)| (key.to_owned(), shown(node))).collect();
        Listed { name: findings.needed(entry, name, "the entry is called by it"), facts }
    };
    entries.iter().map(one).collect()
}
