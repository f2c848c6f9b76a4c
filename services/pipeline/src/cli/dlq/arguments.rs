//! What `kappa dlq` takes, and its help.

use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use kappa_core::reject::Reason;

use crate::cli::configuration::ConfigArguments;
use crate::dlq::ledger::Outcome;
use crate::dlq::{Address, Dimension, HeaderFilter, Selection};
use crate::verify::parse_time;

const LIST_EXAMPLES: &str = "\
Examples:
  kappa dlq list -c kappa.toml                             by reason and schema, all there are
  kappa dlq list -c kappa.toml --from 2h --samples 3
  kappa dlq list -c kappa.toml --by header:producer,reason --reason 'contract_*'
  kappa dlq list -c kappa.toml --json | jq '.groups[] | select(.count > 100)'

Reads the objects of the dead letters that may hold what is asked for. REDRIVEN are those that were sent again.
Exit codes: 0 done, 1 failed, 2 wrong configuration or use.";

const SHOW_EXAMPLES: &str = "\
Examples:
  kappa dlq show -c kappa.toml 3/1234
  kappa dlq show -c kappa.toml 3/1234 --json | jq -r .value_hex | xxd -r -p > value.bin

The event is decoded with the schema that the record names, as far as it goes; in the bytes below it the one that cannot
be read stands in brackets. NOW is what the pipeline would say of the record today.
Exit codes: 0 done, 1 failed or not there, 2 wrong configuration or use.";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  kappa dlq explain trailing_bytes                         what a reason means; needs no configuration
  kappa dlq explain -c kappa.toml 3/1234                   why this record, would it pass now, and what to do

Exit codes: 0 done, 1 failed or not there, 2 wrong configuration or use.";

const REDRIVE_EXAMPLES: &str = "\
Examples:
  kappa dlq redrive -c kappa.toml --reason unknown_schema_id --dry-run
  kappa dlq redrive -c kappa.toml --reason unknown_schema_id --rate 500
  kappa dlq redrive -c kappa.toml 3/1234 --as-schema 42
  kappa dlq redrive -c kappa.toml --reason non_finite_value --jq '.value = 0.0 | .quality = \"BAD\"'
  kappa dlq redrive -c kappa.toml --all --from 1d --to-file refused.jsonl

A record goes back to its own partition, with headers kappa.redrive.* that say where it comes from and how often it was
sent. What would be refused again stays where it is. No record is ever sent twice, also by two at once or after kill -9:
see docs/dead-letters.md. In an expression the event is the input, and $record has key, headers, timestamp, reason, ...
Exit codes: 0 all that was selected is sent (with --dry-run: would be), 1 failed or some were left out, 2 wrong use.";

const PURGE_EXAMPLES: &str = "\
Examples:
  kappa dlq purge -c kappa.toml --older-than 90d --dry-run
  kappa dlq purge -c kappa.toml --older-than 90d --yes

Whole hours, by the records' Kafka timestamps. What is deleted can neither be looked at nor sent again; `kappa verify`
knows that it was purged. Needs the right to delete, which `kappa run` does not have on a write-once bucket.
Exit codes: 0 done, 1 failed, 2 wrong use or not confirmed.";

/// `kappa dlq`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum DlqCommand {
    List(ListArguments),
    Show(ShowArguments),
    Explain(ExplainArguments),
    Redrive(RedriveArguments),
    Purge(PurgeArguments),
}

/// Which dead letters; all conditions must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which dead letters (all conditions must hold)")]
pub(super) struct Filters {
    /// Of this reason; `contract_*` stands for all that begin so. More than once if need be, as the next two.
    #[arg(long)]
    pub(super) reason: Vec<String>,

    /// Whose bytes name this schema id.
    #[arg(long, value_name = "ID")]
    pub(super) schema: Vec<i32>,

    /// Of this partition.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) partition: Vec<i32>,

    /// With a Kafka timestamp at or after: 2026-11-26T10:00:00Z, 2026-11-26, or 2h ago.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) from: Option<DateTime<Utc>>,

    /// With a Kafka timestamp before.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) to: Option<DateTime<Utc>>,

    /// With this key.
    #[arg(long)]
    pub(super) key: Option<String>,

    /// With this header, and this content of it if one is given; more than once: with all of them.
    #[arg(long, value_name = "NAME[=CONTENT]")]
    pub(super) header: Vec<HeaderFilter>,
}

impl Filters {
    pub(super) fn selection(&self, addresses: &[Address]) -> Selection {
        Selection {
            reasons: self.reason.clone(),
            schema_ids: self.schema.iter().copied().collect(),
            partitions: self.partition.iter().copied().collect(),
            addresses: addresses.iter().copied().collect(),
            from: self.from,
            to: self.to,
            key: self.key.clone(),
            headers: self.header.clone(),
        }
    }

