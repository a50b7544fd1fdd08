//! The daemon, wired bottom up, and its end.
//!
//! ```text
//!            SIGTERM, SIGINT                       all done, or time is up
//! ┌─────────┐              ┌──────────────────────┐            ┌─────────┐
//! │ SERVING ├─────────────►│ DRAINING: no new     ├───────────►│ CLOSING │
//! └─────────┘              │ actions; running ones│            └────┬────┘
//!                          │ go on, blobs can be  │                 │
//!                          │ fetched              │                 ▼
//!                          └──────────┬───────────┘              exit code
//!                                     │ a second signal:
//!                                     └─ actions are killed ─► CLOSING
//! ```

use std::future::Future;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use chain::Chain;
use events::Listeners;
use images::Images;
use inputroot::InputRoots;
use model::{DigestFunctions, WorkerPlatform};
use reapi::{Health, Meters, OfferedFunctions, Services};
use sandbox::Cgroups;
use store::{Journal, Store, StoreOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use upstream::Upstream;
use web::Site;
use worker::{Elsewhere, Worker, WorkerConfig};

use crate::action_ids::{ActionIds, Shared};
use crate::cli::ServeArgs;
use crate::configuration::Configuration;
use crate::doors::Doors;
use crate::observers::{Kept, Observers, serve_http, server_readings};
use crate::output::{print_if_read, tell};
use crate::reload::{self, Reloadable, limits, store_size};
use crate::service_manager::ServiceManager;
use crate::tally::{CGROUP, starter_is_gone};
use crate::{
    bazelrc, doctor, doors, helper, logging, privileges, root_directory, runtime_source,
    surroundings,
};

/// Threads for file I/O at most. They never wait for clients, so this many are
/// only busy when the disk is the bottleneck.
const MAX_IO_THREADS: usize = 128;

/// How often the store is asked whether it can keep what it is given: about as often as load
/// balancers ask for the server's health.
const STORE_PERIOD: Duration = Duration::from_millis(500);

/// How often it is looked at whether memory can go back to the system.
const MEMORY_PERIOD: Duration = Duration::from_secs(10);

/// OVERLAYFS_SUPER_MAGIC of <linux/magic.h>.
const OVERLAYFS_MAGIC: rustix::fs::FsWord = 0x794c_7630;

/// The free memory in the heaps above which it is returned to the system; less is soon used again.
const MEMORY_BYTES: u64 = 16 << 20;

/// The time that calls still open at the end have, such as the fetching
/// of a last output.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves until it is told to end.
///
/// # Errors
/// When serving can't start, or breaks.
pub fn run(mut configuration: Configuration) -> anyhow::Result<ExitCode> {
    surroundings::take_in_hand()?;
    limit_heaps();
    logging::start(&configuration.arguments.log)?;
    // While there is one thread: a warning starts another.
    privileges::obtain()?.log();
    configuration.warn();
    let arguments = configuration.arguments.clone();
    with_worker(&arguments, |started, site| serve(&mut configuration, started, site))
}

/// One heap for each CPU, two at least: enough for threads hardly ever to wait for each other, and
/// it halves what is resident after a build.
pub(crate) fn limit_heaps() {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    sys::allocator::limit_heaps(cpus.max(2));
}

/// All that is behind the services.
pub(crate) struct Started {
    pub(crate) store: Arc<Store>,
    pub(crate) worker: Worker,
    /// The digest functions that clients may use.
    pub(crate) functions: OfferedFunctions,
    /// The tier below the store, where there is one.
    pub(crate) upstream: Option<Arc<Upstream>>,
    /// The images that actions can choose.
    pub(crate) images: Arc<Images>,
}

/// Starts all that is behind the services, runs `serve`, and brings the store to rest.
///
/// # Errors
/// When something can't start, or `serve` fails.
pub(crate) fn with_worker<F>(
    arguments: &ServeArgs,
    serve: impl FnOnce(Started, Site) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<ExitCode>>,
{
    let store = open_store(arguments)?;
    let upstream = arguments.upstream.open(&store)?;
    let kept = Kept {
        event_log: arguments.event_log.as_deref(),
        history_days: arguments.history_days,
        history_bytes: arguments.history_bytes.0,
        traces: &arguments.traces,
    };
    let overflow = arguments.overflow.open(arguments.upstream.upstream_timeout.0, &store)?;
    let observers = Observers::open(&kept, &store, upstream.as_ref(), overflow.as_ref())?;
    let elsewhere = overflow.clone().map(|overflow| overflow as Arc<dyn Elsewhere>);
    let (worker, functions, images) =
        start_worker(arguments, &store, observers.listeners(), elsewhere)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MAX_IO_THREADS)
        .thread_name("grpc")
        .build()
        .context("starting the threads for connections")?;
    let started = Started {
        store: Arc::clone(&store),
        worker: worker.clone(),
        functions,
        upstream: upstream.clone(),
        images: Arc::clone(&images),
    };
    let served = runtime.block_on(serve(started, observers.site()));
    worker.kill_all();
    runtime.shutdown_timeout(CLOSE_TIMEOUT);
    worker.join();
    observers.close();
    if let Some(overflow) = overflow {
        overflow.close();
    }
    if let Some(upstream) = upstream {
        upstream.close();
    }
    drop(worker);
    drop(images);
    let closed = store.close().context("closing the store");
    // The error that ended the server takes precedence over errors of the shutdown.
    let code = served?;
    closed.map(|()| code)
}

fn open_store(arguments: &ServeArgs) -> anyhow::Result<Arc<Store>> {
    let root = &arguments.root;
    let options = StoreOptions {
        size: store_size(arguments),
        lease: arguments.lease.0,
        durability: arguments.durability,
        opens_in_background: true,
        scrub_period: (arguments.scrub_days > 0)
            .then(|| Duration::from_secs(u64::from(arguments.scrub_days) * 86_400)),
        ..StoreOptions::default()
    };
    let store = Store::open(root, options)
        .with_context(|| format!("opening the root directory {}", root.display()))?;
    if root_directory::is_in_memory(root) {
        tracing::warn!(
            root = %root.display(),
            "the root directory is on a tmpfs: the store counts as memory, and is lost at the next boot"
        );
    }
    if Journal::of(store.work_dirfd()) == Journal::Absent {
        tracing::warn!(
            root = %root.display(),
            "the root directory is on ext4 without a journal: a power loss can cost blobs that were stored \
             long before, whatever --durability says, and e2fsck must repair it before it is used again"
        );
    }
    let stats = store.stats();
    tracing::info!(
        blobs = stats.blobs,
        is_open = store.is_open(),
        used_bytes = stats.used_bytes,
        limit_bytes = stats.limit_bytes,
        "store"
    );
    Ok(store)
}

/// The worker, the digest functions that are offered, and the images that actions can choose.
fn start_worker(
    arguments: &ServeArgs,
    store: &Arc<Store>,
    listeners: Listeners,
    elsewhere: Option<Arc<dyn Elsewhere>>,
) -> anyhow::Result<(Worker, OfferedFunctions, Arc<Images>)> {
    let runtimes = runtime_source::open(arguments)?;
    let input_roots: Arc<dyn InputRoots> =
        inputroot::choose(store, arguments.input_root_strategy.0)
            .with_context(|| no_strategy(&arguments.root))?
            .into();
    tracing::info!(strategy = input_roots.name(), "input roots");
    let functions = offered_functions(arguments.digest_functions, input_roots.functions())?;
    let images = Images::open(Arc::clone(store), Arc::clone(&input_roots), runtimes.clone())
        .context("opening the images")?;
    let config = worker_config(arguments);
    let helper = helper::command().map_err(doctor::no_sandbox)?;
    let mut sandbox = sandbox::Config {
        file_bytes: config.limits.outputs.file_bytes,
        ..sandbox_config(arguments, config.jobs.get(), helper)
    };
    sandbox.first_user = users_of_their_own(arguments.action_ids, &sandbox, &*input_roots);
    doctor::try_sandbox(&sandbox)?;
    let worker = Worker::start(
        config,
        Arc::clone(store),
        input_roots,
        runtimes,
        sandbox,
        listeners,
        elsewhere,
    )
    .context("starting the worker")?;
    Ok((worker, functions, Arc::new(images)))
}

/// Why there is no input root strategy, as far as the root directory tells.
fn no_strategy(root: &Path) -> &'static str {
    if rustix::fs::statfs(root).is_ok_and(|file_system| file_system.f_type == OVERLAYFS_MAGIC) {
        "the root directory is on overlayfs, as everything in a container is: give a directory on a disk with \
         --root, in a container a volume (--volume actiond:/DIR)"
    } else {
        "choosing an input root strategy; `linux-actiond doctor` tells more"
    }
}

