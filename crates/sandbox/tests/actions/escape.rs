//! Ways out that must be closed.

use rustix::io::Errno;
use sandbox::{ExitStatus, Hindrance, Part, StepName};

use crate::support::{Action, end_processes_with, eventually, processes_with, run_all};

/// A script of which every line must fail.
#[track_caller]
fn check_all_fail(lines: &[&str]) {
    let script: String = lines
        .iter()
        .map(|line| format!("( {line} ) >/dev/null 2>&1 && echo \"succeeded: \"'{line}'\n"))
        .collect();
    let outcome = Action::sh(&format!("{script}true")).run();
    outcome.expect_code(0).expect_stdout("");
}

#[track_caller]
fn check(script: &str, expected: &str) {
    Action::sh(script).run().expect_code(0).expect_stdout(expected);
}

#[test]
fn no_process_but_its_own_is_visible() {
    // The shell and `ls`; a pipe's other end would be there or not yet.
    let list = "ls /proc >/tmp/all; grep -c '^[0-9]' /tmp/all";
    check(&format!("{list}; ls -d /proc/1 2>/dev/null; true"), "2");
    check("ls -d /proc/2 /proc/$$ | sort -u", "/proc/2");
}

#[test]
fn pid_1_gives_nothing_away() {
    check_all_fail(&[
        "cat /proc/1/environ",
        "cat /proc/1/cmdline | grep .",
        "cat /proc/1/maps",
        "cat /proc/1/mem",
        "cat /proc/1/stack",
        "ls /proc/1/root/",
        "ls /proc/1/cwd/",
        "ls /proc/1/fd",
        "ls /proc/1/ns",
        "readlink /proc/1/exe",
        "readlink /proc/1/ns/mnt",
        "cd /proc/1/root",
        "cd /proc/1/task/1/root",
    ]);
}

#[test]
fn pid_1_can_not_be_signalled() {
    check_all_fail(&["kill -9 1", "kill -0 1", "kill -TERM 1", "kill -STOP 1"]);
    check("kill -9 -1; true", "");
}

#[test]
fn nothing_outside_the_scratch_directories_can_be_written() {
    check_all_fail(&[
        "touch /x",
        "mkdir /x",
        "touch /etc/x",
        "echo >> /etc/passwd",
        "touch /usr/x",
        "touch /dev/x",
        "touch /var/x",
        "touch /proc/x",
        "rm -f /etc/passwd && ! test -e /etc/passwd",
        "mv /etc /tmp/etc",
        "ln -s /tmp /y",
        "chmod 777 /",
        "chmod 666 /etc/passwd",
        "rmdir /tmp",
        "rm /dev/null",
        "mv /tmp /tmp2",
    ]);
}

#[test]
fn the_kernels_settings_can_not_be_written() {
    check_all_fail(&[
        "echo x > /proc/sys/kernel/hostname",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo 0 > /proc/sys/user/max_user_namespaces",
        "echo b > /proc/sysrq-trigger",
        "echo x > /proc/sys/kernel/modprobe",
        "echo x > /proc/sys/fs/binfmt_misc/register",
        "echo -1000 > /proc/self/oom_score_adj",
        "echo 0 0 1 > /proc/self/uid_map",
        "echo 1 > /proc/self/loginuid",
        "cat /proc/kcore",
        "cat /proc/kmsg",
        "cat /proc/slabinfo",
        "cat /proc/self/pagemap | head -c 0 && cat /proc/vmallocinfo",
    ]);
}

#[test]
fn kernel_addresses_are_hidden() {
    check("grep -v '^0000000000000000' /proc/kallsyms | head -1", "");
}

#[test]
fn devices_can_not_be_made() {
    check_all_fail(&[
        "mknod /tmp/n c 1 3",
        "mknod /tmp/m c 1 1",
        "mknod /tmp/b b 8 0",
        "mknod /execroot/b b 8 0",
        "mknod /dev/shm/b b 254 0",
    ]);
    check("mknod /tmp/f p && test -p /tmp/f && echo fifo", "fifo");
}

#[test]
fn a_device_in_an_input_root_does_not_open() {
    let action = Action::sh("cat /execroot/zero | head -c 1 | wc -c");
    let device = rustix::fs::makedev(1, 5);
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(
        &action.input_root,
        "zero",
        rustix::fs::FileType::CharacterDevice,
        mode,
        device,
    )
    .unwrap();
    action.run().expect_stdout("0");
}

#[test]
fn a_set_user_id_program_gains_nothing() {
    let id = std::fs::read("/usr/bin/id").unwrap();
    let action =
        Action::sh("./suid -u; ./suid -G; cp suid own; chmod 6755 own; ./own -u; ./own -g");
    action
        .file("suid", 0o6755, &id)
        .run()
        .expect_code(0)
        .expect_stdout("65534\n65534\n65534\n65534");
}

