//! Commands that cannot be run, and what is said about it.

use rustix::io::Errno;
use sandbox::{ExitStatus, StepName};

use crate::support::Action;

#[track_caller]
fn check(action: Action, step: StepName, errno: Errno) {
    let error = action.try_run().unwrap_err();
    assert_eq!((error.step(), error.errno()), (step, errno), "{error}");
    assert!(error.is_about_command());
}

#[test]
fn programs_that_can_not_be_executed() {
    let check = |action, errno| check(action, StepName::Execute, errno);
    check(Action::new(&["/nowhere"]), Errno::NOENT);
    check(Action::new(&["nowhere"]), Errno::NOENT);
    check(Action::new(&["./nowhere"]), Errno::NOENT);
    check(Action::new(&[""]), Errno::NOENT);
    check(Action::new::<&str>(&[]), Errno::NOENT);
    check(Action::new(&["/etc/passwd/x"]), Errno::NOENT);
    check(Action::new(&["/etc"]), Errno::ACCESS);
    check(Action::new(&["./data"]).file("data", 0o644, b"x"), Errno::ACCESS);
    check(Action::new(&["./data"]).file("data", 0o755, b"not a program"), Errno::NOEXEC);
    check(Action::new(&["./script"]).file("script", 0o755, b"#!/nowhere\n"), Errno::NOENT);
    check(Action::new(&["x".repeat(300)]), Errno::NAMETOOLONG);
}

#[test]
fn a_file_that_may_not_be_executed_is_remembered_over_one_that_is_not_there() {
    let mut action = Action::new(&["tool"]).file("tool", 0o644, b"x");
    action.environment = vec!["PATH=/execroot:/nowhere".to_owned()];
    check(action, StepName::Execute, Errno::ACCESS);
    let mut action = Action::new(&["echo", "x"]).file("echo", 0o644, b"x");
    action.environment = vec!["PATH=/execroot:/usr/bin:/bin".to_owned()];
    action.run().expect_code(0).expect_stdout("x");
}

#[test]
fn working_directories_that_can_not_be_entered() {
    let check = |action, errno| check(action, StepName::EnterDirectory, errno);
    check(Action::sh("true").in_directory("nowhere"), Errno::NOENT);
    check(Action::sh("true").file("file", 0o644, b"").in_directory("file"), Errno::NOTDIR);
    check(Action::sh("true").symlink("loop", "loop").in_directory("loop"), Errno::LOOP);
    let action = Action::sh("true");
    rustix::fs::mkdirat(&action.input_root, "closed", 0o700.into()).unwrap();
    check(action.in_directory("closed"), Errno::ACCESS);
}

#[test]
fn too_many_arguments() {
    let check = |bytes: usize, pieces: usize| {
        let mut action = Action::sh("true");
        action.arguments.extend(std::iter::repeat_n("x".repeat(bytes), pieces));
        check(action, StepName::Execute, Errno::TOOBIG);
    };
    // One that is too long, the kernel's sum, our packet's bound.
    check(200_000, 1);
    check(100_000, 40);
    check(100_000, 200);
}

#[test]
fn a_failure_leaves_the_sandbox_usable() {
    let pool = sandbox::Pool::new(crate::support::config());
    for _ in 0..3 {
        let mut sandbox = pool.acquire(&crate::support::TOOLS).unwrap();
        Action::new(&["/nowhere"]).run_in(&mut sandbox).unwrap_err();
        pool.release(sandbox);
        let mut sandbox = pool.acquire(&crate::support::TOOLS).unwrap();
        Action::sh("echo fine").run_in(&mut sandbox).unwrap().expect_stdout("fine");
        pool.release(sandbox);
    }
}

#[test]
fn exit_codes_and_signals() {
    let check = |script: &str, expected| {
        assert_eq!(Action::sh(script).run().exit.status, expected, "{script}")
    };
    check("exit 0", ExitStatus::Code(0));
    check("exit 1", ExitStatus::Code(1));
    check("exit 255", ExitStatus::Code(255));
    check("kill -TERM $$", ExitStatus::Signal(15));
    check("kill -KILL $$", ExitStatus::Signal(9));
    check("kill -ABRT $$", ExitStatus::Signal(6));
}
