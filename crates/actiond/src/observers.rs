//! Everything that listens to the daemon's events: the log, the event file, the history, and what HTTP
//! serves.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use access::{Endpoint, Listen, Policy, Rights};
use anyhow::{Context as _, bail};
use events::{Event, Finished, Listener, Listeners, Origin, Stages};
use history::{Archive, BYTES_MIN, EventFile, HistoryStats};
use reapi::Meters;
use store::{Beside, Store};
use tokio::net::TcpListener;
use traces::Traces;
use upstream::Upstream;
use web::{MayRead, Metrics, Reading, ReadingKind, Report, Share, Shares, Site, Usage};

use crate::history_room::{self, HISTORY, HistoryRoom};
use crate::overflow::Overflow;
use crate::tally::Tally;
use crate::trace_flags::{self, TraceArgs};
use crate::{machine_load, store_observers, upstream_flags};

/// Where HTTP is served unless a flag says otherwise.
const DEFAULT_HTTP: &str = "127.0.0.1:8981";

/// `--http`: where to serve the page and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpChoice {
    /// On the default address, if nobody else has it.
    #[default]
    Default,
    /// On this address, with these rights of callers without a token.
    At(SocketAddr, Option<Rights>),
    /// Nowhere.
    Off,
}

impl FromStr for HttpChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "default" => Ok(Self::Default),
            "off" => Ok(Self::Off),
            address => match address.parse() {
                Ok(Listen { endpoint: Endpoint::Tcp(address), anonymous, tls: true }) => {
                    Ok(Self::At(address, anonymous))
                }
                _ => Err(format!(
                    "{address:?} is neither `off` nor an address such as {DEFAULT_HTTP}, with \
                     ?anonymous=read or without"
                )),
            },
        }
    }
}

/// The records that are kept of events.
pub(crate) struct Kept<'a> {
    /// A file with a line for each answer.
    pub(crate) event_log: Option<&'a Path>,
    /// Days in the history; 0 for no history.
    pub(crate) history_days: u16,
    /// The disk space of the history, in bytes.
    pub(crate) history_bytes: u64,
    /// Flags about traces.
    pub(crate) traces: &'a TraceArgs,
}

/// The listeners. Dropping it writes the rest of the event file and of the history.
pub(crate) struct Observers {
    listeners: Listeners,
    site: Site,
    traces: Option<Arc<Traces>>,
    /// The disk space of a history of earlier servers, where none is kept now.
    _unwritten_history: Option<Beside>,
}

impl Observers {
    /// Opens the event file and the history and starts to send traces, if there are to be such, and starts to count.
    ///
    /// # Errors
    /// When the event file or a file about traces cannot be opened, or a thread cannot be started.
    pub(crate) fn open(
        kept: &Kept<'_>,
        store: &Arc<Store>,
        upstream: Option<&Arc<Upstream>>,
        overflow: Option<&Arc<Overflow>>,
    ) -> anyhow::Result<Self> {
        let archive = open_archive(kept, store)?;
        let unwritten_history = (!archive.has_history()).then(|| history_room::charge(store));
        let mut readings = readings(store);
        readings.extend(upstream.map(upstream_flags::readings).unwrap_or_default());
        readings.extend(overflow.map(|it| it.readings()).unwrap_or_default());
        readings.extend(history_readings(&archive));
        let traces = kept.traces.start()?;
        readings.extend(traces.as_ref().map(trace_flags::readings).unwrap_or_default());
        let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), readings)?);
        let mut listeners: Vec<Arc<dyn Listener>> =
            vec![Arc::new(Log), Arc::clone(&metrics) as Arc<dyn Listener>];
        listeners.extend(archive.listeners());
        listeners.extend(traces.clone().map(|it| it as Arc<dyn Listener>));
        if let Some(tally) = Tally::if_wanted() {
            listeners.push(Arc::new(tally));
        }
        if let Some(path) = kept.event_log {
            listeners.push(Arc::new(EventFile::open(path)?));
        }
        // Until it is known who may.
        let may_read: MayRead = Arc::new(|_| false);
        let site = Site {
            may_read_all: Arc::clone(&may_read),
            may_read,
            blobs: Arc::clone(store),
            usage: usage_of(Arc::clone(store)),
            doctor: doctor_of(store.path().to_owned()),
            version: env!("CARGO_PKG_VERSION"),
            metrics,
            archive,
            store: machine_load::with_load(store_observers::facts(store)),
        };
        let listeners = Listeners::new(listeners);
        Ok(Self { listeners, site, traces, _unwritten_history: unwritten_history })
    }

    /// Sends what is left of the traces, for a few seconds at most. To be called when nothing runs any more: threads
    /// that end later may hold the listeners still.
    pub(crate) fn close(&self) {
        if let Some(traces) = &self.traces {
            traces.close();
        }
    }

    /// Everything that listens.
    pub(crate) fn listeners(&self) -> Listeners {
        self.listeners.clone()
    }

    /// The site that HTTP serves.
    pub(crate) fn site(&self) -> Site {
        self.site.clone()
    }
}

