//! `kappa dlq list|show|explain|redrive|purge`.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use kappa_core::reject::Reason;
use serde::Serialize;

use super::WRONG_USE;
use super::configuration::ConfigArguments;
use crate::config::{Config, Needs};
use crate::dlq::ledger::{Ledger, Outcome};
use crate::dlq::{
    Address, Bucket, Dimension, Exhibit, Expression, Fix, HeaderFilter, Judge, PurgePlan, RedriveOptions,
    RedriveReport, Selection, Summary, explain_reason, redrive, summarize,
};
use crate::ops::advice::{advised, render};
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
pub(super) enum DlqCommand {
    List(ListArguments),
    Show(ShowArguments),
    Explain(ExplainArguments),
    Redrive(RedriveArguments),
    Purge(PurgeArguments),
}

/// Which dead letters; all conditions must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which dead letters (all conditions must hold)")]
struct Filters {
    /// Of this reason; `contract_*` stands for all that begin so. More than once if need be, as the next two.
    #[arg(long)]
    reason: Vec<String>,

    /// Whose bytes name this schema id.
    #[arg(long, value_name = "ID")]
    schema: Vec<i32>,

    /// Of this partition.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Vec<i32>,

    /// With a Kafka timestamp at or after: 2026-11-26T10:00:00Z, 2026-11-26, or 2h ago.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: Option<DateTime<Utc>>,

    /// With a Kafka timestamp before.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: Option<DateTime<Utc>>,

    /// With this key.
    #[arg(long)]
    key: Option<String>,

    /// With this header, and this content of it if one is given; more than once: with all of them.
    #[arg(long, value_name = "NAME[=CONTENT]")]
    header: Vec<HeaderFilter>,
}

impl Filters {
    fn selection(&self, addresses: &[Address]) -> Selection {
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
    fn unknown_reason(&self) -> Option<&String> {
        let is_known = |reason: &String| reason.ends_with('*') || Reason::parse(reason).is_some();
        self.reason.iter().find(|reason| !is_known(reason))
    }

    fn is_empty(&self) -> bool {
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
pub(super) struct ListArguments {
    /// Count by: reason, schema, partition, hour, day, key, attempt, header:NAME.
    #[arg(long, value_name = "WHAT,...", value_delimiter = ',', default_value = "reason,schema")]
    by: Vec<Dimension>,

    /// Dead letters of each group to show.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    samples: usize,

    #[command(flatten)]
    filters: Filters,

    /// For programs.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArguments,
}

/// Show a dead letter: the event as far as it can be read, the bytes, the schema, the reason.
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(super) struct ShowArguments {
    /// Partition and offset in the topic.
    #[arg(value_name = "PARTITION/OFFSET", required = true)]
    records: Vec<Address>,

    /// For programs: one object a line.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArguments,
}

/// Say why a record was refused, whether it would pass now, and what to do.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(super) struct ExplainArguments {
    /// A record, or one of the reasons.
    #[arg(value_name = "PARTITION/OFFSET|REASON")]
    what: String,

    /// For programs.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArguments,
}

/// Send refused records again, as they are or mended; none of them twice.
#[derive(Debug, Args)]
#[command(after_help = REDRIVE_EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(super) struct RedriveArguments {
    /// These records.
    #[arg(value_name = "PARTITION/OFFSET")]
    records: Vec<Address>,

    /// All that the other conditions leave; needed where there are none.
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    filters: Filters,

    /// Say what would be sent and what not, and send nothing.
    #[arg(long, help_heading = "How")]
    dry_run: bool,

    /// The body was written with this schema, whatever its framing says.
    #[arg(long, value_name = "ID", help_heading = "How", value_parser = clap::value_parser!(i32).range(0..))]
    as_schema: Option<i32>,

    /// Change the event by an expression in the language of jq; no output drops it.
    #[arg(long, value_name = "EXPRESSION", help_heading = "How")]
    jq: Option<String>,

    /// Records a second [default: as fast as it goes].
    #[arg(long, value_name = "NUMBER", help_heading = "How", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// No more than so many records.
    #[arg(long, value_name = "NUMBER", help_heading = "How")]
    limit: Option<u64>,

    /// A record that was sent again so often stays where it is.
    #[arg(long, value_name = "NUMBER", default_value_t = 3, help_heading = "How")]
    max_attempts: i32,

    /// Send with the Kafka timestamp that it had, by which event times are judged, and the topic's retention goes.
    #[arg(long, help_heading = "How")]
    keep_timestamp: bool,

    /// Send also what would be refused again.
    #[arg(long, help_heading = "How")]
    even_if_refused: bool,

    /// Write them into a new file in place of the topic, one JSON object a line; the ledger is left alone.
    #[arg(long, value_name = "FILE", help_heading = "How", conflicts_with_all = ["dry_run", "rate"])]
    to_file: Option<PathBuf>,

    /// What became of an interrupted batch, where Kafka does not know any more.
    #[arg(long, value_enum, help_heading = "How")]
    settle: Option<Outcome>,

    /// For programs.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArguments,
}

/// Delete old dead letters.
#[derive(Debug, Args)]
#[command(after_help = PURGE_EXAMPLES)]
pub(super) struct PurgeArguments {
    /// Older than this: 90d, or before a day such as 2026-08-01.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    older_than: DateTime<Utc>,

