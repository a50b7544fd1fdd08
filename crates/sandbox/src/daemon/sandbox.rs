//! Running one action: send it, carry its output, stop it when it is time.

use std::ffi::CString;
use std::fmt;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use inputroot::{Attachment, HostUser};
use model::{ACTION_ID, Limits, RelPath};
use runtimes::Rootfs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use sys::init::Usage;
use sys::mount::{FsContext, MountAttributes};

use crate::daemon::cgroup::Cgroup;
use crate::daemon::config::Config;
use crate::daemon::conversation::ActionStreams;
use crate::daemon::cpus::Cpus;
use crate::daemon::deadline::{DEATH, Deadline, Look};
use crate::daemon::error::RunError;
use crate::daemon::exit::{Exit, Stopped};
use crate::daemon::hierarchy::Controllers;
use crate::daemon::permit::Permit;
use crate::daemon::process::HelperProcess;
use crate::daemon::streams::{CHUNK_BYTES, Stream, Streams};
use crate::plan::step::StepName;
use crate::plan::{self, Command, ProcessLimits};
use crate::protocol::message::{Finished, Request, Response};
use crate::protocol::packet::PacketError;

/// The longest interval at which a [`Watchdog`] is asked. Most actions end before the first time.
pub const SUPERVISION: Duration = Duration::from_millis(100);

/// The state of a sandbox before its action, which decides how soon it can start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// At once.
    Ready,
    /// When its helper is through with the action before.
    Soon,
    /// Never: its helper died.
    Never,
}

/// The command to run.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// argv; what is executed is the first, looked up in the environment's PATH if
    /// it has no slash.
    pub arguments: &'a [CString],
    /// `NAME=value` each; exactly what the action gets.
    pub environment: &'a [CString],
    /// Relative to the input root.
    pub working_directory: &'a RelPath,
    /// The mount for `/execroot`, or for the root where the view says so: then its `dev`, `proc` and
    /// `tmp` must be directories. Good for one run.
    pub input_root: &'a Attachment,
    /// The directories of the input root from which on the action may not (`true`) or may write, each before
    /// those below it. None of them may be a symlink, or lie below one.
    pub write_changes: &'a [(RelPath, bool)],
    /// The limits that the action asks for.
    pub limits: &'a Limits,
    /// The streams of an action that someone talks to: then nothing is carried to the caller's sinks.
    pub conversation: Option<&'a ActionStreams>,
}

/// When a run ends before the action does.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopConditions<'a> {
    /// The time after which the action is killed, counted from its execve(2): what comes before is the
    /// server's.
    pub timeout: Option<Duration>,
    /// Killed when this becomes readable; nothing is read from it.
    pub cancelled: Option<BorrowedFd<'a>>,
    /// Killed when this says so.
    pub supervisor: Option<&'a dyn Watchdog>,
}

/// The supervisor, which checks ten times a second or more often what no limit of the kernel bounds.
pub trait Watchdog: fmt::Debug {
    /// Whether an action that has run for a while may go on. Must not block:
    /// meanwhile nobody carries the action's output.
    fn allows(&self) -> bool;

    /// The time for which an action may go on until this is asked again, at most [`SUPERVISION`];
    /// `None` where it may not go on.
    fn allowance(&self) -> Option<Duration> {
        self.allows().then_some(SUPERVISION)
    }
}

/// A place to run actions in, one after the other, all with the same root file system.
/// From [`Pool::acquire`](crate::Pool::acquire), to be given back by
/// [`Pool::release`](crate::Pool::release) after each.
#[derive(Debug)]
pub struct Sandbox {
    helper: HelperProcess,
    view: Arc<Rootfs>,
    config: Arc<Config>,
    cpus: Arc<Cpus>,
    hard_limits: HardLimits,
    /// Where PID 1 of the next action waits.
    cgroup: Option<Cgroup>,
    /// For output on its way; kept because clean memory costs more than the rest of
    /// passing a small output on.
    chunk: Box<[u8]>,
    state: Condition,
    // Last, so that the helper is gone before its place is free.
    _permit: Permit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// An action can be run, and starts when the helper is ready for it.
    Preparing,
    /// An action can be run.
    Prepared,
    /// One was: `recycle` makes it prepared again.
    Used,
    /// The helper said nonsense, nothing, or is gone.
    Broken,
}

