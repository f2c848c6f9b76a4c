//! Scenarios: what is sent, how the pipeline is treated meanwhile, and what it is judged by.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Value};
use serde::{Deserialize, Serialize};

use crate::shape::{Phase, RateCurve};

/// The scenarios that come with the program.
const SHIPPED: &str = include_str!("../scenarios.toml");

/// The warm-up is at most this share of the duration.
const LONGEST_WARM_UP: f64 = 0.2;

/// What is sent and what is judged. See `scenarios.toml` for each key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "scenarios.toml explains each key")]
pub struct Scenario {
    pub about: String,
    pub extends: Vec<String>,
    pub rate: f64,
    #[serde(with = "humantime_serde")]
    pub duration: Duration,
    pub sensors: u32,
    pub partitions: i32,
    pub seed: u64,
    #[serde(with = "humantime_serde")]
    pub warm_up: Duration,
    pub shape: Vec<ShapePart>,
    pub mix: Mix,
    pub anomalies_per_minute: f64,
    pub pauses: Vec<Pause>,
    pub canary: Canary,
    pub pipeline: BTreeMap<String, String>,
    pub gates: Gates,
}

/// A stretch of the shape: constant at `rate`, or from `from` to `to`; all three are factors of the scenario's rate.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "scenarios.toml explains each key")]
pub struct ShapePart {
    pub share: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<f64>,
}

/// What is not as it should be with the events.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "scenarios.toml explains each key")]
pub struct Mix {
    pub key_skew: f64,
    pub invalid: f64,
    pub unknown_schemas: bool,
    pub delays: Vec<Delay>,
    pub new_series_per_second: f64,
    pub idle_partitions: i32,
}

/// A share of events whose event time lies before their record's.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "scenarios.toml explains each key")]
pub struct Delay {
    pub share: f64,
    #[serde(with = "humantime_serde")]
    pub from: Duration,
    #[serde(with = "humantime_serde")]
    pub to: Duration,
}

/// A time in which the pipeline stands still.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "scenarios.toml explains each key")]
pub struct Pause {
    #[serde(with = "humantime_serde")]
    pub at: Duration,
    #[serde(rename = "for", with = "humantime_serde")]
    pub length: Duration,
}

/// The dedicated series that measure latency.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "scenarios.toml explains each key")]
pub struct Canary {
    pub rate_per_partition: f64,
    #[serde(with = "humantime_serde")]
    pub poll: Duration,
}

/// What is judged; what is not there is not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "scenarios.toml explains each key")]
pub struct Gates {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_growth: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_seconds: Option<f64>,
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub latency_p50: Option<Duration>,
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub latency_p99: Option<Duration>,
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub latency_p999: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_growth: Option<f64>,
    #[serde(with = "humantime_serde::option", skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    pub exact: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<f64>,
    pub slips: f64,
    #[serde(with = "humantime_serde")]
    pub slip_limit: Duration,
    #[serde(with = "humantime_serde")]
    pub waiting: Duration,
}

/// What is wrong with a scenario or its file.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Not TOML.
    #[error("{0}")]
    NotToml(String),
    /// An unknown key, or a value of the wrong type.
    #[error("{key}: {problem}")]
    Malformed {
        /// Where.
        key: String,
        /// What was found and what was expected.
        problem: String,
    },
    /// Nobody has heard of it.
    #[error("there is no scenario `{name}`; there are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// A value that makes no sense.
    #[error("scenario `{scenario}`: {key} = {value}: {advice}")]
    Invalid {
        /// Where.
        scenario: String,
        /// Which key.
        key: String,
        /// The value.
        value: String,
        /// What it must be.
        advice: &'static str,
    },
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            about: String::new(),
            extends: Vec::new(),
            rate: 50_000.0,
            duration: Duration::from_mins(5),
            sensors: 10_000,
            partitions: 12,
            seed: 1,
            warm_up: Duration::from_mins(1),
            shape: Vec::new(),
            mix: Mix::default(),
            anomalies_per_minute: 0.0,
            pauses: Vec::new(),
            canary: Canary::default(),
            pipeline: BTreeMap::new(),
            gates: Gates::default(),
        }
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self { rate_per_partition: 10.0, poll: Duration::from_millis(100) }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            lag_growth: None,
            lag_seconds: None,
            latency_p50: None,
            latency_p99: None,
            latency_p999: None,
            memory_growth: None,
            drain: None,
            exact: false,
            recall: None,
            precision: None,
            slips: 0.001,
            slip_limit: Duration::from_millis(50),
            waiting: Duration::from_millis(500),
        }
    }
}

