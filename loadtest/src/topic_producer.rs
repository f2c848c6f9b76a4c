//! A producer for one topic, through the topic's own handle and in batches.
//!
//! rust-rdkafka hands records over one by one and names the topic with each: librdkafka then takes its client-wide lock
//! for writing, looks the topic up, reads the clock twice, and looks the partition up under another lock. With a handle
//! that is made once and `rd_kafka_produce_batch` a record costs the sending thread half as much. What that call cannot
//! do is give a record a timestamp of its own: it is that of the batch, as with any producer that does not set one.
#![allow(unsafe_code, reason = "rust-rdkafka has no safe form of a topic's handle, nor of a batch")]

use std::ffi::{CString, c_void};
use std::ops::Range;
use std::ptr::{self, NonNull};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use crate::fleet::Record;

/// `RD_KAFKA_PARTITION_UA` of rdkafka.h: the batch has no partition of its own.
const EACH_ITS_OWN: i32 = -1;

const NO_ERROR: native::rd_kafka_resp_err_t = native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// See the module.
#[expect(missing_debug_implementations, reason = "rust-rdkafka's producer has none")]
pub struct TopicProducer<C: ProducerContext<DeliveryOpaque = ()> + 'static> {
    producer: BaseProducer<C>,
    /// Of `producer`, which outlives it.
    topic: NonNull<native::rd_kafka_topic_t>,
    batch: Batch,
}

/// Records that are not handed over yet.
#[derive(Debug, Default)]
struct Batch {
    /// Keys and values, one behind the other.
    bytes: Vec<u8>,
    records: Vec<Placed>,
}

/// Where a record lies in the bytes of the batch.
#[derive(Debug)]
struct Placed {
    partition: i32,
    key: Range<usize>,
    /// None for a record without one.
    value: Option<Range<usize>>,
}

// SAFETY: librdkafka's topic handles may be used from any thread ("librdkafka is completely thread-safe",
// INTRODUCTION.md), and the other fields are `Send` themselves.
unsafe impl<C: ProducerContext<DeliveryOpaque = ()>> Send for TopicProducer<C> {}

impl<C: ProducerContext<DeliveryOpaque = ()>> TopicProducer<C> {
    /// Connects in the background; an unknown topic is an error of the first records that are handed over.
    pub fn new(config: &ClientConfig, context: C, topic: &str) -> anyhow::Result<Self> {
        let name = CString::new(topic).context("kafka.topic")?;
        let producer: BaseProducer<C> =
            config.create_with_context(context).context("cannot make a producer: check kafka.properties")?;
        let client = producer.client().native_ptr();
        // SAFETY: a live client and a NUL-terminated name, which is copied; without a configuration it is the client's.
        let topic = unsafe { native::rd_kafka_topic_new(client, name.as_ptr(), ptr::null_mut()) };
        let topic = NonNull::new(topic).context("librdkafka does not take the name of the topic: check kafka.topic")?;
        Ok(Self { producer, topic, batch: Batch::default() })
    }

    /// Copies a record into the batch; how many there are now.
    #[inline]
    pub fn add(&mut self, record: &Record<'_>) -> usize {
        self.batch.add(record);
        self.batch.records.len()
    }

    /// Hands the batch over to the producer's queue; how many records that were. Never blocks: what the queue has no
    /// room for stays in the batch, and none at all is [`RDKafkaErrorCode::QueueFull`].
    pub fn hand_over(&mut self) -> Result<usize, RDKafkaErrorCode> {
        if self.batch.records.is_empty() {
            return Ok(0);
        }
        let mut messages = self.batch.messages();
        // SAFETY: a live handle, and as many messages as are said. Their pointers lead into `self.batch`, which lives and
        // stays as it is throughout; keys and values are copied before the call returns (`MSG_F_COPY`).
        let accepted = unsafe {
            native::rd_kafka_produce_batch(
                self.topic.as_ptr(),
                EACH_ITS_OWN,
                native::RD_KAFKA_MSG_F_COPY | native::RD_KAFKA_MSG_F_PARTITION,
                messages.as_mut_ptr(),
                messages.len() as i32,
            )
        };
        // A full queue refuses all that comes behind; any other error may be of a single one, and is told at once.
        let mut errors = messages
            .iter()
            .filter(|message| message.err != NO_ERROR)
            .map(|message| RDKafkaErrorCode::from(message.err));
        if let Some(code) = errors.find(|code| *code != RDKafkaErrorCode::QueueFull) {
            return Err(code);
        }
        match usize::try_from(accepted).unwrap_or(0) {
            0 => Err(RDKafkaErrorCode::QueueFull),
            accepted => {
                self.batch.remove_first(accepted);
                Ok(accepted)
            }
        }
    }

