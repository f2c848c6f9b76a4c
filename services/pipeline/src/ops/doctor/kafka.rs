//! Brokers, topic and group.

use std::time::Duration;

use backon::{BlockingRetryable, ConstantBuilder};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::Check;
use crate::config::{Config, KafkaConfig};

/// For each question to the brokers.
const TIMEOUT: Duration = Duration::from_secs(8);
/// How often a group is asked for again, and how long apart, while its coordinator is being elected or loads.
const GROUP_LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

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
    let brokers = match consumer.fetch_metadata(None, TIMEOUT) {
        Ok(metadata) => metadata.brokers().len(),
        Err(error) => {
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

fn connect(kafka: &KafkaConfig) -> anyhow::Result<BaseConsumer> {
    let mut client = ClientConfig::new();
    client.extend(kafka.client_properties()?);
    client.set("enable.auto.commit", "false");
    Ok(client.create()?)
}

fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>, Check> {
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

fn check_group(consumer: &BaseConsumer, kafka: &KafkaConfig, partitions: &[i32]) -> Check {
    const NAME: &str = "kafka group";
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        asked.add_partition(&kafka.topic, *partition);
    }
    let ask = || consumer.committed_offsets(asked.clone(), TIMEOUT);
    let looks = ConstantBuilder::default().with_delay(BETWEEN_LOOKS).with_max_times(GROUP_LOOKS);
    match ask.retry(looks).when(is_coordinator_on_the_move).call() {
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
        Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupAuthorizationFailed) => {
            Check::fail(NAME, format!("{} is not ours to use", kafka.group), "allow this user to READ the group")
        }
        Err(error) => Check::fail(NAME, error.to_string(), "check that the group coordinator is reachable"),
    }
}

/// Just after a broker's start, or a new group's first use, the answer of a moment later is another one.
fn is_coordinator_on_the_move(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator};
    let code = error.rdkafka_error_code();
    [NotCoordinator, CoordinatorNotAvailable, CoordinatorLoadInProgress].map(Some).contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_coordinator_on_the_move_is_asked_again() {
        assert!(is_coordinator_on_the_move(&KafkaError::MetadataFetch(RDKafkaErrorCode::NotCoordinator)));
        assert!(is_coordinator_on_the_move(&KafkaError::OffsetFetch(RDKafkaErrorCode::CoordinatorLoadInProgress)));
        assert!(!is_coordinator_on_the_move(&KafkaError::MetadataFetch(RDKafkaErrorCode::GroupAuthorizationFailed)));
        assert!(!is_coordinator_on_the_move(&KafkaError::Canceled));
    }
}
