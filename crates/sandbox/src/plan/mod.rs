//! From what an action is to what its sandbox does: pure, so that tests can show
//! whole plans.
//!
//! The order is part of the security: the working directory is entered, and every
//! path of the client's resolved, only after all privileges are gone.

pub(crate) mod lower;
pub(crate) mod seccomp;
pub(crate) mod step;

use std::ffi::{CStr, CString};

use model::{MAX_NAME_BYTES, MAX_PATH_BYTES, RelPath};
use sys::call::Resource;
use sys::strings::Strings;

use crate::plan::step::Step;

/// Where the input root is attached.
pub const WORKSPACE: &str = "/execroot";

/// Where programs without a slash are looked for if the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Directories of a PATH that are looked at. Each costs a system call and up to
/// 4 KiB, and nobody's PATH comes near.
const MAX_CANDIDATES: usize = 256;

/// What is to be run.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// argv; the first decides what is executed.
    pub arguments: &'a [CString],
    /// `NAME=value` each, and nothing else reaches the action.
    pub environment: &'a [CString],
    /// Relative to the input root.
    pub working_directory: &'a RelPath,
}

/// The limits that the process itself is given; those of a cgroup come on top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Processes and threads.
    pub processes: u64,
    /// Bytes of address space of each process.
    pub address_space: Option<u64>,
    /// CPUs to run on, one bit each.
    pub cpus: Option<Vec<u64>>,
}

/// What the helper was told once about all its sandboxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Bytes of `/tmp`.
    pub tmp_bytes: u64,
    /// Inodes of `/tmp`.
    pub tmp_inodes: u64,
    /// Bytes of `/dev/shm`.
    pub shm_bytes: u64,
    /// Inodes of `/dev/shm`.
    pub shm_inodes: u64,
}

/// What is done before an action is known.
pub(crate) fn preparation(sizes: &Sizes) -> Vec<Step> {
    vec![
        Step::NewCgroupNamespace,
        Step::MountProc,
        Step::MountTmp { bytes: sizes.tmp_bytes, inodes: sizes.tmp_inodes },
        Step::MountShm { bytes: sizes.shm_bytes, inodes: sizes.shm_inodes },
        Step::NewSession,
        Step::DropGroups,
        Step::SetGroup,
        Step::SetUser,
        Step::DropCapabilities,
        Step::NoNewPrivileges,
        Step::Filter,
    ]
}

/// What is done for one action.
pub fn plan(command: &Command<'_>, limits: &ProcessLimits) -> Vec<Step> {
    let mut steps = vec![
        Step::AttachInputRoot,
        Step::ConfineInit,
        Step::Limit { resource: Resource::Processes, value: limits.processes },
    ];
    if let Some(value) = limits.address_space {
        steps.push(Step::Limit { resource: Resource::AddressSpace, value });
    }
    if let Some(mask) = &limits.cpus {
        steps.push(Step::RunOn { mask: mask.clone() });
    }
    let directory = working_directory(command.working_directory);
    steps.extend([
        Step::Streams,
        Step::EnterDirectory { path: [directory.as_c_str()].into_iter().collect() },
        Step::Execute {
            candidates: candidates(command),
            arguments: strings(command.arguments),
            environment: strings(command.environment),
        },
    ]);
    steps
}

fn strings(list: &[CString]) -> Strings {
    list.iter().map(CString::as_c_str).collect()
}

fn working_directory(path: &RelPath) -> CString {
    let slash = if path.is_root() { "" } else { "/" };
    // A `RelPath` has no NUL, so the fallback is never taken.
    CString::new(format!("{WORKSPACE}{slash}{path}")).unwrap_or_default()
}

/// The paths that execvp(3) would try: the program as it is if it has a slash,
/// else below every directory of the command's own PATH, of which an empty one is
/// the working directory.
fn candidates(command: &Command<'_>) -> Strings {
    let Some(program) = command.arguments.first() else { return Strings::new() };
    let is_path = program.is_empty() || program.as_bytes().contains(&b'/');
    // Too long for a file name: the kernel is to say so.
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
        .unwrap_or(DEFAULT_PATH)
}

fn below(directory: &[u8], program: &CStr) -> CString {
    let directory = if directory.is_empty() { b"." } else { directory };
    let path = [directory, b"/", program.to_bytes()].concat();
    // Both parts come from C strings, so the fallback is never taken.
    CString::new(path).unwrap_or_default()
}

#[cfg(test)]
mod tests;
