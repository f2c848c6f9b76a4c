//! The local stack of `deploy/local`, started by the harness itself: the real Kafka, registry, S3 and ClickHouse engine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::click_house::ClickHouse;
use crate::kafka_log;
use crate::local_pipeline::LocalPipeline;
use crate::measured::PIPELINE;
use crate::repository::find_repository;
use crate::target::{Kafka, Target};

/// The stack's services, as they are called in the report too.
const SERVICES: [&str; 4] = ["kafka", "registry", "s3", "clickhouse"];

/// Kafka, registry, S3 and ClickHouse on this machine; taken down on drop unless they were up before.
#[derive(Debug)]
pub struct LocalStack {
    repository: PathBuf,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    was_up: bool,
}

#[derive(Deserialize)]
struct PidFile {
    pid: u32,
}

impl LocalStack {
    /// Starts what is not running of the stack in `directory`, by default `target/load/stack`.
    pub fn start(directory: Option<&Path>) -> anyhow::Result<Self> {
        let repository = find_repository()?;
        let directory = directory.map_or_else(|| repository.join("target/load/stack"), Path::to_owned);
        let was_up = directory.join("env").exists();
        let mut stack = Self { repository, directory, environment: BTreeMap::new(), was_up };
        stack.command("up")?;
        let env_file = stack.directory.join("env");
        let text = fs::read_to_string(&env_file).with_context(|| format!("cannot read {}", env_file.display()))?;
        stack.environment = parse_environment(&text);
        Ok(stack)
    }

    fn command(&self, verb: &str) -> anyhow::Result<()> {
        let command = self.repository.join("deploy/local/stack");
        let output = Command::new(&command)
            .args([verb, "--dir"])
            .arg(&self.directory)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", command.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("the local stack cannot be brought {verb}: {}", said.trim());
        }
        Ok(())
    }

    fn variable(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.environment.get(name);
        value.map(String::as_str).with_context(|| format!("{}/env has no {name}", self.directory.display()))
    }

    /// Its log, and a topic in it.
    pub fn kafka(&self, topic: &str) -> anyhow::Result<Kafka> {
        let brokers = self.variable("KAFKA_BROKERS")?.to_owned();
        Ok(Kafka { brokers, topic: topic.to_owned(), properties: BTreeMap::new() })
    }

    /// Makes a topic and a database of that name, and starts a pipeline on them with the settings `key=value`.
    pub async fn start_pipeline(
        &self,
        topic: &str,
        partitions: i32,
        settings: &BTreeMap<String, String>,
    ) -> anyhow::Result<(Target, LocalPipeline)> {
        let directory = self.directory.join("load").join(topic);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let config = directory.join("kappa.toml");
        fs::write(&config, self.configuration(topic)?)?;
        kafka_log::create_topic(&self.kafka(topic)?, partitions).await?;
        let pipeline = LocalPipeline::start(&config, settings, &self.environment)?;
        let mut processes = self.processes();
        processes.push((PIPELINE.to_owned(), pipeline.id()));
        let target = Target::from_file(&config, &self.environment, vec![pipeline.address.clone()], processes)?;
        Ok((target, pipeline))
    }

    fn configuration(&self, topic: &str) -> anyhow::Result<String> {
        let (brokers, registry) = (self.variable("KAFKA_BROKERS")?, self.variable("REGISTRY_URL")?);
        let (s3, clickhouse) = (self.variable("S3_ENDPOINT")?, self.variable("CLICKHOUSE_URL")?);
        let database = topic.replace('-', "_");
        Ok(format!(
            "[kafka]\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\ngroup = \"{topic}\"\n\
             [registry]\nurl = \"{registry}\"\n\
             [archive]\nurl = \"s3://archive/{topic}\"\n\
             [dead_letter]\nurl = \"s3://dead-letter/{topic}\"\n\
             [state]\nurl = \"s3://state/{topic}\"\n\
             [object_store]\nendpoint = \"{s3}\"\nallow_http = true\n\
             [hot_store]\nurl = \"{clickhouse}\"\ndatabase = \"{database}\"\n"
        ))
    }

    /// The services' processes.
    pub fn processes(&self) -> Vec<(String, u32)> {
        let named = |service: &&str| Some(((*service).to_owned(), pid_of(&self.directory, service)?));
        SERVICES.iter().filter_map(named).collect()
    }

    /// Removes what a run has left, so that the next one finds the stack as it was.
    pub async fn clean_up(&self, target: &Target) -> anyhow::Result<()> {
        kafka_log::delete_topic(&target.kafka).await?;
        let click_house = ClickHouse::new(&target.hot_store)?;
        click_house.rows(&format!("DROP DATABASE IF EXISTS `{}`", click_house.database())).await?;
        Ok(())
    }
}

impl Drop for LocalStack {
    fn drop(&mut self) {
        if self.was_up {
            return;
        }
        if let Err(error) = self.command("down") {
            // There is nowhere left to say that standard error is closed.
            let _ = writeln!(std::io::stderr(), "{error:#}");
        }
    }
}

/// The process of a service, from the stack's own file.
pub fn pid_of(stack_directory: &Path, service: &str) -> Option<u32> {
    let text = fs::read_to_string(stack_directory.join(format!("run/{service}.pid"))).ok()?;
    Some(serde_json::from_str::<PidFile>(&text).ok()?.pid)
}

/// `export NAME=value` lines, quoted as a shell quotes plain words.
fn parse_environment(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim().trim_start_matches("export ").split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches(['\'', '"']).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stacks_environment_is_understood() {
        let text = "export KAFKA_BROKERS=127.0.0.1:1\nexport AWS_SECRET_ACCESS_KEY='a b'\nS3_ENDPOINT=\"http://x\"\n";
        let environment = parse_environment(text);
        assert_eq!(environment["KAFKA_BROKERS"], "127.0.0.1:1");
        assert_eq!(environment["AWS_SECRET_ACCESS_KEY"], "a b");
        assert_eq!(environment["S3_ENDPOINT"], "http://x");
    }
}
