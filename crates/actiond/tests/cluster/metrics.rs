//! The metrics of a worker.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use testkit::{Kit, Outcome, eventually, eventually_async};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::worker_process::WorkerProcess;
use crate::{Cluster, digest_of, ordered};

/// The words before the address in the log.
const SAID: &str = "page and metrics on http://";

/// The values of all metrics without labels, and those of the storage of blobs.
async fn metrics(worker: &WorkerProcess) -> anyhow::Result<BTreeMap<String, f64>> {
    let log = worker.log();
    let (_, rest) = log.split_once(SAID).context("the worker has a page")?;
    let address: SocketAddr = rest.split_once('/').context("an address")?.0.parse()?;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.contains(" 200 "), "{answer}");
    let lines = answer.lines().filter_map(|line| line.rsplit_once(' '));
    let values = lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    Ok(values.collect())
}

pub(crate) async fn the_worker_has_metrics_of_its_scheduler_and_storage(kit: Kit) -> Outcome {
    let mut cluster = Cluster::start(kit).await?;
    let worker = cluster.worker("w", &["--http=127.0.0.1:0"])?;
    let action = cluster.action("cat in in > out").input("in", "content").output("out");
    cluster.run(&action).await?.file("out").await?;
    let long = ordered(&cluster.action("sleep 1000000")).await?;
    let digest = digest_of(&long, &cluster.storage.client())?;
    let _nobody = cluster.scheduler.push(long);
    cluster.scheduler.running(&digest).await?;
    cluster.scheduler.drop_action(&digest);
    let is_stopped = || Ok(worker.log().contains("does not want the action"));
    eventually("the action is stopped", is_stopped).await?;

    let values = metrics(&worker).await?;
    let value =
        |name: &str| values.get(name).copied().with_context(|| format!("{name}: {values:?}"));
    assert_eq!(value("actiond_scheduler_up")?, 1.0);
    assert_eq!(value("actiond_scheduler_orders_total")?, 2.0);
    assert_eq!(value("actiond_scheduler_stopped_total")?, 1.0);
    ensure!(value("actiond_scheduler_calls_total")? >= 3.0, "{values:?}");
    assert_eq!(value("actiond_scheduler_failures_total")?, 0.0);
    assert_eq!(value("actiond_upstream_up{tier=\"cas\"}")?, 1.0);
    ensure!(value("actiond_upstream_received_bytes_total{tier=\"cas\"}")? >= 7.0, "{values:?}");
    ensure!(value("actiond_upstream_sent_bytes_total{tier=\"cas\"}")? > 0.0, "{values:?}");
    ensure!(value("actiond_upstream_sent_bytes_total{tier=\"ac\"}")? > 0.0, "{values:?}");

    cluster.scheduler.stop();
    let is_down = async || {
        let values = metrics(&worker).await?;
        let has = |name, value| values.get(name) == Some(&value);
        let failures = values.get("actiond_scheduler_failures_total");
        Ok(has("actiond_scheduler_up", 0.0) && failures.is_some_and(|failures| *failures > 0.0))
    };
    eventually_async("the worker counts that the scheduler is away", is_down).await
}
