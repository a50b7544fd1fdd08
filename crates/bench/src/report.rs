//! The results: a table for a person, JSON for a program.

use anyhow::Result;
use serde::Serialize;

use crate::sample::Percentiles;

/// All figures of one server.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    server: String,
    rows: Vec<Row>,
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) load: String,
    #[serde(flatten)]
    pub(crate) figure: Figure,
    /// The server's own account of where the time went, p50 in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) split: Option<Split>,
}

/// A latency, a rate, or why there is neither.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Smaller is better.
    Latency(Percentiles),
    /// Larger is better.
    Rate {
        /// The number in a second.
        value: f64,
        /// Of what.
        unit: &'static str,
    },
    /// The load was not run.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// The phases of ExecutedActionMetadata, p50 in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Split {
    pub(crate) queued_ms: f64,
    pub(crate) input_fetch_ms: f64,
    /// From the inputs' being there to the start of the command.
    pub(crate) set_up_ms: f64,
    pub(crate) execution_ms: f64,
    /// From the end of the command to the start of collecting outputs.
    pub(crate) tear_down_ms: f64,
    pub(crate) output_upload_ms: f64,
}

impl Report {
    pub(crate) fn new(server: &str) -> Self {
        Self { server: server.to_owned(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, load: impl Into<String>, figure: Figure, split: Option<Split>) {
        let row = Row { load: load.into(), figure, split };
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }
}

fn line(row: &Row) -> String {
    let mut text = match &row.figure {
        Figure::Latency(p) => format!(
            "{:<44} p50 {:>9.3} ms   p95 {:>9.3}   p99 {:>9.3}",
            row.load, p.p50_ms, p.p95_ms, p.p99_ms
        ),
        Figure::Rate { value, unit } => format!("{:<44} {value:>13.0} {unit}", row.load),
        Figure::Skipped { reason } => format!("{:<44} SKIPPED: {reason}", row.load),
    };
    if let Some(split) = row.split {
        text.push_str(&format!(
            "   [queued {:.3}, inputs {:.3}, set-up {:.3}, run {:.3}, tear-down {:.3}, outputs {:.3}]",
            split.queued_ms,
            split.input_fetch_ms,
            split.set_up_ms,
            split.execution_ms,
            split.tear_down_ms,
            split.output_upload_ms
        ));
    }
    text
}

/// Prints the table, with a ratio where there are two servers: above 1 the
/// first is better.
pub(crate) fn print(ours: &Report, theirs: Option<&Report>) {
    println!("{}", ours.server);
    for row in &ours.rows {
        println!("{}", line(row));
    }
    let Some(theirs) = theirs else { return };
    println!("\n{}", theirs.server);
    for row in &theirs.rows {
        println!("{}", line(row));
    }
    println!("\nratio (above 1: {} is better)", ours.server);
    for (load, ratio) in ratios(ours, theirs) {
        println!("{load:<44} {ratio:>9.2}");
    }
}

fn ratios(ours: &Report, theirs: &Report) -> Vec<(String, f64)> {
    let compare = |row: &Row| {
        let other = theirs.rows.iter().find(|other| other.load == row.load)?;
        let ratio = match (&row.figure, &other.figure) {
            (Figure::Latency(a), Figure::Latency(b)) => b.p50_ms / a.p50_ms,
            (Figure::Rate { value: a, .. }, Figure::Rate { value: b, .. }) => a / b,
            _ => return None,
        };
        Some((row.load.clone(), ratio))
    };
    ours.rows.iter().filter_map(compare).collect()
}

/// The whole as JSON.
pub(crate) fn to_json(ours: &Report, theirs: Option<&Report>) -> Result<String> {
    let ratios = theirs.map(|theirs| ratios(ours, theirs));
    let all = serde_json::json!({ "server": ours, "vs": theirs, "ratios": ratios });
    Ok(serde_json::to_string_pretty(&all)?)
}
