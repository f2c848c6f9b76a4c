//! The data contract: a file of the Open Data Contract Standard whose rules the pipeline judges by.
//!
//! | module | what happens there |
//! |---|---|
//! | [`tree`] | YAML to a tree that knows its lines |
//! | [`read`], [`implementation`], [`mapping`] | the tree to a [`DataContract`], with everything that is wrong |
//! | [`check`] | the contract held against schema and configuration |
//! | [`page`] | the contract for people: `docs/data-contract.md` |
//!
//! The rules themselves are the core's: [`kappa_core::contract::rules`].

mod check;
mod implementation;
mod mapping;
mod model;
mod page;
mod problem;
mod read;
mod tree;

use std::fmt;
use std::path::{Path, PathBuf};

use kappa_core::contract::rules::{ContractRules, Rule};
use kappa_core::decode::ReaderSchema;

pub use model::{DataContract, DeclaredRule, RuleKind};
pub use page::{demand as demanded, page};
pub use problem::{Place, Problem};

use crate::config::{Config, ConfigurationError};

/// The contract of the built-in schema.
pub const BUILT_IN_CONTRACT: &str = include_str!("../../../../schemas/sensor-reading.contract.yaml");

/// In `contract.file`: no contract, whatever the schema is.
const NONE: &str = "none";

/// Which contract is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContractSource {
    /// That of the built-in schema.
    BuiltIn,
    /// A file.
    File(PathBuf),
    /// None: nothing was said, and the schema is somebody else's, or `none` was said.
    None,
}

impl ContractSource {
    /// By `contract.file` and `event.schema`.
    pub fn of(config: &Config) -> Self {
        match &config.contract.file {
            Some(file) if file.as_os_str() == NONE => Self::None,
            Some(file) => Self::File(file.clone()),
            None if config.event.schema.is_none() => Self::BuiltIn,
            None => Self::None,
        }
    }

    /// Where it lies, if not in the program.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(file) => Some(file),
            Self::BuiltIn | Self::None => None,
        }
    }

    /// Its text.
    pub(crate) fn text(&self) -> std::io::Result<Option<String>> {
        match self {
            Self::BuiltIn => Ok(Some(BUILT_IN_CONTRACT.to_owned())),
            Self::File(file) => std::fs::read_to_string(file).map(Some),
            Self::None => Ok(None),
        }
    }
}

impl fmt::Display for ContractSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => formatter.write_str("the built-in contract"),
            Self::File(file) => write!(formatter, "{}", file.display()),
            Self::None => formatter.write_str(NONE),
        }
    }
}

/// Reads a contract: as much of it as can be read, and everything that is wrong with the file alone.
pub fn read(text: &str) -> (DataContract, Vec<Problem>) {
    read::read(text)
}

/// Reads a contract and holds it against schema and configuration.
pub fn check(text: &str, reader: &ReaderSchema, config: &Config) -> (DataContract, Vec<Problem>) {
    let (contract, problems) = read(text);
    if !problems.is_empty() {
        // What could not be read would only be missed.
        return (contract, problems);
    }
    let problems = check::check(&contract, reader, config);
    (contract, problems)
}

/// The contract in force, and its rules for the records of the reader schema.
///
/// # Errors
/// If the file cannot be read, or a rule cannot be judged. What contradicts the configuration is no error here: that is
/// for [`check`] to say.
pub fn in_force(
    config: &Config,
    reader: &ReaderSchema,
) -> Result<Option<(DataContract, ContractRules)>, ConfigurationError> {
    let source = ContractSource::of(config);
    let wrong = |messages: Vec<String>| ConfigurationError::of_key("contract.file", &source.to_string(), messages);
    let text = source.text().map_err(|error| wrong(vec![format!("cannot be read: {error}")]))?;
    let Some(text) = text else { return Ok(None) };
    let told = |problems: Vec<Problem>| wrong(problems.iter().map(ToString::to_string).collect());
    let (contract, problems) = read(&text);
    if !problems.is_empty() {
        return Err(told(problems));
    }
    let rules = rules_for(&contract, reader).map_err(told)?;
    Ok(Some((contract, rules)))
}

/// The contract in force, for its words; `None` also where it cannot be read.
pub fn in_words(config: &Config) -> Option<DataContract> {
    let (contract, problems) = read(&ContractSource::of(config).text().ok()??);
    problems.is_empty().then_some(contract)
}

/// The rules that are judged at each record, bound to the columns of a schema.
pub fn rules_for(contract: &DataContract, reader: &ReaderSchema) -> Result<ContractRules, Vec<Problem>> {
    let judged = contract.rules.iter().filter_map(|declared| match (&declared.kind, &declared.field) {
        (RuleKind::Judged(demand), Some(field)) => Some((declared, field, demand)),
        _ => None,
    });
    let (declared, rules): (Vec<_>, Vec<_>) = judged
        .map(|(declared, field, demand)| {
            let DeclaredRule { name, severity, .. } = declared.clone();
            (declared, Rule { name, field: field.clone(), severity, demand: demand.clone() })
        })
        .unzip();
    ContractRules::compile(&contract.title(), rules, reader).map_err(|misfits| {
        let problem = |(index, misfit): (usize, _)| {
            let rule: &DeclaredRule = declared[index];
            Problem::new(&rule.place, format!("rule {}: {misfit}", rule.name))
        };
        misfits.into_iter().map(problem).collect()
    })
}

#[cfg(test)]
mod tests;
