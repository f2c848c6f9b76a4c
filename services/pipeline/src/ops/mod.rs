//! Running it: metrics, health, status, migrations, and the checks before and during operation.

pub mod advice;
pub mod clickhouse_http;
mod dependencies;
pub mod doctor;
pub mod http;
pub(crate) mod log_filter;
mod memory_limit;
pub mod metrics;
pub mod migrate;
pub mod object_stores;
pub mod probe;
mod refused_schemas;
mod reject_samples;
pub mod status;
pub(crate) mod totals;
pub mod traces;

pub use dependencies::{Dependency, DependencyReport};

/// The wall clock, milliseconds since the epoch.
fn now_ms() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
