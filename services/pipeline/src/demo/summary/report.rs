//! The summary as a person reads it.

use std::fmt::Write;

use super::{Check, Detection, Findings};
use crate::demo::embedded::directory::DemoDirectory;
use crate::demo::produced::{ProducedCounts, Punctuality};
use crate::demo::view::{clock, grouped, sized};

/// What else the summary tells.
#[derive(Debug)]
pub struct Outlook<'a> {
    /// How long the fleet sent.
    pub sending: std::time::Duration,
    /// How it kept its schedule.
    pub punctuality: Punctuality,
    /// Where everything lies.
    pub directory: &'a DemoDirectory,
    /// The topic, which is the first directory of archive and dead letters.
    pub topic: &'a str,
    /// Command that serves ClickHouse's data again.
    pub clickhouse_command: String,
    /// Whether the pipeline was stopped before it had read the whole log.
    pub is_cut_short: bool,
}

/// Prints the summary. Gives whether everything is as it should be.
pub fn print(
    produced: &ProducedCounts,
    found: &Findings,
    checks: &[Check],
    detection: &Detection,
    outlook: &Outlook<'_>,
) -> bool {
    let text = render(produced, found, checks, detection, outlook);
    println!("{text}");
    checks.iter().all(Check::is_ok) && produced.failed == 0
}

fn render(
    produced: &ProducedCounts,
    found: &Findings,
    checks: &[Check],
    detection: &Detection,
    outlook: &Outlook<'_>,
) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write_flow(&mut text, produced, outlook);
    let _ = write_checks(&mut text, checks, produced);
    let _ = write_findings(&mut text, found, detection);
    let _ = write_where_to_look(&mut text, outlook);
    text
}

fn write_flow(text: &mut String, produced: &ProducedCounts, outlook: &Outlook<'_>) -> std::fmt::Result {
    let total = produced.total();
    let rate = total as f64 / outlook.sending.as_secs_f64().max(0.001);
    writeln!(text)?;
    writeln!(
        text,
        "The fleet sent {} records in {} ({}/s): {} in time, {} late, {} very late, {} a second time, {} invalid.",
        grouped(total),
        clock(outlook.sending),
        grouped(rate as u64),
        grouped(produced.on_time),
        grouped(produced.late),
        grouped(produced.very_late),
        grouped(produced.repeated),
        grouped(produced.invalid_total()),
    )?;
    let punctuality = outlook.punctuality;
    if punctuality.given_up > 0 || punctuality.held_back_ms > 0 {
        writeln!(
            text,
            "It could not keep its schedule: held back {:.1} s for the pipeline, at most {:.1} s late, {} records never sent.",
            punctuality.held_back_ms as f64 / 1e3,
            punctuality.largest_slip_ms as f64 / 1e3,
            grouped(punctuality.given_up),
        )?;
    }
    Ok(())
}

fn write_checks(text: &mut String, checks: &[Check], produced: &ProducedCounts) -> std::fmt::Result {
    writeln!(text)?;
    writeln!(text, "{:<50}{:>14}{:>14}", "", "produced", "found")?;
    for check in checks {
        let verdict = if check.is_ok() { "OK" } else { "DIFFERENT" };
        let (what, produced, found) = (&check.what, grouped(check.produced), grouped(check.found));
        writeln!(text, "{what:<50}{produced:>14}{found:>14}  {verdict}")?;
    }
    let differing = checks.iter().filter(|check| !check.is_ok()).count();
    writeln!(text)?;
    if produced.failed > 0 {
        let failed = grouped(produced.failed);
        writeln!(text, "{failed} records were never acknowledged, so nobody can say whether they are in the log.")?;
    }
    match differing {
        0 => writeln!(text, "Everything that was produced is found, once, in its place."),
        1 => writeln!(text, "One line differs."),
        _ => writeln!(text, "{differing} lines differ."),
    }
}

fn write_findings(text: &mut String, found: &Findings, detection: &Detection) -> std::fmt::Result {
    let (archive, dead_letters) = (&found.archive, &found.dead_letters);
    let bytes_a_row = archive.bytes as f64 / (archive.rows as f64).max(1.0);
    writeln!(text)?;
    writeln!(
        text,
        "Archive: {} files, {} ({bytes_a_row:.1} bytes a row). Dead letters: {} files.",
        archive.files,
        sized(archive.bytes),
        dead_letters.files
    )?;
    writeln!(
        text,
        "ClickHouse: {} windows; {} events came after their window had closed and are in it all the same.",
        grouped(found.windows.windows),
        grouped(found.windows.late)
    )?;
    let by_kind: Vec<_> = detection
        .by_kind
        .iter()
        .map(|(kind, hits)| format!("{} of {} {}", hits.found, hits.injected, plural(kind.name())))
        .collect();
    writeln!(
        text,
        "Anomalies: found {}; {} events flagged, {} of them where nothing had been put in.",
        by_kind.join(", "),
        grouped(detection.flagged),
        grouped(detection.false_alarms)
    )
}

fn plural(kind: &str) -> String {
    format!("{kind}s")
}

fn write_where_to_look(text: &mut String, outlook: &Outlook<'_>) -> std::fmt::Result {
    let directory = outlook.directory;
    let (archive, dead_letters) =
        (directory.archive().join(outlook.topic), directory.dead_letters().join(outlook.topic));
    writeln!(text)?;
    writeln!(
        text,
        "Everything lies in {}; the next demo deletes it, or moves it aside with --keep.",
        directory.root().display()
    )?;
    writeln!(
        text,
        "  archive/ dead-letters/ state/ clickhouse/  kappa.toml (configuration)  kappa.log  clickhouse.log"
    )?;
    if outlook.is_cut_short {
        writeln!(text, "The demo was cut short: the pipeline had not read the whole log.")?;
    }
    writeln!(text)?;
    writeln!(text, "ClickHouse again, and a question to it:")?;
    writeln!(text, "  {}", outlook.clickhouse_command)?;
    writeln!(
        text,
        "  curl -s 'http://127.0.0.1:8123/?database=kappa' --data-binary \"SELECT sensor_id, metric, kind, score, value, \
         expected FROM anomalies FINAL ORDER BY score DESC LIMIT 10 FORMAT PrettyCompact\""
    )?;
    writeln!(
        text,
        "  ... \"SELECT window_start, sum(count) AS events, uniqExact(sensor_id) AS sensors FROM windows \
         GROUP BY window_start ORDER BY window_start FORMAT PrettyCompact\""
    )?;
    writeln!(text)?;
    writeln!(text, "The Parquet files with DuckDB:")?;
    let (archive, dead_letters) = (archive.display(), dead_letters.display());
    writeln!(
        text,
        "  SELECT metric, count(*), avg(value) FROM read_parquet('{archive}/*/*/*.parquet', hive_partitioning = true) GROUP BY 1;"
    )?;
    writeln!(
        text,
        "  SELECT reason, count(*), any_value(detail) FROM read_parquet('{dead_letters}/*/*/*.parquet') GROUP BY 1;"
    )?;
    writeln!(text, "and with Python:")?;
    write!(text, "  import pyarrow.dataset as ds; ds.dataset('{archive}', partitioning='hive').to_table().to_pandas()")
}
