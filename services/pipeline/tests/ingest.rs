//! Ingest against librdkafka's mock cluster, and the same again against a real Kafka when `KAFKA_BROKERS` is set.
//!
//! Everything runs with librdkafka and with the native fetcher. Each test joins a group of its own on a topic of its own, so they run side by side.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod ingest_support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ingest_support::{Cluster, Member, Record, collect, payload, produce_with};
use kappa_pipeline::config::{FetcherChoice, StartPolicy};
use kappa_pipeline::ingest::{AssignmentEvent, IngestLimits, KafkaPartitionLog};
use kappa_pipeline::partition::seams::{GroupOffsets, PartitionLog};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::time::{sleep, timeout};

/// For what librdkafka notices only when it refreshes its metadata.
const LONG: Duration = Duration::from_secs(90);

/// Makes modules of tests: each test in the braces with each cluster in front of them. Without a real Kafka its tests
/// pass, and say so.
macro_rules! conformance {
    ([$($module:ident: $cluster:expr;)*] $tests:tt) => {
        $(conformance!(@module $module, $cluster, $tests);)*
    };
    (@module $module:ident, $cluster:expr, { $($test:ident),* $(,)? }) => {
        mod $module {
            use super::{Cluster, FetcherChoice};

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let Some(cluster) = $cluster else { return };
                super::$test(&cluster).await;
            })*
        }
    };
}

conformance!([
    mock: Some(Cluster::mock(FetcherChoice::Librdkafka));
    mock_native: Some(Cluster::mock(FetcherChoice::Native));
    real: Cluster::real(FetcherChoice::Librdkafka);
    real_native: Cluster::real(FetcherChoice::Native);
] {
    records_arrive_in_order_and_whole,
    a_seek_drops_what_was_fetched_before,
    a_partition_that_takes_nothing_does_not_hold_up_the_others,
    without_memory_nothing_is_taken_but_the_member_stays,
    members_share_the_partitions_and_nothing_is_missing,
    commits_are_seen_and_refused_after_a_revoke,
    start_policies,
    a_member_without_partitions_is_told_so,
    a_missing_topic_is_fatal,
    every_codec_is_read,
});

// What takes a mock cluster: it can be switched off, and its leaders can be moved.
conformance!([
    weather: Some(Cluster::mock_of(1, FetcherChoice::Librdkafka));
    weather_native: Some(Cluster::mock_of(1, FetcherChoice::Native));
] {
    an_outage_costs_nothing_but_time,
    stopping_is_bounded_without_brokers,
});

conformance!([
    leaders: Some(Cluster::mock_of(3, FetcherChoice::Librdkafka));
    leaders_native: Some(Cluster::mock_of(3, FetcherChoice::Native));
] {
    leaders_come_and_go,
});

conformance!([
    hangs_native: Some(Cluster::mock_of(3, FetcherChoice::Native));
] {
    a_leader_that_hangs_is_given_up,
});

// What the mock cluster cannot do.
conformance!([
    only_real: Cluster::real(FetcherChoice::Librdkafka);
    only_real_native: Cluster::real(FetcherChoice::Native);
] {
    what_retention_took_is_not_skipped,
    a_deleted_topic_is_fatal,
    a_topic_created_again_is_told_apart,
    aborted_transactions_are_not_read,
    the_brokers_time_is_read,
    batches_larger_than_the_limits_are_read,
});

async fn records_arrive_in_order_and_whole(cluster: &Cluster) {
    let topic = cluster.topic(3).await;
    let now = now_ms();
    let mut expected = Vec::new();
    for index in 0..6_000_i64 {
        expected.push(Record {
            partition: (index % 3) as i32,
            offset: index / 3,
            timestamp_ms: now - 60_000 + index,
            key: (index % 7 != 0).then(|| format!("sensor-{}", index % 50).into_bytes()),
            value: (index % 11 != 0).then(|| payload(index)),
            headers: (0..index % 4)
                .map(|header| (format!("h{header}"), (header != 2).then(|| index.to_le_bytes().to_vec())))
                .collect(),
        });
    }
    cluster.produce(&topic, &expected);
    let mut member = Member::start(cluster, &topic, "order", &[]);
    let mut found = BTreeMap::new();
    for mut log in member.assigned(3).await {
        log.seek(0).await.unwrap();
        let records = collect(&mut log, 2_000).await;
        found.insert(log.partition(), records);
    }
    for (partition, records) in found {
        let wanted: Vec<_> = expected.iter().filter(|record| record.partition == partition).cloned().collect();
        assert_eq!(records.len(), wanted.len());
        for (record, wanted) in records.iter().zip(&wanted) {
            assert_eq!(record, wanted);
        }
    }
    member.stop();
}

