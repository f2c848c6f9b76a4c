//! `kappa verify`

use std::collections::BTreeSet;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::Args;

use super::checked_reader_schema;
use super::configuration::ConfigArguments;
use crate::config::Needs;
use crate::verify::{Selection, parse_time, verify};

const EXAMPLES: &str = "\
Examples:
  kappa verify -c kappa.toml                       everything, also while the pipeline runs
  kappa verify -c kappa.toml --from 2h             windows of the last two hours
  kappa verify -c kappa.toml --partition 3 --no-log
  kappa verify -c kappa.toml --json | jq '.checks[] | select(.differences > 0)'

Reads only. It needs the right to list and get objects in all three places, SELECT on the tables and on system.tables,
and to read the topic and describe the group; it does not join the group.
Exit codes: 0 no difference, 1 differences or no answer, 2 wrong configuration or use.";

/// Prove that archive, windows, anomalies and dead letters are what the log says.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    pub(super) config: ConfigArguments,

    /// Compare only windows that start then or later: 2026-11-26T10:00:00Z, 2026-11-26, or 2h ago.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<DateTime<Utc>>,

    /// Compare only windows that start before then.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<DateTime<Utc>>,

    /// Only this partition; more than once if need be.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,

    /// Do not read the log again.
    #[arg(long)]
    no_log: bool,

    /// A lifecycle rule removes old segments: begin with the oldest that is left.
    #[arg(long)]
    archive_expires: bool,

    /// Partitions gone through at once [default: one a core].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    parallel: Option<u16>,

    /// For programs.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(arguments: &VerifyArguments) -> anyhow::Result<ExitCode> {
    let config = arguments.config.load(Needs::Everything)?.config;
    checked_reader_schema(&config)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let selection = Selection {
        from: arguments.from,
        to: arguments.to,
        partitions: arguments.partition.iter().copied().collect::<BTreeSet<_>>(),
        without_log: arguments.no_log,
        archive_expires: arguments.archive_expires,
        parallel: arguments.parallel.map_or(cores, usize::from),
    };
    let verification = verify(&config, &selection).await?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&verification)?);
    } else {
        println!("{verification}");
    }
    Ok(if verification.verified { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
