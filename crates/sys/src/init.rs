//! PID 1 of a sandbox and the process beside it that becomes the action.
//!
//! Both are born of clone3(2) with `CLONE_VM | CLONE_FILES`, on stacks of their
//! own: copying page tables or descriptor tables would be most of the price of an
//! action. They share our memory *and* our thread-local storage, so they must
//! neither allocate nor lock nor call libc. They walk [`Program`]s that were put
//! together before, and meet at two gates (futexes):
//!
//! ```text
//!  caller              PID 1                        action
//!  ------              -----                        ------
//!  Init::start ──────► prepare.init
//!                      clone ─────────────────────► prepare.action
//!                      wait for `admitted`          wait for `attached`
//!  Init::admit ──────► run.attach
//!                      open `attached` ───────────► run.action
//!                      run.confine                  execve
//!                      reap until the action ends     ⋮
//!  pidfd readable ◄─── exit (kills what is left) ◄─ exit
//!  Init::finish
//! ```
//!
//! Everything before the gates can happen while no action is known yet.
//!
//! Its mount and IPC namespaces stay for as long as the caller keeps what
//! [`Init::finish`] hands out: taking mounts down takes longer than everything else
//! at the end, and can wait.
//!
//! A failure comes back through memory as the label of the failed call and its errno, for execve(2) with the
//! file at fault. PID 1 dies with its parent: nothing survives a killed caller.
//!
//! This code relies on the binary being linked without lazy binding (Rust's
//! default, `-z relro -z now`, or static): the first call of a library function
//! must not enter the dynamic linker here.

mod executable;
mod gate;
mod obstacle;
mod outcome;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::call::Program;
use crate::clone::{CloneArgs, clone_onto};
use crate::stack::Stack;
use crate::strings::Strings;
use crate::syscall::syscall;
use gate::Gate;
use obstacle::Record;
use outcome::Outcome;

pub use obstacle::{Hindrance, Obstacle, Part};
pub use outcome::{Failure, Report, Usage};

/// linux/sched.h; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// linux/pidfd.h: PIDFD_GET_MNT_NAMESPACE and PIDFD_GET_IPC_NAMESPACE, which give
/// descriptors that keep the namespaces (since Linux 6.11).
const NAMESPACES: [usize; 2] = [0xff03, 0xff02];

const NO_DESCRIPTOR: i32 = -1;

/// The steps of both processes before an action is known.
#[derive(Debug, Default)]
pub struct Preparation {
    /// PID 1, in its new namespaces, with the privileges of the caller.
    pub init: Program,
    /// The action's process, after `init` succeeded.
    pub action: Program,
}

/// The steps once it is known.
#[derive(Debug, Default)]
pub struct Run {
    /// PID 1, still privileged.
    pub attach: Program,
    /// PID 1, once the action can start; a failure here kills the action.
    pub confine: Program,
    /// The action's process, as `Preparation::action` left it.
    pub action: Program,
    /// The new name.
    pub execution: Execution,
}

/// An execve(2) that tries several paths.
#[derive(Debug, Default)]
pub struct Execution {
    /// Names the failure if no candidate can be executed.
    pub label: u16,
    /// Paths to try in order.
    pub candidates: Strings,
    /// The argument vector.
    pub arguments: Strings,
    /// The environment, `NAME=value` each.
    pub environment: Strings,
}

/// A sandbox's processes, waiting or running. Killed and waited for when dropped.
#[derive(Debug)]
pub struct Init {
    shared: Box<Shared>,
    pidfd: OwnedFd,
    alive: bool,
    /// Freed after `drop` waited.
    _stacks: Stacks,
}

#[derive(Debug)]
struct Stacks {
    init: Stack,
    action: Stack,
}

/// Seen by all three processes. Everything but the atomics is written before the
/// others are let past the gate behind which they read it.
#[derive(Debug)]
struct Shared {
    preparation: Preparation,
    parent: OwnedFd,
    /// PID 1's own pidfd; written by the kernel before PID 1 runs.
    pidfd: AtomicI32,
    /// The descriptors that PID 1 opened in the table that it shares with the caller.
    namespaces: [AtomicI32; NAMESPACES.len()],
    action_stack: (u64, u64),
    /// Made 0 by the kernel when the action's process lets go of this memory.
    sharing: AtomicU32,
    run: OnceLock<Ready>,
    admitted: Gate,
    attached: Gate,
    outcome: Outcome,
    /// Why the program could not be executed.
    obstacle: Record,
}

/// A [`Run`] with the pointer arrays that execve(2) wants.
#[derive(Debug)]
struct Ready {
    run: Run,
    candidates: Vec<usize>,
    arguments: Vec<usize>,
    environment: Vec<usize>,
}

