//! librdkafka's mock cluster: a Kafka broker in a thread of this process, its log in memory.
//!
//! It speaks enough of the protocol for producers and for consumer groups with committed offsets. What it does not
//! have, found in its source and by trial, and what the demo does about it:
//!
//! - **It keeps 5 MiB of a partition** (as compressed on the wire, fixed at compile time) and drops the oldest batch
//!   beyond that, silently, whoever has not read it yet. The producer therefore watches the pipeline and holds back
//!   long before ([`crate::demo::backpressure`]).
//! - A fetch answers with one batch a partition, and an empty one only after the whole `fetch.wait.max.ms`, even if
//!   something arrives meanwhile. The demo's consumer waits for [`FETCH_WAIT_MS`] only, its producer makes large batches.
//! - The first member of a group waits for 3 s for others. Any later rebalance takes almost a session timeout, even if
//!   nobody is left to be waited for.
//! - No admin API, no offsets by time, no deduplication of an idempotent producer's retries.
//! - Its log ends with the process. So a demo never continues an earlier one.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, anyhow};
use rdkafka::mocking::MockCluster;

/// Bytes of a partition that the mock cluster keeps; `max_size` in librdkafka's `rdkafka_mock.c`.
pub const RETAINED_BYTES: u64 = 5 * 1024 * 1024;

/// What consumers of the mock cluster should set as `fetch.wait.max.ms`.
pub const FETCH_WAIT_MS: u32 = 20;

/// The running broker; dropping it ends it.
#[derive(Debug)]
pub struct EmbeddedBroker {
    bootstrap_servers: String,
    /// Dropped to end the thread.
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts the broker with one topic.
    pub fn start(topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (started, ready) = mpsc::sync_channel(1);
        let topic = topic.to_owned();
        // The cluster has a thread of its own inside librdkafka, but its handle may not move between threads.
        let thread = thread::Builder::new()
            .name("demo-broker".to_owned())
            .spawn(move || hold_cluster(&topic, partitions, &started, &stopped))
            .context("start a thread for the embedded broker")?;
        let bootstrap_servers = ready.recv().map_err(|_| anyhow!("the embedded broker's thread has died"))??;
        Ok(Self { bootstrap_servers, stop: Some(stop), thread: Some(thread) })
    }

    /// For `bootstrap.servers`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

fn hold_cluster(
    topic: &str,
    partitions: i32,
    started: &mpsc::SyncSender<anyhow::Result<String>>,
    stopped: &mpsc::Receiver<()>,
) {
    let created = MockCluster::new(1).and_then(|cluster| {
        cluster.create_topic(topic, partitions, 1)?;
        Ok(cluster)
    });
    match created {
        Ok(cluster) => {
            let told = started.send(Ok(cluster.bootstrap_servers()));
            if told.is_ok() {
                // Ends with an error as soon as the sender is dropped: the sign to stop.
                let _ = stopped.recv();
            }
        }
        Err(error) => {
            let _ = started.send(Err(anyhow!(error).context("start librdkafka's mock cluster")));
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
    use rdkafka::message::Message;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;

    const TOPIC: &str = "trial";
    const WAIT: Duration = Duration::from_secs(20);

    fn consumer(broker: &EmbeddedBroker, assignor: &str) -> BaseConsumer {
        ClientConfig::new()
            .set("bootstrap.servers", broker.bootstrap_servers())
            .set("group.id", "trial-group")
            .set("partition.assignment.strategy", assignor)
            .set("enable.auto.commit", "false")
            .set("session.timeout.ms", "6000")
            .set("auto.offset.reset", "earliest")
            .set("fetch.wait.max.ms", FETCH_WAIT_MS.to_string())
            .create()
            .unwrap()
    }

    fn produce(broker: &EmbeddedBroker, count: usize, payload: &[u8]) {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).create().unwrap();
        for index in 0..count {
            let key = index.to_string();
            producer.send(BaseRecord::to(TOPIC).key(&key).payload(payload)).unwrap();
            producer.poll(Duration::ZERO);
        }
        producer.flush(WAIT).unwrap();
    }

    fn consume(consumer: &BaseConsumer, count: usize) -> Vec<(i32, i64)> {
        let until = Instant::now() + WAIT;
        let mut positions = Vec::new();
        while positions.len() < count && Instant::now() < until {
            if let Some(message) = consumer.poll(Duration::from_millis(50)) {
                let message = message.unwrap();
                positions.push((message.partition(), message.offset()));
            }
        }
        positions
    }

    #[test]
    fn groups_commit_and_go_on_from_there() {
        for assignor in ["range", "cooperative-sticky"] {
            let broker = EmbeddedBroker::start(TOPIC, 3).unwrap();
            produce(&broker, 300, b"payload");
            let first = consumer(&broker, assignor);
            first.subscribe(&[TOPIC]).unwrap();
            let positions = consume(&first, 300);
            assert_eq!(positions.len(), 300, "{assignor}");

            let mut committed = TopicPartitionList::new();
            for partition in 0..3 {
                committed.add_partition_offset(TOPIC, partition, Offset::Offset(50)).unwrap();
            }
            first.commit(&committed, CommitMode::Sync).unwrap();
            drop(first);

            let second = consumer(&broker, assignor);
            let found = second.committed_offsets(committed.clone(), WAIT).unwrap();
            assert_eq!(found, committed, "{assignor}");
            second.subscribe(&[TOPIC]).unwrap();
            let positions = consume(&second, 150);
            assert_eq!(positions.len(), 150, "{assignor}");
            assert!(positions.iter().all(|(_, offset)| *offset >= 50), "{assignor}");
        }
    }

    #[test]
    fn the_log_is_cut_at_five_mebibytes_and_says_so() {
        let broker = EmbeddedBroker::start(TOPIC, 1).unwrap();
        produce(&broker, 12_000, &[b'x'; 1_000]);
        let reader = consumer(&broker, "range");
        let (low, high) = reader.fetch_watermarks(TOPIC, 0, WAIT).unwrap();
        assert_eq!(high, 12_000);
        let retained = (high - low) as u64 * 1_000;
        assert!(low > 0 && retained < RETAINED_BYTES, "{low}");
        assert!(retained > RETAINED_BYTES / 2, "{low}");
    }
}
