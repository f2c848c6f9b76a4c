//! What a billion events cost, from the figures of a report and a file of prices.

use std::path::Path;

use anyhow::Context as _;
use figment::Figment;
use figment::providers::{Format as _, Toml};
use serde::{Deserialize, Serialize};

use crate::measured::Figure;

const LIST_PRICES: &str = include_str!("../prices.toml");

const MILLIONS: f64 = 1_000.0;
const GIB: f64 = 1_073_741_824.0;

/// US dollars; what each means stands in `loadtest/prices.toml`.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    core_hour: f64,
    utilization: f64,
    thousand_puts: f64,
    gib_month: f64,
    months_kept: f64,
}

/// One line of the bill for a billion events.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Position {
    /// What is paid for.
    pub what: &'static str,
    /// How much of it.
    pub amount: f64,
    /// In which unit.
    pub unit: &'static str,
    /// US dollars.
    pub dollars: f64,
}

impl Prices {
    /// From a file, or the list prices.
    pub fn load(file: Option<&Path>) -> anyhow::Result<Self> {
        let (name, text) = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
                (path.display().to_string(), text)
            }
            None => ("the list prices".to_owned(), LIST_PRICES.to_owned()),
        };
        let prices: Self =
            Figment::from(Toml::string(&text)).extract().with_context(|| format!("{name}: not a file of prices"))?;
        anyhow::ensure!(
            prices.utilization > 0.0 && prices.utilization <= 1.0,
            "{name}: utilization = {} must be above 0 and at most 1",
            prices.utilization
        );
        Ok(prices)
    }
}

/// The bill. What a report has no figures for is not on it.
pub fn bill(figures: &[Figure], prices: &Prices) -> Vec<Position> {
    let figure = |name: &str| figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
    let core_hours = |process: &str| {
        let seconds = figure(&format!("{process}_cpu_seconds_per_million"))?;
        Some(seconds * MILLIONS / 3_600.0 / prices.utilization)
    };
    let objects = |place: &str| figure(&format!("s3_{place}_objects_per_million"));
    let puts: Option<f64> = ["archive", "dead_letters", "state"].into_iter().map(objects).sum();
    let archived_gib = figure("s3_archive_bytes_per_event").map(|bytes| bytes * 1e9 / GIB);
    let position = |what, amount: Option<f64>, unit, price: f64| {
        amount.map(|amount| Position { what, amount, unit, dollars: amount * price })
    };
    [
        position("the pipeline", core_hours("kappa"), "core hours", prices.core_hour),
        position("ClickHouse's inserts and merges", core_hours("clickhouse"), "core hours", prices.core_hour),
        position("Kafka's broker", core_hours("kafka"), "core hours", prices.core_hour),
        position("objects written", puts.map(|puts| puts * MILLIONS), "requests", prices.thousand_puts / 1_000.0),
        position("the archive", archived_gib.map(|gib| gib * prices.months_kept), "GiB months", prices.gib_month),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The bill as a table.
pub fn table(bill: &[Position]) -> String {
    let mut lines: Vec<String> = bill
        .iter()
        .map(|line| format!("{:<34}{:>12.2} {:<12}{:>9.2} $", line.what, line.amount, line.unit, line.dollars))
        .collect();
    let sum: f64 = bill.iter().map(|line| line.dollars).sum();
    lines.push(format!("{:<59}{sum:>9.2} $", "a billion events"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measured::Better;

    fn figure(name: &str, value: f64) -> Figure {
        Figure { name: name.to_owned(), value, unit: String::new(), better: Better::Neither }
    }

    #[test]
    fn a_billion_events_are_reckoned_from_what_a_million_took() {
        let prices =
            Prices { core_hour: 0.04, utilization: 0.5, thousand_puts: 0.005, gib_month: 0.02, months_kept: 10.0 };
        let figures = [
            figure("kappa_cpu_seconds_per_million", 3.6),
            figure("s3_archive_objects_per_million", 1.0),
            figure("s3_dead_letters_objects_per_million", 0.0),
            figure("s3_state_objects_per_million", 3.0),
            figure("s3_archive_bytes_per_event", GIB / 1e9 * 5.0),
        ];
        let bill = bill(&figures, &prices);
        // 3.6 s a million are an hour a billion, on a core that is half busy two.
        let dollars: Vec<f64> = bill.iter().map(|line| (line.dollars * 1e6).round() / 1e6).collect();
        assert_eq!(dollars, [0.08, 0.02, 1.0]);
        assert!(table(&bill).ends_with("1.10 $"), "{}", table(&bill));
    }

    #[test]
    fn the_list_prices_are_complete_and_wrong_ones_are_refused() {
        assert!(Prices::load(None).is_ok());
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("prices.toml");
        std::fs::write(&file, LIST_PRICES.replace("utilization = 0.5", "utilization = 0")).unwrap();
        assert!(Prices::load(Some(&file)).unwrap_err().to_string().contains("utilization = 0 must be"));
        std::fs::write(&file, "core_hours = 1").unwrap();
        assert!(format!("{:#}", Prices::load(Some(&file)).unwrap_err()).contains("core_hours"));
    }
}
