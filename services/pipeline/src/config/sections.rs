//! The sections of the configuration, each field with its default. What each key allows stands in [`super::keys`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::{self, ServiceUrl, StartPolicy, StoreUrl};

const MIB: u64 = 1 << 20;

/// Everything that can be configured. Made by [`super::Sources::load`], which has checked it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Config {
    /// The log that everything is derived from.
    pub kafka: KafkaConfig,
    /// Where writer schemas are looked up.
    pub registry: RegistryConfig,
    /// Where the Parquet segments go.
    pub archive: StoreConfig,
    /// Where refused records go.
    pub dead_letter: StoreConfig,
    /// Where state snapshots go.
    pub state: StoreConfig,
    /// What all three stores have in common.
    pub object_store: ObjectStoreConfig,
    /// ClickHouse: aggregates and anomalies.
    pub hot_store: HotStoreConfig,
    /// Which fields of an event mean what.
    pub event: EventConfig,
    /// What is promised about the events.
    pub contract: ContractConfig,
    /// The windows that events are counted in.
    pub windows: WindowsConfig,
    /// How anomalies are found.
    pub anomaly: AnomalyConfig,
    /// When a segment is cut.
    pub checkpoint: CheckpointConfig,
    /// What is too much, too old or too new.
    pub limits: LimitsConfig,
    /// How the work is spread.
    pub pipeline: PipelineConfig,
    /// Metrics, health and status.
    pub http: HttpConfig,
    /// Log lines.
    pub log: LogConfig,
}

/// Who fetches records from Kafka. librdkafka is the member of the group in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FetcherChoice {
    /// The native fetcher where it can do what the properties demand, else librdkafka.
    Auto,
    /// Our own: straight from the brokers' answers to the workers.
    Native,
    /// librdkafka.
    Librdkafka,
}

/// `[kafka]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KafkaConfig {
    /// Some brokers of the cluster, `host:port`.
    #[serde(deserialize_with = "values::comma_separated")]
    pub brokers: Vec<String>,
    /// The topic to read.
    pub topic: String,
    /// The consumer group whose offsets say what is done.
    pub group: String,
    /// Where a group without offsets starts.
    pub start: StartPolicy,
    /// Who fetches the records.
    pub fetcher: FetcherChoice,
    /// Any librdkafka property. Secrets are not in here: see [`KafkaConfig::client_properties`].
    pub properties: BTreeMap<String, String>,
}

/// `[registry]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegistryConfig {
    /// Root of the Confluent-compatible API.
    pub url: ServiceUrl,
    /// User for basic authentication.
    #[serde(deserialize_with = "values::optional_text")]
    pub user: Option<String>,
    /// File with the password.
    #[serde(deserialize_with = "values::optional_path")]
    pub password_file: Option<PathBuf>,
    /// How long an id is asked for again that the registry says it does not know.
    #[serde(with = "humantime_serde")]
    pub unknown_id_retry: Duration,
}

/// `[archive]`, `[dead_letter]` and `[state]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreConfig {
    /// Bucket and prefix, or directory.
    pub url: StoreUrl,
}

/// `[object_store]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ObjectStoreConfig {
    /// Address of an S3-compatible service; none means AWS.
    pub endpoint: Option<ServiceUrl>,
    /// Region of the buckets; none means what the `AWS_` variables say.
    #[serde(deserialize_with = "values::optional_text")]
    pub region: Option<String>,
    /// Whether an endpoint without TLS is accepted.
    pub allow_http: bool,
}

/// `[hot_store]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HotStoreConfig {
    /// ClickHouse's HTTP interface.
    pub url: ServiceUrl,
    /// Database of the tables.
    pub database: String,
    /// User that inserts.
    pub user: String,
    /// File with that user's password.
    #[serde(deserialize_with = "values::optional_path")]
    pub password_file: Option<PathBuf>,
    /// How often at most the row of an open window is written again.
    #[serde(with = "humantime_serde")]
    pub emit_interval: Duration,
}

/// `[event]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventConfig {
    /// File with the reader's Avro schema; none means the built-in one.
    #[serde(deserialize_with = "values::optional_path")]
    pub schema: Option<PathBuf>,
    /// The fields that name a series.
    #[serde(deserialize_with = "values::comma_separated")]
    pub key: Vec<String>,
    /// The field with the event time.
    pub time: String,
    /// The field with the measured value.
    pub value: String,
    /// The field with the sensor's own judgement; none where there is no such field.
    #[serde(deserialize_with = "values::optional_text")]
    pub quality: Option<String>,
    /// The judgement that means "do not trust this value".
    pub bad_quality: String,
    /// The field that says where a sensor stands; none where there is no such field.
    #[serde(deserialize_with = "values::optional_text")]
    pub site: Option<String>,
    /// The field that numbers a sensor's readings, by which duplicates are told; none where there is no such field.
    #[serde(deserialize_with = "values::optional_text")]
    pub sequence: Option<String>,
}

