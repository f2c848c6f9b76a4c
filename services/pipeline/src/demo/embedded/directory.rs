//! The directory of a demo: everything it writes lies below it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Marks a directory as a demo's own, so that no other is ever emptied.
const MARKER: &str = ".kappa-demo";

/// Where a demo keeps its things.
#[derive(Debug, Clone)]
pub struct DemoDirectory {
    root: PathBuf,
}

impl DemoDirectory {
    /// Makes `root` a fresh demo directory. What an earlier demo left there is deleted, or moved aside if
    /// `keep_earlier`: it can't be continued, since the embedded broker's log has ended with its process.
    pub fn prepare(root: &Path, keep_earlier: bool) -> anyhow::Result<Self> {
        let describe = || format!("prepare the demo directory {}", root.display());
        if root.exists() {
            make_room(root, keep_earlier).with_context(describe)?;
        }
        fs::create_dir_all(root).with_context(describe)?;
        fs::write(root.join(MARKER), "Made by `kappa demo`, which deletes it at its next start.\n")
            .with_context(describe)?;
        let root = root.canonicalize().with_context(describe)?;
        let directory = Self { root };
        for path in [directory.archive(), directory.dead_letters(), directory.state(), directory.clickhouse()] {
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        }
        Ok(directory)
    }

    /// The directory itself, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The Parquet segments.
    pub fn archive(&self) -> PathBuf {
        self.root.join("archive")
    }

    /// The refused records.
    pub fn dead_letters(&self) -> PathBuf {
        self.root.join("dead-letters")
    }

    /// The snapshots.
    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// ClickHouse's data.
    pub fn clickhouse(&self) -> PathBuf {
        self.root.join("clickhouse")
    }

    /// The pipeline's configuration, for other `kappa` commands.
    pub fn configuration(&self) -> PathBuf {
        self.root.join("kappa.toml")
    }

    /// Where everything is, for a shell to source; only while a stack alone is up.
    pub fn environment(&self) -> PathBuf {
        self.root.join("env")
    }

    /// The numbers of the processes of a stack alone.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// What the pipeline logs.
    pub fn log(&self) -> PathBuf {
        self.root.join("kappa.log")
    }

    /// What ClickHouse logs.
    pub fn clickhouse_log(&self) -> PathBuf {
        self.root.join("clickhouse.log")
    }
}

fn make_room(root: &Path, keep_earlier: bool) -> anyhow::Result<()> {
    let is_empty = fs::read_dir(root)?.next().is_none();
    if is_empty {
        return Ok(());
    }
    if !root.join(MARKER).exists() {
        bail!("it is not empty and no demo made it; choose another one with --dir");
    }
    if !keep_earlier {
        return Ok(fs::remove_dir_all(root)?);
    }
    let started = fs::metadata(root.join(MARKER))?.modified()?;
    let suffix = chrono::DateTime::<chrono::Utc>::from(started).format("%Y%m%dT%H%M%S");
    let name = root.file_name().and_then(|name| name.to_str()).context("it has no name")?;
    Ok(fs::rename(root, root.with_file_name(format!("{name}-{suffix}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_demo_makes_room_and_nothing_else_does() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("demo");
        let directory = DemoDirectory::prepare(&root, false).unwrap();
        fs::write(directory.archive().join("old"), "old").unwrap();

        let directory = DemoDirectory::prepare(&root, false).unwrap();
        assert!(!directory.archive().join("old").exists());
        fs::write(directory.archive().join("kept"), "kept").unwrap();

        DemoDirectory::prepare(&root, true).unwrap();
        let kept = fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().path());
        assert!(kept.into_iter().any(|path| path.join("archive/kept").exists()));

        let foreign = scratch.path().join("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::write(foreign.join("precious"), "precious").unwrap();
        assert!(DemoDirectory::prepare(&foreign, false).is_err());
        assert!(foreign.join("precious").exists());
    }
}
