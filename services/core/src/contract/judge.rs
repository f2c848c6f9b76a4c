//! Judges one record after the other by the rules of a contract.
//!
//! Of each record only the rules that refuse are asked, and of these only whether it is surely good: a number in its
//! bounds, a text whose number in the dictionary is of those that were good before. What is not sure is looked at
//! closely. Rules that only warn are counted for many rows at once, column by column. What is good costs no allocation,
//! and without rules one branch.

use std::fmt;
use std::ops::Range;

use super::rules::{
    AllowedCheck, Checks, ContractRules, Demand, FIRST_LISTED, GroupedCheck, QuickCheck, Rule, Severity, UNLISTED,
};
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
    classes: Vec<SymbolClasses>,
    /// For each [`QuickCheck`].
    known: Vec<KnownTexts>,
    /// For each rule: which symbols break it, where it is about texts and only warns.
    bad: Vec<BadSymbols>,
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

/// Symbols below the number stand for texts that were looked at and are good.
#[derive(Debug, Default, Clone)]
struct KnownTexts {
    good_below: u32,
    generation: u64,
}

/// For each symbol 1 if its text breaks a rule. Asked of accepted rows alone, whose symbols stay.
#[derive(Debug, Default, Clone)]
struct BadSymbols {
    by_symbol: Vec<u8>,
    generation: u64,
}

impl RuleJudge {
    /// For columns that begin empty.
    pub fn new(rules: ContractRules) -> Self {
        let classes = rules.checks.classes.iter().map(|_| SymbolClasses::default()).collect();
        let known = vec![KnownTexts::default(); rules.checks.quick.len()];
        let count = rules.rules().len();
        Self {
            classes,
            known,
            bad: vec![BadSymbols::default(); count],
            warned: vec![0; count],
            has_warned: false,
            rules,
        }
    }

    /// Judges the record in `row`, which is valid otherwise, by the rules that refuse. The row of one that is refused
    /// must be taken back, and [`Self::forget_symbols`] be called then.
    #[inline]
    pub fn judge(&mut self, columns: &Columns, row: usize) -> Result<(), Reject> {
        if self.rules.checks.quick.is_empty() || self.is_surely_good(columns, row) {
            return Ok(());
        }
        self.look_closely(columns, row)
    }

    /// Counts which of these rows, accepted all, break a rule that only warns.
    pub fn count_warnings(&mut self, columns: &Columns, rows: Range<usize>) {
        if rows.is_empty() {
            return;
        }
        for index in 0..self.warned.len() {
            if self.rules.rules()[index].severity == Severity::Warning {
                let count = self.count_broken(index, columns, rows.clone());
                self.warned[index] += count;
                self.has_warned |= count > 0;
            }
        }
    }

    /// How many rows broke a rule that only warns, as far as they were counted since the last call; by the rule's name.
    pub fn take_warnings(&mut self) -> Vec<(String, u64)> {
        if !self.has_warned {
            return Vec::new();
        }
        self.has_warned = false;
        let counted = self.rules.rules().iter().zip(&mut self.warned);
        let taken = counted.map(|(rule, count)| (rule.name.clone(), std::mem::take(count)));
        taken.filter(|(_, count)| *count > 0).collect()
    }

    /// What is wrong with the record by the rule of that name, if it breaks it.
    pub fn sentence(&mut self, columns: &Columns, row: usize, name: &str) -> Option<String> {
        let broken = self.broken(columns, row);
        let rules = self.rules.rules().iter().enumerate();
        let (_, rule) = rules.filter(|(index, _)| broken >> index & 1 == 1).find(|(_, rule)| rule.name == name)?;
        Some(sentence(rule, columns, row, &self.rules))
    }

    /// Rows were taken back, and the symbols that came with them: their numbers may come to stand for other texts.
    pub fn forget_symbols(&mut self, columns: &Columns) {
        for (symbols, classes) in self.classes.iter_mut().zip(&self.rules.checks.classes) {
            symbols.by_symbol.truncate(columns.column(classes.column).symbol_count());
        }
        // Known texts came with records that were accepted, so they stay.
    }

