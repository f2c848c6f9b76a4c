//! The floor of the drain benchmark: takes every record of a topic from librdkafka and does nothing with it.
//!
//! The same client settings and the same call as the pipeline's ingest, so that the ratio of the two says what all the
//! rest costs. Prints one line of JSON.
#![allow(unsafe_code, reason = "rust-rdkafka has no safe form of `rd_kafka_consume_batch_queue`")]

use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use kappa_preload::TopicArguments;
use rdkafka::bindings as native;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

/// As in the `kappa` binary: librdkafka's malloc is replaced as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages of one call.
const BATCH: usize = 2_000;
/// After this long without a record the topic is held to be shorter than was said.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes every record of a topic and does nothing with it.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    topic: TopicArguments,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse().topic;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &arguments.brokers)
        .set("group.id", "floor")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.min.messages", "40000")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.max.bytes", "4194304")
        .set("fetch.message.max.bytes", "524288")
        .set("check.crcs", "true")
        .create()
        .context("cannot make a consumer")?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..arguments.partitions {
        assignment.add_partition_offset(&arguments.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let (mut taken, mut bytes) = (0_u64, 0_usize);
    let (mut first, mut last) = (None, Instant::now());
    let mut messages = Vec::with_capacity(BATCH);
    while taken < arguments.events {
        let batch = take(&consumer, &mut messages);
        if batch.0 == 0 {
            anyhow::ensure!(last.elapsed() < PATIENCE, "only {taken} of {} records came", arguments.events);
            continue;
        }
        last = Instant::now();
        // What came before the clock starts does not count.
        first.get_or_insert((last, batch.0));
        taken += batch.0;
        bytes += batch.1;
    }
    let (start, ignored) = first.context("no record came")?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        r#"{{"per_second": {:.0}, "cpu_ns_per_event": {:.0}, "bytes_per_event": {:.1}}}"#,
        (taken - ignored) as f64 / seconds,
        cpu_seconds()? * 1e9 / taken as f64,
        bytes as f64 / taken as f64
    );
    // Leaving the group takes seconds and was not asked for.
    std::process::exit(0);
}

/// Takes what is there and gives it back; how many records and bytes it was.
fn take(consumer: &BaseConsumer, messages: &mut Vec<*mut native::rd_kafka_message_t>) -> (u64, usize) {
    let timeout_ms = 100;
    let (mut count, mut bytes) = (0, 0);
    // SAFETY: the client is alive, the handle is given back once; the array has room for `capacity` pointers, of which
    // librdkafka writes as many as it returns (-1 on error), each a message that is ours to destroy, once.
    unsafe {
        let queue = native::rd_kafka_queue_get_consumer(consumer.client().native_ptr());
        let taken = native::rd_kafka_consume_batch_queue(queue, timeout_ms, messages.as_mut_ptr(), messages.capacity());
        messages.set_len(usize::try_from(taken).unwrap_or(0));
        for message in messages.drain(..) {
            let is_record = (*message).err == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            count += u64::from(is_record);
            bytes += (*message).len + (*message).key_len;
            native::rd_kafka_message_destroy(message);
        }
        native::rd_kafka_queue_destroy(queue);
    }
    (count, bytes)
}

/// CPU that this process has used, in user and kernel mode (`proc_pid_stat(5)`, fields 14 and 15).
fn cpu_seconds() -> anyhow::Result<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let behind_the_name = stat.rsplit_once(')').context("/proc/self/stat has no name")?.1;
    let ticks: u64 =
        behind_the_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}
