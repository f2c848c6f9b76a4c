//! A pipeline of the harness's own: `kappa run`, which it may pause, and which it tells to seal everything.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use url::Url;

use crate::child::ChildProcess;
use crate::repository::find_kappa;

/// How long the pipeline may take to seal everything once it is asked to stop.
const SEAL_TIMEOUT: Duration = Duration::from_mins(2);

/// The running pipeline; killed on drop.
#[derive(Debug)]
pub struct LocalPipeline {
    process: ChildProcess,
    /// For `/status` and `/metrics`.
    pub address: Url,
}

impl LocalPipeline {
    /// Makes the tables and starts a pipeline with a configuration file and the settings `key=value`, which win. Its log
    /// is put beside the file.
    pub fn start(
        config: &Path,
        settings: &BTreeMap<String, String>,
        environment: &BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let kappa = find_kappa()?;
        migrate(&kappa, config, environment)?;
        let listen = format!("127.0.0.1:{}", free_port()?);
        let overrides = settings.iter().flat_map(|(key, value)| ["-s".to_owned(), format!("{key}={value}")]);
        let mut command = Command::new(&kappa);
        command.args(["run", "--listen", &listen, "-c"]).arg(config).args(overrides).envs(environment);
        let process = ChildProcess::start("the pipeline", &mut command, &config.with_file_name("pipeline.log"))?;
        Ok(Self { process, address: Url::parse(&format!("http://{listen}"))? })
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// An error, with the end of its log, if it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.process.check()
    }

    /// SIGSTOP and SIGCONT.
    pub fn set_paused(&self, is_paused: bool) -> anyhow::Result<()> {
        self.process.signal(if is_paused { "STOP" } else { "CONT" })
    }

    /// Asks it to seal everything and leave; waits until it has.
    pub async fn seal(&mut self) -> anyhow::Result<()> {
        self.process.end(SEAL_TIMEOUT).await.context("not everything is sealed")
    }
}

fn migrate(kappa: &Path, config: &Path, environment: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let output = Command::new(kappa)
        .args(["migrate", "--wait", "30s", "-c"])
        .arg(config)
        .envs(environment)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", kappa.display()))?;
    if !output.status.success() {
        bail!("`kappa migrate` has failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("no free port")?.local_addr()?.port())
}
