//! Real input roots of every strategy, and attempts to change what is shared.

use inputroot::{OutputEntry, OutputFile, PresentRequest, Presented, StrategyName, choose};
use model::{Limits, RelPath};
use rustix::fs::AtFlags;
use sandbox::{Config, Pool, Sandbox, Spec, StopConditions, Streams};
use store::{Store, StoreOptions};

use crate::support::{FIRST_USER, TOOLS, config, path};
use crate::tree_fixture::TreeFixture;

/// A pattern for lines of `mountinfo` whose fifth field, the mount point, begins with `/execroot`.
const AT_EXECROOT: &str = r"^\([^ ]* \)\{4\}/execroot";

/// Runs a script in the directory `dir` of a small tree, by each strategy.
fn each_strategy(mutable: bool, script: &str, look: impl Fn(StrategyName, &str, Presented)) {
    each_strategy_with(&[], mutable, script, look);
}

/// The same with a tree that is not open for writes everywhere.
fn each_strategy_with(
    write_changes: &[(RelPath, bool)],
    mutable: bool,
    script: &str,
    look: impl Fn(StrategyName, &str, Presented),
) {
    let directory = tempfile::tempdir().unwrap();
    let shared = Pool::new(config());
    let own = Pool::new(Config { first_user: Some(FIRST_USER), ..config() });
    for name in StrategyName::ALL {
        let store =
            Store::open(&directory.path().join(name.as_str()), StoreOptions::default()).unwrap();
        let strategy = match choose(&store, Some(name)) {
            Ok(strategy) => strategy,
            Err(error) => {
                eprintln!("SKIPPED: {name}: {error}");
                continue;
            }
        };
        let (tree, blobs) = TreeFixture::new()
            .file("dir/input", b"content\n")
            .file("input", b"content\n")
            .executable("dir/tool", b"#!/bin/sh\necho tool\n")
            .symlink("dir/link", "../input")
            .symlink("out", "/etc")
            .build();
        for (digest, content) in &blobs {
            store.cas().put_expected(digest, content).unwrap();
        }
        let made = [path("dir/made")];
        let pools = [Some(&shared), strategy.maps_users().then_some(&own)];
        // Twice, because the second comes from caches.
        for pool in pools.into_iter().flatten().flat_map(|pool| [pool, pool]) {
            let mut sandbox = pool.acquire(&TOOLS).unwrap();
            let request = PresentRequest {
                user: sandbox.user(),
                mutable,
                make_directories: &made,
                write_changes,
                ..Default::default()
            };
            let presented = strategy.present(&tree, &request).unwrap();
            let output = run(&mut sandbox, script, &presented, write_changes);
            pool.release(sandbox);
            look(name, &output, presented);
        }
        for (digest, content) in &blobs {
            let stored = store.cas().read(digest).unwrap().unwrap();
            assert_eq!(stored.as_ref(), content.as_slice(), "{name}: a blob was changed");
        }
    }
}

fn run(
    sandbox: &mut Sandbox,
    script: &str,
    presented: &Presented,
    write_changes: &[(RelPath, bool)],
) -> String {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let spec = Spec {
        arguments: &[c"/bin/sh".into(), c"-c".into(), std::ffi::CString::new(script).unwrap()],
        environment: &[c"PATH=/usr/bin:/bin".into()],
        working_directory: &path("dir"),
        input_root: presented.attachment(),
        write_changes,
        limits: &Limits::default(),
        conversation: None,
    };
    let streams = Streams { stdout: &mut stdout, stderr: &mut stderr };
    sandbox.run(&spec, streams, &StopConditions::default()).unwrap();
    String::from_utf8_lossy(&stdout).into_owned()
}

