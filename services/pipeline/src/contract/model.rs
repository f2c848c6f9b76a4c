//! What a contract says, as far as the pipeline or a reader of its page wants to know.

use std::collections::BTreeMap;
use std::time::Duration;

use kappa_core::contract::rules::{Demand, Severity};

use super::problem::Place;

/// A data contract of the Open Data Contract Standard.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the words of the standard")]
pub struct DataContract {
    pub id: String,
    pub name: String,
    pub version: String,
    pub status: String,
    pub domain: Option<String>,
    pub purpose: String,
    pub usage: Option<String>,
    pub limitations: Option<String>,
    /// The records of the topic: the one object of the schema.
    pub object: SchemaObject,
    pub rules: Vec<DeclaredRule>,
    /// Rules of other engines, in words.
    pub other_rules: Vec<OtherRule>,
    pub levels: Vec<ServiceLevel>,
    pub team: Team,
    pub support: Vec<Listed>,
    pub roles: Vec<Listed>,
    pub servers: Vec<Listed>,
}

/// The object of the schema.
#[derive(Debug, Clone, Default)]
pub struct SchemaObject {
    pub name: String,
    pub physical_name: Option<String>,
    pub description: Option<String>,
    pub granularity: Option<String>,
    pub properties: Vec<Property>,
    pub place: Place,
}

/// A field.
#[derive(Debug, Clone)]
pub struct Property {
    pub name: String,
    pub description: String,
    pub logical_type: Option<String>,
    pub physical_type: Option<String>,
    pub required: bool,
    pub classification: String,
    /// From the custom property `unit`.
    pub unit: Option<String>,
    /// From the custom property `pii`.
    pub pii: Option<String>,
    pub examples: Vec<String>,
    pub place: Place,
}

/// A rule of this engine.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the words of the standard")]
pub struct DeclaredRule {
    pub name: String,
    pub description: String,
    pub dimension: Option<String>,
    pub severity: Severity,
    pub impact: Option<String>,
    /// The field that it is about; none for a rule about records.
    pub field: Option<String>,
    pub kind: RuleKind,
    /// The units of its bounds, for people: by the value that they are for, or by nothing.
    pub units: BTreeMap<String, String>,
    pub place: Place,
}

/// What a rule demands, and who sees to it.
#[derive(Debug, Clone, PartialEq)]
pub enum RuleKind {
    /// Judged at each record, by the rules of the core.
    Judged(Demand),
    /// Enforced by `limits.max_event_age`.
    MaxEventAge(Duration),
    /// Enforced by `limits.max_future_skew`.
    MaxFutureSkew(Duration),
    /// Repetitions are archived, marked, and counted in no window.
    Unique(Vec<String>),
}

/// A rule that another engine, or a person, sees to.
#[derive(Debug, Clone)]
pub struct OtherRule {
    pub about: String,
    pub kind: String,
    pub description: String,
}

/// A property of the service level.
#[derive(Debug, Clone)]
pub struct ServiceLevel {
    pub property: String,
    pub value: String,
    pub number: Option<f64>,
    pub unit: Option<String>,
    pub element: Option<String>,
    pub driver: Option<String>,
    pub description: Option<String>,
    pub place: Place,
}

/// Whose contract it is.
#[derive(Debug, Clone, Default)]
pub struct Team {
    pub name: String,
    pub description: Option<String>,
    pub members: Vec<Listed>,
}

/// A line of a list: a person, a channel, a role or a server.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What else it says, by key.
    pub facts: Vec<(String, String)>,
}

impl DataContract {
    /// Whom to ask: the team, and the address of its owner or of the first channel.
    pub fn contact(&self) -> String {
        let is_owner = |member: &&Listed| member.fact("role") == Some("owner");
        let owner = self.team.members.iter().find(is_owner).or(self.team.members.first());
        match owner.map(|member| member.name.as_str()).or(self.support.first().map(|channel| channel.name.as_str())) {
            Some(address) => format!("{} ({address})", self.team.name),
            None => self.team.name.clone(),
        }
    }

    /// How the contract is called in footers and messages.
    pub fn title(&self) -> String {
        format!("{} {}", self.id, self.version)
    }

    /// The rule of that name.
    pub fn rule(&self, name: &str) -> Option<&DeclaredRule> {
        self.rules.iter().find(|rule| rule.name == name)
    }
}

impl Listed {
    /// What it says under a key.
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.facts.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }
}
