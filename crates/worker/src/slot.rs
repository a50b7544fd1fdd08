//! One action from start to end, on a thread that does nothing else.
//!
//! Blocking code on a thread per job keeps the way short: no hop between
//! threads lies between the request and the command, and what is done after
//! the answer delays only this slot's next action, which is the back-pressure.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use events::{Event, Listeners, Origin};
use inputroot::{Interrupt, PresentError, PresentRequest};
use model::{
    ActionMessage, ActionSpec, Chain, CommandSpec, Digest, EncodedResult, Printable, RelPath, proto,
};
use parking_lot::RwLock;
use prost::Message;
use runtimes::Runtimes;
use rustix::io::Errno;
use sandbox::{
    ActionStreams, Exit, ExitStatus, OutputSink, RunError, Spec, StepName, StopConditions, Stopped,
    Streams, Watchdog,
};
use store::{Store, StoreError, is_exhaustion};

use crate::below;
use crate::boundary::{Destination, InputRoot, InputRoots, Sandbox, Sandboxes};
use crate::cancel::StopEvent;
use crate::capture::{Capture, Refusal};
use crate::config::WorkerConfig;
use crate::elsewhere::Elsewhere;
use crate::error::ActionError;
use crate::ignored_properties::IgnoredProperties;
use crate::inputs::{Inputs, PinnedTree};
use crate::limits::Limits;
use crate::not_started::not_started;
use crate::operation::{Done, Operation, Stage};
use crate::outputs::Collection;
use crate::queue::{Queue, Rank, Taken};
use crate::reading::Reading;
use crate::registry::Registry;
use crate::report::{self, Described};
use crate::server_log;
use crate::stamp::Stamp;
use crate::timeline::{Moment, Timeline};
use crate::{output_links, output_parents, whole_root, write_changes};
use ran::{Ran, exit_code, explain, refused, wants_outputs};

pub(crate) use load::Machine;
pub(crate) use ran::has_failed;

mod load;
mod ran;
#[cfg(test)]
mod tests;

/// An action that waits for a slot.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) operation: Arc<Operation>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) action: ActionMessage,
    pub(crate) described: Described,
    pub(crate) timeline: Timeline,
    pub(crate) skip_cache_lookup: bool,
    /// Its rank in the queue. It may not leave if the other engine does not take it, or has sent it.
    pub(crate) rank: Rank,
    pub(crate) journey: Journey,
    /// Its streams, if someone talks to it.
    pub(crate) conversation: Option<ActionStreams>,
}

/// The way of an action through slots here and elsewhere so far.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Journey {
    /// Listeners were told that it runs.
    pub(crate) is_started: bool,
    /// It asks for another machine than this one.
    pub(crate) is_foreign: bool,
    /// The times that it came back from the other engine without an answer.
    pub(crate) returns: u8,
}

impl Job {
    /// The memory that it takes while it waits, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let Origin { principal, tool, invocation, mnemonic, target, configuration, trace: _ } =
            &*self.origin;
        let names = [principal, tool, invocation, mnemonic, target, configuration];
        let names: usize = names.into_iter().map(|name| name.as_str().len()).sum();
        let held = size_of::<Self>() + size_of::<Origin>() + names;
        held as u64 + self.operation.memory_bytes() + self.action.memory_bytes()
    }
}

/// The parts that all slots share.
pub(crate) struct Shared {
    pub(crate) config: WorkerConfig,
    /// The limits of what comes next; those in `config` are the first ones.
    pub(crate) limits: RwLock<Limits>,
    pub(crate) store: Arc<Store>,
    /// Where streams, outputs and results go: `store`, but for tests.
    pub(crate) destination: Arc<dyn Destination>,
    pub(crate) disk: Box<dyn Watchdog + Send + Sync>,
    pub(crate) reading: Reading,
    pub(crate) inputs: Inputs,
    pub(crate) ignored_properties: IgnoredProperties,
    pub(crate) input_roots: Box<dyn InputRoots>,
    pub(crate) runtimes: Runtimes,
    pub(crate) sandboxes: Box<dyn Sandboxes>,
    pub(crate) registry: Registry,
    pub(crate) queue: Queue<Job>,
    /// The engine that takes actions which wait too long here, or are for another machine.
    pub(crate) elsewhere: Option<Arc<dyn Elsewhere>>,
    /// Everything is being stopped, because the server ends.
    pub(crate) is_ending: AtomicBool,
    pub(crate) listeners: Listeners,
}