    /// Dictionaries start anew only when rows are taken out of the columns; call this then.
    pub fn follow_dictionaries(&mut self, columns: &Columns) {
        for (symbols, classes) in self.classes.iter_mut().zip(&self.rules.checks.classes) {
            let generation = columns.column(classes.column).dictionary_generation();
            if generation != symbols.generation {
                *symbols = SymbolClasses { by_symbol: Vec::new(), generation };
            }
        }
        for (known, check) in self.known.iter_mut().zip(&self.rules.checks.quick) {
            let QuickCheck::KnownText { column, .. } = check else { continue };
            let generation = columns.column(*column).dictionary_generation();
            if generation != known.generation {
                *known = KnownTexts { good_below: 0, generation };
            }
        }
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        let classes: usize = self.classes.iter().map(|symbols| symbols.by_symbol.capacity() * size_of::<u16>()).sum();
        classes + self.bad.iter().map(|bad| bad.by_symbol.capacity()).sum::<usize>()
    }

    /// Whether no rule that refuses is broken, as far as can be told cheaply.
    #[inline]
    fn is_surely_good(&mut self, columns: &Columns, row: usize) -> bool {
        let checks: &Checks = &self.rules.checks;
        let mut is_good = true;
        for (check, known) in checks.quick.iter().zip(&self.known) {
            is_good &= match check {
                QuickCheck::KnownText { column, null_is_good } => match columns.column(*column).symbol_at(row) {
                    Some(symbol) => symbol < known.good_below,
                    None => *null_is_good && columns.column(*column).is_null(row),
                },
                QuickCheck::Range(index) => {
                    let check = &checks.ranges[*index];
                    columns.column(check.column).double_at(row).is_none_or(|value| check.bounds.hold(value))
                }
                QuickCheck::Grouped(index) => {
                    !is_out_of_its_bounds(&checks.grouped[*index], checks, &mut self.classes, columns, row)
                }
                QuickCheck::Allowed(index) => {
                    class_by(&checks.allowed[*index], checks, &mut self.classes, columns, row) != Some(UNLISTED)
                }
                QuickCheck::NotNull { column } => !columns.column(*column).is_null(row),
            };
        }
        is_good
    }

    /// The record is not surely good.
    #[cold]
    fn look_closely(&mut self, columns: &Columns, row: usize) -> Result<(), Reject> {
        let refusing = self.broken(columns, row) & self.rules.checks.errors;
        if refusing != 0 {
            let rule = &self.rules.rules()[refusing.trailing_zeros() as usize];
            return Err(Reject::new(Reason::contract(&rule.name), sentence(rule, columns, row, &self.rules)));
        }
        self.remember_texts(columns, row);
        Ok(())
    }

    /// The texts of this good record are good the next time. Those of a segment that was gone through again were not
    /// looked at, so there may be others before them.
    fn remember_texts(&mut self, columns: &Columns, row: usize) {
        let quick = self.rules.checks.quick.iter().enumerate();
        let refusing = self.rules.rules().iter().filter(|rule| rule.severity == Severity::Error);
        for ((index, check), rule) in quick.zip(refusing) {
            let QuickCheck::KnownText { column, .. } = check else { continue };
            let (column, known) = (columns.column(*column), &mut self.known[index]);
            let Some(symbol) = column.symbol_at(row) else { continue };
            while known.good_below <= symbol && is_good_text(&rule.demand, column.symbol_name(known.good_below)) {
                known.good_below += 1;
            }
        }
    }

