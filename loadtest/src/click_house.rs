//! Questions to ClickHouse, as a user asks them.

use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::target::HotStore;

/// After this long without an answer a question has failed.
const TIMEOUT: Duration = Duration::from_mins(2);

/// A connection to the hot store. Clones share it.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    client: reqwest::Client,
    store: HotStore,
}

impl ClickHouse {
    /// Connects at the first question.
    pub fn new(store: &HotStore) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().context("cannot make an HTTP client")?;
        Ok(Self { client, store: store.clone() })
    }

    /// The database.
    pub fn database(&self) -> &str {
        &self.store.database
    }

    /// The rows of an answer, each a list of fields. The question must not end with a FORMAT.
    pub async fn rows(&self, sql: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let text = self.text(&format!("{sql} FORMAT TabSeparated")).await?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// The first field of the first row, as a number.
    pub async fn number(&self, sql: &str) -> anyhow::Result<f64> {
        let rows = self.rows(sql).await?;
        let field = rows.first().and_then(|row| row.first()).with_context(|| format!("no answer to: {sql}"))?;
        field.parse().with_context(|| format!("not a number, {field}: {sql}"))
    }

    async fn text(&self, sql: &str) -> anyhow::Result<String> {
        let mut request = self.client.post(self.store.url.clone()).body(sql.to_owned());
        if self.store.url.username().is_empty() {
            request = request.header("X-ClickHouse-User", &self.store.user);
        }
        if let Some(password) = &self.store.password {
            request = request.header("X-ClickHouse-Key", password);
        }
        let answer = request.send().await.map_err(reqwest::Error::without_url).context("ClickHouse does not answer")?;
        let status = answer.status();
        let has_failed = !status.is_success() || answer.headers().contains_key("X-ClickHouse-Exception-Code");
        let text = answer.text().await.context("ClickHouse's answer breaks off")?;
        if has_failed {
            bail!("ClickHouse refuses a question ({status}): {}", text.trim());
        }
        Ok(text)
    }
}

/// A text literal of SQL.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