#[test]
fn inputs_are_read_and_executed_and_outputs_written() {
    let script = "cat input link; ./tool; echo new > made/out; mkdir sub; echo x > sub/y; pwd";
    each_strategy(false, script, |name, output, presented| {
        assert_eq!(output, "content\ncontent\ntool\n/execroot/dir\n", "{name}");
        for file in ["dir/made/out", "dir/sub/y"] {
            let entry = presented.outputs().entry(&path(file)).unwrap();
            assert!(matches!(entry, Some(OutputEntry::File(_))), "{name}: {entry:?}");
        }
        presented.discard();
    });
}

/// Whatever user of the host a sandbox has.
#[test]
fn inputs_are_roots_and_names_the_actions() {
    let script =
        "id -u; id -g; echo x > new; mkdir sub; stat -c '%u %g %a' input . link made new sub";
    each_strategy(false, script, |name, output, presented| {
        // Where a file is the blob itself, its mode is the blob's.
        let is_blob = matches!(name, StrategyName::Bind | StrategyName::LinkOverlay);
        let mode = if is_blob { "444" } else { "644" };
        let own = "65534 65534";
        let expected = format!(
            "65534\n65534\n0 0 {mode}\n{own} 755\n{own} 777\n{own} 755\n{own} 644\n{own} 755\n"
        );
        assert_eq!(output, expected, "{name}");
        let made = presented.outputs().entry(&path("dir/new")).unwrap();
        let Some(OutputEntry::File(OutputFile::Staged(file))) = made else { panic!("{made:?}") };
        assert!(!file.must_copy(), "{name}");
        let on_disk = rustix::fs::statat(file.directory(), file.name(), AtFlags::empty()).unwrap();
        assert_eq!((on_disk.st_uid, on_disk.st_gid), (65534, 65534), "{name}");
        presented.discard();
    });
}

/// Each line must fail.
const CHANGES: &[&str] = &[
    "echo x > input",
    "echo x >> input",
    ": > input",
    "truncate -s 0 input",
    "chmod 666 input",
    "touch input",
    "touch -d 2000-01-01 input",
    "chown 65534 input",
    "ln input hard",
    "ln tool hard",
    "setfattr -n user.x -v y input",
    "exec 3<>input",
    "exec 3<input && echo x > /proc/self/fd/3",
    "dd if=/dev/zero of=input bs=1 count=1 conv=notrunc",
    "fallocate -p -l 1 input",
    "cp /bin/true input",
    "echo x > link",
    "touch ../out/x",
    "rmdir /execroot",
    "mv /execroot /gone",
];

#[test]
fn inputs_can_not_be_changed() {
    let script: String = CHANGES
        .iter()
        .map(|line| format!("( {line} ) >/dev/null 2>&1 && echo 'succeeded: {line}'\n"))
        .chain(["cat input ../input; ./tool; stat -c %h input\n".to_owned()])
        .collect();
    each_strategy(false, &script, |name, output, presented| {
        // The blob, and a link for each of the two files.
        let links = if name == StrategyName::LinkOverlay { 3 } else { 1 };
        assert_eq!(output, format!("content\ncontent\ntool\n{links}\n"), "{name}");
        presented.discard();
    });
}

/// Names are the action's own; that no blob has changed is looked at for every strategy.
#[test]
fn what_lies_where_is_the_actions_choice() {
    let script = "cd .. && mv dir moved && cd moved && mv tool ../tool && rm link && ln -s x link && \
        mkdir new && echo y > new/tool && mv new/tool tool && ../tool && cat tool && \
        (echo x > ../tool) 2>/dev/null || ls ..";
    each_strategy(false, script, |name, output, presented| {
        // Where a directory can't be renamed, mv(1) copies it, and the action owns the copies.
        let is_copied = matches!(name, StrategyName::TmpfsOverlay | StrategyName::LinkOverlay);
        let left = if is_copied { "" } else { "input\nmoved\nout\ntool\n" };
        assert_eq!(output, format!("tool\ny\n{left}"), "{name}");
        let gone = presented.outputs().entry(&path("dir/tool")).unwrap();
        assert!(gone.is_none(), "{name}: {gone:?}");
        presented.discard();
    });
}

