//! Commands that cannot be run, and what is said about it.

use rustix::io::Errno;
use sandbox::{ExitStatus, Hindrance, Part, StepName};

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

/// The report on a file that could not be executed: the program that the action named, the part at fault,
/// and the path of that part.
#[track_caller]
fn check_obstacle(action: Action, program: &str, part: Part, path: &str, hindrance: Hindrance) {
    let error = action.try_run().unwrap_err();
    let obstacle = error.obstacle().expect("an obstacle");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let found = (text(&obstacle.program), obstacle.part, text(&obstacle.path), obstacle.hindrance);
    assert_eq!(found, (program.to_owned(), part, path.to_owned(), hindrance), "{error}");
}

#[test]
fn the_file_to_blame_is_named() {
    use Hindrance::*;
    let missing = Unreachable(Errno::NOENT.raw_os_error());
    let program = |action, path: &str, hindrance| {
        check_obstacle(action, path, Part::Program, path, hindrance);
    };
    program(Action::new(&["/nowhere"]), "/nowhere", missing);
    program(Action::new(&["nowhere"]), "/usr/bin/nowhere", missing);
    let below_a_file = Unreachable(Errno::NOTDIR.raw_os_error());
    program(Action::new(&["/etc/passwd/x"]), "/etc/passwd/x", below_a_file);
    program(Action::new(&["/etc"]), "/etc", Directory);
    program(Action::new(&["/dev/null"]), "/dev/null", Special);
    let data = |mode, content: &[u8]| Action::new(&["./data"]).file("data", mode, content);
    program(data(0o644, b"x"), "./data", Forbidden(0o644));
    program(data(0o755, b"not a program"), "./data", Format);
    program(data(0o755, b""), "./data", Format);

    let interpreter = |content: &[u8], path: &str| {
        check_obstacle(data(0o755, content), "./data", Part::Interpreter, path, missing);
    };
    interpreter(b"#!/nowhere\n", "/nowhere");
    interpreter(b"#!/bin/sh\r\necho\r\n", "/bin/sh\r");
    let by_a_script = data(0o755, b"#!./other\n").file("other", 0o755, b"#!/nowhere\n");
    check_obstacle(by_a_script, "./data", Part::Interpreter, "/nowhere", missing);
    let unfit = data(0o755, b"#!/etc/passwd\n");
    check_obstacle(unfit, "./data", Part::Interpreter, "/etc/passwd", Forbidden(0o444));
}

/// The files are looked at with the action's rights, in its own root.
#[test]
fn the_look_at_a_program_reaches_no_further_than_the_action() {
    let program = |target: &str| {
        let action = Action::new(&["./link"]).symlink("link", target);
        let error = action.try_run().unwrap_err();
        error.obstacle().expect("an obstacle").hindrance
    };
    let missing = Hindrance::Unreachable(Errno::NOENT.raw_os_error());
    assert_eq!(program("/proc/1/exe"), missing);
    assert_eq!(program("/proc/1/root/bin/sh"), missing);
    assert_eq!(program("/root/.profile"), missing);
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
