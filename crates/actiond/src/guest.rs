//! The guest's program: PID 1, and the worker, which is `serve` on other sockets.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use access::{Policy, Rights};
use anyhow::Context as _;
use guest::control::Control;
use guest::init::WORKER_ARGUMENT;
use guest::settings::Settings;
use guest::transport::{self, Ports};
use history::Archive;
use model::InstanceNames;
use reapi::{Health, Meters, Services};
use store::Store;
use tokio::sync::oneshot;

use crate::cli::ServeArgs;
use crate::output::tell;
use crate::serve::{
    CLOSE_TIMEOUT, Started, drain, limit_heaps, server_ended, watch_store, with_worker,
};
use crate::{helper, logging, worker_flags};

/// The word that makes the program PID 1; without any word it is that too, as the kernel gives none.
const INIT_ARGUMENT: &str = "--guest-init";

/// The time that running actions have when the host asks for the end. The host waits longer.
const DRAIN_MS: u64 = 5_000;

/// Runs as what the words after the program's name say.
pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<_> = words.collect();
    let first = words.first().and_then(|word| word.to_str());
    let is_init = rustix::process::getpid().is_init();
    match first {
        Some(word) if word == helper::COMMAND => sandbox::helper_main(),
        Some(word) if word == WORKER_ARGUMENT => run().unwrap_or_else(|error| {
            tell(format_args!("worker: {error:#}"));
            ExitCode::FAILURE
        }),
        Some(INIT_ARGUMENT) | None if is_init => guest::init::run(),
        _ => {
            tell("this program is started by the kernel of a VM, as its /init");
            ExitCode::FAILURE
        }
    }
}

/// The worker, until the host asks for its end.
fn run() -> anyhow::Result<ExitCode> {
    limit_heaps();
    let settings = Settings::of_this_boot().context("reading the settings")?;
    let arguments = arguments(&settings.worker_flags)?;
    logging::start(&arguments.log)?;
    let policy = Policy::same_for_all(Rights::CLIENT).withholding(arguments.withheld());
    let instances = arguments.instance_names.clone().unwrap_or_default();
    with_worker(&arguments, |started, site| {
        serve(settings, policy, instances, started, site.archive)
    })
}

/// The defaults of `serve` with the guest's disks, overridden by the flags that the host sends.
fn arguments(flags: &[String]) -> anyhow::Result<ServeArgs> {
    let mut own = vec!["--root", guest::STORE];
    if has_runtimes() {
        own.extend(["--runtime-root", guest::RUNTIMES]);
    }
    worker_flags::parse(flags, &own)
}

/// Whether init has mounted anything there: the bare mount point is an empty directory.
fn has_runtimes() -> bool {
    Path::new(guest::RUNTIMES).read_dir().is_ok_and(|mut entries| entries.next().is_some())
}

async fn serve(
    settings: Settings,
    policy: Policy,
    instances: InstanceNames,
    Started { store, worker, functions, upstream: _, images }: Started,
    archive: Archive,
) -> anyhow::Result<ExitCode> {
    let Ports { control: control_connections, grpc } =
        transport::listen(settings.transport).await.context("listening for the host")?;
    let health = Health::serving();
    let counted = Arc::clone(&store);
    let control = Control::new(move || counters(&counted));
    let services = Services {
        store: Arc::clone(&store),
        worker: worker.clone(),
        images: Some(images),
        archive,
        health: health.clone(),
        functions,
        instances,
        // A guest has no network.
        origin: None,
        meters: Meters::of_this_machine(),
    };
    // Its host decides who may connect. No client is an operator of the guest.
    let policy = Arc::new(policy);
    let (close, closing) = oneshot::channel::<()>();
    let shutdown = async {
        // An error means that the sender is gone: the end as well.
        let _ = closing.await;
    };
    let mut server =
        tokio::spawn(reapi::serve(transport::incoming(grpc), services, policy, shutdown));
    // Last: an answer on this port is what tells the host that the guest is ready.
    tokio::spawn(Arc::clone(&control).serve(control_connections));

    tokio::select! {
        () = control.shutdown_asked() => {}
        error = watch_store(&store, &health) => return Err(error),
        ended = &mut server => return Err(server_ended(ended)),
    }
    health.draining().await;
    drain(&worker, DRAIN_MS, std::future::pending()).await;
    let _ = close.send(());
    if tokio::time::timeout(CLOSE_TIMEOUT, server).await.is_err() {
        tracing::warn!("calls were still open at the end");
    }
    Ok(ExitCode::SUCCESS)
}

/// The guest's own counters, in the form of the kernel's: a name and a number a line.
fn counters(store: &Store) -> String {
    let stats = store.stats();
    format!("cas_blobs {}\ncas_bytes {}\n", stats.blobs, stats.bytes)
}
