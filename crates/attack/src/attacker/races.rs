//! Programs that want to go on when they are thought to be over.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::{Outcome, raw};

fn failed(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Sleeps for longer than any case takes.
pub(crate) fn sleep() -> Outcome {
    std::thread::sleep(Duration::from_secs(600));
    Ok(())
}

/// Runs `work` in a process with a session of its own, which nobody waits for and
/// no gentle signal ends. Returns in the parent.
fn in_background(work: impl FnOnce()) -> Outcome {
    let failed = |errno| format!("fork: {errno}");
    if raw::fork().map_err(failed)? == 0 {
        raw::setsid();
        raw::ignore_all_signals();
        if raw::fork().is_ok_and(|pid| pid == 0) {
            work();
            raw::pause_forever();
        }
        raw::exit_now();
    }
    Ok(())
}

/// Writes a file, then goes on writing to it by descriptor and by mapping, in
/// processes that outlive this one.
pub(crate) fn write_on(path: &str) -> Outcome {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    file.write_all(b"as it was when the action ended").map_err(failed)?;
    for _ in 0..4 {
        in_background(|| {
            loop {
                // Overwrites what the parent left, and appends to it.
                let _may_be_refused = file.write_all_at(b"PWNED", 0);
                let _may_be_refused = file.write_all_at(b"PWNED", 4096);
            }
        })?;
    }
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Makes a path a file, a symlink to `target` and a directory in turn, in a
/// process that outlives this one.
pub(crate) fn swap_on(path: &str, target: &str) -> Outcome {
    fs::write(path, "a file").map_err(failed)?;
    in_background(|| {
        loop {
            let _raced = fs::remove_file(path);
            let _raced = symlink(target, path);
            let _raced = fs::remove_file(path);
            let _raced = fs::create_dir(path);
            let _raced = fs::remove_dir(path);
            let _raced = fs::write(path, "a file");
        }
    })?;
    std::thread::sleep(Duration::from_millis(20));
    Ok(())
}

/// Leaves a writable descriptor of an output in a socket that is in itself, so
/// that only the kernel's garbage collector finds it.
pub(crate) fn descriptor_in_flight(path: &str) -> Outcome {
    fs::write(path, "as it was when the action ended").map_err(failed)?;
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    put_in_flight(file.into()).map_err(failed)
}

/// See [`descriptor_in_flight`].
pub(crate) fn put_in_flight(descriptor: OwnedFd) -> std::io::Result<()> {
    let (here, there) = UnixDatagram::pair()?;
    for sent in [descriptor.as_raw_fd(), here.as_raw_fd(), there.as_raw_fd()] {
        raw::send_descriptor(here.as_raw_fd(), sent).map_err(std::io::Error::from_raw_os_error)?;
    }
    Ok(())
}

/// Starts many processes that nothing gentle ends, and ends.
pub(crate) fn daemons() -> Outcome {
    for _ in 0..50 {
        in_background(|| {})?;
    }
    Ok(())
}

/// Stops itself and a child: neither runs any handler.
pub(crate) fn stopped() -> Outcome {
    in_background(|| {
        let _stops = raw::kill(0, libc::SIGSTOP);
    })?;
    raw::kill(0, libc::SIGSTOP).map_err(|errno| format!("kill: {errno}"))?;
    raw::pause_forever()
}

/// Ignores every signal that can be ignored.
pub(crate) fn deaf() -> Outcome {
    raw::ignore_all_signals();
    raw::pause_forever()
}

/// Waits in the kernel for a child that never calls.
pub(crate) fn in_vfork() -> Outcome {
    raw::vfork_forever()
}

/// Leaves files of odd kinds and System V IPC for the next action.
pub(crate) fn leave_things() -> Outcome {
    const KEY: i64 = 4711;
    const CREATE: i64 = 0o1666;
    for directory in ["/tmp", "/var/tmp", "/dev/shm"] {
        fs::write(format!("{directory}/left"), "left").map_err(failed)?;
        let folder = format!("{directory}/closed");
        fs::create_dir(&folder)
            .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o000)))
            .or_else(|error| if directory == "/var/tmp" { Ok(()) } else { Err(error) })
            .map_err(failed)?;
    }
    File::create("/execroot/left").map_err(failed)?;
    for (call, arguments) in [
        (libc::SYS_shmget, [KEY, 4096, CREATE, 0, 0, 0]),
        (libc::SYS_semget, [KEY, 1, CREATE, 0, 0, 0]),
        (libc::SYS_msgget, [KEY, CREATE, 0, 0, 0, 0]),
    ] {
        raw::call(call, arguments).map_err(|errno| format!("IPC: errno {errno}"))?;
    }
    // A POSIX message queue; a kernel may lack them.
    let name = b"left\0".to_vec().leak();
    let _may_be_absent = raw::call(
        libc::SYS_mq_open,
        [name.as_ptr() as i64, (libc::O_CREAT | libc::O_RDWR).into(), 0o666, 0, 0, 0],
    );
    println!("left");
    Ok(())
}
