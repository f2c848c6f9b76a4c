//! A cluster, mock or real, and a member of a group on it.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, missing_docs, unreachable_pub, reason = "tests")]

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kappa_pipeline::config::{FetcherChoice, KafkaConfig, StartPolicy};
use kappa_pipeline::ingest::{AssignmentEvent, Consumer, IngestLimits, IngestStatus, KafkaPartitionLog};
use kappa_pipeline::memory::MemoryBudget;
use kappa_pipeline::partition::seams::PartitionLog;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::{MockCluster, MockCoordinator};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_mins(1);

pub struct Cluster {
    brokers: String,
    mock: Option<MockCluster<'static, DefaultProducerContext>>,
    run: String,
    /// Who fetches for the members on this cluster.
    fetcher: FetcherChoice,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    pub fn simple(partition: i32, offset: i64, timestamp_ms: i64) -> Self {
        Self { partition, offset, timestamp_ms, key: None, value: Some(payload(offset)), headers: Vec::new() }
    }
}

/// About 80 bytes that say which record they are of.
pub fn payload(index: i64) -> Vec<u8> {
    format!("record {index:012} {:060}", index.wrapping_mul(7_919)).into_bytes()
}

impl Cluster {
    pub fn mock(fetcher: FetcherChoice) -> Self {
        Self::mock_of(1, fetcher)
    }

    pub fn mock_of(brokers: i32, fetcher: FetcherChoice) -> Self {
        let mock = MockCluster::new(brokers).unwrap();
        Self { brokers: mock.bootstrap_servers(), mock: Some(mock), run: "mock".to_owned(), fetcher }
    }

    pub fn real(fetcher: FetcherChoice) -> Option<Self> {
        let Ok(brokers) = std::env::var("KAFKA_BROKERS") else {
            println!("skipped: KAFKA_BROKERS is not set");
            return None;
        };
        let run = format!("ingest-{:x}", std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos());
        Some(Self { brokers, mock: None, run, fetcher })
    }

    pub fn is_mock(&self) -> bool {
        self.mock.is_some()
    }

    /// A new topic.
    pub async fn topic(&self, partitions: i32) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let topic = format!("{}-{}", self.run, COUNT.fetch_add(1, Ordering::Relaxed));
        if let Some(mock) = &self.mock {
            mock.create_topic(&topic, partitions, 1).unwrap();
        } else {
            self.create(&topic, partitions).await;
        }
        topic
    }

    async fn create(&self, topic: &str, partitions: i32) {
        self.create_with(topic, partitions, &[]).await;
    }

    pub async fn create_with(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        for _ in 0..50 {
            let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
            for (name, value) in settings {
                new = new.set(name, value);
            }
            let results = self.admin().create_topics([&new], &AdminOptions::new()).await.unwrap();
            match &results[0] {
                Ok(_) => return,
                // A topic that is just being deleted.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => tokio::time::sleep(Duration::from_millis(200)).await,
                Err(error) => panic!("{error:?}"),
            }
        }
        panic!("{topic} is not deleted");
    }

    pub async fn delete(&self, topic: &str) {
        self.admin().delete_topics(&[topic], &AdminOptions::new()).await.unwrap();
    }

    pub async fn recreate(&self, topic: &str, partitions: i32) {
        self.delete(topic).await;
        self.create(topic, partitions).await;
    }

    pub async fn delete_before(&self, topic: &str, partition: i32, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).unwrap();
        self.admin().delete_records(&offsets, &AdminOptions::new()).await.unwrap();
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap()
    }

    /// The mock cluster's only broker goes away or comes back.
    pub fn set_up(&self, up: bool) {
        let mock = self.mock.as_ref().unwrap();
        if up { mock.broker_up(1) } else { mock.broker_down(1) }.unwrap();
    }

    /// Another broker of the mock cluster leads from now on.
    pub fn set_leader(&self, topic: &str, partition: i32, broker: i32) {
        self.mock.as_ref().unwrap().partition_leader(topic, partition, Some(broker)).unwrap();
    }

    /// A broker of the mock cluster takes care of the groups of this topic's members.
    pub fn set_coordinator(&self, topic: &str, group: &str, broker: i32) {
        let group = format!("{topic}-{group}");
        self.mock.as_ref().unwrap().coordinator(MockCoordinator::Group(group), broker).unwrap();
    }

    /// A broker of the mock cluster answers only after so long.
    pub fn set_delay(&self, broker: i32, delay: Duration) {
        self.mock.as_ref().unwrap().broker_round_trip_time(broker, delay).unwrap();
    }

    pub fn producer(&self) -> BaseProducer {
        self.producer_with(&[])
    }

    pub fn producer_with(&self, properties: &[(&str, &str)]) -> BaseProducer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("queue.buffering.max.messages", "1000000")
            .set("compression.type", "lz4")
            .set("linger.ms", "2");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config.create().unwrap()
    }

    pub fn produce(&self, topic: &str, records: &[Record]) {
        let producer = self.producer();
        for record in records {
            let mut headers = OwnedHeaders::new();
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: value.as_deref() });
            }
            let mut message =
                BaseRecord::<[u8], [u8]>::to(topic).partition(record.partition).timestamp(record.timestamp_ms);
            if !record.headers.is_empty() {
                message = message.headers(headers);
            }
            if let Some(key) = &record.key {
                message = message.key(key);
            }
            if let Some(value) = &record.value {
                message = message.payload(value);
            }
            send(&producer, message);
        }
        producer.flush(PATIENCE).unwrap();
    }

    pub fn produce_many(&self, topic: &str, partition: i32, indexes: Range<i64>) {
        produce_with(&self.producer(), topic, partition, indexes);
    }
}

