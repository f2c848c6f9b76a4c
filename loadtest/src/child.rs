//! A program that the harness starts, watches and ends.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How often it is looked whether it has ended.
const END_POLL: Duration = Duration::from_millis(50);

/// Lines of its log that are shown when it ends by itself.
const LAST_WORDS: usize = 8;

/// The running program; killed on drop.
#[derive(Debug)]
pub struct ChildProcess {
    /// What it is, for errors.
    what: &'static str,
    child: Child,
    log: PathBuf,
    has_ended: bool,
}

impl ChildProcess {
    /// Starts it. What it says goes to the file `log`.
    pub fn start(what: &'static str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log_file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let child = command
            // Ctrl-C is for the harness alone, which needs it for the rest of its measurements.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        Ok(Self { what, child, log: log.to_owned(), has_ended: false })
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// An error, with the end of its log, if it has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            self.has_ended = true;
            let log = self.log.display();
            bail!("{} has ended ({status}); its log, {log}, ends with:\n{}", self.what, self.last_words());
        }
        Ok(())
    }

    /// Sends a signal: by the command, so that no code of ours has to be unsafe for it.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.id();
        let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().context("cannot run kill")?;
        if !status.success() {
            bail!("cannot send SIG{name} to {}, the process {pid}", self.what);
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has ended; an error unless it says that all is well.
    pub async fn end(&mut self, timeout: Duration) -> anyhow::Result<()> {
        self.check()?;
        self.signal("TERM")?;
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.has_ended = true;
                if status.success() {
                    return Ok(());
                }
                bail!("{} did not end well ({status}); its log ends with:\n{}", self.what, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("{} still runs {timeout:?} after SIGTERM: read {}", self.what, self.log.display());
            }
            tokio::time::sleep(END_POLL).await;
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(LAST_WORDS).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.has_ended {
            // It may have ended by itself; then there is nothing to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(directory: &Path, script: &str) -> ChildProcess {
        ChildProcess::start("the script", Command::new("sh").args(["-c", script]), &directory.join("log")).unwrap()
    }

    #[tokio::test]
    async fn what_ends_by_itself_is_told_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut script = start(directory.path(), "for word in 1 2 3 4 5 6 7 8 9 dead; do echo $word; done; exit 3");
        let deadline = Instant::now() + Duration::from_secs(30);
        let error = loop {
            if let Err(error) = script.check() {
                break error.to_string();
            }
            assert!(Instant::now() < deadline);
            tokio::time::sleep(END_POLL).await;
        };
        assert!(error.contains("the script has ended (exit status: 3)") && error.ends_with("9\ndead"), "{error}");
        assert!(!error.contains("\n2\n"), "{error}");
    }

    #[tokio::test]
    async fn it_is_ended_gracefully_and_that_can_fail() {
        let directory = tempfile::tempdir().unwrap();
        let patient = Duration::from_secs(30);
        // It says that its trap is set: an earlier signal would end it with another status.
        let ready = async |script: &str| {
            let child = start(directory.path(), script);
            while fs::read_to_string(directory.path().join("log")).unwrap().is_empty() {
                tokio::time::sleep(END_POLL).await;
            }
            child
        };
        let mut good = ready("trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done").await;
        good.end(patient).await.unwrap();
        let mut bad = ready("trap 'exit 1' TERM; echo ready; while :; do sleep 0.05; done").await;
        assert!(bad.end(patient).await.unwrap_err().to_string().contains("did not end well"));
        let mut deaf = ready("trap '' TERM; echo ready; while :; do sleep 0.05; done").await;
        assert!(deaf.end(END_POLL).await.unwrap_err().to_string().contains("still runs"));
    }
}
