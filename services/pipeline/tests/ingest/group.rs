//! Members, partitions, commits.

use std::time::Duration;

use kappa_pipeline::config::StartPolicy;
use kappa_pipeline::ingest::{IngestLimits, KafkaPartitionLog};
use kappa_pipeline::partition::seams::{GroupOffsets, PartitionLog};
use tokio::time::sleep;

use crate::ingest_support::{Cluster, Member, Record, collect};
use crate::{assert_offsets, now_ms};

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

pub(crate) async fn members_share_the_partitions_and_nothing_is_missing(cluster: &Cluster) {
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

pub(crate) async fn commits_are_seen_and_refused_after_a_revoke(cluster: &Cluster) {
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

pub(crate) async fn start_policies(cluster: &Cluster) {
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

pub(crate) async fn a_member_without_partitions_is_told_so(cluster: &Cluster) {
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
