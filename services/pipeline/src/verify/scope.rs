//! `--from` and `--to`: which windows are compared, and which segments are needed for that.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::chain::Segment;

/// Windows that start in `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) from_ms: i64,
    pub(super) to_ms: i64,
}

impl Scope {
    pub(super) const ALL: Self = Self { from_ms: i64::MIN, to_ms: i64::MAX };

    /// Widened to whole windows.
    pub(super) fn new(from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>, length_ms: i64) -> Self {
        let floor = |time: DateTime<Utc>| time.timestamp_millis().div_euclid(length_ms) * length_ms;
        let ceil = |time: DateTime<Utc>| (time.timestamp_millis() + length_ms - 1).div_euclid(length_ms) * length_ms;
        Self { from_ms: from.map_or(i64::MIN, floor), to_ms: to.map_or(i64::MAX, ceil) }
    }

    /// Whether the window that starts then is compared.
    pub(super) fn holds(self, window_start_ms: i64) -> bool {
        (self.from_ms..self.to_ms).contains(&window_start_ms)
    }

    /// Whether a segment has events of windows in scope. All others matter by their largest event time alone.
    pub(super) fn needs(self, segment: &Segment) -> bool {
        match segment.times_ms {
            Some((min, max)) => max >= self.from_ms && min < self.to_ms,
            // Without rows there is nothing to skip.
            None => true,
        }
    }

    /// Behind a head that is missing, windows may hold events of it that nobody can see any more. None of those is
    /// later than the first record that is left by more than the allowed skew, as far as record timestamps go forward.
    #[must_use]
    pub(super) fn behind_missing_head(self, first_record_ms: i64, max_skew_ms: i64, length_ms: i64) -> Self {
        let earliest = first_record_ms.saturating_add(max_skew_ms);
        let from_ms = earliest.div_euclid(length_ms).saturating_add(1).saturating_mul(length_ms);
        Self { from_ms: self.from_ms.max(from_ms), to_ms: self.to_ms }
    }
}

/// A point in time as people write it: RFC 3339, a day, or so long ago.
pub fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Ok(day) = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(day.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    let ago: Result<Duration, _> = humantime_serde::re::humantime::parse_duration(text);
    let ago = ago.map_err(|_| "expected 2026-11-26T10:00:00Z, 2026-11-26, or 2h for two hours ago".to_owned())?;
    let ago = chrono::Duration::from_std(ago).map_err(|error| error.to_string())?;
    Utc::now().checked_sub_signed(ago).ok_or_else(|| "that is too long ago".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::chain::tests::segment;
    use super::*;

    #[test]
    fn whole_windows_are_in_scope() {
        let time = |seconds| DateTime::from_timestamp(seconds, 0);
        let scope = Scope::new(time(90), time(150), 60_000);
        assert_eq!(scope, Scope { from_ms: 60_000, to_ms: 180_000 });
        assert!(scope.holds(60_000) && scope.holds(120_000) && !scope.holds(180_000) && !scope.holds(0));
        assert_eq!(Scope::new(None, None, 60_000), Scope::ALL);
    }

    #[test]
    fn segments_without_events_in_scope_are_not_needed() {
        let scope = Scope { from_ms: 100, to_ms: 200 };
        let needed: Vec<bool> = [(0, 99), (0, 100), (150, 160), (199, 300), (200, 300)]
            .map(|(start, end)| scope.needs(&segment(start, end)))
            .into();
        assert_eq!(needed, [false, true, true, true, false]);
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(parse_time("2026-11-26T10:00:00+01:00").unwrap().timestamp(), 1_795_683_600);
        assert_eq!(parse_time("1970-01-02").unwrap().timestamp(), 86_400);
        let ago = Utc::now() - parse_time("2h").unwrap();
        assert!((ago.num_seconds() - 7_200).abs() < 60, "{ago}");
        assert!(parse_time("yesterday").is_err());
    }
}
