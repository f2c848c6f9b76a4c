//! The highest rate that is sustained: doubled until it is not, then halved in between. A rate that is not sustained is
//! tried a second time before that is believed: a cold broker or somebody else's work on the machine is not a limit.

use tokio::sync::watch;

use crate::bench::Bench;
use crate::gates::Verdict;
use crate::progress::grouped;
use crate::report::Report;
use crate::scenario::Scenario;

/// Searches, each step a run of the scenario at another rate; prints each. The exit code.
///
/// A step that is not valid ends the search upwards too, but what it has found then is a limit of the generator or of
/// Kafka, and the answer says so.
pub async fn find_max(
    bench: &Bench,
    name: &str,
    mut scenario: Scenario,
    mut search: Search,
    interrupt: watch::Receiver<bool>,
) -> anyhow::Result<u8> {
    let mut steps = Vec::new();
    let mut lowest_refusal: Option<(f64, Verdict)> = None;
    while let Some(rate) = search.next() {
        scenario.rate = rate.round();
        scenario.check(name)?;
        let report = bench.run(name, &scenario, interrupt.clone()).await?;
        if *interrupt.borrow() {
            break;
        }
        let verdict = report.verdict();
        println!("{}", line(rate, &report));
        steps.push(serde_json::json!({ "rate": rate.round(), "verdict": verdict, "figures": report.figures }));
        search.tried(rate, verdict == Verdict::Passed);
        if verdict == Verdict::Passed {
            report.write(&bench.out, "find-max-best")?;
        } else if lowest_refusal.is_none_or(|(lowest, _)| rate < lowest) {
            lowest_refusal = Some((rate, verdict));
        }
    }
    let limit = lowest_refusal.map(|(_, verdict)| verdict);
    let answer = serde_json::json!({
        "kind": "kappa-load-find-max", "scenario": scenario, "sustained": search.sustained(),
        "refused": search.refused(), "refused_as": limit, "steps": steps,
    });
    let path = bench.write_json("find-max.json", &answer)?;
    let beyond = match (search.refused(), limit) {
        (Some(high), Some(Verdict::NotValid)) => {
            format!("{} is not valid: there the generator or Kafka is the limit, not the pipeline", grouped(high))
        }
        (Some(high), _) => format!("{} is too much", grouped(high)),
        (None, _) => "no more was tried".to_owned(),
    };
    match search.sustained() {
        Some(low) => println!("sustained: {} events/s; {beyond}", grouped(low)),
        None => println!("nothing was sustained; {beyond}"),
    }
    println!("{}", path.display());
    Ok(u8::from(search.sustained().is_none()))
}

fn line(rate: f64, report: &Report) -> String {
    let failed: Vec<&str> = report.failed_gates().collect();
    let why = if failed.is_empty() { String::new() } else { format!(" ({})", failed.join(", ")) };
    format!(
        "{:>10} events/s: {}{why}; p99 {:.0} ms, lag {:+.0} records/s, slips {:.3} %, waiting for Kafka {:.0} ms, kappa {:.2} cores",
        grouped(rate),
        report.verdict().text(),
        report.figure("latency_p99_ms"),
        report.figure("lag_growth_per_second"),
        report.figure("slipped_share"),
        report.figure("kafka_waiting_p90_ms"),
        report.figure("kappa_cpu_cores"),
    )
}

/// The search. Rates are events a second.
#[derive(Debug, Clone)]
pub struct Search {
    to: f64,
    /// How close the two ends must be, as a share of the lower.
    precision: f64,
    sustained: Option<f64>,
    refused: Option<f64>,
    next: f64,
    /// Whether `next` has been tried once already.
    is_second_try: bool,
}

impl Search {
    /// From a rate that should be easy, to one that is enough.
    pub fn new(from: f64, to: f64, precision: f64) -> Self {
        Self { to, precision, sustained: None, refused: None, next: from.min(to), is_second_try: false }
    }

    /// The rate to try next; `None` when it is found.
    pub fn next(&self) -> Option<f64> {
        if let (Some(low), Some(high)) = (self.sustained, self.refused) {
            return ((high - low) / low > self.precision).then_some(self.next);
        }
        // All that was asked for is sustained; or so little is refused that it is not worth looking on.
        let is_over = self.sustained.is_some_and(|low| low >= self.to) || self.next < 1.0;
        (!is_over).then_some(self.next)
    }

    /// What came of the rate that was tried.
    pub fn tried(&mut self, rate: f64, is_sustained: bool) {
        self.is_second_try = !is_sustained && !self.is_second_try;
        if self.is_second_try {
            return;
        }
        if is_sustained {
            self.sustained = Some(self.sustained.map_or(rate, |low| low.max(rate)));
        } else {
            self.refused = Some(self.refused.map_or(rate, |high| high.min(rate)));
        }
        self.next = match (self.sustained, self.refused) {
            (Some(low), Some(high)) => f64::midpoint(low, high),
            (Some(low), None) => (low * 2.0).min(self.to),
            (None, Some(high)) => high / 2.0,
            (None, None) => self.next,
        };
    }

    /// The highest rate that was sustained.
    pub fn sustained(&self) -> Option<f64> {
        self.sustained
    }

    /// The lowest rate that was not.
    pub fn refused(&self) -> Option<f64> {
        self.refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(limit: f64, from: f64, to: f64) -> (Search, Vec<f64>) {
        let mut search = Search::new(from, to, 0.1);
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            tried.push(rate);
            search.tried(rate, rate <= limit);
            assert!(tried.len() < 80, "{tried:?}");
        }
        (search, tried)
    }

    #[test]
    fn doubles_then_bisects() {
        let (found, mut tried) = search(130_000.0, 25_000.0, 800_000.0);
        assert_eq!(tried.len(), 7 + 3, "each of the three that are too much twice: {tried:?}");
        tried.dedup();
        assert_eq!(tried, [25_000.0, 50_000.0, 100_000.0, 200_000.0, 150_000.0, 125_000.0, 137_500.0]);
        assert_eq!((found.sustained(), found.refused()), (Some(125_000.0), Some(137_500.0)));
    }

    #[test]
    fn looks_below_when_the_first_is_too_much_and_stops_at_the_end() {
        let (found, tried) = search(30_000.0, 100_000.0, 800_000.0);
        assert_eq!(&tried[..5], [100_000.0, 100_000.0, 50_000.0, 50_000.0, 25_000.0]);
        assert!((27_000.0..=30_000.0).contains(&found.sustained().unwrap()));
        let (found, tried) = search(f64::INFINITY, 100_000.0, 300_000.0);
        assert_eq!((tried, found.refused()), (vec![100_000.0, 200_000.0, 300_000.0], None));
        let (found, _) = search(0.0, 8.0, 16.0);
        assert_eq!(found.sustained(), None);
    }

    #[test]
    fn a_bad_moment_is_not_a_limit() {
        let mut search = Search::new(100.0, 200.0, 0.1);
        search.tried(100.0, false);
        assert_eq!((search.next(), search.refused()), (Some(100.0), None));
        search.tried(100.0, true);
        assert_eq!((search.next(), search.sustained(), search.refused()), (Some(200.0), Some(100.0), None));
        search.tried(200.0, false);
        search.tried(200.0, false);
        assert_eq!(search.refused(), Some(200.0));
    }
}
