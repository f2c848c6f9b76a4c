//! The compiled rules against a plain restatement of them, on random rules and records: verdicts, counts, and nothing left
//! behind by a record that was refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use kappa_core::contract::judge::RuleJudge;
use kappa_core::contract::rules::{Bounds, ContractRules, Demand, Rule, Severity};
use kappa_core::decode::{DecodeLimits, Decoder, ReaderSchema};
use kappa_core::partition::{PartitionSettings, PartitionState, Progress, RejectedOffsets, Replay, SegmentCut};
use kappa_core::record::LogBatch;
use kappa_core::reject::Reason;
use proptest::prelude::*;

use crate::support::partition;

const SCHEMA: &str = r#"{"type": "record", "name": "Reading", "fields": [
    {"name": "sensor_id", "type": "string"},
    {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B", "C"]}},
    {"name": "event_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "value", "type": "double"},
    {"name": "count", "type": "long"},
    {"name": "level", "type": ["null", "float"]},
    {"name": "note", "type": ["null", "string"]}
]}"#;

const KINDS: [&str; 3] = ["A", "B", "C"];
/// Few, so that they repeat; one is empty, one has more bytes than letters.
const TEXTS: [&str; 6] = ["", "a", "bb", "ö", "long enough", "dddd"];
const NUMBERS: [f64; 9] = [-10.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 10.0, 1e300];

#[derive(Debug, Clone)]
struct Reading {
    sensor: &'static str,
    kind: usize,
    value: f64,
    count: i64,
    level: Option<f32>,
    note: Option<&'static str>,
}

impl Reading {
    fn text(&self, field: &str) -> Option<&'static str> {
        match field {
            "sensor_id" => Some(self.sensor),
            "kind" => Some(KINDS[self.kind]),
            _ => self.note,
        }
    }

    fn number(&self, field: &str) -> Option<f64> {
        match field {
            "value" => Some(self.value),
            "count" => Some(self.count as f64),
            _ => self.level.map(f64::from),
        }
    }

    /// The rule in other words: no columns, no symbols, no bits.
    fn breaks(&self, rule: &Rule) -> bool {
        let within = |value: f64, bounds: &Bounds| (bounds.min..=bounds.max).contains(&value);
        let field = rule.field.as_str();
        match &rule.demand {
            Demand::Required if field == "level" => self.level.is_none(),
            Demand::Required => self.text(field).unwrap_or_default().is_empty(),
            Demand::Length { min, max } => self.text(field).is_some_and(|text| !(*min..=*max).contains(&text.len())),
            Demand::Range(bounds) => self.number(field).is_some_and(|value| !within(value, bounds)),
            Demand::RangeBy { by, bounds } => {
                let listed: BTreeMap<_, _> = bounds.iter().map(|(text, bounds)| (text.as_str(), bounds)).collect();
                let bounds = self.text(by).and_then(|text| listed.get(text));
                bounds.zip(self.number(field)).is_some_and(|(bounds, value)| !within(value, bounds))
            }
            Demand::Allowed(values) => self.text(field).is_some_and(|text| !values.iter().any(|value| value == text)),
        }
    }

    fn encoded(&self, writer: &GenericDatumWriter<'_>, time_ms: i64) -> Vec<u8> {
        let nullable = |value: Option<Value>| match value {
            Some(value) => Value::Union(1, Box::new(value)),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        let fields = [
            ("sensor_id", Value::String(self.sensor.to_owned())),
            ("kind", Value::Enum(self.kind as u32, KINDS[self.kind].to_owned())),
            ("event_time", Value::TimestampMillis(time_ms)),
            ("value", Value::Double(self.value)),
            ("count", Value::Long(self.count)),
            ("level", nullable(self.level.map(Value::Float))),
            ("note", nullable(self.note.map(|text| Value::String(text.to_owned())))),
        ];
        let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
        writer.write_value_to_vec(Value::Record(fields)).unwrap()
    }
}

