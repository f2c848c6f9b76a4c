//! Changes to a record in the language of jq, run by the library `jaq`.

use std::fmt::Write as _;

use jaq_core::compile::Undefined;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars, data, unwrap_valr};
use jaq_json::{Num, Val, read};
use serde_json::{Map, Number, Value, json};

use crate::dead_letters::DeadLetter;

/// The record around the event: `$record.key`, `$record.timestamp`, …
const RECORD: &str = "$record";

/// A compiled expression. Its input is the event as JSON, its output the event to be sent; no output drops it.
pub struct Expression {
    text: String,
    filter: Filter<data::JustLut<Val>>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// Compiles it; an error says at which place it cannot be read.
    pub fn compile(text: &str) -> Result<Self, String> {
        let definitions = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let functions = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let arena = Arena::default();
        let modules = Loader::new(definitions).load(&arena, File { code: text, path: () });
        let modules =
            modules.map_err(|errors| errors.into_iter().map(|(_, error)| unreadable(&error)).collect::<String>())?;
        let compiler = Compiler::default().with_funs(functions).with_global_vars([RECORD]);
        let filter = compiler.compile(modules).map_err(|errors| {
            let errors = errors.into_iter().flat_map(|(_, errors)| errors);
            errors.map(|(name, what)| undefined(name, &what)).collect::<Vec<_>>().join(", ")
        })?;
        Ok(Self { text: text.to_owned(), filter })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The changed event; `None` if the expression gives nothing.
    pub(super) fn apply(&self, event: &str, letter: &DeadLetter) -> Result<Option<Value>, String> {
        let event = read::parse_single(event.as_bytes()).map_err(|error| error.to_string())?;
        let record = read::parse_single(about(letter).to_string().as_bytes()).map_err(|error| error.to_string())?;
        let context = Ctx::<data::JustLut<Val>>::new(&self.filter.lut, Vars::new([record]));
        let mut outputs = self.filter.id.run((context, event)).map(unwrap_valr);
        let Some(first) = outputs.next() else { return Ok(None) };
        let first = first.map_err(|error| format!("the expression fails: {error}"))?;
        if outputs.next().is_some() {
            return Err("the expression gives more than one event".to_owned());
        }
        plain(&first).map(Some)
    }
}

/// What an expression may ask about the record.
fn about(letter: &DeadLetter) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Map<String, Value> = letter
        .headers
        .iter()
        .map(|(name, content)| (name.clone(), content.as_deref().map_or(Value::Null, |content| text(content).into())))
        .collect();
    json!({
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp": letter.timestamp_ms,
        "key": letter.key.as_deref().map(text),
        "headers": headers,
        "schema_id": letter.schema_id,
        "reason": letter.reason,
        "detail": letter.detail,
        "attempt": letter.attempt,
    })
}

/// JSON text, numbers kept to the last digit.
pub(super) fn json_of(text: &str) -> Value {
    let parsed = read::parse_single(text.as_bytes()).map_err(|error| error.to_string());
    parsed.and_then(|value| plain(&value)).unwrap_or_else(|_| Value::from(text))
}

/// jaq's values are more than JSON: what is not is refused.
fn plain(value: &Val) -> Result<Value, String> {
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(value) => Value::Bool(*value),
        Val::Num(Num::Int(value)) => Value::from(*value as i64),
        Val::Num(Num::Float(value)) => number(*value),
        // Kept as it was written, until somebody calculates with it.
        Val::Num(Num::Dec(digits)) => number(digits.parse().map_err(|_| format!("{digits} is no number"))?),
        Val::Num(Num::BigInt(value)) => return Err(format!("{value} does not fit in 64 bits")),
        Val::TStr(text) => Value::from(std::str::from_utf8(text).map_err(|error| error.to_string())?),
        Val::BStr(_) => return Err("bytes are no JSON".to_owned()),
        Val::Arr(values) => Value::Array(values.iter().map(plain).collect::<Result<_, _>>()?),
        Val::Obj(members) => {
            let member = |(name, value): (&Val, &Val)| match name {
                Val::TStr(name) => Ok((String::from_utf8_lossy(name).into_owned(), plain(value)?)),
                _ => Err("a name that is no text is no JSON".to_owned()),
            };
            Value::Object(members.iter().map(member).collect::<Result<_, _>>()?)
        }
    })
}

/// Those that JSON has no number for are spelled as Avro's JSON does.
fn number(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => Value::from("NaN"),
        None => Value::from(if value > 0.0 { "Infinity" } else { "-Infinity" }),
    }
}

fn unreadable(error: &load::Error<&str>) -> String {
    const SHOWN: usize = 20;
    let place = |rest: &str| match rest.chars().take(SHOWN).collect::<String>() {
        shown if shown.is_empty() => "at its end".to_owned(),
        shown => format!("at `{shown}`"),
    };
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = match error {
        load::Error::Io(errors) => write!(out, "modules cannot be loaded: {errors:?}"),
        load::Error::Lex(errors) => errors
            .iter()
            .try_for_each(|(expected, rest)| write!(out, "{} expected {}; ", expected.as_str(), place(rest))),
        load::Error::Parse(errors) => errors
            .iter()
            .try_for_each(|(expected, rest)| write!(out, "{} expected {}; ", expected.as_str(), place(rest))),
    };
    out.trim_end_matches("; ").to_owned()
}

fn undefined(name: &str, what: &Undefined) -> String {
    format!("there is no {} {name}", what.as_str())
}

#[cfg(test)]
mod tests {
    use super::super::selection::tests::letter;
    use super::*;

    fn apply(expression: &str, event: &str) -> Result<Option<Value>, String> {
        Expression::compile(expression)?.apply(event, &letter(3, 9, "tombstone"))
    }

    #[test]
    fn an_event_is_changed() {
        let changed = apply(".value = 1.5 | .sequence += 1", r#"{"value":"NaN","sequence":9007199254740993}"#);
        assert_eq!(changed, Ok(Some(json!({"value": 1.5, "sequence": 9_007_199_254_740_994_i64}))));
        let asked = apply(".time = $record.timestamp | .team = $record.headers.team", "{}");
        assert_eq!(asked, Ok(Some(json!({"time": 1_000, "team": "plant"}))));
    }

    #[test]
    fn numbers_stay_as_they_are() {
        let event = r#"{"a":0.1,"b":1e300,"c":2.2250738585072014e-308,"d":-9223372036854775808,"e":1.0}"#;
        let unchanged = apply(".", event).unwrap().unwrap();
        assert_eq!(unchanged["a"].as_f64(), Some(0.1));
        assert_eq!(unchanged["c"].as_f64(), Some(2.225_073_858_507_201_4e-308));
        assert_eq!(unchanged["d"].as_i64(), Some(i64::MIN));
        assert!(unchanged["e"].is_f64());
    }

    #[test]
    fn an_event_can_be_dropped_and_not_multiplied() {
        assert_eq!(apply("select(.x == 1)", r#"{"x":2}"#), Ok(None));
        assert!(apply(".,.", "{}").unwrap_err().contains("more than one"));
        assert!(apply("error(\"no\")", "{}").unwrap_err().contains("no"));
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_place() {
        assert!(Expression::compile(".value = (1").unwrap_err().contains("parenthesis"));
        assert!(Expression::compile(".value | | 1").unwrap_err().contains("expected at `"));
        assert_eq!(Expression::compile("nonsense").unwrap_err(), "there is no filter nonsense");
        assert_eq!(Expression::compile("$nobody").unwrap_err(), "there is no variable $nobody");
    }
}
