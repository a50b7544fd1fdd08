use super::*;
use crate::plan::hidden::{self, Hidden};

fn words(words: &[&str]) -> Vec<CString> {
    words.iter().map(|word| CString::new(*word).unwrap()).collect()
}

#[track_caller]
fn check_candidates(program: &str, environment: &[&str], expected: &[&str]) {
    let (arguments, environment) = (words(&[program]), words(environment));
    let command = Command {
        arguments: &arguments,
        environment: &environment,
        working_directory: &RelPath::root(),
        place: InputRootPlace::Execroot,
        write_changes: &[],
        has_terminal: false,
    };
    let found: Vec<String> =
        candidates(&command).iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    assert_eq!(found, expected);
}

#[test]
fn a_program_with_a_slash_is_taken_as_it_is() {
    check_candidates("/bin/sh", &["PATH=/x"], &["/bin/sh"]);
    check_candidates("./tool", &[], &["./tool"]);
    check_candidates("out/tool", &[], &["out/tool"]);
    check_candidates("../../tool", &[], &["../../tool"]);
}

#[test]
fn a_name_is_looked_up_in_the_commands_own_path() {
    check_candidates("cc", &[], &["/usr/local/bin/cc", "/usr/bin/cc", "/bin/cc"]);
    check_candidates("cc", &["HOME=/x", "PATH=/a:/b/"], &["/a/cc", "/b//cc"]);
    check_candidates("cc", &["PATH=:rel"], &["./cc", "rel/cc"]);
    check_candidates("cc", &["PATH="], &["./cc"]);
    check_candidates("cc", &["PATH=/a", "PATH=/b"], &["/a/cc"]);
}

#[test]
fn what_the_kernel_would_refuse_is_left_to_the_kernel() {
    let long = "x".repeat(256);
    check_candidates(&long, &["PATH=/a:/b"], &[&long]);
    check_candidates("", &[], &[""]);
    let path = format!("PATH=/{}:/b", "y".repeat(5000));
    check_candidates("cc", &[&path], &["/b/cc"]);
}

#[test]
fn a_huge_path_makes_no_huge_plan() {
    let path = format!("PATH={}", ":".repeat(100_000));
    let (arguments, environment) = (words(&["cc"]), words(&[&path]));
    let command = Command {
        arguments: &arguments,
        environment: &environment,
        working_directory: &RelPath::root(),
        place: InputRootPlace::Execroot,
        write_changes: &[],
        has_terminal: false,
    };
    assert_eq!(candidates(&command).len(), MAX_CANDIDATES);
}

#[test]
fn no_arguments_no_candidates() {
    let command = Command {
        arguments: &[],
        environment: &[],
        working_directory: &RelPath::root(),
        place: InputRootPlace::Execroot,
        write_changes: &[],
        has_terminal: false,
    };
    assert!(candidates(&command).is_empty());
}

/// One line a step.
fn shown<T: std::fmt::Debug>(actor: &str, steps: &[T]) -> String {
    steps.iter().map(|step| format!("{actor}: {step:?}\n")).collect()
}

fn shown_run(run: &Run) -> String {
    [shown("init", &run.init), shown("action", &run.action), format!("{:?}\n", run.execute)]
        .concat()
}

#[test]
fn the_preparation() {
    let sizes =
        Sizes { tmp: TmpfsSize { bytes: 1, inodes: 2 }, shm: TmpfsSize { bytes: 3, inodes: 4 } };
    let hidden = [(c"/proc/keys", 0o100_444), (c"/proc/fs", 0o040_555)];
    let hidden =
        Vec::from_iter(hidden.into_iter().filter_map(|(path, mode)| Hidden::new(path, mode)));
    let Preparation { init, action } = preparation(&sizes, Ids::default(), &hidden);
    let expected = r#"init: NewCgroupNamespace
init: MountProc
init: Hide(Hidden { path: "/proc/keys", cover: "/dev/null" })
init: Hide(Hidden { path: "/proc/fs", cover: "/execroot" })
init: MountTmp(TmpfsSize { bytes: 1, inodes: 2 })
init: MountShm(TmpfsSize { bytes: 3, inodes: 4 })
action: NewSession
action: DropGroups
action: SetGroup
action: SetUser
action: DropCapabilities
action: NoNewPrivileges
action: Filter
"#;
    assert_eq!([shown("init", &init), shown("action", &action)].concat(), expected);
}

#[test]
fn a_plain_action() {
    let (arguments, environment) = (words(&["cc", "-c", "a.c"]), words(&["PATH=/bin", "A=b"]));
    let command = Command {
        arguments: &arguments,
        environment: &environment,
        working_directory: &RelPath::root(),
        place: InputRootPlace::Execroot,
        write_changes: &[],
        has_terminal: false,
    };
    let limits = ProcessLimits { processes: 100, ..ProcessLimits::default() };
    let expected = r#"init: AttachInputRoot
init: Confine
action: LimitProcesses(100)
action: Streams
action: EnterDirectory { path: ["/execroot"] }
Execute { candidates: ["/bin/cc"], arguments: ["cc", "-c", "a.c"], environment: ["PATH=/bin", "A=b"] }
"#;
    assert_eq!(shown_run(&run(&command, &limits)), expected);
}

