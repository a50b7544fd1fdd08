//! What the daemon tells systemd.

use std::collections::HashSet;
use std::os::unix::net::UnixDatagram;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use testkit::wait::PATIENCE;
use testkit::{Kit, Outcome};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    readiness_life_and_end_are_told,
    a_manager_that_is_gone_is_no_reason_to_fail,
}

async fn readiness_life_and_end_are_told(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let hear = || -> anyhow::Result<String> {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).context("the daemon is silent")?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let (mut command, _root) = kit.daemon().command()?;
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    let mut daemon = command.spawn()?;
    assert_eq!(hear()?, "READY=1");
    for _ in 0..3 {
        assert_eq!(hear()?, "WATCHDOG=1");
    }
    let id = Pid::from_raw(i32::try_from(daemon.id())?).context("a process has an id")?;
    kill_process(id, Signal::TERM)?;
    let mut said = HashSet::new();
    while !said.contains("STOPPING=1") {
        said.insert(hear()?);
    }
    assert!(daemon.wait()?.success());
    Ok(())
}

async fn a_manager_that_is_gone_is_no_reason_to_fail(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let (mut command, _root) = kit.daemon().command()?;
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "1000");
    let mut daemon = command.spawn()?;
    manager.recv(&mut [0; 256]).context("the daemon is silent")?;
    drop(manager);
    std::fs::remove_file(&path)?;
    let id = Pid::from_raw(i32::try_from(daemon.id())?).context("a process has an id")?;
    kill_process(id, Signal::TERM)?;
    assert!(daemon.wait()?.success());
    Ok(())
}
