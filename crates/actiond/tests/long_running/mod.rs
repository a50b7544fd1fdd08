//! Actions that go on until they are stopped, and whether they do.

use testkit::{Action, Client, Daemon};

/// An action that goes on until it is stopped. `mark` is found in its command
/// line.
pub(crate) fn endless(client: &Client, mark: u32) -> Action {
    client.action(&format!("echo begun; sleep {mark}"))
}

/// Whether a process with `mark` in its command line lives on this machine.
pub(crate) fn is_running(daemon: &Daemon, mark: u32) -> anyhow::Result<bool> {
    daemon.ensure_seen()?;
    let sleep = format!("sleep\0{mark}\0");
    for entry in std::fs::read_dir("/proc")? {
        let command = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        if command == sleep.as_bytes() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A number of seconds that no other test sleeps for.
pub(crate) fn mark() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    1_000_000 + std::process::id() % 100_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed)
}