/// The digest functions that are offered, given those of the operator's choice and those whose input
/// trees can be presented.
fn offered_functions(
    chosen: DigestFunctions,
    presented: DigestFunctions,
) -> anyhow::Result<OfferedFunctions> {
    let execution = DigestFunctions::of(chosen.iter().filter(|it| presented.contains(*it)));
    if execution.iter().next().is_none() {
        bail!("input trees of {chosen} digests can't be shown here, only those of {presented}");
    }
    if execution != chosen {
        tracing::warn!(
            cache = %chosen,
            %execution,
            "the kernel's part can't show input trees of all digest functions"
        );
    }
    Ok(OfferedFunctions { cache: chosen, execution })
}

/// The name of this host; clients show the phases of an action only where a result names its worker.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "actiond".to_owned() } else { name }
}

fn worker_config(arguments: &ServeArgs) -> WorkerConfig {
    let defaults = WorkerConfig::default();
    WorkerConfig {
        worker_name: arguments.name.clone().unwrap_or_else(host_name),
        jobs: arguments.jobs.unwrap_or(defaults.jobs),
        limits: limits(arguments),
        overflow_jobs: arguments.overflow.overflow_jobs,
        overflow_wait: arguments.overflow.overflow_wait.0,
        platform: WorkerPlatform::new(
            arguments.platform.iter().cloned(),
            arguments.unknown_properties,
        ),
        ..defaults
    }
}

