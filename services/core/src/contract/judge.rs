//! Judges one record after the other by the rules of a contract.
//!
//! For each rule an index into a column and a comparison; which class a text is of is asked once for each symbol of the
//! column's dictionary. What is good costs no allocation, and without rules one branch.

use std::fmt;

use super::rules::{Checks, ContractRules, Demand, FIRST_LISTED, Rule, UNLISTED};
use crate::decode::{Column, Columns};
use crate::reject::{Reason, Reject};

/// For a symbol that was not looked at yet.
const NOT_SEEN: u16 = u16::MAX;

/// Letters of a text that a sentence repeats.
const SHOWN_LETTERS: usize = 64;

/// Judges the rows of one set of columns, and counts the breaches of rules that only warn.
#[derive(Debug)]
pub struct RuleJudge {
    rules: ContractRules,
    symbols: Vec<SymbolClasses>,
    /// Accepted records that broke the rule of that index.
    warned: Vec<u64>,
    has_warned: bool,
}

/// The class of each symbol of a column, as far as it was seen.
#[derive(Debug, Default)]
struct SymbolClasses {
    by_symbol: Vec<u16>,
    generation: u64,
}

impl RuleJudge {
    /// For columns that begin empty.
    pub fn new(rules: ContractRules) -> Self {
        let symbols = rules.checks.classes.iter().map(|_| SymbolClasses::default()).collect();
        Self { symbols, warned: vec![0; rules.rules().len()], has_warned: false, rules }
    }

    /// Judges the record in `row`, which is valid otherwise. Of one that is refused nothing but the reason counts: its
    /// row must be taken back, and [`Self::forget_symbols`] be called then.
    #[inline]
    pub fn judge(&mut self, columns: &Columns, row: usize) -> Result<(), Reject> {
        if self.rules.is_empty() {
            return Ok(());
        }
        match self.broken(columns, row) {
            0 => Ok(()),
            broken => self.settle(broken, columns, row),
        }
    }

    /// Why the record would be refused by the rule of that name, if it breaks it.
    pub fn sentence(&mut self, columns: &Columns, row: usize, name: &str) -> Option<String> {
        let broken = self.broken(columns, row);
        let rules = self.rules.rules().iter().enumerate();
        let (_, rule) = rules.filter(|(index, _)| broken >> index & 1 == 1).find(|(_, rule)| rule.name == name)?;
        Some(sentence(rule, columns, row, &self.rules))
    }

    /// How many accepted records broke a rule since the last call, by the rule's name.
    pub fn take_warnings(&mut self) -> Vec<(String, u64)> {
        if !self.has_warned {
            return Vec::new();
        }
        self.has_warned = false;
        let counted = self.rules.rules().iter().zip(&mut self.warned);
        let taken = counted.map(|(rule, count)| (rule.name.clone(), std::mem::take(count)));
        taken.filter(|(_, count)| *count > 0).collect()
    }

    /// Rows were taken back, and the symbols that came with them: their numbers may come to stand for other texts.
    pub fn forget_symbols(&mut self, columns: &Columns) {
        for (symbols, classes) in self.symbols.iter_mut().zip(&self.rules.checks.classes) {
            symbols.by_symbol.truncate(columns.column(classes.column).symbol_count());
        }
    }

    /// Dictionaries start anew only when rows are taken out of the columns; call this then.
    pub fn follow_dictionaries(&mut self, columns: &Columns) {
        for (symbols, classes) in self.symbols.iter_mut().zip(&self.rules.checks.classes) {
            let generation = columns.column(classes.column).dictionary_generation();
            if generation != symbols.generation {
                *symbols = SymbolClasses { by_symbol: Vec::new(), generation };
            }
        }
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.symbols.iter().map(|symbols| symbols.by_symbol.capacity() * size_of::<u16>()).sum()
    }

    /// One bit for each rule that the record breaks.
    #[inline]
    fn broken(&mut self, columns: &Columns, row: usize) -> u64 {
        let checks: &Checks = &self.rules.checks;
        let mut broken = 0;
        let mut note = |bit: u64, is_broken: bool| broken |= if is_broken { bit } else { 0 };
        for check in &checks.nulls {
            note(check.bit, is_missing(columns.column(check.column), row));
        }
        for check in &checks.lengths {
            let length = columns.column(check.column).text_bytes_at(row);
            note(check.bit, length.is_some_and(|length| length < check.min || length > check.max));
        }
        for check in &checks.ranges {
            let value = columns.column(check.column).double_at(row);
            note(check.bit, value.is_some_and(|value| !check.bounds.hold(value)));
        }
        for check in &checks.grouped {
            let Some(value) = columns.column(check.column).double_at(row) else { continue };
            let classes = &checks.classes[check.classes];
            let class = self.symbols[check.classes].class_of(columns.column(classes.column), row, &classes.texts);
            let bounds = class.and_then(|class| check.bounds.get(usize::from(class.wrapping_sub(FIRST_LISTED))));
            note(check.bit, bounds.is_some_and(|bounds| !bounds.hold(value)));
        }
        for check in &checks.allowed {
            let classes = &checks.classes[check.classes];
            let class = self.symbols[check.classes].class_of(columns.column(classes.column), row, &classes.texts);
            note(check.bit, class == Some(UNLISTED));
        }
        broken
    }