fn reading() -> impl Strategy<Value = Reading> {
    let text = || prop::sample::select(TEXTS.as_slice());
    let level =
        prop::option::of(prop_oneof![Just(f32::NAN), prop::sample::select(NUMBERS.as_slice()).prop_map(|n| n as f32)]);
    (text(), 0..KINDS.len(), prop::sample::select(NUMBERS.as_slice()), -3_i64..4, level, prop::option::of(text()))
        .prop_map(|(sensor, kind, value, count, level, note)| Reading { sensor, kind, value, count, level, note })
}

fn bounds() -> impl Strategy<Value = Bounds> {
    // The last is too large for a bound on whole numbers.
    let bound = || prop::sample::select(&NUMBERS[..8]);
    (bound(), bound(), 0..4).prop_map(|(one, other, open)| Bounds {
        min: if open == 1 { f64::NEG_INFINITY } else { one.min(other) },
        max: if open == 2 { f64::INFINITY } else { one.max(other) },
    })
}

fn rule() -> impl Strategy<Value = (String, Demand)> {
    let field = |names: &'static [&'static str]| prop::sample::select(names).prop_map(str::to_owned);
    let numbers: &'static [&'static str] = &["value", "count", "level"];
    let some = |texts: &'static [&'static str]| prop::sample::subsequence(texts, 1..=texts.len());
    let owned = |texts: Vec<&'static str>| texts.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let by = prop_oneof![
        (Just("kind".to_owned()), some(&KINDS)),
        (Just("note".to_owned()), some(&TEXTS)),
        (Just("sensor_id".to_owned()), some(&TEXTS)),
    ];
    prop_oneof![
        (field(&["sensor_id", "note", "level"]), Just(Demand::Required)),
        (field(&["sensor_id", "note", "kind"]), 0_usize..5, 1_usize..9)
            .prop_map(|(field, min, more)| (field, Demand::Length { min, max: min + more })),
        (field(numbers), bounds()).prop_map(|(field, bounds)| (field, Demand::Range(bounds))),
        (field(numbers), by, prop::collection::vec(bounds(), 6)).prop_map(move |(field, (by, listed), bounds)| {
            (field, Demand::RangeBy { by, bounds: owned(listed).into_iter().zip(bounds).collect() })
        }),
        some(&KINDS).prop_map(move |values| ("kind".to_owned(), Demand::Allowed(owned(values)))),
        (field(&["sensor_id", "note"]), some(&TEXTS))
            .prop_map(move |(field, values)| (field, Demand::Allowed(owned(values)))),
    ]
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let severity = prop_oneof![Just(Severity::Error), Just(Severity::Warning)];
    prop::collection::vec((rule(), severity), 0..8).prop_map(|all| {
        let named = all.into_iter().enumerate();
        named.map(|(n, ((field, demand), severity))| Rule { name: format!("r{n}"), field, severity, demand }).collect()
    })
}