fn sandbox_config(
    arguments: &ServeArgs,
    jobs: usize,
    helper: sandbox::HelperCommand,
) -> sandbox::Config {
    let defaults = sandbox::Config::new(helper);
    sandbox::Config {
        helpers_max: defaults.helpers_max.max(2 * jobs),
        tmp_bytes: arguments.tmp_bytes.0,
        shm_bytes: arguments.shm_bytes.0,
        cgroups: cgroups(),
        ..defaults
    }
}

/// The first id of the users that sandboxes have for themselves; `None` where they share one. The log tells.
fn users_of_their_own(
    chosen: ActionIds,
    sandbox: &sandbox::Config,
    input_roots: &dyn InputRoots,
) -> Option<u32> {
    match chosen.try_out(sandbox, input_roots) {
        Ok(first) => {
            let number = sandbox.helpers_max;
            tracing::info!(first, number, "each sandbox has a user of the host for itself");
            Some(first)
        }
        Err(reason) => {
            // Only where something failed that was to work is there something to repair.
            let failed =
                matches!(reason, Shared::Sandbox(_) | Shared::InputRoot(_) | Shared::Taken(_));
            let reason = Chain(&reason);
            if failed {
                tracing::warn!(%reason, "all actions share one user of the host");
            } else {
                tracing::info!(%reason, "all actions share one user of the host");
            }
            None
        }
    }
}

/// Cgroups for actions, where this process may make them.
fn cgroups() -> Option<Arc<Cgroups>> {
    match Cgroups::set_up(std::env::var_os(CGROUP).map(PathBuf::from)) {
        Ok(Some(cgroups)) => {
            tracing::info!(controllers = ?cgroups.controllers(), "cgroups for actions");
            Some(Arc::new(cgroups))
        }
        Ok(None) => {
            tracing::warn!(
                "no cgroup controllers here: limits of actions are weaker, as doctor tells"
            );
            None
        }
        Err(error) if error.has_other_processes() => {
            tracing::warn!(
                %error,
                cure = "start it alone in a cgroup: as a service, or by systemd-run --scope -p Delegate=yes, with \
                        --user unless as root",
                "no cgroups, because this process is in one with others: limits of actions are weaker"
            );
            None
        }
        Err(error) => {
            tracing::warn!(%error, "no cgroups: limits of actions are weaker");
            None
        }
    }
}

