//! Input roots that are the root of their action.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use runtimes::Rootfs;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use rustix::io::Errno;
use sandbox::{Pool, RunError, StepName};

use crate::support::{Action, Outcome, config, path};

/// The programs of the root, with what they are linked with.
const PROGRAMS: [&str; 14] = [
    "/bin/cat",
    "/bin/cut",
    "/bin/head",
    "/bin/id",
    "/bin/ls",
    "/bin/mkdir",
    "/bin/mknod",
    "/bin/mount",
    "/bin/mv",
    "/bin/rmdir",
    "/bin/sh",
    "/bin/touch",
    "/bin/umount",
    "/bin/wc",
];

/// An action with a shell and a few programs in its input root, and no mount points.
fn bare(script: &str) -> Action {
    let action = Action::new(&["/bin/sh", "-c", script]);
    let mut action = directory(action, "bin");
    for program in PROGRAMS {
        action = copy(action, Path::new(program));
        let output = Command::new("ldd").arg(program).output().unwrap();
        let libraries = String::from_utf8(output.stdout).unwrap();
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            action = copy(action, Path::new(library));
        }
    }
    action
}

/// The same with the mount points that such a root needs.
fn whole(script: &str) -> Action {
    ["dev", "proc", "tmp"].into_iter().fold(bare(script), directory)
}

/// Makes a directory with those above it, for the action to write to.
fn directory(action: Action, path: &str) -> Action {
    for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
        let path = &path[..end];
        match rustix::fs::mkdirat(&action.input_root, path, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => continue,
            made => made.unwrap(),
        }
        let own = (Some(Uid::from_raw(65534)), Some(Gid::from_raw(65534)));
        rustix::fs::chownat(&action.input_root, path, own.0, own.1, AtFlags::empty()).unwrap();
    }
    action
}

/// Copies a file of the host to its path.
fn copy(action: Action, file: &Path) -> Action {
    let path = file.to_str().unwrap().trim_start_matches('/');
    let action = directory(action, Path::new(path).parent().unwrap().to_str().unwrap());
    action.file(path, 0o755, &std::fs::read(file).unwrap())
}

fn try_run(action: Action) -> Result<Outcome, RunError> {
    let pool = Pool::new(config());
    let mut sandbox = pool.acquire(&Arc::new(Rootfs::of_input_root()))?;
    action.run_in(&mut sandbox)
}

#[track_caller]
fn check(script: &str, expected: &str) {
    try_run(whole(script)).unwrap().expect_code(0).expect_stdout(expected);
}

/// A script of which every line must fail.
#[track_caller]
fn check_all_fail(lines: &[&str]) {
    let script: String = lines
        .iter()
        .map(|line| format!("( {line} ) >/dev/null 2>&1 && echo \"succeeded: \"'{line}'\n"))
        .collect();
    check(&format!("{script}true"), "");
}

#[test]
fn the_input_root_is_all_there_is() {
    let action = directory(whole("pwd; cd /; echo *; id -u; ls -d /execroot /etc"), "work/below");
    let outcome = try_run(action.in_directory("work/below")).unwrap();
    outcome.expect_stdout("/work/below\nbin dev lib lib64 proc tmp work\n65534");
    assert!(!outcome.stderr.contains("lib"), "{outcome:#?}");
    // A machine whose libraries are elsewhere has other names there.
}

#[test]
fn it_can_be_written_and_has_the_sandboxes_own_scratch_directories() {
    check(
        "touch /new /bin/new /tmp/new /dev/shm/new; echo /new /bin/new /tmp/* /dev/shm/*",
        "/new /bin/new /tmp/new /dev/shm/new",
    );
    check("head -c 3 /dev/zero | wc -c; cat /dev/null; echo x > /dev/full || echo full", "3\nfull");
    check(
        "ls -d /dev/fd/0 /dev/pts/ptmx /proc/self/exe",
        "/dev/fd/0\n/dev/pts/ptmx\n/proc/self/exe",
    );
}

#[test]
fn only_mounts_of_the_sandbox_are_listed() {
    let outcome = try_run(whole("cut -d' ' -f5 /proc/self/mountinfo")).unwrap();
    let allowed = ["/", "/dev", "/dev/pts", "/dev/shm", "/proc", "/tmp"];
    let mounts: Vec<&str> = outcome.expect_code(0).stdout.lines().collect();
    for mount in &mounts {
        assert!(allowed.contains(mount) || mount.starts_with("/proc/"), "{mounts:?}");
    }
    for mount in allowed {
        assert_eq!(
            mounts.iter().filter(|other| **other == mount).count(),
            1,
            "{mount}: {mounts:?}"
        );
    }
}

#[test]
fn the_entries_of_proc_that_are_covered_stay_so() {
    check(
        "cat /proc/cmdline /proc/keys /proc/interrupts /proc/diskstats; ls -A /proc/fs /proc/bus",
        "/proc/bus:\n\n/proc/fs:",
    );
    check("ls -d /proc/1 2>/dev/null; echo /proc/[0-9]*", "/proc/2");
}

