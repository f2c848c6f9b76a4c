//! What a request may ask for: every value is read into a type with bounds, or refused with a sentence.

use std::collections::HashMap;

use crate::settings::{MAX_ANOMALIES, MAX_NAME_BYTES, MAX_RANGE};

/// Times before 1970 and after 2200 are no times of events.
const LATEST_MS: i64 = 7_258_118_400_000;

/// Why a request is refused; a sentence for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadInput(String);

/// The parameters of a request's address.
#[derive(Debug)]
pub struct Inputs(HashMap<String, String>);

/// `[from, to)`, milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Inclusive.
    pub from_ms: i64,
    /// Exclusive.
    pub to_ms: i64,
}

impl Inputs {
    /// Refuses what is given twice or not in `known`: a misspelt filter must not look like an answer.
    pub fn read(query: Option<&str>, known: &[&str]) -> Result<Self, BadInput> {
        let mut inputs = HashMap::new();
        for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&name.as_ref()) {
                let shown: String = name.chars().take(40).collect();
                return Err(BadInput(format!("there is no parameter {shown:?}; there are: {}", known.join(", "))));
            }
            if inputs.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(BadInput(format!("{name} is given twice")));
            }
        }
        Ok(Self(inputs))
    }

    fn given(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A name of something; `None` where it is missing or empty.
    pub fn name(&self, name: &str) -> Result<Option<&str>, BadInput> {
        match self.given(name) {
            Some(value) if value.len() > MAX_NAME_BYTES => {
                Err(BadInput(format!("{name} has {} bytes; at most {MAX_NAME_BYTES} are allowed", value.len())))
            }
            value => Ok(value),
        }
    }

    /// A name that must be there.
    pub fn needed_name(&self, name: &str) -> Result<&str, BadInput> {
        self.name(name)?.ok_or_else(|| BadInput(format!("{name} is missing")))
    }

    /// A range of time: `from` and `to`, both or `to` alone or none. Without `from` it is `usual_ms` long.
    pub fn range(&self, now_ms: i64, usual_ms: i64) -> Result<Range, BadInput> {
        let to_ms = self.time("to")?.unwrap_or(now_ms);
        let from_ms = self.time("from")?.unwrap_or((to_ms - usual_ms).max(0));
        if from_ms >= to_ms {
            return Err(BadInput("from must be before to".to_owned()));
        }
        if to_ms - from_ms > MAX_RANGE.as_millis() as i64 {
            let days = MAX_RANGE.as_secs() / 86_400;
            return Err(BadInput(format!("the range is longer than {days} days; choose a shorter one")));
        }
        Ok(Range { from_ms, to_ms })
    }

    fn time(&self, name: &str) -> Result<Option<i64>, BadInput> {
        let Some(text) = self.given(name) else { return Ok(None) };
        let time = text.parse().ok().filter(|time| (0..=LATEST_MS).contains(time));
        time.map(Some).ok_or_else(|| BadInput(format!("{name} must be a time in milliseconds since 1970")))
    }

    /// The least score; 0 where none is given.
    pub fn min_score(&self) -> Result<f64, BadInput> {
        let Some(text) = self.given("min_score") else { return Ok(0.0) };
        let score = text.parse().ok().filter(|score: &f64| (0.0..=1e6).contains(score));
        score.ok_or_else(|| BadInput("min_score must be a number from 0 to 1000000".to_owned()))
    }

    /// How many rows at most; never more than [`MAX_ANOMALIES`].
    pub fn limit(&self) -> Result<usize, BadInput> {
        let Some(text) = self.given("limit") else { return Ok(MAX_ANOMALIES) };
        let limit = text.parse().ok().filter(|limit| (1..=MAX_ANOMALIES).contains(limit));
        limit.ok_or_else(|| BadInput(format!("limit must be a number from 1 to {MAX_ANOMALIES}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["sensor", "from", "to", "min_score", "limit"];
    const NOW: i64 = 1_800_000_000_000;

    fn read(query: &str) -> Result<Inputs, BadInput> {
        Inputs::read(Some(query), KNOWN)
    }

    #[test]
    fn what_is_not_given_has_its_default() {
        let inputs = Inputs::read(None, KNOWN).unwrap();
        assert_eq!(inputs.range(NOW, 1_000), Ok(Range { from_ms: NOW - 1_000, to_ms: NOW }));
        assert_eq!((inputs.name("sensor"), inputs.min_score(), inputs.limit()), (Ok(None), Ok(0.0), Ok(MAX_ANOMALIES)));
        assert_eq!(inputs.needed_name("sensor").unwrap_err().to_string(), "sensor is missing");
    }

    #[test]
    fn ranges_are_bounded() {
        for (query, wrong) in [
            ("from=5&to=5", "before"),
            ("from=6&to=5", "before"),
            ("from=0&to=1800000000000", "longer than 31 days"),
            ("from=-1", "milliseconds"),
            ("to=99999999999999999999", "milliseconds"),
            ("to=7258118400001", "milliseconds"),
            ("from=1e3", "milliseconds"),
            ("from=now()", "milliseconds"),
            ("from=1)%20OR%20(1=1", "milliseconds"),
        ] {
            let error = read(query).unwrap().range(NOW, 1_000).unwrap_err().to_string();
            assert!(error.contains(wrong), "{query}: {error}");
        }
    }

    #[test]
    fn numbers_are_numbers_within_bounds() {
        for query in
            ["min_score=NaN", "min_score=inf", "min_score=-1", "min_score=1e9", "min_score=0 OR 1=1", "min_score=x"]
        {
            assert!(read(query).unwrap().min_score().is_err(), "{query}");
        }
        for query in ["limit=0", "limit=501", "limit=-1", "limit=1;DROP", "limit=1.5", "limit=999999999999999999999"] {
            assert!(read(query).unwrap().limit().is_err(), "{query}");
        }
        assert_eq!(read("min_score=7.5&limit=10").unwrap().limit(), Ok(10));
    }

    #[test]
    fn names_are_any_text_of_bounded_length() {
        let hostile = "%27%20OR%201=1%20--%00%0A%5C%F0%9F%98%80";
        let inputs = read(&format!("sensor={hostile}")).unwrap();
        assert_eq!(inputs.name("sensor"), Ok(Some("' OR 1=1 --\0\n\\😀")));
        let long = read(&format!("sensor={}", "a".repeat(MAX_NAME_BYTES + 1))).unwrap();
        assert!(long.name("sensor").unwrap_err().to_string().contains("257 bytes"));
    }

    #[test]
    fn unknown_and_repeated_parameters_are_refused() {
        assert!(read("sensors=a").unwrap_err().to_string().contains("\"sensors\""));
        assert!(read("sensor=a&sensor=b").unwrap_err().to_string().contains("twice"));
        assert!(read("param_sensor=a").is_err(), "ClickHouse's own parameters are none of ours");
    }
}
