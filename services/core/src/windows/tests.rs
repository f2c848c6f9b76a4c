use super::*;
use crate::anomaly::Robust;

fn settings() -> WindowSettings {
    WindowSettings { length_ms: 60_000, allowed_lateness_ms: 30_000, forget_after_ms: 600_000 }
}

fn windows() -> Windows {
    Windows::new(settings(), ConfiguredDetector::Robust(Robust::new(30, 60, 9.0, 30)), 1)
}

fn add(windows: &mut Windows, series: &str, time_ms: i64, value: f64, offset: i64) {
    let id = windows.series_id(&[series]);
    windows.add(id, time_ms, value, false, offset);
}

/// (series, window start, segment, count, closed, version), in order.
fn brief(mut rows: Vec<WindowRow>) -> Vec<(String, i64, i64, u64, bool, i64)> {
    rows.sort_by(|a, b| (&a.series, a.window_start_ms, a.segment).cmp(&(&b.series, b.window_start_ms, b.segment)));
    let one = |row: WindowRow| {
        let series = row.series.parts().next().unwrap_or_default().to_owned();
        (series, row.window_start_ms, row.segment, row.count, row.closed, row.version)
    };
    rows.into_iter().map(one).collect()
}

fn take(windows: &mut Windows, version: i64) -> Vec<(String, i64, i64, u64, bool, i64)> {
    let mut rows = Vec::new();
    windows.take_closed(version, &mut rows);
    windows.take_changed(version, &mut rows);
    windows.take_late(0, version, &mut rows);
    windows.take_anomalies();
    brief(rows)
}

#[test]
fn a_window_closes_when_the_watermark_passes_end_and_lateness() {
    let mut windows = windows();
    add(&mut windows, "a", 1_000, 1.0, 0);
    add(&mut windows, "b", 89_999, 1.0, 1);
    assert_eq!(take(&mut windows, 2), [("a".into(), 0, -1, 1, false, 2), ("b".into(), 60_000, -1, 1, false, 2)]);
    add(&mut windows, "a", 2_000, 1.0, 2);
    assert_eq!(take(&mut windows, 3), [("a".into(), 0, -1, 2, false, 3)], "within the lateness it still counts");
    add(&mut windows, "b", 90_000, 1.0, 3);
    assert_eq!(take(&mut windows, 4), [("a".into(), 0, -1, 2, true, 4), ("b".into(), 60_000, -1, 2, false, 4)]);
    add(&mut windows, "a", 3_000, 1.0, 4);
    assert_eq!(take(&mut windows, 5), [("a".into(), 0, 0, 1, true, 5)], "then it is a late contribution");
    assert_eq!(take(&mut windows, 6), []);
}

#[test]
fn a_jump_of_the_watermark_closes_everything_before_it() {
    let mut windows = windows();
    add(&mut windows, "a", 0, 1.0, 0);
    add(&mut windows, "a", 60_000, 1.0, 1);
    add(&mut windows, "a", 86_400_000, 1.0, 2);
    let rows = take(&mut windows, 3);
    assert_eq!(
        rows.iter().map(|row| (row.1, row.4)).collect::<Vec<_>>(),
        [(0, true), (60_000, true), (86_400_000, false)]
    );
}

#[test]
fn times_before_the_epoch_have_windows_too() {
    let mut windows = windows();
    add(&mut windows, "a", -1, 1.0, 0);
    assert_eq!(take(&mut windows, 1), [("a".into(), -60_000, -1, 1, false, 1)]);
}

