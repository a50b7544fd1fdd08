//! Plans what a sandbox does, from what an action is. Pure, so that tests can show whole plans.
//!
//! The order is part of the security: the action's process gives up all privileges before it enters
//! the working directory or resolves any other path of the client's.
//!
//! [`step`] has the steps, [`hidden`] what of `/proc` is covered, [`lower`] translates them into system calls, [`seccomp`] makes the filter.

pub(crate) mod hidden;
pub(crate) mod lower;
pub(crate) mod seccomp;
pub(crate) mod step;

use std::ffi::{CStr, CString};

use model::{MAX_NAME_BYTES, MAX_PATH_BYTES, RelPath};
use runtimes::InputRootPlace;
use serde::{Deserialize, Serialize};
use sys::strings::Strings;

use crate::plan::hidden::Hidden;
use crate::plan::step::{
    ActionPreparation, ActionStep, Execute, InitPreparation, InitStep, TmpfsSize,
};

/// The mount point of the input root in the template.
const WORKSPACE: &str = "/execroot";

/// The longest path of a directory in the input root that can be mounted on, in bytes: with `/execroot/` in
/// front of it and its NUL it fills Linux's `PATH_MAX`.
pub const MAX_MOUNT_PATH_BYTES: usize = MAX_PATH_BYTES - WORKSPACE.len() - 1;

/// The search path for programs without a slash if the environment has no PATH.
pub const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The most directories of a PATH that are tried. Each costs a system call and up to 4 KiB, and no
/// real PATH has so many.
const MAX_CANDIDATES: usize = 256;

/// The command to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Command<'a> {
    /// argv; the first decides what is executed.
    pub(crate) arguments: &'a [CString],
    /// `NAME=value` each: the whole environment of the action.
    pub(crate) environment: &'a [CString],
    /// Relative to the input root.
    pub(crate) working_directory: &'a RelPath,
    /// The path of the input root, for the action.
    pub(crate) place: InputRootPlace,
    /// The directories of the input root from which on writes are closed (`true`) or open, each before
    /// those below it.
    pub(crate) write_changes: &'a [(RelPath, bool)],
    /// Whether the streams are one terminal.
    pub(crate) has_terminal: bool,
}

/// The limits of the process itself; those of a cgroup come on top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessLimits {
    /// Processes and threads.
    pub(crate) processes: u64,
    /// Bytes of address space of each process.
    pub(crate) address_space: Option<u64>,
    /// CPUs to run on, one bit each.
    pub(crate) cpus: Option<Vec<u64>>,
}

/// The bounds of the scratch file systems, the same for all sandboxes of a helper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// `/tmp`.
    pub(crate) tmp: TmpfsSize,
    /// `/dev/shm`.
    pub(crate) shm: TmpfsSize,
}

/// The ids that there are for the server and its actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// Whether this process is root in the initial user namespace. Elsewhere a helper needs a PID
    /// namespace of its own to mount a `/proc`.
    pub are_initial: bool,
    /// Whether actions have a user and a group of their own. Otherwise they have those of the server.
    pub has_action: bool,
}

impl Ids {
    /// The processes of a sandbox that the kernel counts as the action's: with one id, the helper and PID 1
    /// are the same user's in the sandbox's namespace.
    pub(crate) fn others(self) -> u64 {
        if self.has_action { 0 } else { 2 }
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self { are_initial: true, has_action: true }
    }
}

/// The steps of both processes of a sandbox before an action is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preparation {
    pub(crate) init: Vec<InitPreparation>,
    pub(crate) action: Vec<ActionPreparation>,
}

/// Their steps for one action.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) init: Vec<InitStep>,
    pub(crate) action: Vec<ActionStep>,
    pub(crate) execute: Execute,
}

