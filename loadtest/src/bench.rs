//! Where runs are made: the local stack, the embedded one, or any cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::watch;

use crate::canary::now_us;
use crate::click_house::ClickHouse;
use crate::embedded_stack::EmbeddedStack;
use crate::environment::Environment;
use crate::local_pipeline::LocalPipeline;
use crate::local_stack::LocalStack;
use crate::progress::{Progress, say};
use crate::report::Report;
use crate::run::{Plan, run};
use crate::scenario::Scenario;
use crate::target::{Kafka, Target};

/// The program's own name among the processes.
const GENERATOR: &str = "generator";

/// See the module.
#[derive(Debug)]
pub struct Bench {
    place: Place,
    /// Where the reports go.
    pub out: PathBuf,
    /// How long the rest may take to be processed, and then to be sealed by a pipeline that is not ours to stop.
    pub drain_timeout: Duration,
    /// The same for sealing.
    pub seal_timeout: Duration,
}

/// What is tested.
#[derive(Debug)]
pub enum Place {
    /// A pipeline of ours on the stack of `deploy/local`.
    Local(LocalStack),
    /// A pipeline of ours on the stack of `kappa demo`, started anew for each run in this directory.
    Embedded(PathBuf),
    /// A pipeline that runs already, somewhere.
    Cluster(Box<Target>),
}

/// One run's part of the place.
struct Site {
    target: Target,
    /// The pipeline, if it is ours.
    pipeline: Option<LocalPipeline>,
    /// What it talks to, if that is for this run alone.
    stack: Option<EmbeddedStack>,
}

impl Place {
    /// In words.
    fn describe(&self) -> String {
        match self {
            Self::Local(_) => "a pipeline of its own on the local stack: Apache Kafka, Apicurio, versitygw and the \
                ClickHouse engine, on the same machine"
                .to_owned(),
            Self::Embedded(_) => "a pipeline of its own on the embedded stack, on the same machine. Its broker is \
                librdkafka's mock cluster, which keeps the log in memory, and its object store is a directory: nothing \
                is told about durability, outages, S3, or the limits of a real Kafka"
                .to_owned(),
            Self::Cluster(target) => {
                format!("a pipeline that ran already: topic {} at {}", target.kafka.topic, target.kafka.brokers)
            }
        }
    }

    async fn prepare(&self, scenario: &Scenario) -> anyhow::Result<Site> {
        let mut site = match self {
            Self::Local(stack) => {
                let (target, pipeline) =
                    stack.start_pipeline(&new_topic(), scenario.partitions, &scenario.pipeline).await?;
                Site { target, pipeline: Some(pipeline), stack: None }
            }
            Self::Embedded(directory) => {
                say("starting the embedded stack");
                let stack = EmbeddedStack::start(directory, scenario.partitions).await?;
                let (target, pipeline) = stack.start_pipeline(&scenario.pipeline)?;
                Site { target, pipeline: Some(pipeline), stack: Some(stack) }
            }
            Self::Cluster(target) => Site { target: Target::clone(target), pipeline: None, stack: None },
        };
        site.target.processes.push((GENERATOR.to_owned(), std::process::id()));
        Ok(site)
    }
}

impl Bench {
    /// Somewhere.
    pub fn new(place: Place, out: PathBuf, drain_timeout: Duration, seal_timeout: Duration) -> Self {
        Self { place, out, drain_timeout, seal_timeout }
    }

    /// Runs a scenario.
    pub async fn run(
        &self,
        name: &str,
        scenario: &Scenario,
        interrupt: watch::Receiver<bool>,
    ) -> anyhow::Result<Report> {
        let plan = Plan {
            name: name.to_owned(),
            scenario: scenario.clone(),
            drain_timeout: self.drain_timeout,
            seal_timeout: self.seal_timeout,
        };
        let mut environment = Environment::look(self.place.describe());
        let progress = Progress::new(scenario.duration);
        let mut site = self.place.prepare(scenario).await?;
        let version = ClickHouse::new(&site.target.hot_store)?.rows("SELECT version()").await;
        environment.clickhouse = version.ok().and_then(|rows| rows.into_iter().flatten().next());
        let measured = run(&plan, &site.target, site.pipeline.as_mut(), &progress, interrupt).await;
        drop(site.pipeline);
        drop(progress);
        let report = Report::new(&mut measured?, environment)?;
        let cleaned_up = match (&self.place, site.stack) {
            (Place::Local(stack), _) => stack.clean_up(&site.target).await,
            (_, Some(stack)) => stack.end().await,
            _ => Ok(()),
        };
        if let Err(error) = cleaned_up {
            say(&format!("what the run has left could not be removed: {error:#}"));
        }
        Ok(report)
    }

    /// A topic that nobody reads, to be made; and the processes to watch.
    pub fn unread_topic(&self) -> anyhow::Result<(Kafka, Vec<(String, u32)>)> {
        let topic = new_topic();
        let (kafka, mut processes) = match &self.place {
            Place::Local(stack) => (stack.kafka(&topic)?, stack.processes()),
            Place::Embedded(_) => bail!("the embedded broker keeps no more than a few MiB: calibrate on a real Kafka"),
            Place::Cluster(target) => (Kafka { topic, ..target.kafka.clone() }, target.processes.clone()),
        };
        processes.push((GENERATOR.to_owned(), std::process::id()));
        Ok((kafka, processes))
    }

    /// Writes a JSON document beside the reports.
    pub fn write_json(&self, name: &str, content: &serde_json::Value) -> anyhow::Result<PathBuf> {
        let path = self.out.join(name);
        std::fs::create_dir_all(&self.out).with_context(|| format!("cannot make {}", self.out.display()))?;
        std::fs::write(&path, serde_json::to_string_pretty(content)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn new_topic() -> String {
    format!("load-{}", now_us() / 1_000)
}