impl Init {
    /// Clones PID 1 into new mount, PID and IPC namespaces (and into `cgroup`, a
    /// descriptor of a cgroup v2 directory) and lets it walk `preparation`; does
    /// not wait for that.
    ///
    /// # Errors
    /// Of clone3(2), mmap(2) and pidfd_open(2).
    pub fn start(preparation: Preparation, cgroup: Option<BorrowedFd<'_>>) -> Result<Self, Errno> {
        let stacks = Stacks { init: Stack::new()?, action: Stack::new()? };
        let shared = Box::new(Shared {
            preparation,
            pidfd: AtomicI32::new(NO_DESCRIPTOR),
            namespaces: [const { AtomicI32::new(NO_DESCRIPTOR) }; NAMESPACES.len()],
            parent: rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?,
            action_stack: (stacks.action.lowest(), stacks.action.size()),
            sharing: AtomicU32::new(1),
            run: OnceLock::new(),
            admitted: Gate::default(),
            attached: Gate::default(),
            outcome: Outcome::default(),
            obstacle: Record::default(),
        });
        let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_PIDFD;
        let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
        let mut args =
            CloneArgs::new((flags | namespaces) as u64, stacks.init.lowest(), stacks.init.size());
        args.pidfd = shared.pidfd.as_ptr() as u64;
        if let Some(cgroup) = cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        // SAFETY: `init_main` never returns and makes raw system calls only; the
        // stack and `shared` stay until the process was waited for (`Drop`), and
        // leak with `Init` if that is forgotten.
        unsafe { clone_onto(&args, init_main, &raw const *shared)? };
        // SAFETY: the kernel stored a descriptor that is ours alone.
        let pidfd = unsafe { OwnedFd::from_raw_fd(shared.pidfd.load(Ordering::Acquire)) };
        Ok(Self { shared, pidfd, alive: true, _stacks: stacks })
    }

    /// Lets the prepared processes go on with `run`. A second call has no effect.
    pub fn admit(&self, run: Run) {
        // The strings' bytes stay where they are while `run` moves into place.
        let ready = Ready {
            candidates: run.execution.candidates.addresses(),
            arguments: run.execution.arguments.addresses(),
            environment: run.execution.environment.addresses(),
            run,
        };
        if self.shared.run.set(ready).is_ok() {
            self.shared.admitted.open();
        }
    }

