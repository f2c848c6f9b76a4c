//! Brokers, topic and group.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};

use super::Check;
use crate::config::{Config, KafkaConfig};

/// For each question to the brokers.
const TIMEOUT: Duration = Duration::from_secs(8);

/// For one try of it.
const ATTEMPT: Duration = Duration::from_secs(2);

/// What librdkafka says beside its calls. A call that is refused for a missing right or a wrong password just takes too
/// long; why is told here.
#[derive(Debug, Default)]
struct Complaints(Mutex<Vec<(Option<RDKafkaErrorCode>, String)>>);

impl ClientContext for Complaints {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((error.rdkafka_error_code(), reason.to_owned()));
    }
}

impl ConsumerContext for Complaints {}

type Client = BaseConsumer<Complaints>;

/// The refusal that librdkafka told last, if there was one.
fn refusal(consumer: &Client) -> Option<(RDKafkaErrorCode, String)> {
    // Complaints come with the events.
    drop(consumer.poll(Duration::from_millis(100)));
    let complaints = consumer.context().0.lock().unwrap_or_else(PoisonError::into_inner);
    let with_code = complaints.iter().rev().filter_map(|(code, reason)| Some(((*code)?, reason.clone())));
    let mut refusals = with_code.filter(|(code, _)| {
        matches!(
            code,
            RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
        )
    });
    refusals.next()
}

/// Why a question has no answer.
struct Unanswered {
    error: KafkaError,
    refusal: Option<(RDKafkaErrorCode, String)>,
}

/// Asks again until there is an answer, a refusal, or no time left: the coordinator of a young cluster is only just found.
fn ask<T>(consumer: &Client, question: impl Fn(Duration) -> KafkaResult<T>) -> Result<T, Unanswered> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let error = match question(ATTEMPT) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let refusal = refusal(consumer);
        if refusal.is_some() || Instant::now() >= deadline {
            return Err(Unanswered { error, refusal });
        }
    }
}

/// librdkafka's calls block, so they get a thread of their own.
pub(super) async fn check(config: &Config) -> Vec<Check> {
    let kafka = config.kafka.clone();
    let checks = tokio::task::spawn_blocking(move || check_blocking(&kafka)).await;
    checks.unwrap_or_else(|error| vec![Check::fail("kafka brokers", error.to_string(), "report this as a bug")])
}

fn check_blocking(kafka: &KafkaConfig) -> Vec<Check> {
    let consumer = match connect(kafka) {
        Ok(consumer) => consumer,
        Err(error) => return vec![Check::error("kafka client", &error)],
    };
    let brokers = match ask(&consumer, |timeout| consumer.fetch_metadata(None, timeout)) {
        Ok(metadata) => metadata.brokers().len(),
        Err(Unanswered { refusal: Some((_, reason)), .. }) => {
            let advice = "check sasl.mechanism, sasl.username and sasl.password_file below [kafka.properties]";
            return vec![Check::fail("kafka brokers", reason, advice)];
        }
        Err(Unanswered { error, .. }) => {
            let advice = "check kafka.brokers; for a cluster with TLS or SASL, security.protocol and the like below \
                          [kafka.properties]; `--log-level debug` shows what librdkafka tries";
            return vec![Check::fail("kafka brokers", error.to_string(), advice)];
        }
    };
    let mut checks = vec![Check::ok("kafka brokers", format!("{brokers} known through {}", kafka.brokers.join(", ")))];
    let partitions = match partitions_of(&consumer, &kafka.topic) {
        Ok(partitions) => partitions,
        Err(check) => {
            checks.push(check);
            return checks;
        }
    };
    checks.push(Check::ok("kafka topic", format!("{} with {} partitions", kafka.topic, partitions.len())));
    checks.push(check_group(&consumer, kafka, &partitions));
    checks
}

fn connect(kafka: &KafkaConfig) -> anyhow::Result<Client> {
    let mut client = ClientConfig::new();
    client.extend(kafka.client_properties()?);
    client.set("enable.auto.commit", "false");
    Ok(client.create_with_context(Complaints::default())?)
}

fn partitions_of(consumer: &Client, topic: &str) -> Result<Vec<i32>, Check> {
    const NAME: &str = "kafka topic";
    let metadata = consumer.fetch_metadata(Some(topic), TIMEOUT);
    let metadata = metadata.map_err(|error| Check::fail(NAME, error.to_string(), "check the brokers"))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(Check::fail(NAME, format!("{topic} is not in the brokers' answer"), "create the topic"));
    };
    if let Some(error) = found.error() {
        let code = RDKafkaErrorCode::from(error);
        let advice = match code {
            RDKafkaErrorCode::TopicAuthorizationFailed => "allow this user to READ and DESCRIBE the topic",
            _ => "create the topic, or set kafka.topic to one that exists",
        };
        return Err(Check::fail(NAME, format!("{topic}: {code}"), advice));
    }
    if found.partitions().is_empty() {
        return Err(Check::fail(NAME, format!("{topic} does not exist"), "create the topic, or set kafka.topic"));
    }
    Ok(found.partitions().iter().map(rdkafka::metadata::MetadataPartition::id).collect())
}

fn check_group(consumer: &Client, kafka: &KafkaConfig, partitions: &[i32]) -> Check {
    const NAME: &str = "kafka group";
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(&kafka.topic, *partition);
    }
    match ask(consumer, |timeout| consumer.committed_offsets(asked.clone(), timeout)) {
        Ok(offsets) => {
            let elements = offsets.elements();
            let committed = elements.iter().filter(|element| matches!(element.offset(), Offset::Offset(_))).count();
            let start = if committed < partitions.len() {
                format!("; the others start with {}", kafka.start)
            } else {
                String::new()
            };
            Check::ok(
                NAME,
                format!("{} has committed {committed} of {} partitions{start}", kafka.group, partitions.len()),
            )
        }
        Err(Unanswered { error, refusal }) => {
            let code = refusal.map(|(code, _)| code).or(error.rdkafka_error_code());
            if code == Some(RDKafkaErrorCode::GroupAuthorizationFailed) {
                let detail = format!("{} is not ours to use", kafka.group);
                return Check::fail(NAME, detail, "allow this user to READ the group");
            }
            Check::fail(NAME, error.to_string(), "check that the group coordinator is reachable")
        }
    }
}
