//! The stack that `kappa demo` brings along, as a target: no Java, no Go, nothing to install but a Python package.
//!
//! It tells how the pipeline decodes, aggregates, writes and seals. What it cannot tell: its broker is librdkafka's mock
//! cluster, which keeps the log in memory, a few MiB of a partition, and acknowledges at once; its object store is a
//! directory. So nothing is said about durability, outages, S3, or a Kafka that is the limit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::child::ChildProcess;
use crate::local_pipeline::LocalPipeline;
use crate::local_stack::pid_of;
use crate::measured::PIPELINE;
use crate::repository::find_kappa;
use crate::target::Target;

/// How long it may take to start: at the first time a Python package is installed.
const START_TIMEOUT: Duration = Duration::from_mins(5);

/// How long it may take to close its files.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// How often it is looked whether it is there.
const START_POLL: Duration = Duration::from_millis(100);

/// `kappa demo --stack-only`; killed on drop, and ClickHouse ends with it.
#[derive(Debug)]
pub struct EmbeddedStack {
    process: ChildProcess,
    directory: PathBuf,
}

impl EmbeddedStack {
    /// Starts it in `directory`, whose earlier content is deleted, with a topic of so many partitions.
    pub async fn start(directory: &Path, partitions: i32) -> anyhow::Result<Self> {
        let log = directory.with_extension("log");
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        }
        let mut command = Command::new(find_kappa()?);
        command.args(["demo", "--stack-only", "--partitions", &partitions.to_string(), "--dir"]).arg(directory);
        let process = ChildProcess::start("the embedded stack", &mut command, &log)?;
        let mut stack = Self { process, directory: directory.to_owned() };
        let deadline = Instant::now() + START_TIMEOUT;
        // Written when everything answers; one of an earlier stack is deleted before anything is started.
        while pid_of(&stack.directory, "broker") != Some(stack.process.id()) || !stack.directory.join("env").exists() {
            stack.process.check()?;
            if Instant::now() > deadline {
                bail!("the embedded stack is not there after {START_TIMEOUT:?}: read {}", log.display());
            }
            tokio::time::sleep(START_POLL).await;
        }
        Ok(stack)
    }

    /// Ends it, and waits until it has gone.
    pub async fn end(mut self) -> anyhow::Result<()> {
        self.process.end(END_TIMEOUT).await
    }

    /// Starts a pipeline on it with the settings `key=value`.
    pub fn start_pipeline(&self, settings: &BTreeMap<String, String>) -> anyhow::Result<(Target, LocalPipeline)> {
        let config = self.directory.join("kappa.toml");
        let environment = BTreeMap::new();
        let pipeline = LocalPipeline::start(&config, settings, &environment)?;
        let mut processes = vec![(PIPELINE.to_owned(), pipeline.id())];
        for service in ["broker", "clickhouse"] {
            processes.extend(pid_of(&self.directory, service).map(|pid| (service.to_owned(), pid)));
        }
        let target = Target::from_file(&config, &environment, vec![pipeline.address.clone()], processes)?;
        Ok((target, pipeline))
    }
}