pub fn produce_with(producer: &BaseProducer, topic: &str, partition: i32, indexes: Range<i64>) {
    for index in indexes {
        let value = payload(index);
        send(producer, BaseRecord::<[u8], [u8]>::to(topic).partition(partition).payload(&value));
    }
    producer.flush(PATIENCE).unwrap();
}

fn send(producer: &BaseProducer, mut message: BaseRecord<'_, [u8], [u8]>) {
    while let Err((error, back)) = producer.send(message) {
        assert_eq!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
        producer.poll(Duration::from_millis(20));
        message = back;
    }
}

/// Takes records until there are at least so many.
pub async fn collect(log: &mut KafkaPartitionLog, count: usize) -> Vec<Record> {
    let mut records = Vec::with_capacity(count);
    while records.len() < count {
        let delivery = timeout(PATIENCE, log.next())
            .await
            .unwrap_or_else(|_| panic!("{} of {count} records of partition {}", records.len(), log.partition()))
            .unwrap();
        assert!(!delivery.batch.is_empty());
        assert!(delivery.high_watermark.is_none_or(|high| high >= delivery.batch.end_offset().unwrap()));
        for record in delivery.batch.iter() {
            records.push(Record {
                partition: log.partition(),
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                    .collect(),
            });
        }
    }
    records
}

pub struct Member {
    consumer: Consumer,
    events: UnboundedReceiver<AssignmentEvent>,
    budget: Arc<MemoryBudget>,
}

impl Member {
    pub fn start(cluster: &Cluster, topic: &str, group: &str, properties: &[(&str, &str)]) -> Self {
        let limits = IngestLimits::default();
        Self::start_with(cluster, topic, group, properties, limits, 1 << 30, StartPolicy::Earliest)
    }

    pub fn start_with(
        cluster: &Cluster,
        topic: &str,
        group: &str,
        properties: &[(&str, &str)],
        limits: IngestLimits,
        memory: usize,
        start: StartPolicy,
    ) -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let mut config = KafkaConfig {
            brokers: cluster.brokers.split(',').map(str::to_owned).collect(),
            topic: topic.to_owned(),
            group: format!("{topic}-{group}"),
            start,
            fetcher: cluster.fetcher,
            properties: properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        if cluster.is_mock() {
            // The mock coordinator waits for nearly a session timeout in every rebalance; a test may say otherwise.
            for (name, value) in [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")] {
                config.properties.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        // To try things: `KAFKA_PROPERTIES=debug=cgrp,check.crcs=false`.
        let tried = std::env::var("KAFKA_PROPERTIES").unwrap_or_default();
        for (name, value) in tried.split(',').filter_map(|property| property.split_once('=')) {
            config.properties.insert(name.to_owned(), value.to_owned());
        }
        let budget = MemoryBudget::new(memory);
        let (sender, events) = unbounded_channel();
        let consumer = Consumer::start(&config, limits, Arc::clone(&budget), sender).unwrap();
        Self { consumer, events, budget }
    }

    pub fn status(&self) -> Arc<IngestStatus> {
        self.consumer.status()
    }

    pub fn budget(&self) -> &Arc<MemoryBudget> {
        &self.budget
    }

    pub async fn event(&mut self) -> AssignmentEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event").unwrap()
    }

    pub fn no_event(&mut self) -> bool {
        self.events.try_recv().is_err()
    }

    /// The next `count` assigned partitions.
    pub async fn assigned(&mut self, count: usize) -> Vec<KafkaPartitionLog> {
        let mut logs = Vec::new();
        while logs.len() < count {
            if let AssignmentEvent::Assigned(log) = self.event().await {
                logs.push(log);
            }
        }
        logs
    }

    /// The next revoked partition.
    pub async fn revoked(&mut self) -> i32 {
        loop {
            if let AssignmentEvent::Revoked { partition } = self.event().await {
                return partition;
            }
        }
    }

    /// The group's answer that there is nothing for this member.
    pub async fn nothing_assigned(&mut self) {
        while !matches!(self.event().await, AssignmentEvent::NothingAssigned) {}
    }

    /// A worker for every assigned partition, for ever.
    pub async fn run(self, worker: impl Fn(KafkaPartitionLog) -> JoinHandle<()>) -> usize {
        let (_never, stopped) = oneshot::channel();
        self.run_until(worker, stopped).await
    }

    /// A worker for every assigned partition, until `stopped`; how many partitions it had at the end.
    pub async fn run_until(
        mut self,
        worker: impl Fn(KafkaPartitionLog) -> JoinHandle<()>,
        mut stopped: oneshot::Receiver<()>,
    ) -> usize {
        let mut workers = HashMap::new();
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                _ = &mut stopped => break,
            };
            match event {
                Some(AssignmentEvent::Assigned(log)) => {
                    workers.insert(log.partition(), worker(log));
                }
                Some(AssignmentEvent::Revoked { partition }) => workers.remove(&partition).unwrap().abort(),
                Some(AssignmentEvent::NothingAssigned) => {}
                Some(AssignmentEvent::Fatal(reason)) => panic!("{reason}"),
                None => break,
            }
        }
        let count = workers.len();
        for worker in workers.into_values() {
            worker.abort();
            if let Err(error) = worker.await {
                assert!(!error.is_panic(), "{error}");
            }
        }
        tokio::task::spawn_blocking(move || self.stop()).await.unwrap();
        count
    }

    pub fn stop(self) {
        self.consumer.stop();
    }
}
