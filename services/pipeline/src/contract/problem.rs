//! What is wrong with a contract, and where in the file.

use std::fmt;

use serde::Serialize;

/// A place in the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Place {
    /// The line, from 1 on; 0 where there is none.
    pub line: u64,
    /// The way to it, such as `schema[0].properties[3].quality[0]`.
    pub path: String,
}

impl Place {
    /// What lies in it under that key.
    pub(super) fn at(&self, key: &str, line: u64) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { line, path }
    }

    /// Its entry of that index.
    pub(super) fn entry(&self, index: usize, line: u64) -> Self {
        Self { line, path: format!("{}[{index}]", self.path) }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What, and what would be right.
    pub message: String,
}

impl Problem {
    pub(super) fn new(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.clone(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, path } = &self.place;
        if *line > 0 {
            write!(formatter, "line {line}: ")?;
        }
        if !path.is_empty() {
            write!(formatter, "{path}: ")?;
        }
        formatter.write_str(&self.message)
    }
}
