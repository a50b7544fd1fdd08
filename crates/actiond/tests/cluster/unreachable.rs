//! Servers that are not there, or that speak something else: the log says which one, why, and what comes of it.

use rustix::process::Signal;
use testkit::{Kit, Outcome, ReservedAddress, eventually};

use crate::Cluster;
use crate::worker_process::WorkerProcess;

async fn says(worker: &WorkerProcess, words: &[&str]) -> Outcome {
    eventually(&format!("the log says {words:?}"), || {
        let log = worker.log();
        Ok(words.iter().all(|word| log.contains(word)))
    })
    .await
}

pub(crate) async fn a_scheduler_that_is_not_there_is_named(kit: Kit) -> Outcome {
    let mut cluster = Cluster::start(kit).await?;
    cluster.scheduler.stop();
    let mut worker = cluster.worker("w", &["--drain-timeout-ms=600000"])?;
    says(&worker, &["the scheduler does not answer", "Connection refused"]).await?;
    worker.signal(Signal::TERM)?;
    assert!(worker.wait()?.success(), "{}", worker.log());
    Ok(())
}

pub(crate) async fn a_storage_that_is_not_there_is_named(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let address = ReservedAddress::new()?;
    let storage = format!("grpc://{}", address.get());
    let scheduler = cluster.scheduler.address();
    let mut worker = WorkerProcess::start(&cluster.kit, "w", &scheduler, &storage, &[])?;
    // It listens for signals by then.
    says(&worker, &["the upstream is down", "Connection refused", "working for"]).await?;
    worker.signal(Signal::TERM)?;
    assert!(worker.wait()?.success(), "{}", worker.log());
    assert_eq!(cluster.scheduler.requests().len(), 0, "it asked for an action");
    Ok(())
}

pub(crate) async fn a_server_without_tls_is_named(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let with_tls = |address: String| address.replace("grpc://", "grpcs://");
    let (scheduler, storage) = (cluster.scheduler.address(), cluster.storage.address());
    let worker = WorkerProcess::start(&cluster.kit, "w", &with_tls(scheduler), &storage, &[])?;
    let hint = "the server does not speak TLS: use grpc://";
    says(&worker, &["the scheduler does not answer", hint]).await?;
    let scheduler = cluster.scheduler.address();
    let worker = WorkerProcess::start(&cluster.kit, "v", &scheduler, &with_tls(storage), &[])?;
    says(&worker, &["the upstream is down", hint]).await
}
