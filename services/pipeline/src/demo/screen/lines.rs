//! The picture as one line, for logs.

use crate::demo::view::{View, clock, grouped, sized};

/// One line with the numbers of the screen.
pub(super) fn line(view: &View) -> String {
    let mut parts = vec![
        format!("[{}]", clock(view.elapsed)),
        format!("produced {}/s ({})", grouped(view.produced_rate as u64), grouped(view.produced)),
        format!("consumed {}/s", grouped(view.consumed_rate as u64)),
        format!("lag {} records, {:.1} s", grouped(view.lag_records), view.lag_seconds),
    ];
    if let Some(freshness) = view.freshness {
        parts.push(format!("newest in ClickHouse {:.1} s old", freshness.as_secs_f64()));
    }
    if let Some(totals) = &view.totals {
        parts.push(format!("windows written {}", grouped(totals.windows_written)));
        parts.push(format!("anomalies {}", grouped(totals.anomalies)));
        parts.push(format!("archive {} files, {}", totals.archive_files, sized(totals.archive_bytes)));
        let by_reason: Vec<_> =
            totals.dead_letters_by_reason.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        parts.push(format!("dead letters {} ({})", grouped(totals.dead_letters), by_reason.join(", ")));
    }
    if let Some(memory) = &view.memory {
        parts.push(format!("memory {} of {}", sized(memory.used_bytes), sized(memory.budget_bytes)));
    }
    parts.extend(view.evolution.map(|evolution| evolution.text()));
    parts.extend(view.problems.iter().map(|problem| format!("PROBLEM: {problem}")));
    parts.join(" | ")
}
