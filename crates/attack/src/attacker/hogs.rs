//! Programs that take all there is of something.
//!
//! They go on until they are refused or killed. Those that are refused say how
//! far they got and end; those that must be killed never end by themselves.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::{Outcome, errno, raw};

/// Computes for ever on four threads.
pub(crate) fn spin() -> Outcome {
    for _ in 0..3 {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    loop {
        std::hint::spin_loop();
    }
}

/// Every process forks until it is refused, then waits for more.
pub(crate) fn fork_bomb() -> Outcome {
    loop {
        if raw::fork().is_err() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

/// Starts threads until it is refused; prints how many there were.
pub(crate) fn threads() -> Outcome {
    let mut count = 1;
    let start = || {
        let builder = std::thread::Builder::new().stack_size(16 << 10);
        builder.spawn(|| {
            loop {
                std::thread::park();
            }
        })
    };
    while count < 100_000 && start().is_ok() {
        count += 1;
    }
    println!("{count} threads");
    Ok(())
}

/// Takes and touches memory.
pub(crate) fn allocate(bytes: u64) -> Outcome {
    let mut memory: Vec<u8> = Vec::new();
    let size = usize::try_from(bytes).map_err(|error| error.to_string())?;
    if memory.try_reserve_exact(size).is_err() {
        println!("refused");
        return Ok(());
    }
    memory.resize(size, 1);
    println!(
        "{}",
        if std::hint::black_box(&memory).iter().all(|byte| *byte == 1) {
            "allocated"
        } else {
            "broken"
        }
    );
    Ok(())
}

/// Whether the files that fill a disk can be found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trace {
    /// They have names.
    Named,
    /// They are kept by descriptors alone.
    Unlinked,
}

/// Writes until there is no space; prints how many MiB it got. On a disk it then
/// keeps what it has, and takes what becomes free, for ever.
pub(crate) fn fill(directory: &str, trace: Trace) -> Outcome {
    const PIECE: u64 = 16 << 20;
    let mut kept: Vec<File> = Vec::new();
    let mut taken = 0;
    let is_scratch = !directory.starts_with("/execroot");
    loop {
        let path = Path::new(directory).join(format!("fill-{}", kept.len()));
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path);
        match file.and_then(|file| take(file, PIECE)) {
            Ok((file, bytes)) => {
                taken += bytes;
                kept.push(file);
                if trace == Trace::Unlinked {
                    fs::remove_file(&path).map_err(|error| error.to_string())?;
                }
            }
            Err(error) if is_scratch => {
                println!("{} MiB {}", taken >> 20, errno::of(&error));
                return Ok(());
            }
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
}

/// Gives a file up to `bytes` of real space, and says how many it got.
fn take(mut file: File, bytes: u64) -> std::io::Result<(File, u64)> {
    let whole = raw::call(libc::SYS_fallocate, [file.as_raw_fd().into(), 0, 0, bytes as i64, 0, 0]);
    if whole.is_ok() {
        return Ok((file, bytes));
    }
    let piece = vec![1; 64 << 10];
    let mut taken = 0;
    while taken < bytes {
        match file.write(&piece) {
            Ok(0) => break,
            Ok(length) => taken += length as u64,
            Err(_) if taken > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok((file, taken))
}

/// Makes empty files until there is no room for more; ends there in a scratch
/// directory, and goes on for ever on a disk.
pub(crate) fn inodes(directory: &str) -> Outcome {
    let is_scratch = !directory.starts_with("/execroot");
    for number in 0_u64.. {
        let folder = Path::new(directory).join(format!("d{}", number / 1000));
        if number.is_multiple_of(1000) {
            let _there_is_no_room = fs::create_dir(&folder);
        }
        match File::create(folder.join(number.to_string())) {
            Ok(_) => {}
            Err(error) if is_scratch => {
                println!("{number} files {}", errno::of(&error));
                return Ok(());
            }
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
    Ok(())
}

/// Makes `count` names in one directory with as few inodes as the file system
/// allows.
pub(crate) fn links(directory: &str, count: u64) -> Outcome {
    let failed = |error: std::io::Error| error.to_string();
    fs::create_dir_all(directory).map_err(failed)?;
    std::env::set_current_dir(directory).map_err(failed)?;
    let mut first = String::new();
    for number in 0..count {
        let name = number.to_string();
        match if first.is_empty() {
            Err(ErrorKind::TooManyLinks.into())
        } else {
            fs::hard_link(&first, &name)
        } {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::TooManyLinks => {
                File::create(&name).map_err(failed)?;
                first = name;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Makes directories in one another, deeper than any path can name.
pub(crate) fn deep(directory: &str, levels: u64) -> Outcome {
    let failed = |error: std::io::Error| error.to_string();
    fs::create_dir_all(directory).map_err(failed)?;
    std::env::set_current_dir(directory).map_err(failed)?;
    for _ in 0..levels {
        fs::create_dir("d").and_then(|()| std::env::set_current_dir("d")).map_err(failed)?;
    }
    File::create("bottom").map_err(failed)?;
    Ok(())
}

/// Writes to a standard stream until nobody takes it.
pub(crate) fn flood(stream: &str) -> Outcome {
    let chunk = vec![b'x'; 64 << 10];
    let mut stream: Box<dyn std::io::Write> = match stream {
        "stdout" => Box::new(std::io::stdout()),
        _ => Box::new(std::io::stderr()),
    };
    while stream.write_all(&chunk).is_ok() {}
    Ok(())
}

/// A file with a size and no content.
pub(crate) fn sparse(path: &str, bytes: u64) -> Outcome {
    raw::ignore(libc::SIGXFSZ);
    let file = File::create(path).map_err(|error| error.to_string())?;
    let done = file.set_len(bytes);
    println!("{}", done.map_or_else(|error| errno::of(&error), |()| "made".to_owned()));
    Ok(())
}

/// Opens files until it is refused; prints why.
pub(crate) fn many_open() -> Outcome {
    let mut kept: Vec<OwnedFd> = Vec::new();
    while kept.len() < 10_000_000 {
        match File::open("/dev/null") {
            Ok(file) => kept.push(file.into()),
            Err(error) => {
                println!("{}", errno::of(&error));
                return Ok(());
            }
        }
    }
    println!("{} open files", kept.len());
    Ok(())
}

/// Opens terminals until it is refused; prints whether there are more than an action may have.
pub(crate) fn many_terminals() -> Outcome {
    const MOST: usize = 64;
    let mut kept = Vec::new();
    while kept.len() <= MOST {
        match File::options().read(true).write(true).open("/dev/ptmx") {
            Ok(terminal) => kept.push(terminal),
            Err(error) => {
                println!("{} after {}", errno::of(&error), kept.len());
                return Ok(());
            }
        }
    }
    println!("more than {MOST} terminals");
    Ok(())
}

/// Fills as many pipes as it can, as large as it can, and keeps them.
pub(crate) fn pipes() -> Outcome {
    let mut kept = Vec::new();
    let chunk = vec![0; 1 << 20];
    while let Ok((reader, mut writer)) = std::io::pipe() {
        let descriptor = writer.as_raw_fd();
        let set = |command, value| {
            raw::call(libc::SYS_fcntl, [descriptor.into(), command, value, 0, 0, 0])
        };
        let _stays_small = set(libc::F_SETPIPE_SZ.into(), 1 << 20);
        let _stays_blocking = set(libc::F_SETFL.into(), libc::O_NONBLOCK.into());
        let _is_full = writer.write(&chunk);
        kept.push((reader, writer));
    }
    hold()
}

/// Shows that all is taken by a second process, which the driver looks for, and keeps it.
fn hold() -> Outcome {
    match raw::fork() {
        Ok(_) => raw::pause_forever(),
        Err(errno) => Err(format!("errno {errno}")),
    }
}

/// Prints the size of a new pipe: the kernel makes those small of a user who has many pages in pipes.
pub(crate) fn pipe_size() -> Outcome {
    let (_reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
    let arguments = [writer.as_raw_fd().into(), libc::F_GETPIPE_SZ.into(), 0, 0, 0, 0];
    let size = raw::call(libc::SYS_fcntl, arguments).map_err(|errno| format!("errno {errno}"))?;
    println!("{size}");
    Ok(())
}

/// Sends descriptors that nobody receives, until that is refused; keeps everything.
pub(crate) fn in_flight() -> Outcome {
    let mut kept = Vec::new();
    loop {
        let (one, other) = UnixStream::pair().map_err(|error| error.to_string())?;
        one.set_nonblocking(true).map_err(|error| error.to_string())?;
        let refused = loop {
            if let Err(errno) = raw::send_descriptor(one.as_raw_fd(), other.as_raw_fd()) {
                break errno;
            }
        };
        kept.extend([one, other]);
        match refused {
            libc::EAGAIN => {}
            libc::ETOOMANYREFS => break,
            errno => return Err(format!("errno {errno}")),
        }
    }
    hold()
}

/// Sends one descriptor, and prints whether that is allowed.
pub(crate) fn send_one() -> Outcome {
    let (one, other) = UnixStream::pair().map_err(|error| error.to_string())?;
    say(raw::send_descriptor(one.as_raw_fd(), other.as_raw_fd()).map(|()| 0))
}

/// Has epoll watch as many files as it may, and keeps that. The kernel allows a user as many as fit into 4 % of its memory,
/// so there is one file with many descriptors, each of which many sets watch.
pub(crate) fn epoll_watches() -> Outcome {
    const SETS: usize = 512;
    raw::raise_open_files();
    let failed = |errno: i32| format!("errno {errno}");
    let mut sets = Vec::new();
    for _ in 0..SETS {
        sets.push(raw::call(libc::SYS_epoll_create1, [0; 6]).map_err(failed)?);
    }
    let mut watched = raw::call(libc::SYS_eventfd2, [0; 6]).map_err(failed)?;
    loop {
        for set in &sets {
            match raw::epoll_add(*set, watched) {
                Ok(()) => {}
                Err(libc::ENOSPC) => return hold(),
                Err(errno) => return Err(failed(errno)),
            }
        }
        watched = raw::call(libc::SYS_dup, [watched, 0, 0, 0, 0, 0]).map_err(failed)?;
    }
}

/// Has epoll watch one file, and prints whether that is allowed.
pub(crate) fn watch_one() -> Outcome {
    let failed = |errno: i32| format!("errno {errno}");
    let set = raw::call(libc::SYS_epoll_create1, [0; 6]).map_err(failed)?;
    let watched = raw::call(libc::SYS_eventfd2, [0; 6]).map_err(failed)?;
    say(raw::epoll_add(set, watched).map(|()| 0))
}

/// Makes one inotify instance, and prints whether that is allowed.
pub(crate) fn one_watcher() -> Outcome {
    say(raw::call(libc::SYS_inotify_init1, [0; 6]))
}

/// Makes timers until that is refused, and keeps them: each has a queued signal for itself.
pub(crate) fn timers() -> Outcome {
    while raw::timer().is_ok() {}
    hold()
}

/// Makes one timer, and prints whether that is allowed.
pub(crate) fn one_timer() -> Outcome {
    say(raw::timer())
}

fn say(result: Result<i64, i32>) -> Outcome {
    match result {
        Ok(_) => println!("allowed"),
        Err(errno) => println!("errno {errno}"),
    }
    Ok(())
}

/// Takes and keeps as many watchers of files as there may be.
pub(crate) fn watches() -> Outcome {
    let mut kept = 0;
    while raw::call(libc::SYS_inotify_init1, [0; 6]).is_ok() {
        kept += 1;
    }
    println!("{kept} watchers");
    hold()
}

/// Takes and keeps as many message queues as there may be.
pub(crate) fn queues() -> Outcome {
    for number in 0.. {
        if queue(number).is_err() {
            println!("{number} queues");
            break;
        }
    }
    hold()
}

/// Makes one message queue, and prints whether that is allowed.
pub(crate) fn one_queue() -> Outcome {
    say(queue(0))
}

/// Makes a message queue, which stays as long as the namespace.
fn queue(number: u32) -> Result<i64, i32> {
    let flags = libc::O_CREAT | libc::O_RDWR;
    let name = format!("queue-{number}\0").into_bytes().leak();
    raw::call(libc::SYS_mq_open, [name.as_ptr() as i64, flags.into(), 0o600, 0, 0, 0])
}
