//! One writer for all partitions: what they send within a moment goes out in one insert.
//!
//! Few large inserts are what ClickHouse wants; a partition of its own for each emit would make it merge parts all
//! day. While ClickHouse is away the writer holds what it was given and takes no more: partitions send their next rows
//! only when the last were acknowledged, so what waits here does not grow.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::row_binary::{
    ANOMALY_COLUMNS, QUALITY_COLUMNS, SENSOR_COLUMNS, WINDOW_COLUMNS, push_anomaly, push_quality, push_sensor,
    push_window,
};
use crate::config::{EventConfig, HotStoreConfig};
use crate::ops::Dependency;
use crate::ops::clickhouse_http::ClickHouseHttp;
use crate::ops::metrics::HOT_WRITE_DURATION;
use crate::ops::status::StatusBoard;
use crate::partition::seams::{HotRows, HotStore};
use crate::storage::Backoff;

/// How long the writer waits for other partitions' rows before it inserts: ticks of all partitions fall together.
const LINGER: Duration = Duration::from_millis(15);
/// Bytes of one insert: some fifty thousand rows.
const MAX_INSERT_BYTES: usize = 8 << 20;
/// Bytes of a window row, about: 134, its key and its topic.
const TYPICAL_ROW_BYTES: usize = 176;
/// Inserts under way at once. ClickHouse takes one on one thread; the end of a backlog has hundreds of thousands of rows.
const CONCURRENT_INSERTS: usize = 3;

/// ClickHouse as the hot store of one partition. Clones write through the same writer.
#[derive(Debug, Clone)]
pub struct ClickHouseStore {
    requests: mpsc::UnboundedSender<Request>,
    partition: i32,
}

#[derive(Debug)]
struct Request {
    partition: i32,
    rows: Arc<HotRows>,
    acknowledged: oneshot::Sender<()>,
}

/// The task behind all stores.
struct Writer {
    requests: mpsc::UnboundedReceiver<Request>,
    inserts: Inserts,
    topic: String,
    board: Arc<StatusBoard>,
}

impl ClickHouseStore {
    /// Starts the writer on the current runtime. It ends when the last clone is dropped.
    pub fn start(
        hot_store: &HotStoreConfig,
        event: &EventConfig,
        topic: &str,
        board: Arc<StatusBoard>,
    ) -> anyhow::Result<Self> {
        let (sender, requests) = mpsc::unbounded_channel();
        let inserts = Inserts::new(hot_store, &event.key)?;
        tokio::spawn(Writer { requests, inserts, topic: topic.to_owned(), board }.run());
        Ok(Self { requests: sender, partition: 0 })
    }

    /// The store for a partition's rows.
    #[must_use]
    pub fn for_partition(&self, partition: i32) -> Self {
        Self { requests: self.requests.clone(), partition }
    }
}

impl HotStore for ClickHouseStore {
    async fn write(&self, rows: Arc<HotRows>) {
        if rows.is_empty() {
            return;
        }
        let (acknowledged, answer) = oneshot::channel();
        let request = Request { partition: self.partition, rows, acknowledged };
        // The writer lives as long as any store does, and answers every request; should its runtime be shut down, then
        // this task is going too and must not take silence for an acknowledgement.
        if self.requests.send(request).is_err() || answer.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Writer {
    async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            tokio::time::sleep(LINGER).await;
            let mut requests = vec![first];
            while let Ok(next) = self.requests.try_recv() {
                requests.push(next);
            }
            let started = Instant::now();
            self.write(&requests).await;
            metrics::histogram!(HOT_WRITE_DURATION).record(started.elapsed());
            for request in requests {
                // Nobody waits any more if the partition was taken away meanwhile.
                _ = request.acknowledged.send(());
            }
        }
    }

