//! The few calls into librdkafka that rust-rdkafka has no safe form of. All the `unsafe` of the project is here.
//!
//! - [`BatchQueue`]: one queue of our own that every assigned partition is forwarded to, drained thousands of messages
//!   at a time with `rd_kafka_consume_batch_queue`. Polling one message at a time costs two to four times as much.
//! - [`commit_in_background`]: `rd_kafka_commit_queue`, which reports to the consumer's own event queue, so that a commit
//!   blocks no thread. rust-rdkafka's asynchronous commit reports to nobody.
//! - [`describe_topic_id`]: the topic's identity ([KIP-516]).
//! - [`add_brokers`]: names brokers to a client that has forgotten them.
//!
//! [KIP-516]: https://cwiki.apache.org/confluence/display/KAFKA/KIP-516%3A+Topic+Identifiers
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings as native;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

const NO_ERROR: native::rd_kafka_resp_err_t = native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// A handle to one of the client's queues. Keeps the client alive, and is given back before it.
struct QueueHandle<C: ConsumerContext + 'static> {
    queue: NonNull<native::rd_kafka_queue_t>,
    consumer: Arc<BaseConsumer<C>>,
}

// SAFETY: librdkafka's queues are locked inside; their handles may be used from any thread ("librdkafka is completely
// thread-safe", INTRODUCTION.md). The consumer is `Send + Sync` itself.
unsafe impl<C: ConsumerContext> Send for QueueHandle<C> {}
// SAFETY: as above.
unsafe impl<C: ConsumerContext> Sync for QueueHandle<C> {}

impl<C: ConsumerContext> Drop for QueueHandle<C> {
    fn drop(&mut self) {
        // SAFETY: the handle came from a `rd_kafka_queue_new` or `_get_*` call, is destroyed once, and the client
        // (kept by `consumer`, dropped after this) still exists.
        unsafe { native::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// The queue that the records of all assigned partitions arrive in.
pub(super) struct BatchQueue<C: ConsumerContext + 'static> {
    records: QueueHandle<C>,
    events: QueueHandle<C>,
    topic: CString,
    /// What [`call_wake`] gets; must outlive its registration.
    wake: Box<Wake>,
}

/// Called whenever the queue stops being empty, on a thread of librdkafka and with the queue's lock held: must return
/// at once, and must not call librdkafka.
pub(super) type Wake = Box<dyn Fn() + Send + Sync>;

/// Room for the message pointers of one [`BatchQueue::take`], used again and again.
pub(super) struct MessageBuffer(Vec<*mut native::rd_kafka_message_t>);

/// Messages taken from the queue; given back to librdkafka on drop.
pub(super) struct Messages<'buffer>(&'buffer mut Vec<*mut native::rd_kafka_message_t>);

/// One message, still in librdkafka's memory.
#[derive(Clone, Copy)]
pub(super) struct Message<'messages>(&'messages native::rd_kafka_message_t);

/// What librdkafka calls when the queue is no longer empty.
unsafe extern "C" fn call_wake(_client: *mut native::rd_kafka_t, wake: *mut c_void) {
    // SAFETY: `wake` is the boxed [`Wake`] of the `BatchQueue`, which unregisters this function before it is dropped.
    // `Wake` is `Sync`, so it may be called from here.
    unsafe { (*wake.cast::<Wake>())() }
}

impl<C: ConsumerContext> BatchQueue<C> {
    /// An empty queue.
    pub(super) fn new(consumer: &Arc<BaseConsumer<C>>, topic: &str, wake: Wake) -> anyhow::Result<Self> {
        let client = consumer.client().native_ptr();
        // SAFETY: `client` is a live client.
        let records = unsafe { native::rd_kafka_queue_new(client) };
        // SAFETY: as above; null for a client without a group, which is handled.
        let events = unsafe { native::rd_kafka_queue_get_consumer(client) };
        let handle = |queue| {
            let queue = NonNull::new(queue).ok_or_else(|| anyhow::anyhow!("librdkafka gave no queue"))?;
            anyhow::Ok(QueueHandle { queue, consumer: Arc::clone(consumer) })
        };
        let batch_queue = Self {
            records: handle(records)?,
            events: handle(events)?,
            topic: CString::new(topic)?,
            wake: Box::new(wake),
        };
        let wake = ptr::from_ref::<Wake>(&batch_queue.wake).cast_mut().cast::<c_void>();
        // SAFETY: the boxed function outlives the registration, see `Drop`.
        unsafe { native::rd_kafka_queue_cb_event_enable(batch_queue.records.queue.as_ptr(), Some(call_wake), wake) };
        Ok(batch_queue)
    }

