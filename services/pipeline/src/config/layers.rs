//! Flags over environment over file over defaults, each value with its origin.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::keys::{self, KEYS, Shape};
use super::problems::{ConfigurationError, Origin, Problem};
use super::validate;
use super::values::REDACTED;
use super::{Config, LoadedConfig, Needs};

/// What environment variables start with.
const PREFIX: &str = "KAPPA__";

/// The file that is read where none is named.
const DEFAULT_FILE: &str = "kappa.toml";

/// Where the values of a configuration come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file named by the user. It must exist.
    file: Option<PathBuf>,
    /// A file that is read if it is there.
    default_file: Option<PathBuf>,
    /// Text in place of a file.
    text: Option<String>,
    environment: Vec<(String, String)>,
    /// Key, value, and the flag as it was given.
    flags: Vec<(String, String, String)>,
}

impl Sources {
    /// What a process is given: the environment, and the named file or else `kappa.toml` if there is one.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self { file, default_file: Some(DEFAULT_FILE.into()), environment, ..Self::default() }
    }

    /// The text of a file, for tests and embedded use.
    pub fn of_text(toml: impl Into<String>) -> Self {
        Self { text: Some(toml.into()), ..Self::default() }
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn with_variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds a value set by a flag; `flag` is what the user typed.
    #[must_use]
    pub fn with_flag(mut self, key: impl Into<String>, value: impl Into<String>, flag: impl Into<String>) -> Self {
        self.flags.push((key.into(), value.into(), flag.into()));
        self
    }

    /// Reads and checks everything that a command needs. Touches nothing but the files that are named.
    pub fn load(&self, needs: Needs) -> Result<LoadedConfig, ConfigurationError> {
        let mut layers = Layers::default();
        layers.add_defaults();
        self.add_file(&mut layers)?;
        for (name, value) in &self.environment {
            layers.add_variable(name, value);
        }
        for (key, value, flag) in &self.flags {
            let path = key.split('.').map(str::to_owned).collect();
            layers.assign(path, value, Origin::Flag(flag.clone()));
        }
        layers.finish(needs)
    }

    fn add_file(&self, layers: &mut Layers) -> Result<(), ConfigurationError> {
        if let Some(text) = &self.text {
            return layers.add_toml(Path::new("(text)"), text);
        }
        let file = self.file.as_ref().or(self.default_file.as_ref().filter(|file| file.exists()));
        let Some(file) = file else {
            return Ok(());
        };
        let text = std::fs::read_to_string(file).map_err(|error| {
            let message = format!("cannot be read: {error}");
            ConfigurationError { problems: vec![Problem::with_key(&file.display().to_string(), message)] }
        })?;
        layers.add_toml(file, &text)
    }
}

/// The merged values so far, and what was wrong with them.
#[derive(Default)]
struct Layers {
    figment: Figment,
    /// Origins of the values that did not come from a file, by the name of their layer.
    origins: BTreeMap<String, Origin>,
    file: Option<(PathBuf, String)>,
    problems: Vec<Problem>,
}

/// One value from one place. A layer of its own, so that figment remembers where it came from.
struct Assignment {
    path: Vec<String>,
    value: Value,
    layer: String,
}

impl Provider for Assignment {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.layer.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let nested = self.path[1..]
            .iter()
            .rev()
            .fold(self.value.clone(), |value, name| Dict::from([(name.clone(), value)]).into());
        let dict = Dict::from([(self.path[0].clone(), nested)]);
        Ok(Profile::Default.collect(dict))
    }
}

impl Layers {
    fn add_defaults(&mut self) {
        let figment = std::mem::take(&mut self.figment).merge(Serialized::defaults(Config::template()));
        self.figment = figment;
    }

    fn add_toml(&mut self, path: &Path, text: &str) -> Result<(), ConfigurationError> {
        let whole_file = |message: String| ConfigurationError {
            problems: vec![Problem::with_key(&path.display().to_string(), message)],
        };
        let data = Toml::string(text).data().map_err(|error| whole_file(error.kind.to_string().trim().to_owned()))?;
        self.file = Some((path.to_owned(), text.to_owned()));
        let mut values = data.into_values().next().unwrap_or_default();
        flatten_properties(&mut values);
        let layer = Metadata::from("file", path);
        self.figment = std::mem::take(&mut self.figment).merge(FileLayer { values, layer });
        Ok(())
    }

    /// `KAPPA__KAFKA__BROKERS` sets `kafka.brokers`; below `kafka.properties`, `SECURITY_PROTOCOL` means
    /// `security.protocol`.
    fn add_variable(&mut self, name: &str, value: &str) {
        let lower = name.trim_start_matches(PREFIX).to_lowercase();
        let mut path: Vec<String> = lower.split("__").map(str::to_owned).collect();
        if path.len() > 2 && path[..2] == ["kafka", "properties"] {
            for part in &mut path[2..] {
                let file_suffix = part.strip_suffix("_file").map(|stem| format!("{}_file", stem.replace('_', ".")));
                *part = file_suffix.unwrap_or_else(|| part.replace('_', "."));
            }
        }
        self.assign(path, value, Origin::Environment(name.to_owned()));
    }