/// One slot: at most one action at a time.
pub(crate) struct Slot {
    pub(crate) shared: Arc<Shared>,
    pub(crate) stop: StopEvent,
}

/// The remains of an action, put away once its answer is out.
#[derive(Default)]
struct Leftovers {
    inputs: Option<PinnedTree>,
    presented: Option<Box<dyn InputRoot>>,
    sandbox: Option<Box<dyn Sandbox>>,
    conversation: Option<ActionStreams>,
}

/// The part of a command's surroundings that is made for it.
struct Place<'a> {
    presented: &'a dyn InputRoot,
    write_changes: &'a [(RelPath, bool)],
    conversation: Option<&'a ActionStreams>,
}

impl Slot {
    /// Serves the queue until it is closed and empty.
    pub(crate) fn serve(&self) {
        while let Some(Taken { item: job, demand }) = self.shared.queue.pop() {
            let (operation, origin) = (Arc::clone(&job.operation), Arc::clone(&job.origin));
            let described = job.described;
            let ran = catch_unwind(AssertUnwindSafe(|| self.run(job)));
            if ran.is_err() {
                let error = ActionError::Internal("the server panicked on this action".into());
                let timeline = Timeline::queued_now("");
                self.answer(&operation, &origin, &described, timeline, Done::failed(error));
            }
            self.shared.queue.finished(demand);
        }
    }

    fn run(&self, job: Job) {
        let parsed = match job.rank.may_leave.then(|| self.machine_of(&job)) {
            Some(Machine::Another) => return self.send_on(job),
            Some(Machine::This(parsed)) => parsed.map(|parsed| *parsed),
            None => None,
        };
        let Job {
            operation,
            origin,
            action,
            mut described,
            mut timeline,
            journey,
            conversation,
            ..
        } = job;
        if !journey.is_started {
            let operation = operation.name.as_str().into();
            self.shared.listeners.tell(&Event::Started { operation });
        }
        let cacheable = !action.do_not_cache;
        timeline.mark(Moment::WorkerStart);
        let mut leftovers = Leftovers { conversation, ..Leftovers::default() };
        let ran = if operation.cancellation.attach(&self.stop) {
            timeline.mark(Moment::InputFetchStart);
            let loaded = self.load(&operation, &origin, &action, parsed);
            let described = &mut described;
            loaded.and_then(|loaded| {
                self.execute(&operation, loaded, described, &mut timeline, &mut leftovers)
            })
        } else {
            Err(self.shared.cancelled())
        };
        operation.cancellation.detach();
        let ran = self.unless_inputs_were_lost(ran, leftovers.inputs.as_ref());
        timeline.mark(Moment::WorkerCompleted);
        let done = match ran {
            Ok(ran) => self.publish(&operation, cacheable, &timeline, ran),
            Err(error) => {
                let server_log = self.server_log(&operation, &timeline, &error);
                Done { server_log, ..Done::failed(error) }
            }
        };
        self.answer(&operation, &origin, &described, timeline, done);
        self.put_away(leftovers);
    }

    /// `ran`, unless inputs were deleted or changed behind the store's back while the action ran: then
    /// its result is false, and its error is theirs.
    fn unless_inputs_were_lost(
        &self,
        ran: Result<Ran, ActionError>,
        inputs: Option<&PinnedTree>,
    ) -> Result<Ran, ActionError> {
        let error = ran.as_ref().map_or_else(Some, |ran| ran.error.as_ref());
        if matches!(error, Some(ActionError::Cancelled | ActionError::ShuttingDown)) {
            return ran;
        }
        match inputs {
            Some(inputs) => inputs.check_unchanged(self.shared.store.cas()).and(ran),
            None => ran,
        }
    }

