//! Anomalies by filters, newest first.

use serde::{Deserialize, Serialize};

use crate::click_house::{ClickHouse, FOR_A_VIEWER, Parameter, QueryError};
use crate::inputs::Range;
use crate::statements::Statements;

/// How far back is looked, step by step, until there are enough: most lists are full after the first.
const STEPS_MS: [i64; 4] = [15 * 60_000, 2 * 3_600_000, 24 * 3_600_000, i64::MAX];

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
    let mut anomalies: Vec<Anomaly> = Vec::new();
    for step in STEPS_MS {
        let from_ms = range.from_ms.max(range.to_ms.saturating_sub(step));
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
        anomalies = click_house.rows(&statements.anomalies, &parameters, FOR_A_VIEWER).await?;
        if anomalies.len() > filter.limit || from_ms == range.from_ms {
            break;
        }
    }
    let truncated = anomalies.len() > filter.limit;
    anomalies.truncate(filter.limit);
    let oldest_ms = anomalies.last().map_or(range.from_ms, |anomaly| anomaly.time_ms);
    let from_ms = if truncated { oldest_ms } else { range.from_ms };
    Ok(Found { anomalies, from_ms, to_ms: range.to_ms, truncated })
}
