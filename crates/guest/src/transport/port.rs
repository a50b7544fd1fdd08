//! The virtio-serial port that carries the mux.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::unix::pipe::{Receiver, Sender};
use vm::mux::PORT_NAME;

/// How often the port is looked for, and asked whether the host is at its other end, and the wait in
/// between: both are there when the worker starts, unless the emulator is very busy.
const ATTEMPTS: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

/// Bytes on their way, each direction.
const BUFFER_BYTES: usize = 64 << 10;

/// Opens the port, as soon as it is there and the host holds its other end.
///
/// Reads and writes do not block: a blocking write to such a port keeps a CPU busy until the host has
/// taken the bytes. tokio's pipes read and write any file that can be polled, but as streams they take
/// a read of less than was asked for as a sign that there is no more. A port gives one buffer of 4 KiB
/// at a time. Therefore [`read`] and [`write`] stand in between, which go on until the kernel says that
/// it would block.
pub(super) async fn open() -> io::Result<DuplexStream> {
    for _ in 0..ATTEMPTS {
        if let Some(path) = find(Path::new("/sys/class/virtio-ports")) {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
                .open(path)?;
            wait_for_host(&file).await?;
            return carry(file);
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no virtio port {PORT_NAME}")))
}

/// The file as a stream, until either has ended.
fn carry(file: File) -> io::Result<DuplexStream> {
    let receiver = Receiver::from_file_unchecked(file.try_clone()?)?;
    let sender = Sender::from_file_unchecked(file)?;
    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
    let (outgoing, incoming) = tokio::io::split(far);
    tokio::spawn(async move {
        // An error is an end like any other: of the mux, of the worker, of the machine.
        let _ = tokio::select! {
            ended = read(receiver, incoming) => ended,
            ended = write(outgoing, sender) => ended,
        };
    });
    Ok(near)
}

async fn read(port: Receiver, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        port.readable().await?;
        match port.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read]).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write(mut from: impl AsyncRead + Unpin, port: Sender) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            port.writable().await?;
            match port.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
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
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bytes_are_carried_both_ways_until_the_end() {
        let (host, guest) = UnixStream::pair().unwrap();
        guest.set_nonblocking(true).unwrap();
        let mut port = carry(File::from(OwnedFd::from(guest))).unwrap();
        let echo = std::thread::spawn(move || {
            // Less than is asked for, like a port's buffers.
            let (mut from, mut to) = (io::BufReader::with_capacity(97, &host), &host);
            io::copy(&mut from, &mut to).unwrap();
        });
        let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at ^ (at >> 9)) as u8).collect();
        let mut received = vec![0; sent.len()];
        let (mut read, mut write) = tokio::io::split(&mut port);
        let (wrote, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut received));
        wrote.unwrap();
        got.unwrap();
        assert!(sent == received);
        drop(port);
        echo.join().unwrap();
    }

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