    /// One bit for each rule that the record breaks.
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
            note(check.bit, is_out_of_its_bounds(check, checks, &mut self.classes, columns, row));
        }
        for check in &checks.allowed {
            note(check.bit, class_by(check, checks, &mut self.classes, columns, row) == Some(UNLISTED));
        }
        broken
    }

    /// How many of these rows break the rule of that index.
    fn count_broken(&mut self, index: usize, columns: &Columns, rows: Range<usize>) -> u64 {
        let checks: &Checks = &self.rules.checks;
        let rule = &self.rules.rules()[index];
        if let Demand::Required | Demand::Length { .. } | Demand::Allowed(_) = rule.demand
            && let Some(column) = self.rules.column_of(&rule.field).map(|column| columns.column(column))
        {
            let bad = &mut self.bad[index];
            bad.learn(column, &rule.demand);
            let with_nulls = rule.demand == Demand::Required;
            if let Some(count) = column.count_symbols(rows.clone(), &bad.by_symbol, with_nulls) {
                return count;
            }
        }
        let bit = 1_u64 << index;
        if let Some(check) = checks.ranges.iter().find(|check| check.bit == bit) {
            return columns.column(check.column).count_outside(rows, check.bounds.min, check.bounds.max);
        }
        if let Some(check) = checks.nulls.iter().find(|check| check.bit == bit) {
            let column = columns.column(check.column);
            return rows.map(|row| u64::from(is_missing(column, row))).sum();
        }
        if let Some(check) = checks.lengths.iter().find(|check| check.bit == bit) {
            let column = columns.column(check.column);
            let is_other = |length: usize| length < check.min || length > check.max;
            return rows.map(|row| u64::from(column.text_bytes_at(row).is_some_and(is_other))).sum();
        }
        if let Some(check) = checks.grouped.iter().find(|check| check.bit == bit) {
            let classes = &mut self.classes;
            return rows.map(|row| u64::from(is_out_of_its_bounds(check, checks, classes, columns, row))).sum();
        }
        let Some(check) = checks.allowed.iter().find(|check| check.bit == bit) else { return 0 };
        let classes = &mut self.classes;
        rows.map(|row| u64::from(class_by(check, checks, classes, columns, row) == Some(UNLISTED))).sum()
    }
}

#[inline]
fn class_by(
    check: &AllowedCheck,
    checks: &Checks,
    symbols: &mut [SymbolClasses],
    columns: &Columns,
    row: usize,
) -> Option<u16> {
    let classes = &checks.classes[check.classes];
    symbols[check.classes].class_of(columns.column(classes.column), row, &classes.texts)
}

#[inline]
fn is_out_of_its_bounds(
    check: &GroupedCheck,
    checks: &Checks,
    symbols: &mut [SymbolClasses],
    columns: &Columns,
    row: usize,
) -> bool {
    let Some(value) = columns.column(check.column).double_at(row) else { return false };
    let classes = &checks.classes[check.classes];
    let class = symbols[check.classes].class_of(columns.column(classes.column), row, &classes.texts);
    let bounds = class.and_then(|class| check.bounds.get(usize::from(class.wrapping_sub(FIRST_LISTED))));
    bounds.is_some_and(|bounds| !bounds.hold(value))
}

impl BadSymbols {
    /// Looks at the texts that came since the last time.
    fn learn(&mut self, column: &Column, demand: &Demand) {
        let generation = column.dictionary_generation();
        if generation != self.generation {
            *self = Self { by_symbol: Vec::new(), generation };
        }
        for symbol in self.by_symbol.len()..column.symbol_count() {
            self.by_symbol.push(u8::from(!is_good_text(demand, column.symbol_name(symbol as u32))));
        }
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

/// Whether a text, wherever it stands, keeps a rule about its field's texts.
fn is_good_text(demand: &Demand, text: &str) -> bool {
    match demand {
        Demand::Required => !text.is_empty(),
        Demand::Length { min, max } => (*min..=*max).contains(&text.len()),
        Demand::Allowed(values) => values.iter().any(|value| value == text),
        Demand::Range(_) | Demand::RangeBy { .. } => true,
    }
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
