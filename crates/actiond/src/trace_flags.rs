//! The flags of `serve` about traces, and what is made of them.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use traces::{Collector, Options, Stats, Traces};
use upstream::{Headers, Security};
use web::{Reading, ReadingKind};

/// Flags about traces.
#[derive(Debug, Clone, clap::Args)]
pub struct TraceArgs {
    /// Send a span for each answered operation, and one for each of its stages, to this OpenTelemetry
    /// collector: grpc://HOST:PORT, or http://HOST:PORT[/PATH] for protobuf over HTTP; grpcs:// and
    /// https:// for TLS
    #[arg(long, value_name = "ADDRESS")]
    pub otlp: Option<Collector>,

    /// File with a header `name: value` a line, such as authorization, that every call to the
    /// collector carries; not readable by everybody [default: the headers in the variable
    /// OTEL_EXPORTER_OTLP_TRACES_HEADERS, else in OTEL_EXPORTER_OTLP_HEADERS]
    #[arg(long, value_name = "FILE", requires = "otlp")]
    pub otlp_header_file: Option<PathBuf>,

    /// Certificates of the CAs of a grpcs:// or https:// collector in PEM [default: those of the system]
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
        let headers = match self.otlp_header_file.as_deref() {
            Some(file) => Headers::read(file).context("--otlp-header-file")?,
            None => headers_of_environment(|name| std::env::var(name).ok())?,
        };
        if !headers.is_empty() && collector.is_in_the_clear() {
            tracing::warn!(%collector, "the headers for the collector travel in the clear; use TLS");
        }
        ensure!(
            self.otlp_ca.is_none() || collector.has_tls(),
            "--otlp-ca is for TLS: give --otlp=grpcs://… or --otlp=https://…"
        );
        let options = Options {
            collector,
            headers,
            security: Security { ca: self.otlp_ca.clone(), identity: None },
            version: env!("CARGO_PKG_VERSION"),
        };
        tracing::info!(collector = %options.collector, "traces");
        Ok(Some(Arc::new(Traces::start(options).context("--otlp")?)))
    }
}

/// The variables of OpenTelemetry with headers, the first that is set being used.
const HEADER_VARIABLES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];

/// The headers that the environment names. Its values are secrets, and no error has them.
fn headers_of_environment(read: impl Fn(&str) -> Option<String>) -> anyhow::Result<Headers> {
    let mut variables = HEADER_VARIABLES.iter().filter_map(|name| Some((name, read(name)?)));
    let Some((name, list)) = variables.next() else { return Ok(Headers::default()) };
    Headers::from_list(&list).with_context(|| {
        format!("{name} is no list name=value,name=value of headers with percent-encoded values")
    })
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
        check(&["--otlp=c:4318"], "grpc://HOST:PORT");
        check(&["--otlp=ftp://c:4318"], "http://HOST:PORT");
        check(&["--otlp=https://user:password@c:1"], "--otlp-header-file");
        check(&["--otlp=https://c:1", "--otlp-ca=/nowhere/ca"], "/nowhere/ca");
        check(&["--otlp=https://c:1", "--otlp-ca=/dev/null"], "no certificates");
        check(&[at, "--otlp-ca=/nowhere/ca"], "--otlp=https://");
        check(&["--otlp=grpc://user:password@c:1"], "--otlp-header-file");
        check(&["--otlp-ca=ca.pem"], "--otlp <ADDRESS>");
        check(&[at, "--otlp-header-file=/nowhere/headers"], "can't read /nowhere/headers");
        check(&["--otlp=grpcs://c:1", "--otlp-ca=/nowhere/ca"], "/nowhere/ca");
    }

    #[test]
    fn the_environment_may_have_headers() {
        let headers = |variables: &[(&str, &str)]| {
            headers_of_environment(|name| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(headers(&[]).unwrap().is_empty());
        let both = [(HEADER_VARIABLES[1], "a=1"), (HEADER_VARIABLES[0], "b=2")];
        assert_eq!(format!("{:?}", headers(&both).unwrap()), r#"["b"]"#);
        let error = headers(&[(HEADER_VARIABLES[1], "secret")]).unwrap_err().to_string();
        assert!(error.contains(HEADER_VARIABLES[1]) && !error.contains("secret"), "{error}");
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let traces = parsed(&["--otlp=grpc://127.0.0.1:1"]).unwrap().start().unwrap().unwrap();
        let metrics = web::Metrics::new("1", readings(&traces)).expect("names are valid");
        let text = metrics.encode().expect("a text");
        assert!(text.contains("actiond_traces_sent_actions_total 0\n"), "{text}");
    }
}
