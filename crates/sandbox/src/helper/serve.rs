//! The helper's life: set up once, then one action after the other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use model::ACTION_ID;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, WaitOptions, getrlimit, setrlimit,
};
use rustix::thread::UnshareFlags;
use sys::call::Instruction;
use sys::init::{Init, Report};
use sys::mount::{FsContext, MountAttributes, MountError};
use sys::proc_file;

use crate::helper::oom_score::OomScore;
use crate::helper::{At, network, root, user_namespace};
use crate::plan::hidden::{HIDDEN, Hidden};
use crate::plan::lower::{self, RunFiles};
use crate::plan::seccomp;
use crate::plan::step::StepName;
use crate::plan::{self, Ids, Run, Sizes};
use crate::protocol::message::{Failed, Finished, Request, Response, Setup};
use crate::protocol::packet::{self, Packet, PacketError};

/// The time after which an action counts as one that could use up memory: most
/// are over by then, and cost nothing more.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Serves the daemon on standard input until it hangs up.
pub(super) fn serve() -> Result<(), PacketError> {
    let socket = take_standard_input()?;
    let Some(packet) = packet::receive(&socket)? else { return Ok(()) };
    match &packet.message {
        Request::Setup(setup) if !setup.ids.are_initial => serve_in_own_pids(socket, packet),
        _ => serve_with(socket, packet),
    }
}

/// Serves as PID 1 of a PID namespace, and waits for its end. A user namespace can mount a `/proc` only
/// of PID namespaces that belong to it.
fn serve_in_own_pids(socket: OwnedFd, packet: Packet<Request>) -> Result<(), PacketError> {
    if let Err(errno) = sys::process::unshare_namespaces(UnshareFlags::NEWPID) {
        let failed = Failed::new(StepName::Namespaces, errno, "pid");
        return send(socket.as_fd(), &Response::Failed(failed));
    }
    // This process keeps none of the descriptors, so that the daemon sees the end of the other one.
    let child = sys::process::fork(move || {
        let served = die_with_parent().map_err(PacketError::from);
        served.and_then(|()| serve_with(socket, packet)).map_or(1, |()| 0)
    })?;
    rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(child), WaitOptions::empty()))?;
    Ok(())
}

/// All that runs in the PID namespace dies with its PID 1.
fn die_with_parent() -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

fn serve_with(socket: OwnedFd, packet: Packet<Request>) -> Result<(), PacketError> {
    match set_up(packet) {
        Ok((helper, user_namespace)) => {
            packet::send(socket.as_fd(), &Response::Ready, &[user_namespace.as_fd()])?;
            drop(user_namespace);
            helper.serve(socket.as_fd())
        }
        Err(failed) => send(socket.as_fd(), &Response::Failed(failed)),
    }
}

fn send(socket: BorrowedFd<'_>, response: &Response) -> Result<(), PacketError> {
    packet::send(socket, response, &[])
}

/// Moves the socket away from the descriptors that an action will have.
fn take_standard_input() -> Result<OwnedFd, Errno> {
    sys::process::mark_close_on_exec()?;
    rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)
}

/// The parts of a helper once it is set up.
struct Helper {
    /// A `/proc` without settings, and with this process alone.
    proc: OwnedFd,
    oom_score: OomScore,
    /// The entries of `/proc` to hide on this machine.
    hidden: Vec<Hidden>,
    /// The part of an action's filter that it does not inherit.
    filter: Arc<[Instruction]>,
    sizes: Sizes,
    ids: Ids,
    /// The processes of the next action, or why there are none.
    next: Option<Result<Init, Failed>>,
    /// Namespaces of the last action. Taking mounts down takes longer than
    /// everything else at an action's end, and can wait until it was reported.
    remains: Vec<OwnedFd>,
    /// Whether an action ran since the network was last looked at.
    used: bool,
}

