//! Questions to the brokers, and a consumer that reads a partition without being a member of the group.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::config::KafkaConfig;
use crate::ops::advice::{Advise as _, advised};

/// How long a broker may take to answer.
pub(super) const ANSWER: Duration = Duration::from_secs(20);

/// What the brokers say of the topic and the group.
#[derive(Debug, Clone)]
pub(super) struct LogFacts {
    /// By partition: the first offset that is left, and the one that the next record will get.
    pub(super) bounds: BTreeMap<i32, (i64, i64)>,
    /// The group's offsets.
    pub(super) committed: BTreeMap<i32, i64>,
    /// Whether records are compacted away: then the log does not have all that it once had.
    pub(super) is_compacted: bool,
}

/// Properties of a client that only looks.
pub(crate) fn client_config(kafka: &KafkaConfig) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.max.messages.kbytes", "32768")
        .set("client.id", "kappa-verify");
    for (name, value) in kafka.client_properties()? {
        config.set(name, value);
    }
    config
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true");
    Ok(config)
}

/// Asks for everything. The committed offsets come first: what is looked at later can only be further.
pub(super) async fn ask(kafka: &KafkaConfig) -> anyhow::Result<LogFacts> {
    let config = client_config(kafka)?;
    let (topic, brokers, asked_with) = (kafka.topic.clone(), kafka.bootstrap_servers(), config.clone());
    let facts = tokio::task::spawn_blocking(move || blocking(&asked_with, &topic)).await?;
    let mut facts = facts.advise(
        format!("Kafka at {brokers} does not say what is asked"),
        "check kafka.brokers and kafka.topic, and that this user may describe the topic and the group",
    )?;
    facts.is_compacted = is_compacted(&config, &kafka.topic).await;
    Ok(facts)
}

fn blocking(config: &ClientConfig, topic: &str) -> anyhow::Result<LogFacts> {
    let client: BaseConsumer = config.create().context("kafka.properties")?;
    let metadata = client.fetch_metadata(Some(topic), ANSWER).context("metadata of the topic")?;
    let partitions = metadata.topics().iter().find(|found| found.name() == topic);
    let partitions: Vec<i32> =
        partitions.into_iter().flat_map(MetadataTopic::partitions).map(MetadataPartition::id).collect();
    if partitions.is_empty() {
        return Err(advised(format!("there is no topic {topic}"), "correct kafka.topic"));
    }
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition(topic, *partition);
    }
    let answered = client.committed_offsets(list, ANSWER).context("committed offsets of the group")?;
    let mut committed = BTreeMap::new();
    for element in answered.elements_for_topic(topic) {
        element.error().context("committed offsets of the group")?;
        if let Offset::Offset(offset) = element.offset() {
            committed.insert(element.partition(), offset);
        }
    }
    let mut bounds = BTreeMap::new();
    for partition in partitions {
        let found = client.fetch_watermarks(topic, partition, ANSWER);
        bounds.insert(partition, found.with_context(|| format!("bounds of partition {partition}"))?);
    }
    Ok(LogFacts { bounds, committed, is_compacted: false })
}

/// Best effort: a broker that does not say it has no compaction, as far as we know.
async fn is_compacted(config: &ClientConfig, topic: &str) -> bool {
    let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() else { return false };
    let options = AdminOptions::new().request_timeout(Some(ANSWER));
    let Ok(answers) = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await else { return false };
    let policies = answers.into_iter().flatten().flat_map(|resource| resource.entries);
    let policy = policies.filter(|entry| entry.name == "cleanup.policy").find_map(|entry| entry.value);
    policy.is_some_and(|policy| policy.contains("compact"))
}