    fn assign(&mut self, mut path: Vec<String>, text: &str, origin: Origin) {
        if path.len() > 2 && path[..2] == ["kafka", "properties"] {
            let property = path.split_off(2).join(".");
            path.push(property);
        }
        let Some(key) = keys::owner(&path) else {
            return self.problems.push(unknown_key(&path, origin));
        };
        let entry = path.len() > 2;
        if entry && key.shape != Shape::Map {
            return self.problems.push(unknown_key(&path, origin));
        }
        let value = match key.shape {
            Shape::List if text.trim_start().starts_with('[') => parse_inline(text),
            Shape::Map if !entry => parse_inline(text),
            _ => Ok(Value::from(text)),
        };
        match value {
            Ok(value) => {
                let layer = origin.to_string();
                self.origins.insert(layer.clone(), origin);
                let mut section = Dict::new();
                nest(&mut section, &path, value);
                flatten_properties(&mut section);
                let Some((_, value)) = section.pop_first() else { return };
                let assignment = Assignment { path: path[..1].to_vec(), value, layer };
                self.figment = std::mem::take(&mut self.figment).merge(assignment);
            }
            Err(message) => {
                let value = Some(shown(key.name, text));
                self.problems.push(Problem { value, origin, ..Problem::with_key(key.name, message) });
            }
        }
    }

    fn finish(mut self, needs: Needs) -> Result<LoadedConfig, ConfigurationError> {
        self.find_unknown_keys();
        self.find_missing_keys(needs);
        let config = self.extract();
        let origins = self.all_origins();
        if let Some(config) = &config {
            let already_wrong: Vec<_> = self.problems.iter().map(|problem| problem.key.clone()).collect();
            let is_default = |key: &str| origins.get(key).is_none_or(|origin| *origin == Origin::Default);
            for mut problem in validate::check(config, needs, &already_wrong, &is_default) {
                problem.value = self.value_text(&problem.key);
                problem.origin = origins.get(&problem.key).cloned().unwrap_or_default();
                self.problems.push(problem);
            }
        }
        match config {
            Some(config) if self.problems.is_empty() => Ok(LoadedConfig { config, origins }),
            _ => Err(ConfigurationError { problems: self.problems }),
        }
    }

    fn values(&self) -> Dict {
        self.figment.data().ok().and_then(|data| data.into_values().next()).unwrap_or_default()
    }

    fn find_unknown_keys(&mut self) {
        for (section, content) in self.values() {
            let Some(names) = content.as_dict() else {
                // A section that is no table: `extract` says so.
                continue;
            };
            for (name, value) in names {
                let path = vec![section.clone(), name.clone()];
                if keys::owner(&path).is_none() {
                    let origin = self.origin_of(&path, value);
                    self.problems.push(unknown_key(&path, origin));
                }
            }
        }
        let known = |section: &str| KEYS.iter().any(|key| key.name.split('.').next() == Some(section));
        for (section, value) in self.values() {
            if !known(&section) && value.as_dict().is_none_or(Dict::is_empty) {
                let path = vec![section];
                let origin = self.origin_of(&path, &value);
                self.problems.push(unknown_key(&path, origin));
            }
        }
    }

    fn find_missing_keys(&mut self, needs: Needs) {
        let missing = KEYS.iter().filter(|key| key.required && needs.includes(key.name));
        for key in missing {
            let set = self.find(key.name).is_some_and(|value| self.layer_of(&value).is_some());
            let reported = self.problems.iter().any(|problem| problem.key == key.name);
            if !set && !reported {
                self.problems.push(Problem::with_key(key.name, "is needed and not set"));
            }
        }
    }

    /// Takes the values out one problem at a time: each wrong one is written down and replaced by its default, so that
    /// the next becomes visible.
    fn extract(&mut self) -> Option<Config> {
        let defaults = Figment::from(Serialized::defaults(Config::template()));
        for _ in 0..=KEYS.len() {
            let error = match self.figment.extract_lossy::<Config>() {
                Ok(config) => return Some(config),
                Err(error) => error,
            };
            let key = keys::owner(&error.path).map_or_else(|| error.path.join("."), |key| key.name.to_owned());
            let found = self.find(&key);
            let origin = found.as_ref().map(|value| self.origin_of(&split(&key), value)).unwrap_or_default();
            let mut message = error.kind.to_string();
            if let Some(element) = error.path.get(2) {
                message = format!("{message} (entry {element})");
            }
            let value = self.value_text(&key);
            self.problems.push(Problem { value, origin, ..Problem::with_key(&key, message) });
            let default = defaults.find_value(&key).ok()?;
            let replacement = Assignment { path: split(&key), value: default, layer: "default".to_owned() };
            self.figment = std::mem::take(&mut self.figment).merge(replacement);
        }
        None
    }

