//! What the native fetcher takes over from librdkafka's properties, and which of them it cannot follow.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use rdkafka::ClientConfig;

use super::super::IngestLimits;
use super::super::properties;
use crate::config::KafkaConfig;

/// How long a broker may wait for [`MIN_BYTES`]. Far below the interval in which rows are written; at 50,000 events a
/// second it makes ten requests a second of two hundred.
const WAIT: Duration = Duration::from_millis(100);
const MIN_BYTES: i32 = 1 << 20;
/// One partition's share of a response. Small enough that a response holds several.
const PARTITION_BYTES: i32 = 512 << 10;
/// Larger responses make neither the broker nor us faster.
const LARGEST_RESPONSE: usize = 4 << 20;

/// How to fetch.
#[derive(Debug, Clone)]
pub(super) struct FetchSettings {
    pub(super) client_id: String,
    pub(super) wait: Duration,
    pub(super) min_bytes: i32,
    /// Of one response. A single larger batch is sent all the same.
    pub(super) max_bytes: i32,
    /// Of one partition in it.
    pub(super) partition_bytes: i32,
    /// The largest response, and the largest that one batch may become when it is decompressed.
    pub(super) frame_limit: usize,
    pub(super) expanded_limit: usize,
    pub(super) read_committed: bool,
    /// How long a broker may be silent when it should answer.
    pub(super) request_timeout: Duration,
    pub(super) connect_timeout: Duration,
    /// How long a broker may take to say what it speaks.
    pub(super) handshake_timeout: Duration,
}

impl FetchSettings {
    /// `memory`: what the process may use.
    pub(super) fn new(kafka: &KafkaConfig, limits: &IngestLimits, memory: usize) -> anyhow::Result<Self> {
        let config = properties::client_config(kafka, limits)?;
        let ours = |names: &[&str]| names.iter().find_map(|name| kafka.properties.get(*name)).map(String::as_str);
        let frame_limit = number(&config, "receive.message.max.bytes", 100_000_000)?;
        let request_timeout = milliseconds(&config, "socket.timeout.ms", 60_000)?;
        let max_bytes = LARGEST_RESPONSE.min(limits.prefetch_bytes / 2) as i32;
        Ok(Self {
            client_id: config.get("client.id").unwrap_or("kappa").to_owned(),
            wait: parse(ours(&["fetch.wait.max.ms"]))?.map_or(WAIT, Duration::from_millis),
            min_bytes: parse(ours(&["fetch.min.bytes"]))?.unwrap_or(MIN_BYTES),
            max_bytes: parse(ours(&["fetch.max.bytes"]))?.unwrap_or(max_bytes),
            partition_bytes: parse(ours(&["fetch.message.max.bytes", "max.partition.fetch.bytes"]))?
                .unwrap_or(PARTITION_BYTES),
            frame_limit,
            expanded_limit: frame_limit.min(memory / 2),
            read_committed: config.get("isolation.level") != Some("read_uncommitted"),
            request_timeout,
            connect_timeout: milliseconds(&config, "socket.connection.setup.timeout.ms", 30_000)?
                .clamp(Duration::from_millis(1), Duration::from_secs(5)),
            handshake_timeout: milliseconds(&config, "api.version.request.timeout.ms", 10_000)?.min(request_timeout),
        })
    }
}

fn number(config: &ClientConfig, name: &str, default: usize) -> anyhow::Result<usize> {
    Ok(parse(config.get(name))?.unwrap_or(default))
}

fn milliseconds(config: &ClientConfig, name: &str, default: usize) -> anyhow::Result<Duration> {
    Ok(Duration::from_millis(number(config, name, default)? as u64))
}

fn parse<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    text: Option<&str>,
) -> anyhow::Result<Option<T>> {
    text.map(|text| text.parse().with_context(|| format!("kafka.properties: {text:?} is no usable number"))).transpose()
}

/// The property because of which librdkafka has to fetch, and why.
pub(crate) fn unsupported_by_native_fetcher(properties: &BTreeMap<String, String>) -> Option<String> {
    let property = |name: &str| properties.get(name).filter(|value| !value.is_empty());
    if let Some(protocol) = property("security.protocol").filter(|value| !value.eq_ignore_ascii_case("plaintext")) {
        return Some(format!("security.protocol = {protocol:?}: the native fetcher knows no TLS and no SASL"));
    }
    if let Some(rack) = property("client.rack") {
        return Some(format!("client.rack = {rack:?}: the native fetcher reads from leaders only"));
    }
    if let Some(family) = property("broker.address.family").filter(|value| !value.eq_ignore_ascii_case("any")) {
        return Some(format!("broker.address.family = {family:?}: the native fetcher tries all addresses"));
    }
    None
}