    /// Do not ask.
    #[arg(long)]
    yes: bool,

    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    dry_run: bool,

    /// For programs.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    config: ConfigArguments,
}

pub(super) async fn dispatch(command: DlqCommand) -> anyhow::Result<ExitCode> {
    match command {
        DlqCommand::List(arguments) => list(&arguments).await,
        DlqCommand::Show(arguments) => show(&arguments).await,
        DlqCommand::Explain(arguments) => explain(&arguments).await,
        DlqCommand::Redrive(arguments) => Box::pin(send_again(arguments)).await,
        DlqCommand::Purge(arguments) => purge(&arguments).await,
    }
}

fn load(arguments: &ConfigArguments, needs: Needs) -> anyhow::Result<(Config, Bucket)> {
    let config = arguments.load(needs)?.config;
    let bucket = Bucket::open(&config)?;
    Ok((config, bucket))
}

/// Says what is wrong with the call itself.
fn wrong_use(problem: &str, advice: &str) -> ExitCode {
    // There is nowhere left to say that standard error is closed.
    let _ = writeln!(std::io::stderr(), "{}", render(&advised(problem, advice)));
    ExitCode::from(WRONG_USE)
}

fn unknown_reason(reason: &str) -> ExitCode {
    let names: Vec<&str> = Reason::names().collect();
    wrong_use(
        &format!("there is no reason {reason:?}"),
        &format!("the reasons are {}, and contract_… for the rules of the data contract", names.join(", ")),
    )
}

fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

async fn list(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    if let Some(reason) = arguments.filters.unknown_reason() {
        return Ok(unknown_reason(reason));
    }
    let (_, bucket) = load(&arguments.config, Needs::DeadLetters)?;
    let selection = arguments.filters.selection(&[]);
    let summary = summarize(&bucket, &selection, &arguments.by, arguments.samples).await?;
    if arguments.json {
        print_json(&summary)?;
    } else {
        println!("{}", as_table(&summary, &arguments.by));
    }
    Ok(ExitCode::SUCCESS)
}

fn as_table(summary: &Summary, by: &[Dimension]) -> String {
    let names: Vec<String> = by.iter().map(Dimension::name).collect();
    let mut rows = vec![names.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    rows[0].extend(["COUNT", "REDRIVEN", "OLDEST", "NEWEST"].map(ToOwned::to_owned));
    for group in &summary.groups {
        let mut row: Vec<String> = names.iter().map(|name| group.by.get(name).cloned().unwrap_or_default()).collect();
        row.extend([group.count.to_string(), group.redriven.to_string(), group.oldest.clone(), group.newest.clone()]);
        rows.push(row);
    }
    let lines = aligned(&rows);
    let mut out = format!("{}\n", lines[0]);
    for (group, line) in summary.groups.iter().zip(&lines[1..]) {
        let _ = writeln!(out, "{line}");
        for sample in &group.samples {
            let _ = writeln!(out, "  {}  {}", sample.address, sample.detail);
        }
    }
    let _ = write!(out, "{} dead letters of {}, {} of them redriven", summary.count, summary.topic, summary.redriven);
    out
}

/// Columns below one another.
fn aligned(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

async fn show(arguments: &ShowArguments) -> anyhow::Result<ExitCode> {
    let (config, bucket) = load(&arguments.config, Needs::Judgement)?;
    let mut judge = Judge::new(&config)?;
    let ledger = Ledger::read(&bucket).await?;
    for (number, address) in arguments.records.iter().enumerate() {
        let letter = bucket.letter(*address).await?;
        let exhibit = Exhibit::of(&letter, &mut judge, &ledger).await?;
        if arguments.json {
            println!("{}", serde_json::to_string(&exhibit)?);
            continue;
        }
        println!("{}{exhibit}", if number > 0 { "\n" } else { "" });
    }
    Ok(ExitCode::SUCCESS)
}

async fn explain(arguments: &ExplainArguments) -> anyhow::Result<ExitCode> {
    let Ok(address) = arguments.what.parse::<Address>() else {
        if Reason::parse(&arguments.what).is_none() {
            return Ok(unknown_reason(&arguments.what));
        }
        let explanation = explain_reason(&arguments.what);
        if arguments.json {
            print_json(&explanation)?;
        } else {
            println!("{explanation}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let (config, bucket) = load(&arguments.config, Needs::Judgement)?;
    let letter = bucket.letter(address).await?;
    let exhibit = Exhibit::of(&letter, &mut Judge::new(&config)?, &Ledger::read(&bucket).await?).await?;
    if arguments.json {
        print_json(&exhibit)?;
    } else {
        print!("{}", exhibit.explained());
    }
    Ok(ExitCode::SUCCESS)
}

async fn send_again(arguments: RedriveArguments) -> anyhow::Result<ExitCode> {
    if let Some(reason) = arguments.filters.unknown_reason() {
        return Ok(unknown_reason(reason));
    }
    if arguments.records.is_empty() && arguments.filters.is_empty() && !arguments.all {
        return Ok(wrong_use(
            "nothing says which records to send again",
            "name them (3/1234), a condition (--reason …), or --all; --dry-run says what would happen",
        ));
    }
    let expression = match arguments.jq.as_deref().map(Expression::compile).transpose() {
        Ok(expression) => expression,
        Err(problem) => return Ok(wrong_use(&format!("--jq: {problem}"), "jq's manual has the language")),
    };
    let (config, bucket) = load(&arguments.config, Needs::Redrive)?;
    let options = RedriveOptions {
        selection: arguments.filters.selection(&arguments.records),
        fix: Fix { schema_id: arguments.as_schema, expression },
        dry_run: arguments.dry_run,
        rate: arguments.rate,
        limit: arguments.limit,
        max_attempts: arguments.max_attempts,
        keep_timestamp: arguments.keep_timestamp,
        even_if_refused: arguments.even_if_refused,
        to_file: arguments.to_file,
        settle: arguments.settle,
    };
    let report = redrive(&config, &bucket, &options).await?;
    if arguments.json {
        print_json(&report)?;
    } else {
        println!("{}", told(&report, options.to_file.is_some()));
    }
    Ok(if report.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(report: &RedriveReport, to_file: bool) -> String {
    let mut out = String::new();
    for (sequence, outcome) in &report.settled {
        let became = match outcome {
            Outcome::Sent => "its records are in the log, and are not sent again",
            Outcome::Unsent => "none of its records is in the log",
        };
        let _ = writeln!(out, "settled    batch {sequence}, which was interrupted: {became}");
    }
    let done = match (report.dry_run, to_file) {
        (true, _) => "would send",
        (false, true) => "written",
        (false, false) => "sent",
    };
    let mut rows =
        vec![vec!["selected".to_owned(), report.selected.to_string()], vec![done.to_owned(), report.sent.to_string()]];
    for (what, count) in [("sent before", report.already_sent), ("dropped", report.dropped)] {
        if count > 0 {
            rows.push(vec![what.to_owned(), count.to_string()]);
        }
    }
    for (why, left_out) in &report.left_out {
        rows.push(vec!["left out".to_owned(), left_out.count.to_string(), why.clone(), left_out.example.clone()]);
    }
    out + &aligned(&rows).join("\n")
}

async fn purge(arguments: &PurgeArguments) -> anyhow::Result<ExitCode> {
    if arguments.older_than > Utc::now() {
        return Ok(wrong_use("--older-than lies in the future", "everything is older than that: say how old is old"));
    }
    let (_, bucket) = load(&arguments.config, Needs::DeadLetters)?;
    let plan = PurgePlan::new(&bucket, arguments.older_than.timestamp_millis()).await?;
    let span = plan.hours.as_ref().map_or_else(String::new, |(oldest, newest)| format!(", hours {oldest} to {newest}"));
    let what = format!("{} objects ({} bytes{span}) of hours before {}", plan.objects, plan.bytes, plan.before);
    if arguments.dry_run {
        if arguments.json {
            print_json(&plan)?;
        } else {
            println!("would delete {what}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !arguments.yes && plan.objects > 0 && !confirmed(&what)? {
        return Ok(wrong_use("nothing was deleted: it was not confirmed", "answer yes, or say --yes in a script"));
    }
    let done = plan.carry_out(&bucket).await?;
    if arguments.json {
        print_json(&done)?;
    } else {
        println!("deleted {} objects of hours before {}", done.deleted, done.before);
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks a person; where there is none, the answer is no.
fn confirmed(what: &str) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    write!(std::io::stderr(), "delete {what}? They can neither be looked at nor sent again. [yes/no] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim() == "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_one_another() {
        let rows = [vec!["a".to_owned(), "long".to_owned()], vec!["wider".to_owned(), "x".to_owned()]];
        assert_eq!(aligned(&rows), ["a      long", "wider  x"]);
    }
}
