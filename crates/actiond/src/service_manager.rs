//! The messages that systemd expects from a service (sd_notify(3), sd_watchdog_enabled(3)): that it is
//! ready, that it is about to stop, and, again and again, that it is alive.
//!
//! Without a service manager nothing is sent. A message that can't be sent is logged and otherwise ignored:
//! the manager has timeouts for services that are silent.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The connection to the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// As the environment has it.
    pub(crate) fn from_environment() -> Self {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(name) = variable("NOTIFY_SOCKET") else { return Self::default() };
        let watched = variable("WATCHDOG_PID")
            .is_none_or(|pid| pid.to_str() == Some(&std::process::id().to_string()));
        let timeout = variable("WATCHDOG_USEC").and_then(|value| value.to_str()?.parse().ok());
        Self {
            socket: connect(&name)
                .inspect_err(|error| tracing::warn!(%error, "the service manager can't be told"))
                .ok(),
            watchdog: timeout.filter(|_| watched).map(Duration::from_micros),
        }
    }

    /// Clients can connect now.
    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    /// No new actions are taken.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    /// Says again and again that the calling runtime makes progress; never ends.
    pub(crate) async fn keep_alive(&self) {
        let Some(timeout) = self.watchdog else { return std::future::pending().await };
        // Twice as often as is asked for, as sd_watchdog_enabled(3) recommends.
        let mut interval = tokio::time::interval((timeout / 2).max(Duration::from_millis(1)));
        loop {
            interval.tick().await;
            self.say("WATCHDOG=1");
        }
    }

    fn say(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(state.as_bytes()) {
            tracing::warn!(%error, state, "the service manager was not told");
        }
    }
}

/// A name that begins with `@` is in the abstract namespace, others are paths.
fn connect(name: &OsString) -> std::io::Result<UnixDatagram> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that does not listen must not stop the daemon.
    socket.set_nonblocking(true)?;
    Ok(socket)
}
