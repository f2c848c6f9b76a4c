//! Ingest against librdkafka's mock cluster, and the same again against a real Kafka when `KAFKA_BROKERS` is set.
//!
//! Everything runs with librdkafka and with the native fetcher. Each test joins a group of its own on a topic of its own, so they run side by side.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests")]

mod brokers;
mod group;
#[path = "../ingest_support/mod.rs"]
mod ingest_support;
mod records;
mod topics;

use std::time::Duration;

use ingest_support::{Cluster, Record};
use kappa_pipeline::config::FetcherChoice;
use tokio::time::sleep;

/// For what librdkafka notices only when it refreshes its metadata.
const LONG: Duration = Duration::from_secs(90);

/// Makes modules of tests: each test in the braces, by the module that it is in, with each cluster in front of them. Without a real Kafka its tests
/// pass, and say so.
macro_rules! conformance {
    ([$($module:ident: $cluster:expr;)*] $tests:tt) => {
        $(conformance!(@module $module, $cluster, $tests);)*
    };
    (@module $module:ident, $cluster:expr, { $($file:ident::$test:ident),* $(,)? }) => {
        mod $module {
            use super::{Cluster, FetcherChoice};

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let Some(cluster) = $cluster else { return };
                super::$file::$test(&cluster).await;
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
    records::records_arrive_in_order_and_whole,
    records::a_seek_drops_what_was_fetched_before,
    records::a_partition_that_takes_nothing_does_not_hold_up_the_others,
    records::without_memory_nothing_is_taken_but_the_member_stays,
    group::members_share_the_partitions_and_nothing_is_missing,
    group::commits_are_seen_and_refused_after_a_revoke,
    group::start_policies,
    group::a_member_without_partitions_is_told_so,
    topics::a_missing_topic_is_fatal,
    records::every_codec_is_read,
});

// What takes a mock cluster: it can be switched off, and its leaders can be moved.
conformance!([
    weather: Some(Cluster::mock_of(1, FetcherChoice::Librdkafka));
    weather_native: Some(Cluster::mock_of(1, FetcherChoice::Native));
] {
    brokers::an_outage_costs_nothing_but_time,
    brokers::stopping_is_bounded_without_brokers,
});

conformance!([
    leaders: Some(Cluster::mock_of(3, FetcherChoice::Librdkafka));
    leaders_native: Some(Cluster::mock_of(3, FetcherChoice::Native));
] {
    brokers::leaders_come_and_go,
});

conformance!([
    hangs_native: Some(Cluster::mock_of(3, FetcherChoice::Native));
] {
    brokers::a_leader_that_hangs_is_given_up,
});

// What the mock cluster cannot do.
conformance!([
    only_real: Cluster::real(FetcherChoice::Librdkafka);
    only_real_native: Cluster::real(FetcherChoice::Native);
] {
    topics::what_retention_took_is_not_skipped,
    topics::a_deleted_topic_is_fatal,
    topics::a_topic_created_again_is_told_apart,
    records::aborted_transactions_are_not_read,
    records::the_brokers_time_is_read,
    records::batches_larger_than_the_limits_are_read,
});

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
