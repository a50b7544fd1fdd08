//! The flags of `serve` about traces, and what is made of them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use traces::{Collector, Options, Stats, Traces};
use upstream::{Headers, Security};
use web::{Reading, ReadingKind};

/// Flags about traces.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceArgs {
    /// Send a span for each answered operation, and one for each of its stages, to this OpenTelemetry
    /// collector, by gRPC: grpc://HOST:PORT or grpcs://HOST:PORT
    #[arg(long, value_name = "ADDRESS")]
    pub otlp: Option<Collector>,

    /// File with a header `name: value` a line, such as authorization, that every call to the
    /// collector carries; not readable by everybody
    #[arg(long, value_name = "FILE", requires = "otlp")]
    pub otlp_header_file: Option<PathBuf>,

    /// Certificates of the CAs of a grpcs:// collector in PEM [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "otlp")]
    pub otlp_ca: Option<PathBuf>,
}

impl TraceArgs {
    /// Starts to send, if there is a collector.
    ///
    /// # Errors
    /// When a file can't be used.
    pub(crate) fn start(&self) -> anyhow::Result<Option<Arc<Traces>>> {
        let Some(collector) = self.otlp.clone() else { return Ok(None) };
        let headers = self.otlp_header_file.as_deref().map(Headers::read).transpose();
        if self.otlp_header_file.is_some() && collector.is_in_the_clear() {
            tracing::warn!(%collector, "the headers of --otlp-header-file travel in the clear; use grpcs://");
        }
        let options = Options {
            collector,
            headers: headers.context("--otlp-header-file")?.unwrap_or_default(),
            security: Security { ca: self.otlp_ca.clone(), identity: None },
            version: env!("CARGO_PKG_VERSION"),
        };
        tracing::info!(collector = %options.collector, "traces");
        Ok(Some(Arc::new(Traces::start(options).context("--otlp")?)))
    }
}

/// A row of the table of metrics: name, description, and how to read it.
type Row = (&'static str, &'static str, fn(&Stats) -> u64);

const ROWS: [Row; 3] = [
    ("traces_sent_actions_total", "Actions whose spans the collector took.", |it| it.sent),
    (
        "traces_dropped_actions_total",
        "Actions whose spans were lost: too many waited, or the collector did not take them.",
        |it| it.dropped,
    ),
    (
        "traces_rejected_spans_total",
        "Spans that the collector refused of those that it took.",
        |it| it.rejected_spans,
    ),
];

/// The metrics of traces.
pub(crate) fn readings(traces: &Arc<Traces>) -> Vec<Reading> {
    // The listener itself ends with the server, which sends what is left then.
    let counters = traces.counters();
    let reading = |(name, help, read): Row| {
        let counters = Arc::clone(&counters);
        let read = move || i64::try_from(read(&counters.stats())).unwrap_or(i64::MAX);
        Reading { kind: ReadingKind::Counter, name, help, label: None, read: Box::new(read) }
    };
    ROWS.into_iter().map(reading).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Flags {
        #[command(flatten)]
        traces: TraceArgs,
    }

    fn parsed(flags: &[&str]) -> Result<TraceArgs, String> {
        let flags = ["serve"].iter().chain(flags);
        Flags::try_parse_from(flags).map(|it| it.traces).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_sent_unless_a_collector_is_named() {
        assert!(parsed(&[]).unwrap().start().unwrap().is_none());
    }

    #[test]
    fn errors_name_their_cure() {
        let check = |flags: &[&str], expected: &str| {
            let error = match parsed(flags) {
                Ok(flags) => format!("{:#}", flags.start().unwrap_err()),
                Err(error) => error,
            };
            assert!(error.contains(expected), "{flags:?}: {error}");
        };
        let at = "--otlp=grpc://127.0.0.1:1";
        check(&["--otlp=http://c:4318"], "grpc://HOST:PORT");
        check(&["--otlp=grpc://user:password@c:1"], "--otlp-header-file");
        check(&["--otlp-ca=ca.pem"], "--otlp <ADDRESS>");
        check(&[at, "--otlp-header-file=/nowhere/headers"], "can't read /nowhere/headers");
        check(&["--otlp=grpcs://c:1", "--otlp-ca=/nowhere/ca"], "/nowhere/ca");
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let traces = parsed(&["--otlp=grpc://127.0.0.1:1"]).unwrap().start().unwrap().unwrap();
        let metrics = web::Metrics::new("1", readings(&traces)).expect("names are valid");
        let text = metrics.encode().expect("a text");
        assert!(text.contains("actiond_traces_sent_actions_total 0\n"), "{text}");
    }
}