    /// Everything between the inputs and the answer.
    fn execute(
        &self,
        operation: &Operation,
        (mut action, pinned): (ActionSpec, PinnedTree),
        described: &mut Described,
        timeline: &mut Timeline,
        leftovers: &mut Leftovers,
    ) -> Result<Ran, ActionError> {
        let shared = &*self.shared;
        described.with_inputs(&pinned.tree);
        let limits = shared.limits();
        described.limited_by(&action.command.properties.limits, limits.timeout(action.timeout));
        whole_root::recognize(&pinned.tree, &mut action.command);
        output_links::follow(&pinned.tree, &mut action.command)?;
        let pinned = &*leftovers.inputs.insert(pinned);
        // Told once the inputs are pinned: who sees it may rely on them.
        operation.advance(Stage::Executing, timeline.metadata().clone());
        let command = &action.command;
        let view = shared.runtimes.view(&command.properties).map_err(unsupported)?;
        let _user = view.enter();
        let write_changes = write_changes::of(&pinned.tree, &command.properties)?;
        let has_own_root = whole_root::is_wanted(&command.properties);
        let mut make_directories = output_parents::missing(&pinned.tree, command)?;
        if has_own_root {
            make_directories.extend(whole_root::missing_mount_points(&pinned.tree, command)?);
        }
        // Taken before anything of the root is used: what changes later is another environment.
        let stamp = Stamp::of(&command.properties, &view);
        // A root file system is changed in place, such as by ldconfig.
        let mutable = command.properties.mutates_inputs || has_own_root;
        let is_cancelled = || operation.cancellation.is_requested();
        let is_due = || is_cancelled() || !shared.disk.allows();
        let interrupt = Interrupt::when(&is_due);
        timeline.mark(Moment::SandboxWanted);
        let sandbox = shared.sandboxes.acquire(&view).map_err(|e| set_up_failed(command, e))?;
        let sandbox = leftovers.sandbox.insert(sandbox);
        timeline.mark(Moment::SandboxReady);
        let request = PresentRequest {
            user: sandbox.user(),
            mutable,
            make_directories: &make_directories,
            write_changes: &write_changes,
            interrupt,
        };
        let presented =
            shared.input_roots.present(&pinned.tree, &request).map_err(|error| match error {
                PresentError::Interrupted if is_cancelled() => shared.cancelled(),
                error => not_presented(error),
            })?;
        let presented = leftovers.presented.insert(presented);
        timeline.mark(Moment::InputFetchCompleted);

        let place = Place {
            presented: &**presented,
            write_changes: &write_changes,
            conversation: leftovers.conversation.as_ref(),
        };
        let mut ran = self.run_command(&action, &limits, &place, &mut **sandbox, timeline)?;

        timeline.mark(Moment::OutputUploadStart);
        if wants_outputs(ran.error.as_ref()) {
            let collection = Collection {
                destination: &*shared.destination,
                function: action.action.function(),
                limits: limits.outputs,
                view: &*presented.outputs(),
                cancelled: &is_cancelled,
            };
            match collection.collect(command, &mut ran.result) {
                Ok(losses) => ran.losses.append(losses),
                Err(error) => ran.error = ran.error.or(Some(error)),
            }
        }
        timeline.mark(Moment::OutputUploadCompleted);
        ran.stamp = Some(stamp);
        Ok(ran)
    }

    /// Leaves an action for another machine to those slots whose actions run elsewhere.
    fn send_on(&self, mut job: Job) {
        job.journey.is_foreign = true;
        let (bytes, rank) = (job.memory_bytes(), job.rank.clone());
        if let Err(job) = self.shared.queue.push_foreign(job, bytes, rank) {
            let Job { operation, origin, described, timeline, .. } = job;
            let done = Done::failed(ActionError::ShuttingDown);
            self.answer(&operation, &origin, &described, timeline, done);
        }
    }