    /// A mistyped reason would find nothing.
    pub(super) fn unknown_reason(&self) -> Option<&String> {
        let is_known = |reason: &String| reason.ends_with('*') || Reason::parse(reason).is_some();
        self.reason.iter().find(|reason| !is_known(reason))
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self { reason, schema, partition, from, to, key, header } = self;
        reason.is_empty()
            && schema.is_empty()
            && partition.is_empty()
            && from.is_none()
            && to.is_none()
            && key.is_none()
            && header.is_empty()
    }
}

/// Count dead letters by reason, schema, time, partition, key or header.
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(in crate::cli) struct ListArguments {
    /// Count by: reason, schema, partition, hour, day, key, attempt, header:NAME.
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',', default_value = "reason,schema")]
    pub(super) by: Vec<Dimension>,

    /// Dead letters of each group to show.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) samples: usize,

    #[command(flatten)]
    pub(super) filters: Filters,

    /// For programs.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) config: ConfigArguments,
}

/// Show a dead letter: the event as far as it can be read, the bytes, the schema, the reason.
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(in crate::cli) struct ShowArguments {
    /// Partition and offset in the topic.
    #[arg(value_name = "PARTITION/OFFSET", required = true)]
    pub(super) records: Vec<Address>,

    /// For programs: one object a line.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) config: ConfigArguments,
}

/// Say why a record was refused, whether it would pass now, and what to do.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(in crate::cli) struct ExplainArguments {
    /// A record, or one of the reasons.
    #[arg(value_name = "PARTITION/OFFSET|REASON")]
    pub(super) what: String,

    /// For programs.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) config: ConfigArguments,
}

/// Send refused records again, as they are or mended; none of them twice.
#[derive(Debug, Args)]
#[command(after_help = REDRIVE_EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(in crate::cli) struct RedriveArguments {
    /// These records.
    #[arg(value_name = "PARTITION/OFFSET")]
    pub(super) records: Vec<Address>,

    /// All that the other conditions leave; needed where there are none.
    #[arg(long)]
    pub(super) all: bool,

    #[command(flatten)]
    pub(super) filters: Filters,

    /// Say what would be sent and what not, and send nothing.
    #[arg(long, help_heading = "How")]
    pub(super) dry_run: bool,

    /// The body was written with this schema, whatever its framing says.
    #[arg(long, value_name = "ID", help_heading = "How", value_parser = clap::value_parser!(i32).range(0..))]
    pub(super) as_schema: Option<i32>,

    /// Change the event by an expression in the language of jq; no output drops it.
    #[arg(long, value_name = "EXPRESSION", help_heading = "How")]
    pub(super) jq: Option<String>,

    /// Records a second [default: as fast as it goes].
    #[arg(long, value_name = "NUMBER", help_heading = "How", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rate: Option<u32>,

    /// No more than so many records.
    #[arg(long, value_name = "NUMBER", help_heading = "How")]
    pub(super) limit: Option<u64>,

    /// A record that was sent again so often stays where it is.
    #[arg(long, value_name = "NUMBER", default_value_t = 3, help_heading = "How")]
    pub(super) max_attempts: i32,

    /// Send with the Kafka timestamp that it had, by which event times are judged, and the topic's retention goes.
    #[arg(long, help_heading = "How")]
    pub(super) keep_timestamp: bool,

    /// Send also what would be refused again.
    #[arg(long, help_heading = "How")]
    pub(super) even_if_refused: bool,

    /// Write them into a new file in place of the topic, one JSON object a line; the ledger is left alone.
    #[arg(long, value_name = "FILE", help_heading = "How", conflicts_with_all = ["dry_run", "rate"])]
    pub(super) to_file: Option<PathBuf>,

    /// What became of an interrupted batch, where Kafka does not know any more.
    #[arg(long, value_enum, help_heading = "How")]
    pub(super) settle: Option<Outcome>,

    /// For programs.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) config: ConfigArguments,
}

/// Delete old dead letters.
#[derive(Debug, Args)]
#[command(after_help = PURGE_EXAMPLES)]
pub(in crate::cli) struct PurgeArguments {
    /// Older than this: 90d, or before a day such as 2026-08-01.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(super) older_than: DateTime<Utc>,

    /// Do not ask.
    #[arg(long)]
    pub(super) yes: bool,

    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    pub(super) dry_run: bool,

    /// For programs.
    #[arg(long)]
    pub(super) json: bool,

    #[command(flatten)]
    pub(super) config: ConfigArguments,
}