#[test]
fn users_and_groups_can_not_be_changed() {
    check_all_fail(&[
        "touch /tmp/f && chown 0 /tmp/f",
        "touch /tmp/f && chown 1000 /tmp/f",
        "touch /tmp/f && chgrp 0 /tmp/f",
        "su root -c true </dev/null",
        "setpriv --reuid 0 true",
        "setpriv --regid 0 --clear-groups true",
    ]);
}

#[test]
fn namespaces_can_not_be_made_or_entered() {
    check_all_fail(&[
        "unshare -U true",
        "unshare -Ur true",
        "unshare -m true",
        "unshare -n true",
        "unshare -p true",
        "unshare -u true",
        "unshare -i true",
        "unshare -C true",
        "unshare -T true",
        "nsenter -t 1 -m true",
        "nsenter -t $$ -U true",
        "nsenter -t $$ -m true",
    ]);
    check("cat /proc/sys/user/max_user_namespaces", "0");
}

#[test]
fn nothing_can_be_mounted_or_unmounted() {
    check_all_fail(&[
        "mount -t tmpfs tmpfs /tmp",
        "mount --bind /tmp /execroot",
        "mount -o remount,rw /",
        "mount -o remount,rw /usr",
        "umount /execroot",
        "umount -l /proc",
        "umount /usr",
        "pivot_root /tmp /tmp",
        "chroot /tmp /bin/true",
    ]);
}

#[test]
fn mounts_of_the_host_are_not_listed() {
    let outcome = Action::sh("cut -d' ' -f5 /proc/self/mountinfo").run();
    let mounts: Vec<&str> = outcome.stdout.lines().collect();
    let allowed = [
        "/",
        "/dev/pts",
        "/usr",
        "/bin",
        "/lib",
        "/lib64",
        "/probe",
        "/proc",
        "/tmp",
        "/dev/shm",
        "/execroot",
    ];
    // Covers of entries of `/proc` are the sandbox's own.
    let is_allowed = |mount: &&str| allowed.contains(mount) || mount.starts_with("/proc/");
    assert!(mounts.iter().all(is_allowed), "{mounts:?}");
    assert!(mounts.contains(&"/execroot"), "{mounts:?}");
}

#[test]
fn every_mount_is_read_only_or_private_and_none_takes_set_user_id() {
    let outcome = Action::sh("cut -d' ' -f5,6,7 /proc/self/mountinfo").run();
    for line in outcome.stdout.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        // The tests' own input root is mounted without precautions.
        if fields[0] == "/execroot" {
            continue;
        }
        let options: Vec<&str> = fields[1].split(',').collect();
        assert!(options.contains(&"nosuid"), "{line}");
        let writable = ["/tmp", "/dev/shm", "/proc", "/dev/pts"].contains(&fields[0]);
        assert_eq!(options.contains(&"rw"), writable, "{line}");
        // Covers show the root's own `/dev/null`.
        let has_devices = fields[0] == "/" || fields[0].starts_with("/proc/");
        assert!(has_devices || fields[0] == "/dev/pts" || options.contains(&"nodev"), "{line}");
        assert_eq!(fields[2], "-", "propagates: {line}");
    }
}

#[test]
fn other_machines_are_out_of_reach() {
    const ENETUNREACH: &str = "101";
    for address in ["1.1.1.1:80", "10.0.0.1:22", "169.254.169.254:80", "[2606:4700:4700::1111]:80"]
    {
        Action::probe(&["connect", address]).run().expect_stdout(ENETUNREACH);
    }
    check("ls /sys/class/net 2>/dev/null; grep -c : /proc/net/dev", "1");
}

#[test]
fn the_hosts_own_servers_are_out_of_reach() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    const ECONNREFUSED: &str = "111";
    Action::probe(&["connect", &address]).run().expect_stdout(ECONNREFUSED);
}

#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("sandbox-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _host = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    Action::probe(&["abstract", &name]).run().expect_stdout("bound");
}

