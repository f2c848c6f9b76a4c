//! Questions to the brokers. librdkafka's calls for them block, so they run on tokio's blocking threads, each with a
//! timeout; what fails is asked again until it is answered, however long the brokers are away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::{MetadataBroker, MetadataPartition, MetadataTopic};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::batch_queue::{add_brokers, describe_topic_id};
use super::shared::{Client, Shared, lock};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Each time costs librdkafka the bytes of the list, for good: some ten thousand times a day while all brokers are away.
const NAME_BROKERS_EVERY: Duration = Duration::from_secs(8);
/// For how long a topic id is believed: partitions are assigned many at a time.
const TOPIC_ID_VALID: Duration = Duration::from_secs(5);
/// How often a topic is looked for, and how long apart, before it counts as missing. A new topic's metadata takes a
/// moment to reach all brokers.
const TOPIC_LOOKS: u32 = 3;
const BETWEEN_LOOKS: Duration = Duration::from_secs(2);
/// How often to look whether the topic is still the same. For so long provisional rows of another one may be written.
const TOPIC_WATCH: Duration = Duration::from_secs(1);

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
        let Ok(permit) = shared.questions.acquire().await else { return std::future::pending().await };
        let Some(client) = shared.client() else { return std::future::pending().await };
        let attempt = question.clone();
        let Ok(answer) = shared.runtime.spawn_blocking(move || attempt(&client)).await else {
            return std::future::pending().await;
        };
        drop(permit);
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
        name_brokers_again(shared);
        tokio::time::sleep(pauses.next().unwrap_or(ATTEMPT)).await;
    }
}

/// Names the configured brokers to librdkafka once more, now and then while none answers.
///
/// It drops all that it knows, those too, when a broker that is just leaving or joining its cluster answers that there are no
/// brokers. What should then make it begin anew gets lost where another answer comes in between, and it stays without a
/// broker for ever: <https://github.com/confluentinc/librdkafka/issues/5301>.
fn name_brokers_again(shared: &Shared) {
    let Some(client) = shared.client() else { return };
    let mut named_at = lock(&shared.brokers_named_at);
    if named_at.elapsed() >= NAME_BROKERS_EVERY {
        *named_at = Instant::now();
        add_brokers(&client, &shared.brokers);
    }
}

/// The low and high watermarks.
pub(super) async fn watermarks(shared: &Shared, partition: i32) -> (i64, i64) {
    let topic = shared.topic.clone();
    ask(shared, "watermarks", partition, move |client| client.fetch_watermarks(&topic, partition, ATTEMPT)).await
}

/// Who leads the partitions of the topic.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    /// Those that have a leader with an address.
    pub(super) of_partition: HashMap<i32, i32>,
    /// Host and port by broker.
    pub(super) addresses: HashMap<i32, (String, u16)>,
}

/// The leaders at this moment.
pub(super) async fn leaders(shared: &Shared) -> Leaders {
    let topic = shared.topic.clone();
    let question = move |client: &Client| {
        let metadata = client.fetch_metadata(Some(&topic), ATTEMPT)?;
        let address = |broker: &MetadataBroker| Some((broker.host().to_owned(), u16::try_from(broker.port()).ok()?));
        let addresses: HashMap<_, _> =
            metadata.brokers().iter().filter_map(|broker| Some((broker.id(), address(broker)?))).collect();
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map_or(&[][..], MetadataTopic::partitions);
        let of_partition = partitions.iter().map(|partition| (partition.id(), partition.leader()));
        Ok(Leaders { of_partition: of_partition.filter(|(_, id)| addresses.contains_key(id)).collect(), addresses })
    };
    ask(shared, "leaders", -1, question).await
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
        let id = ask_topic_id(client, &known.topic)?;
        *lock(&known.topic_id) = Some((Instant::now(), id.clone()));
        Ok(id)
    };
    ask(shared, "topic id", partition, question).await
}

/// The topic's identity at this moment, as the leader of the partition knows it: what it sends are the records of that
/// topic. `None` where it does not say, or knows no such topic.
pub(super) async fn topic_id_now(shared: &Shared, partition: i32) -> Option<String> {
    let topic = shared.topic.clone();
    let question = move |client: &Client| {
        let metadata = client.fetch_metadata(Some(&topic), ATTEMPT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map_or(&[][..], MetadataTopic::partitions);
        let leader = partitions.iter().find(|found| found.id() == partition).map(MetadataPartition::leader);
        // Without a leader any broker will do: no records come.
        let any = metadata.brokers().first().map(MetadataBroker::id);
        let asked = leader.filter(|leader| *leader >= 0).or(any);
        let asked = asked.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown))?;
        match topic_id_of(client, &topic, asked) {
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)) => Ok(None),
            id => id,
        }
    };
    ask(shared, "topic id", partition, question).await
}

fn ask_topic_id(client: &Client, topic: &str) -> KafkaResult<Option<String>> {
    let metadata = client.fetch_metadata(Some(topic), ATTEMPT)?;
    let broker = metadata.brokers().first().ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::AllBrokersDown))?;
    topic_id_of(client, topic, broker.id())
}

fn topic_id_of(client: &Client, topic: &str, broker: i32) -> KafkaResult<Option<String>> {
    match describe_topic_id(client, topic, broker, ATTEMPT) {
        Ok(id) => Ok(id),
        // A broker that cannot or may not say it will not say it later either.
        Err(
            code @ (RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::TopicAuthorizationFailed),
        ) => {
            debug!("the topic's id is not known: {code}");
            Ok(None)
        }
        Err(code) => Err(KafkaError::MetadataFetch(code)),
    }
}

/// Watches the topic until it is gone or is another one; then says why nobody may go on.
///
/// librdkafka tells neither in time: a deleted topic is noticed with the next regular metadata refresh, and when it is
/// created again, the records of the new topic are fetched from the old position as if nothing had happened.
pub(super) async fn topic_gone(shared: &Arc<Shared>) -> String {
    let topic = &shared.topic;
    let (mut first_id, mut missing) = (None, 0);
    loop {
        match look_at_topic(shared).await {
            TopicState::Missing => missing += 1,
            TopicState::Exists(id) => {
                missing = 0;
                let known = first_id.get_or_insert_with(|| id.clone());
                if known.is_none() {
                    known.clone_from(&id);
                } else if id.is_some() && *known != id {
                    return format!(
                        "topic `{topic}` was deleted and created again (its id was {} and is {}): the offsets, the archive \
                         and the state are of the old one",
                        known.as_deref().unwrap_or_default(),
                        id.unwrap_or_default(),
                    );
                }
            }
        }
        if missing >= TOPIC_LOOKS {
            return format!("topic `{topic}` does not exist: create it, or correct kafka.topic");
        }
        tokio::time::sleep(if missing > 0 { BETWEEN_LOOKS } else { TOPIC_WATCH }).await;
    }
}

/// Whether there is such a topic.
pub(super) async fn topic_exists(shared: &Arc<Shared>) -> bool {
    matches!(look_at_topic(shared).await, TopicState::Exists(_))
}

enum TopicState {
    Missing,
    Exists(Option<String>),
}

async fn look_at_topic(shared: &Arc<Shared>) -> TopicState {
    let topic = shared.topic.clone();
    let question = move |client: &Client| {
        let metadata = client.fetch_metadata(Some(&topic), ATTEMPT)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        if found.and_then(MetadataTopic::error) == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) {
            return Ok(TopicState::Missing);
        }
        match ask_topic_id(client, &topic) {
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)) => Ok(TopicState::Missing),
            id => Ok(TopicState::Exists(id?)),
        }
    };
    ask(shared, "topic", -1, question).await
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
