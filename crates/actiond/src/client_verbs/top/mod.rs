//! `top`: running, queued and recent actions on a terminal, as they change.
//!
//! ```text
//!  server ──► Shown ──► Screen ──► view ──► terminal
//!                         ▲  │
//!                   keys ─┘  └─► Act: quit, cancel an operation
//! ```
//!
//! `screen` decides and `view` draws; neither does I/O. With `--json` an object per period is printed in place of
//! a screen.

mod screen;
mod view;

use std::io::{IsTerminal as _, stdin, stdout};
use std::time::{Duration, Instant};

use ::proto::actiond::internal::v1::GetTotalsRequest;
use anyhow::{Context as _, bail};
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tonic::Code;

use super::{live, show};
use crate::output::print;
use crate::server::{self, Server};
use screen::{Act, Screen, Shown};

/// Ended actions that are asked for: more than a terminal has lines.
const RECENT_MAX: u32 = 100;

/// The time over which hits and failures are added up.
const TOTALS_SECONDS: u64 = 3600;

/// Asks the server for everything that is shown.
fn ask(server: &Server) -> anyhow::Result<Shown> {
    let actions = live::actions(server)?;
    let (running, queued) = actions.into_iter().partition(|action| action.running_for_us.is_some());
    // A server without a history, or a principal that may not see all of it: the rest is shown all the same.
    let mut recent = live::records(server, None, 0, RECENT_MAX).unwrap_or_default();
    recent.retain(|record| !record.is_lookup);
    let mut client = live::history(server);
    let request = GetTotalsRequest { seconds: TOTALS_SECONDS };
    let totals = match server.wait(client.get_totals(request)) {
        Ok(totals) => Some(totals.into_inner()),
        Err(status) if status.code() == Code::Unavailable => {
            return Err(server::said("read")(status));
        }
        Err(_) => None,
    };
    Ok(Shown { running, queued, recent, totals })
}

pub(crate) fn top(server: &Server, period: Duration, json: bool) -> anyhow::Result<()> {
    if json {
        loop {
            print(&ask(server)?.json())?;
            std::thread::sleep(period);
        }
    }
    if !stdout().is_terminal() || !stdin().is_terminal() {
        bail!(
            "top needs a terminal; `ps` prints what runs now, and top --json an object per period"
        );
    }
    let shown = ask(server)?;
    let mut terminal = ratatui::try_init().context("preparing the terminal")?;
    let ended = watch(server, &mut terminal, shown, period);
    ratatui::try_restore().context("giving the terminal back")?;
    ended
}

/// Shows what is there until a key ends it.
fn watch(
    server: &Server,
    terminal: &mut ratatui::DefaultTerminal,
    shown: Shown,
    period: Duration,
) -> anyhow::Result<()> {
    let mut screen = Screen::new(shown);
    let mut next = Instant::now() + period;
    loop {
        terminal.draw(|frame| view::draw(frame, &screen)).context("drawing")?;
        let left = next.saturating_duration_since(Instant::now());
        if event::poll(left).context("waiting for a key")? {
            let act = match event::read().context("reading a key")? {
                Event::Key(key) if key.kind == KeyEventKind::Press => screen.press(key),
                _ => Act::Nothing,
            };
            match act {
                Act::Nothing => {}
                Act::Quit => return Ok(()),
                Act::Cancel(operation) => screen.notice(match live::cancel(server, &operation) {
                    Ok(true) => format!("cancelled {operation}"),
                    Ok(false) => format!("{operation} has ended already"),
                    Err(error) => format!("{error:#}"),
                }),
            }
        }
        if Instant::now() >= next {
            if !screen.is_paused() {
                match ask(server) {
                    Ok(shown) => screen.update(shown),
                    // It may be starting anew: what was last seen stays, with the reason.
                    Err(error) => screen.notice(format!("{error:#}")),
                }
            }
            next = Instant::now() + period;
        }
    }
}

impl Shown {
    /// An object on one line.
    fn json(&self) -> String {
        let actions = |actions: &[screen::Action]| -> Vec<serde_json::Value> {
            actions.iter().map(show::action_value).collect()
        };
        let recent: Vec<_> = self.recent.iter().map(show::record_json).collect();
        show::line(&serde_json::json!({
            "running": actions(&self.running),
            "queued": actions(&self.queued),
            "recent": recent,
            "executions": self.totals.as_ref().map(screen::executions),
            "from_the_cache": self.totals.as_ref().map(screen::cached),
            "failed": self.totals.as_ref().map(screen::failed),
        }))
    }
}
