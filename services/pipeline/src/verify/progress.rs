//! What a person sees while it runs: a bar on a terminal, a line now and then in a log.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::report::grouped;

/// In a log there is a line each so often.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Records gone through, of those that are to be.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    done: AtomicU64,
    of: AtomicU64,
    started: Instant,
    next_line: Mutex<Instant>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            let template = "{bar:24} {percent:>3} %  {human_pos} of {human_len} records, {per_sec}, {eta} left  {msg}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        let started = Instant::now();
        let next_line = Mutex::new(started + BETWEEN_LINES);
        Self { bar, done: AtomicU64::new(0), of: AtomicU64::new(0), started, next_line }
    }

    /// What is being done.
    pub(crate) fn phase(&self, what: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(what.to_owned()),
            None => self.line(what),
        }
    }

    /// So many more records are to be gone through.
    pub(crate) fn expect(&self, records: u64) {
        let of = self.of.fetch_add(records, Ordering::Relaxed) + records;
        if let Some(bar) = &self.bar {
            bar.set_length(of);
        }
    }

    /// So many more were.
    pub(crate) fn done(&self, records: u64) {
        let done = self.done.fetch_add(records, Ordering::Relaxed) + records;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let mut next_line = self.next_line.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() >= *next_line {
            *next_line = Instant::now() + BETWEEN_LINES;
            drop(next_line);
            let of = self.of.load(Ordering::Relaxed);
            self.line(&format!("{} of {} records", grouped(done), grouped(of)));
        }
    }

    fn line(&self, what: &str) {
        // There is nowhere left to say that standard error is closed.
        _ = writeln!(std::io::stderr(), "{:>5} s  {what}", self.started.elapsed().as_secs());
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
