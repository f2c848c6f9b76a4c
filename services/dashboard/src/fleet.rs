//! The last hour of the fleet in memory, minute by minute, and the health of its sites.
//!
//! ClickHouse is asked for the last few minutes again and again, since their windows still change; a minute that has
//! passed is read once more when it has closed, and then stays as it is. So a glance costs what the last minutes hold.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Minutes (windows) that are kept.
pub const KEPT_WINDOWS: i64 = 60;

/// Windows that are read at every glance: open ones, and those that wait for late events.
pub const LIVE_WINDOWS: i64 = 3;

/// Windows that are read again now and then, for what came late.
pub const SETTLING_WINDOWS: i64 = 15;

/// Health of a site by shares: of sensors with a flagged event, of events with bad quality, of sensors that have fallen
/// silent within the hour.
const WATCH: Shares = Shares { flagged: 0.08, bad: 0.02, silent: 0.05 };
const ALERT: Shares = Shares { flagged: 0.20, bad: 0.10, silent: 0.25 };

struct Shares {
    flagged: f64,
    bad: f64,
    silent: f64,
}

/// A row of the statements `fleet` and `minutes`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct TotalsRow {
    what: String,
    minute_ms: i64,
    site: String,
    metric: String,
    sensors: u64,
    flagged: u64,
    events: u64,
    flags: u64,
    bad: u64,
    late: u64,
    newest_ms: i64,
}

/// All sensors in one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Minute {
    /// Start of the window, milliseconds since the epoch.
    pub time_ms: i64,
    /// Sensors that reported.
    pub sensors: u64,
    /// Accepted events.
    pub events: u64,
    /// Flagged events.
    pub anomalies: u64,
    /// Events whose sensor says that they are bad.
    pub bad: u64,
    /// Events that came after the window had closed.
    pub late: u64,
}

/// How a site does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Much is odd, bad or silent.
    Alert,
    /// Some is.
    Watch,
    /// Nothing to speak of.
    Good,
}

/// One site over the live windows.
#[derive(Debug, Clone, Serialize)]
pub struct Site {
    /// Its name; empty for sensors that name none.
    pub site: String,
    /// Sensors that reported.
    pub sensors: u64,
    /// Sensors with a flagged event.
    pub flagged: u64,
    /// Sensors fewer than the most within the hour.
    pub silent: u64,
    /// Accepted events.
    pub events: u64,
    /// Flagged events.
    pub anomalies: u64,
    /// Events of bad quality.
    pub bad: u64,
    /// What follows from that.
    pub health: Health,
}

/// What ClickHouse shows of the fleet.
#[derive(Debug, Default)]
pub struct Fleet {
    window_ms: i64,
    minutes: BTreeMap<i64, Minute>,
    sites: Vec<Site>,
    metrics: Vec<String>,
    newest_ms: Option<i64>,
    /// By site: the most sensors at a glance, by the minute of the glance.
    peaks: HashMap<String, BTreeMap<i64, u64>>,
}

impl Fleet {
    /// Nothing is known yet.
    pub fn new(window_ms: i64) -> Self {
        Self { window_ms, ..Self::default() }
    }

    /// `[from, to)` of the last `windows` windows, the open one and those ahead of the clock included. Sensors may be
    /// some minutes ahead.
    pub fn range(&self, now_ms: i64, windows: i64) -> (i64, i64) {
        let open = now_ms.div_euclid(self.window_ms) * self.window_ms;
        (open - (windows - 1) * self.window_ms, open + self.window_ms)
    }

    /// Takes in totals by minute; those in `range` that have no row are empty.
    pub fn take_minutes(&mut self, rows: &[TotalsRow], range: (i64, i64), now_ms: i64) {
        self.minutes.retain(|time, _| *time < range.0 || *time >= range.1);
        for row in rows.iter().filter(|row| row.what == "minute") {
            self.minutes.insert(row.minute_ms, Minute::of(row));
        }
        let oldest = self.range(now_ms, KEPT_WINDOWS).0;
        self.minutes = self.minutes.split_off(&oldest);
    }

    /// Takes in a glance at the live windows: totals by minute, site and metric.
    pub fn take_glance(&mut self, rows: &[TotalsRow], range: (i64, i64), now_ms: i64) {
        self.take_minutes(rows, range, now_ms);
        self.newest_ms = rows.iter().filter(|row| row.what == "minute").map(|row| row.newest_ms).max();
        let minute = now_ms.div_euclid(60_000);
        for peaks in self.peaks.values_mut() {
            *peaks = peaks.split_off(&(minute - KEPT_WINDOWS));
        }
        self.peaks.retain(|_, peaks| !peaks.is_empty());
        let rows_of = |what: &'static str| rows.iter().filter(move |row| row.what == what);
        for row in rows_of("site") {
            let most = self.peaks.entry(row.site.clone()).or_default().entry(minute).or_default();
            *most = row.sensors.max(*most);
        }
        let mut totals: HashMap<&str, &TotalsRow> = rows_of("site").map(|row| (row.site.as_str(), row)).collect();
        let silent = TotalsRow::default();
        let site = |(name, peaks): (&String, &BTreeMap<i64, u64>)| {
            let peak = peaks.values().copied().max().unwrap_or_default();
            Site::of(name, totals.remove(name.as_str()).unwrap_or(&silent), peak)
        };
        self.sites = self.peaks.iter().map(site).collect();
        self.sites.sort_by(|left, right| left.site.cmp(&right.site));
        self.metrics = rows_of("metric").map(|row| row.metric.clone()).collect();
        self.metrics.sort();
    }