    async fn write(&self, requests: &[Request]) {
        let (topic, inserts) = (&self.topic, &self.inserts);
        let windows = bodies(&inserts.windows, requests, |rows| &rows.windows, topic, push_window);
        let anomalies = bodies(&inserts.anomalies, requests, |rows| &rows.anomalies, topic, push_anomaly);
        let sensors = bodies(&inserts.sensors, requests, |rows| &rows.sensors, topic, push_sensor);
        let quality = bodies(&inserts.quality, requests, |rows| &rows.quality, topic, push_quality);
        let mut under_way = FuturesUnordered::new();
        for (query, body) in windows.chain(anomalies).chain(sensors).chain(quality) {
            if under_way.len() >= CONCURRENT_INSERTS {
                under_way.next().await;
            }
            let span = tracing::info_span!(parent: None, "insert", topic = self.topic, query, bytes = body.len());
            under_way.push(self.insert(query, body).instrument(span));
        }
        while under_way.next().await.is_some() {}
        let written: usize = requests.iter().map(|request| request.rows.windows.len()).sum();
        self.board.totals().windows_written.add(written as u64);
    }

    /// Inserts until acknowledged; doing it twice changes nothing. Even a refusal is tried for ever: the rows are right,
    /// so the fault is one that somebody will mend (a missing table, a full disk, a revoked grant), and then nothing may
    /// be missing.
    async fn insert(&self, query: &str, body: Bytes) {
        let mut backoff = Backoff::new(query);
        loop {
            match self.inserts.clickhouse.insert(query, body.clone()).await {
                Ok(()) => return self.board.dependency_ok(Dependency::HotStore),
                Err(error) => self.board.dependency_failing(Dependency::HotStore, error),
            }
            backoff.pause().await;
        }
    }
}

/// Bodies of inserts by `query` with the rows of all requests, made as they are asked for.
fn bodies<'a, Row: 'a>(
    query: &'a str,
    requests: &'a [Request],
    kind: impl Fn(&'a HotRows) -> &'a Vec<Row> + Copy + 'a,
    topic: &'a str,
    push: impl Fn(&mut Vec<u8>, &Row, &str, i32),
) -> impl Iterator<Item = (&'a str, Bytes)> {
    let rows = move |request: &'a Request| kind(&request.rows).iter().map(|row| (row, request.partition));
    let mut waiting: usize = requests.iter().map(|request| kind(&request.rows).len()).sum();
    let mut rows = requests.iter().flat_map(rows);
    std::iter::from_fn(move || {
        if waiting == 0 {
            return None;
        }
        // A large body that grew would be copied over and over.
        let mut body = Vec::with_capacity((waiting * TYPICAL_ROW_BYTES).min(MAX_INSERT_BYTES) + TYPICAL_ROW_BYTES);
        while body.len() < MAX_INSERT_BYTES
            && let Some((row, partition)) = rows.next()
        {
            push(&mut body, row, topic, partition);
            waiting -= 1;
        }
        Some((query, Bytes::from(body)))
    })
}

/// The insert statements and where they go.
struct Inserts {
    clickhouse: ClickHouseHttp,
    windows: String,
    anomalies: String,
    sensors: String,
    quality: String,
}

impl Inserts {
    fn new(config: &HotStoreConfig, key: &[String]) -> anyhow::Result<Self> {
        let statement = |table: &str, key: &[String], columns: &[&str]| {
            let names = key.iter().map(String::as_str).chain(columns.iter().copied());
            let quoted: Vec<String> = names.map(|name| format!("`{name}`")).collect();
            format!("INSERT INTO `{}`.{table} ({}) FORMAT RowBinary", config.database, quoted.join(", "))
        };
        Ok(Self {
            clickhouse: ClickHouseHttp::new(config)?,
            windows: statement("windows_1m", key, &WINDOW_COLUMNS),
            anomalies: statement("anomalies", key, &ANOMALY_COLUMNS),
            sensors: statement("sensors", &[], &SENSOR_COLUMNS),
            quality: statement("quality_1m", &[], &QUALITY_COLUMNS),
        })
    }
}
