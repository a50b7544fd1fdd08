//! The kernel refuses a system call while an input root is presented: each call that a strategy makes, with
//! each errno of a machine that fails.
//!
//! The error that comes back must have that errno, of which a status is made, and must not blame the tree. A seccomp
//! filter is the kernel that refuses. A process can't take one off again, so each call has a process of
//! its own: this test binary again, with [`CHILD`] set.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter_all_threads};

use super::bench::Bench;
use crate::mounts::Dialect;
use crate::probe::Variant;
use crate::strategies::{Backing, PresentRequest};
use crate::tree_fixture::TreeFixture;

/// Says which call is to fail with which strategy, and where the outcome is sent to.
const CHILD: &str = "ACTIOND_TEST_FAULT";

/// The longest wait for an outcome. It only ends waits that would never end.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often it is looked at whether the process is still there.
const LOOK: Duration = Duration::from_millis(50);

/// The strategies that a machine of today may have, under the names of their tests.
const VARIANTS: [(&str, Variant); 8] = [
    ("erofs_file", Variant::Erofs(Backing::File, Dialect::Descriptors)),
    ("erofs_file_by_path", Variant::Erofs(Backing::File, Dialect::Paths)),
    ("erofs_loop", Variant::Erofs(Backing::Loop, Dialect::Descriptors)),
    ("erofs_loop_by_path", Variant::Erofs(Backing::Loop, Dialect::Paths)),
    ("tmpfs_overlay", Variant::TmpfsOverlay),
    ("link_overlay", Variant::LinkOverlay(Dialect::Descriptors)),
    ("link_overlay_by_path", Variant::LinkOverlay(Dialect::Paths)),
    ("bind", Variant::Bind),
];

const ERRNOS: [Errno; 6] =
    [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::MFILE, Errno::NOMEM, Errno::ROFS];

const EROFS: &[&str] = &["erofs_file", "erofs_file_by_path", "erofs_loop", "erofs_loop_by_path"];
const BY_PATH: &[&str] = &["erofs_file_by_path", "erofs_loop_by_path"];
const LOOP: &[&str] = &["erofs_loop", "erofs_loop_by_path"];
const BIND: &[&str] = &["bind"];
const ALL: &[&str] =
    &["erofs_file", "erofs_file_by_path", "erofs_loop", "erofs_loop_by_path", "bind"];

/// The calls, and the strategies that can't present anything without them. Others may do without: they
/// don't make the call, or have another way.
const CALLS: [(&str, libc::c_long, &[&str]); 20] = [
    ("fsopen", libc::SYS_fsopen, EROFS),
    ("fsconfig", libc::SYS_fsconfig, EROFS),
    ("fsmount", libc::SYS_fsmount, EROFS),
    ("memfd_create", libc::SYS_memfd_create, LOOP),
    ("ioctl", libc::SYS_ioctl, LOOP),
    ("write", libc::SYS_write, EROFS),
    ("openat", libc::SYS_openat, ALL),
    ("mkdirat", libc::SYS_mkdirat, ALL),
    ("symlinkat", libc::SYS_symlinkat, BIND),
    ("linkat", libc::SYS_linkat, BIND),
    ("mknodat", libc::SYS_mknodat, BIND),
    ("fchmod", libc::SYS_fchmod, BIND),
    ("fchownat", libc::SYS_fchownat, BIND),
    ("ftruncate", libc::SYS_ftruncate, BIND),
    ("open_tree", libc::SYS_open_tree, BIND),
    ("mount_setattr", libc::SYS_mount_setattr, BIND),
    ("move_mount", libc::SYS_move_mount, &["erofs_file_by_path", "erofs_loop_by_path", "bind"]),
    ("mount", libc::SYS_mount, BIND),
    ("umount2", libc::SYS_umount2, BIND),
    ("fchdir", libc::SYS_fchdir, BIND),
];

