//! Translates steps into system calls.
//!
//! The order of the steps stays; what a step needs beside its own data (descriptors, the filter)
//! comes in here.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use model::ACTION_ID;
use sys::call::{Call, Instruction, Program, Resource};
use sys::init;
use sys::strings::Strings;

use crate::plan::hidden::Hidden;
use crate::plan::step::{
    ActionPreparation, ActionStep, InitPreparation, InitStep, StepName, TmpfsSize,
};
use crate::plan::{Preparation, Run};

/// The mount point of the input root in the template.
const EXECROOT: &CStr = c"/execroot";

/// Flags of every file system that an action can write to.
const WRITABLE_MOUNT: u64 = mount_flags::NOSUID | mount_flags::NODEV;

/// The flags of mount(2), as in linux/mount.h.
mod mount_flags {
    pub(super) const NOSUID: u64 = 2;
    pub(super) const NODEV: u64 = 4;
    pub(super) const NOEXEC: u64 = 8;
}

/// The descriptors that the steps of a [`Run`] need.
pub(crate) struct RunFiles<'a> {
    /// Standard input of an action that someone talks to; `/dev/null` for the others.
    pub(crate) stdin: Option<BorrowedFd<'a>>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
    pub(crate) input_root: BorrowedFd<'a>,
}

/// The programs that both processes run before an action is known.
pub(crate) fn preparation(
    preparation: &Preparation,
    filter: &Arc<[Instruction]>,
) -> init::Preparation {
    let mut lowered = init::Preparation::default();
    lowered.init.push(0, Call::set_name(c"sandbox-init"));
    lowered.action.push(0, Call::set_name(c"sandbox-action"));
    for step in &preparation.init {
        lowered.init.push(step.name().number(), init_preparation(*step));
    }
    for step in &preparation.action {
        push_all(&mut lowered.action, step.name(), action_preparation(*step, filter));
    }
    lowered
}

/// The programs that both processes run for one action.
pub(crate) fn run(run: Run, files: &RunFiles<'_>) -> init::Run {
    let Run { init, action, execute } = run;
    let mut lowered = init::Run {
        execution: init::Execution {
            label: StepName::Execute.number(),
            candidates: execute.candidates,
            arguments: execute.arguments,
            environment: execute.environment,
        },
        ..init::Run::default()
    };
    for step in &init {
        let (program, calls) = match step {
            InitStep::AttachInputRoot => {
                (&mut lowered.attach, vec![Call::attach(files.input_root, EXECROOT)])
            }
            InitStep::CoverInputRoot => {
                (&mut lowered.attach, vec![Call::bind_tree_onto_itself(EXECROOT)])
            }
            InitStep::CloseSubtrees { paths, are_closed } => {
                (&mut lowered.attach, close_subtrees(paths, are_closed))
            }
            InitStep::EnterInputRoot => (&mut lowered.attach, enter_input_root()),
            InitStep::Confine => {
                (&mut lowered.confine, vec![Call::drop_capabilities(), Call::own_files_below(0)])
            }
        };
        push_all(program, step.name(), calls);
    }
    for step in &action {
        push_all(&mut lowered.action, step.name(), action_step(step, files));
    }
    lowered
}

fn push_all(program: &mut Program, name: StepName, calls: Vec<Call>) {
    for call in calls {
        program.push(name.number(), call);
    }
}

fn init_preparation(step: InitPreparation) -> Call {
    match step {
        InitPreparation::NewCgroupNamespace => Call::new_cgroup_namespace(),
        InitPreparation::MountProc => proc_mount(),
        InitPreparation::Hide(Hidden { path, cover }) => Call::bind(cover, path),
        InitPreparation::MountTmp(size) => tmpfs(c"/tmp", size),
        InitPreparation::MountShm(size) => tmpfs(c"/dev/shm", size),
    }
}

/// Closed and open directories become mounts, before the first of them can't be written to: a mount is
/// as read-only as the one that it is made of.
///
/// The outer ones come first. A mount takes along those that are below it at that time, so in this order
/// each costs one, and in another one a chain of n directories could cost n²/4.
///
/// Paths are those of directories of the input tree, and nothing has run yet that could have put a symlink
/// in the place of one.
fn close_subtrees(paths: &Strings, are_closed: &[bool]) -> Vec<Call> {
    // The input root has its second mount.
    let is_no_mount = |path: &&CStr| *path != EXECROOT;
    let mut calls: Vec<Call> =
        paths.iter().filter(is_no_mount).map(Call::bind_tree_onto_itself).collect();
    let closed = paths.iter().zip(are_closed).filter(|(_, is_closed)| **is_closed);
    calls.extend(closed.map(|(path, _)| Call::make_read_only(path)));
    calls
}

/// The mounts of the sandbox's own that are moved to the input root, each onto a directory of it.
/// Paths of the input root are a client's: the last component is not followed if it is a symlink,
/// and there is no other.
fn enter_input_root() -> Vec<Call> {
    // `/dev` is a directory of the template, whose mounts can't be moved one by one.
    let mut calls = vec![Call::bind_tree_onto_itself(c"/dev")];
    let moves =
        [(c"/dev", c"/execroot/dev"), (c"/proc", c"/execroot/proc"), (c"/tmp", c"/execroot/tmp")];
    calls.extend(moves.map(|(source, target)| Call::move_mount(source, target)));
    calls.extend(Call::enter_root(EXECROOT));
    calls
}

