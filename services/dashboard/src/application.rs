//! The composition: builds everything, serves until asked to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::click_house::ClickHouse;
use crate::http::{Shared, routes};
use crate::metrics::Metrics;
use crate::pipeline_status::Watch;
use crate::poller::{Feeds, FleetWatch, watch_pipelines};
use crate::settings::{MAX_QUERIES, Settings};
use crate::statements::Statements;

/// How long open requests may take once the process stops. Event streams end at once.
const GRACE: Duration = Duration::from_secs(2);

/// A live page that is ready to run.
#[derive(Debug)]
pub struct Dashboard {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    watches: Vec<Watch>,
}

impl Dashboard {
    /// Checks the settings and takes the port. Nothing outside is asked yet, and nothing need be there.
    pub async fn build(settings: Settings) -> anyhow::Result<Self> {
        for (flag, column) in
            [("--sensor-column", &settings.sensor_column), ("--metric-column", &settings.metric_column)]
        {
            if !is_identifier(column) {
                bail!("{flag} must be a name of letters, digits and underscores, not {column:?}");
            }
        }
        let window_ms = i64::try_from(settings.window.as_millis()).unwrap_or_default();
        if window_ms == 0 || 86_400_000 % window_ms != 0 {
            bail!("--window must be whole milliseconds and divide a day evenly");
        }
        let listen = settings.listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen}; set --listen to a free address, or to port 0"))?;
        let address = listener.local_addr()?;
        let metrics = Arc::new(Metrics::default());
        let http = reqwest::Client::builder().connect_timeout(Duration::from_secs(2)).build()?;
        let watches = settings.pipelines.iter().map(|url| Watch::new(http.clone(), url.clone())).collect();
        let shared = Shared {
            click_house: ClickHouse::new(&settings, Arc::clone(&metrics))?,
            statements: Arc::new(Statements::new(&settings.sensor_column, &settings.metric_column)),
            feeds: Arc::default(),
            metrics,
            window_ms,
            questions: Semaphore::new(MAX_QUERIES),
            viewers: Arc::new(Semaphore::new(settings.max_viewers)),
        };
        Ok(Self { listener, address, shared: Arc::new(shared), watches })
    }

    /// Where the page is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is made for all viewers; for tests and for whoever embeds the page.
    pub fn feeds(&self) -> Arc<Feeds> {
        Arc::clone(&self.shared.feeds)
    }

    /// Serves until `stop`.
    pub async fn run_until_stopped(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let Self { listener, shared, watches, .. } = self;
        let mut pollers = JoinSet::new();
        let (feeds, metrics) = (Arc::clone(&shared.feeds), Arc::clone(&shared.metrics));
        pollers.spawn(watch_pipelines(watches, Arc::clone(&feeds), Arc::clone(&metrics)));
        let fleet = FleetWatch::new(
            shared.click_house.clone(),
            Arc::clone(&shared.statements),
            feeds,
            metrics,
            shared.window_ms,
        );
        pollers.spawn(fleet.run());

        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let stop = async move {
            stop.await;
            // Nobody listens any more if the server has failed.
            let _ = stopping.send(());
        };
        let server = axum::serve(listener, routes(shared)).with_graceful_shutdown(stop);
        let out_of_patience = async {
            let _ = stopped.await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            result = server => Ok(result?),
            () = out_of_patience => Ok(()),
            Some(ended) = pollers.join_next() => {
                ended.context("the poller has failed")?;
                bail!("the poller has ended by itself")
            }
        }
    }
}

fn is_identifier(name: &str) -> bool {
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    !name.is_empty()
        && name.len() <= 128
        && name.chars().all(is_word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests;