/// A working directory that leads out fails, or leads to what is inside anyway.
#[test]
fn a_working_directory_can_not_lead_out() {
    let fails = |target: &str| {
        let action = Action::sh("pwd -P; ls").symlink("out", target).in_directory("out");
        let error = action.try_run().unwrap_err();
        assert_eq!(error.step(), StepName::EnterDirectory, "{target}: {error}");
        assert!(error.is_about_command());
    };
    fails("/proc/1/root");
    fails("/proc/1/root/etc");
    fails("/proc/1/cwd");
    fails("/proc/2/root/../../nowhere");
    fails("/proc/self/fd/3");
    fails("/proc/self/fd/4");
    fails("/proc/self/task/1/root");
    fails("/root");
    fails("/home");
    fails("out");
    let inside = |target: &str, expected: &str| {
        let action = Action::sh("pwd -P").symlink("out", target).in_directory("out");
        action.run().expect_code(0).expect_stdout(expected);
    };
    inside("../../../..", "/");
    inside("/", "/");
    inside("/etc", "/etc");
    inside("/proc/self/cwd", "/");
    inside("/proc/self/root", "/");
    inside("/proc/self/root/usr", "/usr");
}

#[test]
fn the_root_is_the_end_of_the_way_up() {
    check(
        "cd /; cd ..; cd ../../..; pwd -P; ls -d /..//../work /root /home /var/lib 2>/dev/null; true",
        "/",
    );
    check("ls /proc/self/root/ /proc/self/cwd/../ | sort | tr '\\n' ' ' | grep -c home; true", "0");
}

#[test]
fn executing_through_proc_leads_nowhere() {
    check_all_fail(&[
        "/proc/1/exe",
        "/proc/1/root/bin/true",
        "/proc/self/fd/3",
        "cat /proc/self/fd/3",
    ]);
}

/// Until its program is executed, the action's process is the helper's (CVE-2019-5736).
#[test]
fn the_helpers_program_can_not_be_executed() {
    let check = |action: Action, part| {
        let error = action.try_run().unwrap_err();
        assert_eq!((error.step(), error.errno()), (StepName::Execute, Errno::ACCESS), "{error}");
        let obstacle = error.obstacle().expect("an obstacle");
        assert_eq!((obstacle.part, obstacle.hindrance), (part, Hindrance::Forbidden(0o010)));
    };
    check(Action::new(&["/proc/self/exe"]), Part::Program);
    check(Action::new(&["/proc/thread-self/exe"]), Part::Program);
    check(Action::new(&["./link"]).symlink("link", "/proc/self/exe"), Part::Program);
    let mut in_path = Action::new(&["exe"]);
    in_path.environment = vec!["PATH=/proc/self".to_owned()];
    check(in_path, Part::Program);
    let script = Action::new(&["./script"]).file("script", 0o755, b"#!/proc/self/exe\n");
    check(script, Part::Interpreter);
    Action::sh("/proc/self/exe -c 'echo its own'").run().expect_stdout("its own");
}

#[test]
fn a_crash_leaves_no_core_on_the_host() {
    let outcome = Action::sh("kill -SEGV $$").run();
    assert_eq!(outcome.exit.status, ExitStatus::Signal(11));
    // A limit of 0 would start a handler of the host's, if it has one (core(5)).
    check(
        "grep -o 'core file size .* bytes' /proc/self/limits | tr -s ' '",
        "core file size 1 1 bytes",
    );
}

/// Entries of `/proc` that are covered, or closed by their mode.
#[test]
fn what_the_host_keeps_to_itself_is_hidden() {
    check(
        "cd /proc; for name in bootconfig cmdline diskstats interrupts keys kcore kmsg kpagecount \
         pagetypeinfo slabinfo timer_list vmallocinfo; \
         do test -z \"$(head -c 100 $name 2>/dev/null)\" || echo $name; done; ls fs bus; true",
        "bus:\n\nfs:",
    );
    check_all_fail(&["touch /proc/fs/x", "touch /proc/bus/x", "echo x > /proc/bus/input"]);
}

/// Entries that programs read.
#[test]
fn the_rest_of_proc_is_there() {
    check(
        "cd /proc; for name in cpuinfo meminfo stat loadavg uptime version filesystems mounts vmstat \
         self/status self/maps sys/kernel/ostype sys/vm/overcommit_memory; do \
         test -n \"$(head -c 100 $name)\" || echo $name; done; true",
        "",
    );
}

#[test]
fn sandboxes_do_not_see_each_other() {
    let marker = format!("7{:07}", std::process::id());
    std::thread::scope(|scope| {
        let other = scope.spawn(|| Action::new(&["sleep", &marker]).run());
        let sleep = format!("sleep\0{marker}");
        eventually("the other action", || !processes_with(&sleep).is_empty());
        let outcome = Action::sh("cat /proc/[0-9]*/cmdline; ls /tmp").run();
        end_processes_with(&sleep);
        assert!(!outcome.stdout.contains(&marker), "{outcome:?}");
        other.join().unwrap();
    });
}

#[test]
fn killing_everybody_kills_only_its_own() {
    let outcomes = run_all(vec![Action::sh("sleep 100 & kill -9 -1"), Action::sh("echo alive")]);
    outcomes[1].expect_stdout("alive");
}