    /// Sends the records of a partition here instead of to the consumer's own queue. May be repeated.
    ///
    /// What the partition's queue already holds moves along (`rd_kafka_q_fwd_set0`), and a later assign does not undo
    /// it (`RD_KAFKA_Q_F_FWD_APP`), but the stop of an assignment does. Creates the partition's local state when
    /// there is none yet, so that it can be paused before it is assigned.
    pub(super) fn forward(&self, partition: i32) {
        let client = self.records.consumer.client().native_ptr();
        // SAFETY: live client, NUL-terminated name, live queues; the handle is destroyed once.
        unsafe {
            let queue = native::rd_kafka_queue_get_partition(client, self.topic.as_ptr(), partition);
            if !queue.is_null() {
                native::rd_kafka_queue_forward(queue, self.records.queue.as_ptr());
                native::rd_kafka_queue_destroy(queue);
            }
        }
    }

    /// How many messages wait.
    pub(super) fn waiting_records(&self) -> usize {
        // SAFETY: live queue.
        unsafe { native::rd_kafka_queue_length(self.records.queue.as_ptr()) }
    }

    /// How many events (rebalances, commit results, errors, log lines) wait for `BaseConsumer::poll`.
    pub(super) fn waiting_events(&self) -> usize {
        // SAFETY: live queue.
        unsafe { native::rd_kafka_queue_length(self.events.queue.as_ptr()) }
    }

    /// Takes messages until `buffer` is full or `timeout` is over; always waits for one of the two.
    pub(super) fn take<'buffer>(&self, buffer: &'buffer mut MessageBuffer, timeout: Duration) -> Messages<'buffer> {
        let MessageBuffer(messages) = buffer;
        debug_assert!(messages.is_empty());
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the array has room for `capacity` pointers; librdkafka writes as many as it returns (-1 on error), and
        // each is a message that we own from now on.
        unsafe {
            let queue = self.records.queue.as_ptr();
            let taken =
                native::rd_kafka_consume_batch_queue(queue, timeout, messages.as_mut_ptr(), messages.capacity());
            messages.set_len(usize::try_from(taken).unwrap_or(0));
        }
        Messages(messages)
    }

    /// The high watermark that the last fetch response brought; no network.
    pub(super) fn cached_high_watermark(&self, partition: i32) -> Option<i64> {
        let client = self.records.consumer.client().native_ptr();
        let (mut low, mut high) = (-1, -1);
        // SAFETY: live client, NUL-terminated name, two valid places to write to.
        let error = unsafe {
            native::rd_kafka_get_watermark_offsets(client, self.topic.as_ptr(), partition, &raw mut low, &raw mut high)
        };
        (error == NO_ERROR && high >= 0).then_some(high)
    }
}

impl<C: ConsumerContext> Drop for BatchQueue<C> {
    fn drop(&mut self) {
        // SAFETY: live queue. Takes the queue's lock, under which the callback runs, so that it never runs afterwards
        // and `wake` can go.
        unsafe { native::rd_kafka_queue_cb_event_enable(self.records.queue.as_ptr(), None, ptr::null_mut()) }
    }
}

impl MessageBuffer {
    /// Room for `capacity` messages.
    pub(super) fn new(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }
}

impl Messages<'_> {
    /// The messages in the order in which they arrived: those of one partition in offset order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        // SAFETY: every pointer is a message that lives until `self` is dropped; nobody else has it.
        self.0.iter().map(|message| Message(unsafe { &**message }))
    }
}

impl Drop for Messages<'_> {
    fn drop(&mut self) {
        for message in self.0.drain(..) {
            // SAFETY: ours since `take`; drained, so destroyed once.
            unsafe { native::rd_kafka_message_destroy(message) }
        }
    }
}

impl<'messages> Message<'messages> {
    /// The partition.
    pub(super) fn partition(self) -> i32 {
        self.0.partition
    }

    /// The offset; for an error the position that it is about.
    pub(super) fn offset(self) -> i64 {
        self.0.offset
    }

    /// An error of the partition, delivered in place of a record, and librdkafka's words for it.
    pub(super) fn error(self) -> Option<(RDKafkaErrorCode, Cow<'messages, str>)> {
        (self.0.err != NO_ERROR).then(|| (self.0.err.into(), String::from_utf8_lossy(self.value().unwrap_or_default())))
    }