fn action_preparation(step: ActionPreparation, filter: &Arc<[Instruction]>) -> Vec<Call> {
    match step {
        ActionPreparation::NewSession => vec![Call::new_session()],
        ActionPreparation::DropGroups => vec![Call::drop_groups()],
        ActionPreparation::SetGroup => vec![Call::set_gid(ACTION_ID)],
        // Until it executes a program it shares memory with its privileged parents. Whether a
        // change of user makes that memory undumpable depends on a setting of the host.
        ActionPreparation::SetUser => vec![Call::set_uid(ACTION_ID), Call::not_dumpable()],
        ActionPreparation::DropCapabilities => vec![Call::drop_capabilities()],
        ActionPreparation::NoNewPrivileges => vec![Call::no_new_privileges()],
        ActionPreparation::Filter => vec![Call::filter(Arc::clone(filter))],
    }
}

fn action_step(step: &ActionStep, files: &RunFiles<'_>) -> Vec<Call> {
    match step {
        ActionStep::LimitProcesses(value) => vec![Call::limit(Resource::Processes, *value)],
        ActionStep::LimitAddressSpace(value) => vec![Call::limit(Resource::AddressSpace, *value)],
        ActionStep::RunOn { mask } => vec![Call::run_on(mask)],
        ActionStep::Streams => Call::own_streams(files.stdin, files.stdout, files.stderr).into(),
        ActionStep::Terminal => vec![Call::take_terminal()],
        ActionStep::EnterDirectory { path } => path.iter().map(Call::change_directory).collect(),
    }
}

/// Hides processes of other users, of which PID 1 is the only one.
fn proc_mount() -> Call {
    let flags = WRITABLE_MOUNT | mount_flags::NOEXEC;
    Call::mount(c"proc", c"/proc", flags, c"hidepid=invisible")
}

fn tmpfs(target: &CStr, TmpfsSize { bytes, inodes }: TmpfsSize) -> Call {
    let options = format!("mode=1777,size={bytes},nr_inodes={inodes}");
    // Digits and words have no NUL, so the fallback is never taken.
    let options = CString::new(options).unwrap_or_default();
    Call::mount(c"tmpfs", target, WRITABLE_MOUNT, &options)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::plan::{Ids, Sizes, step};

    /// The labels of a program, each as the step that it names; 0 labels the process's name.
    fn steps(program: &Program) -> Vec<StepName> {
        program.labels().filter_map(StepName::from_number).collect()
    }

    #[test]
    fn both_processes_are_prepared_in_the_order_of_the_plan() {
        use StepName::*;
        let filter: Arc<[Instruction]> = Arc::default();
        let hidden = Vec::from_iter(Hidden::new(c"/proc/keys", 0o100_444));
        let lowered = preparation(
            &crate::plan::preparation(&Sizes::default(), Ids::default(), &hidden),
            &filter,
        );
        assert_eq!(
            steps(&lowered.init),
            [Init, NewCgroupNamespace, MountProc, Hide, MountTmp, MountShm]
        );
        assert_eq!(
            steps(&lowered.action),
            [
                Init,
                NewSession,
                DropGroups,
                SetGroup,
                SetUser,
                SetUser,
                DropCapabilities,
                NoNewPrivileges,
                Filter
            ]
        );
    }

    #[test]
    fn the_input_root_is_entered_before_the_action_can_start() {
        use StepName::*;
        let null = std::fs::File::open("/dev/null").unwrap();
        let files = RunFiles {
            stdin: None,
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            input_root: null.as_fd(),
        };
        let init = vec![
            InitStep::AttachInputRoot,
            InitStep::CoverInputRoot,
            InitStep::EnterInputRoot,
            InitStep::Confine,
        ];
        let lowered = run(Run { init, ..Run::default() }, &files);
        let mut expected = vec![AttachInputRoot, CoverInputRoot];
        expected.extend([EnterInputRoot; 8]);
        assert_eq!(steps(&lowered.attach), expected);
        assert_eq!(steps(&lowered.confine), [ConfineInit, ConfineInit]);
    }

    #[test]
    fn a_run_attaches_before_and_confines_after_the_action_can_start() {
        use StepName::*;
        let null = std::fs::File::open("/dev/null").unwrap();
        let files = RunFiles {
            stdin: None,
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            input_root: null.as_fd(),
        };
        let plan = Run {
            init: vec![InitStep::AttachInputRoot, InitStep::Confine],
            action: vec![
                ActionStep::LimitProcesses(5),
                ActionStep::LimitAddressSpace(6),
                ActionStep::RunOn { mask: vec![1] },
                ActionStep::Streams,
                ActionStep::EnterDirectory { path: [c"/execroot"].into_iter().collect() },
            ],
            execute: step::Execute {
                candidates: [c"/bin/a"].into_iter().collect(),
                arguments: [c"a", c"b"].into_iter().collect(),
                environment: [c"C=d"].into_iter().collect(),
            },
        };
        let execute = plan.execute.clone();
        let lowered = run(plan, &files);
        assert_eq!(steps(&lowered.attach), [AttachInputRoot]);
        assert_eq!(steps(&lowered.confine), [ConfineInit, ConfineInit]);
        assert_eq!(
            steps(&lowered.action),
            [
                Limit,
                Limit,
                RunOn,
                Streams,
                Streams,
                Streams,
                Streams,
                Streams,
                Streams,
                EnterDirectory
            ]
        );
        assert_eq!(lowered.execution.label, Execute.number());
        assert_eq!(lowered.execution.candidates, execute.candidates);
        assert_eq!(lowered.execution.arguments, execute.arguments);
        assert_eq!(lowered.execution.environment, execute.environment);
    }
}
