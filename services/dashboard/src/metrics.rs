//! What the server counts about itself, for `/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Counters. They belong to one server: several may run in one process.
#[derive(Debug, Default)]
pub struct Metrics {
    queries: AtomicU64,
    query_failures: AtomicU64,
    query_micros: AtomicU64,
    refused: AtomicU64,
    viewers: AtomicI64,
    frames: AtomicU64,
    /// 1 or 0; -1 before the first answer.
    click_house_up: AtomicI64,
}

impl Metrics {
    pub(crate) fn queried(&self, took: Duration, answered: bool) {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.query_micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
        self.query_failures.fetch_add(u64::from(!answered), Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn viewers(&self, by: i64) {
        self.viewers.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn frame(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn click_house_is_up(&self, up: bool) {
        self.click_house_up.store(i64::from(up), Ordering::Relaxed);
    }

    /// Statements that were sent to ClickHouse.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        let seconds = self.query_micros.load(Ordering::Relaxed) as f64 / 1e6;
        let rows = [
            ("kappa_dashboard_queries_total", "counter", "Statements sent to ClickHouse", load(&self.queries)),
            ("kappa_dashboard_query_failures_total", "counter", "Those without an answer", load(&self.query_failures)),
            ("kappa_dashboard_query_seconds_total", "counter", "Time that they took", seconds.to_string()),
            (
                "kappa_dashboard_requests_refused_total",
                "counter",
                "Requests that were not valid, or too many",
                load(&self.refused),
            ),
            ("kappa_dashboard_frames_total", "counter", "Frames made for all viewers together", load(&self.frames)),
            (
                "kappa_dashboard_viewers",
                "gauge",
                "Open event streams",
                self.viewers.load(Ordering::Relaxed).to_string(),
            ),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in rows {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        let up = self.click_house_up.load(Ordering::Relaxed);
        if up >= 0 || self.queries() > 0 {
            let name = "kappa_dashboard_clickhouse_up";
            let _ = write!(
                text,
                "# HELP {name} Whether ClickHouse answered the last question\n# TYPE {name} gauge\n{name} {}\n",
                up.max(0)
            );
        }
        text
    }
}