async fn a_seek_drops_what_was_fetched_before(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    cluster.produce_many(&topic, 0, 0..40_000);
    let mut member = Member::start(cluster, &topic, "seek", &[]);
    let mut log = member.assigned(1).await.remove(0);
    assert!(timeout(Duration::from_millis(1_500), log.next()).await.is_err(), "nothing before the first seek");
    for start in [0, 39_000, 10, 20_000, 20_000, 1, 39_999] {
        log.seek(start).await.unwrap();
        let records = collect(&mut log, 500.min(40_000 - start as usize)).await;
        for (index, record) in records.iter().enumerate() {
            assert_eq!(record.offset, start + index as i64);
            assert_eq!(record.value.as_deref(), Some(&payload(record.offset)[..]));
        }
        // Let more arrive that the next seek has to drop.
        sleep(Duration::from_millis(30)).await;
    }
    drop(log);
    member.stop();
}

async fn a_partition_that_takes_nothing_does_not_hold_up_the_others(cluster: &Cluster) {
    const RECORDS: i64 = 60_000;
    let topic = cluster.topic(3).await;
    for partition in 0..3 {
        cluster.produce_many(&topic, partition, 0..RECORDS);
    }
    let limits = IngestLimits {
        undelivered_bytes: 2 << 20,
        partition_undelivered_bytes: 512 << 10,
        records_per_batch: 1_000,
        ..IngestLimits::for_memory(1 << 30)
    };
    let mut member = Member::start_with(cluster, &topic, "paused", &[], limits, 1 << 30, StartPolicy::Earliest);
    let mut logs = member.assigned(3).await;
    logs.sort_by_key(KafkaPartitionLog::partition);
    for log in &mut logs {
        log.seek(0).await.unwrap();
    }
    let mut stalled = logs.remove(0);
    for log in &mut logs {
        assert_offsets(&collect(log, RECORDS as usize).await, 0);
    }
    eventually("partition 0 is paused", || member.status().paused_partitions() == 1).await;
    assert!(!member.status().is_holding_back(), "the others are not held back");
    cluster.produce_many(&topic, 1, RECORDS..RECORDS + 10);
    assert_offsets(&collect(&mut logs[0], 10).await, RECORDS);
    // Now it takes them, with stops in between, and is paused and resumed again and again.
    let mut records = Vec::new();
    while records.len() < RECORDS as usize {
        records.extend(collect(&mut stalled, 1_000.min(RECORDS as usize - records.len())).await);
        if records.len() % 20_000 < 1_000 {
            sleep(Duration::from_millis(400)).await;
        }
    }
    assert_offsets(&records, 0);
    eventually("nothing is paused", || member.status().paused_partitions() == 0).await;
    member.stop();
}

async fn without_memory_nothing_is_taken_but_the_member_stays(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    cluster.produce_many(&topic, 0, 0..30_000);
    let short = [("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000"), ("heartbeat.interval.ms", "500")];
    let limits = IngestLimits::for_memory(64 << 20);
    let mut member = Member::start_with(cluster, &topic, "memory", &short, limits, 64 << 20, StartPolicy::Earliest);
    let mut log = member.assigned(1).await.remove(0);
    let others = member.budget().reserve(60 << 20);
    log.seek(0).await.unwrap();
    assert!(timeout(Duration::from_secs(9), log.next()).await.is_err(), "taken without memory");
    assert!(member.status().is_holding_back());
    assert!(member.no_event(), "the member was thrown out");
    drop(others);
    assert_offsets(&collect(&mut log, 30_000).await, 0);
    assert!(!member.status().is_holding_back());
    drop(log);
    member.stop();
}

/// What a worker does, in small: goes on where the group is, and commits what it has.
async fn work(mut log: KafkaPartitionLog, seen: Seen) {
    let start = match log.group().committed().await {
        Some(offset) => offset,
        None => log.resolve_start().await,
    };
    log.seek(start).await.unwrap();
    let mut next = start;
    let stint = {
        let mut seen = seen.lock().unwrap();
        seen.push(Vec::new());
        seen.len() - 1
    };
    while let Ok(delivery) = log.next().await {
        for record in delivery.batch.iter() {
            assert_eq!(record.offset, next, "partition {} has a gap or a repetition", log.partition());
            next = record.offset + 1;
            seen.lock().unwrap()[stint].push((log.partition(), record.offset));
        }
        if log.group().commit(next).await.is_err() {
            return;
        }
    }
}