    /// The record key.
    pub(super) fn key(self) -> Option<&'messages [u8]> {
        // SAFETY: librdkafka says that `key` points to `key_len` bytes, or is null.
        unsafe { bytes(self.0.key, self.0.key_len) }
    }

    /// The payload.
    pub(super) fn value(self) -> Option<&'messages [u8]> {
        // SAFETY: librdkafka says that `payload` points to `len` bytes, or is null.
        unsafe { bytes(self.0.payload, self.0.len) }
    }

    /// Bytes of key and payload.
    pub(super) fn size(self) -> usize {
        self.0.key_len + self.0.len
    }

    /// `CreateTime` or `LogAppendTime`, whichever the topic keeps; -1 where the record has none, as in Kafka itself.
    pub(super) fn timestamp_ms(self) -> i64 {
        // SAFETY: a live message; a null type is allowed.
        unsafe { native::rd_kafka_message_timestamp(self.0, ptr::null_mut()) }
    }

    /// The headers in the order they were sent; no allocation where there are none.
    ///
    /// The protocol says that names are UTF-8; bytes that are not become U+FFFD.
    pub(super) fn headers(self) -> Vec<(Cow<'messages, str>, Option<&'messages [u8]>)> {
        let mut headers = ptr::null_mut();
        // SAFETY: a live message, and a valid place for the result, which stays the message's.
        if unsafe { native::rd_kafka_message_headers(self.0, &raw mut headers) } != NO_ERROR {
            return Vec::new();
        }
        let header = |index| {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            // SAFETY: live headers and valid places for the result. Name (NUL-terminated) and value belong to the
            // headers, which live as long as the message.
            unsafe {
                let error =
                    native::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size);
                (error == NO_ERROR).then(|| (CStr::from_ptr(name).to_string_lossy(), bytes(value, size)))
            }
        };
        (0..).map_while(header).collect()
    }
}

/// SAFETY: `pointer` is null or points to `length` bytes that live and stay as they are for `'a`.
unsafe fn bytes<'a>(pointer: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!pointer.is_null()).then(|| unsafe { slice::from_raw_parts(pointer.cast::<u8>(), length) })
}

/// Sends a commit; its result arrives in [`ConsumerContext::commit_callback`], from a later `BaseConsumer::poll`.
pub(super) fn commit_in_background<C: ConsumerContext>(
    queue: &BatchQueue<C>,
    offsets: &TopicPartitionList,
) -> Result<(), RDKafkaErrorCode> {
    let client = queue.events.consumer.client().native_ptr();
    let events = queue.events.queue.as_ptr();
    // SAFETY: live client and queue; the list is copied (`rd_kafka_commit0`); without a callback the result is an event.
    let error = unsafe { native::rd_kafka_commit_queue(client, offsets.ptr(), events, None, ptr::null_mut()) };
    if error == NO_ERROR { Ok(()) } else { Err(error.into()) }
}

/// Names brokers to the client, those that it knows already as well. It keeps the list for good, however often it gets it.
pub(super) fn add_brokers<C: ConsumerContext>(consumer: &BaseConsumer<C>, brokers: &CStr) {
    // SAFETY: a live client; the list is copied (`rd_kafka_brokers_add`).
    unsafe { native::rd_kafka_brokers_add(consumer.client().native_ptr(), brokers.as_ptr()) };
}

/// Asks a broker for the identity of a topic; blocks up to `timeout`. `Ok(None)`: the broker has no topic ids.
///
/// Any broker knows; left to itself librdkafka asks the controller, and waits while there is none.
pub(super) fn describe_topic_id<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    broker: i32,
    timeout: Duration,
) -> Result<Option<String>, RDKafkaErrorCode> {
    let name = CString::new(topic).map_err(|_| RDKafkaErrorCode::InvalidArgument)?;
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let client = consumer.client().native_ptr();
    // SAFETY: `client` is alive throughout; every object made here is destroyed once, after its last use; the result
    // and what it leads to belong to the event. A null event (time is up) is handled, and the late answer is dropped
    // with the queue.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options =
            native::rd_kafka_AdminOptions_new(client, native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        native::rd_kafka_AdminOptions_set_request_timeout(options, timeout, ptr::null_mut(), 0);
        native::rd_kafka_AdminOptions_set_broker(options, broker, ptr::null_mut(), 0);
        let answers = native::rd_kafka_queue_new(client);
        native::rd_kafka_DescribeTopics(client, topics, options, answers);
        let event = native::rd_kafka_queue_poll(answers, timeout);
        let answer = topic_id_of(event);
        native::rd_kafka_event_destroy(event);
        native::rd_kafka_queue_destroy(answers);
        native::rd_kafka_AdminOptions_destroy(options);
        native::rd_kafka_TopicCollection_destroy(topics);
        answer
    }
}

