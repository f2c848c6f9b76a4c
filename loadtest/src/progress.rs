//! What a person sees while it runs: a living line on a terminal, now and then a line in a log.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::canary::Arrival;
use crate::statistics::quantile;
use crate::timeline::Sample;

/// In a log there is a line each so many seconds.
const SECONDS_A_LINE: u64 = 15;

/// Progress of one run.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    seconds: u64,
    /// The second of the last line in a log.
    last_line: Cell<u64>,
}

impl Progress {
    /// For a schedule of this length.
    pub fn new(duration: Duration) -> Self {
        let seconds = duration.as_secs();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(seconds);
            let style = ProgressStyle::with_template("{bar:24} {pos:>4}/{len} s  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, seconds, last_line: Cell::new(0) }
    }

    /// A sentence that stays.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => say(text),
        }
    }

    /// The state of things.
    pub fn show(&self, now: &Sample, before: Option<&Sample>, latest: &[Arrival], slipped: u64) {
        let seconds = now.at as u64;
        let line = line(now, before, latest, slipped);
        match &self.bar {
            Some(bar) => {
                bar.set_position(seconds.min(self.seconds));
                bar.set_message(line);
            }
            None if seconds >= self.last_line.get() + SECONDS_A_LINE => {
                self.last_line.set(seconds);
                say(&format!("{seconds:>5} s  {line}"));
            }
            None => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(now: &Sample, before: Option<&Sample>, latest: &[Arrival], slipped: u64) -> String {
    let rate = before.map_or(0.0, |before| (now.sent - before.sent) as f64 / (now.at - before.at).max(1e-3));
    let latencies: Vec<f64> = latest.iter().map(|arrival| arrival.latency_us as f64 / 1e6).collect();
    let silent = if now.has_answered { "" } else { ", the pipeline is silent" };
    format!(
        "{}/s sent, lag {} records, p99 {:.2} s, {} slipped{silent}",
        grouped(rate),
        grouped(now.lag_records),
        quantile(&latencies, 0.99),
        grouped(slipped as f64)
    )
}

/// A sentence on standard error.
pub fn say(text: &str) {
    // There is nowhere left to say that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A whole number with its thousands apart.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0.0 && digits != "0" { format!("-{out}") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0.0, "0"), (999.4, "999"), (1_000.0, "1,000"), (-12_345_678.0, "-12,345,678")] {
            assert_eq!(grouped(number), text);
        }
    }
}
