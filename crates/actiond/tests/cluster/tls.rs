//! Workers whose scheduler and storage are behind TLS, and ask for a certificate.

use std::path::Path;

use anyhow::ensure;
use testkit::pki::{Authority, Request};
use testkit::tls_front::TlsFront;
use testkit::{Kit, Outcome, eventually};

use crate::worker_process::WorkerProcess;
use crate::{Cluster, ordered};

/// The name in the certificates of the servers.
const NAME: &str = "127.0.0.1";

/// A cluster that is reached through TLS alone.
struct Protected {
    cluster: Cluster,
    scheduler: TlsFront,
    storage: TlsFront,
    directory: tempfile::TempDir,
}

impl Protected {
    async fn start(kit: Kit) -> anyhow::Result<Self> {
        if !cfg!(feature = "tls") {
            testkit::skip("the daemon was built without TLS")?;
        }
        let cluster = Cluster::start(kit).await?;
        let directory = tempfile::tempdir()?;
        let (servers, clients) = (Authority::new("servers")?, Authority::new("clients")?);
        let stranger = Authority::new("stranger")?;
        servers.write(&directory.path().join("servers.pem"))?;
        stranger.write(&directory.path().join("stranger.pem"))?;
        clients.sign(Request::client("worker")?)?.write(directory.path(), "worker")?;
        stranger.sign(Request::client("worker")?)?.write(directory.path(), "stranger-worker")?;
        let identity = servers.sign(Request::server(&[NAME])?)?;
        let scheduler =
            TlsFront::start(cluster.scheduler.socket_address(), &identity, &clients).await?;
        let storage =
            TlsFront::start(cluster.storage.socket_address(), &identity, &clients).await?;
        Ok(Self { cluster, scheduler, storage, directory })
    }

    /// A worker that trusts this CA and shows this certificate.
    fn worker(&self, ca: &str, identity: &str) -> anyhow::Result<WorkerProcess> {
        let flag = |name: &str, file: &str| {
            let path: &Path = self.directory.path();
            format!("--upstream-{name}={}", path.join(file).display())
        };
        let (scheduler, storage) = (self.scheduler.address(), self.storage.address());
        let [scheduler, storage] = [scheduler, storage].map(|it| format!("grpcs://{it}"));
        let flags = [
            flag("ca", ca),
            flag("cert", &format!("{identity}.pem")),
            flag("key", &format!("{identity}.key")),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        WorkerProcess::start(&self.cluster.kit, identity, &scheduler, &storage, &flags)
    }
}

pub(crate) async fn a_worker_shows_its_certificate_to_scheduler_and_storage(kit: Kit) -> Outcome {
    let protected = Protected::start(kit).await?;
    let _worker = protected.worker("servers.pem", "worker")?;
    let large = "x".repeat(3 << 20);
    let action = protected.cluster.action("cat in > out").input("in", large.clone()).output("out");
    let ended = protected.cluster.run(&action).await?;
    ensure!(ended.file("out").await? == large, "the output is another one");
    Ok(())
}

pub(crate) async fn a_worker_of_strangers_gets_no_action(kit: Kit) -> Outcome {
    let protected = Protected::start(kit).await?;
    let action = protected.cluster.action("echo x > out").output("out");
    let mut waiting = protected.cluster.scheduler.push(ordered(&action).await?);
    for (ca, identity) in [("stranger.pem", "worker"), ("servers.pem", "stranger-worker")] {
        let worker = protected.worker(ca, identity)?;
        let is_told = || Ok(worker.log().contains("is down"));
        eventually("the worker says that it can't use the storage", is_told).await?;
    }
    ensure!(waiting.try_recv().is_err(), "a stranger ran the action");
    ensure!(protected.cluster.scheduler.requests().is_empty(), "a stranger called the scheduler");
    let _worker = protected.worker("servers.pem", "worker")?;
    ensure!(matches!(waiting.await?, crate::scheduler::Answer::Done(_)), "the action did not run");
    Ok(())
}

/// Without TLS its calls end as the race between the server's alert and the end of the connection has it.
pub(crate) async fn a_server_with_tls_is_named(kit: Kit) -> Outcome {
    let protected = Protected::start(kit).await?;
    let Cluster { kit, scheduler, storage, .. } = &protected.cluster;
    let plain = |front: &TlsFront| format!("grpc://{}", front.address());
    let (storage, front) = (storage.address(), plain(&protected.storage));
    for (name, scheduler, storage, said) in [
        ("w", plain(&protected.scheduler), &storage, "the scheduler does not answer"),
        ("v", scheduler.address(), &front, "the upstream is down"),
    ] {
        let worker = WorkerProcess::start(kit, name, &scheduler, storage, &[])?;
        let is_told = || {
            let log = worker.log();
            Ok(log.lines().any(|line| line.contains(said) && line.contains("use grpcs://")))
        };
        eventually("the log says that the server speaks TLS", is_told).await?;
    }
    Ok(())
}
