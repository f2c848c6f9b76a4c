//! What is wrong with a configuration, and where each value came from.

use std::fmt;
use std::path::PathBuf;

use super::keys::{self, Key};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// A configuration file, and the line where that is known.
    File(PathBuf, Option<usize>),
    /// An environment variable.
    Environment(String),
    /// A command-line flag, as it was given.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path, Some(line)) => write!(formatter, "{}, line {line}", path.display()),
            Self::File(path, None) => write!(formatter, "{}", path.display()),
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::Flag(flag) => write!(formatter, "flag {flag}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, or the file where no key can be named.
    pub key: String,
    /// The value as it was given, without secrets.
    pub value: Option<String>,
    /// Where it was given.
    pub origin: Origin,
    /// What is wrong with it.
    pub message: String,
    /// What would be right.
    pub allowed: Option<String>,
}

impl Problem {
    /// A problem with a known key.
    pub(super) fn with_key(key: &str, message: impl Into<String>) -> Self {
        let allowed = keys::find(key).map(|key: &Key| key.allowed.to_owned());
        Self { key: key.to_owned(), value: None, origin: Origin::Default, message: message.into(), allowed }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.key)?;
        if let Some(value) = &self.value {
            write!(formatter, " = {value}")?;
        }
        write!(formatter, ": {}", self.message)?;
        if self.origin != Origin::Default {
            write!(formatter, "\n    set by: {}", self.origin)?;
        }
        if let Some(allowed) = &self.allowed {
            write!(formatter, "\n    allowed: {allowed}")?;
        }
        Ok(())
    }
}

/// The configuration cannot be used. Everything that is wrong, not only the first thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigurationError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl ConfigurationError {
    /// Everything that is wrong with the file that a key names.
    pub fn of_key(key: &str, value: &str, messages: Vec<String>) -> Self {
        let problem =
            |message| Problem { value: Some(value.to_owned()), allowed: None, ..Problem::with_key(key, message) };
        Self { problems: messages.into_iter().map(problem).collect() }
    }
}

impl std::error::Error for ConfigurationError {}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.len() {
            1 => formatter.write_str("the configuration has a problem")?,
            count => write!(formatter, "the configuration has {count} problems")?,
        }
        for problem in &self.problems {
            write!(formatter, "\n  {problem}")?;
        }
        Ok(())
    }
}
