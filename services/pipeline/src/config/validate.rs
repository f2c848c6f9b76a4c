//! What no single value can be blamed for, and what a type cannot say.

use std::path::Path;
use std::time::Duration;

use kappa_core::decode::DecodeLimits;
use rdkafka::ClientConfig;

use super::problems::Problem;
use super::{Config, FetcherChoice, Needs, StoreUrl};
use crate::contract::ContractSource;
use crate::hot_store::reserved_columns;
use crate::ingest::unsupported_by_native_fetcher;

const DAY: Duration = Duration::from_hours(24);
const MIB: u64 = 1 << 20;

/// librdkafka properties that the pipeline sets itself, each with the reason or the key to use.
const RESERVED_PROPERTIES: &[(&str, &str)] = &[
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.group"),
    ("enable.auto.commit", "an offset is committed only after everything before it is durable"),
    ("auto.commit.interval.ms", "an offset is committed only after everything before it is durable"),
    ("enable.auto.offset.store", "an offset is committed only after everything before it is durable"),
    ("auto.offset.reset", "a lost position must stop the partition, never skip; set kafka.start for new groups"),
    ("group.remote.assignor", "the pipeline uses the classic group protocol"),
    ("allow.auto.create.topics", "a mistyped topic must not come into being"),
    ("enable.partition.eof", "the pipeline decides how it learns of the end of a partition"),
];

/// librdkafka properties that are secrets: from files only.
const SECRET_PROPERTIES: &[&str] = &[
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
];

/// Suffix of a property whose value is read from a file.
pub(super) const FILE_SUFFIX: &str = "_file";

/// Everything wrong with a configuration whose values are all of the right type. Checks of keys that are wrong already
/// are left out: they would only repeat it.
pub(super) fn check(
    config: &Config,
    needs: Needs,
    already_wrong: &[String],
    is_default: &dyn Fn(&str) -> bool,
) -> Vec<Problem> {
    let mut checks = Checks { needs, already_wrong, is_default, problems: Vec::new() };
    checks.kafka(config);
    checks.stores(config);
    checks.hot_store(config);
    checks.files(config);
    checks.event(config);
    checks.times(config);
    checks.sizes(config);
    checks.numbers(config);
    checks.problems
}

struct Checks<'a> {
    needs: Needs,
    already_wrong: &'a [String],
    /// Whether nobody has set a key.
    is_default: &'a dyn Fn(&str) -> bool,
    problems: Vec<Problem>,
}

