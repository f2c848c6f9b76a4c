//! Errors that say what to do about them.

use std::fmt::{self, Write as _};

/// What went wrong, with the way out. Attached as context, so that the causes stay visible behind it.
#[derive(Debug, Clone)]
pub struct Advised {
    problem: String,
    advice: String,
}

impl Advised {
    /// What went wrong, and the way out.
    pub fn new(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { problem: problem.into(), advice: advice.into() }
    }

    /// What the reader of the error should do.
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

impl fmt::Display for Advised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem)
    }
}

impl std::error::Error for Advised {}

/// Adds what went wrong and what to do about it.
pub trait Advise<T> {
    /// `problem` as context, with `advice` for the person who reads it.
    fn advise(self, problem: impl Into<String>, advice: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Advise<T> for Result<T, E> {
    fn advise(self, problem: impl Into<String>, advice: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| error.into().context(Advised::new(problem, advice)))
    }
}

/// An error of its own with advice.
pub fn advised(problem: impl Into<String>, advice: impl Into<String>) -> anyhow::Error {
    Advised::new(problem, advice).into()
}

/// An error as the user sees it: the causes one below the other, then the way out.
pub fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}", causes(error).join("\n  because: "));
    if let Some(advised) = error.downcast_ref::<Advised>() {
        let _ = write!(text, "\n  what to do: {}", advised.advice());
    }
    text
}

/// The messages of an error and its causes, without repetitions: libraries like to have their cause in their own message
/// as well.
pub fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut messages: Vec<String> = Vec::new();
    for cause in error.chain().map(ToString::to_string) {
        if messages.last().is_none_or(|last| !last.contains(&cause)) {
            messages.push(cause);
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn one_readable_chain() {
        let refused: Result<(), _> = Err(std::io::Error::other("connection refused"));
        let error =
            refused.advise("ClickHouse does not answer", "check hot_store.url").context("cannot migrate").unwrap_err();
        let expected = "error: cannot migrate\n  because: ClickHouse does not answer\n  because: connection refused\n  \
                        what to do: check hot_store.url";
        assert_eq!(render(&error), expected);
    }
}