impl Sandbox {
    pub(crate) fn start(
        view: Arc<Rootfs>,
        config: Arc<Config>,
        cpus: Arc<Cpus>,
        place: Permit,
    ) -> Result<Self, RunError> {
        let helper = HelperProcess::start(&view, &config, config.user_of(place.number()))?;
        let mut sandbox = Self {
            helper,
            view,
            config,
            cpus,
            hard_limits: HardLimits::of_this_process(),
            cgroup: None,
            chunk: vec![0; CHUNK_BYTES].into(),
            state: Condition::Used,
            _permit: place,
        };
        sandbox.recycle()?;
        Ok(sandbox)
    }

    /// The root file system that its actions see.
    pub fn view(&self) -> &Arc<Rootfs> {
        &self.view
    }

    /// The user of its actions on the host, if no other sandbox has it. Their input roots must be presented to
    /// that user.
    pub fn user(&self) -> Option<HostUser<'_>> {
        self.helper.user()
    }

    /// The state that decides how soon it can start an action.
    pub(crate) fn readiness(&mut self) -> Readiness {
        match (self.state, self.helper.has_news()) {
            (Condition::Preparing, false) => Readiness::Soon,
            (Condition::Preparing, true)
                if matches!(self.helper.receive(), Ok(Response::Ready)) =>
            {
                self.state = Condition::Prepared;
                Readiness::Ready
            }
            (Condition::Prepared, false) => Readiness::Ready,
            _ => {
                self.state = Condition::Broken;
                Readiness::Never
            }
        }
    }

    /// Has the helper clean up after the last action and prepare the next; does
    /// not wait for it.
    pub(crate) fn recycle(&mut self) -> Result<(), RunError> {
        match self.state {
            Condition::Broken => return Err(RunError::new(StepName::Request, Errno::PIPE)),
            // No action came.
            Condition::Preparing | Condition::Prepared => return Ok(()),
            Condition::Used => self.state = Condition::Broken,
        }
        // The old one goes first: a cgroup is never used twice.
        let last = self.cgroup.take();
        self.cgroup = self.config.cgroups.as_ref().map(|cgroups| cgroups.create()).transpose()?;
        let raised = self.helper.oom_score().raise();
        raised.map_err(|errno| RunError::new(StepName::Request, errno))?;
        let descriptors: Vec<_> = self.cgroup.iter().map(AsFd::as_fd).collect();
        self.helper.send(&Request::Prepare, &descriptors)?;
        drop(last);
        self.state = Condition::Preparing;
        Ok(())
    }

    /// Runs an action to its end, whatever that is; when this returns, every
    /// process that it started is dead.
    ///
    /// # Errors
    /// The step that failed. The action has not run then, unless the step is
    /// [`StepName::Kill`] or [`StepName::Request`].
    pub fn run(
        &mut self,
        spec: &Spec<'_>,
        streams: Streams<'_>,
        stop: &StopConditions<'_>,
    ) -> Result<Exit, RunError> {
        let is_preparing = match self.state {
            Condition::Preparing => true,
            Condition::Prepared => false,
            Condition::Used | Condition::Broken => {
                return Err(RunError::new(StepName::Request, Errno::BUSY));
            }
        };
        self.state = Condition::Used;
        let limits = self.limit(spec.limits)?;
        let command = Command {
            arguments: spec.arguments,
            environment: spec.environment,
            working_directory: spec.working_directory,
            place: self.view.input_root,
            write_changes: spec.write_changes,
            has_terminal: spec.conversation.is_some_and(|streams| streams.is_terminal),
        };
        let request = Request::Run(plan::run(&command, &limits));
        let Attachment::Mount(input_root) = spec.input_root;
        // Set-user-id bits and devices have no effect in it, whatever made it.
        sys::mount_tree::make_harmless(input_root.as_fd())
            .map_err(|errno| RunError::new(StepName::AttachInputRoot, errno))?;

        let request_failed = |errno| RunError::new(StepName::Request, errno);
        let owner = self.owner();
        let (stdout, stdout_end) = Stream::new(streams.stdout, owner).map_err(request_failed)?;
        let (stderr, stderr_end) = Stream::new(streams.stderr, owner).map_err(request_failed)?;
        // The pipes end at once where other streams stand in their place.
        let (out, err, input) = match spec.conversation {
            Some(streams) => {
                streams.give_to(owner).map_err(request_failed)?;
                (streams.output.as_fd(), streams.output.as_fd(), Some(streams.input.as_fd()))
            }
            None => (stdout_end.as_fd(), stderr_end.as_fd(), None),
        };
        let mut descriptors = vec![out, err, input_root.as_fd()];
        descriptors.extend(input);
        self.helper.send(&request, &descriptors).map_err(|error| self.refused(error))?;
        drop((stdout_end, stderr_end));

        let mut watch = Watch {
            helper: &self.helper,
            is_preparing,
            streams: [stdout, stderr],
            stop,
            runs: false,
            deadline: stop.timeout.and_then(Deadline::new),
            stopped: None,
            dead_by: None,
            // An action that is over in a moment may run where one that goes on may not.
            ask_at: stop
                .supervisor
                .map(|asked| Instant::now() + asked.allowance().unwrap_or(SUPERVISION)),
        };
        let response = watch.wait(&mut self.chunk);
        let stopped = watch.stopped;
        match response {
            // PID 1 died, but not by us: the action's own end is not known.
            Ok(Response::Finished(Finished { wait_status: None, .. })) if stopped.is_none() => {
                self.lost(RunError::new(StepName::Init, Errno::CHILD))
            }
            Ok(Response::Finished(finished)) => {
                let mut exit = self.exit(&finished, stopped);
                // It ended by itself before it was killed.
                if stop.timeout.is_some_and(|timeout| exit.usage.wall > timeout) {
                    exit.stopped.get_or_insert(Stopped::Deadline);
                }
                Ok(exit)
            }
            Ok(Response::Failed(failed)) => Err(failed.into()),
            Ok(Response::Ready | Response::Runs | Response::Started(_)) => {
                Err(self.broken(RunError::new(StepName::Protocol, Errno::PROTO)))
            }
            Err(error) => {
                let error = self.broken(error);
                self.lost(error)
            }
        }
    }

    /// Runs a program that is not there, in an empty input root.
    pub(crate) fn try_out(&mut self) -> Result<(), RunError> {
        let context = FsContext::open("tmpfs").and_then(|context| {
            context.mount(MountAttributes::MOUNT_ATTR_NOSUID | MountAttributes::MOUNT_ATTR_NODEV)
        });
        let input_root = context.map_err(|error| {
            RunError::with_detail(StepName::AttachInputRoot, error.errno, "tmpfs")
        })?;
        let spec = Spec {
            arguments: &[c"/nowhere".to_owned()],
            environment: &[],
            working_directory: &RelPath::root(),
            input_root: &Attachment::Mount(input_root.into()),
            write_changes: &[],
            limits: &Limits::default(),
            conversation: None,
        };
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let streams = Streams { stdout: &mut stdout, stderr: &mut stderr };
        let stop = StopConditions { timeout: Some(DEATH), ..StopConditions::default() };
        match self.run(&spec, streams, &stop) {
            Err(error) if (error.step(), error.errno()) == (StepName::Execute, Errno::NOENT) => {
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Err(RunError::new(StepName::Execute, Errno::TIMEDOUT)),
        }
    }

    /// The end of an action whose helper or PID 1 was killed, and not by us. By the kernel, if the
    /// action had no memory left: it prefers others, but not before the helper is spared.
    fn lost(&self, error: RunError) -> Result<Exit, RunError> {
        if !self.cgroup.as_ref().is_some_and(Cgroup::was_out_of_memory) {
            return Err(error);
        }
        let killed =
            Finished { wait_status: None, started_ns: 0, ended_ns: 0, usage: Usage::default() };
        Ok(Exit::new(&killed, None, true))
    }

    fn exit(&self, finished: &Finished, stopped: Option<Stopped>) -> Exit {
        let oom_killed = self.cgroup.as_ref().is_some_and(Cgroup::was_oom_killed);
        Exit::new(finished, stopped, oom_killed)
    }

    /// A command too long for a packet is too long for execve(2) as well, and the
    /// helper never heard of it.
    fn refused(&mut self, error: PacketError) -> RunError {
        match error.errno() {
            Errno::TOOBIG => RunError::new(StepName::Execute, Errno::TOOBIG),
            _ => self.broken(error.into()),
        }
    }

    fn broken(&mut self, error: RunError) -> RunError {
        self.state = Condition::Broken;
        error
    }

    /// The id of its actions' user and group in this process's user namespace, if it is another than the
    /// server's.
    fn owner(&self) -> Option<u32> {
        let shared = self.config.ids.has_action.then_some(ACTION_ID);
        self.user().map_or(shared, |user| Some(user.id))
    }

    /// Limits the cgroup, and says what is left for the process itself to be
    /// limited to.
    fn limit(&self, limits: &Limits) -> Result<ProcessLimits, RunError> {
        let processes_max = self.config.processes_max;
        if let Some(cgroup) = &self.cgroup {
            cgroup.limit(limits, processes_max)?;
        }
        let controllers = self
            .config
            .cgroups
            .as_ref()
            .map_or(Controllers::default(), |cgroups| cgroups.controllers());
        Ok(ProcessLimits {
            processes: self.hard_limits.cap_processes(
                u64::from(limits.pids_max.unwrap_or(processes_max)) + self.config.ids.others(),
            ),
            address_space: limits
                .memory_bytes
                .filter(|_| !controllers.memory)
                .map(|bytes| self.hard_limits.cap_address_space(bytes)),
            cpus: limits
                .cpu_cores
                .filter(|_| !controllers.cpu)
                .and_then(|cores| self.cpus.choose(cores)),
        })
    }
}

