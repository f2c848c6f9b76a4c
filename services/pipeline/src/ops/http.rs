//! `/metrics`, `/healthz`, `/readyz` and `/status`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::advice::Advise;
use super::metrics::Metrics;
use super::status::StatusBoard;
use crate::config::HttpConfig;

/// How long open requests may take once the process stops.
const GRACE: Duration = Duration::from_secs(2);

/// How often histograms are compacted while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

const INDEX: &str =
    "kappa\n\n/metrics  for Prometheus\n/healthz  alive?\n/readyz   ready?\n/status   everything, as JSON\n";

#[derive(Debug)]
struct Shared {
    board: Arc<StatusBoard>,
    metrics: Metrics,
    ready_max_lag: Duration,
}

/// A bound server that does not answer yet.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl HttpServer {
    /// Takes the port.
    pub async fn bind(config: &HttpConfig, board: Arc<StatusBoard>, metrics: Metrics) -> anyhow::Result<Self> {
        let listen = config.listen;
        let listener = TcpListener::bind(listen).await.advise(
            format!("cannot listen on {listen}"),
            "set http.listen to a free address, or to port 0 for any free port",
        )?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { board, metrics, ready_max_lag: config.ready_max_lag });
        Ok(Self { listener, address, shared })
    }

    /// The address that it really listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`, then finishes what is open, but not for long.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let metrics = self.shared.metrics.clone();
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let stop = async move {
            stop.await;
            // Nobody listens any more if the server has failed.
            let _ = stopping.send(());
        };
        let server = axum::serve(self.listener, routes(self.shared)).with_graceful_shutdown(stop);
        let out_of_patience = async {
            let _ = stopped.await;
            tokio::time::sleep(GRACE).await;
        };
        let upkeep = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                metrics.upkeep();
            }
        };
        tokio::select! {
            result = server => Ok(result?),
            () = out_of_patience => Ok(()),
            () = upkeep => Ok(()),
        }
    }
}

fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/status", get(status))
        .with_state(shared)
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match shared.metrics.render(&shared.board) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n")).into_response(),
    }
}

async fn healthz(State(shared): State<Arc<Shared>>) -> Response {
    match shared.board.hung() {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let reasons = shared.board.not_ready_because(shared.ready_max_lag);
    if reasons.is_empty() {
        let idle = shared.board.partitions().is_empty();
        return if idle { "ready: assigned, no partitions\n" } else { "ready\n" }.into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(shared.board.report(shared.ready_max_lag))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::status::PartitionState;

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn all_endpoints_from_start_to_stop() {
        let board = StatusBoard::for_group("readings", "kappa");
        let config =
            HttpConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ready_max_lag: Duration::from_secs(10) };
        let server = HttpServer::bind(&config, Arc::clone(&board), Metrics::detached().unwrap()).await.unwrap();
        let address = server.local_addr();
        let taken = HttpConfig { listen: address, ..config };
        let clash = HttpServer::bind(&taken, Arc::clone(&board), Metrics::detached().unwrap()).await.unwrap_err();
        assert!(super::super::advice::render(&clash).contains("set http.listen"), "{clash:#}");

        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(server.serve(async move {
            let _ = stopped.await;
        }));
        assert_eq!(get(address, "/healthz").await, (200, "ok\n".to_owned()));
        let (code, why) = get(address, "/readyz").await;
        assert_eq!((code, why.trim()), (503, "the consumer group has not assigned anything yet"));
        board.set_assigned();
        assert_eq!(get(address, "/readyz").await, (200, "ready: assigned, no partitions\n".to_owned()));
        let handle = board.add_partition(0);
        handle.update(|status| {
            status.state = PartitionState::Running;
            status.lag_seconds = Some(11.0);
        });
        assert_eq!(get(address, "/readyz").await.0, 503);
        handle.update(|status| status.lag_seconds = Some(9.0));
        assert_eq!(get(address, "/readyz").await, (200, "ready\n".to_owned()));

        let (code, text) = get(address, "/metrics").await;
        assert!(code == 200 && text.contains("kafka_consumergroup_lag_seconds{"), "{text}");
        let (_, json) = get(address, "/status").await;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["ready"], &json["partitions"][0]["state"]), (&true.into(), &"running".into()));
        assert_eq!(get(address, "/nothing").await.0, 404);

        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(5), running).await.unwrap().unwrap().unwrap();
        assert!(reqwest::get(format!("http://{address}/healthz")).await.is_err());
    }
}