impl Checks<'_> {
    /// Blames a key unless the rule holds, if all keys of the rule are usable so far. A rule between keys is left out
    /// when one of them breaks a rule of its own, and blames one that somebody has set; `message` is about the first.
    fn rule(&mut self, keys: &[&str], holds: bool, message: impl Into<String>) {
        let broken = |key: &str| keys.len() > 1 && self.problems.iter().any(|problem| problem.key == key);
        let wrong = |key: &str| self.already_wrong.iter().any(|wrong| wrong == key) || broken(key);
        let usable = |key: &&str| self.needs.includes(key) && !wrong(key);
        if holds || !keys.iter().all(usable) {
            return;
        }
        let blamed = keys.iter().find(|key| !(self.is_default)(key)).unwrap_or(&keys[0]);
        let message = message.into();
        let message = if *blamed == keys[0] { message } else { format!("{} {message}", keys[0]) };
        self.problems.push(Problem::with_key(blamed, message));
    }

    fn kafka(&mut self, config: &Config) {
        let kafka = &config.kafka;
        self.rule(&["kafka.brokers"], !kafka.brokers.is_empty(), "names no broker");
        for broker in &kafka.brokers {
            let host_and_port = broker.rsplit_once("://").map_or(broker.as_str(), |(_, rest)| rest);
            let port = host_and_port.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            self.rule(&["kafka.brokers"], port.is_some(), format!("{broker:?} has no port"));
        }
        let legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
        let topic_is_legal = !kafka.topic.is_empty() && kafka.topic.len() <= 249 && kafka.topic.chars().all(legal);
        self.rule(
            &["kafka.topic"],
            topic_is_legal && kafka.topic != "." && kafka.topic != "..",
            "is no legal topic name: Kafka allows letters, digits, '.', '_' and '-', at most 249",
        );
        self.rule(&["kafka.group"], !kafka.group.is_empty(), "is empty");
        for (name, value) in &kafka.properties {
            self.property(name, value);
        }
        if kafka.fetcher == FetcherChoice::Native {
            let unsupported = unsupported_by_native_fetcher(&kafka.properties);
            let message =
                format!("cannot be native with kafka.properties.{}", unsupported.as_deref().unwrap_or_default());
            self.rule(&["kafka.fetcher"], unsupported.is_none(), message);
        }
    }

    fn property(&mut self, name: &str, value: &str) {
        let key = format!("kafka.properties.{name}");
        let mut wrong = |message: String| self.problems.push(Problem::with_key(&key, message));
        if let Some((_, reason)) = RESERVED_PROPERTIES.iter().find(|(reserved, _)| *reserved == name) {
            return wrong(format!("cannot be set: {reason}"));
        }
        if name == "group.protocol" && value != "classic" {
            return wrong("cannot be set: the next generation protocol is not safe with this librdkafka".to_owned());
        }
        if SECRET_PROPERTIES.contains(&name) {
            return wrong(format!("is a secret: put it into a file and set \"{name}{FILE_SUFFIX}\" to its path"));
        }
        if let Some(property) = name.strip_suffix(FILE_SUFFIX) {
            if let Err(error) = std::fs::read(value) {
                return wrong(format!("cannot read {value:?}: {error}"));
            }
            // Any value will do to learn whether there is such a property: only its name is judged here.
            if let Err(error) = ClientConfig::new().set(property, "x").create_native_config()
                && error.to_string().contains("No such configuration property")
            {
                wrong(format!("librdkafka has no property {property:?}"));
            }
            return;
        }
        if let Err(error) = ClientConfig::new().set(name, value).create_native_config() {
            wrong(format!("librdkafka refuses it: {}", librdkafka_message(&error)));
        }
    }

    fn stores(&mut self, config: &Config) {
        let stores: [(&str, &StoreUrl); 3] = [
            ("archive.url", &config.archive.url),
            ("dead_letter.url", &config.dead_letter.url),
            ("state.url", &config.state.url),
        ];
        for (index, (key, url)) in stores.iter().enumerate() {
            for (other_key, other) in &stores[..index] {
                let apart = !url.contains(other) && !other.contains(url);
                let message = format!("must not be the same place as {other_key}, nor one inside the other");
                self.rule(&[key, other_key], apart, message);
            }
        }
        if let Some(endpoint) = &config.object_store.endpoint {
            let plaintext = endpoint.as_url().scheme() == "http";
            self.rule(
                &["object_store.endpoint", "object_store.allow_http"],
                !plaintext || config.object_store.allow_http,
                "is without TLS; set object_store.allow_http = true if that is meant",
            );
        }
    }

    fn hot_store(&mut self, config: &Config) {
        let database = &config.hot_store.database;
        let legal = !database.is_empty()
            && !database.starts_with(|first: char| first.is_ascii_digit())
            && database.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        self.rule(&["hot_store.database"], legal, "is no plain name of a database");
        let emit = config.hot_store.emit_interval;
        self.rule(&["hot_store.emit_interval"], emit >= Duration::from_millis(100), "would make a part per window");
    }

    fn files(&mut self, config: &Config) {
        let contract = ContractSource::of(config);
        let files = [
            ("registry.password_file", config.registry.password_file.as_deref()),
            ("hot_store.password_file", config.hot_store.password_file.as_deref()),
            ("event.schema", config.event.schema.as_deref()),
            ("contract.file", contract.file()),
        ];
        for (key, path) in files {
            let Some(path) = path else { continue };
            if let Err(error) = readable(path) {
                self.rule(&[key], false, format!("cannot be read: {error}"));
            }
        }
        let registry = &config.registry;
        let user_without_password = registry.user.is_some() && registry.password_file.is_none();
        self.rule(&["registry.user"], !user_without_password, "needs registry.password_file");
        let password_without_user = registry.user.is_none() && registry.password_file.is_some();
        self.rule(&["registry.password_file"], !password_without_user, "needs registry.user");
    }

    fn event(&mut self, config: &Config) {
        let event = &config.event;
        self.rule(&["event.key"], !event.key.is_empty(), "names no field");
        let mut seen = std::collections::BTreeSet::new();
        for field in &event.key {
            self.rule(&["event.key"], seen.insert(field.as_str()), format!("names {field:?} twice"));
            self.rule(&["event.key"], is_avro_name(field), format!("{field:?} is no name of an Avro field"));
            let taken = reserved_columns().any(|column| column == field);
            self.rule(&["event.key"], !taken, format!("{field:?} is the name of a column of the hot store's own"));
        }
        for (key, field) in [("event.time", &event.time), ("event.value", &event.value)] {
            self.rule(&[key], is_avro_name(field), "is no name of an Avro field");
        }
        self.rule(&["event.value", "event.time"], event.value != event.time, "is the same field as event.time");
    }

    fn times(&mut self, config: &Config) {
        let length = config.windows.length;
        let whole = length >= Duration::from_secs(1) && length.subsec_nanos().is_multiple_of(1_000_000);
        let divides = whole && DAY.as_millis().is_multiple_of(length.as_millis());
        self.rule(&["windows.length"], divides, "must be from 1s to 1d and divide a day evenly");
        let age = config.limits.max_event_age;
        let lateness = config.windows.allowed_lateness;
        self.rule(&["windows.allowed_lateness"], lateness <= DAY, "must be at most a day: open windows cost memory");
        self.rule(
            &["limits.max_event_age", "windows.length", "windows.allowed_lateness"],
            age >= length.saturating_add(lateness),
            "is shorter than a window and its allowed lateness",
        );
        self.rule(
            &["limits.max_event_age"],
            age <= DAY * 90,
            "is more than the 90 days that the hot store keeps; one insert may touch at most 100 of its daily partitions",
        );
        let skew = config.limits.max_future_skew;
        self.rule(&["limits.max_future_skew"], skew <= DAY, "is more than a day: one wrong clock closes all windows");
        let interval = config.checkpoint.interval;
        let sane = (Duration::from_secs(1)..=Duration::from_hours(1)).contains(&interval);
        self.rule(&["checkpoint.interval"], sane, "must be from 1s to 1h");
        let shutdown = config.pipeline.shutdown_timeout;
        self.rule(&["pipeline.shutdown_timeout"], shutdown >= Duration::from_secs(1), "leaves no time to seal");
        let retry = config.registry.unknown_id_retry;
        self.rule(&["registry.unknown_id_retry"], retry <= Duration::from_hours(1), "would hold a partition too long");
    }

    fn sizes(&mut self, config: &Config) {
        let (memory, segment) = (config.limits.memory, config.checkpoint.max_bytes);
        let record = config.limits.max_record_bytes;
        self.rule(&["limits.memory"], memory >= 128 * MIB, "must be at least 128MiB");
        self.rule(&["checkpoint.max_bytes"], segment >= MIB, "must be at least 1MiB: each segment is an object");
        self.rule(
            &["limits.memory", "checkpoint.max_bytes"],
            memory >= segment.saturating_mul(2),
            "must be at least twice checkpoint.max_bytes: one segment grows while the one before is written",
        );
        let sane = (1024..=DecodeLimits::LARGEST_RECORD as u64).contains(&record);
        self.rule(&["limits.max_record_bytes"], sane, "must be from 1KiB to 64MiB");
        self.rule(
            &["limits.max_record_bytes", "limits.memory"],
            record <= memory / 4,
            "must be at most a quarter of limits.memory",
        );
    }

    fn numbers(&mut self, config: &Config) {
        let workers = config.pipeline.workers;
        self.rule(&["pipeline.workers"], (1..=256).contains(&workers), "must be from 1 to 256");
        let depth = config.limits.max_depth as usize;
        let sane = (1..=DecodeLimits::DEEPEST).contains(&depth);
        self.rule(&["limits.max_depth"], sane, "must be from 1 to 256");
        let threshold = config.anomaly.threshold;
        let sane = threshold.is_finite() && threshold > 0.0 && threshold <= 300.0;
        self.rule(&["anomaly.threshold"], sane, "must be above 0 and at most 300");
        self.rule(&["anomaly.warm_up"], config.anomaly.warm_up >= 1, "must be at least 1");
    }
}

fn is_avro_name(name: &str) -> bool {
    let first = name.chars().next();
    first.is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn readable(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path).and_then(|file| file.metadata()).and_then(|metadata| {
        if metadata.is_dir() { Err(std::io::Error::from(std::io::ErrorKind::IsADirectory)) } else { Ok(()) }
    })
}

/// librdkafka's own sentence, without rdkafka's wrapping and without the value, which may be anything.
fn librdkafka_message(error: &rdkafka::error::KafkaError) -> String {
    match error {
        rdkafka::error::KafkaError::ClientConfig(_, description, _, _) => description.clone(),
        other => other.to_string(),
    }
}