    #[cold]
    fn settle(&mut self, broken: u64, columns: &Columns, row: usize) -> Result<(), Reject> {
        let refusing = broken & self.rules.checks.errors;
        if refusing != 0 {
            let rule = &self.rules.rules()[refusing.trailing_zeros() as usize];
            return Err(Reject::new(Reason::contract(&rule.name), sentence(rule, columns, row, &self.rules)));
        }
        for (index, count) in self.warned.iter_mut().enumerate() {
            *count += broken >> index & 1;
        }
        self.has_warned = true;
        Ok(())
    }
}

impl SymbolClasses {
    /// `None` for a null.
    #[inline]
    fn class_of(&mut self, column: &Column, row: usize, texts: &[String]) -> Option<u16> {
        let Some(symbol) = column.symbol_at(row) else { return column.str_at(row).map(|text| class_of(text, texts)) };
        match self.by_symbol.get(symbol as usize) {
            Some(class) if *class != NOT_SEEN => Some(*class),
            _ => Some(self.learn(column, symbol, texts)),
        }
    }

    #[cold]
    fn learn(&mut self, column: &Column, symbol: u32, texts: &[String]) -> u16 {
        let class = class_of(column.symbol_name(symbol), texts);
        let symbol = symbol as usize;
        if symbol >= self.by_symbol.len() {
            self.by_symbol.resize(symbol + 1, NOT_SEEN);
        }
        self.by_symbol[symbol] = class;
        class
    }
}

fn class_of(text: &str, texts: &[String]) -> u16 {
    texts.iter().position(|listed| listed == text).map_or(UNLISTED, |index| FIRST_LISTED + index as u16)
}

#[inline]
fn is_missing(column: &Column, row: usize) -> bool {
    column.is_null(row) || column.text_bytes_at(row) == Some(0)
}

/// What was found, and what the contract allows.
#[cold]
fn sentence(rule: &Rule, columns: &Columns, row: usize, rules: &ContractRules) -> String {
    let Rule { name, field, demand, .. } = rule;
    let column_of = |field: &str| rules.column_of(field).map(|column| columns.column(column));
    let Some(column) = column_of(field) else { return String::new() };
    let found = Shown { column, row };
    let by_the_rule = format!("(rule {name} of the data contract)");
    match demand {
        Demand::Required if column.is_null(row) => format!("field `{field}` is null, but must be there {by_the_rule}"),
        Demand::Required => format!("field `{field}` is empty, but must not be {by_the_rule}"),
        Demand::Length { min, max } => {
            let bytes = column.text_bytes_at(row).unwrap_or_default();
            let allowed = if *max == usize::MAX { format!("at least {min}") } else { format!("{min} to {max}") };
            format!("field `{field}` has {bytes} bytes; {allowed} are allowed {by_the_rule}")
        }
        Demand::Range(bounds) => format!("field `{field}` is {found}; {bounds} is allowed {by_the_rule}"),
        Demand::RangeBy { by, bounds } => {
            let value = column_of(by).and_then(|column| column.str_at(row)).unwrap_or_default();
            let bounds = bounds.iter().find(|(listed, _)| listed == value).map(|(_, bounds)| bounds.to_string());
            let bounds = bounds.unwrap_or_default();
            format!("field `{field}` is {found}; {bounds} is allowed where `{by}` is {value} {by_the_rule}")
        }
        Demand::Allowed(values) => {
            let allowed = values.join(", ");
            format!("field `{field}` is {found}; allowed are {allowed} {by_the_rule}")
        }
    }
}

/// A value in a sentence.
struct Shown<'a> {
    column: &'a Column,
    row: usize,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = self.column.str_at(self.row) {
            let short: String = text.chars().take(SHOWN_LETTERS).collect();
            let more = if short.len() < text.len() { "…" } else { "" };
            return write!(formatter, "{short:?}{more}");
        }
        match (self.column.long_at(self.row), self.column.double_at(self.row)) {
            (Some(whole), _) => write!(formatter, "{whole}"),
            (None, Some(number)) => write!(formatter, "{number}"),
            (None, None) => formatter.write_str("null"),
        }
    }
}