/// Hard limits that this process was started with, and its helpers inherit: an action's process has no
/// right to exceed them.
#[derive(Clone, Copy, Debug)]
struct HardLimits {
    processes: u64,
    address_space: u64,
}

impl HardLimits {
    fn of_this_process() -> Self {
        let hard = |resource| getrlimit(resource).maximum.unwrap_or(u64::MAX);
        Self { processes: hard(Resource::Nproc), address_space: hard(Resource::As) }
    }

    fn cap_processes(self, count: u64) -> u64 {
        count.min(self.processes)
    }

    fn cap_address_space(self, bytes: u64) -> u64 {
        bytes.min(self.address_space)
    }
}

/// A run that is under way.
struct Watch<'a> {
    helper: &'a HelperProcess,
    /// The helper has yet to say that it is ready.
    is_preparing: bool,
    streams: [Stream<'a>; 2],
    stop: &'a StopConditions<'a>,
    /// The helper has said that the action runs. It does so once.
    runs: bool,
    deadline: Option<Deadline>,
    stopped: Option<Stopped>,
    /// Set together with `stopped`.
    dead_by: Option<Instant>,
    /// The time to ask the supervisor again; not set without a supervisor or a need.
    ask_at: Option<Instant>,
}

/// The work.
#[derive(Default)]
struct Ready {
    helper: bool,
    cancelled: bool,
    streams: bool,
}

