//! The daemon's end: on request, in a hurry, or by force.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::Signal;
use testkit::proto::execution_stage::Value as Stage;
use testkit::run::metadata;
use testkit::{Daemon, Kit, Outcome, Run, eventually, google, proto};
use tonic::{Code, Streaming};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_idle_daemon_ends_at_once,
    an_interrupt_is_a_request_too,
    a_running_action_is_waited_for,
    nothing_new_is_taken_on_while_draining,
    blobs_can_be_fetched_while_draining,
    time_runs_out_for_actions_that_go_on,
    a_second_signal_kills_what_runs,
    open_connections_do_not_hold_it_up,
    killed_by_force_it_leaves_no_process,
    killed_by_force_it_starts_again,
}

/// Starts an action, and returns its stream from the moment on that it runs.
async fn start(
    daemon: &Daemon,
    script: &str,
) -> anyhow::Result<Streaming<google::longrunning::Operation>> {
    Ok(start_named(daemon, script).await?.1)
}

/// The same with the name of the operation.
async fn start_named(
    daemon: &Daemon,
    script: &str,
) -> anyhow::Result<(String, Streaming<google::longrunning::Operation>)> {
    let mut stream = daemon.client().action(script).start().await?;
    loop {
        let operation = stream.message().await?.context("the stream ended")?;
        if metadata(&operation)?.stage == Stage::Executing as i32 {
            return Ok((operation.name, stream));
        }
    }
}

/// The processes whose executable is the daemon's, and all that are below them.
fn processes(daemon: &Daemon) -> anyhow::Result<Vec<u32>> {
    let mut found = vec![daemon.pid()];
    loop {
        let mut more = false;
        for entry in std::fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if !found.contains(&pid) && parent(&entry.path()).is_some_and(|it| found.contains(&it))
            {
                found.push(pid);
                more = true;
            }
        }
        if !more {
            return Ok(found);
        }
    }
}

/// The same, as soon as there are that many.
async fn at_least(number: usize, daemon: &Daemon) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    let enough = || {
        found = processes(daemon)?;
        Ok(found.len() >= number)
    };
    eventually("the actions run", enough).await?;
    Ok(found)
}