/// Plans the preparation of a sandbox; `hidden` is what this machine has to hide.
pub(crate) fn preparation(sizes: &Sizes, ids: Ids, hidden: &[Hidden]) -> Preparation {
    let mut init = vec![InitPreparation::NewCgroupNamespace, InitPreparation::MountProc];
    init.extend(hidden.iter().copied().map(InitPreparation::Hide));
    init.extend([InitPreparation::MountTmp(sizes.tmp), InitPreparation::MountShm(sizes.shm)]);
    let mut action = vec![ActionPreparation::NewSession];
    // With one id the kernel rules out setgroups(2): the groups are those of the server for good.
    action.extend(ids.has_action.then_some(ActionPreparation::DropGroups));
    action.extend([
        ActionPreparation::SetGroup,
        ActionPreparation::SetUser,
        ActionPreparation::DropCapabilities,
        ActionPreparation::NoNewPrivileges,
        ActionPreparation::Filter,
    ]);
    Preparation { init, action }
}

/// Plans the run of one action.
pub(crate) fn run(command: &Command<'_>, limits: &ProcessLimits) -> Run {
    let mut action = vec![ActionStep::LimitProcesses(limits.processes)];
    action.extend(limits.address_space.map(ActionStep::LimitAddressSpace));
    action.extend(limits.cpus.clone().map(|mask| ActionStep::RunOn { mask }));
    let directory = match command.place {
        InputRootPlace::Execroot => in_workspace(command.working_directory),
        InputRootPlace::Root => absolute(command.working_directory),
    };
    action.push(ActionStep::Streams);
    action.extend(command.has_terminal.then_some(ActionStep::Terminal));
    action.push(ActionStep::EnterDirectory { path: [directory.as_c_str()].into_iter().collect() });
    let mut init = vec![InitStep::AttachInputRoot];
    let closes = close_subtrees(command.write_changes);
    let enters = (command.place == InputRootPlace::Root).then_some(InitStep::EnterInputRoot);
    init.extend((closes.is_some() || enters.is_some()).then_some(InitStep::CoverInputRoot));
    init.extend(closes);
    init.extend(enters);
    init.push(InitStep::Confine);
    Run {
        init,
        action,
        execute: Execute {
            candidates: candidates(command),
            arguments: strings(command.arguments),
            environment: strings(command.environment),
        },
    }
}

fn strings(list: &[CString]) -> Strings {
    list.iter().map(CString::as_c_str).collect()
}

fn close_subtrees(changes: &[(RelPath, bool)]) -> Option<InitStep> {
    let mut paths = Strings::new();
    changes.iter().for_each(|(path, _)| paths.push(&in_workspace(path)));
    let are_closed = changes.iter().map(|(_, is_closed)| *is_closed).collect();
    (!changes.is_empty()).then_some(InitStep::CloseSubtrees { paths, are_closed })
}

/// The path in the template.
fn in_workspace(path: &RelPath) -> CString {
    let slash = if path.is_root() { "" } else { "/" };
    // A `RelPath` has no NUL, so the fallback is never taken.
    CString::new(format!("{WORKSPACE}{slash}{path}")).unwrap_or_default()
}

/// The path in an input root that is the root.
fn absolute(path: &RelPath) -> CString {
    CString::new(format!("/{path}")).unwrap_or_default()
}

/// The paths that execvp(3) would try: the program as it is if it has a slash, else below every
/// directory of the command's own PATH. An empty directory means the working directory.
fn candidates(command: &Command<'_>) -> Strings {
    let Some(program) = command.arguments.first() else { return Strings::new() };
    let is_path = program.is_empty() || program.as_bytes().contains(&b'/');
    // A name that is too long is passed on, so that the kernel tells the error.
    if is_path || program.as_bytes().len() > MAX_NAME_BYTES {
        return [program.as_c_str()].into_iter().collect();
    }
    let mut candidates = Strings::new();
    for directory in
        search_path(command.environment).split(|&byte| byte == b':').take(MAX_CANDIDATES)
    {
        if directory.len() <= MAX_PATH_BYTES {
            candidates.push(&below(directory, program));
        }
    }
    candidates
}

fn search_path(environment: &[CString]) -> &[u8] {
    environment
        .iter()
        .find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="))
        .unwrap_or(DEFAULT_PATH.as_bytes())
}

fn below(directory: &[u8], program: &CStr) -> CString {
    let directory = if directory.is_empty() { b"." } else { directory };
    let path = [directory, b"/", program.to_bytes()].concat();
    // Both parts come from C strings, so the fallback is never taken.
    CString::new(path).unwrap_or_default()
}

#[cfg(test)]
mod tests;