#[test]
fn every_event_is_in_exactly_one_row_whatever_the_order() {
    // Random times over many windows, drained at random: the sum of the newest rows is the number of events.
    let mut windows = Windows::new(
        WindowSettings { length_ms: 10, allowed_lateness_ms: 25, forget_after_ms: 1_000 },
        ConfiguredDetector::Off,
        1,
    );
    let mut random = 99_u64;
    let mut newest = BTreeMap::new();
    for offset in 0..20_000_i64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let time = offset / 10 - (random >> 33) as i64 % 60;
        add(&mut windows, ["a", "b", "c"][(random >> 40) as usize % 3], time, 1.0, offset);
        if random >> 60 == 0 {
            // One "segment" per drain, so that late contributions are told apart.
            let mut rows = Vec::new();
            windows.take_closed(offset + 1, &mut rows);
            windows.take_changed(offset + 1, &mut rows);
            windows.take_late(offset, offset + 1, &mut rows);
            newest.extend(
                rows.into_iter().map(|row| ((row.series.clone(), row.window_start_ms, row.segment), row.count)),
            );
        }
    }
    let mut rows = Vec::new();
    windows.take_closed(20_000, &mut rows);
    windows.take_changed(20_000, &mut rows);
    windows.take_late(20_000, 20_000, &mut rows);
    newest.extend(rows.into_iter().map(|row| ((row.series.clone(), row.window_start_ms, row.segment), row.count)));
    assert_eq!(newest.values().sum::<u64>(), 20_000);
    assert!(newest.keys().any(|key| key.2 != OWN_ROW), "some events came late");
}

#[test]
fn a_restored_state_goes_on_as_if_nothing_had_happened() {
    let feed = |windows: &mut Windows, offsets: std::ops::Range<i64>| {
        for offset in offsets {
            let value = ((offset * 7919) % 101) as f64 + if offset % 997 == 0 { 1e4 } else { 0.0 };
            add(
                windows,
                ["a", "b", "c"][(offset % 3) as usize],
                offset * 250 - i64::from(offset % 11 == 0) * 150_000,
                value,
                offset,
            );
        }
    };
    let mut straight = windows();
    feed(&mut straight, 0..2_000);
    take(&mut straight, 2_000);
    let mut writer = SnapshotWriter::new();
    straight.save(&mut writer);
    let bytes = writer.finish();

    let mut restored = windows();
    let mut reader = SnapshotReader::open(&bytes).expect("opens");
    restored.load(&mut reader).expect("loads");
    reader.finish().expect("nothing left");

    feed(&mut straight, 2_000..5_000);
    feed(&mut restored, 2_000..5_000);
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for (windows, rows) in [(&mut straight, &mut left), (&mut restored, &mut right)] {
        windows.take_closed(5_000, rows);
        windows.take_changed(5_000, rows);
        windows.take_late(2_000, 5_000, rows);
    }
    assert_eq!(left, right);
    let anomalies = straight.take_anomalies();
    assert!(!anomalies.is_empty());
    assert_eq!(anomalies, restored.take_anomalies());
}

#[test]
fn changed_window_settings_are_refused() {
    let mut writer = SnapshotWriter::new();
    windows().save(&mut writer);
    let bytes = writer.finish();
    let mut other = Windows::new(WindowSettings { length_ms: 1_000, ..settings() }, ConfiguredDetector::Off, 1);
    let error = other.load(&mut SnapshotReader::open(&bytes).expect("opens")).expect_err("refused");
    assert!(matches!(error, SnapshotError::Settings { setting: "windows.length", .. }), "{error}");
}

#[test]
fn silent_series_are_forgotten_and_the_rest_stays() {
    let mut windows = windows();
    add(&mut windows, "gone", 0, 1.0, 0);
    add(&mut windows, "here", 1_000_000, 5.0, 1);
    take(&mut windows, 2);
    assert!(windows.forget_silent_series());
    assert_eq!(windows.series_count(), 1);
    add(&mut windows, "here", 1_000_001, 6.0, 2);
    add(&mut windows, "gone", 1_000_002, 7.0, 3);
    assert_eq!(
        take(&mut windows, 4),
        [("gone".into(), 960_000, -1, 1, false, 4), ("here".into(), 960_000, -1, 2, false, 4)]
    );
}
