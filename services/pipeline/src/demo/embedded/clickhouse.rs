//! The ClickHouse engine behind an HTTP interface, as a child process: `deploy/local/clickhouse_http`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::directory::DemoDirectory;

/// Where the server lies, below the project.
const LOCAL_STACK: &str = "deploy/local";

/// The Python program that is the server: a directory with a `__main__.py`.
const PROGRAM: &str = "clickhouse_http";

/// What the server says once it listens; the URL follows.
const LISTENING: &str = "listening on ";

/// How long the engine may take to come up.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// How long the engine may take to close its files.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// How to run the server.
#[derive(Debug, Clone)]
pub struct ClickHouseProgram {
    python: PathBuf,
    program: PathBuf,
}

/// The running server. Dropping it kills it; [`EmbeddedClickHouse::stop`] is kinder.
#[derive(Debug)]
pub struct EmbeddedClickHouse {
    url: String,
    child: Child,
}

impl ClickHouseProgram {
    /// Finds the server from the working directory upwards, and a Python for it: the given one, or the project's own
    /// environment, which is made at the first time.
    pub async fn find(python: Option<&Path>) -> anyhow::Result<Self> {
        let here = std::env::current_dir()?;
        let stacks = here.ancestors().map(|directory| directory.join(LOCAL_STACK));
        let found = stacks.map(|stack| stack.join(PROGRAM)).find(|program| program.is_dir());
        let program = found.with_context(|| {
            format!("no {LOCAL_STACK}/{PROGRAM} in {} or above it; run the demo inside the project", here.display())
        })?;
        let python = match python {
            Some(python) => python.to_owned(),
            None => python_environment(program.parent().unwrap_or(&program)).await?,
        };
        Ok(Self { python, program })
    }

    /// The command line that serves the data in `data`, for a person.
    pub fn command_line(&self, data: &Path, address: &str) -> String {
        let (python, program) = (self.python.display(), self.program.display());
        format!("{python} {program} --listen {address} --path {}", data.display())
    }

    /// Starts the server on any free port.
    pub async fn start(&self, directory: &DemoDirectory) -> anyhow::Result<EmbeddedClickHouse> {
        let log_path = directory.clickhouse_log();
        let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
        let mut child = Command::new(&self.python)
            .arg(&self.program)
            .args(["--end-with-stdin", "--listen", "127.0.0.1:0", "--path"])
            .arg(directory.clickhouse())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            // Closed by our end, however we end: then the server ends too, even if nobody was left to kill it.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A Ctrl-C at the terminal is for the demo alone: it still needs the server for its summary.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {} for ClickHouse", self.python.display()))?;
        let stdout = child.stdout.take().context("ClickHouse's standard output is missing")?;
        let told = tokio::time::timeout(START_TIMEOUT, first_line(stdout)).await;
        let line = match told {
            Ok(line) => line?,
            Err(_) => bail!("ClickHouse does not listen after {START_TIMEOUT:?}; see {}", log_path.display()),
        };
        let Some(url) = line.strip_prefix(LISTENING) else {
            bail!("ClickHouse did not start (it said: {line:?}); see {}", log_path.display());
        };
        Ok(EmbeddedClickHouse { url: url.trim().to_owned(), child })
    }
}

impl EmbeddedClickHouse {
    /// Root of the HTTP interface.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The number of its process; none once it has ended.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Asks the server to end, and kills it if it doesn't.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let Some(pid) = self.child.id() else {
            return Ok(());
        };
        Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }

    /// The server's end, if it has ended already.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

/// Reads the first line, and goes on reading so that the pipe never fills.
async fn first_line(stdout: ChildStdout) -> anyhow::Result<String> {
    let mut lines = BufReader::new(stdout).lines();
    let first = lines.next_line().await?.unwrap_or_default();
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(first)
}

async fn python_environment(stack: &Path) -> anyhow::Result<PathBuf> {
    let output = Command::new("python3")
        .arg(stack.join("python-env"))
        .arg("demo")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .await
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                anyhow!(
                    "the demo needs Python for its ClickHouse: no python3 found; install it or name one with --python"
                )
            }
            _ => anyhow!(error).context("start python3"),
        })?;
    if !output.status.success() {
        bail!(
            "{LOCAL_STACK}/python-env could not make the Python environment of the demo (see above); \
             name a Python that has chdb-core with --python"
        );
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
