//! Shows the picture: on a terminal one living screen, elsewhere a line every few seconds.

mod layout;
mod lines;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use super::observer::SharedView;

/// How often the screen is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The screen, or the lines. Dropping it gives the terminal back.
#[derive(Debug)]
pub struct Screen {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    /// Begins to show `view`. Whenever somebody presses `q` or Ctrl-C, `wishes_to_end` gets a message.
    pub fn start(view: SharedView, wishes_to_end: mpsc::UnboundedSender<()>) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let on_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        let thread = thread::Builder::new()
            .name("demo-screen".to_owned())
            .spawn(move || {
                let shown = if on_terminal {
                    draw_until(&stopped, &view, &wishes_to_end)
                } else {
                    write_lines_until(&stopped, &view);
                    Ok(())
                };
                if let Err(error) = shown {
                    tracing::error!(%error, "the screen has failed; going on with lines");
                    write_lines_until(&stopped, &view);
                }
            })
            .context("start a thread for the screen")?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends it and waits until the terminal is as it was before.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("the screen has been stopped before")?;
        thread.join().map_err(|_| anyhow!("the screen has panicked"))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives the terminal back however its scope is left.
struct TerminalGuard;

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

fn draw_until(
    stopped: &AtomicBool,
    view: &SharedView,
    wishes_to_end: &mpsc::UnboundedSender<()>,
) -> anyhow::Result<()> {
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let _guard = TerminalGuard;
    while !stopped.load(Relaxed) {
        let picture = view.get();
        terminal.draw(|frame| layout::draw(frame, &picture)).context("draw the screen")?;
        let next_drawing = Instant::now() + DRAW_EVERY;
        while event::poll(next_drawing.saturating_duration_since(Instant::now()))? {
            if is_wish_to_end(&event::read()?) {
                let _ = wishes_to_end.send(());
            }
        }
    }
    Ok(())
}

fn is_wish_to_end(event: &Event) -> bool {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
        return false;
    };
    match code {
        KeyCode::Char('q') => true,
        // In raw mode the terminal sends no signal.
        KeyCode::Char('c') => modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

fn write_lines_until(stopped: &AtomicBool, view: &SharedView) {
    let mut next_line = Instant::now() + LINE_EVERY;
    let mut last_stage = view.get().stage;
    while !stopped.load(Relaxed) {
        let picture = view.get();
        if picture.stage != last_stage {
            last_stage = picture.stage;
            println!("{}", picture.stage.text());
        }
        if Instant::now() >= next_line {
            next_line += LINE_EVERY;
            println!("{}", lines::line(&picture));
        }
        thread::sleep(Duration::from_millis(50));
    }
}
