//! `kappa dlq list|show|explain|redrive|purge`.

mod arguments;

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;

use chrono::Utc;
use kappa_core::reject::Reason;
use serde::Serialize;

pub(super) use self::arguments::DlqCommand;
use self::arguments::{ExplainArguments, ListArguments, PurgeArguments, RedriveArguments, ShowArguments};
use super::WRONG_USE;
use super::configuration::ConfigArguments;
use crate::config::{Config, Needs};
use crate::contract;
use crate::dlq::ledger::{Ledger, Outcome};
use crate::dlq::{
    Address, Bucket, Dimension, Exhibit, Expression, Fix, Judge, PurgePlan, RedriveOptions, RedriveReport, Summary,
    explain_reason, redrive, summarize,
};
use crate::ops::advice::{advised, render};

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
        let contract = arguments.config.load(Needs::Nothing).ok().and_then(|loaded| contract::in_words(&loaded.config));
        let explanation = explain_reason(&arguments.what, contract.as_ref());
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
