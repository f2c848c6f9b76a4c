//! How much the generator and Kafka can take by themselves, without a pipeline: the rates that a run can be valid at.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use crate::bench::Bench;
use crate::canary::{CanaryBook, now_us};
use crate::find_max::Search;
use crate::fleet::{Fleet, FleetOptions};
use crate::gates::{Gate, Readings, judge_validity};
use crate::kafka_log;
use crate::measured::milliseconds;
use crate::process::usages;
use crate::progress::grouped;
use crate::run::HEAD_START;
use crate::scenario::Scenario;
use crate::schedule::{Punctuality, Timetable};
use crate::send::{Generator, GeneratorOptions};
use crate::statistics::quantile;

/// How often it is looked whether everything is sent.
const END_POLL: Duration = Duration::from_millis(50);

/// No pipeline will look this schema up.
const ANY_SCHEMA: u32 = 1;

/// What came of one rate.
#[derive(Debug, Serialize)]
struct Trial {
    /// Events a second that were due.
    rate: f64,
    /// Events a second that were handed over.
    rate_sent: f64,
    slipped_share: f64,
    slip_max_ms: f64,
    /// What waited for Kafka, at the rate: 90th percentile.
    waiting_p90_ms: f64,
    /// Of all its threads, librdkafka's too.
    generator_cores: f64,
    /// If its process is known.
    kafka_cores: Option<f64>,
    gates: Vec<Gate>,
}

impl Trial {
    fn is_passed(&self) -> bool {
        self.gates.iter().all(|gate| gate.passed)
    }

    fn line(&self) -> String {
        let kafka = self.kafka_cores.map_or(String::new(), |cores| format!(", Kafka {cores:.2} cores"));
        format!(
            "{:>10} events/s: {}; {} sent, {:.3} % slipped, the worst by {:.0} ms; waiting for Kafka {:.0} ms; generator {:.2} cores{kafka}",
            grouped(self.rate),
            if self.is_passed() { "kept" } else { "not kept" },
            grouped(self.rate_sent),
            self.slipped_share * 100.0,
            self.slip_max_ms,
            self.waiting_p90_ms,
            self.generator_cores,
        )
    }
}

/// Searches the highest rate that the generator keeps and Kafka takes; prints each trial. The exit code.
pub async fn calibrate(
    bench: &Bench,
    mut scenario: Scenario,
    mut search: Search,
    interrupt: watch::Receiver<bool>,
) -> anyhow::Result<u8> {
    let mut trials = Vec::new();
    while let Some(rate) = search.next() {
        scenario.rate = rate.round();
        let trial = send_alone(bench, &scenario, interrupt.clone()).await?;
        if *interrupt.borrow() {
            break;
        }
        println!("{}", trial.line());
        search.tried(rate, trial.is_passed());
        trials.push(trial);
    }
    let answer = serde_json::json!({
        "kind": "kappa-load-calibration", "kept": search.sustained(), "not_kept": search.refused(), "trials": trials,
    });
    let path = bench.write_json("calibration.json", &answer)?;
    match search.sustained() {
        Some(rate) => println!("without a pipeline: {} events/s", grouped(rate)),
        None => println!("no rate was kept"),
    }
    println!("{}", path.display());
    Ok(u8::from(search.sustained().is_none()))
}

async fn send_alone(bench: &Bench, scenario: &Scenario, mut interrupt: watch::Receiver<bool>) -> anyhow::Result<Trial> {
    let (kafka, processes) = bench.unread_topic()?;
    kafka_log::create_topic(&kafka, scenario.partitions).await?;
    let start = Instant::now() + HEAD_START;
    let start_ms = now_us() / 1_000 + HEAD_START.as_millis() as i64;
    let options = FleetOptions { schema_id: ANY_SCHEMA, partitions: scenario.partitions };
    let fleet = Fleet::new(scenario, options, start_ms)?;
    let canaries = Arc::new(CanaryBook::new(fleet.busy_partitions()));
    let canary_rate = scenario.canary.rate_per_partition * f64::from(fleet.busy_partitions());
    let curve = scenario.curve();
    let before = usages(&processes);
    let generator = Generator::start(
        GeneratorOptions { kafka: kafka.clone(), start, start_ms, canaries },
        fleet,
        Timetable::new(curve.clone(), canary_rate),
        Punctuality::new(scenario.warm_up(), scenario.gates.slip_limit)?,
    )?;
    while !generator.has_ended() {
        tokio::select! {
            () = tokio::time::sleep(END_POLL) => {}
            _ = interrupt.wait_for(|stop| *stop) => {
                generator.live.stop.store(true, Relaxed);
                tokio::time::sleep(END_POLL).await;
            }
        }
    }
    let after = usages(&processes);
    let seconds = start.elapsed().as_secs_f64();
    let outcome = generator.outcome()?;
    kafka_log::delete_topic(&kafka).await?;
    let cores = |name: &str| {
        let used = after.get(name)?.cpu_seconds - before.get(name)?.cpu_seconds;
        Some(used / seconds)
    };
    let part = scenario.warm_up().as_secs_f64()..outcome.sending.as_secs_f64();
    Ok(Trial {
        rate: scenario.rate,
        rate_sent: outcome.sent.records() as f64 / outcome.sending.as_secs_f64().max(1e-3),
        slipped_share: outcome.punctuality.slipped_share(),
        slip_max_ms: milliseconds(outcome.punctuality.worst),
        waiting_p90_ms: quantile(&outcome.waiting_seconds(&curve, &part), 0.9) * 1_000.0,
        generator_cores: cores("generator").unwrap_or(0.0),
        kafka_cores: cores("kafka"),
        gates: judge_validity(&scenario.gates, &Readings::of_sending(&outcome, &curve, &part)),
    })
}
