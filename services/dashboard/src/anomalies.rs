//! Anomalies by filters, newest first.

use serde::{Deserialize, Serialize};

use crate::click_house::{ClickHouse, FOR_A_VIEWER, Parameter, QueryError};
use crate::inputs::Range;
use crate::statements::Statements;

/// How far back is looked at first: most lists are full with that.
const FIRST_STEP_MS: i64 = 15 * 60_000;
/// The same for one site, which has few of all anomalies: a second look costs more than a longer first one.
const FIRST_STEP_OF_A_SITE_MS: i64 = 8 * 3_600_000;

/// How many times as far is looked next, going by how many were found, with room for a rate that varies.
const LEAST_FACTOR: i64 = 8;
const ROOM: i64 = 2;

/// One flagged event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Of which sensor.
    pub sensor: String,
    /// Of which of its metrics.
    pub metric: String,
    /// Where it stands; empty where nobody says.
    pub site: String,
    /// Event time.
    pub time_ms: i64,
    /// The measured value.
    pub value: Option<f64>,
    /// What was expected; null where that is no number.
    pub expected: Option<f64>,
    /// Minus the decimal logarithm of a tail probability.
    pub score: Option<f64>,
    /// Of what kind.
    pub kind: String,
    /// Where it is in the log.
    pub partition: i32,
    /// Where it is in the partition.
    pub offset: i64,
}

/// Which anomalies are wanted; empty texts mean any.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// A metric.
    pub metric: &'a str,
    /// A kind.
    pub kind: &'a str,
    /// A site.
    pub site: &'a str,
    /// At least this score.
    pub min_score: f64,
    /// At most so many.
    pub limit: usize,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Found {
    /// Newest first.
    pub anomalies: Vec<Anomaly>,
    /// Since when all are listed: later than asked for if there were too many.
    pub from_ms: i64,
    /// Until when.
    pub to_ms: i64,
    /// Whether there are more, older ones.
    pub truncated: bool,
}

/// Finds them.
pub async fn find(
    click_house: &ClickHouse,
    statements: &Statements,
    range: Range,
    filter: &Filter<'_>,
) -> Result<Found, QueryError> {
    let mut step_ms = if filter.site.is_empty() { FIRST_STEP_MS } else { FIRST_STEP_OF_A_SITE_MS };
    let mut anomalies: Vec<Anomaly> = loop {
        let from_ms = range.from_ms.max(range.to_ms.saturating_sub(step_ms));
        let parameters = [
            ("from", Parameter::Integer(from_ms)),
            ("to", Parameter::Integer(range.to_ms)),
            ("min_score", Parameter::Float(filter.min_score)),
            ("metric", Parameter::Text(filter.metric)),
            ("kind", Parameter::Text(filter.kind)),
            ("site", Parameter::Text(filter.site)),
            // One more, to know whether there are more.
            ("limit", Parameter::Integer(filter.limit as i64 + 1)),
        ];
        let found: Vec<Anomaly> = click_house.rows(&statements.anomalies, &parameters, FOR_A_VIEWER).await?;
        if found.len() > filter.limit || from_ms == range.from_ms {
            break found;
        }
        step_ms = next_step(step_ms, found.len(), filter.limit);
    };
    let truncated = anomalies.len() > filter.limit;
    anomalies.truncate(filter.limit);
    let oldest_ms = anomalies.last().map_or(range.from_ms, |anomaly| anomaly.time_ms);
    let from_ms = if truncated { oldest_ms } else { range.from_ms };
    Ok(Found { anomalies, from_ms, to_ms: range.to_ms, truncated })
}

/// How far back to look when `found` within `step_ms` are fewer than `limit`.
fn next_step(step_ms: i64, found: usize, limit: usize) -> i64 {
    if found == 0 {
        return i64::MAX;
    }
    let factor = (limit / found) as i64 * ROOM;
    step_ms.saturating_mul(factor.max(LEAST_FACTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_goes_by_what_was_found_and_always_farther() {
        assert_eq!(next_step(100, 0, 300), i64::MAX);
        assert_eq!(next_step(100, 10, 300), 100 * 60);
        assert_eq!(next_step(100, 299, 300), 100 * LEAST_FACTOR);
        assert_eq!(next_step(i64::MAX / 2, 1, 500), i64::MAX);
    }
}