#[test]
fn nothing_leads_out() {
    check_all_fail(&[
        "ls /../execroot",
        "cd /proc/1/root",
        "ls /proc/1/cwd/",
        "ls /proc/1/fd",
        "ls /proc/self/root/execroot",
        "mv /dev /gone",
        "mv /proc /gone",
        "mv /tmp /gone",
        "rmdir /tmp",
        "rmdir /proc",
        "umount /dev",
        "umount -l /",
        "umount -l /proc",
        "umount -l /proc/keys",
        "mount -t tmpfs tmpfs /tmp",
        "mount --bind /bin /tmp",
        "touch /dev/x",
        "touch /proc/x",
        "mknod /memory c 1 1",
        "mknod /tmp/memory c 1 1",
    ]);
}

#[test]
fn a_device_in_the_input_root_does_not_open() {
    let action = whole("cat /zero | head -c 1 | wc -c");
    let device = rustix::fs::makedev(1, 5);
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(&action.input_root, "zero", FileType::CharacterDevice, mode, device)
        .unwrap();
    try_run(action).unwrap().expect_stdout("0");
}

#[test]
fn a_set_user_id_program_gains_nothing() {
    let id = std::fs::read("/bin/id").unwrap();
    let action = whole("/suid -u; /suid -g").file("suid", 0o6755, &id);
    try_run(action).unwrap().expect_code(0).expect_stdout("65534\n65534");
}

#[test]
fn a_mount_point_that_is_a_symlink_is_not_followed() {
    for (name, target) in [
        ("dev", "/"),
        ("dev", "bin"),
        ("proc", "/proc"),
        ("proc", "../proc"),
        ("tmp", "dev"),
        ("tmp", "/execroot/bin"),
        ("tmp", "nowhere"),
    ] {
        let others = ["dev", "proc", "tmp"].into_iter().filter(|other| *other != name);
        let action = others.fold(bare("true"), directory).symlink(name, target);
        let error = try_run(action).unwrap_err();
        assert_eq!(error.step(), StepName::EnterInputRoot, "{name} -> {target}: {error}");
        assert!(
            matches!(error.errno(), Errno::NOTDIR | Errno::INVAL),
            "{name} -> {target}: {error}"
        );
    }
}

#[test]
fn a_mount_point_that_is_missing_or_a_file_is_an_error() {
    for name in ["dev", "proc", "tmp"] {
        let others = || ["dev", "proc", "tmp"].into_iter().filter(|other| *other != name);
        let missing = try_run(others().fold(bare("true"), directory)).unwrap_err();
        assert_eq!((missing.step(), missing.errno()), (StepName::EnterInputRoot, Errno::NOENT));
        let file = others().fold(bare("true"), directory).file(name, 0o644, b"");
        let file = try_run(file).unwrap_err();
        assert_eq!(file.step(), StepName::EnterInputRoot);
        assert!(matches!(file.errno(), Errno::NOTDIR | Errno::INVAL), "{file}");
    }
}

#[test]
fn the_next_action_finds_nothing_of_it() {
    let pool = Pool::new(config());
    let view = Arc::new(Rootfs::of_input_root());
    for _ in 0..3 {
        let mut sandbox = pool.acquire(&view).unwrap();
        let script = "echo /new* /tmp/* /dev/shm/*; touch /new /tmp/new /dev/shm/new";
        let outcome = whole(script).run_in(&mut sandbox).unwrap();
        outcome.expect_code(0).expect_stdout("/new* /tmp/* /dev/shm/*");
        pool.release(sandbox);
    }
    // Also after one that failed on its way into its root.
    let mut sandbox = pool.acquire(&view).unwrap();
    assert!(bare("true").run_in(&mut sandbox).is_err());
    pool.release(sandbox);
    let mut sandbox = pool.acquire(&view).unwrap();
    whole("echo well").run_in(&mut sandbox).unwrap().expect_stdout("well");
}

/// A tree with a closed root, an open directory in it, and a closed one in that.
fn partly_closed(mut action: Action) -> Action {
    for path in ["build", "build/shut", "shut"] {
        action = directory(action, path);
    }
    action.write_changes =
        [("", true), ("build", false), ("build/shut", true)].map(|(p, c)| (path(p), c)).into();
    action
}

/// The lines that can and cannot be run in [`partly_closed`].
const WRITES: &str = "cd \"$ROOT\"/; for f in x shut/x build/x build/shut/x; do \
    touch $f 2>/dev/null && echo $f; done; rmdir build/shut 2>/dev/null && echo gone; \
    mv build other 2>/dev/null && echo moved; mv shut build/ 2>/dev/null && echo in; true";

#[test]
fn writes_are_closed_and_open_where_the_client_says_so() {
    let outcome = try_run(partly_closed(whole(&format!("ROOT=; {WRITES}")))).unwrap();
    outcome.expect_code(0).expect_stdout("build/x");
    // The mounts of the sandbox's own are open.
    let own = "touch /tmp/x /dev/shm/x && echo y > /dev/null && echo well";
    try_run(partly_closed(whole(own))).unwrap().expect_code(0).expect_stdout("well");
    let beside = partly_closed(Action::sh(&format!("ROOT=/execroot; {WRITES}")));
    beside.run().expect_code(0).expect_stdout("build/x");
}