#[test]
fn an_action_that_may_changes_only_its_own_view() {
    let script = "echo mine > input; rm tool; mv link moved; chmod 600 ../input; cat input; ls";
    each_strategy(true, script, |name, output, presented| {
        assert_eq!(output, "mine\ninput\nmade\nmoved\n", "{name}");
        assert!(presented.outputs().entry(&path("dir/tool")).unwrap().is_none(), "{name}");
        presented.discard();
    });
}

#[test]
fn nothing_can_be_executed_with_other_rights_or_opened_as_a_device() {
    let script = format!("grep '{AT_EXECROOT}' /proc/self/mountinfo | cut -d' ' -f6");
    each_strategy(false, &script, |name, output, _| {
        assert!(!output.is_empty());
        for options in output.lines() {
            let options: Vec<&str> = options.split(',').collect();
            assert!(
                options.contains(&"nosuid") && options.contains(&"nodev"),
                "{name}: {options:?}"
            );
        }
    });
}

/// The paths of an overlay's layers are among what an action reads of its mounts.
#[test]
fn no_layer_has_a_path_of_the_state() {
    const LAYERS: [&str; 4] = ["lowerdir", "datadir", "upperdir", "workdir"];
    let script = format!("grep '{AT_EXECROOT} ' /proc/self/mountinfo");
    each_strategy(false, &script, |name, output, _| {
        let mount = output.lines().next().unwrap_or_else(|| panic!("{name}: no mount"));
        let (fields, file_system) = mount.split_once(" - ").unwrap();
        if name == StrategyName::Bind {
            // Binds have their place in the file system that they are from.
            assert!(!file_system.starts_with("overlay"), "{mount}");
            return;
        }
        assert_eq!(fields.split(' ').nth(3), Some("/"), "{name}: {mount}");
        let options = file_system.rsplit(' ').next().unwrap();
        let layers: Vec<&str> = options
            .split(',')
            .filter_map(|option| option.split_once('='))
            .filter(|(key, _)| LAYERS.contains(&key.trim_end_matches('+')))
            .flat_map(|(_, paths)| paths.split(':'))
            .filter(|path| !path.is_empty())
            .collect();
        assert!(layers.len() >= 3, "{name}: {mount}");
        for layer in layers {
            let parts: Vec<&str> = layer.split('/').skip(1).collect();
            let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let is_neutral = match parts[..] {
                [""] => true,
                [number, "upper" | "work"] => is_number(number),
                // Kernels that take no descriptors show the words in which one was given.
                ["proc", "self", "fd", number] => is_number(number),
                _ => false,
            };
            assert!(is_neutral, "{name}: {layer} in {mount}");
        }
    });
}

#[test]
fn the_root_of_the_tree_may_be_the_working_directory() {
    each_strategy(false, "cd ..; ls; echo x > made-here; cat made-here", |name, output, _| {
        assert_eq!(output, "dir\ninput\nout\nx\n", "{name}");
    });
}

#[test]
fn bound_files_are_mounted_again_for_each_write_change_above_them() {
    let changes = [("", true), ("dir", false)].map(|(text, closed)| (path(text), closed));
    let script = format!(
        "grep -c '{AT_EXECROOT}' /proc/self/mountinfo; touch ../x 2>/dev/null || touch x && echo *; \
         cat input ../input"
    );
    for mutable in [false, true] {
        each_strategy_with(&changes, mutable, &script, |name, output, presented| {
            let mounts = match (name, mutable) {
                // Its count for the same: four files, another one in `dir`, and `dir`.
                (StrategyName::Bind, false) => 2 + 6,
                _ => 2 + 1,
            };
            let expected = format!("{mounts}\ninput link made tool x\ncontent\ncontent\n");
            assert_eq!(output, expected, "{name}");
            presented.discard();
        });
    }
}
