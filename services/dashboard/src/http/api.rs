//! Answers that are made for one viewer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::{Deserialize, Serialize};
use tokio::sync::SemaphorePermit;

use super::{ApiError, Shared};
use crate::anomalies::{self, Filter, Found};
use crate::click_house::{FOR_A_VIEWER, Parameter};
use crate::inputs::Inputs;
use crate::poller::{PipelineRejects, now_ms};
use crate::series::{self, Series};
use crate::settings::{MAX_FOUND, QUEUE_PATIENCE};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A sensor that was found.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct FoundSensor {
    sensor: String,
    site: String,
}

#[derive(Debug, Serialize)]
pub(super) struct FoundSensors {
    sensors: Vec<FoundSensor>,
    truncated: bool,
}

impl Shared {
    /// Waits for a place, not for long.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        if let Ok(Ok(permit)) = tokio::time::timeout(QUEUE_PATIENCE, self.questions.acquire()).await {
            return Ok(permit);
        }
        self.metrics.refused();
        Err(ApiError::Busy("too many questions at once; ask again in a moment".to_owned()))
    }

    fn inputs(&self, query: &RawQuery, known: &[&str]) -> Result<Inputs, ApiError> {
        Ok(self.checked(Inputs::read(query.0.as_deref(), known))?)
    }

    /// Counts what is refused.
    fn checked<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            self.metrics.refused();
        }
        result
    }
}

/// `?q=`: sensors with this text in their name, those that begin with it first.
pub(super) async fn sensors(
    State(shared): State<Arc<Shared>>,
    query: RawQuery,
) -> Result<Json<FoundSensors>, ApiError> {
    let inputs = shared.inputs(&query, &["q"])?;
    let text = shared.checked(inputs.name("q"))?.unwrap_or_default();
    let _turn = shared.turn().await?;
    // An empty text is in every name: the first sensors by name.
    let parameters = [("text", Parameter::Text(text))];
    let mut sensors: Vec<FoundSensor> =
        shared.click_house.rows(&shared.statements.search, &parameters, FOR_A_VIEWER).await?;
    let truncated = sensors.len() > MAX_FOUND;
    sensors.truncate(MAX_FOUND);
    Ok(Json(FoundSensors { sensors, truncated }))
}

/// `?sensor=&metric=&from=&to=`: a chart's columns.
pub(super) async fn series(State(shared): State<Arc<Shared>>, query: RawQuery) -> Result<Json<Series>, ApiError> {
    let inputs = shared.inputs(&query, &["sensor", "metric", "from", "to"])?;
    let sensor = shared.checked(inputs.needed_name("sensor"))?;
    let metric = shared.checked(inputs.name("metric"))?;
    let range = shared.checked(inputs.range(now_ms(), HOUR_MS))?;
    let _turn = shared.turn().await?;
    let found =
        series::look_up(&shared.click_house, &shared.statements, sensor, metric, range, shared.window_ms).await?;
    found.map(Json).ok_or_else(|| {
        ApiError::NotFound(match metric {
            Some(metric) => format!("nothing was ever measured by a sensor {sensor:?} with the metric {metric:?}"),
            None => format!("nothing was ever measured by a sensor {sensor:?}"),
        })
    })
}

/// `?metric=&kind=&site=&min_score=&from=&to=&limit=`: anomalies, newest first.
pub(super) async fn anomalies(State(shared): State<Arc<Shared>>, query: RawQuery) -> Result<Json<Found>, ApiError> {
    let inputs = shared.inputs(&query, &["metric", "kind", "site", "min_score", "from", "to", "limit"])?;
    let name = |name| shared.checked(inputs.name(name)).map(Option::unwrap_or_default);
    let filter = Filter {
        metric: name("metric")?,
        kind: name("kind")?,
        site: name("site")?,
        min_score: shared.checked(inputs.min_score())?,
        limit: shared.checked(inputs.limit())?,
    };
    // Sensors may be some minutes ahead of this clock.
    let range = shared.checked(inputs.range(now_ms() + HOUR_MS, DAY_MS))?;
    let _turn = shared.turn().await?;
    Ok(Json(anomalies::find(&shared.click_house, &shared.statements, range, &filter).await?))
}

/// The newest refused records of each pipeline, from memory.
pub(super) async fn dead_letters(State(shared): State<Arc<Shared>>) -> Json<Vec<PipelineRejects>> {
    Json(shared.feeds.rejects.borrow().to_vec())
}
