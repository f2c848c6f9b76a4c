//! What ingest costs by itself, on a real Kafka: `KAFKA_BROKERS=... cargo test --release --test ingest_floor -- --ignored
//! --nocapture --test-threads 1`. `RECORDS` sets how many records are drained, `FETCHER=librdkafka` who fetches.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs, reason = "a measurement")]

mod ingest_support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use ingest_support::{Cluster, Member, payload};
use kappa_pipeline::config::{FetcherChoice, StartPolicy};
use kappa_pipeline::ingest::IngestLimits;
use kappa_pipeline::partition::seams::PartitionLog;
use rdkafka::producer::BaseRecord;

/// As in the `kappa` binary: librdkafka's malloc is replaced as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: i32 = 12;

fn fetcher() -> FetcherChoice {
    match std::env::var("FETCHER").as_deref() {
        Ok("librdkafka") => FetcherChoice::Librdkafka,
        _ => FetcherChoice::Native,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn drain() {
    let Some(cluster) = Cluster::real(fetcher()) else { return };
    let wanted: u64 = std::env::var("RECORDS").map_or(3_000_000, |records| records.parse().unwrap());
    let topic = cluster.topic(PARTITIONS).await;
    let per_partition = wanted as i64 / i64::from(PARTITIONS);
    for partition in 0..PARTITIONS {
        cluster.produce_many(&topic, partition, 0..per_partition);
    }
    let total = per_partition as u64 * u64::from(PARTITIONS as u32);
    for run in 0..3 {
        let limits = IngestLimits::default();
        let mut member =
            Member::start_with(&cluster, &topic, &format!("floor{run}"), &[], limits, 4 << 30, StartPolicy::Earliest);
        let mut logs = member.assigned(PARTITIONS as usize).await;
        let (count, batches) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let threads = threads_cpu_time();
        let (started, cpu) = (Instant::now(), cpu_time());
        for log in &mut logs {
            log.seek(0).await.unwrap();
        }
        let workers: Vec<_> = logs
            .into_iter()
            .map(|mut log| {
                let (count, batches) = (Arc::clone(&count), Arc::clone(&batches));
                tokio::spawn(async move {
                    while let Ok(delivery) = log.next().await {
                        count.fetch_add(delivery.batch.len() as u64, Ordering::Relaxed);
                        batches.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        while count.load(Ordering::Relaxed) < total {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (elapsed, cpu) = (started.elapsed(), cpu_time().saturating_sub(cpu));
        let batches = batches.load(Ordering::Relaxed);
        eprintln!(
            "drain: {total} records in {elapsed:.2?}: {:.2} M/s, {:.0} ns CPU a record, {:.0} records a batch",
            total as f64 / elapsed.as_secs_f64() / 1e6,
            cpu.as_nanos() as f64 / total as f64,
            total as f64 / batches as f64,
        );
        let threads = threads_cpu_time().into_iter().map(|(name, time)| {
            let before = threads.get(&name).copied().unwrap_or_default();
            format!("{name} {:.0}", time.saturating_sub(before).as_nanos() as f64 / total as f64)
        });
        eprintln!("       by thread: {}", threads.collect::<Vec<_>>().join(", "));
        for worker in workers {
            worker.abort();
        }
        tokio::task::spawn_blocking(move || member.stop()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn latency_and_idle_cost() {
    let Some(cluster) = Cluster::real(fetcher()) else { return };
    let topic = cluster.topic(1).await;
    let mut member = Member::start(&cluster, &topic, "latency", &[]);
    let mut log = member.assigned(1).await.remove(0);
    log.seek(0).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cpu = cpu_time();
    tokio::time::sleep(Duration::from_secs(10)).await;
    eprintln!("idle: {:.2} % of a core", cpu_time().saturating_sub(cpu).as_secs_f64() * 10.0);
    let receiver = tokio::spawn(async move {
        let mut latencies = Vec::new();
        while latencies.len() < 300 {
            let delivery = log.next().await.unwrap();
            let now_ms = UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
            latencies.extend(delivery.batch.iter().map(|record| now_ms - record.timestamp_ms));
        }
        latencies
    });
    let producer = cluster.producer();
    for index in 0..300 {
        let value = payload(index);
        producer.send(BaseRecord::<[u8], [u8]>::to(&topic).partition(0).payload(&value)).unwrap();
        producer.poll(Duration::ZERO);
        tokio::time::sleep(Duration::from_millis(23)).await;
    }
    let mut latencies = receiver.await.unwrap();
    latencies.sort_unstable();
    eprintln!(
        "produce to delivery (with 2 ms of the producer's linger): p50 {} ms, p99 {} ms",
        latencies[150], latencies[297]
    );
    member.stop();
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    cpu_time_in(&std::fs::read_to_string("/proc/self/stat").unwrap())
}

/// CPU time of its threads, by name.
fn threads_cpu_time() -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let name = stat[stat.find('(').unwrap() + 1..stat.rfind(')').unwrap()].to_owned();
        *times.entry(name).or_default() += cpu_time_in(&stat);
    }
    times
}

/// utime and stime, in ticks of 10 ms, of a `stat` file (`man 5 proc`).
fn cpu_time_in(stat: &str) -> Duration {
    let behind_name = stat.rsplit_once(')').unwrap().1;
    let fields: Vec<i64> = behind_name.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    Duration::from_millis((fields[10] + fields[11]) as u64 * 10)
}
