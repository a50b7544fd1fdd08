//! An action's surroundings.

use crate::raw_program::{RawProgram, results};
use crate::support::{Action, TOOLS, config, end_processes_with, run_all};

#[track_caller]
fn check(script: &str, expected: &str) {
    Action::sh(script).run().expect_code(0).expect_stdout(expected);
}

#[test]
fn it_is_nobody_in_no_group() {
    check("id -u; id -g; id -G", "65534\n65534\n65534");
    let fields = "grep -E '^(Uid|Gid|Groups):' /proc/self/status | tr -d ' \\t'";
    check(fields, "Uid:65534655346553465534\nGid:65534655346553465534\nGroups:");
}

#[test]
fn it_has_no_capabilities_and_no_way_to_any() {
    let none = "0000000000000000";
    check(
        "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status | tr '\\t' ' '",
        &format!(
            "CapInh: {none}\nCapPrm: {none}\nCapEff: {none}\nCapBnd: {none}\nCapAmb: {none}\nNoNewPrivs: 1\nSeccomp: 2"
        ),
    );
}

#[test]
fn its_signals_are_as_new() {
    // grep(1) has handlers of its own.
    let outcome = Action::new(&["/bin/cat", "/proc/self/status"]).run();
    for name in ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"] {
        let line = format!("{name}:\t0000000000000000");
        assert!(outcome.stdout.lines().any(|other| other == line), "{outcome:#?}");
    }
}

#[test]
fn its_environment_is_the_commands_and_nothing_else() {
    let mut action = Action::new(&["/usr/bin/env"]);
    action.environment = vec!["B=2".to_owned(), "A=1=1".to_owned(), "EMPTY=".to_owned()];
    action.run().expect_code(0).expect_stdout("B=2\nA=1=1\nEMPTY=");
    let mut action = Action::new(&["/usr/bin/env"]);
    action.environment = vec![];
    action.run().expect_code(0).expect_stdout("");
}

#[test]
fn its_arguments_are_as_sent() {
    let action =
        Action::new(&["/bin/sh", "-c", "printf '[%s]' \"$0\" \"$@\"", "zero", "", "a b", "*"]);
    action.run().expect_code(0).expect_stdout("[zero][][a b][*]");
}

#[test]
fn it_has_three_descriptors() {
    // The fourth is what ls(1) reads.
    let outcome = Action::new(&["/bin/ls", "/proc/self/fd"]).run();
    outcome.expect_code(0).expect_stdout("0\n1\n2\n3");
    check("readlink /proc/$$/fd/0; wc -c", "/dev/null\n0");
    check("echo out; echo err > /dev/stderr; echo more > /dev/stdout", "out\nmore");
    check("echo fd > /dev/fd/1", "fd");
}

#[test]
fn output_is_told_apart() {
    let outcome = Action::sh("echo out; echo err >&2").run();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn much_output_arrives_whole() {
    let outcome = Action::sh("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2").run();
    assert_eq!((outcome.stdout.len(), outcome.stderr.len()), (3_000_000, 3_000_000));
}

#[test]
fn its_working_directory_is_below_the_input_root() {
    check("pwd", "/execroot");
    let action = Action::sh("pwd");
    rustix::fs::mkdirat(&action.input_root, "dir", 0o755.into()).unwrap();
    action.in_directory("dir").run().expect_code(0).expect_stdout("/execroot/dir");
}

#[test]
fn programs_are_found_by_its_own_path() {
    Action::new(&["echo", "found"]).run().expect_code(0).expect_stdout("found");
    let mut action = Action::new(&["tool"]).file("tool", 0o755, b"#!/bin/sh\necho mine\n");
    action.environment = vec!["PATH=/nowhere:/execroot".to_owned()];
    action.run().expect_code(0).expect_stdout("mine");
    let action = Action::new(&["./tool"]).file("tool", 0o555, b"#!/bin/sh\necho $0\n");
    action.run().expect_code(0).expect_stdout("./tool");
}

#[test]
fn it_leads_a_session_with_the_usual_umask_and_the_daemons_priority() {
    let ours = rustix::process::getpriority_process(None).expect("our own priority");
    check("umask; nice", &format!("0022\n{ours}"));
    check("cut -d' ' -f1,5,6,7,8 /proc/$$/stat", "2 2 2 0 -1");
}

#[test]
fn it_goes_first_when_memory_runs_out() {
    check("cat /proc/self/oom_score_adj", "500");
}

/// The kernel kills PID 1 and the helper, which share their memory, after the action, however many
/// processes that has.
#[test]
fn who_looks_after_it_goes_later() {
    let seconds = format!("5{:06}", std::process::id());
    let script = format!("exec sleep {seconds}");
    let command_line = format!("sleep\0{seconds}\0");
    let action = std::thread::spawn(move || drop(Action::sh(&script).run()));
    let adjustment = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
    let mut seen = Vec::new();
    while !action.is_finished() && seen != [500, 0, 0] {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let Some(pid) = process_with(&command_line) else { continue };
        let init = parent(&pid);
        let helper = init.as_deref().and_then(parent);
        let pids = [Some(pid), init, helper].into_iter().flatten();
        seen = pids.filter_map(|pid| adjustment(&pid).ok()?.trim().parse::<i32>().ok()).collect();
    }
    end_processes_with(&command_line);
    assert_eq!(seen, [500, 0, 0], "of the action, PID 1 and the helper");
    action.join().unwrap();
}

/// The process with that command line, words with a NUL after each.
fn process_with(command_line: &str) -> Option<String> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().into_string().ok());
    pids.find(|pid| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|found| found == command_line.as_bytes())
    })
}

