//! The remains of one action must not reach the next, nor the host.

use crate::raw_program::{RawProgram, results};
use crate::support::{Action, eventually, processes_with, run_all};

/// Runs both in the same sandbox; the second must find nothing.
#[track_caller]
fn check(leave: &str, look: &str) {
    let outcomes = run_all(vec![Action::sh(leave), Action::sh(look)]);
    outcomes[0].expect_code(0);
    outcomes[1].expect_stdout("");
}

#[test]
fn files_in_scratch_directories() {
    check(
        "touch /tmp/a /var/tmp/b /dev/shm/c; mkdir -p /tmp/d/e; mkfifo /tmp/f",
        "ls -A /tmp /var/tmp/ | grep -v : ; ls -A /dev/shm",
    );
}

#[test]
fn processes() {
    let marker = format!("9{:06}", std::process::id());
    let leave = format!(
        "sleep {marker} & setsid sleep {marker} & (setsid sh -c 'trap \"\" TERM HUP INT; sleep {marker}; sleep {marker}' &) ; nohup sleep {marker} >/dev/null 2>&1 & sleep 0.05"
    );
    let count = Action::sh("ls /proc >/tmp/all; grep -c '^[0-9]' /tmp/all");
    let outcomes = run_all(vec![Action::sh(&leave), count]);
    outcomes[0].expect_code(0);
    outcomes[1].expect_stdout("2");
    assert_eq!(processes_with(&format!("sleep\0{marker}")), Vec::<String>::new());
}

#[test]
fn processes_are_dead_when_the_run_returns() {
    let marker = format!("8{:06}", std::process::id());
    for _ in 0..20 {
        Action::sh(&format!("for i in 1 2 3 4 5 6 7 8; do setsid sleep {marker} & done; true"))
            .run()
            .expect_code(0);
        assert_eq!(processes_with(&format!("sleep\0{marker}")), Vec::<String>::new());
    }
}

#[test]
fn a_stopped_process() {
    check("sleep 100 & kill -STOP $!; true", "ps ax 2>/dev/null | grep [s]leep");
}

#[test]
fn system_v_ipc() {
    const IPC_CREAT: u64 = 0o1000;
    let number = |number: libc::c_long| number as u64;
    let create = RawProgram::new()
        .call(number(libc::SYS_shmget), &[4711, 4096, IPC_CREAT | 0o666])
        .call(number(libc::SYS_semget), &[4711, 1, IPC_CREAT | 0o666])
        .call(number(libc::SYS_msgget), &[4711, IPC_CREAT | 0o666]);
    let outcomes = run_all(vec![
        Action::new(&["./raw"]).file("raw", 0o755, &create.build()),
        Action::sh("tail -qn +2 /proc/sysvipc/shm /proc/sysvipc/sem /proc/sysvipc/msg"),
    ]);
    assert_eq!(results(&outcomes[0].stdout_bytes), [0, 0, 0]);
    outcomes[1].expect_code(0).expect_stdout("");
}

#[test]
fn sockets() {
    let outcomes = run_all(vec![
        Action::probe(&["abstract", "left"]),
        Action::probe(&["abstract", "left"]),
        Action::probe(&["leave-in-flight"]),
        Action::sh(
            "tail -n +2 /proc/net/unix; tail -qn +2 /proc/net/tcp /proc/net/tcp6 /proc/net/udp",
        ),
        Action::probe(&["linger"]),
        Action::sh("tail -qn +2 /proc/net/tcp"),
        Action::probe(&["linger"]),
    ]);
    for outcome in &outcomes {
        outcome.expect_code(0);
    }
    outcomes[0].expect_stdout("bound");
    outcomes[1].expect_stdout("bound");
    outcomes[3].expect_stdout("");
    outcomes[5].expect_stdout("");
}

#[test]
fn standard_output_in_flight_does_not_hold_up_the_answer() {
    Action::probe(&["leave-in-flight"]).run().expect_code(0).expect_stdout("left");
}

#[test]
fn terminals() {
    check(
        "exec 3<>/dev/ptmx; (exec 4<>/dev/ptmx; setsid sleep 100 &) ; ls /dev/pts | grep -q 1",
        "ls /dev/pts | grep -v ptmx",
    );
}

#[test]
fn mounts_on_the_host() {
    Action::sh("true").run();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(" /execroot "), "{mounts}");
    assert!(!mounts.lines().any(|line| line.contains(" - tmpfs sandbox ")), "{mounts}");
}

/// A network that was left dirty is replaced by one that remembers no connection either.
#[test]
fn a_new_network_is_as_the_first() {
    let buckets = || Action::sh("cat /proc/sys/net/ipv4/tcp_max_tw_buckets");
    let leave = || Action::probe(&["leave-in-flight"]);
    let outcomes =
        run_all(vec![buckets(), leave(), buckets(), leave(), leave(), buckets(), buckets()]);
    for index in [0, 2, 5, 6] {
        outcomes[index].expect_code(0).expect_stdout("0");
    }
}

/// While an action runs, its helper has no descriptor through which the host's settings or processes
/// could be reached.
#[test]
fn a_helper_keeps_no_proc_of_the_hosts() {
    let pool = sandbox::Pool::new(crate::support::config());
    let mut sandbox = pool.acquire(&crate::support::TOOLS).unwrap();
    Action::sh("true").run_in(&mut sandbox).unwrap();
    let mut found = 0;
    for pid in children() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        for number in 0..64 {
            let flags = rustix::process::PidfdGetfdFlags::empty();
            let Ok(descriptor) = rustix::process::pidfd_getfd(&pidfd, number, flags) else {
                continue;
            };
            let file_system = rustix::fs::fstatfs(&descriptor).unwrap();
            if file_system.f_type == libc::PROC_SUPER_MAGIC {
                found += 1;
                for path in ["sys", "cmdline", "sys/kernel/core_pattern"] {
                    let missing =
                        rustix::fs::statat(&descriptor, path, rustix::fs::AtFlags::empty());
                    assert_eq!(missing.unwrap_err(), rustix::io::Errno::NOENT, "{path}");
                }
            }
        }
    }
    assert_ne!(found, 0, "the helper's own part of proc");
    pool.release(sandbox);
}

#[test]
fn helpers_end_with_their_pool() {
    let pool = sandbox::Pool::new(crate::support::config());
    let mut sandbox = pool.acquire(&crate::support::TOOLS).unwrap();
    let before = children();
    assert!(!before.is_empty());
    Action::sh("true").run_in(&mut sandbox).unwrap();
    pool.release(sandbox);
    drop(pool);
    eventually("the end of the helpers", || {
        before.iter().all(|pid| {
            !std::path::Path::new(&format!("/proc/{pid}")).exists() || !children().contains(pid)
        })
    });
}

/// This thread's children.
fn children() -> Vec<String> {
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    children.split_whitespace().map(str::to_owned).collect()
}
