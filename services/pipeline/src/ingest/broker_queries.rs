//! Questions to the brokers. librdkafka's calls for them block, so they run on tokio's blocking threads, each with a
//! timeout; what fails is asked again until it is answered, however long the brokers are away.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

use super::AssignmentEvent;
use super::batch_queue::describe_topic_id;
use super::shared::{Client, Shared, lock};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// For how long a topic id is believed: partitions are assigned many at a time.
const TOPIC_ID_VALID: Duration = Duration::from_secs(5);
/// How often a topic is looked for, and how long apart, before it counts as missing. A new topic's metadata takes a
/// moment to reach all brokers.
const TOPIC_LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);

/// The pauses between attempts: up to a few seconds, with jitter, without end.
pub(super) fn pauses() -> impl Iterator<Item = Duration> + Send {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_jitter()
        .build()
}

/// Asks until there is an answer. Never returns once the client is closed: then nobody should go on.
pub(super) async fn ask<T: Send + 'static>(
    shared: &Shared,
    what: &str,
    partition: i32,
    question: impl Fn(&Client) -> KafkaResult<T> + Clone + Send + 'static,
) -> T {
    let mut pauses = pauses();
    let mut failed = false;
    loop {
        let Some(client) = shared.client() else { return std::future::pending().await };
        let attempt = question.clone();
        let Ok(answer) = shared.runtime.spawn_blocking(move || attempt(&client)).await else {
            return std::future::pending().await;
        };
        match answer {
            Ok(answer) => {
                if failed {
                    info!(partition, "Kafka answers again: {what}");
                }
                return answer;
            }
            Err(error) if !failed => warn!(partition, "Kafka does not answer, trying on: {what}: {error}"),
            Err(error) => debug!(partition, "Kafka still does not answer: {what}: {error}"),
        }
        failed = true;
        tokio::time::sleep(pauses.next().unwrap_or(ATTEMPT)).await;
    }
}

/// The low and high watermarks.
pub(super) async fn watermarks(shared: &Shared, partition: i32) -> (i64, i64) {
    let topic = shared.topic.clone();
    ask(shared, "watermarks", partition, move |client| client.fetch_watermarks(&topic, partition, ATTEMPT)).await
}

/// The group's committed offset.
pub(super) async fn committed(shared: &Shared, partition: i32) -> Option<i64> {
    let topic = shared.topic.clone();
    let question = move |client: &Client| {
        let offset = first_offset(&client.committed_offsets(one_partition(&topic, partition, None)?, ATTEMPT)?)?;
        Ok(match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    };
    ask(shared, "committed offset", partition, question).await
}

/// The first offset with a record timestamp of `timestamp_ms` or later; `None` when there is no such record yet.
pub(super) async fn offset_at(shared: &Shared, partition: i32, timestamp_ms: i64) -> Option<i64> {
    let topic = shared.topic.clone();
    let question = move |client: &Client| {
        // librdkafka takes the time where an offset would be; a negative one would be read as a symbolic offset.
        let time = Offset::Offset(timestamp_ms.max(0));
        let offset = first_offset(&client.offsets_for_times(one_partition(&topic, partition, Some(time))?, ATTEMPT)?)?;
        Ok(match offset {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    };
    ask(shared, "offset of a time", partition, question).await
}

/// The topic's identity; `None` where the brokers do not say.
pub(super) async fn topic_id(shared: &Arc<Shared>, partition: i32) -> Option<String> {
    let known = Arc::clone(shared);
    let question = move |client: &Client| {
        if let Some((asked_at, id)) = &*lock(&known.topic_id)
            && asked_at.elapsed() < TOPIC_ID_VALID
        {
            return Ok(id.clone());
        }
        let metadata = client.fetch_metadata(Some(&known.topic), ATTEMPT)?;
        let broker = metadata.brokers().first().ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown))?;
        let id = match describe_topic_id(client, &known.topic, broker.id(), ATTEMPT) {
            Ok(id) => id,
            // A broker that cannot or may not say it will not say it later either.
            Err(
                code @ (RDKafkaErrorCode::UnsupportedFeature
                | RDKafkaErrorCode::UnsupportedVersion
                | RDKafkaErrorCode::TopicAuthorizationFailed),
            ) => {
                debug!("the topic's id is not known: {code}");
                None
            }
            Err(code) => return Err(KafkaError::MetadataFetch(code)),
        };
        *lock(&known.topic_id) = Some((Instant::now(), id.clone()));
        Ok(id)
    };
    ask(shared, "topic id", partition, question).await
}

/// Finds out whether the topic is really gone, in the background, and says so if it is.
pub(super) fn watch_missing_topic(shared: &Arc<Shared>, events: &UnboundedSender<AssignmentEvent>) {
    if shared.looking_for_topic.swap(true, Ordering::AcqRel) {
        return;
    }
    let (shared, events) = (Arc::clone(shared), events.clone());
    let runtime = shared.runtime.clone();
    runtime.spawn(async move {
        if is_topic_missing(&shared).await {
            let topic = &shared.topic;
            let reason = format!("topic `{topic}` does not exist: create it, or correct kafka.topic");
            shared.status.set_problem(Some(&reason));
            let _ = events.send(AssignmentEvent::Fatal(reason));
        }
        shared.looking_for_topic.store(false, Ordering::Release);
    });
}

async fn is_topic_missing(shared: &Shared) -> bool {
    for look in 0..TOPIC_LOOKS {
        if look > 0 {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        let topic = shared.topic.clone();
        let question = move |client: &Client| {
            let metadata = client.fetch_metadata(Some(&topic), ATTEMPT)?;
            let error = metadata
                .topics()
                .iter()
                .find(|found| found.name() == topic)
                .and_then(rdkafka::metadata::MetadataTopic::error);
            Ok(error == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART))
        };
        if !ask(shared, "topic", -1, question).await {
            return false;
        }
    }
    true
}

/// A list of one partition.
pub(super) fn one_partition(topic: &str, partition: i32, offset: Option<Offset>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(1);
    match offset {
        Some(offset) => list.add_partition_offset(topic, partition, offset)?,
        None => drop(list.add_partition(topic, partition)),
    }
    Ok(list)
}

fn first_offset(list: &TopicPartitionList) -> KafkaResult<Offset> {
    let elements = list.elements();
    let element = elements.first().ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::Fail))?;
    element.error()?;
    Ok(element.offset())
}
