//! From steps to system calls: the dull half of a plan.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use sys::call::{Call, Instruction, Program};
use sys::init::{Execution, Preparation, Run};

use crate::ACTION_ID;
use crate::plan::step::{Actor, Step};

/// Flags of every file system that an action can write to.
const WRITABLE_MOUNT: u64 = libc_flags::NOSUID | libc_flags::NODEV;

/// mount(2)'s flags, as in linux/mount.h.
mod libc_flags {
    pub(super) const NOSUID: u64 = 2;
    pub(super) const NODEV: u64 = 4;
    pub(super) const NOEXEC: u64 = 8;
}

/// The descriptors that the steps of a [`Run`] need.
pub(crate) struct RunFiles<'a> {
    /// [`Step::Streams`]
    pub(crate) stdout: BorrowedFd<'a>,
    /// [`Step::Streams`]
    pub(crate) stderr: BorrowedFd<'a>,
    /// [`Step::AttachInputRoot`]
    pub(crate) input_root: BorrowedFd<'a>,
}

/// The programs for what is done before an action is known; steps of a run are
/// passed over.
pub(crate) fn preparation(steps: &[Step], filter: &Arc<[Instruction]>) -> Preparation {
    let mut preparation = Preparation::default();
    preparation.init.push(0, Call::set_name(c"sandbox-init"));
    preparation.action.push(0, Call::set_name(c"sandbox-action"));
    for step in steps {
        let program = match step.actor() {
            Actor::Init => &mut preparation.init,
            Actor::InitAfterwards => continue,
            Actor::Action => &mut preparation.action,
        };
        for call in preparation_calls(step, filter) {
            program.push(step.name().number(), call);
        }
    }
    preparation
}

/// The programs for one action; steps of a preparation are passed over.
pub(crate) fn run(steps: Vec<Step>, files: &RunFiles<'_>) -> Run {
    let mut run = Run::default();
    for step in steps {
        let (actor, label) = (step.actor(), step.name().number());
        if let Step::Execute { candidates, arguments, environment } = step {
            run.execution = Execution { label, candidates, arguments, environment };
            continue;
        }
        let program = match actor {
            Actor::Init => &mut run.attach,
            Actor::InitAfterwards => &mut run.confine,
            Actor::Action => &mut run.action,
        };
        push_all(program, label, run_calls(&step, files));
    }
    run
}

fn push_all(program: &mut Program, label: u16, calls: Vec<Call>) {
    for call in calls {
        program.push(label, call);
    }
}

fn preparation_calls(step: &Step, filter: &Arc<[Instruction]>) -> Vec<Call> {
    match step {
        Step::NewCgroupNamespace => vec![Call::new_cgroup_namespace()],
        Step::MountProc => vec![proc_mount()],
        Step::MountTmp { bytes, inodes } => vec![tmpfs(c"/tmp", *bytes, *inodes)],
        Step::MountShm { bytes, inodes } => vec![tmpfs(c"/dev/shm", *bytes, *inodes)],
        Step::NewSession => vec![Call::new_session()],
        Step::DropGroups => vec![Call::drop_groups()],
        Step::SetGroup => vec![Call::set_gid(ACTION_ID)],
        // Until it executes something, it shares memory with its privileged parents;
        // what a change of user does to that depends on a setting of the host's.
        Step::SetUser => vec![Call::set_uid(ACTION_ID), Call::not_dumpable()],
        Step::DropCapabilities => vec![Call::drop_capabilities()],
        Step::NoNewPrivileges => vec![Call::no_new_privileges()],
        Step::Filter => vec![Call::filter(Arc::clone(filter))],
        _ => Vec::new(),
    }
}

fn run_calls(step: &Step, files: &RunFiles<'_>) -> Vec<Call> {
    match step {
        Step::AttachInputRoot => vec![Call::attach(files.input_root, c"/execroot")],
        Step::ConfineInit => vec![Call::drop_capabilities(), Call::own_files_below(0)],
        Step::Limit { resource, value } => vec![Call::limit(*resource, *value)],
        Step::RunOn { mask } => vec![Call::run_on(mask)],
        Step::Streams => Call::own_streams(files.stdout, files.stderr).into(),
        Step::EnterDirectory { path } => path.iter().map(Call::change_directory).collect(),
        _ => Vec::new(),
    }
}

/// Other users' processes, of which PID 1 is the only one, are not shown. What
/// else is dangerous in a `/proc` belongs to root and is closed to the action's
/// user by the files' modes.
fn proc_mount() -> Call {
    let flags = WRITABLE_MOUNT | libc_flags::NOEXEC;
    Call::mount(c"proc", c"/proc", flags, c"hidepid=invisible")
}

fn tmpfs(target: &CStr, bytes: u64, inodes: u64) -> Call {
    let options = format!("mode=1777,size={bytes},nr_inodes={inodes}");
    // Digits and words have no NUL, so the fallback is never taken.
    let options = CString::new(options).unwrap_or_default();
    Call::mount(c"tmpfs", target, WRITABLE_MOUNT, &options)
}