/// The scenarios that come with the program, and those of a file.
#[derive(Debug)]
pub struct Scenarios {
    all: Dict,
}

impl Scenarios {
    /// Those that come with the program, and those of a file, which win.
    pub fn load(file: Option<&Path>) -> Result<Self, ScenarioError> {
        let text = file.map(|path| {
            std::fs::read_to_string(path).map_err(|error| ScenarioError::Unreadable { path: path.to_owned(), error })
        });
        Self::parse(text.transpose()?.as_deref())
    }

    fn parse(own: Option<&str>) -> Result<Self, ScenarioError> {
        let mut all: Dict = Toml::from_str(SHIPPED).map_err(not_toml)?;
        if let Some(own) = own {
            let own: Dict = Toml::from_str(own).map_err(not_toml)?;
            all.extend(own);
        }
        Ok(Self { all })
    }

    /// The names of all, in order.
    pub fn names(&self) -> Vec<String> {
        self.all.keys().cloned().collect()
    }

    /// A scenario with all that it takes over from others, checked.
    pub fn get(&self, name: &str) -> Result<Scenario, ScenarioError> {
        let scenario: Scenario = self.merged(name)?.extract().map_err(|error| {
            // One is enough to act upon; they come in the order of the file.
            let key = std::iter::once(name).chain(error.path.iter().map(String::as_str)).collect::<Vec<_>>().join(".");
            ScenarioError::Malformed { key, problem: error.kind.to_string() }
        })?;
        scenario.check(name)?;
        Ok(scenario)
    }

    fn merged(&self, name: &str) -> Result<Figment, ScenarioError> {
        let mut order = Vec::new();
        self.line_up(name, &mut Vec::new(), &mut order)?;
        Ok(order.into_iter().fold(Figment::new(), |merged, dict| merged.merge(Serialized::defaults(dict))))
    }

    /// Puts all that `name` extends into `order`, and then itself; each once, so that what two of them have in common
    /// does not undo what the first has changed.
    fn line_up<'a>(
        &'a self,
        name: &'a str,
        trail: &mut Vec<&'a str>,
        order: &mut Vec<&'a Dict>,
    ) -> Result<(), ScenarioError> {
        let Some(dict) = self.all.get(name).and_then(Value::as_dict) else {
            return Err(ScenarioError::Unknown { name: name.to_owned(), known: self.names() });
        };
        if trail.contains(&name) {
            return Err(invalid(trail[0], "extends", &name, "scenarios extend one another in a circle"));
        }
        trail.push(name);
        if let Some(Value::Array(_, parents)) = dict.get("extends") {
            for parent in parents {
                self.line_up(parent.as_str().unwrap_or_default(), trail, order)?;
            }
        }
        trail.pop();
        if !order.iter().any(|known| std::ptr::eq(*known, dict)) {
            order.push(dict);
        }
        Ok(())
    }
}

fn not_toml(error: impl std::fmt::Display) -> ScenarioError {
    ScenarioError::NotToml(format!("the file of scenarios is not TOML: {error}"))
}

fn invalid(scenario: &str, key: &str, value: &dyn std::fmt::Display, advice: &'static str) -> ScenarioError {
    ScenarioError::Invalid { scenario: scenario.to_owned(), key: key.to_owned(), value: value.to_string(), advice }
}