/// `[contract]`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContractConfig {
    /// File with the data contract. Nothing set: the built-in one if the schema is the built-in one, too. `none`: none.
    #[serde(deserialize_with = "values::optional_path")]
    pub file: Option<PathBuf>,
}

/// `[windows]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WindowsConfig {
    /// Length of a tumbling window.
    #[serde(with = "humantime_serde")]
    pub length: Duration,
    /// How far the watermark must be past the end of a window before that closes.
    #[serde(with = "humantime_serde")]
    pub allowed_lateness: Duration,
}

/// Which detector looks at each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetectorKind {
    /// Robust running location and scale of the value and of its step.
    Robust,
    /// No detection.
    None,
}

/// `[anomaly]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AnomalyConfig {
    /// Which detector.
    pub detector: DetectorKind,
    /// Events of a series before the first may be flagged.
    pub warm_up: u32,
    /// Events of a series after a flag before the next.
    pub refractory: u32,
    /// An event is flagged if its probability is below ten to the minus this.
    pub threshold: f64,
    /// Equal values in a row that make a flat line; 0 turns that off.
    pub flatline_after: u32,
}

/// `[checkpoint]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CheckpointConfig {
    /// Longest time that a segment stays open.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Encoded size at which a segment is cut, bytes.
    #[serde(with = "values::size")]
    pub max_bytes: u64,
}

/// `[limits]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LimitsConfig {
    /// Bytes for everything that grows with the load; partitions are paused beyond it.
    #[serde(with = "values::size")]
    pub memory: u64,
    /// How much older than its Kafka timestamp an event may be.
    #[serde(with = "humantime_serde")]
    pub max_event_age: Duration,
    /// How far ahead of its Kafka timestamp an event may be.
    #[serde(with = "humantime_serde")]
    pub max_future_skew: Duration,
    /// Largest record, and largest that it may expand to, bytes.
    #[serde(with = "values::size")]
    pub max_record_bytes: u64,
    /// Deepest nesting of a record.
    pub max_depth: u32,
}

/// `[pipeline]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipelineConfig {
    /// Threads that decode and count.
    pub workers: usize,
    /// How long a graceful stop may take.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

/// `[http]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HttpConfig {
    /// Where `/metrics`, `/healthz`, `/readyz` and `/status` are served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How far behind the log a partition may be while the process calls itself ready.
    #[serde(with = "humantime_serde")]
    pub ready_max_lag: Duration,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the well-known levels")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LogConfig {
    /// Form of the lines on standard error.
    pub format: LogFormat,
    /// How much is logged, where neither a flag nor `RUST_LOG` says it.
    pub level: LogLevel,
}

impl Config {
    /// All defaults. The addresses without one hold placeholders that lead nowhere.
    pub(super) fn template() -> Self {
        Self {
            kafka: KafkaConfig {
                brokers: Vec::new(),
                topic: "sensor-readings".to_owned(),
                group: "kappa".to_owned(),
                start: StartPolicy::Earliest,
                fetcher: FetcherChoice::Auto,
                properties: BTreeMap::new(),
            },
            registry: RegistryConfig {
                url: ServiceUrl::unset(),
                user: None,
                password_file: None,
                unknown_id_retry: Duration::from_secs(30),
            },
            archive: StoreConfig { url: StoreUrl::unset() },
            dead_letter: StoreConfig { url: StoreUrl::unset() },
            state: StoreConfig { url: StoreUrl::unset() },
            object_store: ObjectStoreConfig::default(),
            hot_store: HotStoreConfig {
                url: ServiceUrl::unset(),
                database: "kappa".to_owned(),
                user: "default".to_owned(),
                password_file: None,
                emit_interval: Duration::from_secs(1),
            },
            event: EventConfig {
                schema: None,
                key: vec!["sensor_id".to_owned(), "metric".to_owned()],
                time: "event_time".to_owned(),
                value: "value".to_owned(),
                quality: Some("quality".to_owned()),
                bad_quality: "BAD".to_owned(),
                site: Some("site".to_owned()),
                sequence: Some("sequence".to_owned()),
            },
            contract: ContractConfig::default(),
            windows: WindowsConfig { length: Duration::from_mins(1), allowed_lateness: Duration::from_secs(30) },
            anomaly: AnomalyConfig {
                detector: DetectorKind::Robust,
                warm_up: 30,
                refractory: 10,
                threshold: 6.0,
                flatline_after: 60,
            },
            checkpoint: CheckpointConfig { interval: Duration::from_mins(5), max_bytes: 64 * MIB },
            limits: LimitsConfig {
                memory: 1024 * MIB,
                max_event_age: Duration::from_hours(30 * 24),
                max_future_skew: Duration::from_mins(5),
                max_record_bytes: MIB,
                max_depth: 64,
            },
            pipeline: PipelineConfig { workers: default_workers(), shutdown_timeout: Duration::from_secs(30) },
            http: HttpConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
                ready_max_lag: Duration::from_mins(5),
            },
            log: LogConfig { format: LogFormat::Pretty, level: LogLevel::Info },
        }
    }
}

/// Half the cores: the others decompress, encode Parquet and run librdkafka.
fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).max(1)
}