fn open_archive(kept: &Kept<'_>, store: &Store) -> anyhow::Result<Archive> {
    let bytes_max = kept.history_bytes;
    if bytes_max < BYTES_MIN {
        bail!("--history-bytes: {bytes_max} is less than the least, {}m", BYTES_MIN >> 20);
    }
    let options = (kept.history_days > 0).then(|| history::Options {
        directory: store.path().join(HISTORY),
        age_max: Duration::from_secs(u64::from(kept.history_days) * 86_400),
        room: Box::new(HistoryRoom::new(store, bytes_max)),
    });
    Archive::open(options).context("starting the history")
}

/// Serves the page and the metrics on a task of its own, for as long as the runtime lives.
///
/// # Errors
/// When the address that was asked for cannot be had. The default address may be in use, by another
/// actiond for example: then there is no page, and the log says so.
pub(crate) async fn serve_http(
    choice: HttpChoice,
    insecure: bool,
    site: Site,
    policy: &Arc<Policy>,
) -> anyhow::Result<()> {
    // Where there are principals, a reader has to be one, as at the other ports.
    let default = if policy.has_principals() { Rights::NONE } else { Rights::CLIENT };
    let mut anonymous = default;
    let listener = match choice {
        HttpChoice::Off => return Ok(()),
        HttpChoice::At(address, _) if !address.ip().is_loopback() && !insecure => bail!(
            "--http: {address} is beyond the loopback device, where everybody could read what is \
             built; give an address of this machine only, or --insecure"
        ),
        HttpChoice::At(address, given) => {
            anonymous = given.unwrap_or(default);
            TcpListener::bind(address)
                .await
                .with_context(|| format!("--http: listening on {address}"))?
        }
        HttpChoice::Default => match TcpListener::bind(DEFAULT_HTTP).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "no page and no metrics: {DEFAULT_HTTP} cannot be had; --http names another address"
                );
                return Ok(());
            }
        },
    };
    let address = listener.local_addr().context("asking for the address of the page")?;
    tracing::info!("page and metrics on http://{address}/");
    let (of_some, of_all) = (Arc::clone(policy), Arc::clone(policy));
    let may_read: MayRead = Arc::new(move |headers| of_some.lets_read(headers, anonymous));
    let may_read_all: MayRead = Arc::new(move |headers| of_all.lets_read_all(headers, anonymous));
    let site = Site { may_read, may_read_all, ..site };
    tokio::spawn(async move {
        if let Err(error) = web::serve(listener, site, std::future::pending()).await {
            tracing::error!(%error, "the page and the metrics are gone");
        }
    });
    Ok(())
}

