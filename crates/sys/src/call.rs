//! System calls written down first and made later.
//!
//! A process that shares our memory (see [`crate::init`]) must not allocate, lock
//! or touch thread-local data. So whatever it will do is put together beforehand
//! as a [`Program`]: a straight line of [`Call`]s, each with all its memory. The
//! constructors here are the whole vocabulary; none of them can write to memory
//! or close a descriptor that somebody else holds, which is what makes running a
//! program safe.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use rustix::io::Errno;

use crate::syscall::syscall;

/// The `dirfd` that is ignored for absolute paths.
const AT_FDCWD: usize = libc::AT_FDCWD as usize;

/// One instruction of a classic BPF program (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation, `BPF_*`.
    pub code: u16,
    /// Instructions to skip when the test holds.
    pub when_true: u8,
    /// Instructions to skip when it does not.
    pub when_false: u8,
    /// Operand.
    pub operand: u32,
}

/// A resource whose limit an action has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Resource {
    /// Bytes of address space.
    AddressSpace = 0,
    /// Processes and threads of the user in its user namespace.
    Processes = 1,
    /// One more than the highest descriptor.
    OpenFiles = 2,
}

impl Resource {
    fn raw(self) -> usize {
        (match self {
            Self::AddressSpace => libc::RLIMIT_AS,
            Self::Processes => libc::RLIMIT_NPROC,
            Self::OpenFiles => libc::RLIMIT_NOFILE,
        }) as usize
    }
}

#[derive(Clone, Debug)]
enum Argument {
    Value(usize),
    /// Read by the kernel during the call only.
    Memory(Box<[u8]>),
    /// A `struct sock_fprog` about these instructions.
    Filter(Arc<[Instruction]>),
}

/// One system call with its arguments.
#[derive(Clone, Debug)]
pub struct Call {
    number: usize,
    arguments: [Argument; 6],
}

/// Calls in order, each with a label of the caller's that names it in a failure.
#[derive(Clone, Debug, Default)]
pub struct Program(Vec<(u16, Call)>);

impl Program {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends `call`; `label` comes back if it fails.
    pub fn push(&mut self, label: u16, call: Call) {
        self.0.push((label, call));
    }

    /// The labels of the calls, in order.
    pub fn labels(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|(label, _)| *label)
    }

    /// Makes the calls up to the first that fails, whose label is returned.
    pub(crate) fn run(&self) -> Result<(), (u16, Errno)> {
        for (label, call) in &self.0 {
            call.make().map_err(|errno| (*label, errno))?;
        }
        Ok(())
    }
}

impl Call {
    /// mount(2) of a new file system of `kind` on `target`; `flags` are `MS_*`.
    pub fn mount(kind: &CStr, target: &CStr, flags: u64, options: &CStr) -> Self {
        let arguments =
            [text(kind), text(target), text(kind), value(flags as usize), text(options)];
        Self::new(libc::SYS_mount, arguments)
    }

    /// mount(2) with MS_BIND: what is at `source` appears at `target`, too.
    pub fn bind(source: &CStr, target: &CStr) -> Self {
        let flags = value(libc::MS_BIND as usize);
        Self::new(libc::SYS_mount, [text(source), text(target), value(0), flags, value(0)])
    }

    /// move_mount(2) of the detached mount `mount` onto `target`, which is
    /// resolved from the root; `mount` must stay open until the call was made.
    pub fn attach(mount: BorrowedFd<'_>, target: &CStr) -> Self {
        let arguments = [
            descriptor(mount),
            text(c""),
            value(AT_FDCWD),
            text(target),
            value(libc::MOVE_MOUNT_F_EMPTY_PATH as usize),
        ];
        Self::new(libc::SYS_move_mount, arguments)
    }

    /// mount(2) with MS_BIND and MS_REC: the mounts at and below `directory` appear there a second
    /// time, on top, in a mount that the caller's namespace made and that can be moved.
    pub fn bind_tree_onto_itself(directory: &CStr) -> Self {
        let flags = value((libc::MS_BIND | libc::MS_REC) as usize);
        Self::new(libc::SYS_mount, [text(directory), text(directory), value(0), flags, value(0)])
    }

    /// move_mount(2) of the mount at `source` onto `target`. A symlink at the end of `target` is not
    /// followed, and fails.
    pub fn move_mount(source: &CStr, target: &CStr) -> Self {
        let arguments = [value(AT_FDCWD), text(source), value(AT_FDCWD), text(target), value(0)];
        Self::new(libc::SYS_move_mount, arguments)
    }

