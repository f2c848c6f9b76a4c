//! Routes: the page, the questions of one viewer, the event stream, and what operations ask.

mod api;
mod error;
mod events;
mod page;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::click_house::ClickHouse;
use crate::metrics::Metrics;
use crate::poller::Feeds;
use crate::statements::Statements;

pub use error::ApiError;

/// Nothing but what this server serves itself; no inline script, no frame around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What all requests share.
#[derive(Debug)]
pub struct Shared {
    /// For the questions of one viewer.
    pub click_house: ClickHouse,
    /// All SQL.
    pub statements: Arc<Statements>,
    /// What is made for all viewers.
    pub feeds: Arc<Feeds>,
    /// What the server counts.
    pub metrics: Arc<Metrics>,
    /// Length of a window.
    pub window_ms: i64,
    /// A place for each answer that is being made.
    pub questions: Semaphore,
    /// A place for each open event stream.
    pub viewers: Arc<Semaphore>,
}

/// All routes.
pub fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/assets/{name}", get(page::asset))
        .route("/api/events", get(events::stream))
        .route("/api/live", get(events::live))
        .route("/api/sensors", get(api::sensors))
        .route("/api/series", get(api::series))
        .route("/api/anomalies", get(api::anomalies))
        .route("/api/dead-letters", get(api::dead_letters))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(|| async { ApiError::NotFound("there is nothing at this address; the page is at /".to_owned()) })
        .layer(map_response(with_headers))
        .with_state(shared)
}

async fn with_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let fixed = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Ready when everything was asked once. ClickHouse may be away: then the page is there to say so.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    if shared.feeds.are_filled() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the first answers are awaited\n").into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render()).into_response()
}
