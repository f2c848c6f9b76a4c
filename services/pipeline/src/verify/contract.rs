//! Rows against the rules of the data contract, where the footer says that these very rules were in force. In other words
//! than the pipeline's: over Arrow's arrays, without symbols and bits. Of a segment that another contract let in, nothing is
//! judged anew.

use arrow_array::{Array as _, ArrayRef, RecordBatch};
use kappa_core::contract::rules::{Bounds, ContractRules, Demand, Rule, Severity};

use super::segment_rows::{TextColumn, doubles};

/// The rules that no row of a segment may break.
#[derive(Debug)]
pub(super) struct RowRules(Vec<Rule>);

/// A row that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) offset: i64,
    pub(super) rule: String,
}

/// What a rule needs of a batch.
enum Test<'r> {
    Required(ArrayRef, Option<TextColumn>),
    Length(TextColumn, usize, usize),
    Range(ArrayRef, Vec<f64>, Bounds),
    RangeBy(ArrayRef, Vec<f64>, TextColumn, &'r [(String, Bounds)]),
    Allowed(TextColumn, &'r [String]),
}

impl RowRules {
    /// Those that refuse, if the label in a footer stands for these rules.
    pub(super) fn of(rules: &ContractRules, label: Option<&str>) -> Option<Self> {
        let are_those = label.is_some_and(|label| rules.are_those_of(label));
        let refusing = rules.rules().iter().filter(|rule| rule.severity == Severity::Error);
        are_those.then(|| Self(refusing.cloned().collect()))
    }

    /// The columns that they look at.
    pub(super) fn columns(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|rule| match &rule.demand {
            Demand::RangeBy { by, .. } => vec![rule.field.as_str(), by.as_str()],
            _ => vec![rule.field.as_str()],
        })
    }

    /// Rows that should not be there.
    pub(super) fn breaches(&self, batch: &RecordBatch, offsets: &[i64]) -> Result<Vec<Breach>, String> {
        let mut breaches = Vec::new();
        for rule in &self.0 {
            let test = Test::new(rule, batch)?;
            let broken = offsets.iter().enumerate().filter(|(row, _)| !test.passes(*row));
            breaches.extend(broken.map(|(_, offset)| Breach { offset: *offset, rule: rule.name.clone() }));
        }
        Ok(breaches)
    }
}

impl<'r> Test<'r> {
    fn new(rule: &'r Rule, batch: &RecordBatch) -> Result<Self, String> {
        let column =
            |name: &str| batch.column_by_name(name).ok_or_else(|| format!("it has no column `{name}`")).cloned();
        let field = rule.field.as_str();
        let array = column(field)?;
        let text = |name: &str| TextColumn::new(name, &column(name)?);
        Ok(match &rule.demand {
            Demand::Required => Self::Required(array.clone(), TextColumn::new(field, &array).ok()),
            Demand::Length { min, max } => Self::Length(text(field)?, *min, *max),
            Demand::Range(bounds) => Self::Range(array.clone(), doubles(field, &array)?, *bounds),
            Demand::RangeBy { by, bounds } => Self::RangeBy(array.clone(), doubles(field, &array)?, text(by)?, bounds),
            Demand::Allowed(values) => Self::Allowed(text(field)?, values),
        })
    }

    fn passes(&self, row: usize) -> bool {
        let within = |value: f64, bounds: &Bounds| (bounds.min..=bounds.max).contains(&value);
        match self {
            Self::Required(array, text) => {
                !array.is_null(row) && text.as_ref().is_none_or(|text| text.get(row) != Some(""))
            }
            Self::Length(text, min, max) => text.get(row).is_none_or(|text| (*min..=*max).contains(&text.len())),
            Self::Range(array, values, bounds) => array.is_null(row) || within(values[row], bounds),
            Self::RangeBy(array, values, by, all) => {
                let listed = by.get(row).and_then(|value| all.iter().find(|(listed, _)| listed == value));
                array.is_null(row) || listed.is_none_or(|(_, bounds)| within(values[row], bounds))
            }
            Self::Allowed(text, values) => text.get(row).is_none_or(|text| values.iter().any(|value| value == text)),
        }
    }
}