    fn run_command(
        &self,
        action: &ActionSpec,
        limits: &Limits,
        place: &Place<'_>,
        sandbox: &mut dyn Sandbox,
        timeline: &mut Timeline,
    ) -> Result<Ran, ActionError> {
        let (config, command) = (&self.shared.config, &action.command);
        let timeout = limits.timeout(action.timeout);
        let capture = || {
            let (inline, limit) = (config.inline_bytes, limits.stream_bytes);
            Capture::new(&*self.shared.destination, action.action.function(), inline, limit)
        };
        let (mut stdout, mut stderr) = (capture(), capture());
        let spec = Spec {
            arguments: &command.arguments,
            environment: &command.environment,
            working_directory: &command.working_directory,
            input_root: place.presented.attachment(),
            write_changes: place.write_changes,
            limits: &command.properties.limits,
            conversation: place.conversation,
        };
        let stop = StopConditions {
            timeout,
            cancelled: Some(self.stop.as_fd()),
            supervisor: Some(&*self.shared.disk),
        };
        let streams = Streams { stdout: &mut stdout, stderr: &mut stderr };
        let exit = match sandbox.run(&spec, streams, &stop) {
            Ok(exit) => exit,
            Err(error) if error.step() == StepName::Execute => {
                let runtimes = &self.shared.runtimes;
                let Some(end) = not_started(command, &error, runtimes) else {
                    return Err(set_up_failed(command, error));
                };
                timeline.mark(Moment::ExecutionStart);
                timeline.mark(Moment::ExecutionCompleted);
                // A refusal can wait until the stream is stored, a few lines on.
                let _ = stderr.write(end.text.as_bytes());
                return Ok(Ran::new(end.exit_code, stdout, stderr, None, String::new()));
            }
            Err(error) => return Err(set_up_failed(command, error)),
        };
        timeline.mark_at(Moment::ExecutionStart, exit.started);
        timeline.mark_at(Moment::ExecutionCompleted, exit.ended);
        timeline.used(&exit);

        let refusals =
            [("standard output", stdout.refusal()), ("standard error", stderr.refusal())];
        let error = self.why_stopped(&exit, timeout, limits.stream_bytes, refusals);
        let error = error.or_else(|| {
            // Maybe for want of space, whatever it exited with: clients try again.
            let is_full = exit.status != ExitStatus::Code(0) && !self.shared.disk.allows();
            is_full.then(|| {
                let text = "the action failed while the server's disk was nearly full";
                ActionError::ResourceExhausted(text.into())
            })
        });
        let explanation = if error.is_none() { explain(&exit) } else { String::new() };
        Ok(Ran::new(exit_code(exit.status), stdout, stderr, error, explanation))
    }

    fn why_stopped(
        &self,
        exit: &Exit,
        timeout: Option<Duration>,
        stream_bytes_max: u64,
        refusals: [(&str, Option<&Refusal>); 2],
    ) -> Option<ActionError> {
        match exit.stopped? {
            Stopped::Deadline => Some(ActionError::TimedOut { after: timeout.unwrap_or_default() }),
            Stopped::Cancelled => Some(self.shared.cancelled()),
            Stopped::Forbidden => {
                let text = "the action was stopped because the server's disk is nearly full";
                Some(ActionError::ResourceExhausted(text.into()))
            }
            Stopped::SinkRefused => {
                let (stream, refusal) =
                    refusals.iter().find_map(|(stream, refusal)| Some((stream, (*refusal)?)))?;
                Some(refused(stream, refusal, stream_bytes_max))
            }
        }
    }

    /// Stores a log for the client's people, if the server is to blame.
    fn server_log(
        &self,
        operation: &Operation,
        timeline: &Timeline,
        error: &ActionError,
    ) -> Option<Digest> {
        if !matches!(error, ActionError::SetUp { .. } | ActionError::Internal(_)) {
            return None;
        }
        let text = server_log::text(operation, timeline, error);
        let stored = self.shared.destination.put(operation.action.function(), text.as_bytes());
        stored
            .inspect_err(|error| tracing::debug!(%error, "the log of an action was not stored"))
            .ok()
    }

    /// Completes the result with its metadata and caches it, if it is one that
    /// may be served again.
    fn publish(
        &self,
        operation: &Operation,
        cacheable: bool,
        timeline: &Timeline,
        ran: Ran,
    ) -> Done {
        let stamp = ran.stamp.clone();
        let (mut result, error, message) = ran.judged();
        result.execution_metadata = Some(timeline.metadata().clone());
        // The streams are blobs too, and what is cached names them only.
        let streams = proto::ActionResult {
            stdout_raw: std::mem::take(&mut result.stdout_raw),
            stderr_raw: std::mem::take(&mut result.stderr_raw),
            ..Default::default()
        };
        let result = EncodedResult::of(&result);
        let good = error.is_none() && result.exit_code() == 0 && cacheable;
        if cacheable && has_failed(error.as_ref(), result.exit_code()) {
            self.forget_success(operation);
        }
        // An action may swallow what it was told of a full disk.
        if good
            && self.shared.disk.allows()
            && let Some(stamp) = stamp
        {
            match self.cache(operation, &stamp, &result) {
                Ok(()) => self.copy_below(operation),
                Err(error) => {
                    // The result is good all the same.
                    let action = operation.action;
                    tracing::warn!(%action, error = &error as &dyn std::error::Error, "not cached");
                }
            }
        }
        let result = result.with_fields(&streams.encode_to_vec());
        // Outputs of any action that is answered, cached or not.
        let error = error.or_else(|| self.make_durable().err());
        Done { result: Some(result), cached: false, error, message, server_log: None }
    }

