//! Where and with what a run was made: without it a figure is worth nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

use crate::repository::{find_kappa, find_repository};

/// The environment of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// The command line.
    pub command: String,
    /// What was tested, in words.
    pub target: String,
    /// Processors and their model.
    pub processors: String,
    /// Memory of the machine.
    pub memory_gib: f64,
    /// Operating system.
    pub kernel: String,
    /// The checkout, with `+` if it has changes that are not committed.
    pub commit: Option<String>,
    /// The pipeline.
    pub kappa: Option<String>,
    /// ClickHouse.
    pub clickhouse: Option<String>,
    /// librdkafka of the generator.
    pub librdkafka: String,
    /// This program.
    pub loadtest: &'static str,
    /// Load average of the machine before the run: was it quiet?
    pub load_average_before: Option<f64>,
}

impl Environment {
    /// Of this machine, now. `target` says what is tested.
    pub fn look(target: String) -> Self {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
        let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let memory_info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = memory_info.split_whitespace().nth(1).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        let repository = find_repository().ok();
        let load_average = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            target,
            processors: format!("{processors} x {}", model.trim_start_matches(['\t', ' ', ':'])),
            memory_gib: (memory / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: repository.as_deref().and_then(commit),
            kappa: find_kappa().ok().and_then(|kappa| output(Command::new(kappa).arg("--version"))),
            clickhouse: None,
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            loadtest: env!("CARGO_PKG_VERSION"),
            load_average_before: load_average.split_whitespace().next().and_then(|field| field.parse().ok()),
        }
    }
}

fn commit(repository: &Path) -> Option<String> {
    let git = |arguments: &[&str]| output(Command::new("git").arg("-C").arg(repository).args(arguments));
    let commit = git(&["rev-parse", "--short", "HEAD"])?;
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|text| !text.is_empty());
    Some(if is_changed { format!("{commit}+") } else { commit })
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
