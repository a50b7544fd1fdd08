//! Ways to files of the host.

use anyhow::ensure;
use testkit::Action;
use tonic::Code;

use crate::case::{Case, calls, program, steps};
use crate::world::World;

/// A path that is not there, or not this user's to look at.
const CLOSED: &str = "ENOENT|EACCES|EPERM";
/// A place that can't be written.
const READ_ONLY: &str = "EROFS|EACCES|EPERM|EXDEV|EBUSY|ENOENT";

pub(super) const CASES: &[Case] = &[
    program("every-way-up-to-a-file-of-the-host", &["walk-up", "{canary}"]).prints(""),
    program("every-way-up-to-the-hosts-shadow", &["walk-up", "/etc/shadow"]).prints(""),
    program("every-way-up-to-the-hosts-home", &["walk-up", "/root/"]).prints(""),
    calls("create-at-a-path-of-the-host", "openat AT '{canary}' WRONLY|CREAT 0666").fails(CLOSED),
    calls("write-through-the-root-of-pid-1", "openat AT '/proc/1/root{canary}' RDWR").fails(CLOSED),
    calls("write-through-the-cwd-of-pid-1", "openat AT '/proc/1/cwd{canary}' RDWR").fails(CLOSED),
    calls("read-the-program-of-pid-1", "openat AT '/proc/1/exe' RDONLY").fails(CLOSED),
    calls("read-the-environment-of-pid-1", "openat AT '/proc/1/environ' RDONLY").fails(CLOSED),
    calls("write-the-memory-of-pid-1", "openat AT '/proc/1/mem' RDWR").fails(CLOSED),
    calls("read-the-map-of-pid-1", "openat AT '/proc/1/maps' RDONLY").fails(CLOSED),
    calls("open-a-descriptor-of-pid-1", "openat AT '/proc/1/fd/0' RDWR").fails(CLOSED),
    calls("list-descriptors-of-pid-1", "openat AT '/proc/1/fd' RDONLY|DIRECTORY").fails(CLOSED),
    calls("open-a-namespace-of-pid-1", "openat AT '/proc/1/ns/mnt' RDONLY").fails(CLOSED),
    calls("read-where-pid-1-is", "readlinkat AT '/proc/1/root' &100 100").fails(CLOSED),
    calls("the-root-of-a-thread-of-pid-1", "chdir '/proc/1/task/1/root'").fails(CLOSED),
    calls("a-file-by-handle", "open_by_handle_at AT &136 0").fails("EPERM"),
    calls("read-through-an-input-symlink", "openat AT '/execroot/out' RDONLY")
        .links(&[("out", "{canary}")])
        .fails(CLOSED),
    calls("create-through-an-input-symlink", "openat AT '/execroot/out' WRONLY|CREAT 0666")
        .links(&[("out", "{canary}")])
        .fails(CLOSED),
    calls("read-through-a-symlink-to-pid-1", "openat AT '/execroot/out' RDONLY")
        .links(&[("out", "/proc/1/root/etc/shadow")])
        .fails(CLOSED),
    program("execute-a-file-of-the-host", &["execute", "{canary}"]).prints("ENOENT"),
    program("execute-the-program-of-pid-1", &["execute", "/proc/1/exe"]).prints("ENOENT"),
    // The program that the action's process was started from, until it has its own.
    steps("execute-the-helper", |world| {
        Box::pin(execute_the_helper(world, |action| named(action, "/proc/self/exe")))
    }),
    steps("execute-the-helper-as-a-thread", |world| {
        Box::pin(execute_the_helper(world, |action| named(action, "/proc/thread-self/exe")))
    }),
    steps("execute-the-helper-by-a-symlink", |world| {
        Box::pin(execute_the_helper(world, |action| {
            named(action, "./link").symlink("link", "/proc/self/exe")
        }))
    }),
    steps("execute-the-helper-from-the-path", |world| {
        Box::pin(execute_the_helper(world, |action| named(action, "exe").env("PATH", "/proc/self")))
    }),
    steps("execute-the-helper-as-interpreter", |world| {
        Box::pin(execute_the_helper(world, |action| {
            named(action, "./script").executable("script", "#!/proc/self/exe\n")
        }))
    }),
    steps("execute-the-helper-as-loader", |world| {
        Box::pin(execute_the_helper(world, |action| {
            named(action, "./program")
                .executable("program", testkit::elf::dynamic("/proc/self/exe"))
        }))
    }),
    // Working directories.
    work_in("work-in-the-root-of-pid-1", &[("wd", "/proc/1/root")]),
    work_in("work-in-the-etc-of-pid-1", &[("wd", "/proc/1/root/etc")]),
    work_in("work-in-the-cwd-of-pid-1", &[("wd", "/proc/1/cwd")]),
    work_in("work-in-a-thread-of-pid-1", &[("wd", "/proc/1/task/1/root")]),
    work_in("work-in-a-directory-of-the-host", &[("wd", "{directory}")]),
    work_in("work-in-a-way-up-to-the-host", &[("wd", "../../../../../../../..{directory}")]),
    work_in("work-in-a-descriptor-of-the-set-up", &[("wd", "/proc/self/fd/3")]),
    work_in("work-in-another-descriptor", &[("wd", "/proc/self/fd/4")]),
    work_in("work-in-standard-input", &[("wd", "/proc/self/fd/0")]),
    work_in("work-in-a-home", &[("wd", "/root")]),
    work_in("work-in-a-loop", &[("wd", "also"), ("also", "wd")]),
    work_inside("work-in-its-own-root", &[("wd", "/proc/self/root")]),
    work_inside("work-in-its-own-directory", &[("wd", "/proc/self/cwd")]),
    work_inside("work-above-its-own-directory", &[("wd", "/proc/self/cwd/../../..")]),
    work_inside("work-above-the-root", &[("wd", "../../../../../../..")]),
    program("work-in-a-file", &["nothing"]).in_directory("input").refused(&[Code::InvalidArgument]),
    // The sandbox's own root.
    calls("create-in-the-root", "openat AT '/new' WRONLY|CREAT 0666")
        .fails(READ_ONLY)
        .only_beside_a_root(),
    calls("write-a-file-of-etc", "openat AT '/etc/passwd' WRONLY").fails(READ_ONLY),
    calls("change-modes-of-etc", "fchmodat AT '/etc/passwd' 0666").fails(READ_ONLY),
    calls("take-a-device-away", "unlinkat AT '/dev/null' 0").fails(READ_ONLY),
    calls("take-etc-away", "renameat2 AT '/etc' AT '/tmp/etc' 0").fails(READ_ONLY),
    calls("link-etc-to-a-writable-place", "linkat AT '/etc/passwd' AT '/tmp/passwd' 0")
        .fails(READ_ONLY),
    calls("replace-the-execroot", "renameat2 AT '/execroot' AT '/gone' 0")
        .fails(READ_ONLY)
        .only_beside_a_root(),
    calls("change-the-mode-of-the-root", "fchmodat AT '/' 0777")
        .fails(READ_ONLY)
        .only_beside_a_root(),
    calls("make-a-directory-in-dev", "mkdirat AT '/dev/new' 0777").fails(READ_ONLY),
    // Devices.
    calls("make-a-memory-device", "mknodat AT '/tmp/mem' CHAR|0666 0x101").fails("EPERM"),
    calls("make-a-disk-device", "mknodat AT '/tmp/disk' BLOCK|0666 0x800").fails("EPERM"),
    calls("make-a-device-among-outputs", "mknodat AT '/execroot/mem' CHAR|0666 0x101")
        .fails("EPERM"),
    calls("make-a-device-in-shared-memory", "mknodat AT '/dev/shm/mem' CHAR|0666 0x101")
        .fails("EPERM"),
    calls("open-memory", "openat AT '/dev/mem' RDWR").fails("ENOENT"),
    calls("open-the-kernels-log", "openat AT '/dev/kmsg' RDWR").fails("ENOENT"),
    calls("open-ports", "openat AT '/dev/port' RDWR").fails("ENOENT"),
    calls("open-the-loop-control", "openat AT '/dev/loop-control' RDWR").fails("ENOENT"),
    calls("open-fuse", "openat AT '/dev/fuse' RDWR").fails("ENOENT"),
    calls("open-kvm", "openat AT '/dev/kvm' RDWR").fails("ENOENT"),
    calls("open-tun", "openat AT '/dev/net/tun' RDWR").fails("ENOENT"),
    calls("open-a-terminal", "openat AT '/dev/tty' RDWR").fails("ENXIO"),
    calls("open-the-kernels-objects", "openat AT '/sys/kernel' RDONLY|DIRECTORY").fails("ENOENT"),
    calls("open-the-cgroups", "openat AT '/sys/fs/cgroup' RDONLY|DIRECTORY").fails("ENOENT"),
];

fn named(action: Action, program: &str) -> Action {
    action.change_command(|command| command.arguments = vec![program.to_owned()])
}

/// Nothing is executed, and not for want of a loader: nobody but root may execute it.
async fn execute_the_helper(world: &World, how: fn(Action) -> Action) -> anyhow::Result<()> {
    let run = world.run(&how(world.action(&["nothing"]))).await?;
    let (stdout, stderr) = (run.stdout().await?, run.stderr().await?);
    let is_refused = stderr.contains("permission denied (mode 0010)");
    ensure!(
        run.exit_code()? == 126 && stdout.is_empty() && is_refused,
        "exit code {}, {stdout:?}, {stderr:?}",
        run.exit_code()?
    );
    Ok(())
}

/// A working directory that leads nowhere.
const fn work_in(name: &'static str, links: &'static [(&'static str, &'static str)]) -> Case {
    program(name, &["nothing"]).links(links).in_directory("wd").refused(&[Code::InvalidArgument])
}

/// A working directory that leads to what is inside anyway.
const fn work_inside(name: &'static str, links: &'static [(&'static str, &'static str)]) -> Case {
    program(name, &["walk-up", "{canary}"]).links(links).in_directory("wd").prints("")
}
