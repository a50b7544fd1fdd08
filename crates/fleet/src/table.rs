//! The outcomes as a table in Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;

use crate::arguments::Arguments;
use crate::simulation::{Outcome, simulate};

const HEADER: &str = "\
| workers | actions/s | slots that run a command | wait for scheduler and storage, p50, p99 | scheduler busy | storage: busy, link, traffic | cold start | scheduler restart: back after, work lost |
|---|---|---|---|---|---|---|---|
";

/// The table of all clusters that the arguments name.
///
/// # Errors
/// When the arguments name no cluster.
pub(crate) fn table(arguments: &Arguments) -> Result<String> {
    let mut table = HEADER.to_owned();
    for &workers in &arguments.workers {
        let cluster = arguments.cluster(workers)?;
        let outcome = simulate(&cluster, arguments.course());
        let cold = time(cluster.cold_start());
        writeln!(table, "| {} | {} |", grouped(workers as f64), cells(&outcome, &cold))?;
    }
    Ok(table)
}

fn cells(outcome: &Outcome, cold: &str) -> String {
    let restart = match outcome.restart {
        Some(restart) => {
            let hours = restart.lost_seconds / 3600.0;
            format!("{}, {hours:.2} slot hours", time(restart.back_after))
        }
        None => "–".to_owned(),
    };
    [
        grouped(outcome.actions_a_second),
        percent(outcome.running),
        format!("{}, {}", time(outcome.waits), time(outcome.waits_p99)),
        percent(outcome.scheduler),
        format!(
            "{}, {}, {:.2} Gbit/s",
            percent(outcome.storage),
            percent(outcome.storage_link),
            outcome.storage_bytes_a_second * 8.0 / 1e9
        ),
        cold.to_owned(),
        restart,
    ]
    .join(" | ")
}

/// The time with two digits.
fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        ..0.000_95 => format!("{:.1} ms", seconds * 1e3),
        ..0.995 => {
            let digits = usize::from(seconds < 0.009_95);
            format!("{:.digits$} ms", seconds * 1e3)
        }
        ..9.95 => format!("{seconds:.1} s"),
        ..600.0 => format!("{seconds:.0} s"),
        _ => format!("{:.0} min", seconds / 60.0),
    }
}

fn percent(part: f64) -> String {
    if part < 0.00995 { format!("{:.1} %", part * 100.0) } else { format!("{:.0} %", part * 100.0) }
}

/// The number with commas between thousands.
fn grouped(number: f64) -> String {
    if number < 99.5 {
        let digits = usize::from(number.fract() != 0.0);
        return format!("{number:.digits$}");
    }
    let digits = format!("{number:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn numbers_are_short() {
        assert_eq!([grouped(1.0), grouped(0.84), grouped(10_000.2)], ["1", "0.8", "10,000"]);
        let times = [200, 9_000, 30_000, 2_300_000, 61_000_000, 3_600_000_000];
        let times = times.map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(times, ["0.2 ms", "9.0 ms", "30 ms", "2.3 s", "61 s", "60 min"]);
        assert_eq!([percent(0.001), percent(0.5)], ["0.1 %", "50 %"]);
    }

    /// `docs/scale.md` has each table after the command that prints it.
    #[test]
    fn the_tables_of_the_documentation_are_those_of_the_simulation() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/scale.md");
        let document = std::fs::read_to_string(path).unwrap();
        let mut checked = 0;
        for part in document.split("cargo run --release -p fleet --").skip(1) {
            let (command, rest) = part.split_once("```\n\n").expect("the block of a command ends");
            let words = ["actiond-fleet"].into_iter().chain(command.split_whitespace());
            let words = words.filter(|word| *word != "\\");
            let table = table(&Arguments::try_parse_from(words).unwrap()).unwrap();
            assert!(rest.starts_with(&table), "{command} prints\n{table}");
            checked += 1;
        }
        assert!(checked >= 3, "{checked} tables");
    }
}