async fn members_share_the_partitions_and_nothing_is_missing(cluster: &Cluster) {
    const PARTITIONS: i32 = 4;
    let topic = cluster.topic(PARTITIONS).await;
    let seen = std::sync::Arc::default();
    let first = Member::start(cluster, &topic, "share", &[]);
    let first_workers = tokio::spawn(first.run(move_clone(&seen)));
    let mut produced = 0;
    let mut produce = |count: i64| {
        for partition in 0..PARTITIONS {
            cluster.produce_many(&topic, partition, produced..produced + count);
        }
        produced += count;
        produced
    };
    let total = produce(2_000);
    wait_for(&seen, PARTITIONS, total).await;
    let second = Member::start(cluster, &topic, "share", &[]);
    let (stop_second, second_stopped) = tokio::sync::oneshot::channel();
    let second_workers = tokio::spawn(second.run_until(move_clone(&seen), second_stopped));
    for _ in 0..20 {
        produce(300);
        sleep(Duration::from_millis(400)).await;
    }
    let total = produce(300);
    wait_for(&seen, PARTITIONS, total).await;
    let second_got = {
        stop_second.send(()).unwrap();
        second_workers.await.unwrap()
    };
    assert_eq!(second_got, 2, "two of four partitions go to the second member");
    let total = produce(500);
    wait_for(&seen, PARTITIONS, total).await;
    first_workers.abort();
}

async fn commits_are_seen_and_refused_after_a_revoke(cluster: &Cluster) {
    let topic = cluster.topic(2).await;
    cluster.produce_many(&topic, 0, 0..100);
    let mut first = Member::start(cluster, &topic, "commit", &[]);
    let mut logs = first.assigned(2).await;
    for log in &logs {
        assert_eq!(log.group().committed().await, None);
        log.group().commit(50).await.unwrap();
        assert_eq!(log.group().committed().await, Some(50));
        log.group().commit(40).await.unwrap();
        assert_eq!(log.group().committed().await, Some(40));
    }
    let mut second = Member::start(cluster, &topic, "commit", &[]);
    let moved = second.assigned(1).await.remove(0);
    assert_eq!(moved.group().committed().await, Some(40));
    let index = logs.iter().position(|log| log.partition() == moved.partition()).unwrap();
    let revoked = logs.remove(index);
    let kept = logs.remove(0);
    assert_eq!(first.revoked().await, revoked.partition());
    let error = revoked.group().commit(90).await.unwrap_err();
    assert!(error.0.contains("revoked"), "{error}");
    moved.group().commit(60).await.unwrap();
    kept.group().commit(70).await.unwrap();
    assert_eq!(moved.group().committed().await, Some(60));
    second.stop();
    assert!(moved.group().commit(61).await.is_err(), "the member has left");
    let mut back = first.assigned(1).await.remove(0);
    assert_eq!(back.group().committed().await, Some(60));
    if back.partition() == 0 {
        back.seek(60).await.unwrap();
        assert_offsets(&collect(&mut back, 40).await, 60);
    }
    drop((back, kept));
    first.stop();
}

async fn start_policies(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    let first = now_ms() - 60_000;
    let records: Vec<_> = (0..1_000).map(|index| Record::simple(0, index, first + index * 10)).collect();
    cluster.produce(&topic, &records);
    let starts = [
        (StartPolicy::Earliest, 0),
        (StartPolicy::Latest, 1_000),
        (StartPolicy::Timestamp(first + 5_001), 501),
        (StartPolicy::Timestamp(first + 5_000), 500),
        (StartPolicy::Timestamp(0), 0),
        (StartPolicy::Timestamp(first + 3_600_000), 1_000),
    ];
    for (index, (policy, wanted)) in starts.into_iter().enumerate() {
        // The mock cluster does not look at record timestamps: it finds none.
        if cluster.is_mock() && matches!(policy, StartPolicy::Timestamp(_)) && wanted < 1_000 {
            continue;
        }
        let limits = IngestLimits::default();
        let mut member = Member::start_with(cluster, &topic, &format!("start{index}"), &[], limits, 1 << 30, policy);
        let log = member.assigned(1).await.remove(0);
        let bounds = log.bounds().await;
        assert_eq!((bounds.low_watermark, bounds.high_watermark), (0, 1_000));
        assert!(bounds.topic_id.is_some() || cluster.is_mock());
        assert_eq!(log.resolve_start().await, wanted, "{policy:?}");
        drop(log);
        member.stop();
    }
}

