//! The librdkafka properties of the consumer.
//!
//! Names and defaults: librdkafka's `CONFIGURATION.md`.

use anyhow::{Context, bail};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::IngestLimits;
use crate::config::KafkaConfig;

/// What librdkafka needs for a queued message besides its payload: the op, locks, a share of the fetch buffer.
const BYTES_PER_QUEUED_MESSAGE: usize = 400;

/// Properties that the guarantees rest on, and why. Whoever sets one of them is told.
const REFUSED: &[(&str, &str)] = &[
    ("enable.auto.commit", "an offset is committed only when all that lies before it is durable"),
    ("enable.auto.offset.store", "an offset is committed only when all that lies before it is durable"),
    (
        "auto.offset.reset",
        "a position that the log no longer has must stop the partition, not be skipped; see kafka.start",
    ),
    ("group.protocol", "the new group protocol (KIP-848) is not ready in this librdkafka; classic is used"),
    ("enable.partition.eof", "the end of a partition is not an error"),
    ("auto.commit.interval.ms", "offsets are not committed automatically"),
    ("offset.store.method", "offsets are kept by the group coordinator"),
];

/// The client configuration: ours, then the user's, then what must not be changed.
pub(super) fn client_config(kafka: &KafkaConfig, limits: &IngestLimits) -> anyhow::Result<ClientConfig> {
    if kafka.topic.starts_with('^') {
        bail!("kafka.topic: `{}` is a pattern; one topic is read", kafka.topic);
    }
    let mut config = ClientConfig::new();
    let queued_messages = (limits.prefetch_bytes / BYTES_PER_QUEUED_MESSAGE).clamp(1_000, 100_000);
    let queued_kbytes = (limits.prefetch_bytes / 1024).max(1024);
    config
        // Incremental rebalances (KIP-429): whoever keeps a partition goes on with it meanwhile.
        .set("partition.assignment.strategy", "cooperative-sticky")
        // Prefetch. The default backoff of a second stalls a consumer that is slower than its fetcher.
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.min.messages", queued_messages.to_string())
        .set("queued.max.messages.kbytes", queued_kbytes.to_string())
        // One fetch response can overshoot the prefetch by its uncompressed size, so it is kept small; a partition's
        // share is doubled by librdkafka where one batch is larger.
        .set("fetch.max.bytes", FETCH_MAX_BYTES)
        .set("fetch.message.max.bytes", FETCH_MESSAGE_MAX_BYTES)
        // Answer as soon as there is anything; an idle topic costs two empty fetches a second and broker.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "500")
        // As Kafka's own consumer: a bit that flips between the producer and here is noticed, and stops the partition.
        .set("check.crcs", "true")
        .set("statistics.interval.ms", "0")
        // A dead coordinator or broker is noticed within seconds, not after the default minute.
        .set("socket.timeout.ms", "20000")
        .set("reconnect.backoff.max.ms", "2000")
        .set("client.id", "kappa");
    for (name, value) in kafka.client_properties()? {
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            bail!("kafka.properties.{name} cannot be set: {why}");
        }
        config.set(name, value);
    }
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        // `rd_kafka_consume_batch_queue` takes the end of a partition for a record: after a pause it would go on one behind it.
        .set("enable.partition.eof", "false");
    let debug = config.get("debug").is_some();
    config.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    config.create_native_config().context("kafka.properties")?;
    Ok(config)
}

/// See [`client_config`].
const FETCH_MAX_BYTES: &str = "4194304";
/// See [`client_config`].
const FETCH_MESSAGE_MAX_BYTES: &str = "524288";

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{FetcherChoice, StartPolicy};

    pub(in crate::ingest) fn kafka(properties: &[(&str, &str)]) -> KafkaConfig {
        KafkaConfig {
            brokers: vec!["one:9092".to_owned(), "two:9092".to_owned()],
            topic: "events".to_owned(),
            group: "kappa".to_owned(),
            start: StartPolicy::Earliest,
            fetcher: FetcherChoice::Librdkafka,
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn users_may_change_what_is_not_a_guarantee() {
        let config = client_config(&kafka(&[("fetch.wait.max.ms", "50")]), &IngestLimits::default()).unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("50"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
        assert_eq!(config.get("bootstrap.servers"), Some("one:9092,two:9092"));
    }

    #[test]
    fn what_is_a_guarantee_is_refused_with_its_reason() {
        let error = client_config(&kafka(&[("auto.offset.reset", "latest")]), &IngestLimits::default()).unwrap_err();
        assert!(error.to_string().contains("kafka.start"), "{error}");
        let error = client_config(&kafka(&[("no.such.thing", "1")]), &IngestLimits::default()).unwrap_err();
        assert!(format!("{error:#}").contains("no.such.thing"), "{error:#}");
    }

    #[test]
    fn a_small_memory_limit_means_a_small_prefetch() {
        let small = client_config(&kafka(&[]), &IngestLimits::for_memory(64 << 20)).unwrap();
        assert_eq!(small.get("queued.max.messages.kbytes"), Some("1024"));
    }
}
