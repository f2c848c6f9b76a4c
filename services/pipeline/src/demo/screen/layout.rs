//! The picture as a screen of at least 80 by 30.

use chrono::DateTime;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};

use crate::demo::view::{Stage, View, clock, grouped, sized};
use crate::ops::status::{PartitionState, PartitionStatus};

/// A lag above this is shown as a warning, seconds.
const NOTEWORTHY_LAG: f64 = 5.0;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let partition_lines = view.partitions.len() as u16 + 3;
    let [title, flow, curve, middle, below, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Length(5),
        Constraint::Length(partition_lines.min(frame.area().height.saturating_sub(18))),
        Constraint::Min(6),
        Constraint::Length(view.problems.len().min(3) as u16 + 1),
    ])
    .areas(frame.area());
    draw_title(frame, title, view);
    draw_flow(frame, flow, view);
    draw_curve(frame, curve, view);
    draw_partitions(frame, middle, view);
    let [stores, anomalies] = Layout::horizontal([Constraint::Percentage(45), Constraint::Min(40)]).areas(below);
    draw_stores(frame, stores, view);
    draw_anomalies(frame, anomalies, view);
    draw_bottom(frame, bottom, view);
}

fn block(title: &str) -> Block<'_> {
    Block::bordered().border_style(Style::new().dark_gray()).title(title).title_style(Style::new().bold())
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let time = match view.time_limit {
        Some(limit) => format!("{} of {}", clock(view.elapsed), clock(limit)),
        None => clock(view.elapsed),
    };
    let stage = match view.stage {
        Stage::Running => Span::styled(" running ", Style::new().black().on_green()),
        stage => Span::styled(format!(" {} ", stage.text()), Style::new().black().on_yellow()),
    };
    let evolution = view.evolution.map_or_else(String::new, |evolution| format!("   {}", evolution.text()));
    let line = Line::from(vec![" kappa demo ".bold(), stage, Span::raw(format!("  {time}")), evolution.cyan()]);
    frame.render_widget(line, area);
}

fn draw_flow(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let punctuality = view.punctuality;
    let mut produced = vec![
        "produced ".into(),
        format!("{:>9}/s", grouped(view.produced_rate as u64)).bold(),
        format!("   {:>14} records   wanted {}/s", grouped(view.produced), grouped(u64::from(view.target_rate))).into(),
    ];
    if punctuality.held_back_ms > 500 {
        produced.push(format!("   held back {:.1} s", punctuality.held_back_ms as f64 / 1e3).yellow());
    } else if punctuality.slip_ms > 100 {
        produced.push(format!("   {:.1} s late", punctuality.slip_ms as f64 / 1e3).yellow());
    }
    let lag = format!("lag {} records, {:.1} s", grouped(view.lag_records), view.lag_seconds);
    let lag = if view.lag_seconds > NOTEWORTHY_LAG { lag.yellow() } else { lag.green() };
    let freshness = view.freshness.map_or_else(
        || "   nothing in ClickHouse yet".to_owned(),
        |age| format!("   newest event in ClickHouse is {:.1} s old", age.as_secs_f64()),
    );
    let consumed = vec![
        "consumed ".into(),
        format!("{:>9}/s", grouped(view.consumed_rate as u64)).bold(),
        format!("   {:>14} records   ", grouped(view.consumed)).into(),
        lag,
        freshness.into(),
    ];
    let lines = vec![Line::from(produced), Line::from(consumed)];
    frame.render_widget(Paragraph::new(lines).block(block("flow")), area);
}

fn draw_curve(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let width = area.width.saturating_sub(2) as usize;
    let skipped = view.rate_history.len().saturating_sub(width);
    let points = view.rate_history.iter().skip(skipped).copied();
    let curve = Sparkline::default().data(points).style(Style::new().cyan()).block(block("consumed per second"));
    frame.render_widget(curve, area);
}

fn draw_partitions(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let header = ["part", "state", "position", "committed", "lag", "lag s", "segment rows", "size", "age", "open win."];
    let header = Row::new(header).style(Style::new().add_modifier(Modifier::DIM));
    let widths = [
        Constraint::Length(4),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(11),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Length(9),
    ];
    let table = Table::new(view.partitions.iter().map(partition_row), widths).header(header);
    frame.render_widget(table.block(block("partitions")), area);
}