async fn a_member_without_partitions_is_told_so(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    let mut first = Member::start(cluster, &topic, "idle", &[]);
    let log = first.assigned(1).await;
    let mut second = Member::start(cluster, &topic, "idle", &[]);
    second.nothing_assigned().await;
    drop(log);
    tokio::task::spawn_blocking(move || first.stop()).await.unwrap();
    assert_eq!(second.assigned(1).await[0].partition(), 0);
    second.stop();
}

async fn a_missing_topic_is_fatal(cluster: &Cluster) {
    let mut member = Member::start(cluster, "no-such-topic", "missing", &[]);
    let AssignmentEvent::Fatal(reason) = member.event().await else { panic!("not fatal") };
    assert!(reason.contains("`no-such-topic` does not exist"), "{reason}");
    member.stop();
}

async fn an_outage_costs_nothing_but_time(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    cluster.produce_many(&topic, 0, 0..5_000);
    // On a busy machine the outage may take longer than the short session of the other tests.
    let mut member = Member::start(cluster, &topic, "outage", &[("session.timeout.ms", "15000")]);
    let mut log = member.assigned(1).await.remove(0);
    log.seek(0).await.unwrap();
    assert_offsets(&collect(&mut log, 5_000).await, 0);
    cluster.set_up(false);
    let group = log.group();
    let (commit, watermarks) = (group.commit(5_000), log.bounds());
    let later = async {
        sleep(Duration::from_secs(3)).await;
        cluster.set_up(true);
    };
    let (commit, bounds, ()) = tokio::join!(commit, watermarks, later);
    commit.unwrap();
    assert_eq!(bounds.high_watermark, 5_000);
    cluster.produce_many(&topic, 0, 5_000..6_000);
    assert_offsets(&collect(&mut log, 1_000).await, 5_000);
    drop(log);
    member.stop();
}

async fn stopping_is_bounded_without_brokers(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    let mut member = Member::start(cluster, &topic, "stop", &[]);
    let log = member.assigned(1).await.remove(0);
    cluster.set_up(false);
    let commit = tokio::spawn(async move { log.group().commit(0).await });
    sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    member.stop();
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    commit.abort();
}

async fn what_retention_took_is_not_skipped(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    cluster.produce_many(&topic, 0, 0..1_000);
    cluster.delete_before(&topic, 0, 600).await;
    let mut member = Member::start(cluster, &topic, "retention", &[]);
    let mut log = member.assigned(1).await.remove(0);
    assert_eq!(log.bounds().await.low_watermark, 600);
    assert_eq!(log.resolve_start().await, 600);
    log.seek(600).await.unwrap();
    assert_offsets(&collect(&mut log, 400).await, 600);
    log.seek(100).await.unwrap();
    let lost = timeout(Duration::from_secs(20), log.next()).await.unwrap().unwrap_err();
    assert!(lost.0.contains("no longer has offset 100") && lost.0.contains("600 to 1000"), "{lost}");
    assert!(log.seek(600).await.is_err(), "lost for good");
    drop(log);
    member.stop();
}

async fn a_deleted_topic_is_fatal(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    cluster.produce_many(&topic, 0, 0..1_000);
    let mut member = Member::start(cluster, &topic, "deleted", &[]);
    let mut log = member.assigned(1).await.remove(0);
    log.seek(0).await.unwrap();
    assert_offsets(&collect(&mut log, 1_000).await, 0);
    cluster.delete(&topic).await;
    let reason = timeout(LONG, async {
        loop {
            if let AssignmentEvent::Fatal(reason) = member.event().await {
                return reason;
            }
        }
    });
    let reason = reason.await.unwrap();
    assert!(reason.contains("does not exist"), "{reason}");
    drop(log);
    member.stop();
}

async fn a_topic_created_again_is_told_apart(cluster: &Cluster) {
    // Shorter than the old one: the position is gone, whichever is noticed first.
    create_again(cluster, 10, 0).await;
    // Longer: the position exists in both. A look before the producer is so far finds it gone, and tells nothing of this.
    for attempt in 1..=5 {
        if create_again(cluster, 2_000, attempt).await.contains("created again") {
            return;
        }
    }
    panic!("a longer topic is never told apart by its identity");
}

