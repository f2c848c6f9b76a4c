//! Errors as JSON: `{"error": "a sentence"}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::click_house::QueryError;
use crate::inputs::BadInput;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request is not valid.
    #[error(transparent)]
    BadInput(#[from] BadInput),
    /// What is asked for does not exist.
    #[error("{0}")]
    NotFound(String),
    /// Too many at once.
    #[error("{0}")]
    Busy(String),
    /// ClickHouse gives no answer.
    #[error(transparent)]
    Query(#[from] QueryError),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadInput(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Busy(_) | Self::Query(QueryError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Query(QueryError::TooMuch(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Query(QueryError::Refused(_)) => StatusCode::BAD_GATEWAY,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(serde_json::json!({ "error": self.to_string() }))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        response
    }
}
