//! ClickHouse over HTTP: statements that a person waits for, and inserts.

use std::error::Error as _;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;

use crate::config::{HotStoreConfig, Secret};

/// For how long the answer to [`ClickHouseHttp::fetch`] is awaited.
const LONG_QUERY: Duration = Duration::from_mins(30);

/// Why a statement gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClickHouseError {
    /// Nobody answered, or nobody who is ClickHouse.
    #[error("ClickHouse at {url} does not answer: {detail}")]
    Unavailable {
        /// Where it should be.
        url: String,
        /// What happened instead.
        detail: String,
    },
    /// ClickHouse refused the statement.
    #[error("ClickHouse refuses: {message}")]
    Refused {
        /// ClickHouse's number for the error.
        code: Option<u32>,
        /// ClickHouse's words.
        message: String,
    },
}

impl ClickHouseError {
    /// Wrong password (516), unknown user (192) or missing right (497).
    pub fn is_about_access(&self) -> bool {
        matches!(self, Self::Refused { code: Some(192 | 193 | 194 | 497 | 516), .. })
    }
}

/// A client for one user.
#[derive(Debug)]
pub struct ClickHouseHttp {
    http: reqwest::Client,
    url: url::Url,
    shown_url: String,
    user: String,
    password: Option<Secret>,
}

impl ClickHouseHttp {
    /// A client; nothing is asked yet.
    pub fn new(config: &HotStoreConfig) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(3))
            .timeout(Duration::from_mins(1))
            .build()
            .context("cannot make an HTTP client")?;
        Ok(Self {
            http,
            url: config.url.as_url().clone(),
            shown_url: config.url.to_string(),
            user: config.user.clone(),
            password: config.password()?,
        })
    }

    /// Runs one statement and gives its answer, without the last line break.
    pub async fn execute(&self, statement: &str) -> Result<String, ClickHouseError> {
        // An error must not come behind the first half of an answer with status 200.
        let request = self.http.post(self.url.clone()).query(&[("wait_end_of_query", "1")]).body(statement.to_owned());
        self.answer_to(request).await
    }

    /// Runs a query that may take long and gives its answer as it is: for rows in a binary format.
    pub async fn fetch(&self, query: &str) -> Result<Bytes, ClickHouseError> {
        let request = self.http.post(self.url.clone()).query(&[("wait_end_of_query", "1")]).body(query.to_owned());
        let response = self.accepted(request.timeout(LONG_QUERY)).await?;
        response.bytes().await.map_err(|error| self.unavailable(error))
    }

    /// Inserts rows by `statement`, which ends with the name of their format. The answer comes when they are written:
    /// as durably as the tables' settings ask for.
    pub async fn insert(&self, statement: &str, rows: Bytes) -> Result<(), ClickHouseError> {
        // Rows of one key become one when parts are merged and when they are read; merging them here too costs a fifth of
        // an insert, and hardly ever finds any.
        let settings = [("query", statement), ("async_insert", "0"), ("optimize_on_insert", "0")];
        let request = self.http.post(self.url.clone()).query(&settings).body(rows);
        self.answer_to(request).await.map(drop)
    }

    async fn answer_to(&self, request: reqwest::RequestBuilder) -> Result<String, ClickHouseError> {
        let response = self.accepted(request).await?;
        let text = response.text().await.map_err(|error| self.unavailable(error))?;
        Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
    }

    /// Sends a request; what comes back is an answer, not an error.
    async fn accepted(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClickHouseError> {
        let response = self.authenticated(request).send().await.map_err(|error| self.unavailable(error))?;
        let status = response.status();
        let code =
            response.headers().get("X-ClickHouse-Exception-Code").and_then(|code| code.to_str().ok()?.parse().ok());
        if status.is_success() && code.is_none() {
            // Whoever else answers "200 OK" (a load balancer's page, a wrong port) has not written anything.
            if response.headers().keys().any(|name| name.as_str().starts_with("x-clickhouse-")) {
                return Ok(response);
            }
            return Err(self.unavailable_because(format!("it answers {status}, but not as ClickHouse does")));
        }
        let text = response.text().await.map_err(|error| self.unavailable(error))?;
        let message = text.trim().to_owned();
        let code = code.or_else(|| code_in(&message));
        if code.is_none() {
            return Err(self.unavailable_because(format!("it answers {status}: {message}")));
        }
        Err(ClickHouseError::Refused { code, message })
    }

    /// Runs a query and gives its rows, cut at tabs: for numbers and plain names.
    pub async fn rows(&self, query: &str) -> Result<Vec<Vec<String>>, ClickHouseError> {
        let text = self.execute(&format!("{query} FORMAT TabSeparated")).await?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
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

    fn unavailable(&self, error: reqwest::Error) -> ClickHouseError {
        let error = error.without_url();
        let mut detail = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            detail = format!("{detail}: {cause}");
            source = cause.source();
        }
        self.unavailable_because(detail)
    }

    fn unavailable_because(&self, detail: String) -> ClickHouseError {
        ClickHouseError::Unavailable { url: self.shown_url.clone(), detail }
    }
}

/// `Code: 60. DB::Exception: ...`
fn code_in(message: &str) -> Option<u32> {
    message.strip_prefix("Code: ")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use axum::Router;

    use super::*;
    use crate::config::{Needs, Sources};

    #[tokio::test]
    async fn an_acknowledgement_of_somebody_else_is_none() {
        let app = Router::new().fallback(async || "<title>Welcome");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let loaded = Sources::default().with_flag("hot_store.url", &url, "test").load(Needs::HotStore);
        let clickhouse = ClickHouseHttp::new(&loaded.unwrap().config.hot_store).unwrap();
        let error = clickhouse.insert("INSERT INTO t FORMAT RowBinary", Bytes::from_static(b"x")).await.unwrap_err();
        assert!(error.to_string().contains("not as ClickHouse does"), "{error}");
    }
}
