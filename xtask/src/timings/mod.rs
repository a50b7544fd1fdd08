//! `cargo xtask timings`: what a daemon's log and counters say of where time went, as tables.
//!
//! It reads the log of `serve` or of `serve-vm` with `--log-format json`, and the file that
//! `--actiondfs-stats-path` has written. It measures nothing itself: every run logs these events.

mod log;
mod table;

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use log::{Connection, Direction, Log, Stages};
use table::{Series, Table};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The standard error of `linux-actiond serve` or `serve-vm` with `--log-format json`.
    log: PathBuf,
    /// The file that `--actiondfs-stats-path` wrote.
    #[arg(long, value_name = "FILE")]
    stats: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let read = |path: &PathBuf| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let log = Log::parse(&read(&arguments.log)?);
    ensure!(
        !log.actions.is_empty() || !log.connections.is_empty(),
        "{} tells of no action and of no connection; is it the log of a daemon that was started with \
         --log-format json?",
        arguments.log.display()
    );
    let counters = arguments.stats.as_ref().map(read).transpose()?;
    print!("{}", report(&log, counters.as_deref()));
    Ok(())
}

/// All tables, as Markdown.
fn report(log: &Log, counters: Option<&str>) -> String {
    let mut text = String::new();
    if !log.actions.is_empty() {
        text += &stages(log);
        text += &execution(log);
    }
    if !log.connections.is_empty() {
        text += &bridge(&log.connections);
    }
    if let Some(counters) = counters {
        text += &counted(counters, log.actions.len());
    }
    text
}

/// Of one stage in all actions that reached it.
fn series(log: &Log, of: impl Fn(&Stages) -> Option<u64>) -> Series {
    log.actions.iter().filter_map(of).collect()
}

fn milliseconds(title: &str, rows: &[(&str, Series)]) -> String {
    let mut table = Table::new(&[title, "p50", "p95", "mean"]);
    for (name, series) in rows {
        let [p50, p95, mean] =
            [series.percentile(50), series.percentile(95), series.mean()].map(|us| us / 1000.0);
        table.row(name, &[p50, p95, mean].map(|ms| format!("{ms:.3}")));
    }
    table.to_string()
}

fn stages(log: &Log) -> String {
    let heading = format!(
        "## Stages of {} actions ({} more came from the cache, {} failed)\n\n",
        log.actions.len(),
        log.cached,
        log.failed
    );
    let rows = [
        ("total", series(log, |action| action.total)),
        ("queue", series(log, |action| action.queued)),
        ("inputs", series(log, |action| action.inputs)),
        ("execution", series(log, Stages::execution)),
        ("outputs", series(log, |action| action.outputs)),
        ("all but the command", series(log, Stages::overhead)),
    ];
    heading + &milliseconds("stage, ms", &rows)
}

fn execution(log: &Log) -> String {
    let rows = [
        ("a sandbox is ready", series(log, |action| action.sandbox)),
        ("set-up", series(log, |action| action.set_up)),
        ("the command", series(log, |action| action.run)),
        ("until all of it is dead", series(log, |action| action.end)),
    ];
    "## The parts of execution\n\n".to_owned() + &milliseconds("part, ms", &rows)
}

fn bridge(connections: &[Connection]) -> String {
    let connect: Series = connections.iter().map(|connection| connection.connect).collect();
    let total: Series = connections.iter().map(|connection| connection.total).collect();
    let mut text = format!("## Bridge, {} connections\n\n", connections.len());
    for (outcome, count) in log::outcomes(connections) {
        let _ = writeln!(text, "- {outcome}: {count}");
    }
    text += "\n";
    text += &milliseconds("connections, ms", &[("connecting", connect), ("open", total)]);
    let mut table =
        Table::new(&["direction", "MiB", "reads", "KiB a read", "sender, s", "receiver, s"]);
    let up: Direction = connections.iter().map(|connection| connection.up).sum();
    let down: Direction = connections.iter().map(|connection| connection.down).sum();
    for (name, sum) in [("client to guest", up), ("guest to client", down)] {
        let kib = sum.bytes as f64 / 1024.0;
        let cells = [
            format!("{:.1}", kib / 1024.0),
            sum.reads.to_string(),
            format!("{:.1}", kib / sum.reads.max(1) as f64),
            format!("{:.3}", sum.reading as f64 / 1e6),
            format!("{:.3}", sum.writing as f64 / 1e6),
        ];
        table.row(name, &cells);
    }
    text + &table.to_string()
}