fn partition_row(status: &PartitionStatus) -> Row<'static> {
    let offset = |offset: Option<i64>| offset.map_or_else(|| "-".to_owned(), |offset| grouped(offset.max(0) as u64));
    let seconds = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"));
    let color = match status.state {
        PartitionState::Running => Color::Green,
        PartitionState::StoppedLoudly => Color::Red,
        _ => Color::Yellow,
    };
    Row::new([
        Cell::from(status.partition.to_string()),
        Cell::from(status.state.name()).style(Style::new().fg(color)),
        Cell::from(offset(status.position)),
        Cell::from(offset(status.committed)),
        Cell::from(offset(status.lag_records)),
        Cell::from(seconds(status.lag_seconds)),
        Cell::from(grouped(status.segment_rows)),
        Cell::from(sized(status.segment_bytes)),
        Cell::from(seconds(status.segment_age_seconds)),
        Cell::from(grouped(status.open_windows)),
    ])
}

fn draw_stores(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let mut lines = Vec::new();
    if let Some(totals) = &view.totals {
        lines.push(Line::from(format!("window rows written  {}", grouped(totals.windows_written))));
        lines.push(Line::from(format!("late events          {}", grouped(totals.late_events))));
        lines.push(Line::from(format!(
            "archive              {} files, {}",
            grouped(totals.archive_files),
            sized(totals.archive_bytes)
        )));
    }
    if let Some(memory) = &view.memory {
        let used = format!("{} of {}", sized(memory.used_bytes), sized(memory.budget_bytes));
        lines.push(Line::from(format!("pipeline's memory    {used}")));
    }
    if let Some(bytes) = view.resident_bytes {
        lines.push(Line::from(format!("whole process        {}", sized(bytes))));
    }
    if let Some(totals) = &view.totals {
        lines.push(Line::from(format!("dead letters         {}", grouped(totals.dead_letters))));
        // Two columns: there are more reasons than lines.
        let reasons: Vec<_> = totals.dead_letters_by_reason.iter().collect();
        for pair in reasons.chunks(2) {
            let texts: Vec<_> = pair.iter().map(|(reason, count)| format!("{reason:<19}{count:>6}")).collect();
            lines.push(Line::from(format!("  {}", texts.join("  "))).dark_gray());
        }
    }
    frame.render_widget(Paragraph::new(lines).block(block("stores")), area);
}

fn draw_anomalies(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let hot_store = &view.hot_store;
    let by_kind: Vec<_> =
        hot_store.anomalies_by_kind.iter().map(|(kind, count)| format!("{kind} {}", grouped(*count))).collect();
    let summary = if by_kind.is_empty() { "none found yet".to_owned() } else { by_kind.join("   ") };
    let mut lines = vec![Line::from(summary.bold())];
    for anomaly in &hot_store.latest {
        let time = DateTime::from_timestamp_millis(anomaly.event_time_ms).unwrap_or_default();
        lines.push(Line::from(vec![
            format!("{} ", time.format("%H:%M:%S")).dark_gray(),
            format!("{:<8} ", anomaly.kind).magenta(),
            format!("{} {:<11} ", anomaly.sensor_id, anomaly.metric).into(),
            format!("{:>8.2} not {:.2}, p=1e-{:.0}", anomaly.value, anomaly.expected, anomaly.score).into(),
        ]));
    }
    frame.render_widget(Paragraph::new(lines).block(block("anomalies, from ClickHouse")), area);
}

fn draw_bottom(frame: &mut Frame<'_>, area: Rect, view: &View) {
    let mut lines: Vec<Line<'_>> =
        view.problems.iter().take(3).map(|problem| Line::from(problem.as_str()).red()).collect();
    let addresses: Vec<_> = view.addresses.iter().map(|(name, address)| format!("{name} {address}")).collect();
    lines.push(Line::from(format!(" q ends   {}", addresses.join("   "))).dark_gray());
    frame.render_widget(Paragraph::new(lines), area);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::ops::status::StatusBoard;

    fn text_of(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_numbers_are_on_the_screen() {
        let board = StatusBoard::new("readings");
        board.totals().add_dead_letters("bad_magic", 17);
        board.add_partition(0).update(|status| status.position = Some(1_234_567));
        let report = board.report(Duration::MAX);
        let mut view = View {
            produced: 7_654_321,
            target_rate: 50_000,
            lag_records: 4_321,
            partitions: report.partitions,
            totals: Some(report.totals),
            problems: vec!["registry fails: no answer".to_owned()],
            ..View::default()
        };
        view.push_rate(50_000.0);
        let text = text_of(&view, 120, 40);
        for expected in ["7,654,321", "lag 4,321 records", "1,234,567", "bad_magic", "17", "registry fails", "running"]
        {
            assert!(text.contains(expected), "{expected} is missing in\n{text}");
        }
    }

    #[test]
    fn no_size_makes_it_panic() {
        for (width, height) in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            text_of(&View::default(), width, height);
        }
    }
}