/// What must become of a record: the rule that refuses it, or those that only warn.
fn expected<'r>(reading: &Reading, rules: &'r [Rule]) -> Result<Vec<&'r str>, &'r str> {
    let broken: Vec<_> = rules.iter().filter(|rule| reading.breaks(rule)).collect();
    match broken.iter().find(|rule| rule.severity == Severity::Error) {
        Some(rule) => Err(&rule.name),
        None => Ok(broken.iter().map(|rule| rule.name.as_str()).collect()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn verdicts_are_those_of_the_plain_rules(
        rules in rules(), readings in prop::collection::vec((reading(), 0..12), 1..60)
    ) {
        let reader = ReaderSchema::parse(SCHEMA).unwrap();
        let limits = DecodeLimits::default();
        let decoder = Decoder::compile(SCHEMA, &[], &reader, &limits).unwrap();
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        let compiled = ContractRules::compile("c 1", rules.clone(), &reader).unwrap();
        let (mut columns, mut judge) = (reader.new_columns(&limits), RuleJudge::new(compiled));
        let mut warned: BTreeMap<String, u64> = BTreeMap::new();
        let mut counted = 0;
        for (reading, then) in &readings {
            let row = columns.rows();
            decoder.decode(&reading.encoded(&writer, 0), &mut columns).unwrap();
            if *then == 2 {
                // As in a segment that is gone through again: taken in without a look.
                judge.count_warnings(&columns, counted..row);
                counted = row + 1;
                continue;
            }
            match (judge.judge(&columns, row), expected(reading, &rules)) {
                (Ok(()), Ok(names)) => names.iter().for_each(|name| *warned.entry((*name).to_owned()).or_default() += 1),
                (Err(reject), Err(name)) => {
                    prop_assert_eq!(&reject.reason, &Reason::contract(name));
                    prop_assert_eq!(judge.sentence(&columns, row, name), Some(reject.detail.clone()));
                    let rule = rules.iter().find(|rule| rule.name == name).unwrap();
                    prop_assert!(reject.detail.starts_with(&format!("field `{}`", rule.field)), "{}", reject.detail);
                    columns.truncate(row);
                    judge.forget_symbols(&columns);
                }
                (found, wanted) => prop_assert!(false, "{reading:?}: {found:?}, {wanted:?} expected"),
            }
            if *then == 1 {
                judge.count_warnings(&columns, counted..columns.rows());
                counted = columns.rows();
            }
            if *then == 0 {
                judge.count_warnings(&columns, counted..columns.rows());
                counted = 0;
                drop(columns.take());
                judge.follow_dictionaries(&columns);
            }
        }
        judge.count_warnings(&columns, counted..columns.rows());
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        judge.take_warnings().into_iter().for_each(|(name, count)| *found.entry(name).or_default() += count);
        prop_assert_eq!(found, warned);
        prop_assert!(judge.take_warnings().is_empty());
    }
}

const START_MS: i64 = 1_767_225_600_000;

fn settings(contract: &[(f64, Severity)]) -> Arc<PartitionSettings> {
    let plain = partition::settings(SCHEMA, &["sensor_id"]);
    let rules = contract.iter().map(|(max, severity)| Rule {
        name: "value_range".to_owned(),
        field: "value".to_owned(),
        severity: *severity,
        demand: Demand::Range(Bounds { min: 0.0, max: *max }),
    });
    let contract = ContractRules::compile("c 1", rules.collect(), &plain.reader).unwrap();
    Arc::new(PartitionSettings { contract, ..plain })
}

/// Values 0, 1, 2, …
fn batch(count: i64) -> LogBatch {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let mut batch = LogBatch::default();
    for offset in 0..count {
        let value = offset as f64;
        let reading = Reading { sensor: "a", kind: 0, value, count: 0, level: None, note: None };
        let mut payload = vec![0, 0, 0, 0, 1];
        payload.extend(reading.encoded(&writer, START_MS + offset));
        batch.push(offset, START_MS + offset, None, Some(&payload), []);
    }
    batch
}

fn go_through(settings: &Arc<PartitionSettings>, replay: Option<Replay>) -> (PartitionState, SegmentCut) {
    let mut state = partition::new_state(SCHEMA, Arc::clone(settings), 0);
    if let Some(replay) = replay {
        state.begin_replay(replay);
    }
    assert_eq!(state.process(&batch(10), 0), Progress::Consumed);
    state.take_rows().unwrap();
    let cut = state.cut().unwrap();
    (state, cut)
}

#[test]
fn a_partition_refuses_by_the_rules_and_counts_what_only_warns() {
    let (mut refusing, cut) = go_through(&settings(&[(6.0, Severity::Error)]), None);
    assert_eq!((cut.rows, cut.rejected_offsets.to_json().as_str()), (7, r#"[[7,3,"contract_value_range"]]"#));
    let details: Vec<_> = cut.rejects.iter().map(|(_, cause)| cause.detail.to_owned()).collect();
    assert_eq!(details[0], "field `value` is 7; 0 to 6 is allowed (rule value_range of the data contract)");
    assert!(refusing.take_warnings().is_empty());
    let (mut warning, cut) = go_through(&settings(&[(6.0, Severity::Warning)]), None);
    assert_eq!((cut.rows, cut.rejected_offsets.count()), (10, 0));
    assert_eq!(warning.take_warnings(), [("value_range".to_owned(), 3)]);
}

/// A contract that was tightened or loosened since changes nothing of what was sealed.
#[test]
fn a_replay_takes_the_verdicts_of_the_footer_whatever_the_contract_is_now() {
    let (_, sealed) = go_through(&settings(&[(6.0, Severity::Error)]), None);
    let replay = || Replay { end: 10, rejected: sealed.rejected_offsets.clone() };
    for now in [&[][..], &[(2.0, Severity::Error)], &[(2.0, Severity::Warning)], &[(100.0, Severity::Error)]] {
        let (mut state, cut) = go_through(&settings(now), Some(replay()));
        assert_eq!((cut.rows, &cut.rejected_offsets), (sealed.rows, &sealed.rejected_offsets), "{now:?}");
        assert!(state.take_warnings().is_empty());
        let details: Vec<_> = cut.rejects.iter().map(|(_, cause)| cause.detail).collect();
        let is_broken_now = now.first().is_some_and(|(max, _)| *max < 7.0);
        let told =
            if is_broken_now { "field `value` is 7;" } else { "rejected as contract_value_range when its segment" };
        assert!(details[0].starts_with(told), "{now:?}: {details:?}");
    }
    // Nothing was rejected, and what breaks the rule now is taken in.
    let nothing = Replay { end: 10, rejected: RejectedOffsets::default() };
    assert_eq!(go_through(&settings(&[(2.0, Severity::Error)]), Some(nothing)).1.rows, 10);
}

/// After 32 MiB of texts a dictionary starts afresh, and its numbers stand for others.
#[test]
fn a_dictionary_that_starts_afresh_is_looked_at_again() {
    let reader = ReaderSchema::parse(SCHEMA).unwrap();
    let limits = DecodeLimits::default();
    let decoder = Decoder::compile(SCHEMA, &[], &reader, &limits).unwrap();
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let rule = |name: &str, max, severity| Rule {
        name: name.to_owned(),
        field: "sensor_id".to_owned(),
        severity,
        demand: Demand::Length { min: 0, max },
    };
    let rules = vec![rule("too_long", 65_000, Severity::Error), rule("long", 60_000, Severity::Warning)];
    let mut judge = RuleJudge::new(ContractRules::compile("c 1", rules, &reader).unwrap());
    let mut columns = reader.new_columns(&limits);
    let judged = |length: usize, number: usize, columns: &mut kappa_core::decode::Columns, judge: &mut RuleJudge| {
        let sensor: &'static str = format!("{number:05}{}", "x".repeat(length - 5)).leak();
        let reading = Reading { sensor, kind: 0, value: 0.0, count: 0, level: None, note: None };
        let row = columns.rows();
        decoder.decode(&reading.encoded(&writer, 0), columns).unwrap();
        judge.judge(columns, row).map_err(|reject| reject.reason)
    };
    for number in 0..600 {
        assert_eq!(judged(60_000, number, &mut columns, &mut judge), Ok(()));
    }
    judge.count_warnings(&columns, 0..600);
    drop(columns.take());
    assert_eq!(columns.column(0).dictionary_generation(), 1, "this test is about a fresh dictionary");
    judge.follow_dictionaries(&columns);
    assert_eq!(judged(64_000, 0, &mut columns, &mut judge), Ok(()));
    assert_eq!(judged(70_000, 1, &mut columns, &mut judge), Err(Reason::contract("too_long")));
    judge.count_warnings(&columns, 0..1);
    assert_eq!(judge.take_warnings(), [("long".to_owned(), 1)]);
}