/// Counters are lines of a name and a number.
fn counted(counters: &str, actions: usize) -> String {
    let mut table = Table::new(&["counter", "value", "an action"]);
    for line in counters.lines() {
        let Some((name, value)) = line.split_once(' ') else { continue };
        let Ok(value) = value.trim().parse::<u64>() else { continue };
        let share = value as f64 / actions.max(1) as f64;
        table.row(name, &[value.to_string(), format!("{share:.1}")]);
    }
    "## Counters\n\n".to_owned() + &table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events of a log of `serve-vm`; the first is a line of the worker in the guest.
    fn log() -> String {
        let finished = serde_json::json!({
            "timestamp": "2026-01-01T00:00:01Z", "level": "INFO", "message": "action finished",
            "digest": "a/1", "exit_code": 0, "cached": false, "queued_us": 10, "inputs_us": 1000,
            "sandbox_us": 100, "set_up_us": 400, "run_us": 5000, "end_us": 500, "outputs_us": 2000,
            "total_us": 9500, "worker": "w",
        });
        let events = [
            serde_json::json!({ "message": format!("guest: {finished}") }),
            serde_json::json!({ "message": "action finished", "digest": "b/1", "cached": true }),
            serde_json::json!({ "message": "action failed", "error": "cancelled", "total_us": 7 }),
            serde_json::json!({ "message": "guest ready in 5 ms" }),
            serde_json::json!({
                "message": "vm bridge timing", "outcome": "closed", "total_us": 2000,
                "connect_us": 1000, "client_to_guest_bytes": 1048576, "client_to_guest_reads": 16,
                "client_to_guest_read_us": 500_000, "client_to_guest_write_us": 250_000,
                "guest_to_client_bytes": 0, "guest_to_client_reads": 0,
                "guest_to_client_read_us": 0, "guest_to_client_write_us": 0,
            }),
        ];
        events.map(|event| format!("{event}\n")).concat()
    }

    #[test]
    fn a_log_becomes_tables() {
        let expected = "\
## Stages of 1 actions (1 more came from the cache, 1 failed)

| stage, ms | p50 | p95 | mean |
|---|---|---|---|
| total | 9.500 | 9.500 | 9.500 |
| queue | 0.010 | 0.010 | 0.010 |
| inputs | 1.000 | 1.000 | 1.000 |
| execution | 6.000 | 6.000 | 6.000 |
| outputs | 2.000 | 2.000 | 2.000 |
| all but the command | 4.000 | 4.000 | 4.000 |

## The parts of execution

| part, ms | p50 | p95 | mean |
|---|---|---|---|
| a sandbox is ready | 0.100 | 0.100 | 0.100 |
| set-up | 0.400 | 0.400 | 0.400 |
| the command | 5.000 | 5.000 | 5.000 |
| until all of it is dead | 0.500 | 0.500 | 0.500 |

## Bridge, 1 connections

- closed: 1

| connections, ms | p50 | p95 | mean |
|---|---|---|---|
| connecting | 1.000 | 1.000 | 1.000 |
| open | 2.000 | 2.000 | 2.000 |

| direction | MiB | reads | KiB a read | sender, s | receiver, s |
|---|---|---|---|---|---|
| client to guest | 1.0 | 16 | 64.0 | 0.500 | 0.250 |
| guest to client | 0.0 | 0 | 0.0 | 0.000 | 0.000 |

## Counters

| counter | value | an action |
|---|---|---|
| lookups | 341 | 341.0 |

";
        assert_eq!(report(&Log::parse(&log()), Some("lookups 341\nnonsense\n")), expected);
    }

    #[test]
    fn a_log_without_a_vm_has_no_bridge() {
        let lines: String = log().lines().take(2).map(|line| format!("{line}\n")).collect();
        let text = report(&Log::parse(&lines), None);
        assert!(text.contains("## Stages") && !text.contains("## Bridge"));
    }
}