/// The helper, and the user namespace that it is in.
fn set_up(packet: Packet<Request>) -> Result<(Helper, OwnedFd), Failed> {
    let Packet { message, descriptors } = packet;
    let setup = match message {
        Request::Setup(setup) if setup.mounts.len() == descriptors.len() => setup,
        _ => return Err(protocol("expected a set-up with its mounts")),
    };
    let proc = isolate(&setup).at(StepName::Isolate, String::new)?;
    let own_proc = open_own_proc().at(StepName::Isolate, String::new)?;
    let oom_score = OomScore::settle(proc.as_fd()).at(StepName::Isolate, String::new)?;
    let namespaces = UnshareFlags::NEWNS | UnshareFlags::NEWUTS;
    sys::process::unshare_namespaces(namespaces).at(StepName::Namespaces, String::new)?;
    rustix::system::sethostname(runtimes::HOSTNAME.as_bytes())
        .at(StepName::Namespaces, String::new)?;
    network::create(proc.as_fd()).at(StepName::Network, String::new)?;
    let user_namespace = user_namespace::create(proc.as_fd(), setup.ids, setup.user)
        .at(StepName::UserNamespace, String::new)?;
    let hidden = to_hide(proc.as_fd()).at(StepName::Isolate, String::new)?;
    let last_capability = proc_file::parse(proc.as_fd(), "sys/kernel/cap_last_cap")
        .at(StepName::Isolate, String::new)?;
    root::enter(&setup, descriptors)?;
    use_own_null().at(StepName::Devices, || "dev/null".to_owned())?;
    user_namespace::enter(user_namespace.as_fd(), last_capability)
        .at(StepName::UserNamespace, String::new)?;
    // A change of credentials may have undone both.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .at(StepName::Isolate, String::new)?;
    if !setup.ids.are_initial {
        die_with_parent().at(StepName::Isolate, String::new)?;
    }
    // With the settings of the kernel goes the last of the host's that is open here.
    drop(proc);
    sys::process::install_filter(seccomp::inherited()).at(StepName::Filter, String::new)?;
    let helper = Helper {
        proc: own_proc,
        oom_score,
        hidden,
        filter: seccomp::own(),
        sizes: setup.sizes,
        ids: setup.ids,
        next: None,
        remains: Vec::new(),
        used: false,
    };
    Ok((helper, user_namespace))
}

/// Attributes that every process of the sandbox inherits. Returns a `/proc` for the
/// set-up, in which settings can be written even where the host's is read-only.
fn isolate(setup: &Setup) -> Result<OwnedFd, Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_name(c"sandbox-helper")?;
    rustix::thread::set_no_new_privs(true)?;
    match sys::landlock::scope_signals_and_sockets() {
        // A kernel without it, or before 6.12: the namespaces say the same.
        Ok(()) | Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::TOOBIG) => {}
        Err(errno) => return Err(errno),
    }
    sys::process::reset_signals();
    match sys::process::leave_session_keyring() {
        Ok(()) | Err(Errno::NOSYS) => {}
        Err(errno) => return Err(errno),
    }
    let proc = FsContext::open("proc")
        .and_then(|context| context.mount(MountAttributes::MOUNT_ATTR_NOSUID))
        .map_err(|error| error.errno)?;
    give_login_user(proc.as_fd(), setup.user.unwrap_or(ACTION_ID))?;
    limit_resources(setup)?;
    Ok(proc)
}

