//! The log itself: topics, partitions, and where they end.

use std::time::Duration;

use anyhow::{Context as _, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::target::Kafka;

/// How long a broker may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Creates the topic.
pub async fn create_topic(kafka: &Kafka, partitions: i32) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka.client_config().create().context("cannot make a client")?;
    let topic = NewTopic::new(&kafka.topic, partitions, TopicReplication::Fixed(1));
    let results = admin.create_topics(&[topic], &AdminOptions::new().request_timeout(Some(TIMEOUT))).await;
    for result in results.with_context(|| unreachable_brokers(kafka))? {
        result.map_err(|(topic, code)| anyhow::anyhow!("cannot create the topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Deletes the topic.
pub async fn delete_topic(kafka: &Kafka) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = kafka.client_config().create().context("cannot make a client")?;
    admin.delete_topics(&[&kafka.topic], &AdminOptions::new().request_timeout(Some(TIMEOUT))).await?;
    Ok(())
}

/// Where each partition of the topic ends.
pub async fn end_offsets(kafka: &Kafka) -> anyhow::Result<Vec<i64>> {
    let kafka = kafka.clone();
    tokio::task::spawn_blocking(move || blocking_end_offsets(&kafka)).await?
}

fn blocking_end_offsets(kafka: &Kafka) -> anyhow::Result<Vec<i64>> {
    let client: BaseConsumer = kafka.client_config().create().context("cannot make a client")?;
    let metadata = client.fetch_metadata(Some(&kafka.topic), TIMEOUT).with_context(|| unreachable_brokers(kafka))?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        bail!("there is no topic {}: create it, or check kafka.topic", kafka.topic);
    }
    (0..partitions as i32)
        .map(|partition| {
            let watermarks = client.fetch_watermarks(&kafka.topic, partition, TIMEOUT);
            Ok(watermarks.with_context(|| format!("partition {partition} of {} does not tell its end", kafka.topic))?.1)
        })
        .collect()
}

fn unreachable_brokers(kafka: &Kafka) -> String {
    format!("Kafka does not answer at {}: check kafka.brokers", kafka.brokers)
}