#[test]
fn an_action_with_limits_in_a_directory() {
    let arguments = words(&["bin/tool"]);
    let directory = RelPath::parse("a/b").unwrap();
    let command = Command {
        arguments: &arguments,
        environment: &[],
        working_directory: &directory,
        place: InputRootPlace::Execroot,
        write_changes: &[],
        has_terminal: false,
    };
    let limits = ProcessLimits { processes: 5, address_space: Some(1 << 30), cpus: Some(vec![3]) };
    let expected = r#"init: AttachInputRoot
init: Confine
action: LimitProcesses(5)
action: LimitAddressSpace(1073741824)
action: RunOn { mask: [3] }
action: Streams
action: EnterDirectory { path: ["/execroot/a/b"] }
Execute { candidates: ["bin/tool"], arguments: ["bin/tool"], environment: [] }
"#;
    assert_eq!(shown_run(&run(&command, &limits)), expected);
}

#[test]
fn a_terminal_is_taken_before_any_path_of_the_clients_is_resolved() {
    let arguments = words(&["/bin/sh"]);
    let command = Command {
        arguments: &arguments,
        environment: &[],
        working_directory: &RelPath::root(),
        place: InputRootPlace::Execroot,
        write_changes: &[],
        has_terminal: true,
    };
    let planned = run(&command, &ProcessLimits::default());
    let expected = r#"action: LimitProcesses(0)
action: Streams
action: Terminal
action: EnterDirectory { path: ["/execroot"] }
"#;
    assert_eq!(shown("action", &planned.action), expected);
}

#[test]
fn an_action_whose_root_is_the_input_root() {
    let check = |directory: &str, expected: &str| {
        let arguments = words(&["/bin/tool"]);
        let directory = RelPath::resolve(&RelPath::root(), directory).unwrap();
        let command = Command {
            arguments: &arguments,
            environment: &[],
            working_directory: &directory,
            place: InputRootPlace::Root,
            write_changes: &[],
            has_terminal: false,
        };
        let expected = format!(
            r#"init: AttachInputRoot
init: CoverInputRoot
init: EnterInputRoot
init: Confine
action: LimitProcesses(5)
action: Streams
action: EnterDirectory {{ path: ["{expected}"] }}
Execute {{ candidates: ["/bin/tool"], arguments: ["/bin/tool"], environment: [] }}
"#
        );
        let limits = ProcessLimits { processes: 5, ..ProcessLimits::default() };
        assert_eq!(shown_run(&run(&command, &limits)), expected);
    };
    check("", "/");
    check("buildstream/project", "/buildstream/project");
}

#[test]
fn an_action_that_may_not_write_everywhere() {
    let arguments = words(&["tool"]);
    let path = |path: &str| RelPath::resolve(&RelPath::root(), path).unwrap();
    let changes = [(path(""), true), (path("build"), false), (path("build/inputs"), true)];
    let command = Command {
        arguments: &arguments,
        environment: &[],
        working_directory: &path(""),
        place: InputRootPlace::Execroot,
        write_changes: &changes,
        has_terminal: false,
    };
    let planned = run(&command, &ProcessLimits::default());
    let expected = r#"init: AttachInputRoot
init: CoverInputRoot
init: CloseSubtrees { paths: ["/execroot", "/execroot/build", "/execroot/build/inputs"], are_closed: [true, false, true] }
init: Confine
"#;
    assert_eq!(shown("init", &planned.init), expected);
}

#[test]
fn users_and_groups_change_before_the_capabilities_to_change_them_are_gone() {
    use ActionPreparation::*;
    let steps = preparation(&Sizes::default(), Ids::default(), &[]).action;
    let at = |step| steps.iter().position(|other| *other == step).unwrap();
    assert!(at(DropGroups) < at(SetUser));
    assert!(at(SetGroup) < at(SetUser));
    assert!(at(SetUser) < at(DropCapabilities));
    assert!(at(NoNewPrivileges) < at(Filter));
}

#[test]
fn what_a_mode_closes_needs_no_cover() {
    let cover = |mode| Hidden::new(c"/proc/x", mode).map(|hidden| hidden.cover);
    assert_eq!(cover(0o100_444), Some(hidden::FILE_COVER));
    assert_eq!(cover(0o040_555), Some(hidden::DIRECTORY_COVER));
    for mode in [0o100_440, 0o100_400, 0o040_550, 0o040_500] {
        assert_eq!(cover(mode), None, "{mode:o}");
    }
}

#[test]
fn with_one_id_only_the_groups_stay() {
    let names = |ids| {
        let steps = preparation(&Sizes::default(), ids, &[]).action;
        steps.into_iter().map(|step| step.name()).collect::<Vec<_>>()
    };
    let mut all = names(Ids::default());
    let without = names(Ids { are_initial: false, has_action: false });
    all.retain(|name| *name != step::StepName::DropGroups);
    assert_eq!(without, all);
}
