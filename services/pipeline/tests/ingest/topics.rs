//! Topics that are missing, deleted, cut short or made anew.

use std::time::Duration;

use kappa_pipeline::ingest::AssignmentEvent;
use kappa_pipeline::partition::seams::{GroupOffsets, PartitionLog};
use tokio::time::timeout;

use crate::ingest_support::{Cluster, Member, collect};
use crate::{LONG, assert_offsets};

pub(crate) async fn a_missing_topic_is_fatal(cluster: &Cluster) {
    let mut member = Member::start(cluster, "no-such-topic", "missing", &[]);
    let AssignmentEvent::Fatal(reason) = member.event().await else { panic!("not fatal") };
    assert!(reason.contains("`no-such-topic` does not exist"), "{reason}");
    member.stop();
}

pub(crate) async fn what_retention_took_is_not_skipped(cluster: &Cluster) {
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

pub(crate) async fn a_deleted_topic_is_fatal(cluster: &Cluster) {
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

pub(crate) async fn a_topic_created_again_is_told_apart(cluster: &Cluster) {
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