    /// Brings outputs to the disk, if that is to be before the answer.
    pub(crate) fn make_durable(&self) -> Result<(), ActionError> {
        let durable = self.shared.store.make_durable();
        durable.map_err(|error| ActionError::of_store("bringing outputs to the disk", &error))
    }

    /// Removes the cached result of an action that has failed now. Clients ask for a new run, with
    /// `skip_cache_lookup`, where they believe that what is cached is wrong.
    pub(crate) fn forget_success(&self, operation: &Operation) {
        let (cache, action) = (self.shared.store.action_cache(), operation.action);
        if let Err(error) = cache.delete(operation.instance.as_str(), &action) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%action, error, "a cached result of it was not removed");
        }
    }

    /// Gives the cached result to the tier below the store, if there is one.
    pub(crate) fn copy_below(&self, operation: &Operation) {
        if let Some(tier) = self.shared.store.tier() {
            let published = tier.publish(operation.instance.as_str(), operation.action);
            below::wait(published, &|| !self.shared.is_ending.load(Ordering::Acquire));
        }
    }

    fn cache(
        &self,
        operation: &Operation,
        stamp: &Stamp,
        result: &EncodedResult,
    ) -> Result<(), StoreError> {
        if !stamp.is_current(&self.shared.runtimes) {
            let action = operation.action;
            tracing::info!(%action, "not cached: its root file system changed while it ran");
            return Ok(());
        }
        let instance = operation.instance.as_str();
        let Some(entry) = stamp.entry(result.message()) else { return Ok(()) };
        self.shared.destination.cache(instance, &operation.action, &entry)
    }

    /// Tells listeners and the client of the end.
    pub(crate) fn answer(
        &self,
        operation: &Arc<Operation>,
        origin: &Arc<Origin>,
        described: &Described,
        timeline: Timeline,
        done: Done,
    ) {
        // Before the answer, so that a client that has it finds it in the log.
        let finished = report::finished(operation, origin, described, &timeline, &done);
        self.shared.listeners.tell(&finished);
        if operation.complete(timeline.metadata().clone(), done) {
            self.shared.registry.finish(operation);
        }
    }

    fn put_away(&self, leftovers: Leftovers) {
        if let Some(sandbox) = leftovers.sandbox {
            sandbox.release();
        }
        if let Some(presented) = leftovers.presented {
            presented.discard();
        }
        // Only now may the store let go of the inputs.
        drop(leftovers.inputs);
    }
}

fn unsupported(error: runtimes::ViewError) -> ActionError {
    ActionError::Unsupported(Chain(&error).to_string())
}

fn not_presented(error: PresentError) -> ActionError {
    if matches!(error, PresentError::Interrupted) {
        let text = "the inputs were not presented because the server's disk is nearly full";
        return ActionError::ResourceExhausted(text.into());
    }
    if error.is_about_tree() {
        return ActionError::Unsupported(Chain(&error).to_string());
    }
    ActionError::of_errno("presenting the inputs", &error, error.errno())
}

/// A working directory that cannot be entered is the client's to mend, unless the machine lacks what it
/// takes to start anything; all else is ours.
fn set_up_failed(command: &CommandSpec, error: RunError) -> ActionError {
    let (step, errno) = (error.step(), error.errno_text());
    if is_exhaustion(error.errno()) {
        let text = format!("setting up the sandbox failed: {step}: {errno}");
        return ActionError::ResourceExhausted(text);
    }
    if step == StepName::EnterDirectory && error.errno() != Errno::IO {
        let directory = Printable::name(&command.working_directory);
        return ActionError::WorkingDirectory { directory, errno };
    }
    // PID 1 has no right to overrule modes.
    let mounts = matches!(step, StepName::EnterInputRoot | StepName::CloseSubtrees);
    if mounts && error.errno() == Errno::ACCESS {
        let text = "nothing can be mounted in the input root, because the unix_mode of a directory closes \
                    it to others; give it one that others can execute, such as 0755";
        return ActionError::Invalid(text.to_owned());
    }
    ActionError::SetUp { step: step.to_string(), errno }
}
