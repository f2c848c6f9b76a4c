//! The rules of a data contract, bound to the columns of the reader schema.
//!
//! A verdict is a function of the record alone, so it is the same in a replay; but the contract may change, so a replay
//! takes the verdicts from the footer and judges nothing anew. Who judges is in [`super::judge`].

use std::fmt;
use std::sync::Arc;

use arrow_schema::DataType;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::{is_number, is_text};
use crate::decode::ReaderSchema;

/// One bit of a word says whether a rule is broken.
pub const MOST_RULES: usize = 64;

/// Integers from this on are rounded when they are compared.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// What becomes of a record that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It goes to the dead letters.
    Error,
    /// It is accepted, and counted.
    Warning,
}

/// A rule as the contract states it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Stable, snake_case: the reason is `contract_<name>`.
    pub name: String,
    /// The field of the reader schema that is judged.
    pub field: String,
    /// What happens to a record that breaks it.
    pub severity: Severity,
    /// What it demands.
    pub demand: Demand,
}

/// What a rule demands of its field. All but the first let a null pass.
#[derive(Debug, Clone, PartialEq)]
pub enum Demand {
    /// Not null; a text not empty.
    Required,
    /// So many bytes of UTF-8.
    Length {
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// A number within bounds.
    Range(Bounds),
    /// A number within the bounds of what another field says; without bounds where that is not listed.
    RangeBy {
        /// The other field: an enum or a text.
        by: String,
        /// Its values and their bounds.
        bounds: Vec<(String, Bounds)>,
    },
    /// One of some texts.
    Allowed(Vec<String>),
}

/// Bounds of a number, both included; infinite where there is none. NaN is never within them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Why a rule cannot be applied to the records of a schema.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Misfit {
    #[error("the schema has no field `{field}`")]
    NoSuchField { field: String },
    #[error("`{field}` is {found} in the schema, where {wanted} is needed")]
    Unfit { field: String, found: String, wanted: &'static str },
    #[error("`{field}` has no symbol {symbol:?} in the schema; it has {symbols}")]
    NoSuchSymbol { field: String, symbol: String, symbols: String },
    #[error("the smallest, {min}, is larger than the largest, {max}")]
    Empty { min: f64, max: f64 },
    #[error("{bound} is not below 2^53, where whole numbers are exact")]
    Inexact { bound: f64 },
    #[error("it has no bound, and demands nothing")]
    Unbounded,
    #[error("`{field}` is never null in the schema, and no text: it demands nothing")]
    NeverNull { field: String },
    #[error("no value is allowed: every record would break it")]
    NothingAllowed,
    #[error("{key:?} is listed twice")]
    Twice { key: String },
    #[error("a contract may have {MOST_RULES} rules that are judged at each record")]
    TooMany,
}

/// All rules that are judged at each record, ready for it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ContractRules {
    pub(super) rules: Arc<[Rule]>,
    pub(super) checks: Arc<Checks>,
    label: Option<Arc<str>>,
}

/// The rules by what has to be done, each with its bit.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Bits of the rules whose breach refuses the record.
    pub(super) errors: u64,
    /// What is asked of each record: is it surely good? Of the rules that refuse only.
    pub(super) quick: Vec<QuickCheck>,
    pub(super) nulls: Vec<NullCheck>,
    pub(super) lengths: Vec<LengthCheck>,
    pub(super) ranges: Vec<RangeCheck>,
    pub(super) grouped: Vec<GroupedCheck>,
    pub(super) allowed: Vec<AllowedCheck>,
    /// Columns whose symbols are sorted into classes.
    pub(super) classes: Vec<Classes>,
    /// Columns by name, for sentences.
    fields: Vec<(String, usize)>,
}

/// The cheapest question that a good record answers, for a rule that refuses. Others are looked at closely.
#[derive(Debug)]
pub(super) enum QuickCheck {
    /// The text was seen before, and was good: by its number in the dictionary.
    KnownText { column: usize, null_is_good: bool },
    /// Index into [`Checks::ranges`].
    Range(usize),
    /// Index into [`Checks::grouped`].
    Grouped(usize),
    /// Index into [`Checks::allowed`].
    Allowed(usize),
    /// No null, where what is not null is good.
    NotNull { column: usize },
}

#[derive(Debug)]
pub(super) struct NullCheck {
    pub(super) bit: u64,
    pub(super) column: usize,
}

#[derive(Debug)]
pub(super) struct LengthCheck {
    pub(super) bit: u64,
    pub(super) column: usize,
    pub(super) min: usize,
    pub(super) max: usize,
}