    /// Minute by minute, oldest first.
    pub fn minutes(&self) -> impl Iterator<Item = &Minute> {
        self.minutes.values()
    }

    /// By name.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// Metrics of the live windows.
    pub fn metrics(&self) -> &[String] {
        &self.metrics
    }

    /// Time of the newest event that ClickHouse shows in the live windows.
    pub fn newest_ms(&self) -> Option<i64> {
        self.newest_ms
    }
}

impl Minute {
    fn of(row: &TotalsRow) -> Self {
        Self {
            time_ms: row.minute_ms,
            sensors: row.sensors,
            events: row.events,
            anomalies: row.flags,
            bad: row.bad,
            late: row.late,
        }
    }
}

impl Site {
    fn of(name: &str, row: &TotalsRow, peak: u64) -> Self {
        let silent = peak.saturating_sub(row.sensors);
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let shares = Shares {
            flagged: share(row.flagged, row.sensors),
            bad: share(row.bad, row.events),
            silent: share(silent, peak),
        };
        Self {
            site: name.to_owned(),
            sensors: row.sensors,
            flagged: row.flagged,
            silent,
            events: row.events,
            anomalies: row.flags,
            bad: row.bad,
            health: Health::of(&shares),
        }
    }
}

impl Health {
    fn of(shares: &Shares) -> Self {
        let reaches = |limit: &Shares| {
            shares.flagged >= limit.flagged || shares.bad >= limit.bad || shares.silent >= limit.silent
        };
        if reaches(&ALERT) {
            Self::Alert
        } else if reaches(&WATCH) {
            Self::Watch
        } else {
            Self::Good
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn row(what: &str, minute: i64, site: &str, sensors: u64, events: u64) -> TotalsRow {
        TotalsRow {
            what: what.to_owned(),
            minute_ms: minute * MINUTE,
            site: site.to_owned(),
            sensors,
            events,
            newest_ms: minute * MINUTE + 5,
            ..TotalsRow::default()
        }
    }

    #[test]
    fn minutes_are_replaced_kept_and_forgotten() {
        let mut fleet = Fleet::new(MINUTE);
        let now = 100 * MINUTE + 30_000;
        assert_eq!(fleet.range(now, 3), (98 * MINUTE, 101 * MINUTE));
        let past: Vec<_> = (30..100).map(|minute| row("minute", minute, "", 1, 10)).collect();
        fleet.take_minutes(&past, (0, 100 * MINUTE), now);
        let kept: Vec<_> = fleet.minutes().map(|minute| minute.time_ms / MINUTE).collect();
        assert_eq!((kept.len(), kept[0]), (59, 41), "the hour, of which the open minute is still missing");
        // A minute that was there and has no row any more is gone: a gap is a gap.
        fleet.take_glance(&[row("minute", 98, "", 2, 20), row("minute", 100, "", 1, 3)], fleet.range(now, 3), now);
        let last: Vec<_> = fleet.minutes().map(|minute| (minute.time_ms / MINUTE, minute.events)).skip(57).collect();
        assert_eq!(last, [(98, 20), (100, 3)]);
        assert_eq!(fleet.newest_ms(), Some(100 * MINUTE + 5));
    }

    #[test]
    fn a_site_that_falls_silent_stays_and_is_an_alert_until_the_hour_is_over() {
        let mut fleet = Fleet::new(MINUTE);
        let glance = |fleet: &mut Fleet, minute: i64, rows: &[TotalsRow]| {
            let now = minute * MINUTE;
            fleet.take_glance(rows, fleet.range(now, LIVE_WINDOWS), now);
            fleet.sites().iter().map(|site| (site.site.clone(), site.silent, site.health)).collect::<Vec<_>>()
        };
        let both = [row("site", 0, "a", 100, 1_000), row("site", 0, "b", 10, 100)];
        assert_eq!(
            glance(&mut fleet, 100, &both),
            [("a".to_owned(), 0, Health::Good), ("b".to_owned(), 0, Health::Good)]
        );
        let one = [row("site", 0, "a", 94, 940)];
        assert_eq!(
            glance(&mut fleet, 101, &one),
            [("a".to_owned(), 6, Health::Watch), ("b".to_owned(), 10, Health::Alert)]
        );
        assert_eq!(glance(&mut fleet, 170, &one), [("a".to_owned(), 0, Health::Good)]);
        assert!(glance(&mut fleet, 400, &[]).is_empty());
    }

    #[test]
    fn health_is_the_worst_of_its_shares() {
        let site = |flagged, bad| {
            let row = TotalsRow { sensors: 100, events: 1_000, flagged, bad, ..TotalsRow::default() };
            Site::of("a", &row, 100).health
        };
        assert_eq!(site(7, 19), Health::Good);
        assert_eq!(site(8, 0), Health::Watch);
        assert_eq!(site(0, 20), Health::Watch);
        assert_eq!(site(20, 0), Health::Alert);
        assert_eq!(site(0, 100), Health::Alert);
    }
}