#[test]
fn an_errno_of_every_call_comes_back() {
    assert!(BY_PATH.iter().all(|name| EROFS.contains(name)));
    let directory = tempfile::tempdir().expect("a directory");
    let mut tested = 0;
    for (name, _) in VARIANTS {
        for (call, _, needed_by) in CALLS {
            let Some(outcomes) = outcomes(directory.path(), name, call) else {
                eprintln!("SKIPPED: {name} does not work here");
                break;
            };
            for (errno, outcome) in ERRNOS.iter().zip(&outcomes) {
                let expected = format!("{} false", errno.raw_os_error());
                let is_done = outcome == "done" && !needed_by.contains(&name);
                assert!(
                    is_done || outcome.lines().next() == Some(&expected),
                    "{name}: {call} fails with {errno:?}: {outcome}"
                );
                tested += usize::from(!is_done);
            }
        }
    }
    assert!(tested > 0 || !rustix::process::geteuid().is_root(), "no strategy works here");
}

/// The outcome of presenting, for each of [`ERRNOS`]. `None` if the strategy does not work here.
fn outcomes(directory: &Path, variant: &str, call: &str) -> Option<Vec<String>> {
    let path = directory.join(format!("{variant}-{call}"));
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(LOOK)).expect("a timeout");
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "tests::faults::child", "--ignored", "--nocapture"])
        .env(CHILD, format!("{variant} {call} {}", path.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the process starts");
    let first = told(&socket, &mut child);
    let outcomes = (first == "ready").then(|| ERRNOS.map(|_| told(&socket, &mut child)).to_vec());
    assert!(outcomes.is_some() || first == "skipped", "{variant} {call}: {first}");
    child.wait().expect("the process ends");
    outcomes
}

/// The next outcome, or what became of the process in place of it.
fn told(socket: &UnixDatagram, child: &mut Child) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut text = [0; 4096];
    loop {
        // Looked at before: what a process said that has ended is still to be read.
        let ended = child.try_wait().expect("a child");
        match (socket.recv(&mut text), ended) {
            (Ok(length), _) => return String::from_utf8_lossy(&text[..length]).into_owned(),
            (Err(_), Some(status)) => return format!("the process ended: {status}"),
            (Err(_), None) if Instant::now() > deadline => {
                child.kill().expect("killed");
                return "the process hangs".to_owned();
            }
            (Err(_), None) => {}
        }
    }
}

/// The process with the fault. It tells by `sendto`, for it may not be able to `write`.
#[test]
#[ignore = "a part of an_errno_of_every_call_comes_back"]
fn child() {
    let Ok(words) = std::env::var(CHILD) else { return };
    let [variant, call, path] = words.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        panic!("{words}");
    };
    let socket = UnixDatagram::unbound().expect("a socket");
    let tell = |text: &str| drop(socket.send_to(text.as_bytes(), path));
    let (_, variant) = VARIANTS.into_iter().find(|(name, _)| *name == variant).expect("a strategy");
    let (_, number, _) = CALLS.into_iter().find(|(name, ..)| *name == call).expect("a call");
    let Some(bench) = Bench::open(variant) else {
        tell("skipped");
        std::process::exit(0);
    };
    // One for each errno, so that no image of it is there.
    let trees = ERRNOS.map(|errno| {
        let content = format!("content {errno:?}");
        let fixture = TreeFixture::new().file("d/file", content.as_bytes());
        bench.tree(fixture.executable("tool", content.as_bytes()).symlink("link", "d"))
    });
    tell("ready");
    let made = [super::bench::path("made")];
    for (errno, tree) in ERRNOS.into_iter().zip(&trees) {
        refuse(number, errno);
        let request = PresentRequest { make_directories: &made, ..PresentRequest::default() };
        match bench.strategy().present(tree, &request) {
            Ok(presented) => {
                tell("done");
                std::mem::forget(presented);
            }
            Err(error) => {
                let errno = error.errno().map_or(0, Errno::raw_os_error);
                tell(&format!("{errno} {}\n{:#}", error.is_about_tree(), chain::Chain(&error)));
            }
        }
    }
    // Without what could need the call.
    std::process::exit(0);
}

/// Has the kernel refuse a call in all threads. Of several such filters the last one counts.
fn refuse(number: libc::c_long, errno: Errno) {
    let action = SeccompAction::Errno(errno.raw_os_error() as u32);
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture");
    let filter = SeccompFilter::new(
        BTreeMap::from([(number, Vec::new())]),
        SeccompAction::Allow,
        action,
        architecture,
    );
    let program: BpfProgram = filter.expect("a filter").try_into().expect("a program");
    apply_filter_all_threads(&program).expect("a filter is allowed");
}