/// The parent of the process in that directory of /proc (proc_pid_stat(5)).
fn parent(process: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(process.join("stat")).ok()?;
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

async fn all_end(processes: &[u32]) -> Outcome {
    eventually("all processes end", || Ok(!processes.iter().any(|pid| is_alive(*pid)))).await
}

async fn an_idle_daemon_ends_at_once(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().start().await?;
    daemon.terminate()?;
    assert_eq!(daemon.wait()?.code(), Some(0));
    Ok(())
}

async fn an_interrupt_is_a_request_too(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().start().await?;
    daemon.signal(Signal::INT)?;
    assert_eq!(daemon.wait()?.code(), Some(0));
    Ok(())
}

async fn a_running_action_is_waited_for(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().host_rootfs().start().await?;
    let gate = daemon.gate();
    let stream = start(&daemon, &format!("{}; echo done", gate.wait())).await?;
    let processes = at_least(4, &daemon).await?;
    daemon.terminate()?;
    draining(&daemon).await?;
    gate.open(1).await?;
    let run = Run::collect(daemon.client(), stream).await?;
    assert_eq!(run.result()?.stdout_raw, b"done\n"[..]);
    assert_eq!(daemon.wait()?.code(), Some(0));
    all_end(&processes).await
}

/// Waits until the daemon says that it drains.
async fn draining(daemon: &Daemon) -> Outcome {
    eventually("it drains", || Ok(daemon.log().contains("draining"))).await
}

async fn nothing_new_is_taken_on_while_draining(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let gate = daemon.gate();
    let stream = start(&daemon, &format!("{}; echo done", gate.wait())).await?;
    let action = client.action("echo new");
    action.upload().await?;
    daemon.terminate()?;
    draining(&daemon).await?;
    let is_refused = async || match client.execution().execute(action.request()).await {
        Err(status) => Ok(status.code() == Code::Unavailable),
        Ok(_) => Ok::<_, anyhow::Error>(false),
    };
    anyhow::ensure!(is_refused().await?, "a new action was taken on");
    let check = tonic_health::pb::HealthCheckRequest::default();
    let health = client.health().check(check).await?.into_inner();
    assert_eq!(health.status(), tonic_health::pb::health_check_response::ServingStatus::NotServing);
    gate.open(1).await?;
    assert_eq!(Run::collect(client, stream).await?.exit_code()?, 0);
    assert_eq!(daemon.wait()?.code(), Some(0));
    Ok(())
}

async fn blobs_can_be_fetched_while_draining(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let digest = client.put("content").await?;
    let stream = start(&daemon, "sleep 1000").await?;
    daemon.terminate()?;
    draining(&daemon).await?;
    assert_eq!(client.get(&digest).await?, b"content");
    drop(stream);
    daemon.kill()?;
    Ok(())
}

async fn time_runs_out_for_actions_that_go_on(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().host_rootfs().flag("--drain-timeout-ms=300").start().await?;
    let stream = start(&daemon, "trap '' TERM; while :; do sleep 100; done").await?;
    // The daemon, the helper, PID 1, the shell, and what the shell runs.
    let processes = at_least(5, &daemon).await?;
    daemon.terminate()?;
    // Not CANCELLED: the client tries again, with the next server.
    assert_eq!(Run::collect(daemon.client(), stream).await?.code(), Code::Unavailable);
    assert_eq!(daemon.wait()?.code(), Some(1));
    all_end(&processes).await
}

async fn a_second_signal_kills_what_runs(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().host_rootfs().flag("--drain-timeout-ms=600000").start().await?;
    let stream = start(&daemon, "sleep 1000").await?;
    let processes = at_least(4, &daemon).await?;
    daemon.terminate()?;
    draining(&daemon).await?;
    daemon.terminate()?;
    assert_eq!(Run::collect(daemon.client(), stream).await?.code(), Code::Unavailable);
    assert_eq!(daemon.wait()?.code(), Some(1));
    all_end(&processes).await
}

async fn open_connections_do_not_hold_it_up(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().start().await?;
    let client = daemon.client();
    client.put("content").await?;
    let idle = std::net::TcpStream::connect(daemon.address())?;
    // An upload that does not go on.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut stub = client.byte_stream();
    let upload = tokio::spawn(async move { stub.write(stream).await.map(drop) });
    let digest = client.digest("other");
    sender
        .send(google::bytestream::WriteRequest {
            resource_name: client.upload_name(&digest),
            data: b"oth".to_vec().into(),
            ..Default::default()
        })
        .await?;
    // The server shows nowhere that the upload has begun. Where it has not, the case shows less, and
    // passes all the same.
    tokio::time::sleep(Duration::from_millis(100)).await;
    daemon.terminate()?;
    assert_eq!(daemon.wait()?.code(), Some(0));
    drop((idle, sender));
    assert!(upload.await?.is_err());
    Ok(())
}

async fn killed_by_force_it_leaves_no_process(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().host_rootfs().flag("--jobs=2").start().await?;
    let _one = start(&daemon, "trap '' TERM HUP INT; setsid sleep 1000 & sleep 1001").await?;
    let _two = start(&daemon, "while :; do :; done").await?;
    let processes = at_least(8, &daemon).await?;
    daemon.kill()?;
    all_end(&processes).await
}

async fn killed_by_force_it_starts_again(kit: Kit) -> Outcome {
    let mut daemon = kit.daemon().host_rootfs().start().await?;
    let action = daemon.client().action("echo x > out").output("out");
    action.run().await?.succeeded().await?;
    let digest = daemon.client().digest("x\n");
    let script = "dd if=/dev/zero of=large bs=1M count=20; sleep 1000";
    let (name, _running) = start_named(&daemon, script).await?;
    daemon.kill()?;
    let daemon = daemon.successor().start().await?;
    let client = daemon.client();
    // Bazel executes the action again when it gets this.
    let message = proto::WaitExecutionRequest { name };
    let waited = client.execution().wait_execution(message).await.map(drop);
    assert_eq!(waited.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.get(&digest).await?, b"x\n");
    let again = client.action("echo x > out").output("out").run().await?;
    assert!(again.from_cache());
    assert_eq!(again.file("out").await?, "x\n");
    client.action("echo y").run().await?.succeeded().await?;
    Ok(())
}