fn parent(pid: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")).map(str::to_owned)
}

/// Whether this process can set a lowest adjustment for others. Without that right, as in most
/// containers, an action can lower its own as far as the daemon's.
fn sets_lowest_adjustments() -> bool {
    let capabilities = rustix::thread::capabilities(None).expect("our own capabilities");
    let has_right = capabilities.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE);
    if !has_right {
        eprintln!("SKIPPED: this process lacks CAP_SYS_RESOURCE; the attacks on a VM show it");
    }
    has_right
}

#[test]
fn it_cannot_go_after_who_looks_after_it() {
    check("echo -1 > /proc/self/oom_score_adj || echo no", "no");
    check("sleep 0.1; echo -1 > /proc/self/oom_score_adj || echo no", "no");
}

#[test]
fn it_cannot_put_itself_behind_others_when_memory_runs_out() {
    if !sets_lowest_adjustments() {
        return;
    }
    // Longer than the helper waits until it has the daemon lower its own.
    for wait in ["", "sleep 0.1; "] {
        for lower in ["499", "0", "-1", "-1000"] {
            let script = format!("{wait}echo {lower} > /proc/self/oom_score_adj || echo no");
            check(&script, "no");
        }
    }
    let raised = "echo 900 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj";
    check(
        &format!("{raised}; echo 500 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj"),
        "900\n500",
    );
}

/// The helper is spared while an action runs, and that must not be what the next one starts with.
#[test]
fn the_next_action_goes_first_too() {
    for _ in 0..3 {
        check("sleep 0.1; cat /proc/self/oom_score_adj", "500");
        if sets_lowest_adjustments() {
            check("echo 499 > /proc/self/oom_score_adj || echo no", "no");
        }
    }
}

#[test]
fn its_resource_limits() {
    check("ulimit -c; ulimit -n", "0\n4096");
    check("ulimit -s; ulimit -v; ulimit -f", "8192\nunlimited\nunlimited");
}

#[test]
fn its_host_has_a_name_that_resolves() {
    check("uname -n; cat /proc/sys/kernel/hostname", "actiond\nactiond");
    let outcome = Action::probe(&["resolve", "localhost"]).run();
    outcome.expect_code(0);
    assert!(outcome.stdout.contains("127.0.0.1"), "{outcome:?}");
}

#[test]
fn loopback_works() {
    Action::probe(&["loopback"]).run().expect_code(0).expect_stdout("ok");
}

#[test]
fn devices_work() {
    check(
        "echo x > /dev/null; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c",
        "3\n3",
    );
    check("echo x > /dev/full || echo full", "full");
    check("test -c /dev/tty -a -c /dev/random -a -c /dev/pts/ptmx && echo all", "all");
    check(
        "ls /dev | tr '\\n' ' '",
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero",
    );
}

#[test]
fn scratch_directories_work() {
    check("echo 1 > /tmp/a; cat /var/tmp/a; echo 2 > /dev/shm/b; cat /dev/shm/b", "1\n2");
    check("stat -c %a /tmp /var/tmp/. /dev/shm", "1777\n1777\n1777");
}

#[test]
fn files_can_be_written_beside_the_inputs() {
    check("echo x > /execroot/out; stat -c '%u %a' out", "65534 644");
}

#[test]
fn a_pseudo_terminal_can_be_had() {
    check("exec 3<>/dev/ptmx && ls /dev/pts | sort | tr '\\n' ' '", "0 ptmx");
}

#[test]
fn every_action_in_a_sandbox_finds_the_same() {
    let script = "id; env; ls -la / /dev /tmp /proc/self/fd; cat /proc/self/mounts /proc/net/dev | cut -c1-20; ulimit -a; echo $$";
    let outcomes = run_all((0..3).map(|_| Action::sh(script)).collect());
    let normal = |text: &str| {
        // Inode numbers of pipes and times differ.
        text.lines()
            .filter(|line| !line.contains("pipe:") && !line.contains(":"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    for outcome in &outcomes {
        assert_eq!(normal(&outcome.stdout), normal(&outcomes[0].stdout));
    }
}

#[test]
fn the_view_is_there_and_read_only() {
    let etc = TOOLS.files.iter().find(|(path, _)| path.as_str() == "etc/passwd").unwrap();
    check("cat /etc/passwd", &String::from_utf8_lossy(&etc.1));
    check("stat -c '%u:%g %a' /etc/passwd /etc", "0:0 444\n0:0 755");
}

#[test]
fn a_program_without_a_c_library_runs() {
    let getpid = if cfg!(target_arch = "x86_64") { 39 } else { 172 };
    let program = RawProgram::new().call(getpid, &[]).build();
    let outcome = Action::new(&["./raw"]).file("raw", 0o755, &program).run();
    assert_eq!(results(&outcome.expect_code(0).stdout_bytes), [2]);
}

#[test]
fn arguments_and_environment_may_be_long() {
    let mut action = Action::sh("printf %s \"$LONG$0\" | wc -c");
    action.arguments.push("y".repeat(100_000));
    action.environment.push(format!("LONG={}", "x".repeat(100_000)));
    action.run().expect_code(0).expect_stdout("200000");
}

#[test]
fn a_fixed_number_of_descriptors_is_what_the_configuration_says() {
    let mut config = config();
    config.open_files = 1234;
    let pool = sandbox::Pool::new(config);
    let mut sandbox = pool.acquire(&TOOLS).unwrap();
    Action::sh("ulimit -n").run_in(&mut sandbox).unwrap().expect_stdout("1234");
}
