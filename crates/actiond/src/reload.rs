//! SIGHUP: what changes while the server runs, and the settings that do.

use std::sync::Arc;
use std::time::Duration;

use access::{Policy, Tls, TlsError};
use chain::Chain;
use images::{Images, Reloaded};
use store::{Store, StoreSize};
use tokio::signal::unix::Signal;
use worker::{Limits, OutputLimits, Worker};

use crate::cli::ServeArgs;
use crate::configuration::{Changes, Configuration};
use crate::logging;

/// The parts of a running server that change at SIGHUP.
pub(crate) struct Reloadable<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) tls: Option<&'a Tls>,
    pub(crate) store: &'a Store,
    pub(crate) worker: &'a Worker,
    pub(crate) images: &'a Arc<Images>,
}

/// Reads the configuration, principals, certificates and the list of images again at each SIGHUP; never ends.
pub(crate) async fn when_asked(
    configuration: &mut Configuration,
    reloadable: &Reloadable<'_>,
    asked: &mut Signal,
) {
    while asked.recv().await.is_some() {
        match reload(configuration, reloadable) {
            Ok(Changes { now, after_restart }) => {
                tracing::info!(?now, ?after_restart, "the configuration was read again");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the configuration stays as it was");
            }
        }
        reload_images(reloadable.images, reloadable.worker).await;
    }
    std::future::pending().await
}

/// Shows the images that are recorded now, on another thread, for that makes mounts.
async fn reload_images(images: &Arc<Images>, worker: &Worker) {
    let (images, worker) = (Arc::clone(images), worker.clone());
    let reloaded = tokio::task::spawn_blocking(move || {
        let changes = images.reload();
        worker.end_retired_sandboxes();
        changes
    });
    match reloaded.await {
        Ok(Ok(changes)) if changes == Reloaded::default() => {}
        Ok(Ok(Reloaded { shown, gone })) => {
            tracing::info!(?shown, ?gone, "the list of images was read again");
        }
        Ok(Err(error)) => tracing::error!(error = %Chain(&error), "the images stay as they were"),
        // A panic, which is logged.
        Err(_) => {}
    }
}

/// Reads everything first, and changes something only if all of it is right.
fn reload(
    configuration: &mut Configuration,
    Reloadable { policy, tls, store, worker, images: _ }: &Reloadable<'_>,
) -> anyhow::Result<Changes> {
    let principals = policy.read_again()?;
    let certificates = tls.map(|tls| Ok::<_, TlsError>((tls, tls.read_again()?))).transpose()?;
    let changes = configuration.reload()?;
    let arguments = &configuration.arguments;
    logging::set_filter(&arguments.log.log)?;
    policy.replace(principals);
    if let Some((tls, certificates)) = certificates {
        tls.replace(certificates);
    }
    worker.set_limits(limits(arguments));
    store.set_lease(arguments.lease.0);
    if changes.now.iter().any(|key| key == "cas_size")
        && let Err(error) = store.set_size(store_size(arguments))
    {
        tracing::warn!(%error, "the size of the store stays as it was");
    }
    Ok(changes)
}

/// The limits of the queue and of actions.
pub(crate) fn limits(arguments: &ServeArgs) -> Limits {
    let outputs = OutputLimits { entries: arguments.output_entries_limit, ..Default::default() };
    Limits {
        queue: arguments.queue_limit,
        orphan_grace: Duration::from_millis(arguments.orphan_grace_ms),
        default_timeout: arguments.default_timeout_ms.map(Duration::from_millis),
        max_timeout: arguments.max_timeout_ms.map(Duration::from_millis),
        stream_bytes: arguments.stream_limit_bytes.0,
        outputs,
    }
}

/// The size of the store that the operator wants.
pub(crate) fn store_size(arguments: &ServeArgs) -> StoreSize {
    arguments.cas_size.unwrap_or(StoreSize::Automatic)
}