async fn serve(
    configuration: &mut Configuration,
    Started { store, worker, functions, upstream: _, images }: Started,
    site: Site,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let mut signals_to_reload = signal(SignalKind::hangup()).context("listening for signals")?;
    let arguments = configuration.arguments.clone();
    let Doors { connections, places, policy, tls } = doors::open(&arguments).await?;
    let health = Health::serving();
    health.set_durable(is_ready(&store)).await;
    let services = Services {
        store: Arc::clone(&store),
        worker: worker.clone(),
        images: (!arguments.read_only).then(|| Arc::clone(&images)),
        archive: site.archive.clone(),
        health: health.clone(),
        functions,
        instances: arguments.instance_names.clone().unwrap_or_default(),
        origin: arguments.fetch.origin()?,
        meters: Meters::of_this_machine(),
    };
    site.metrics
        .add(server_readings(&services.meters, worker_config(&arguments).jobs))
        .context("registering the metrics of the server")?;
    let (close, closing) = oneshot::channel::<()>();
    let shutdown = async {
        // An error means that the sender is gone: the end as well.
        let _ = closing.await;
    };
    let mut server = tokio::spawn(reapi::serve(
        connections.into_stream(),
        services,
        Arc::clone(&policy),
        shutdown,
    ));
    serve_http(arguments.http, arguments.insecure, site, &policy).await?;
    for place in &places {
        tell(format_args!("linux-actiond: serving on {place}"));
    }
    if arguments.print_bazelrc {
        let place = places.first().context("there is a place to listen at")?;
        let lines = bazelrc::lines(place, &arguments);
        print_if_read(&format!("\n# The lines for the .bazelrc of a workspace:\n{lines}\n\n"));
    }
    let manager = ServiceManager::from_environment();
    manager.ready();

    let reloadable = Reloadable {
        policy: &policy,
        tls: tls.as_deref(),
        store: &store,
        worker: &worker,
        images: &images,
    };
    tokio::select! {
        () = signals.next() => {}
        () = reload::when_asked(configuration, &reloadable, &mut signals_to_reload) => {}
        () = manager.keep_alive() => {}
        () = give_memory_back() => {}
        () = starter_is_gone() => {}
        error = watch_store(&store, &health) => return Err(error),
        ended = &mut server => return Err(server_ended(ended)),
    }
    manager.stopping();
    tracing::info!("draining; a second signal kills running actions");
    health.draining().await;
    let drained = tokio::select! {
        drained = drain(&worker, configuration.arguments.drain_timeout_ms, signals.next()) => drained,
        () = manager.keep_alive() => false,
    };
    // The server may have ended by itself; then there is nobody to tell.
    let _ = close.send(());
    if tokio::time::timeout(CLOSE_TIMEOUT, server).await.is_err() {
        tracing::warn!("calls were still open at the end");
    }
    Ok(if drained { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Gives memory that a flood of requests took back to the system when the flood is over; never ends.
///
/// The C library keeps what was freed. To give it back costs milliseconds, and page faults later, so
/// that is done only when much more is free than after the last time.
pub(crate) async fn give_memory_back() {
    let mut free_after = sys::allocator::free_bytes();
    loop {
        tokio::time::sleep(MEMORY_PERIOD).await;
        let free = sys::allocator::free_bytes();
        if free > free_after + MEMORY_BYTES {
            // A panic of that thread is logged, and there is nothing else to do about it.
            let _ = tokio::task::spawn_blocking(sys::allocator::give_back).await;
            free_after = sys::allocator::free_bytes();
        }
        // Memory that is in use again need not be returned.
        free_after = free_after.min(free);
    }
}

/// Tells the health service whether the store can keep what it is given. Ends with the reason when it
/// can't, and nothing can mend that but a new start.
pub(crate) async fn watch_store(store: &Store, health: &Health) -> anyhow::Error {
    let mut told = None;
    while !store.is_gone() {
        if let Some(failure) = store.take_failure() {
            return anyhow::Error::new(failure).context("opening the root directory");
        }
        let is_ready = is_ready(store);
        if told != Some(is_ready) {
            told = Some(is_ready);
            health.set_durable(is_ready).await;
        }
        tokio::time::sleep(STORE_PERIOD).await;
    }
    anyhow::anyhow!("the root directory {} was removed; the server ends", store.path().display())
}

/// Whether the store is open as a whole, and what is stored now reaches the disk.
pub(crate) fn is_ready(store: &Store) -> bool {
    store.is_open() && store.is_durable()
}

/// Whether all running actions came to their own end.
pub(crate) async fn drain(
    worker: &Worker,
    timeout_ms: u64,
    killed: impl Future<Output = ()>,
) -> bool {
    tokio::select! {
        drained = worker.drain(Duration::from_millis(timeout_ms)) => {
            if !drained {
                tracing::warn!("time is up: running actions were killed");
            }
            drained
        }
        () = killed => {
            tracing::warn!("a second signal: running actions are killed");
            worker.kill_all();
            // Their last answers, "cancelled", still go out.
            worker.drain(CLOSE_TIMEOUT).await;
            false
        }
    }
}

pub(crate) fn server_ended(
    ended: Result<Result<(), reapi::ServeError>, tokio::task::JoinError>,
) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow::anyhow!("the server ended by itself"),
        Ok(Err(error)) => error.into(),
        Err(error) => anyhow::Error::new(error).context("the server's task ended early"),
    }
}

/// The signals that ask for the end.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