#[test]
fn a_closed_directory_can_not_be_opened_by_the_action() {
    let script = "umount /build/shut; mount -o remount,rw /; mount -o remount,rw,bind /build/shut; \
        chmod 777 / /build/shut; touch /x /build/shut/x";
    let outcome =
        try_run(partly_closed(whole(&format!("({script}) 2>/dev/null; echo /x* /build/shut/*"))));
    outcome.unwrap().expect_stdout("/x* /build/shut/*");
}

#[test]
fn the_server_sees_what_was_written_and_none_of_the_mounts() {
    use rustix::fs::{OFlags, ResolveFlags};
    let action = partly_closed(whole("echo word > /build/out; touch /tmp/not /dev/shm/not"));
    let root = action.input_root.try_clone().unwrap();
    try_run(action).unwrap().expect_code(0);
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::BENEATH;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    for directory in ["dev", "proc", "tmp", "build/shut"] {
        let fd = rustix::fs::openat2(&root, directory, flags, Mode::empty(), resolve).unwrap();
        let entries = rustix::fs::Dir::read_from(&fd).unwrap().count();
        assert_eq!(entries, 2, "{directory} has more than itself and the one above");
    }
    let file = rustix::fs::openat2(&root, "build/out", flags, Mode::empty(), resolve).unwrap();
    assert_eq!(std::io::read_to_string(std::fs::File::from(file)).unwrap(), "word\n");
    // It can still write there, to take outputs away.
    rustix::fs::unlinkat(&root, "build/out", AtFlags::empty()).unwrap();
    rustix::fs::mkdirat(&root, "another", Mode::from_raw_mode(0o755)).unwrap();
}

/// The directories of a chain with these names.
fn chain(names: &[String]) -> Vec<String> {
    (1..=names.len()).map(|count| names[..count].join("/")).collect()
}

/// An action with a chain of directories, of which every second one is closed, and the root as well.
fn alternating(mut action: Action, depth: usize) -> Action {
    let paths = chain(&vec!["d".to_owned(); depth]);
    action = directory(action, &paths[depth - 1]);
    action.write_changes = vec![(path(""), true)];
    let changes = paths.iter().enumerate().map(|(above, it)| (path(it), above % 2 == 1));
    action.write_changes.extend(changes);
    action
}

#[test]
fn a_change_in_a_chain_is_one_mount() {
    const DEPTH: usize = 100;
    let script = "while read line; do echo mount; done < /proc/self/mountinfo; d=$ROOT/; n=0; \
        while [ -d $d ]; do touch $d/x 2>/dev/null && echo $n; d=$d/d; n=$((n+1)); done";
    // An open directory is the first below the root, and each second one from there.
    let open: String = (1..=DEPTH).step_by(2).map(|depth| format!("{depth}\n")).collect();
    let mounts_of = |action: Action, expected: &str| {
        let outcome = try_run(action).unwrap();
        let lines = outcome.expect_code(0).stdout.lines();
        let (mounts, open): (Vec<_>, Vec<_>) = lines.partition(|line| *line == "mount");
        assert_eq!(open.join("\n"), expected.trim_end());
        mounts.len()
    };
    let plain = mounts_of(directory(whole(&format!("ROOT=; {script}")), "d"), "0\n1");
    let changed = mounts_of(alternating(whole(&format!("ROOT=; {script}")), DEPTH), &open);
    // The second mount of the input root is that of the change at the root; the first is gone.
    assert_eq!(changed - plain, DEPTH);
    let beside = || Action::sh(&format!("ROOT=/execroot; {script}"));
    let count = |action: Action| {
        let outcome = action.run();
        outcome.expect_code(0).stdout.lines().filter(|line| *line == "mount").count()
    };
    assert_eq!(count(alternating(beside(), DEPTH)) - count(beside()), DEPTH + 1);
}

#[test]
fn the_longest_path_of_a_change_can_be_mounted_on() {
    let names = |bytes: usize| {
        let mut names = vec!["d".repeat(255); bytes / 256];
        names.push("e".repeat(bytes % 256));
        names
    };
    let closed = |bytes: usize| {
        let deepest = names(bytes).join("/");
        assert_eq!(deepest.len(), bytes);
        let script = format!("cd {} && cd {} && touch x", &deepest[..2047], &deepest[2048..]);
        let mut action = directory(Action::sh(&script), &deepest);
        action.write_changes = vec![(path(&deepest), true)];
        action.try_run()
    };
    let longest = closed(sandbox::MAX_MOUNT_PATH_BYTES).unwrap();
    assert!(longest.stderr.contains("Read-only file system"), "{longest:#?}");
    let longer = closed(sandbox::MAX_MOUNT_PATH_BYTES + 1).unwrap_err();
    // mount(2) has that error for a source that is too long.
    assert_eq!((longer.step(), longer.errno()), (StepName::CloseSubtrees, Errno::INVAL));
}