impl Scenario {
    /// Whether every value makes sense.
    pub fn check(&self, name: &str) -> Result<(), ScenarioError> {
        let require = |is_sound: bool, key: &str, value: &dyn std::fmt::Display, advice| {
            if is_sound { Ok(()) } else { Err(invalid(name, key, value, advice)) }
        };
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        require(self.rate > 0.0 && self.rate <= 1e8, "rate", &self.rate, "must be more than 0 events a second")?;
        let seconds = self.duration.as_secs_f64();
        require(seconds >= 1.0, "duration", &format!("{:?}", self.duration), "must be at least a second")?;
        require(self.sensors > 0, "sensors", &self.sensors, "must be at least one")?;
        require(self.partitions > 0, "partitions", &self.partitions, "must be at least one")?;
        self.check_mix(name)?;
        for (index, part) in self.shape.iter().enumerate() {
            let key = format!("shape[{index}]");
            let is_one_of_two = part.rate.is_some() != (part.from.is_some() && part.to.is_some());
            require(part.share > 0.0, &format!("{key}.share"), &part.share, "must be more than 0")?;
            require(is_one_of_two, &key, &"", "needs either `rate`, or `from` and `to`")?;
            let lowest = [part.rate, part.from, part.to].into_iter().flatten().fold(f64::INFINITY, f64::min);
            require(lowest >= 0.0, &key, &lowest, "a rate cannot be below 0")?;
        }
        for (index, pause) in self.pauses.iter().enumerate() {
            let key = format!("pauses[{index}].at");
            require(pause.at < self.duration, &key, &format!("{:?}", pause.at), "must lie within the duration")?;
        }
        let canary = self.canary;
        require(
            canary.rate_per_partition > 0.0 && canary.rate_per_partition <= 1_000.0,
            "canary.rate_per_partition",
            &canary.rate_per_partition,
            "must be more than 0 and at most 1000",
        )?;
        let poll = format!("{:?}", canary.poll);
        require(canary.poll >= Duration::from_millis(10), "canary.poll", &poll, "must be at least 10ms")?;
        require(is_share(self.gates.slips), "gates.slips", &self.gates.slips, "is a share: from 0 to 1")
    }

    fn check_mix(&self, name: &str) -> Result<(), ScenarioError> {
        let require = |is_sound: bool, key: &str, value: &dyn std::fmt::Display, advice| {
            if is_sound { Ok(()) } else { Err(invalid(name, key, value, advice)) }
        };
        let mix = &self.mix;
        require((0.0..=1.0).contains(&mix.invalid), "mix.invalid", &mix.invalid, "is a share: from 0 to 1")?;
        require((0.0..=5.0).contains(&mix.key_skew), "mix.key_skew", &mix.key_skew, "must lie between 0 and 5")?;
        require(
            (0..self.partitions).contains(&mix.idle_partitions),
            "mix.idle_partitions",
            &mix.idle_partitions,
            "must leave a partition that is not idle",
        )?;
        for (index, delay) in mix.delays.iter().enumerate() {
            let key = format!("mix.delays[{index}]");
            let range = format!("{:?} to {:?}", delay.from, delay.to);
            require(delay.from <= delay.to, &key, &range, "`from` must not be more than `to`")?;
        }
        let sum: f64 = mix.invalid + mix.delays.iter().map(|delay| delay.share).sum::<f64>();
        let is_sound = sum <= 1.0 && mix.delays.iter().all(|delay| delay.share >= 0.0);
        require(is_sound, "mix.delays", &sum, "the shares of delays and invalid records together must be at most 1")
    }

    /// The rate over time.
    pub fn curve(&self) -> RateCurve {
        let seconds = self.duration.as_secs_f64();
        if self.shape.is_empty() {
            return RateCurve::constant(self.rate, seconds);
        }
        let shares: f64 = self.shape.iter().map(|part| part.share).sum();
        let phases: Vec<Phase> = self
            .shape
            .iter()
            .map(|part| Phase {
                seconds: seconds * part.share / shares,
                from: self.rate * part.from.or(part.rate).unwrap_or(0.0),
                to: self.rate * part.to.or(part.rate).unwrap_or(0.0),
            })
            .collect();
        RateCurve::new(&phases)
    }

