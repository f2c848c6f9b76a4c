//! The configuration: flags over environment over a TOML file over defaults, checked before anything is touched.
//!
//! [`Sources::load`] is the way in. It reports everything that is wrong at once, and for each value what it is, who set
//! it and what would be right. The sections are plain data ([`Config`]); every key is described in one table.

mod fields;
mod keys;
mod layers;
mod print;
mod problems;
mod sections;
mod validate;
mod values;

use std::collections::BTreeMap;

use anyhow::Context;
use kappa_core::decode::{DecodeLimits, ReaderSchema};

pub(crate) use keys::nearest_of;
pub use layers::Sources;
pub use print::{PrintFormat, print};
pub use problems::{ConfigurationError, Origin, Problem};
pub use sections::{
    AnomalyConfig, CheckpointConfig, Config, ContractConfig, DetectorKind, EventConfig, FetcherChoice, HotStoreConfig,
    HttpConfig, KafkaConfig, LimitsConfig, LogConfig, LogFormat, LogLevel, ObjectStoreConfig, PipelineConfig,
    RegistryConfig, StoreConfig, WindowsConfig,
};
pub use values::{Secret, ServiceUrl, StartPolicy, StoreUrl};

/// The reader schema that is used where `event.schema` names none.
pub const BUILT_IN_SCHEMA: &str = include_str!("../../../../schemas/sensor-reading.avsc");

/// The parts of the configuration that a command uses. Required keys of the other parts may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// `run` and `doctor`.
    Everything,
    /// `migrate`.
    HotStore,
    /// `schema`.
    Registry,
    /// `dlq list` and `dlq purge`.
    DeadLetters,
    /// `dlq show` and `dlq explain`: also what a record is judged by.
    Judgement,
    /// `dlq redrive`: also the log.
    Redrive,
    /// `config print`: only the types of the values are checked.
    Nothing,
}

impl Needs {
    fn includes(self, key: &str) -> bool {
        let section = key.split('.').next().unwrap_or(key);
        match self {
            Self::Everything => true,
            Self::Nothing => false,
            Self::HotStore => matches!(section, "hot_store" | "event"),
            Self::Registry => matches!(section, "registry" | "event") || key == "kafka.topic",
            Self::DeadLetters => matches!(section, "dead_letter" | "object_store") || key == "kafka.topic",
            Self::Judgement => {
                Self::DeadLetters.includes(key)
                    || Self::Registry.includes(key)
                    || matches!(section, "limits" | "contract")
            }
            Self::Redrive => Self::Judgement.includes(key) || section == "kafka",
        }
    }
}

/// A configuration that was checked, and where each of its values came from.
#[derive(Debug, Clone)]
pub struct LoadedConfig {
    /// The values.
    pub config: Config,
    /// By key; what is missing here is a default.
    pub origins: BTreeMap<String, Origin>,
}

impl Config {
    /// A complete configuration from the text of a TOML file alone, checked.
    pub fn from_toml(text: &str) -> Result<Self, ConfigurationError> {
        Ok(Sources::of_text(text).load(Needs::Everything)?.config)
    }

    /// Whether the reader schema has the fields that `[event]` names, of types that can play their parts.
    pub fn validate_against(&self, reader: &ReaderSchema) -> Result<(), ConfigurationError> {
        let problems = fields::check(&self.event, reader);
        if problems.is_empty() { Ok(()) } else { Err(ConfigurationError { problems }) }
    }

    /// What a record or schema may cost.
    pub fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits {
            max_depth: self.limits.max_depth as usize,
            max_record_bytes: self.limits.max_record_bytes as usize,
            ..DecodeLimits::default()
        }
    }

    /// The text of the reader's Avro schema.
    pub fn reader_schema(&self) -> anyhow::Result<String> {
        let Some(path) = &self.event.schema else {
            return Ok(BUILT_IN_SCHEMA.to_owned());
        };
        std::fs::read_to_string(path).with_context(|| format!("cannot read the reader schema {}", path.display()))
    }
}

impl KafkaConfig {
    /// The brokers as librdkafka wants them.
    pub fn bootstrap_servers(&self) -> String {
        self.brokers.join(",")
    }

    /// The properties for a librdkafka client: the user's, with secrets read from their files, and `bootstrap.servers`
    /// and `group.id`. Not for printing.
    pub fn client_properties(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut properties = BTreeMap::new();
        for (name, value) in &self.properties {
            let Some(property) = name.strip_suffix(validate::FILE_SUFFIX) else {
                properties.insert(name.clone(), value.clone());
                continue;
            };
            let secret = Secret::from_file(value.as_ref()).with_context(|| format!("kafka.properties.{name}"))?;
            properties.insert(property.to_owned(), secret.expose().to_owned());
        }
        properties.insert("bootstrap.servers".to_owned(), self.bootstrap_servers());
        properties.insert("group.id".to_owned(), self.group.clone());
        Ok(properties)
    }
}

impl RegistryConfig {
    /// The password, read now, so that a rotated one is picked up.
    pub fn password(&self) -> anyhow::Result<Option<Secret>> {
        self.password_file.as_deref().map(Secret::from_file).transpose().context("registry.password_file")
    }
}

impl HotStoreConfig {
    /// The password, read now, so that a rotated one is picked up.
    pub fn password(&self) -> anyhow::Result<Option<Secret>> {
        self.password_file.as_deref().map(Secret::from_file).transpose().context("hot_store.password_file")
    }
}

#[cfg(test)]
mod tests;
