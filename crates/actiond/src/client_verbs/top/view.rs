//! The screen as cells. Pure. Words of clients are escaped: a terminal never sees a control character of theirs.

use chain::visible;
use history::text::{duration, size};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState};

use super::screen::{Action, Screen, cached, executions, failed};
use super::show;

/// Lines of the list of ended actions at least, where the terminal is high enough.
const RECENT_LINES: u16 = 8;

/// The width of the bar of a running action.
const BAR: usize = 10;

pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let [head, actions, recent, bottom] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Fill(1),
        Constraint::Length(RECENT_LINES.min(frame.area().height / 3)),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_head(frame, screen, head);
    draw_actions(frame, screen, actions);
    draw_recent(frame, screen, recent);
    let text = visible(&screen.bottom());
    frame.render_widget(Paragraph::new(text).style(Style::new().fg(Color::Yellow)), bottom);
}

fn draw_head(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let shown = screen.shown();
    let mut first =
        format!("actiond  running {}  queued {}", shown.running.len(), shown.queued.len());
    if let Some(totals) = &shown.totals {
        let (all, hits) = (executions(totals), cached(totals));
        let share = if all == 0 { 0.0 } else { 100.0 * hits as f64 / all as f64 };
        first += &format!(
            "  last hour: {all} executions, {share:.0} % from the cache, {} failed  history {}",
            failed(totals),
            size(totals.history_bytes),
        );
    }
    if screen.is_paused() {
        first += "  PAUSED";
    }
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let keys = "q: quit  p: pause  ↑ ↓: select  k: cancel the selected action";
    let lines = vec![Line::styled(first, bold), Line::styled(keys, Style::new().fg(Color::Gray))];
    frame.render_widget(Paragraph::new(lines), area);
}

fn draw_actions(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let longest = screen.shown().running.iter().filter_map(|it| it.running_for_us).max();
    let rows = screen.actions().map(|action| action_row(action, longest.unwrap_or(0)));
    let widths = [
        Constraint::Length(7),
        Constraint::Length(BAR as u16),
        Constraint::Length(11),
        Constraint::Fill(2),
        Constraint::Fill(1),
    ];
    let table = Table::new(rows, widths)
        .header(header(["state", "", "for", "action", "operation"]))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .block(Block::bordered().title("running and queued"));
    let mut state = TableState::default().with_selected(screen.position());
    frame.render_stateful_widget(table, area, &mut state);
}

fn action_row(action: &Action, longest_us: u64) -> Row<'static> {
    let (state, color, us) = match action.running_for_us {
        Some(us) => ("running", Color::Green, us),
        None => ("queued", Color::Gray, action.queued_for_us),
    };
    let bar = match action.running_for_us {
        Some(us) => bar(us, longest_us),
        None => String::new(),
    };
    Row::new([
        state.to_owned(),
        bar,
        duration(us),
        show::what(&action.origin),
        visible(&action.operation),
    ])
    .style(Style::new().fg(color))
}

/// The time of an action as a part of that of the longest one.
fn bar(us: u64, longest_us: u64) -> String {
    let cells = (us as u128 * BAR as u128).div_ceil(u128::from(longest_us.max(1)));
    "█".repeat(usize::try_from(cells).unwrap_or(BAR).min(BAR))
}

fn draw_recent(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let rows = screen.shown().recent.iter().map(|record| {
        let time = show::number(&record.stages, "total_us").map(duration).unwrap_or_default();
        let color = match record.outcome.as_str() {
            "success" => Color::Green,
            "cached" => Color::Cyan,
            _ => Color::Red,
        };
        let why = if record.message.is_empty() { &record.miss } else { &record.message };
        Row::new([show::outcome(record), time, show::what(&record.origin), visible(why)])
            .style(Style::new().fg(color))
    });
    let widths =
        [Constraint::Length(10), Constraint::Length(11), Constraint::Fill(2), Constraint::Fill(1)];
    let table = Table::new(rows, widths)
        .header(header(["outcome", "took", "action", "reason"]))
        .block(Block::bordered().title("ended"));
    frame.render_widget(table, area);
}

fn header<const COLUMNS: usize>(names: [&'static str; COLUMNS]) -> Row<'static> {
    Row::new(names).style(Style::new().fg(Color::Gray))
}

#[cfg(test)]
mod tests {
    use ::proto::actiond::internal::v1::get_totals_response::Total;
    use ::proto::actiond::internal::v1::{GetTotalsResponse, Record, RecordOrigin};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::screen::{Shown, tests::action};
    use super::*;

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, screen)).unwrap();
        terminal.backend().to_string()
    }

    fn shown() -> Shown {
        let origin = |target: &str| {
            Some(RecordOrigin {
                mnemonic: "CppCompile".into(),
                target: target.into(),
                ..RecordOrigin::default()
            })
        };
        let running = Action { origin: origin("//a\u{1b}[2J:b"), ..action(4, true) };
        let total = Total { events: 4, ..Total::default() };
        let failed = Total { events: 1, failed: true, miss: "absent".into(), ..Total::default() };
        Shown {
            running: vec![running, action(2, true)],
            queued: vec![action(9, false)],
            recent: vec![Record {
                outcome: "timed_out".into(),
                message: "after\n5 s".into(),
                origin: origin("//c"),
                ..Record::default()
            }],
            totals: Some(GetTotalsResponse { totals: vec![total, failed], ..Default::default() }),
        }
    }

    #[test]
    fn a_screen_has_everything_and_no_control_character() {
        let text = drawn(&Screen::new(shown()), 120, 30);
        for expected in [
            "running 2  queued 1",
            "5 executions, 80 % from the cache, 1 failed",
            "██████████ 4.0 s",
            "█████      2.0 s",
            &format!("queued{:13}2.0 s", ""),
            r"CppCompile //a\u{1b}[2J:b",
            "operations/9",
            "timed_out",
            r"after\n5 s",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn small_terminals_and_no_history_do_no_harm() {
        let mut screen = Screen::new(Shown { totals: None, ..shown() });
        for (width, height) in [(1, 1), (10, 3), (40, 6), (300, 100)] {
            drawn(&screen, width, height);
        }
        screen.notice("gone\u{1b}c".into());
        assert!(drawn(&screen, 80, 24).contains(r"gone\u{1b}c"));
    }
}