/// Values that are read at each scrape.
fn readings(store: &Arc<Store>) -> Vec<Reading> {
    let started = Instant::now();
    let uptime = move || i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
    let disk = |of: fn(&rustix::fs::StatVfs) -> u64| {
        let store = Arc::clone(store);
        Box::new(move || {
            let status = rustix::fs::fstatvfs(store.work_dirfd());
            status.map_or(-1, |status| i64::try_from(of(&status)).unwrap_or(i64::MAX))
        })
    };
    let own = [
        Reading {
            kind: ReadingKind::Gauge,
            label: None,
            name: "uptime_seconds",
            help: "Time since the start of the daemon.",
            read: Box::new(uptime),
        },
        Reading {
            kind: ReadingKind::Gauge,
            label: None,
            name: "store_disk_free_bytes",
            help: "Free space of the store's file system; -1 if it cannot be asked.",
            read: disk(|status| status.f_bavail.saturating_mul(status.f_frsize)),
        },
        Reading {
            kind: ReadingKind::Gauge,
            label: None,
            name: "store_disk_size_bytes",
            help: "Size of the store's file system; -1 if it cannot be asked.",
            read: disk(|status| status.f_blocks.saturating_mul(status.f_frsize)),
        },
    ];
    own.into_iter().chain(store_observers::readings(store)).collect()
}

/// Numbers about calls, connections and slots, read at each scrape.
pub(crate) fn server_readings(meters: &Meters, slots: NonZeroUsize) -> Vec<Reading> {
    type Row = (ReadingKind, &'static str, &'static str, fn(&Meters) -> u64);
    let rows: [Row; 5] = [
        (ReadingKind::Gauge, "connections", "Open connections of clients.", Meters::connections),
        (
            ReadingKind::Gauge,
            "memory_lent_bytes",
            "Memory that is held for messages of clients.",
            Meters::lent_bytes,
        ),
        (
            ReadingKind::Gauge,
            "memory_lendable_bytes",
            "The most of it; calls over it wait or are refused.",
            Meters::lendable_bytes,
        ),
        (
            ReadingKind::Counter,
            "received_bytes_total",
            "Bytes of requests, almost all of them blobs.",
            Meters::received_bytes,
        ),
        (
            ReadingKind::Counter,
            "sent_bytes_total",
            "Bytes of answers, almost all of them blobs.",
            Meters::sent_bytes,
        ),
    ];
    let numbers = rows.into_iter().map(|(kind, name, help, read)| {
        let meters = meters.clone();
        let read = Box::new(move || i64::try_from(read(&meters)).unwrap_or(i64::MAX));
        Reading { kind, name, help, label: None, read }
    });
    let calls = meters.methods().into_iter().map(|method| {
        let (meters, label) = (meters.clone(), method.clone());
        Reading {
            kind: ReadingKind::Counter,
            name: "calls_total",
            help: "Calls of clients by method, answered or not.",
            label: Some(("method", label.into())),
            read: Box::new(move || i64::try_from(meters.calls(&method)).unwrap_or(i64::MAX)),
        }
    });
    let slots = Reading {
        kind: ReadingKind::Gauge,
        name: "slots",
        help: "Actions that can run at a time.",
        label: None,
        read: Box::new(move || i64::try_from(slots.get()).unwrap_or(i64::MAX)),
    };
    numbers.chain(calls).chain([slots]).collect()
}

/// Adds up the store for the page.
fn usage_of(store: Arc<Store>) -> Usage {
    Arc::new(move || {
        let proto::actiond::internal::v1::Usage { kinds, ages, sizes, .. } =
            reapi::maintenance::usage(&store);
        let groups = [("By kind", kinds), ("By last use", ages), ("Blobs by size", sizes)];
        let share = |it: proto::actiond::internal::v1::usage::Share| Share {
            name: it.name,
            files: it.files,
            bytes: it.bytes,
        };
        groups
            .into_iter()
            .map(|(title, shares)| Shares {
                title,
                shares: shares.into_iter().map(share).collect(),
            })
            .collect()
    })
}

/// Runs `doctor` for the page: in a process of its own, for it tries things out.
fn doctor_of(root: PathBuf) -> Report {
    Arc::new(move || {
        let program = match std::env::current_exe() {
            Ok(program) => program,
            Err(error) => return format!("the program of the server can't be found: {error}"),
        };
        let mut command = Command::new(program);
        command.arg("doctor").arg("--root").arg(&root).stdin(Stdio::null());
        match command.output() {
            Ok(output) => {
                let text = [output.stdout, output.stderr].concat();
                String::from_utf8_lossy(&text).into_owned()
            }
            Err(error) => format!("doctor can't be started: {error}"),
        }
    })
}

