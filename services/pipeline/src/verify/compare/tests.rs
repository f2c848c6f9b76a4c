use std::time::Duration;

use super::super::totals::{ArchivedEvent, Totals};
use super::*;

const COMMITTED: i64 = 100;
const END: i64 = 150;

/// Events at offsets 10 and `last`.
fn expected(standing: Standing, last: i64) -> ExpectedRow {
    let event =
        |offset, value| ArchivedEvent { offset, time_ms: offset, value, is_bad: false, sequence: 0, is_marked: false };
    let mut totals = Totals::of(&event(10, 1.0), 0.0, false);
    totals.add(&event(last, 3.0), 0.0, false);
    ExpectedRow { series: Arc::new(SeriesKey::new(["s"])), window_start_ms: 0, totals, standing }
}

fn found(expected: &ExpectedRow, version: u64, is_closed: bool) -> FoundRow {
    let totals = &expected.totals;
    FoundRow {
        series: Arc::clone(&expected.series),
        window_start_ms: 0,
        segment: if let Standing::Late { segment, .. } = expected.standing { segment } else { -1 },
        count: totals.count,
        sum: totals.sum(),
        min: totals.min,
        max: totals.max,
        m2: totals.m2,
        first_value: totals.first.value,
        first_time_ms: totals.first.time_ms,
        last_value: totals.last.value,
        last_time_ms: totals.last.time_ms,
        anomalies: 0,
        max_score: 0.0,
        bad_quality: 0,
        is_closed,
        version,
    }
}

/// The sentences, and how many rows counted as provisional or not yet written.
fn compared(expected: Option<ExpectedRow>, found: Option<FoundRow>) -> (Vec<String>, bool) {
    let report = Report::default();
    let comparison = Comparison {
        report: &report,
        partition: 0,
        progressed: Progressed { committed: COMMITTED, end: END },
        is_whole: true,
        windows_expired_before_ms: i64::MIN,
        anomalies_expired_before_ms: i64::MIN,
    };
    comparison.windows(expected.into_iter().collect(), found.into_iter().collect(), true, 0);
    let text = report.finish(String::new(), 0, Duration::ZERO).to_string();
    let sentences = text.lines().filter_map(|line| line.trim().strip_prefix("- ").map(str::to_owned)).collect();
    (sentences, text.contains("provisional") || text.contains("not yet written"))
}

fn judged(standing: Standing, last: i64, version: u64, is_closed: bool, change: impl Fn(&mut FoundRow)) -> String {
    let expected = expected(standing, last);
    let mut found = found(&expected, version, is_closed);
    change(&mut found);
    compared(Some(expected), Some(found)).0.join("\n")
}

const CLOSED: Standing = Standing::Closed { by: 50 };

#[test]
fn a_closed_row_must_be_equal_in_every_field() {
    type Change = fn(&mut FoundRow);
    assert_eq!(judged(CLOSED, 20, 60, true, |_| {}), "");
    let changes: [(&str, Change); 12] = [
        ("count 2 expected, 3 found", |row| row.count = 3),
        ("sum 4 expected, 4.1 found", |row| row.sum = 4.1),
        ("sum 4 expected, NaN found", |row| row.sum = f64::NAN),
        ("min 1 expected, 0 found", |row| row.min = 0.0),
        ("max 3 expected, 4 found", |row| row.max = 4.0),
        ("m2 2 expected, 2.5 found", |row| row.m2 = 2.5),
        ("first_value 1 expected", |row| row.first_value = 2.0),
        ("first_time 10 expected, 9 found", |row| row.first_time_ms = 9),
        ("last_time 20 expected, 21 found", |row| row.last_time_ms = 21),
        ("anomalies 0 expected, 1 found", |row| row.anomalies = 1),
        ("max_score 0 expected, 2 found", |row| row.max_score = 2.0),
        ("bad_quality 0 expected, 1 found", |row| row.bad_quality = 1),
    ];
    for (sentence, change) in changes {
        let told = judged(CLOSED, 20, 60, true, change);
        assert!(
            told.contains(sentence) && told.contains("partition 0, s, window 1970-01-01T00:00:00.000Z, own row"),
            "{told}"
        );
    }
    assert_eq!(judged(CLOSED, 20, 60, true, |row| row.sum += 1e-9), "");
}

#[test]
fn a_row_must_be_as_true_as_what_is_committed() {
    assert!(
        judged(CLOSED, 20, 60, false, |_| {}).contains("it is not closed (true up to 60), though offset 50 closed it")
    );
    assert!(judged(CLOSED, 20, 15, true, |_| {}).contains("has an event at offset 20"));
    assert!(judged(Standing::Open, 20, 15, false, |row| row.count = 1).contains("lacks the event at offset 20"));
    assert!(judged(Standing::Open, 20, 60, true, |_| {}).contains("nothing up to 150 closes it"));
    let late = Standing::Late { segment: 5, end: 30 };
    assert_eq!(judged(late, 20, 30, true, |_| {}), "");
    assert!(judged(late, 20, 31, true, |_| {}).contains("late contribution of segment 5: it is true up to 31"));
}

#[test]
fn what_is_not_committed_is_provisional() {
    // Closed behind the committed offset, not yet written as closed.
    assert_eq!(judged(Standing::Closed { by: 120 }, 20, 60, false, |_| {}), "");
    // Lacks an event behind the committed offset: no more than the archive has.
    assert_eq!(judged(Standing::Open, 120, 60, false, |row| (row.count, row.max, row.last_time_ms) = (1, 1.0, 10)), "");
    assert!(judged(Standing::Open, 120, 60, false, |row| row.count = 3).contains("count at most 2 expected, 3 found"));
    // Ahead of the archive: no less.
    assert_eq!(judged(Standing::Open, 120, 200, true, |row| (row.count, row.min) = (9, -1.0)), "");
    assert!(
        judged(Standing::Open, 120, 200, false, |row| row.count = 1).contains("count at least 2 expected, 1 found")
    );
}

#[test]
fn missing_and_surplus_rows_are_told_unless_they_may_be_on_their_way() {
    assert!(compared(Some(expected(CLOSED, 20)), None).0[0].contains("the row is missing; 2 events"));
    let late = |end| expected(Standing::Late { segment: 5, end }, 20);
    assert_eq!(compared(Some(late(COMMITTED)), None).0.len(), 1);
    assert_eq!(compared(Some(late(COMMITTED + 1)), None), (vec![], true));
    let surplus = |version, segment| {
        let row = FoundRow { segment, ..found(&expected(CLOSED, 20), version, true) };
        compared(None, Some(row)).0
    };
    assert!(surplus(150, -1)[0].contains("a row of 2 events, true up to 150, that nothing in the archive explains"));
    assert_eq!(surplus(151, -1), Vec::<String>::new());
    assert_eq!(surplus(160, 140).len(), 1);
    assert_eq!(surplus(160, END), Vec::<String>::new());
}