/// The entries to hide that exist. `proc` shows all of the kernel, as an action's `/proc` does.
fn to_hide(proc: BorrowedFd<'_>) -> Result<Vec<Hidden>, Errno> {
    let mut found = Vec::new();
    for path in HIDDEN {
        let name = path.to_bytes().strip_prefix(b"/proc/").unwrap_or_default();
        match rustix::fs::statat(proc, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => found.extend(Hidden::new(path, stat.st_mode)),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}

/// The part of `/proc` that a helper keeps while actions run: no settings, and only the processes that it
/// could trace, that is itself.
fn open_own_proc() -> Result<OwnedFd, MountError> {
    let context = FsContext::open("proc")?;
    context.string("subset", "pid")?;
    context.string("hidepid", "ptraceable")?;
    context.mount(
        MountAttributes::MOUNT_ATTR_NOSUID
            | MountAttributes::MOUNT_ATTR_NODEV
            | MountAttributes::MOUNT_ATTR_NOEXEC,
    )
}

/// The login uid of the audit log. As long as it is unset, everybody may set
/// anybody, root too; who is named needs a right to change it that actions lack.
fn give_login_user(proc: BorrowedFd<'_>, user: u32) -> Result<(), Errno> {
    match proc_file::write(proc, "self/loginuid", user.to_string()) {
        // A kernel without audit; a server that somebody started who logged in; a user namespace
        // without this id.
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => Ok(()),
        written => written,
    }
}

/// The most that an action may have of a resource, whatever the daemon has.
///
/// - Core: not 0. A handler that cores are piped to (core(5)) is a program of the host's root, and is
///   started for a limit of 0 as well; 1 is how handlers say "not me".
/// - Sigpending, Msgqueue: what actions use counts outside as the user's who made their user namespace, root if sandboxes
///   have no user of their own. A message queue takes 80 KiB.
/// - Memlock: the kernel's default. More would keep memory from being reclaimed.
/// - Nice, Rtprio: no precedence over anything on the host.
///
/// A file's size comes on top: nothing larger than the largest output is of use.
const MOST: [(Resource, u64); 6] = [
    (Resource::Core, 1),
    (Resource::Sigpending, 4096),
    (Resource::Msgqueue, 256 << 10),
    (Resource::Memlock, 8 << 20),
    (Resource::Nice, 0),
    (Resource::Rtprio, 0),
];

/// Limits whose soft value an action has as usual, whatever the daemon was started with; a program can
/// raise them up to the hard value. The stack is the kernel's default: an unlimited one changes where
/// memory is mapped.
const SOFT: [(Resource, u64); 4] = [
    (Resource::Stack, 8 << 20),
    (Resource::Cpu, u64::MAX),
    (Resource::As, u64::MAX),
    (Resource::Data, u64::MAX),
];

/// Only ever lowers a hard limit: to raise one needs a capability that a container may lack.
fn limit_resources(setup: &Setup) -> Result<(), Errno> {
    for (resource, most) in MOST.into_iter().chain([(Resource::Fsize, setup.file_bytes)]) {
        let most = getrlimit(resource).maximum.map_or(most, |hard| hard.min(most));
        // As the kernel has it, the highest number is no limit.
        let most = Some(most).filter(|most| *most != u64::MAX);
        setrlimit(resource, Rlimit { current: most, maximum: most })?;
    }
    for (resource, soft) in SOFT.into_iter().chain([(Resource::Nofile, setup.open_files)]) {
        let maximum = getrlimit(resource).maximum;
        let current = match maximum {
            Some(hard) => Some(hard.min(soft)),
            None => Some(soft).filter(|soft| *soft != u64::MAX),
        };
        setrlimit(resource, Rlimit { current, maximum })?;
    }
    Ok(())
}

/// The root's own `/dev/null` is what actions read from. Standard error stays that
/// of the daemon, for the message of a panic; no action gets it.
fn use_own_null() -> Result<(), Errno> {
    let null = rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)
}

fn protocol(detail: &str) -> Failed {
    Failed::new(StepName::Protocol, Errno::BADMSG, detail)
}

impl Helper {
    fn serve(mut self, socket: BorrowedFd<'_>) -> Result<(), PacketError> {
        while let Some(Packet { message, descriptors }) = packet::receive(socket)? {
            match message {
                Request::Prepare => {
                    self.next = None;
                    self.next = Some(self.prepare(descriptors.first().map(AsFd::as_fd)));
                    // Also if it failed, which the action is told that comes next.
                    send(socket, &Response::Ready)?;
                }
                Request::Run(run) => {
                    let response = self.run(run, descriptors, socket)?;
                    send(socket, &response)?;
                }
                // Its action had ended before.
                Request::AskStart | Request::Kill => {}
                Request::Setup(_) => send(socket, &Response::Failed(protocol("a second set-up")))?,
            }
        }
        Ok(())
    }

    /// Cleans up after the last action and clones PID 1 of the next.
    fn prepare(&mut self, cgroup: Option<BorrowedFd<'_>>) -> Result<Init, Failed> {
        self.remains.clear();
        if std::mem::take(&mut self.used) && !network::is_clean(self.proc.as_fd()) {
            network::renew().at(StepName::Network, String::new)?;
        }
        self.oom_score.raise(self.proc.as_fd()).at(StepName::Clone, String::new)?;
        let plan = plan::preparation(&self.sizes, self.ids, &self.hidden);
        let preparation = lower::preparation(&plan, &self.filter);
        Init::start(preparation, cgroup).at(StepName::Clone, String::new)
    }

    /// An error only if the daemon is gone or talks nonsense.
    fn run(
        &mut self,
        run: Run,
        descriptors: Vec<OwnedFd>,
        socket: BorrowedFd<'_>,
    ) -> Result<Response, PacketError> {
        let (stdout, stderr, input_root, stdin) = match descriptors.as_slice() {
            [stdout, stderr, input_root] => (stdout, stderr, input_root, None),
            [stdout, stderr, input_root, stdin] => (stdout, stderr, input_root, Some(stdin)),
            _ => {
                return Ok(Response::Failed(protocol(
                    "an action with a wrong number of descriptors",
                )));
            }
        };
        let init = match self.next.take() {
            Some(Ok(init)) => init,
            Some(Err(failed)) => return Ok(Response::Failed(failed)),
            None => return Ok(Response::Failed(protocol("an action without preparation"))),
        };
        self.used = true;
        let files = RunFiles {
            stdin: stdin.map(AsFd::as_fd),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
            input_root: input_root.as_fd(),
        };
        init.admit(lower::run(run, &files));
        self.wait(&init, socket)?;
        let report;
        (report, self.remains) = init.finish();
        Ok(response(report))
    }

    /// Waits until all is dead, and kills it when the daemon says so or is gone.
    fn wait(&mut self, init: &Init, socket: BorrowedFd<'_>) -> Result<(), PacketError> {
        let mut pause = Some(&PAUSE);
        loop {
            let pidfd = init.pidfd();
            let mut events = [
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
                PollFd::from_borrowed_fd(socket, PollFlags::IN),
            ];
            let ready = rustix::io::retry_on_intr(|| poll(&mut events, pause))?;
            let [ended, told] = &events;
            if ready == 0 && init.has_executed() {
                if self.oom_score.lower(self.proc.as_fd()) {
                    send(socket, &Response::Runs)?;
                }
                pause = None;
            }
            if !ended.revents().is_empty() {
                return Ok(());
            }
            if !told.revents().is_empty() {
                // An error, or an end of the connection, ends the action: dropping
                // `init` on the way out kills and waits.
                let packet = packet::receive(socket)?.ok_or(Errno::PIPE)?;
                match packet.message {
                    Request::Kill => init.kill(),
                    Request::AskStart => send(socket, &Response::Started(init.started_ns()))?,
                    Request::Setup(_) | Request::Prepare | Request::Run(_) => {
                        return Err(Errno::PROTO.into());
                    }
                }
            }
        }
    }
}

fn response(report: Report) -> Response {
    match (&report.failure, report.wait_status) {
        (Some(failure), _) => {
            let step = StepName::from_number(failure.label).unwrap_or(StepName::Init);
            let failed = Failed::new(step, failure.errno, "");
            Response::Failed(Failed { obstacle: report.obstacle, ..failed })
        }
        // It died without being asked to: the kernel was out of memory, say.
        (None, Some(status)) if report.started_ns == 0 => {
            let detail = format!("wait status {status:#x}");
            Response::Failed(Failed::new(StepName::Prepare, Errno::CHILD, detail))
        }
        (None, _) => Response::Finished(Finished::from(&report)),
    }
}