/// Numbers about the history, read at each scrape.
fn history_readings(archive: &Archive) -> impl Iterator<Item = Reading> {
    type Row = (ReadingKind, &'static str, &'static str, fn(&HistoryStats) -> u64);
    let rows: [Row; 5] = [
        (
            ReadingKind::Counter,
            "history_records_total",
            "Records of executions and lookups that were written to the history.",
            |it| it.written,
        ),
        (
            ReadingKind::Counter,
            "history_dropped_records_total",
            "Records that the history lost, because it was behind or its disk did not take them.",
            |it| it.dropped,
        ),
        (
            ReadingKind::Counter,
            "history_deleted_records_total",
            "Records that were deleted because they were old or took too much space.",
            |it| it.deleted,
        ),
        (
            ReadingKind::Counter,
            "history_broken_total",
            "Times that the history was found broken and started anew.",
            |it| it.broken,
        ),
        (
            ReadingKind::Gauge,
            "history_used_bytes",
            "Disk space of the records in the history.",
            |it| it.used_bytes,
        ),
    ];
    rows.into_iter().map(|(kind, name, help, read)| {
        let archive = archive.clone();
        let read = move || i64::try_from(read(&archive.stats())).unwrap_or(i64::MAX);
        Reading { kind, name, help, label: None, read: Box::new(read) }
    })
}

/// The log: a line for each answered operation.
struct Log;

impl Listener for Log {
    fn tell(&self, event: &Event) {
        if let Event::Finished(finished) = event {
            log(finished);
        }
    }
}

/// The line that `cargo xtask timings` reads.
fn log(finished: &Finished) {
    let Finished { action, exit_code, cached, worker, error, .. } = finished;
    // By this name the history and the client know the request, too.
    let operation = &*finished.operation;
    let Stages {
        queued_us,
        inputs_us,
        sandbox_us,
        set_up_us,
        run_us,
        end_us,
        outputs_us,
        total_us,
    } = finished.stages;
    let Origin { principal, tool, invocation, mnemonic, target, configuration: _, trace: _ } =
        &*finished.origin;
    let [principal, tool, invocation, mnemonic, target] =
        [principal, tool, invocation, mnemonic, target]
            .map(|name| Some(name.as_str()).filter(|name| !name.is_empty()));
    let (digest, error) = (action, error.as_ref().map(|failure| failure.message.as_str()));
    match error {
        None => tracing::info!(
            %digest,
            exit_code,
            cached,
            queued_us,
            inputs_us,
            sandbox_us,
            set_up_us,
            run_us,
            end_us,
            outputs_us,
            total_us,
            worker,
            principal,
            tool,
            invocation,
            mnemonic,
            target,
            operation,
            "action finished"
        ),
        Some(error) => tracing::info!(
            %digest,
            exit_code,
            %error,
            total_us,
            worker,
            principal,
            tool,
            invocation,
            mnemonic,
            target,
            operation,
            "action failed"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_http_is_served() {
        let check =
            |text: &str, expected| assert_eq!(text.parse::<HttpChoice>(), expected, "{text}");
        check("off", Ok(HttpChoice::Off));
        check("127.0.0.1:0", Ok(HttpChoice::At(([127, 0, 0, 1], 0).into(), None)));
        let read = "read".parse().ok();
        check("[::1]:1?anonymous=read", Ok(HttpChoice::At("[::1]:1".parse().unwrap(), read)));
        for wrong in ["8981", "unix:/run/a", "127.0.0.1:1?tls=off", "127.0.0.1:1?anonymous=x"] {
            let error = wrong.parse::<HttpChoice>().unwrap_err();
            assert!(error.contains("is neither `off` nor an address"), "{error}");
        }
    }
}
