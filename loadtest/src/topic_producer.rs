//! A producer for one topic, through the topic's own handle.
//!
//! rust-rdkafka names the topic with every record: librdkafka then takes its client-wide lock for writing and looks the
//! topic up in a list, and the name is copied for it. The handle, made once, spares all that.
#![allow(unsafe_code, reason = "rust-rdkafka has no safe form of a topic's handle")]

use std::ffi::{CString, c_void};
use std::ptr::{self, NonNull};
use std::time::Duration;

use anyhow::Context as _;
use rdkafka::ClientConfig;
use rdkafka::bindings as native;
use rdkafka::bindings::rd_kafka_vtype_t as vtype;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext};

use crate::fleet::Record;

const NO_ERROR: native::rd_kafka_resp_err_t = native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// See the module.
#[expect(missing_debug_implementations, reason = "rust-rdkafka's producer has none")]
pub struct TopicProducer<C: ProducerContext<DeliveryOpaque = ()> + 'static> {
    producer: BaseProducer<C>,
    /// Of `producer`, which outlives it.
    topic: NonNull<native::rd_kafka_topic_t>,
}

// SAFETY: librdkafka's topic handles may be used from any thread ("librdkafka is completely thread-safe",
// INTRODUCTION.md), and the producer is `Send` itself.
unsafe impl<C: ProducerContext<DeliveryOpaque = ()>> Send for TopicProducer<C> {}

impl<C: ProducerContext<DeliveryOpaque = ()>> TopicProducer<C> {
    /// Connects in the background; an unknown topic is an error of the first records that are sent to it.
    pub fn new(config: &ClientConfig, context: C, topic: &str) -> anyhow::Result<Self> {
        let name = CString::new(topic).context("kafka.topic")?;
        let producer: BaseProducer<C> =
            config.create_with_context(context).context("cannot make a producer: check kafka.properties")?;
        // SAFETY: a live client and a NUL-terminated name, which is copied; without a configuration it is the client's.
        let topic =
            unsafe { native::rd_kafka_topic_new(producer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        let topic = NonNull::new(topic).context("librdkafka does not take the name of the topic: check kafka.topic")?;
        Ok(Self { producer, topic })
    }

    /// Copies a record into the producer's queue. Never blocks: a full queue is [`RDKafkaErrorCode::QueueFull`].
    #[inline]
    pub fn send(&self, record: &Record<'_>) -> Result<(), RDKafkaErrorCode> {
        let value = record.value.map_or(ptr::null(), <[u8]>::as_ptr).cast::<c_void>();
        let value_length = record.value.map_or(0, <[u8]>::len);
        // SAFETY: a live client and a live handle of it. Each tag is followed by the arguments of the types that
        // rdkafka.h gives for it (void pointer and size for value and key, int for the flags, int32 for the partition,
        // int64 for the timestamp), and the list ends with END. Value and key are copied before the call returns
        // (`MSG_F_COPY`; keys always are), and a null value is a record without one.
        let error = unsafe {
            native::rd_kafka_producev(
                self.producer.client().native_ptr(),
                vtype::RD_KAFKA_VTYPE_RKT,
                self.topic.as_ptr(),
                vtype::RD_KAFKA_VTYPE_PARTITION,
                record.partition,
                vtype::RD_KAFKA_VTYPE_MSGFLAGS,
                native::RD_KAFKA_MSG_F_COPY,
                vtype::RD_KAFKA_VTYPE_VALUE,
                value,
                value_length,
                vtype::RD_KAFKA_VTYPE_KEY,
                record.key.as_ptr().cast::<c_void>(),
                record.key.len(),
                vtype::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp_ms,
                vtype::RD_KAFKA_VTYPE_END,
            )
        };
        if error == NO_ERROR { Ok(()) } else { Err(error.into()) }
    }

    /// Records that wait: handed over by [`Self::send`], and not acknowledged yet.
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

    #[test]
    fn records_arrive_as_they_were_sent() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 2, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let reports = Arc::new(AtomicUsize::new(0));
        let producer = producer(&brokers, &reports);
        // Overwritten at once: what was handed over must have been copied.
        let mut value = b"first".to_vec();
        let timestamp_ms = 1_790_000_000_123;
        let record = Record { partition: 1, key: b"key", value: Some(&value), timestamp_ms };
        producer.send(&record).unwrap();
        value.fill(b'x');
        producer.send(&Record { value: None, ..record_with(b"deleted", timestamp_ms) }).unwrap();
        producer.send(&Record { value: Some(b""), ..record_with(b"", timestamp_ms + 1) }).unwrap();
        producer.flush(SOON).unwrap();
        assert_eq!((producer.waiting(), reports.load(Ordering::Relaxed)), (0, 3));

        let found = consume(&brokers, 1, 3);
        let keys: Vec<_> = found.iter().map(OwnedMessage::key).collect();
        assert_eq!(keys, [Some(&b"key"[..]), Some(b"deleted"), Some(b"")]);
        let values: Vec<_> = found.iter().map(OwnedMessage::payload).collect();
        assert_eq!(values, [Some(&b"first"[..]), None, Some(b"")]);
        let times: Vec<_> = found.iter().filter_map(|record| record.timestamp().to_millis()).collect();
        assert_eq!(times, [timestamp_ms, timestamp_ms, timestamp_ms + 1]);
    }

    fn record_with(key: &[u8], timestamp_ms: i64) -> Record<'_> {
        Record { partition: 1, key, value: None, timestamp_ms }
    }

    #[test]
    fn a_full_queue_is_told_and_counted() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 2, 1).unwrap();
        let reports = Arc::new(AtomicUsize::new(0));
        // Without a poll no report is served, so whatever becomes of the records, they count as waiting.
        let producer = producer(&cluster.bootstrap_servers(), &reports);
        let record = record_with(b"key", 1_790_000_000_000);
        for waiting in 1..=3 {
            producer.send(&record).unwrap();
            assert_eq!(producer.waiting(), waiting);
        }
        assert_eq!(producer.send(&record), Err(RDKafkaErrorCode::QueueFull));
        assert_eq!(producer.waiting(), 3);
    }

    #[test]
    fn an_impossible_topic_is_refused() {
        let context = || Reports(Arc::default());
        assert!(TopicProducer::new(&ClientConfig::new(), context(), "to\0pic").is_err());
        assert!(TopicProducer::new(&ClientConfig::new(), context(), &"x".repeat(600)).is_err());
    }
}
