//! The local stack and the pipeline on it, started by the harness itself.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use url::Url;

use crate::click_house::ClickHouse;
use crate::kafka_log;
use crate::target::{Kafka, Target};

/// The stack's services, and what they are called in the report.
const SERVICES: [(&str, &str); 4] =
    [("kafka", "kafka"), ("registry", "registry"), ("s3", "s3"), ("clickhouse", "clickhouse")];

/// How long the pipeline may take to seal everything once it is asked to stop.
const SEAL_TIMEOUT: Duration = Duration::from_mins(2);

/// Kafka, registry, S3 and ClickHouse on this machine; taken down on drop unless they were up before.
#[derive(Debug)]
pub struct LocalStack {
    repository: PathBuf,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    was_up: bool,
}

/// A `kappa run` on the local stack; killed on drop.
#[derive(Debug)]
pub struct LocalPipeline {
    child: Child,
    log: PathBuf,
    has_ended: bool,
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

    /// Makes a topic and a database of that name, and starts a pipeline on them with the settings `key=value`.
    pub async fn start_pipeline(
        &self,
        topic: &str,
        partitions: i32,
        settings: &BTreeMap<String, String>,
    ) -> anyhow::Result<(Target, LocalPipeline)> {
        let directory = self.directory.join("load").join(topic);
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let port = free_port()?;
        let config = directory.join("kappa.toml");
        fs::write(&config, self.configuration(topic, port)?)?;
        let kafka = Kafka {
            brokers: self.variable("KAFKA_BROKERS")?.to_owned(),
            topic: topic.to_owned(),
            properties: BTreeMap::new(),
        };
        kafka_log::create_topic(&kafka, partitions).await?;
        let kappa = find_kappa(&self.repository)?;
        self.migrate(&kappa, &config)?;
        let log = directory.join("kappa.log");
        let log_file = fs::File::create(&log)?;
        let overrides = settings.iter().flat_map(|(key, value)| ["-s".to_owned(), format!("{key}={value}")]);
        let child = Command::new(&kappa)
            .args(["run", "-c"])
            .arg(&config)
            .args(overrides)
            // Ctrl-C is for the harness alone: the pipeline is sealed when everything is measured.
            .process_group(0)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("cannot run {}", kappa.display()))?;
        let pipeline = LocalPipeline { child, log, has_ended: false };
        let mut processes = self.processes();
        processes.push(("kappa".to_owned(), pipeline.child.id()));
        let address = Url::parse(&format!("http://127.0.0.1:{port}"))?;
        let target = Target::from_file(&config, &self.environment, vec![address], processes)?;
        Ok((target, pipeline))
    }

    fn migrate(&self, kappa: &Path, config: &Path) -> anyhow::Result<()> {
        let output = Command::new(kappa)
            .args(["migrate", "--wait", "30s", "-c"])
            .arg(config)
            .envs(&self.environment)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", kappa.display()))?;
        if !output.status.success() {
            bail!("`kappa migrate` has failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn configuration(&self, topic: &str, port: u16) -> anyhow::Result<String> {
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
             [hot_store]\nurl = \"{clickhouse}\"\ndatabase = \"{database}\"\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\n"
        ))
    }

    /// Pids of the services, from the stack's own files.
    fn processes(&self) -> Vec<(String, u32)> {
        let pid = |service: &str| {
            let text = fs::read_to_string(self.directory.join(format!("run/{service}.pid"))).ok()?;
            Some(serde_json::from_str::<PidFile>(&text).ok()?.pid)
        };
        SERVICES.iter().filter_map(|(service, name)| Some(((*name).to_owned(), pid(service)?))).collect()
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

impl LocalPipeline {
    /// An error, with the end of its log, if it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.has_ended = true;
            bail!(
                "the pipeline has ended ({status}); its log, {}, ends with:\n{}",
                self.log.display(),
                self.last_words()
            );
        }
        Ok(())
    }

    /// SIGSTOP and SIGCONT.
    pub fn set_paused(&self, is_paused: bool) -> anyhow::Result<()> {
        signal(self.child.id(), if is_paused { "STOP" } else { "CONT" })
    }

    /// Asks it to seal everything and leave; waits until it has.
    pub async fn seal(&mut self) -> anyhow::Result<()> {
        self.check()?;
        signal(self.child.id(), "TERM")?;
        let deadline = Instant::now() + SEAL_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.has_ended = true;
                if status.success() {
                    return Ok(());
                }
                bail!("the pipeline did not seal everything ({status}); its log ends with:\n{}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("the pipeline still runs {SEAL_TIMEOUT:?} after SIGTERM: read {}", self.log.display());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for LocalPipeline {
    fn drop(&mut self) {
        if !self.has_ended {
            // It may have ended by itself; then there is nothing to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// By the command, so that no code of ours has to be unsafe for it.
fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().context("cannot run kill")?;
    if !status.success() {
        bail!("cannot send SIG{name} to the process {pid}");
    }
    Ok(())
}

/// The checkout: upwards from here, or where this program was built.
pub fn find_repository() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = here.ancestors().chain(built.ancestors()).find(|path| path.join("deploy/local/stack").is_file());
    found.map(Path::to_owned).context(
        "deploy/local/stack is not found: run this within the checkout, or name a cluster with --config kappa.toml",
    )
}

/// The pipeline's program: beside this one, or in the checkout.
pub fn find_kappa(repository: &Path) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("kappa")));
    let built = repository.join("target/release/kappa");
    let found = beside.into_iter().chain([built]).find(|path| path.is_file());
    found.context("target/release/kappa is not there: build it with `cargo build --release --bin kappa`")
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?.local_addr()?.port())
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

    #[test]
    fn the_checkout_is_found() {
        assert!(find_repository().unwrap().join("schemas/sensor-reading.avsc").is_file());
    }
}
