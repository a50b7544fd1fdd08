//! The virtio-serial port that carries the mux.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Join;
use tokio::net::unix::pipe::{Receiver, Sender};
use vm::mux::PORT_NAME;

/// How often the port is looked for, and asked whether the host is at its other end, and the wait in
/// between: both are there when the worker starts, unless the emulator is very busy.
const ATTEMPTS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// The port as a stream. Reads and writes do not block: a blocking write to such a port keeps a CPU
/// busy until the host has taken the bytes. tokio's pipes are used because they read and write any
/// file that can be polled.
pub(super) type Port = Join<Receiver, Sender>;

/// Opens the port, as soon as it is there and the host holds its other end.
pub(super) async fn open() -> io::Result<Port> {
    for _ in 0..ATTEMPTS {
        if let Some(path) = find(Path::new("/sys/class/virtio-ports")) {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
                .open(path)?;
            wait_for_host(&file).await?;
            let reader = Receiver::from_file_unchecked(file.try_clone()?)?;
            return Ok(tokio::io::join(reader, Sender::from_file_unchecked(file)?));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio port {PORT_NAME}")))
}

fn find(class: &Path) -> Option<PathBuf> {
    let ports = fs::read_dir(class).ok()?.filter_map(Result::ok);
    let mut ours = ports.filter(|port| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    });
    ours.next().map(|port| Path::new("/dev").join(port.file_name()))
}

/// Until then the port reads as if it had ended.
async fn wait_for_host(file: &File) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    for _ in 0..ATTEMPTS {
        let mut polled = [PollFd::new(file, PollFlags::OUT)];
        poll(&mut polled, Some(&now))?;
        if !polled[0].revents().contains(PollFlags::HUP) {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(io::Error::new(io::ErrorKind::NotConnected, "the host is not at the port's other end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let class = tempfile::tempdir().unwrap();
        assert_eq!(find(class.path()), None);
        for (port, name) in [("vport0p1", "org.other\n"), ("vport0p2", "dev.actiond.mux\n")] {
            fs::create_dir(class.path().join(port)).unwrap();
            fs::write(class.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(find(class.path()), Some("/dev/vport0p2".into()));
    }
}