/// Why the log counts as lost once its topic was deleted and created again, with so many records.
async fn create_again(cluster: &Cluster, records: i64, attempt: usize) -> String {
    let topic = cluster.topic(1).await;
    cluster.produce_many(&topic, 0, 0..1_000);
    let mut member = Member::start(cluster, &topic, "recreated", &[]);
    let mut log = member.assigned(1).await.remove(0);
    let before = log.bounds().await.topic_id.unwrap();
    let group = log.group();
    assert_eq!(group.topic_id().await.as_ref(), Some(&before));
    log.seek(0).await.unwrap();
    assert_offsets(&collect(&mut log, 1_000).await, 0);
    cluster.recreate(&topic, 1).await;
    cluster.produce_many(&topic, 0, 0..records);
    // At once, however long the watch may take: what is sealed from now on is refused.
    assert_ne!(group.topic_id().await.unwrap(), before);
    // What little of the new topic arrives before it is told apart is for the worker to drop.
    let lost = timeout(LONG, async {
        loop {
            if let Err(lost) = log.next().await {
                return lost;
            }
        }
    });
    let lost = lost.await.unwrap();
    println!("created again with {records} records: {lost}");
    assert!(lost.0.contains("created again") || lost.0.contains("no longer has offset 1000"), "{lost}");
    drop(log);
    member.stop();
    let mut again = Member::start(cluster, &topic, &format!("again{attempt}"), &[]);
    let bounds = again.assigned(1).await.remove(0).bounds().await;
    assert_ne!(bounds.topic_id.unwrap(), before);
    assert_eq!(bounds.high_watermark, records);
    again.stop();
    lost.0
}

async fn every_codec_is_read(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    let mut offset = 0;
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer = cluster.producer_with(&[("compression.type", codec)]);
        produce_with(&producer, &topic, 0, offset..offset + 2_000);
        offset += 2_000;
    }
    let mut member = Member::start(cluster, &topic, "codecs", &[]);
    let mut log = member.assigned(1).await.remove(0);
    for start in [0, 1_999, 5_500, 9_999] {
        log.seek(start).await.unwrap();
        let records = collect(&mut log, (offset - start) as usize).await;
        assert_offsets(&records, start);
        for record in records {
            assert_eq!(record.value.as_deref(), Some(&payload(record.offset)[..]));
        }
    }
    drop(log);
    member.stop();
}

/// Leaders move back and forth while records are sent.
async fn leaders_come_and_go(cluster: &Cluster) {
    const EACH: i64 = 500;
    let topic = cluster.topic(2).await;
    cluster.set_leader(&topic, 0, 1);
    cluster.set_leader(&topic, 1, 2);
    let mut member = Member::start(cluster, &topic, "leaders", &[]);
    let mut logs = member.assigned(2).await;
    for log in &mut logs {
        log.seek(0).await.unwrap();
    }
    for (turn, leader) in [2, 3, 1, 3].into_iter().enumerate() {
        let first = turn as i64 * EACH;
        for partition in 0..2 {
            cluster.produce_many(&topic, partition, first..first + EACH);
        }
        for log in &mut logs {
            assert_offsets(&collect(log, EACH as usize).await, first);
        }
        cluster.set_leader(&topic, 0, leader);
    }
    drop(logs);
    member.stop();
}

/// librdkafka needs minutes for it.
async fn a_leader_that_hangs_is_given_up(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    cluster.set_leader(&topic, 0, 3);
    cluster.set_coordinator(&topic, "hangs", 2);
    let mut member = Member::start(cluster, &topic, "hangs", &[("socket.timeout.ms", "3000")]);
    let mut log = member.assigned(1).await.remove(0);
    log.seek(0).await.unwrap();
    cluster.produce_many(&topic, 0, 0..500);
    assert_offsets(&collect(&mut log, 500).await, 0);
    cluster.set_delay(3, Duration::from_secs(8));
    sleep(Duration::from_millis(500)).await;
    cluster.set_leader(&topic, 0, 1);
    cluster.produce_many(&topic, 0, 500..1_000);
    assert_offsets(&collect(&mut log, 500).await, 500);
    drop(log);
    member.stop();
}

