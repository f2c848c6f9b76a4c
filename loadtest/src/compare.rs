//! Two runs beside each other: each figure with its change.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::measured::{Better, Figure};

/// Changes below this share are noise on most machines.
const NOISE: f64 = 0.05;

#[derive(Deserialize)]
struct Baseline {
    figures: Vec<Figure>,
}

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The figure.
    pub name: String,
    /// Of the baseline, if it was measured.
    pub before: Option<f64>,
    /// Of this run, if it was measured.
    pub now: Option<f64>,
    /// Its unit.
    pub unit: String,
    /// Change in percent; none from or to nothing.
    pub percent: Option<f64>,
    /// `better`, `worse`, or nothing where it is neither or small.
    pub judgement: &'static str,
}

/// The figures of a report.
pub fn read_figures(path: &Path) -> anyhow::Result<Vec<Figure>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let baseline: Baseline = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a report: name the report.json of an earlier run", path.display()))?;
    Ok(baseline.figures)
}

/// Every figure of both.
pub fn compare(before: &[Figure], now: &[Figure]) -> Vec<Change> {
    let find =
        |figures: &[Figure], name: &str| figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
    let mut changes: Vec<Change> =
        now.iter().map(|figure| change(figure, find(before, &figure.name), Some(figure.value))).collect();
    let gone = before.iter().filter(|figure| find(now, &figure.name).is_none());
    changes.extend(gone.map(|figure| change(figure, Some(figure.value), None)));
    changes
}

fn change(figure: &Figure, before: Option<f64>, now: Option<f64>) -> Change {
    let share = match (before, now) {
        (Some(before), Some(now)) if before != 0.0 => Some((now - before) / before.abs()),
        _ => None,
    };
    let judgement = match (share, figure.better) {
        (Some(share), Better::Lower) if share.abs() >= NOISE => {
            if share < 0.0 {
                "better"
            } else {
                "worse"
            }
        }
        (Some(share), Better::Higher) if share.abs() >= NOISE => {
            if share > 0.0 {
                "better"
            } else {
                "worse"
            }
        }
        _ => "",
    };
    Change {
        name: figure.name.clone(),
        before,
        now,
        unit: figure.unit.clone(),
        percent: share.map(|share| share * 100.0),
        judgement,
    }
}

/// As a table.
pub fn table(changes: &[Change]) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    let mut lines = vec![format!("{:<44} {:>16} {:>16} {:>9}", "figure", "baseline", "now", "change")];
    for change in changes {
        let percent = change.percent.map_or("-".to_owned(), |percent| format!("{percent:+.1} %"));
        lines.push(format!(
            "{:<44} {:>16} {:>16} {:>9}  {} {}",
            change.name,
            number(change.before),
            number(change.now),
            percent,
            change.unit,
            change.judgement
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, value: f64, better: Better) -> Figure {
        Figure { name: name.to_owned(), value, unit: "ms".to_owned(), better }
    }

    #[test]
    fn changes_are_in_percent_and_judged_by_direction() {
        let before = [
            figure("latency", 100.0, Better::Lower),
            figure("rate", 100.0, Better::Higher),
            figure("lag", 0.0, Better::Lower),
            figure("gone", 1.0, Better::Lower),
            figure("events", 10.0, Better::Neither),
        ];
        let now = [
            figure("latency", 150.0, Better::Lower),
            figure("rate", 96.0, Better::Higher),
            figure("lag", 5.0, Better::Lower),
            figure("new", 1.0, Better::Lower),
            figure("events", 20.0, Better::Neither),
        ];
        let changes = compare(&before, &now);
        let of = |name: &str| changes.iter().find(|change| change.name == name).unwrap();
        assert_eq!((of("latency").percent, of("latency").judgement), (Some(50.0), "worse"));
        assert_eq!((of("rate").percent, of("rate").judgement), (Some(-4.0), ""));
        assert_eq!((of("lag").percent, of("gone").now, of("new").before), (None, None, None));
        assert_eq!((of("events").percent, of("events").judgement), (Some(100.0), ""));
        let table = table(&changes);
        assert!(table.contains("+50.0 %") && table.lines().count() == 7, "{table}");
    }

    #[test]
    fn a_baseline_is_a_report() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        let figures = vec![figure("rate", 1.0, Better::Higher)];
        std::fs::write(&path, serde_json::json!({ "kind": "kappa-load", "figures": figures }).to_string()).unwrap();
        assert_eq!(read_figures(&path).unwrap(), figures);
        std::fs::write(&path, "{}").unwrap();
        assert!(read_figures(&path).unwrap_err().to_string().contains("report.json"));
        assert!(read_figures(Path::new("/nowhere.json")).unwrap_err().to_string().contains("/nowhere.json"));
    }
}
