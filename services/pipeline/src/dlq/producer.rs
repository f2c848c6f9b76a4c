//! Records go out in transactions. The number of the batch goes with them, as the offset of a group of its own: Kafka
//! commits both or neither, so the group's offset says for ever after which batches count.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

use super::selection::Address;
use crate::config::KafkaConfig;
use crate::ops::advice::{Advise as _, Advised, advised};
use crate::verify::kafka::client_config;

/// How long a broker may take for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// After so long the broker ends the transaction of a process that has died. Until then consumers do not see what was
/// written to these partitions behind it.
const TRANSACTION_TIMEOUT_MS: &str = "10000";
/// The broker judges what is too large.
const LARGEST_MESSAGE: &str = "67108864";

/// A record to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// The dead letter that it was.
    pub(super) from: Address,
    pub(super) partition: i32,
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Why a batch was not sent.
#[derive(Debug)]
pub(super) enum SendError {
    /// None of its records counts.
    Aborted(anyhow::Error),
    /// The next redrive will find out.
    Undecided(anyhow::Error),
}

/// What went wrong with single records.
#[derive(Debug, Clone, Default)]
struct Deliveries(Arc<Mutex<Vec<(Address, KafkaError)>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Address>;

    fn delivery(&self, result: &DeliveryResult<'_>, from: Self::DeliveryOpaque) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((*from, error.clone()));
        }
    }
}

/// The one producer that may redrive a topic for a group. All calls block.
pub(super) struct TransactionalProducer {
    producer: BaseProducer<Deliveries>,
    deliveries: Deliveries,
    /// Not a member of its group; it only names it and asks for its offset.
    group: BaseConsumer,
    topic: String,
}

impl TransactionalProducer {
    /// Takes the transactional id over: whatever another process has begun with it ends here.
    pub(super) fn connect(kafka: &KafkaConfig) -> anyhow::Result<Self> {
        let (topic, name) = (kafka.topic.clone(), format!("{}.redrive", kafka.group));
        let mut config = ClientConfig::new();
        config.set("linger.ms", "5").set("compression.type", "lz4").set("message.max.bytes", LARGEST_MESSAGE);
        for (property, value) in kafka.client_properties()?.into_iter().filter(|(property, _)| property != "group.id") {
            config.set(property, value);
        }
        config
            .set("client.id", "kappa-redrive")
            .set("transactional.id", format!("{name}.{topic}"))
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("message.timeout.ms", TRANSACTION_TIMEOUT_MS)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // The properties are the consumer's as well, and librdkafka warns of those that are only for one of them.
            .set_log_level(RDKafkaLogLevel::Error);
        let deliveries = Deliveries::default();
        let producer: BaseProducer<Deliveries> =
            config.create_with_context(deliveries.clone()).context("kafka.properties")?;
        let group: BaseConsumer = client_config(kafka)?.set("group.id", &name).create().context("kafka.properties")?;
        producer.init_transactions(ANSWER).advise(
            "Kafka does not let this user send in transactions",
            format!(
                "it needs Write on the topic {topic}, Write and Describe on the transactional id {name}.{topic}, and Read \
                 on the group {name}"
            ),
        )?;
        Ok(Self { producer, deliveries, group, topic })
    }

    /// The number of the last batch that counts, as Kafka knows it.
    pub(super) fn last_sent(&self) -> anyhow::Result<Option<u64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, 0);
        let found = self.group.committed_offsets(list, ANSWER).context("cannot ask for the group's offset")?;
        let element = found.find_partition(&self.topic, 0).context("Kafka does not answer for the group's offset")?;
        element.error().context("cannot ask for the group's offset")?;
        Ok(match element.offset() {
            Offset::Offset(number) => u64::try_from(number).ok(),
            _ => None,
        })
    }

    /// Sends a batch: all of it, or nothing.
    pub(super) fn send(
        &self,
        sequence: u64,
        records: &[Outgoing],
        before_commit: impl FnOnce(),
    ) -> Result<(), SendError> {
        if let Err(error) = self.producer.begin_transaction() {
            return Err(undecided(error));
        }
        if let Err(error) = self.fill(sequence, records) {
            return match self.producer.abort_transaction(ANSWER) {
                Ok(()) => Err(SendError::Aborted(error)),
                Err(abort) => Err(SendError::Undecided(error.context(format!("and it could not be aborted: {abort}")))),
            };
        }
        before_commit();
        loop {
            match self.producer.commit_transaction(ANSWER) {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() => {}
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                    return match self.producer.abort_transaction(ANSWER) {
                        Ok(()) => Err(SendError::Aborted(anyhow::Error::new(KafkaError::Transaction(error)))),
                        Err(abort) => Err(undecided(abort)),
                    };
                }
                Err(error) => return Err(undecided(error)),
            }
        }
    }

    fn fill(&self, sequence: u64, records: &[Outgoing]) -> anyhow::Result<()> {
        let deadline = Instant::now() + ANSWER;
        for record in records {
            self.produce(record, deadline)?;
        }
        self.producer.flush(ANSWER).context("Kafka does not take the records")?;
        let refused = std::mem::take(&mut *self.deliveries.0.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some((from, error)) = refused.into_iter().next() {
            return Err(refused_record(from, error));
        }
        let mut position = TopicPartitionList::new();
        let number = i64::try_from(sequence).context("no more batches")?;
        position.add_partition_offset(&self.topic, 0, Offset::Offset(number))?;
        let group = self.group.group_metadata().context("the group is not known")?;
        self.producer.send_offsets_to_transaction(&position, &group, ANSWER).context("cannot add the batch's number")
    }

    fn produce(&self, record: &Outgoing, deadline: Instant) -> anyhow::Result<()> {
        let headers =
            record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, header| {
                headers.insert(Header { key: &header.0, value: header.1.as_deref() })
            });
        let mut outgoing = BaseRecord::<[u8], [u8], _>::with_opaque_to(&self.topic, Box::new(record.from))
            .partition(record.partition)
            .timestamp(record.timestamp_ms)
            .headers(headers);
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        loop {
            match self.producer.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned))
                    if Instant::now() < deadline =>
                {
                    outgoing = returned;
                    self.producer.poll(Duration::from_millis(100));
                }
                Err((error, _)) => return Err(refused_record(record.from, error)),
            }
        }
    }
}

impl std::fmt::Debug for TransactionalProducer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TransactionalProducer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

fn undecided(error: KafkaError) -> SendError {
    let fenced = error.rdkafka_error_code().is_some_and(|code| {
        matches!(
            code,
            RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
        )
    });
    SendError::Undecided(if fenced {
        advised(
            "another redrive of this topic has begun, which ends this one",
            "let it finish, then run this one again",
        )
    } else {
        anyhow::Error::new(error)
    })
}

fn refused_record(from: Address, error: KafkaError) -> anyhow::Error {
    let advice = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
            "with its headers it is larger than the topic's max.message.bytes: raise that, or leave the record out"
        }
        Some(RDKafkaErrorCode::InvalidTimestamp) => {
            "the topic does not take records so old (message.timestamp.before.max.ms): leave --keep-timestamp out"
        }
        _ => "nothing of its batch counts; mend the cause and run the command again",
    };
    anyhow::Error::new(error).context(Advised::new(format!("Kafka does not take the record {from}"), advice))
}