#[derive(Debug)]
pub(super) struct RangeCheck {
    pub(super) bit: u64,
    pub(super) column: usize,
    pub(super) bounds: Bounds,
}

#[derive(Debug)]
pub(super) struct GroupedCheck {
    pub(super) bit: u64,
    pub(super) column: usize,
    /// Index into [`Checks::classes`].
    pub(super) classes: usize,
    /// By class, from [`FIRST_LISTED`] on.
    pub(super) bounds: Vec<Bounds>,
}

#[derive(Debug)]
pub(super) struct AllowedCheck {
    pub(super) bit: u64,
    /// Index into [`Checks::classes`].
    pub(super) classes: usize,
}

/// The texts of a column that a rule lists, numbered from [`FIRST_LISTED`] on.
#[derive(Debug)]
pub(super) struct Classes {
    pub(super) column: usize,
    pub(super) texts: Vec<String>,
}

/// Class of a text that the rule does not list.
pub(super) const UNLISTED: u16 = 0;
pub(super) const FIRST_LISTED: u16 = 1;

impl Bounds {
    #[inline]
    pub(super) fn hold(self, value: f64) -> bool {
        value >= self.min && value <= self.max
    }
}

impl ContractRules {
    /// Binds rules to the reader schema. `contract` names the contract for people: id and version.
    ///
    /// # Errors
    /// All rules that do not fit the schema, by their index.
    pub fn compile(contract: &str, rules: Vec<Rule>, reader: &ReaderSchema) -> Result<Self, Vec<(usize, Misfit)>> {
        let mut checks = Checks::default();
        let mut misfits = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            if index >= MOST_RULES {
                misfits.push((index, Misfit::TooMany));
                break;
            }
            let bit = 1 << index;
            match checks.add(bit, rule, reader) {
                Ok(quick) if rule.severity == Severity::Error => {
                    checks.errors |= bit;
                    checks.quick.push(quick);
                }
                Ok(_) => {}
                Err(misfit) => misfits.push((index, misfit)),
            }
        }
        if !misfits.is_empty() {
            return Err(misfits);
        }
        let label = (!rules.is_empty()).then(|| format!("{contract} {}", fingerprint(&rules)).into());
        Ok(Self { rules: rules.into(), checks: Arc::new(checks), label })
    }

    /// The rules, in the order of the contract.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether nothing is judged.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn column_of(&self, field: &str) -> Option<usize> {
        self.checks.fields.iter().find(|(name, _)| name == field).map(|(_, column)| *column)
    }

    /// The contract and a fingerprint of its rules, for footers; `None` without rules.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Whether a footer's label stands for these very rules, whatever else the contract says.
    pub fn are_those_of(&self, label: &str) -> bool {
        let fingerprint = |label: &str| label.rsplit(' ').next().map(str::to_owned);
        self.label().is_some_and(|own| fingerprint(own) == fingerprint(label))
    }
}

/// Of what decides a verdict: not of descriptions.
fn fingerprint(rules: &[Rule]) -> String {
    let number = |bound: f64| if bound.is_finite() { json!(bound) } else { Value::Null };
    let bounds = |bounds: &Bounds| json!([number(bounds.min), number(bounds.max)]);
    let demand = |demand: &Demand| match demand {
        Demand::Required => json!("required"),
        Demand::Length { min, max } => json!({"length": [min, max]}),
        Demand::Range(range) => json!({"range": bounds(range)}),
        Demand::RangeBy { by, bounds: all } => {
            let all: Vec<_> = all.iter().map(|(value, range)| json!([value, bounds(range)])).collect();
            json!({"by": by, "ranges": all})
        }
        Demand::Allowed(values) => json!({"allowed": values}),
    };
    let rules: Vec<_> = rules
        .iter()
        .map(|rule| json!([rule.name, rule.field, rule.severity == Severity::Error, demand(&rule.demand)]))
        .collect();
    format!("{:016x}", xxh3_64(Value::Array(rules).to_string().as_bytes()))
}

