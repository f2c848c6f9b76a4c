//! ClickHouse over HTTP, for reading only: one statement, its parameters, and what it may cost.
//!
//! What comes from outside travels as a query parameter (`param_<name>`), which ClickHouse binds to a typed place in the
//! statement: no text of a request ever becomes SQL. Requests are GETs, which ClickHouse runs with `readonly = 2`.

use std::error::Error as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use url::Url;

use crate::metrics::Metrics;
use crate::settings::Settings;

/// What one statement may cost at most. ClickHouse itself stops at each of these.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long it may run.
    pub time: Duration,
    /// Rows it may read.
    pub rows_to_read: u64,
    /// Rows it may answer.
    pub result_rows: u64,
}

/// For statements that a viewer waits for.
pub const FOR_A_VIEWER: Bounds = Bounds { time: Duration::from_secs(3), rows_to_read: 20_000_000, result_rows: 10_000 };

/// For the poller, which looks at all sensors.
pub const FOR_THE_POLLER: Bounds =
    Bounds { time: Duration::from_secs(10), rows_to_read: 500_000_000, result_rows: 10_000 };

/// Memory of one statement.
const MAX_MEMORY: u64 = 1 << 30;

/// How much longer than the statement the request may take.
const NETWORK_PATIENCE: Duration = Duration::from_secs(2);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// ClickHouse's numbers for limits that were reached: rows, time, memory, bytes, result rows.
const LIMIT_CODES: [u32; 5] = [158, 159, 241, 307, 396];

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueryError {
    /// Nobody answered, or nobody who is ClickHouse.
    #[error("ClickHouse does not answer: {0}")]
    Unavailable(String),
    /// The statement would have cost too much.
    #[error("that is more than one question may cost: {0}")]
    TooMuch(String),
    /// ClickHouse has something else against the statement.
    #[error("ClickHouse refuses: {0}")]
    Refused(String),
}

/// A value for a place in a statement.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameter<'a> {
    /// For `{name:String}`.
    Text(&'a str),
    /// For `{name:Int64}`.
    Integer(i64),
    /// For `{name:Float64}`.
    Float(f64),
}

impl Parameter<'_> {
    /// As ClickHouse reads it: the value of a parameter is written as in a tab-separated file.
    fn encoded(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Text(text) => {
                let mut escaped = String::with_capacity(text.len());
                for character in text.chars() {
                    match character {
                        '\\' => escaped.push_str("\\\\"),
                        '\t' => escaped.push_str("\\t"),
                        '\n' => escaped.push_str("\\n"),
                        '\r' => escaped.push_str("\\r"),
                        '\0' => escaped.push_str("\\0"),
                        '\'' => escaped.push_str("\\'"),
                        other => escaped.push(other),
                    }
                }
                escaped
            }
        }
    }
}

/// Names and values, in no order.
pub type Parameters<'a> = [(&'static str, Parameter<'a>)];

/// A client that only reads.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    http: reqwest::Client,
    url: Url,
    database: String,
    user: String,
    password: Option<crate::settings::Password>,
    metrics: Arc<Metrics>,
}

impl ClickHouse {
    /// A client; nothing is asked yet.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(2)).build()?;
        Ok(Self {
            http,
            url: settings.click_house.clone(),
            database: settings.database.clone(),
            user: settings.user.clone(),
            password: settings.password.clone(),
            metrics,
        })
    }

    /// Runs a statement and gives its rows, by the names of their columns.
    pub async fn rows<Row: DeserializeOwned>(
        &self,
        statement: &str,
        parameters: &Parameters<'_>,
        bounds: Bounds,
    ) -> Result<Vec<Row>, QueryError> {
        let started = Instant::now();
        let answer = self.ask(statement, parameters, bounds).await;
        self.metrics.queried(started.elapsed(), answer.is_ok());
        let parse = |line: &str| {
            serde_json::from_str(line)
                .map_err(|error| QueryError::Refused(format!("an answer that cannot be understood ({error})")))
        };
        answer?.lines().map(parse).collect()
    }

    async fn ask(&self, statement: &str, parameters: &Parameters<'_>, bounds: Bounds) -> Result<String, QueryError> {
        let request = self
            .http
            .get(self.url.clone())
            .timeout(bounds.time + NETWORK_PATIENCE)
            .query(&self.steering(bounds))
            .query(&[("query", statement)])
            .query(
                &parameters.iter().map(|(name, value)| (format!("param_{name}"), value.encoded())).collect::<Vec<_>>(),
            );
        let response = self.authenticated(request).send().await.map_err(unavailable)?;
        let status = response.status();
        let code = response.headers().get("X-ClickHouse-Exception-Code");
        let code = code.and_then(|code| code.to_str().ok()?.parse::<u32>().ok());
        let text = limited_text(response).await?;
        if status.is_success() && code.is_none() {
            return Ok(text);
        }
        let message: String = text.trim().chars().take(500).collect();
        Err(match code {
            Some(code) if LIMIT_CODES.contains(&code) => QueryError::TooMuch(message),
            Some(_) => QueryError::Refused(message),
            None => QueryError::Unavailable(format!("it answers {status}: {message}")),
        })
    }

    fn steering(&self, bounds: Bounds) -> Vec<(&'static str, String)> {
        vec![
            ("database", self.database.clone()),
            ("default_format", "JSONEachRow".to_owned()),
            // An error must not come behind the first half of an answer with status 200.
            ("wait_end_of_query", "1".to_owned()),
            ("max_execution_time", bounds.time.as_secs().max(1).to_string()),
            ("max_rows_to_read", bounds.rows_to_read.to_string()),
            ("max_result_rows", bounds.result_rows.to_string()),
            ("max_memory_usage", MAX_MEMORY.to_string()),
            ("output_format_json_quote_64bit_integers", "0".to_owned()),
            ("output_format_json_quote_denormals", "0".to_owned()),
            // Rows of one key lie in one partition of the table: its day is part of the key.
            ("do_not_merge_across_partitions_select_final", "1".to_owned()),
        ]
    }

    fn authenticated(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        if !self.url.username().is_empty() {
            // User info in the address becomes basic authentication; ClickHouse refuses two ways at once.
            return request;
        }
        let request = request.header("X-ClickHouse-User", &self.user);
        match &self.password {
            Some(password) => request.header("X-ClickHouse-Key", password.expose()),
            None => request,
        }
    }
}

async fn limited_text(mut response: reqwest::Response) -> Result<String, QueryError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
        if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(QueryError::TooMuch(format!("an answer of more than {MAX_ANSWER_BYTES} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    // Sensor ids are what a producer made them; one that is not UTF-8 is shown with replacement characters.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn unavailable(error: reqwest::Error) -> QueryError {
    QueryError::Unavailable(causes(error))
}

/// The error and what led to it, without addresses and what stands in them.
pub(crate) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        detail = format!("{detail}: {cause}");
        source = cause.source();
    }
    detail
}

#[cfg(test)]
mod tests;