    /// Records that wait: handed over, and not acknowledged yet.
    pub fn waiting(&self) -> u64 {
        u64::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// Serves delivery reports, for at least `time`.
    pub fn poll(&self, time: Duration) {
        self.producer.poll(time);
    }

    /// Waits until nothing waits any more, at most for `time`; serves delivery reports meanwhile.
    pub fn flush(&self, time: Duration) -> KafkaResult<()> {
        self.producer.flush(time)
    }
}

impl<C: ProducerContext<DeliveryOpaque = ()>> Drop for TopicProducer<C> {
    fn drop(&mut self) {
        // SAFETY: the handle came from `rd_kafka_topic_new`, is given back once, and its client still lives: fields are
        // dropped after this.
        unsafe { native::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

impl Batch {
    #[inline]
    fn add(&mut self, record: &Record<'_>) {
        let key = self.put(record.key);
        let value = record.value.map(|value| self.put(value));
        self.records.push(Placed { partition: record.partition, key, value });
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        start..self.bytes.len()
    }

    /// As librdkafka wants them. Their pointers are good for as long as the batch stays as it is.
    fn messages(&self) -> Vec<native::rd_kafka_message_t> {
        let pointer = |range: &Range<usize>| self.bytes[range.clone()].as_ptr().cast_mut().cast::<c_void>();
        let message = |record: &Placed| native::rd_kafka_message_t {
            err: NO_ERROR,
            rkt: ptr::null_mut(),
            partition: record.partition,
            payload: record.value.as_ref().map_or(ptr::null_mut(), pointer),
            len: record.value.as_ref().map_or(0, Range::len),
            key: pointer(&record.key),
            key_len: record.key.len(),
            offset: 0,
            _private: ptr::null_mut(),
        };
        self.records.iter().map(message).collect()
    }

    fn remove_first(&mut self, count: usize) {
        self.records.drain(..count);
        if self.records.is_empty() {
            self.bytes.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rdkafka::consumer::{BaseConsumer, Consumer as _};
    use rdkafka::message::{Message as _, OwnedMessage};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DeliveryResult;
    use rdkafka::{ClientContext, Offset, TopicPartitionList};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    struct Reports(Arc<AtomicUsize>);

    impl ClientContext for Reports {}

    impl ProducerContext for Reports {
        type DeliveryOpaque = ();

        fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn producer(brokers: &str, reports: &Arc<AtomicUsize>) -> TopicProducer<Reports> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("queue.buffering.max.messages", "3");
        TopicProducer::new(&config, Reports(Arc::clone(reports)), "events").unwrap()
    }

    fn consume(brokers: &str, partition: i32, count: usize) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "g").create().unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset("events", partition, Offset::Offset(0)).unwrap();
        consumer.assign(&assignment).unwrap();
        (0..count).map(|_| consumer.poll(SOON).expect("a record in time").unwrap().detach()).collect()
    }

    fn record<'a>(partition: i32, key: &'a [u8], value: Option<&'a [u8]>) -> Record<'a> {
        Record { partition, key, value }
    }

    #[test]
    fn records_arrive_as_they_were_sent() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 2, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let reports = Arc::new(AtomicUsize::new(0));
        let mut producer = producer(&brokers, &reports);
        assert_eq!(producer.hand_over(), Ok(0));
        // Overwritten at once: what is in the batch must have been copied.
        let mut value = b"first".to_vec();
        producer.add(&record(1, b"key", Some(&value)));
        value.fill(b'x');
        producer.add(&record(0, b"elsewhere", Some(b"other")));
        assert_eq!(producer.add(&record(1, b"deleted", None)), 3);
        assert_eq!(producer.hand_over(), Ok(3));
        producer.flush(SOON).unwrap();
        producer.add(&record(1, b"", Some(b"")));
        assert_eq!(producer.hand_over(), Ok(1));
        producer.flush(SOON).unwrap();
        assert_eq!((producer.waiting(), reports.load(Ordering::Relaxed)), (0, 4));

        let found = consume(&brokers, 1, 3);
        let keys: Vec<_> = found.iter().map(OwnedMessage::key).collect();
        assert_eq!(keys, [Some(&b"key"[..]), Some(b"deleted"), Some(b"")]);
        let values: Vec<_> = found.iter().map(OwnedMessage::payload).collect();
        assert_eq!(values, [Some(&b"first"[..]), None, Some(b"")]);
        let elsewhere = consume(&brokers, 0, 1);
        assert_eq!((elsewhere[0].key(), elsewhere[0].payload()), (Some(&b"elsewhere"[..]), Some(&b"other"[..])));
    }

    #[test]
    fn what_the_queue_has_no_room_for_stays_and_follows_later() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let mut producer = producer(&brokers, &Arc::default());
        let keys: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        for key in &keys {
            producer.add(&record(0, key.as_bytes(), None));
        }
        assert_eq!((producer.hand_over(), producer.waiting()), (Ok(3), 3));
        assert_eq!(producer.hand_over(), Err(RDKafkaErrorCode::QueueFull));
        producer.flush(SOON).unwrap();
        assert_eq!((producer.hand_over(), producer.hand_over()), (Ok(2), Ok(0)));
        producer.flush(SOON).unwrap();
        let found = consume(&brokers, 0, 5);
        assert!(found.iter().map(|record| record.key().unwrap()).eq(keys.iter().map(String::as_bytes)));
    }

    #[test]
    fn what_cannot_be_sent_is_an_error() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 1, 1).unwrap();
        let mut producer = producer(&cluster.bootstrap_servers(), &Arc::default());
        let huge = vec![0; 2_000_000];
        producer.add(&record(0, b"key", Some(&huge)));
        assert_eq!(producer.hand_over(), Err(RDKafkaErrorCode::MessageSizeTooLarge));
        let context = || Reports(Arc::default());
        assert!(TopicProducer::new(&ClientConfig::new(), context(), "to\0pic").is_err());
        assert!(TopicProducer::new(&ClientConfig::new(), context(), &"x".repeat(600)).is_err());
    }
}