    fn find(&self, key: &str) -> Option<Value> {
        self.figment.find_value(key).ok()
    }

    fn value_text(&self, key: &str) -> Option<String> {
        let value = self.find(key)?;
        Some(shown(key, &inline(&value)))
    }

    fn all_origins(&self) -> BTreeMap<String, Origin> {
        let mut origins = BTreeMap::new();
        for (section, content) in self.values() {
            for (name, value) in content.as_dict().into_iter().flatten() {
                let mut path = vec![section.clone(), name.clone()];
                origins.insert(path.join("."), self.origin_of(&path, value));
                for (entry, value) in value.as_dict().into_iter().flatten() {
                    path.truncate(2);
                    path.push(entry.clone());
                    origins.insert(path.join("."), self.origin_of(&path, value));
                }
            }
        }
        origins
    }

    /// The layer that set a value; `None` for the defaults.
    fn layer_of(&self, value: &Value) -> Option<&Metadata> {
        let layer = self.figment.get_metadata(value.tag())?;
        (layer.name == "file" || self.origins.contains_key(layer.name.as_ref())).then_some(layer)
    }

    fn origin_of(&self, path: &[String], value: &Value) -> Origin {
        let Some(layer) = self.layer_of(value) else {
            return Origin::Default;
        };
        if let Some(origin) = self.origins.get(layer.name.as_ref()) {
            return origin.clone();
        }
        let Some((file, text)) = &self.file else {
            return Origin::Default;
        };
        Origin::File(file.clone(), line_of(text, path))
    }
}

/// The values of a file, `kafka.properties` already flattened.
struct FileLayer {
    values: Dict,
    layer: Metadata,
}

impl Provider for FileLayer {
    fn metadata(&self) -> Metadata {
        self.layer.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn split(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

fn nest(into: &mut Dict, path: &[String], value: Value) {
    let nested = path[1..].iter().rev().fold(value, |value, name| Dict::from([(name.clone(), value)]).into());
    into.insert(path[0].clone(), nested);
}

fn unknown_key(path: &[String], origin: Origin) -> Problem {
    let key = path.join(".");
    let message = match keys::nearest(&key) {
        Some(nearest) => format!("there is no such key; did you mean {nearest}?"),
        None => "there is no such key; `kappa config print` lists them all".to_owned(),
    };
    Problem { origin, ..Problem::with_key(&key, message) }
}

/// TOML reads `security.protocol = "SSL"` as a table in a table; librdkafka's names have the dots in them. Its values
/// are texts, so numbers and yes or no become texts too.
fn flatten_properties(values: &mut Dict) {
    let Some(Value::Dict(_, kafka)) = values.get_mut("kafka") else { return };
    let Some(Value::Dict(_, properties)) = kafka.get_mut("properties") else { return };
    let mut flat = Dict::new();
    for (name, value) in std::mem::take(properties) {
        flatten(&mut flat, name, value);
    }
    *properties = flat;
}

fn flatten(into: &mut Dict, name: String, value: Value) {
    match value {
        Value::Dict(_, entries) => {
            for (entry, value) in entries {
                flatten(into, format!("{name}.{entry}"), value);
            }
        }
        Value::Num(..) | Value::Bool(..) => {
            into.insert(name, Value::from(inline(&value)));
        }
        other => {
            into.insert(name, other);
        }
    }
}

/// Reads the text of a list or map: what could stand behind the `=` in the file.
fn parse_inline(text: &str) -> Result<Value, String> {
    let data =
        Toml::string(&format!("value = {text}")).data().map_err(|_| "cannot be read as a TOML value".to_owned())?;
    let value = data.into_values().next().and_then(|mut dict| dict.remove("value"));
    value.ok_or_else(|| "is empty".to_owned())
}

/// A value in one line.
fn inline(value: &Value) -> String {
    match value {
        Value::String(_, text) => text.clone(),
        other => serde_json::to_string(other).unwrap_or_default(),
    }
}

/// A value as it may be shown: without user info, and without properties that may hold secrets.
fn shown(key: &str, text: &str) -> String {
    if key.starts_with("kafka.properties") {
        return REDACTED.to_owned();
    }
    match url::Url::parse(text) {
        Ok(url) if url.password().is_some() || !url.username().is_empty() || url.query().is_some() => {
            super::values::redact_url(&url)
        }
        _ => format!("{text:?}"),
    }
}

/// The line of a file that sets a key, as far as its usual forms go: `[section]` with `name =`, or `section.name =`.
fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let wanted = path.join(".");
    let mut section = String::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            section = plain(header.split(']').next().unwrap_or_default());
            if section == wanted {
                return Some(index + 1);
            }
            continue;
        }
        let Some((name, _)) = line.split_once('=') else { continue };
        let name = plain(name);
        let full = if section.is_empty() { name } else { format!("{section}.{name}") };
        if full == wanted {
            return Some(index + 1);
        }
    }
    None
}

fn plain(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_whitespace() && !matches!(letter, '"' | '\'')).collect()
}