    /// mount_setattr(2): nothing can be written through the mount at `directory`, a symlink at the end
    /// of which is not followed. Mounts below it stay as they are.
    pub fn make_read_only(directory: &CStr) -> Self {
        // linux/mount.h: struct mount_attr { attr_set, attr_clr, propagation, userns_fd }.
        let attributes = [libc::MOUNT_ATTR_RDONLY, 0, 0, 0].map(u64::to_ne_bytes).concat();
        let (flags, size) = (value(libc::AT_SYMLINK_NOFOLLOW as usize), value(attributes.len()));
        let arguments = [value(AT_FDCWD), text(directory), flags, memory(attributes), size];
        Self::new(libc::SYS_mount_setattr, arguments)
    }

    /// Makes the mount at `directory` the root of all processes in the mount namespace whose root
    /// was the present one, and lets go of the old root with everything below it.
    pub fn enter_root(directory: &CStr) -> [Self; 4] {
        [
            Self::change_directory(directory),
            // pivot_root(2): with "." for both, the old root ends up on top of the new.
            Self::new(libc::SYS_pivot_root, [text(c"."), text(c".")]),
            Self::new(libc::SYS_umount2, [text(c"."), value(libc::MNT_DETACH as usize)]),
            Self::change_directory(c"/"),
        ]
    }

    /// unshare(2) of the cgroup namespace: the present cgroup becomes its root.
    pub fn new_cgroup_namespace() -> Self {
        Self::new(libc::SYS_unshare, [value(libc::CLONE_NEWCGROUP as usize)])
    }

    /// setsid(2): a session and process group of its own, without a terminal.
    pub fn new_session() -> Self {
        Self::new(libc::SYS_setsid, [])
    }

    /// prctl(PR_SET_NAME): what ps(1) shows until the next execve(2).
    pub fn set_name(name: &CStr) -> Self {
        Self::prctl(libc::PR_SET_NAME, [text(name)])
    }

    /// setgroups(2) to none.
    pub fn drop_groups() -> Self {
        Self::new(libc::SYS_setgroups, [])
    }

    /// setresgid(2) of all three to `gid` (the file system one follows).
    pub fn set_gid(gid: u32) -> Self {
        Self::new(
            libc::SYS_setresgid,
            [value(gid as usize), value(gid as usize), value(gid as usize)],
        )
    }

    /// setresuid(2) of all three to `uid` (the file system one follows).
    pub fn set_uid(uid: u32) -> Self {
        Self::new(
            libc::SYS_setresuid,
            [value(uid as usize), value(uid as usize), value(uid as usize)],
        )
    }

    /// capset(2) with nothing effective, permitted or inheritable, and with that
    /// nothing ambient.
    pub fn drop_capabilities() -> Self {
        // linux/capability.h: the header is { version 3, pid 0 = the caller },
        // the data two times { effective, permitted, inheritable }.
        const VERSION_3: u32 = 0x2008_0522;
        let header = [VERSION_3.to_ne_bytes(), 0_u32.to_ne_bytes()].concat();
        Self::new(libc::SYS_capset, [memory(header), memory(vec![0; 24])])
    }

    /// prctl(PR_SET_DUMPABLE) to no, until the next execve(2): only who is privileged
    /// where the memory was made may look into it.
    pub fn not_dumpable() -> Self {
        Self::prctl(libc::PR_SET_DUMPABLE, [value(0)])
    }

    /// prctl(PR_SET_NO_NEW_PRIVS).
    pub fn no_new_privileges() -> Self {
        Self::prctl(libc::PR_SET_NO_NEW_PRIVS, [value(1)])
    }

    /// seccomp(2) with a filter, which also binds all descendants.
    pub fn filter(instructions: Arc<[Instruction]>) -> Self {
        let mode = value(libc::SECCOMP_SET_MODE_FILTER as usize);
        Self::new(libc::SYS_seccomp, [mode, value(0), Argument::Filter(instructions)])
    }

    /// prlimit64(2): soft and hard limit of the process itself.
    pub fn limit(resource: Resource, limit: u64) -> Self {
        let both = [limit.to_ne_bytes(), limit.to_ne_bytes()].concat();
        Self::new(libc::SYS_prlimit64, [value(0), value(resource.raw()), memory(both)])
    }