    /// How long from the start nothing is judged.
    pub fn warm_up(&self) -> Duration {
        self.warm_up.min(self.duration.mul_f64(LONGEST_WARM_UP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_shipped_scenarios_are_sound_and_explained() {
        let scenarios = Scenarios::parse(None).unwrap();
        for name in scenarios.names() {
            let scenario = scenarios.get(&name).unwrap();
            assert!(scenario.about.ends_with(['.', '?']), "{name} is not explained");
            assert!(scenario.gates.exact, "{name} is not judged");
        }
        let all = scenarios.get("everything").unwrap();
        assert_eq!((all.mix.delays.len(), all.mix.idle_partitions, all.shape.len()), (3, 4, 3));
        assert!(all.mix.key_skew > 1.0 && all.mix.invalid > 0.0 && all.rate > 0.0);
    }

    #[test]
    fn errors_name_key_and_value() {
        let error = |own: &str| Scenarios::parse(Some(own)).and_then(|all| all.get("mine")).unwrap_err().to_string();
        for (own, words) in [
            ("[mine]\nrate = \"fast\"", ["mine.rate", "fast"]),
            ("[mine]\nspeed = 3", ["speed", "mine"]),
            ("[mine]\nduration = \"soon\"", ["mine.duration", "soon"]),
            ("[mine.gates]\nlatency_p98 = \"1s\"", ["mine.gates", "latency_p98"]),
            ("[mine]\nrate = 0", ["`mine`", "rate = 0"]),
            ("[mine.mix]\ninvalid = 1.5", ["mix.invalid", "1.5"]),
            ("[mine.mix]\nidle_partitions = 12", ["mix.idle_partitions", "12"]),
            ("[mine]\nshape = [{ share = 1 }]", ["shape[0]", "needs either"]),
            ("[mine]\npauses = [{ at = \"1h\", for = \"1s\" }]", ["pauses[0].at", "3600s"]),
            ("[mine]\nextends = [\"nobody\"]", ["nobody", "there are"]),
            ("[mine]\nextends = [\"mine\"]", ["extends", "circle"]),
            ("[mine\nrate = 1", ["TOML", "line"]),
            ("[yours]", ["mine", "yours"]),
        ] {
            let said = error(own);
            assert!(words.iter().all(|word| said.contains(word)), "{own}: {said}");
        }
    }

    #[test]
    fn own_scenarios_extend_the_shipped_ones() {
        let own = "[mine]\nextends = [\"steady\", \"late\"]\nrate = 7\ngates = { latency_p99 = \"1s\" }";
        let mine = Scenarios::parse(Some(own)).unwrap().get("mine").unwrap();
        assert!((mine.rate - 7.0).abs() < 1e-9);
        assert_eq!((mine.mix.delays.len(), mine.partitions), (3, 12));
        assert_eq!(mine.gates.latency_p99, Some(Duration::from_secs(1)));
        assert_eq!(mine.gates.latency_p999, Some(Duration::from_secs(5)));
        assert_eq!(mine.warm_up(), Duration::from_mins(1));
    }

    #[test]
    fn shapes_become_curves() {
        let all = Scenarios::parse(None).unwrap();
        let spike = all.get("spike").unwrap().curve();
        assert!((spike.rate_at(10.0) - 50_000.0).abs() < 1e-6 && (spike.rate_at(160.0) - 200_000.0).abs() < 1e-6);
        assert_eq!(spike.events(), 19_500_000);
        assert!((spike.seconds() - 300.0).abs() < 1e-9);
        assert_eq!(all.get("ramp").unwrap().curve().events(), 8_250_000);
    }
}
