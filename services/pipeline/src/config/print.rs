//! `kappa config print`: every key with its value and where that came from.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::keys::{KEYS, Key};
use super::{LoadedConfig, Origin};

/// The forms in which a configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PrintFormat {
    /// A file that could be used as it is, with comments.
    Toml,
    /// For programs: value, origin and meaning of each key.
    Json,
}

/// The whole configuration as text, without secrets: the types of secret values do not print them.
pub fn print(loaded: &LoadedConfig, format: PrintFormat) -> anyhow::Result<String> {
    let values = serde_json::to_value(&loaded.config)?;
    Ok(match format {
        PrintFormat::Toml => print_toml(loaded, &values),
        PrintFormat::Json => print_json(loaded, &values),
    })
}

fn origin<'a>(loaded: &'a LoadedConfig, key: &str) -> &'a Origin {
    loaded.origins.get(key).unwrap_or(&Origin::Default)
}

/// A key that has no default, and that nobody has set.
fn is_unset(loaded: &LoadedConfig, key: &Key) -> bool {
    key.required && *origin(loaded, key.name) == Origin::Default
}

fn print_toml(loaded: &LoadedConfig, values: &Value) -> String {
    let mut text = String::new();
    let mut current = "";
    for key in KEYS {
        let Some((section, name)) = key.name.split_once('.') else { continue };
        if section != current {
            let gap = if current.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}[{section}]");
            current = section;
        }
        let value = &values[section][name];
        let line = match value {
            _ if is_unset(loaded, key) => format!("# {name} = (needed)"),
            Value::Null => format!("# {name} ="),
            value => format!("{name} = {}", toml_value(value)),
        };
        let _ = writeln!(text, "# {}: {}", key.summary, key.allowed);
        let _ = writeln!(text, "{line} # {}", origin(loaded, key.name));
    }
    text
}

/// JSON's texts, numbers and lists are TOML's too; tables are not.
fn toml_value(value: &Value) -> String {
    let Value::Object(entries) = value else {
        return value.to_string();
    };
    if entries.is_empty() {
        return "{}".to_owned();
    }
    let entries: Vec<_> = entries.iter().map(|(name, value)| format!("{} = {value}", json!(name))).collect();
    format!("{{ {} }}", entries.join(", "))
}

fn print_json(loaded: &LoadedConfig, values: &Value) -> String {
    let mut keys = Map::new();
    for key in KEYS {
        let Some((section, name)) = key.name.split_once('.') else { continue };
        let value = if is_unset(loaded, key) { &Value::Null } else { &values[section][name] };
        let entry = json!({
            "value": value,
            "required": key.required,
            "source": origin(loaded, key.name).to_string(),
            "summary": key.summary,
            "allowed": key.allowed,
        });
        keys.insert(key.name.to_owned(), entry);
    }
    format!("{:#}\n", Value::Object(keys))
}
