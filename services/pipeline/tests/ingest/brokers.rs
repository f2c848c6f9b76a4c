//! Brokers that go away, move or hang. It takes a mock cluster: it can be switched off, and its leaders can be moved.

use std::time::{Duration, Instant};

use kappa_pipeline::partition::seams::{GroupOffsets, PartitionLog};
use tokio::time::sleep;

use crate::assert_offsets;
use crate::ingest_support::{Cluster, Member, collect};

pub(crate) async fn an_outage_costs_nothing_but_time(cluster: &Cluster) {
    let topic = cluster.topic(1).await;
    cluster.produce_many(&topic, 0, 0..5_000);
    // On a busy machine the outage may take longer than the short session of the other tests; and what was refused again
    // and again is tried again only after ten seconds, if nothing is said.
    let patience = [("session.timeout.ms", "30000"), ("reconnect.backoff.max.ms", "500")];
    let mut member = Member::start(cluster, &topic, "outage", &patience);
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

pub(crate) async fn stopping_is_bounded_without_brokers(cluster: &Cluster) {
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

/// Leaders move back and forth while records are sent.
pub(crate) async fn leaders_come_and_go(cluster: &Cluster) {
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
pub(crate) async fn a_leader_that_hangs_is_given_up(cluster: &Cluster) {
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