impl Checks {
    fn add(&mut self, bit: u64, rule: &Rule, reader: &ReaderSchema) -> Result<QuickCheck, Misfit> {
        let column = self.find(reader, &rule.field)?;
        let known_text = |null_is_good| QuickCheck::KnownText { column, null_is_good };
        Ok(match &rule.demand {
            Demand::Required => {
                let field = &reader.arrow_fields()[column];
                let is_text = is_text(field.data_type());
                if !field.is_nullable() && !is_text {
                    return Err(Misfit::NeverNull { field: rule.field.clone() });
                }
                self.nulls.push(NullCheck { bit, column });
                if is_text { known_text(false) } else { QuickCheck::NotNull { column } }
            }
            Demand::Length { min, max } => {
                demand_type(reader, column, is_text, "a string")?;
                if min > max {
                    return Err(Misfit::Empty { min: *min as f64, max: *max as f64 });
                }
                if (*min, *max) == (0, usize::MAX) {
                    return Err(Misfit::Unbounded);
                }
                self.lengths.push(LengthCheck { bit, column, min: *min, max: *max });
                known_text(true)
            }
            Demand::Range(bounds) => {
                check_bounds(reader, column, *bounds)?;
                self.ranges.push(RangeCheck { bit, column, bounds: *bounds });
                QuickCheck::Range(self.ranges.len() - 1)
            }
            Demand::RangeBy { by, bounds } => {
                for (_, bounds) in bounds {
                    check_bounds(reader, column, *bounds)?;
                }
                let texts = bounds.iter().map(|(value, _)| value.clone()).collect();
                let classes = self.add_classes(reader, by, texts)?;
                let bounds = bounds.iter().map(|(_, bounds)| *bounds).collect();
                self.grouped.push(GroupedCheck { bit, column, classes, bounds });
                QuickCheck::Grouped(self.grouped.len() - 1)
            }
            Demand::Allowed(values) => {
                let classes = self.add_classes(reader, &rule.field, values.clone())?;
                self.allowed.push(AllowedCheck { bit, classes });
                QuickCheck::Allowed(self.allowed.len() - 1)
            }
        })
    }

    fn add_classes(&mut self, reader: &ReaderSchema, field: &str, texts: Vec<String>) -> Result<usize, Misfit> {
        let column = self.find(reader, field)?;
        demand_type(reader, column, is_text, "a string or an enum")?;
        if texts.is_empty() {
            return Err(Misfit::NothingAllowed);
        }
        if texts.len() >= usize::from(u16::MAX) - 1 {
            return Err(Misfit::TooMany);
        }
        for (index, text) in texts.iter().enumerate() {
            if texts[..index].contains(text) {
                return Err(Misfit::Twice { key: text.clone() });
            }
            check_symbol(reader, column, text)?;
        }
        self.classes.push(Classes { column, texts });
        Ok(self.classes.len() - 1)
    }

    fn find(&mut self, reader: &ReaderSchema, field: &str) -> Result<usize, Misfit> {
        let column = reader.index_of(field).ok_or_else(|| Misfit::NoSuchField { field: field.to_owned() })?;
        self.fields.push((field.to_owned(), column));
        Ok(column)
    }
}

/// An enum has no other symbols than its schema says, so a text among them that is none is a mistake.
fn check_symbol(reader: &ReaderSchema, column: usize, text: &str) -> Result<(), Misfit> {
    let symbols = reader.enum_symbols(column);
    if symbols.is_empty() || symbols.contains(&text) {
        return Ok(());
    }
    let field = reader.arrow_fields()[column].name().clone();
    Err(Misfit::NoSuchSymbol { field, symbol: text.to_owned(), symbols: symbols.join(", ") })
}

fn check_bounds(reader: &ReaderSchema, column: usize, bounds: Bounds) -> Result<(), Misfit> {
    demand_type(reader, column, is_number, "an int, long, float or double")?;
    let Bounds { min, max } = bounds;
    if min.is_nan() || max.is_nan() || min > max {
        return Err(Misfit::Empty { min, max });
    }
    if min == f64::NEG_INFINITY && max == f64::INFINITY {
        return Err(Misfit::Unbounded);
    }
    let is_whole = *reader.arrow_fields()[column].data_type() == DataType::Int64;
    let inexact = [min, max].into_iter().find(|bound| bound.is_finite() && bound.abs() >= LARGEST_EXACT);
    inexact.filter(|_| is_whole).map_or(Ok(()), |bound| Err(Misfit::Inexact { bound }))
}

fn demand_type(
    reader: &ReaderSchema,
    column: usize,
    fits: fn(&DataType) -> bool,
    wanted: &'static str,
) -> Result<(), Misfit> {
    let field = &reader.arrow_fields()[column];
    if fits(field.data_type()) {
        return Ok(());
    }
    Err(Misfit::Unfit { field: field.name().clone(), found: field.data_type().to_string(), wanted })
}

impl fmt::Display for Bounds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min == f64::NEG_INFINITY, self.max == f64::INFINITY) {
            (true, true) => formatter.write_str("any number"),
            (true, false) => write!(formatter, "at most {}", self.max),
            (false, true) => write!(formatter, "at least {}", self.min),
            (false, false) => write!(formatter, "{} to {}", self.min, self.max),
        }
    }
}
