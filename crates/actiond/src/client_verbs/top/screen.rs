//! The state of the screen, and what keys do to it. Pure.

pub(super) use ::proto::actiond::internal::v1::list_actions_response::Action;
use ::proto::actiond::internal::v1::{GetTotalsResponse, Record};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The server's last answer.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// The longest first.
    pub(super) running: Vec<Action>,
    /// The longest first.
    pub(super) queued: Vec<Action>,
    /// Executions, the latest first.
    pub(super) recent: Vec<Record>,
    /// Sums of the last hour; `None` where the server keeps no history or does not let the caller see it.
    pub(super) totals: Option<GetTotalsResponse>,
}

/// The number of executions in a sum.
pub(super) fn executions(totals: &GetTotalsResponse) -> u64 {
    totals.totals.iter().filter(|it| !it.is_lookup).map(|it| it.events).sum()
}

/// Those of them that the cache answered.
pub(super) fn cached(totals: &GetTotalsResponse) -> u64 {
    let cached =
        totals.totals.iter().filter(|it| !it.is_lookup && it.miss.is_empty() && !it.failed);
    cached.map(|it| it.events).sum()
}

/// Those of them that failed.
pub(super) fn failed(totals: &GetTotalsResponse) -> u64 {
    totals.totals.iter().filter(|it| it.failed).map(|it| it.events).sum()
}

/// The step that a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    Nothing,
    Quit,
    /// Cancel the operation of that name.
    Cancel(String),
}

/// The screen.
#[derive(Debug, Default)]
pub(super) struct Screen {
    shown: Shown,
    /// The operation that is selected. It is remembered by name, for the list moves under it.
    selected: Option<String>,
    /// The operation for which the screen asks whether to cancel it.
    asked: Option<String>,
    notice: String,
    is_paused: bool,
}

impl Screen {
    pub(super) fn new(shown: Shown) -> Self {
        Self { shown, ..Self::default() }
    }

    pub(super) fn shown(&self) -> &Shown {
        &self.shown
    }

    pub(super) fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Running actions, then queued ones.
    pub(super) fn actions(&self) -> impl Iterator<Item = &Action> {
        self.shown.running.iter().chain(&self.shown.queued)
    }

    /// The place of the selected action among [`Screen::actions`].
    pub(super) fn position(&self) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        self.actions().position(|action| action.operation == *selected)
    }

    /// The last line: a question, an error, or nothing.
    pub(super) fn bottom(&self) -> String {
        match &self.asked {
            Some(operation) => format!("cancel {operation}? y: yes, any other key: no"),
            None => self.notice.clone(),
        }
    }

    pub(super) fn update(&mut self, shown: Shown) {
        self.shown = shown;
        self.notice.clear();
        if self.position().is_none() {
            self.selected = None;
        }
    }

    pub(super) fn notice(&mut self, text: String) {
        self.notice = text;
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Act {
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Act::Quit;
        }
        if let Some(operation) = self.asked.take() {
            return match key.code {
                KeyCode::Char('y') => Act::Cancel(operation),
                _ => Act::Nothing,
            };
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Act::Quit,
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Char('k') => self.asked.clone_from(&self.selected),
            KeyCode::Down => self.select(self.position().map_or(0, |position| position + 1)),
            KeyCode::Up => self.select(self.position().map_or(0, |it| it.saturating_sub(1))),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            _ => {}
        }
        Act::Nothing
    }

    fn select(&mut self, position: usize) {
        let position = position.min(self.actions().count().saturating_sub(1));
        let selected = self.actions().nth(position).map(|action| action.operation.clone());
        self.selected = selected;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn action(number: u32, is_running: bool) -> Action {
        Action {
            operation: format!("operations/{number}"),
            queued_for_us: 2_000_000,
            running_for_us: is_running.then_some(u64::from(number) * 1_000_000),
            ..Action::default()
        }
    }

    fn shown(running: &[u32], queued: &[u32]) -> Shown {
        let actions = |numbers: &[u32], is_running| {
            numbers.iter().map(|number| action(*number, is_running)).collect()
        };
        Shown {
            running: actions(running, true),
            queued: actions(queued, false),
            ..Shown::default()
        }
    }

    fn press(screen: &mut Screen, code: KeyCode) -> Act {
        screen.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn the_selection_stays_with_its_action() {
        let mut screen = Screen::new(shown(&[1, 2], &[3]));
        assert_eq!(screen.position(), None);
        for expected in [0, 1, 2, 2] {
            press(&mut screen, KeyCode::Down);
            assert_eq!(screen.position(), Some(expected));
        }
        press(&mut screen, KeyCode::Up);
        screen.update(shown(&[5, 2], &[3]));
        assert_eq!(screen.position(), Some(1), "operation 2 moved nowhere");
        screen.update(shown(&[5], &[3]));
        assert_eq!(screen.position(), None, "it has ended");
        screen.update(shown(&[], &[]));
        press(&mut screen, KeyCode::Down);
        assert_eq!(screen.position(), None);
    }

    #[test]
    fn nothing_is_cancelled_without_a_yes() {
        let mut screen = Screen::new(shown(&[1], &[]));
        assert_eq!(press(&mut screen, KeyCode::Char('k')), Act::Nothing);
        assert_eq!(press(&mut screen, KeyCode::Char('y')), Act::Nothing, "nothing is selected");
        press(&mut screen, KeyCode::Down);
        press(&mut screen, KeyCode::Char('k'));
        assert!(screen.bottom().starts_with("cancel operations/1?"));
        // The question is about the action for which it was asked, whatever the list does meanwhile.
        screen.update(shown(&[7], &[]));
        assert_eq!(press(&mut screen, KeyCode::Char('n')), Act::Nothing);
        assert_eq!(press(&mut screen, KeyCode::Char('y')), Act::Nothing);
        press(&mut screen, KeyCode::Down);
        press(&mut screen, KeyCode::Char('k'));
        screen.update(shown(&[], &[]));
        assert_eq!(press(&mut screen, KeyCode::Char('y')), Act::Cancel("operations/7".into()));
    }

    #[test]
    fn keys_end_and_pause() {
        let mut screen = Screen::new(shown(&[1], &[]));
        press(&mut screen, KeyCode::Char('p'));
        assert!(screen.is_paused());
        press(&mut screen, KeyCode::Char('p'));
        assert!(!screen.is_paused());
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Act::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(screen.press(interrupt), Act::Quit);
    }
}