    /// Kills everything in the PID namespace.
    pub fn kill(&self) {
        // ESRCH: already dead.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Whether the action's process has left this process's memory: it has executed its program, but
    /// for the last microseconds, or is dead.
    pub fn has_executed(&self) -> bool {
        self.shared.sharing.load(Ordering::Acquire) == 0
    }

    /// When the action executed its program, nanoseconds of `CLOCK_MONOTONIC`; 0 if it has not yet.
    pub fn started_ns(&self) -> u64 {
        self.shared.outcome.started_ns().max(0) as u64
    }

    /// Readable once everything in the PID namespace is dead.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits until everything in the PID namespace is dead. The descriptors beside
    /// the report keep the other namespaces; there are none before Linux 6.11.
    pub fn finish(mut self) -> (Report, Vec<OwnedFd>) {
        self.wait();
        let obstacle = self
            .shared
            .run
            .get()
            .and_then(|ready| self.shared.obstacle.get(&ready.run.execution.candidates));
        let report = Report { obstacle, ..self.shared.outcome.report() };
        (report, self.take_namespaces())
    }

    /// Only for the dead: PID 1 opens them while it lives.
    fn take_namespaces(&mut self) -> Vec<OwnedFd> {
        let taken =
            self.shared.namespaces.each_ref().map(|fd| fd.swap(NO_DESCRIPTOR, Ordering::AcqRel));
        // SAFETY: PID 1 got them from the kernel in the descriptor table that is
        // also ours, and told nobody else; the swap makes us take them once.
        let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        taken.into_iter().filter(|&fd| fd != NO_DESCRIPTOR).map(own).collect()
    }

    fn wait(&mut self) {
        while self.alive {
            let waited =
                rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
            self.alive = matches!(waited, Err(Errno::INTR));
        }
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        if self.alive {
            self.kill();
            self.wait();
        }
        drop(self.take_namespaces());
    }
}

/// PID 1.
unsafe extern "C" fn init_main(shared: *const Shared) -> ! {
    // SAFETY: `start` keeps it until this process was waited for; nobody has a
    // mutable reference.
    let shared = unsafe { &*shared };
    die_with_parent(shared);
    open_namespaces(shared);
    shared.walk(&shared.preparation.init);
    let action = start_action(shared);
    shared.admitted.wait();
    let Some(ready) = shared.run.get() else { exit(1) };
    shared.walk(&ready.run.attach);
    shared.attached.open();
    shared.walk(&ready.run.confine);
    reap(shared, action);
    exit(0)
}

/// The process that becomes the action.
unsafe extern "C" fn action_main(shared: *const Shared) -> ! {
    // SAFETY: as in `init_main`, which outlives this process.
    let shared = unsafe { &*shared };
    shared.walk(&shared.preparation.action);
    shared.attached.wait();
    let Some(ready) = shared.run.get() else { exit(1) };
    shared.walk(&ready.run.action);
    shared.outcome.start();
    let (errno, blamed) = ready.execute();
    shared.obstacle.find(&ready.run.execution.candidates, blamed, errno);
    shared.outcome.fail(ready.run.execution.label, errno);
    exit(1)
}

/// Asks for SIGKILL at the parent's death, and dies at once if that was before.
fn die_with_parent(shared: &Shared) {
    // SAFETY: no pointers.
    let _ = unsafe {
        syscall(
            libc::SYS_prctl as usize,
            [libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize, 0, 0, 0, 0],
        )
    };
    let mut parent =
        libc::pollfd { fd: shared.parent.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let arguments = [&raw mut parent as usize, 1, &raw const now as usize, 0, 0, 0];
    // SAFETY: one pollfd and a timespec, both on this stack.
    if unsafe { syscall(libc::SYS_ppoll as usize, arguments) } != Ok(0) {
        exit(1);
    }
}

/// PID 1 itself asks for them: the caller may lack the right to look into a process
/// that can't be dumped, but nobody lacks that to himself.
fn open_namespaces(shared: &Shared) {
    let own = shared.pidfd.load(Ordering::Acquire) as usize;
    for (request, slot) in NAMESPACES.iter().zip(&shared.namespaces) {
        // SAFETY: these requests take no argument and return a new descriptor.
        let opened = unsafe { syscall(libc::SYS_ioctl as usize, [own, *request, 0, 0, 0, 0]) };
        slot.store(opened.map_or(NO_DESCRIPTOR, |fd| fd as i32), Ordering::Release);
    }
}

fn start_action(shared: &Shared) -> i32 {
    let (lowest, size) = shared.action_stack;
    let flags = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_CHILD_CLEARTID;
    let mut args = CloneArgs::new(flags as u64, lowest, size);
    args.child_tid = shared.sharing.as_ptr() as u64;
    // SAFETY: `action_main` never returns and makes raw system calls only; its
    // stack and `shared` live until PID 1 was waited for, hence longer than it.
    match unsafe { clone_onto(&args, action_main, shared) } {
        Ok(pid) => pid,
        Err(errno) => {
            shared.outcome.fail(0, errno);
            exit(1)
        }
    }
}

/// Reaps whatever ends until that is `action`, and records its end.
fn reap(shared: &Shared, action: i32) {
    loop {
        let mut status = 0_i32;
        let arguments = [usize::MAX, &raw mut status as usize, libc::__WALL as usize, 0, 0, 0];
        // SAFETY: the status is on this stack.
        match unsafe { syscall(libc::SYS_wait4 as usize, arguments) } {
            Ok(pid) if is_stopped(status) => detach(pid, status),
            Ok(pid) if pid == action as usize => {
                return shared.outcome.end(status);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                shared.outcome.fail(0, errno);
                exit(1)
            }
        }
    }
}

/// wait(2): whether it stopped, which is told to its tracer.
fn is_stopped(status: i32) -> bool {
    status & 0xff == 0x7f
}

/// A process makes its parent its tracer by PTRACE_TRACEME; it goes on without one.
fn detach(pid: usize, status: i32) {
    let signal = match status >> 8 & 0xff {
        libc::SIGTRAP => 0,
        signal => signal as usize,
    };
    let arguments = [libc::PTRACE_DETACH as usize, pid, 0, signal, 0, 0];
    // SAFETY: no pointers; the process has stopped and is traced by this one.
    let _ = unsafe { syscall(libc::SYS_ptrace as usize, arguments) };
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: no pointers; ends this process only, which is one of ours.
        let _ = unsafe { syscall(libc::SYS_exit_group as usize, [code, 0, 0, 0, 0, 0]) };
    }
}

impl Shared {
    fn walk(&self, program: &Program) {
        if let Err((label, errno)) = program.run() {
            self.outcome.fail(label, errno);
            exit(1);
        }
    }
}

impl Ready {
    /// Returns only if no candidate could be executed, with the number of the one that decided the
    /// error, if one did. As execvp(3) does, a candidate that is not there is passed over, and
    /// "permission denied" is remembered over "not found".
    fn execute(&self) -> (Errno, Option<usize>) {
        let mut result = (Errno::NOENT, None);
        let candidates = self.candidates.iter().enumerate().filter(|(_, address)| **address != 0);
        for (index, &candidate) in candidates {
            let arguments = [
                candidate,
                self.arguments.as_ptr() as usize,
                self.environment.as_ptr() as usize,
                0,
                0,
                0,
            ];
            // SAFETY: a terminated string and two null-terminated arrays of such,
            // all owned by `self`, whose memory outlives this process.
            match unsafe { syscall(libc::SYS_execve as usize, arguments) } {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::NODEV) => {}
                Err(Errno::ACCESS) => result = (Errno::ACCESS, result.1.or(Some(index))),
                Err(errno) => return (errno, Some(index)),
                Ok(_) => {}
            }
        }
        result
    }
}
