//! `worker`: a worker of a cluster that has a scheduler, as a process without services of its own.
//!
//! ```text
//!            SIGTERM, SIGINT                            no slot has an action
//! ┌─────────┐              ┌──────────────────────────┐            ┌─────────┐
//! │ WORKING ├─────────────►│ DRAINING: the scheduler  ├───────────►│ CLOSING │
//! └─────────┘              │ is told that no other    │            └────▲────┘
//!                          │ action is wanted         │                 │
//!                          └──────────┬───────────────┘                 │
//!                                     │ time is up, or a second signal: │
//!                                     └─ actions are killed, and the ───┘
//!                                        scheduler is told
//! ```

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use access::{Policy, Rights};
use anyhow::{Context as _, bail};
use cluster::counters::Counts;
use cluster::{Agent, Config, Counters};
use reapi::Health;
use web::{Reading, ReadingKind, Site};

use crate::cli::ServeArgs;
use crate::cli::worker::WorkerArgs;
use crate::observers::serve_http;
use crate::output::tell;
use crate::serve::{
    CLOSE_TIMEOUT, Signals, Started, give_memory_back, host_name, limit_heaps, watch_store,
    with_worker,
};
use crate::service_manager::ServiceManager;
use crate::{logging, privileges, surroundings};

/// Works until it is told to end.
///
/// # Errors
/// When a flag has no meaning here, working can't start, or the store breaks.
pub fn run(arguments: &WorkerArgs, words: &[OsString]) -> anyhow::Result<ExitCode> {
    arguments.check(words)?;
    surroundings::take_in_hand()?;
    limit_heaps();
    let settings = arguments.settings();
    logging::start(&settings.log)?;
    // While there is one thread.
    privileges::obtain()?.log();
    with_worker(&settings, |started, site| work(arguments, &settings, started, site))
}

async fn work(
    arguments: &WorkerArgs,
    settings: &ServeArgs,
    started: Started,
    site: Site,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let policy = Arc::new(Policy::same_for_all(Rights::CLIENT));
    let counters = Arc::new(Counters::default());
    site.metrics.add(readings(&counters)).context("the metrics of the scheduler")?;
    serve_http(settings.http, settings.insecure, site, &policy).await?;
    let config = config(arguments, settings, &started)?;
    let Started { store, worker, upstream, .. } = started;
    let storage = upstream.context("--cas is given")?;
    let (slots, scheduler) = (config.slots, config.scheduler.clone());
    let agent = Agent::start(config, Arc::clone(&store), worker.clone(), storage, counters);
    let mut agent = agent.context("connecting to the scheduler")?;
    tell(format_args!("linux-actiond: working for {scheduler} with {slots} slots"));
    let manager = ServiceManager::from_environment();
    manager.ready();
    // A worker has no clients that ask for it.
    let health = Health::serving();
    tokio::select! {
        () = signals.next() => {}
        () = manager.keep_alive() => {}
        () = give_memory_back() => {}
        error = watch_store(&store, &health) => return Err(error),
        () = agent.ended() => bail!("all slots ended by themselves"),
    }
    manager.stopping();
    tracing::info!("draining; a second signal kills running actions");
    agent.drain();
    let bound = Duration::from_millis(settings.drain_timeout_ms);
    let drained = tokio::select! {
        () = agent.ended() => true,
        () = tokio::time::sleep(bound) => false,
        () = signals.next() => false,
        () = manager.keep_alive() => false,
    };
    if drained {
        return Ok(ExitCode::SUCCESS);
    }
    tracing::warn!("running actions are killed");
    worker.kill_all();
    // The scheduler is told, so that another worker runs them at once.
    in_time(agent.ended()).await;
    Ok(ExitCode::FAILURE)
}

/// A metric: its kind, name, description and value.
type Row = (ReadingKind, &'static str, &'static str, fn(&Counts) -> u64);

/// The metrics of the conversation with the scheduler.
const ROWS: [Row; 5] = [
    (
        ReadingKind::Gauge,
        "scheduler_up",
        "Whether the scheduler of the cluster answered the last call that ended.",
        |it| u64::from(it.is_up),
    ),
    (
        ReadingKind::Counter,
        "scheduler_calls_total",
        "Calls that the scheduler of the cluster answered.",
        |it| it.calls,
    ),
    (
        ReadingKind::Counter,
        "scheduler_failures_total",
        "Calls that the scheduler of the cluster did not answer, or with an error.",
        |it| it.failures,
    ),
    (
        ReadingKind::Counter,
        "scheduler_orders_total",
        "Actions that the scheduler of the cluster gave to this worker.",
        |it| it.orders,
    ),
    (
        ReadingKind::Counter,
        "scheduler_stopped_total",
        "Actions that were stopped because the scheduler of the cluster did not want them any more.",
        |it| it.stopped,
    ),
];

fn readings(counters: &Arc<Counters>) -> Vec<Reading> {
    let reading = |(kind, name, help, value): (_, _, _, fn(&Counts) -> u64)| {
        let counters = Arc::clone(counters);
        let read = move || i64::try_from(value(&counters.counts())).unwrap_or(i64::MAX);
        Reading { kind, name, help, label: None, read: Box::new(read) }
    };
    ROWS.into_iter().map(reading).collect()
}

async fn in_time(end: impl Future<Output = ()>) {
    if tokio::time::timeout(CLOSE_TIMEOUT, end).await.is_err() {
        tracing::warn!("the scheduler could not be told of the end");
    }
}

/// The configuration of the loops that take work from the scheduler.
fn config(
    arguments: &WorkerArgs,
    settings: &ServeArgs,
    started: &Started,
) -> anyhow::Result<Config> {
    let upstream = settings.upstream.config()?.context("--cas is given")?;
    Ok(Config {
        protocol: arguments.scheduler_protocol,
        scheduler: arguments.scheduler.clone(),
        security: upstream.security,
        headers: upstream.headers,
        timeout: upstream.timeout,
        instance: arguments.instance.clone(),
        platform: settings.platform.clone(),
        size_class: arguments.size_class,
        name: settings.name.clone().unwrap_or_else(host_name),
        slots: started.worker.jobs(),
        browser: arguments.browser_url.clone(),
        functions: started.functions.execution,
    })
}