impl Watch<'_> {
    /// The helper's response, after all output was passed on.
    fn wait(&mut self, chunk: &mut [u8]) -> Result<Response, RunError> {
        loop {
            let ready = self.poll()?;
            if ready.streams && self.pump(chunk).is_break() {
                self.stop(Stopped::SinkRefused)?;
            }
            if ready.helper {
                let response = self.helper.receive()?;
                if std::mem::take(&mut self.is_preparing) && response == Response::Ready {
                    continue;
                }
                if response == Response::Runs && !std::mem::replace(&mut self.runs, true) {
                    self.helper.oom_score().lower();
                    continue;
                }
                if let Response::Started(started_ns) = response {
                    self.deadline.iter_mut().for_each(|deadline| deadline.answer(started_ns));
                    continue;
                }
                if self.drain(chunk).is_break() {
                    self.stopped.get_or_insert(Stopped::SinkRefused);
                }
                return Ok(response);
            }
            if ready.cancelled {
                self.stop(Stopped::Cancelled)?;
            }
            self.look_at_clock()?;
        }
    }

    fn poll(&self) -> Result<Ready, RunError> {
        let socket = self.helper.socket()?;
        let mut events = Vec::with_capacity(4);
        events.push(PollFd::from_borrowed_fd(socket, PollFlags::IN));
        // Once it is stopped, being cancelled as well changes nothing.
        let cancelled = self.stop.cancelled.filter(|_| self.stopped.is_none());
        events.extend(cancelled.map(|event| PollFd::from_borrowed_fd(event, PollFlags::IN)));
        events.extend(self.streams.iter().filter_map(Stream::interest));
        match poll(&mut events, self.timeout().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(RunError::new(StepName::Request, errno)),
        }
        let is_ready = |event: &PollFd<'_>| !event.revents().is_empty();
        let streams_at = 1 + usize::from(cancelled.is_some());
        Ok(Ready {
            helper: events.first().is_some_and(is_ready),
            cancelled: cancelled.is_some() && events.get(1).is_some_and(is_ready),
            streams: events.iter().skip(streams_at).any(is_ready),
        })
    }

    fn timeout(&self) -> Option<Timespec> {
        let until = self.dead_by.or(self.deadline.as_ref().map(|deadline| deadline.at));
        let until = until.into_iter().chain(self.ask_at).min()?;
        let left = until.saturating_duration_since(Instant::now());
        Some(Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        })
    }

    /// One chunk of each stream, so that neither holds up anything else.
    fn pump(&mut self, chunk: &mut [u8]) -> ControlFlow<()> {
        let [stdout, stderr] = &mut self.streams;
        let flows = [stdout.pump(chunk), stderr.pump(chunk)];
        if flows.iter().any(ControlFlow::is_break) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn drain(&mut self, chunk: &mut [u8]) -> ControlFlow<()> {
        let [stdout, stderr] = &mut self.streams;
        let flows = [stdout.drain(chunk), stderr.drain(chunk)];
        if flows.iter().any(ControlFlow::is_break) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn look_at_clock(&mut self) -> Result<(), RunError> {
        let passed =
            |moment: Option<Instant>| moment.is_some_and(|moment| moment <= Instant::now());
        if passed(self.dead_by) {
            return Err(RunError::new(StepName::Kill, Errno::TIMEDOUT));
        }
        if self.stopped.is_none()
            && let Some(deadline) = &mut self.deadline
        {
            match deadline.look(Instant::now()) {
                Look::TooEarly => {}
                Look::Ask => self.helper.send(&Request::AskStart, &[])?,
                Look::Passed => self.stop(Stopped::Deadline)?,
            }
        }
        if let Some(supervisor) = self.stop.supervisor.filter(|_| passed(self.ask_at)) {
            match supervisor.allowance() {
                Some(allowance) => self.ask_at = Some(Instant::now() + allowance.min(SUPERVISION)),
                None => self.stop(Stopped::Forbidden)?,
            }
        }
        Ok(())
    }

    /// The first reason is the one that is told.
    fn stop(&mut self, reason: Stopped) -> Result<(), RunError> {
        if self.stopped.is_none() {
            self.stopped = Some(reason);
            self.dead_by = Some(Instant::now() + DEATH);
            self.ask_at = None;
            self.helper.send(&Request::Kill, &[])?;
        }
        Ok(())
    }
}
