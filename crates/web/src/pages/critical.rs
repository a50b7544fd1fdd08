//! The probable critical path of a build.
//!
//! A server does not know what a client waits for. It sees when a request came and when it was answered: an action
//! that needs the output of another is requested soon after that one has ended. So the path is guessed backwards from
//! the action that ended last: before each stands the one that ended last before its request.

use history::Record;
use history::text::duration;

use super::record_row;

/// Actions of a path that are listed. Longer ones are of builds of many short actions, whose path tells little.
const SHOWN_MAX: usize = 100;

/// When an action was asked for and when it ended, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    asked_us: u64,
    ended_us: u64,
}

impl Span {
    fn of(record: &Record) -> Option<Self> {
        let ended_us = record.at_us.saturating_add(record.total_us()?);
        Some(Self { asked_us: record.at_us, ended_us })
    }
}

/// The path as numbers of spans, the first one first.
fn path(spans: &[Span]) -> Vec<usize> {
    let mut by_end: Vec<usize> = (0..spans.len()).collect();
    by_end.sort_by_key(|number| spans[*number].ended_us);
    let mut path = Vec::new();
    let mut left = by_end.len();
    while let Some(last) = left.checked_sub(1) {
        let number = by_end[last];
        path.push(number);
        // Only those before it in the order are looked at, so that it ends also where times are equal.
        let asked_us = spans[number].asked_us;
        left = by_end[..last].partition_point(|other| spans[*other].ended_us <= asked_us);
    }
    path.reverse();
    path
}

/// The records of the path, the first one first.
pub(super) fn records(records: &[Record]) -> Vec<&Record> {
    let spans: Vec<(Span, &Record)> =
        records.iter().filter_map(|record| Some((Span::of(record)?, record))).collect();
    let only: Vec<Span> = spans.iter().map(|(span, _)| *span).collect();
    path(&only).into_iter().map(|number| spans[number].1).collect()
}

/// The path as rows of a table, and a sentence about it. `took_us` is the time of the build.
pub(super) fn text(path: &[&Record], took_us: u64) -> (String, Vec<String>) {
    let sum: u64 = path.iter().filter_map(|record| record.total_us()).fold(0, u64::saturating_add);
    let share = (100 * u128::from(sum)).checked_div(u128::from(took_us)).unwrap_or(0).min(100);
    let text = format!(
        "<p>{} actions, {} of {} ({share} %). Guessed from times: before each action stands the one that ended \
         last before it was asked for. The rest is the client's own time, or that of shorter actions.</p>\n",
        path.len(),
        duration(sum),
        duration(took_us),
    );
    (text, path.iter().take(SHOWN_MAX).map(|record| record_row(record)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_goes_back_from_the_last_end() {
        let check = |spans: &[(u64, u64)], expected: &[usize]| {
            let spans: Vec<Span> = spans
                .iter()
                .map(|(asked_us, ended_us)| Span { asked_us: *asked_us, ended_us: *ended_us })
                .collect();
            assert_eq!(path(&spans), expected, "{spans:?}");
        };
        check(&[], &[]);
        check(&[(0, 5)], &[0]);
        // Two compile at a time, the link follows the longer one.
        check(&[(0, 10), (0, 4), (11, 20)], &[0, 2]);
        check(&[(11, 20), (0, 4), (0, 10)], &[2, 0]);
        // One that runs beside is not on it, also if it is the longest but for the last.
        check(&[(0, 3), (3, 6), (1, 30), (6, 40)], &[0, 1, 3]);
        // Nothing ended before the last one was asked for.
        check(&[(0, 3), (1, 9), (2, 10)], &[2]);
        // Clocks too coarse to tell: every action once, and an end.
        check(&[(5, 5), (5, 5), (5, 5)], &[0, 1, 2]);
    }
}
