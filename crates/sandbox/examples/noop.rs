//! The cost of a sandbox: a no-op action on an empty tmpfs, split by where the time
//! goes. `cargo build --release -p sandbox --bins --examples`, then run it as root;
//! the optional argument is the number of actions at the same time.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use inputroot::Attachment;
use model::{Limits, RelPath};
use runtimes::Rootfs;
use rustix::fs::{Mode, OFlags};
use sandbox::{Config, HelperCommand, Pool, Sandbox, Spec, StopConditions, Streams};
use sys::mount::{FsContext, MountAttributes};

const ROUNDS: usize = 1000;

/// Rounds before those that count: caches, and the helper's first action.
const WARM_UP: usize = 50;

fn main() {
    let at_once: usize =
        std::env::args().nth(1).map_or(1, |count| count.parse().expect("a number"));
    let own = std::env::current_exe().expect("own path");
    let helper = HelperCommand::new(&own.with_file_name("../sandbox-helper"), []);
    let pool = Pool::new(Config::new(helper.expect("the helper")));
    let view = Arc::new(Rootfs::bare());
    let began = Instant::now();
    let rounds: Vec<Round> = std::thread::scope(|scope| {
        let slots: Vec<_> = (0..at_once).map(|_| scope.spawn(|| slot(&pool, &view))).collect();
        slots.into_iter().flat_map(|slot| slot.join().expect("a slot")).collect()
    });
    let actions = (at_once * (ROUNDS + WARM_UP)) as f64;
    println!(
        "{at_once} at once, {:.0} actions per second",
        actions / began.elapsed().as_secs_f64()
    );
    // The helpers' share counts only once they ended.
    drop(pool);
    let cpu_us = cpu_seconds() / actions * 1e6;
    println!("CPU time of an action, input root included: {cpu_us:.0} µs");
    show("acquire", rounds.iter().map(|round| round.acquire));
    show("run", rounds.iter().map(|round| round.run));
    show("  until execve", rounds.iter().map(|round| round.until_execve));
    show("  execve to reaped", rounds.iter().map(|round| round.alive));
    show("  reaped to answer", rounds.iter().map(|round| round.until_answer));
    show("release", rounds.iter().map(|round| round.release));
    show("all", rounds.iter().map(|round| round.acquire + round.run + round.release));
}

/// Of this process and all that it started and waited for, from proc_pid_stat(5).
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("own status");
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks =
        fields.split(' ').skip(11).take(4).map(|field| field.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / TICKS_PER_SECOND
}

struct Round {
    acquire: Duration,
    run: Duration,
    until_execve: Duration,
    alive: Duration,
    until_answer: Duration,
    release: Duration,
}

fn slot(pool: &Pool, view: &Arc<Rootfs>) -> Vec<Round> {
    (0..ROUNDS + WARM_UP).map(|_| round(pool, view)).skip(WARM_UP).collect()
}

fn round(pool: &Pool, view: &Arc<Rootfs>) -> Round {
    let input_root = Attachment::Mount(input_root().into());
    // With one at a time, the helper has prepared the next action when it comes.
    if std::env::var_os("PAUSE").is_some() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let start = Instant::now();
    let mut sandbox = pool.acquire(view).expect("a sandbox");
    let acquire = start.elapsed();
    let (sent, start) = (SystemTime::now(), Instant::now());
    let exit = run(&mut sandbox, &input_root);
    let (run, answered) = (start.elapsed(), SystemTime::now());
    let start = Instant::now();
    pool.release(sandbox);
    let since = |later: SystemTime, earlier| later.duration_since(earlier).unwrap_or_default();
    Round {
        acquire,
        run,
        until_execve: since(exit.started, sent),
        alive: exit.usage.wall,
        until_answer: since(answered, exit.ended),
        release: start.elapsed(),
    }
}

fn run(sandbox: &mut Sandbox, input_root: &Attachment) -> sandbox::Exit {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let spec = Spec {
        arguments: &[CString::from(c"./noop")],
        environment: &[],
        working_directory: &RelPath::root(),
        input_root,
        write_changes: &[],
        limits: &Limits::default(),
        conversation: None,
    };
    let streams = Streams { stdout: &mut stdout, stderr: &mut stderr };
    sandbox.run(&spec, streams, &StopConditions::default()).expect("an exit")
}

/// A tmpfs with the smallest program that does nothing.
fn input_root() -> OwnedFd {
    let mount = FsContext::open("tmpfs")
        .and_then(|tmpfs| {
            tmpfs.mount(MountAttributes::MOUNT_ATTR_NOSUID | MountAttributes::MOUNT_ATTR_NODEV)
        })
        .expect("a tmpfs");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(mount.as_fd(), "noop", flags, Mode::from_raw_mode(0o755))
        .expect("a file");
    rustix::io::write(file, &noop_program()).expect("a program");
    mount
}

/// elf(5): a header, one segment, and exit_group(0).
fn noop_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    #[cfg(target_arch = "x86_64")]
    // xor edi, edi; mov eax, 231; syscall
    let (machine, code) = (62_u16, [0x31, 0xff, 0xb8, 0xe7, 0, 0, 0, 0x0f, 0x05]);
    #[cfg(target_arch = "aarch64")]
    // mov x0, 0; mov x8, 94; svc 0
    let (machine, code) = (183_u16, [0, 0, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4]);
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2, machine] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes());
    for long in [BASE + HEADERS, 64, 0] {
        elf.extend(long.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    // PT_LOAD, readable and executable.
    for word in [1_u32, 5] {
        elf.extend(word.to_le_bytes());
    }
    let length = HEADERS + code.len() as u64;
    for long in [0, BASE, BASE, length, length, 4096] {
        elf.extend(long.to_le_bytes());
    }
    elf.extend(code);
    elf
}

fn show(name: &str, values: impl Iterator<Item = Duration>) {
    let mut values: Vec<Duration> = values.collect();
    values.sort();
    let at = |part: usize| {
        values.get(values.len() * part / 100).copied().unwrap_or_default().as_micros()
    };
    println!("{name:20} p50 {:6} µs   p95 {:6} µs   p99 {:6} µs", at(50), at(95), at(99));
}