/// SAFETY: `event` is null or a live event.
unsafe fn topic_id_of(event: *mut native::rd_kafka_event_t) -> Result<Option<String>, RDKafkaErrorCode> {
    if event.is_null() {
        return Err(RDKafkaErrorCode::OperationTimedOut);
    }
    // SAFETY: all that is asked for here belongs to the event; nulls are handled.
    unsafe {
        let error = native::rd_kafka_event_error(event);
        if error != NO_ERROR {
            return Err(error.into());
        }
        let result = native::rd_kafka_event_DescribeTopics_result(event);
        let mut count = 0;
        let topics = if result.is_null() {
            ptr::null_mut()
        } else {
            native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count)
        };
        if topics.is_null() || count == 0 {
            return Ok(None);
        }
        let error = native::rd_kafka_error_code(native::rd_kafka_TopicDescription_error(*topics));
        if error != NO_ERROR {
            return Err(error.into());
        }
        let id = native::rd_kafka_TopicDescription_topic_id(*topics);
        let no_id = id.is_null()
            || native::rd_kafka_Uuid_most_significant_bits(id) == 0
                && native::rd_kafka_Uuid_least_significant_bits(id) == 0;
        if no_id {
            return Ok(None);
        }
        let text = native::rd_kafka_Uuid_base64str(id);
        Ok((!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rdkafka::consumer::DefaultConsumerContext;
    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::{ClientConfig, Offset};

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn forwarded_records_come_as_they_were_sent_and_wake_the_reader() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("events", 1, 1).unwrap();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "group");
        let producer: BaseProducer = config.create().unwrap();
        let headers = OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some("t") })
            .insert(Header { key: "none", value: None::<&[u8]> });
        let whole = BaseRecord::to("events").partition(0).key("key").payload("value").timestamp(1_234).headers(headers);
        producer.send(whole).unwrap();
        producer.send(BaseRecord::<[u8], [u8]>::to("events").partition(0)).unwrap();
        producer.send(BaseRecord::to("events").partition(0).key("").payload("")).unwrap();
        producer.flush(SOON).unwrap();

        let consumer: Arc<BaseConsumer<DefaultConsumerContext>> = Arc::new(config.create().unwrap());
        let woken = Arc::new(AtomicUsize::new(0));
        let wakes = Arc::clone(&woken);
        let wake = Box::new(move || _ = wakes.fetch_add(1, Ordering::Relaxed));
        let queue = BatchQueue::new(&consumer, "events", wake).unwrap();
        let mut buffer = MessageBuffer::new(3);
        assert_eq!(queue.take(&mut buffer, Duration::ZERO).iter().count(), 0);
        assert_eq!(queue.cached_high_watermark(0), None);
        queue.forward(0);
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset("events", 0, Offset::Offset(0)).unwrap();
        consumer.assign(&assignment).unwrap();
        {
            let messages = queue.take(&mut buffer, SOON);
            let messages: Vec<_> = messages.iter().collect();
            assert_eq!(messages.iter().map(|message| message.offset()).collect::<Vec<_>>(), [0, 1, 2]);
            assert_eq!((messages[0].key(), messages[0].value()), (Some(&b"key"[..]), Some(&b"value"[..])));
            assert_eq!((messages[0].timestamp_ms(), messages[0].size()), (1_234, 8));
            let headers = messages[0].headers();
            assert_eq!(headers, [("trace".into(), Some(&b"t"[..])), ("none".into(), None)]);
            assert_eq!((messages[1].key(), messages[1].value()), (None, None));
            assert!(messages[1].headers().is_empty() && messages[1].error().is_none());
            assert_eq!((messages[2].key(), messages[2].value()), (Some(&b""[..]), Some(&b""[..])));
        }
        assert!(woken.load(Ordering::Relaxed) > 0);
        assert_eq!((queue.waiting_records(), queue.cached_high_watermark(0)), (0, Some(3)));
        drop(queue);
    }
}