async fn aborted_transactions_are_not_read(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    let transactional = |name: &str| {
        let producer = cluster.producer_with(&[("transactional.id", &format!("{topic}-{name}"))]);
        tokio::task::block_in_place(|| producer.init_transactions(LONG).unwrap());
        producer
    };
    let (first, second) = (transactional("first"), transactional("second"));
    let mut sent = 0;
    let mut wanted = Vec::new();
    let mut produce = |producer: &BaseProducer, count: i64, is_read: bool| {
        produce_with(producer, &topic, 0, sent..sent + count);
        if is_read {
            wanted.extend(sent..sent + count);
        }
        sent += count;
    };
    tokio::task::block_in_place(|| {
        let plain = cluster.producer();
        for round in 0..3 {
            first.begin_transaction().unwrap();
            second.begin_transaction().unwrap();
            produce(&plain, 50, true);
            produce(&first, 200, round != 1);
            produce(&second, 300, round == 1);
            produce(&first, 100, round != 1);
            let (committed, aborted) = if round == 1 { (&second, &first) } else { (&first, &second) };
            aborted.abort_transaction(LONG).unwrap();
            produce(&plain, 1, true);
            committed.commit_transaction(LONG).unwrap();
        }
        produce(&plain, 10, true);
    });
    let read = async |group: &str, properties: &[(&str, &str)], count: usize| {
        let mut member = Member::start(cluster, &topic, group, properties);
        let mut log = member.assigned(1).await.remove(0);
        log.seek(0).await.unwrap();
        let records = collect(&mut log, count).await;
        drop(log);
        member.stop();
        records.into_iter().map(|record| record.value.unwrap()).collect::<Vec<_>>()
    };
    let payloads = |indexes: &[i64]| indexes.iter().copied().map(payload).collect::<Vec<_>>();
    assert!(read("committed", &[], wanted.len()).await == payloads(&wanted));
    let all: Vec<_> = (0..sent).collect();
    let uncommitted = [("isolation.level", "read_uncommitted")];
    assert!(read("uncommitted", &uncommitted, all.len()).await == payloads(&all));
}

async fn the_brokers_time_is_read(cluster: &Cluster) {
    let topic = format!("{}-times", cluster.topic(1).await);
    cluster.create_with(&topic, 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let before = now_ms();
    let records: Vec<_> = (0..1_000).map(|index| Record::simple(0, index, 1_000_000 + index)).collect();
    cluster.produce(&topic, &records);
    let mut member = Member::start(cluster, &topic, "times", &[]);
    let mut log = member.assigned(1).await.remove(0);
    log.seek(0).await.unwrap();
    for record in collect(&mut log, 1_000).await {
        assert!((before - 1_000..=now_ms() + 1_000).contains(&record.timestamp_ms), "{}", record.timestamp_ms);
    }
    drop(log);
    member.stop();
}

async fn batches_larger_than_the_limits_are_read(cluster: &Cluster) {
    let topic = format!("{}-large", cluster.topic(1).await);
    cluster.create_with(&topic, 3, &[("max.message.bytes", "12000000")]).await;
    let producer = cluster.producer_with(&[("message.max.bytes", "12000000"), ("compression.type", "none")]);
    let large = |partition: i32, index: i32| vec![b'a' + partition as u8; 3_000_000 + index as usize * 1_000_000];
    for partition in 0..3 {
        for index in 0..4 {
            let value = large(partition, index);
            producer.send(BaseRecord::<[u8], [u8]>::to(&topic).partition(partition).payload(&value)).unwrap();
            producer.flush(LONG).unwrap();
        }
    }
    let mut member = Member::start(cluster, &topic, "large", &[]);
    for mut log in member.assigned(3).await {
        log.seek(0).await.unwrap();
        let records = collect(&mut log, 4).await;
        for (index, record) in records.iter().enumerate() {
            assert!(record.value.as_ref().is_some_and(|value| *value == large(record.partition, index as i32)));
        }
    }
    member.stop();
}

fn now_ms() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64
}

fn assert_offsets(records: &[Record], first: i64) {
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.offset, first + index as i64);
    }
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..200 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {what}");
}

type Seen = std::sync::Arc<std::sync::Mutex<Vec<Vec<(i32, i64)>>>>;

fn move_clone(seen: &Seen) -> impl Fn(KafkaPartitionLog) -> tokio::task::JoinHandle<()> + use<> {
    let seen = seen.clone();
    move |log| tokio::spawn(work(log, seen.clone()))
}

/// Waits until the stints together have every offset of every partition.
async fn wait_for(seen: &Seen, partitions: i32, total: i64) {
    let complete = || {
        let seen = seen.lock().unwrap();
        let all: std::collections::BTreeSet<_> = seen.iter().flatten().copied().collect();
        all.len() as i64 == i64::from(partitions) * total
    };
    for _ in 0..600 {
        if complete() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("records are missing: {:?}", seen.lock().unwrap().iter().map(Vec::len).collect::<Vec<_>>());
}