    /// sched_setaffinity(2) to the CPUs whose bits are set in `mask`, 64 a word.
    pub fn run_on(mask: &[u64]) -> Self {
        let bytes: Vec<u8> = mask.iter().flat_map(|word| word.to_ne_bytes()).collect();
        Self::new(libc::SYS_sched_setaffinity, [value(0), value(bytes.len()), memory(bytes)])
    }

    /// chdir(2).
    pub fn change_directory(path: &CStr) -> Self {
        Self::new(libc::SYS_chdir, [text(path)])
    }

    /// Gives the process a descriptor table of its own in which 0 is `stdin`, or `/dev/null`, opened anew,
    /// `stdout` and `stderr` are 1 and 2, and nothing else is open. All must be above 2, and stay
    /// open until the calls were made.
    pub fn own_streams(
        stdin: Option<BorrowedFd<'_>>,
        stdout: BorrowedFd<'_>,
        stderr: BorrowedFd<'_>,
    ) -> [Self; 6] {
        // The lowest free descriptor is the one that is opened next.
        let null = [value(AT_FDCWD), text(c"/dev/null"), value(libc::O_RDONLY as usize)];
        let input = match stdin {
            Some(stdin) => Self::new(libc::SYS_dup3, [descriptor(stdin), value(0), value(0)]),
            None => Self::new(libc::SYS_openat, null),
        };
        [
            Self::new(libc::SYS_unshare, [value(libc::CLONE_FILES as usize)]),
            Self::new(libc::SYS_close_range, [value(0), value(0), value(0)]),
            input,
            Self::new(libc::SYS_dup3, [descriptor(stdout), value(1), value(0)]),
            Self::new(libc::SYS_dup3, [descriptor(stderr), value(2), value(0)]),
            Self::own_files_below(3),
        ]
    }

    /// Makes the terminal that is standard input the controlling terminal of the session, which the
    /// process leads and which has none yet.
    pub fn take_terminal() -> Self {
        Self::new(libc::SYS_ioctl, [value(0), value(libc::TIOCSCTTY as usize), value(0)])
    }

    /// Gives the process a descriptor table of its own, in which only descriptors
    /// below `first` are open.
    pub fn own_files_below(first: u32) -> Self {
        let flags = value(libc::CLOSE_RANGE_UNSHARE as usize);
        Self::new(libc::SYS_close_range, [value(first as usize), value(u32::MAX as usize), flags])
    }

    fn prctl<const N: usize>(option: libc::c_int, rest: [Argument; N]) -> Self {
        let mut call = Self::new(libc::SYS_prctl, [value(option as usize)]);
        for (slot, argument) in call.arguments.iter_mut().skip(1).zip(rest) {
            *slot = argument;
        }
        call
    }

    fn new<const N: usize>(number: libc::c_long, arguments: [Argument; N]) -> Self {
        let mut all = [const { Argument::Value(0) }; 6];
        for (slot, argument) in all.iter_mut().zip(arguments) {
            *slot = argument;
        }
        Self { number: number as usize, arguments: all }
    }

    /// Makes the call. Neither allocates nor touches thread-local data.
    pub(crate) fn make(&self) -> Result<usize, Errno> {
        // A call has at most one filter, so one header is enough.
        let mut header = libc::sock_fprog { len: 0, filter: std::ptr::null_mut() };
        let mut raw = [0_usize; 6];
        for (slot, argument) in raw.iter_mut().zip(&self.arguments) {
            *slot = match argument {
                Argument::Value(value) => *value,
                Argument::Memory(bytes) => bytes.as_ptr() as usize,
                Argument::Filter(instructions) => {
                    header.len = instructions.len() as u16;
                    header.filter = instructions.as_ptr().cast_mut().cast();
                    &raw const header as usize
                }
            };
        }
        // SAFETY: the constructors above give every pointer argument memory of
        // the length that its call reads, owned by `self` or on this stack frame;
        // none of the calls in the vocabulary writes to memory of ours or keeps a
        // pointer.
        unsafe { syscall(self.number, raw) }
    }
}

fn value(value: usize) -> Argument {
    Argument::Value(value)
}

fn text(text: &CStr) -> Argument {
    memory(text.to_bytes_with_nul().to_vec())
}

fn memory(bytes: Vec<u8>) -> Argument {
    Argument::Memory(bytes.into())
}

/// Sign-extended by the kernel; descriptors are never negative.
fn descriptor(descriptor: BorrowedFd<'_>) -> Argument {
    value(descriptor.as_raw_fd() as usize)
}
