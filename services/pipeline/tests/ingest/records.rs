//! Which records come, and how.

use std::collections::BTreeMap;
use std::time::Duration;

use kappa_pipeline::config::StartPolicy;
use kappa_pipeline::ingest::{IngestLimits, KafkaPartitionLog};
use kappa_pipeline::partition::seams::PartitionLog;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::time::{sleep, timeout};

use crate::ingest_support::{Cluster, Member, Record, collect, payload, produce_with};
use crate::{LONG, assert_offsets, eventually, now_ms};

pub(crate) async fn records_arrive_in_order_and_whole(cluster: &Cluster) {
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

pub(crate) async fn a_seek_drops_what_was_fetched_before(cluster: &Cluster) {
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

pub(crate) async fn a_partition_that_takes_nothing_does_not_hold_up_the_others(cluster: &Cluster) {
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

pub(crate) async fn without_memory_nothing_is_taken_but_the_member_stays(cluster: &Cluster) {
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
    eventually("nothing is held back", || !member.status().is_holding_back()).await;
    drop(log);
    member.stop();
}

pub(crate) async fn every_codec_is_read(cluster: &Cluster) {
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

pub(crate) async fn aborted_transactions_are_not_read(cluster: &Cluster) {
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

pub(crate) async fn the_brokers_time_is_read(cluster: &Cluster) {
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

pub(crate) async fn batches_larger_than_the_limits_are_read(cluster: &Cluster) {
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
