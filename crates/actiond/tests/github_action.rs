//! The GitHub Action in `packaging/github-action`: its one step, as a runner starts it for an ordinary user.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::Context as _;
use testkit::{Kit, ORDINARY_USER, Outcome};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    every_input_reaches_the_step_as_a_variable,
    the_command_has_a_server_and_its_exit_status_is_the_steps,
    a_kept_root_has_the_results_of_the_step_before,
    restricted_user_namespaces_are_allowed_or_told,
}

fn action() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/github-action")
}

/// Text from outside that a runner pastes into a script would be executed.
async fn every_input_reaches_the_step_as_a_variable(kit: Kit) -> Outcome {
    kit.only_on_the_host("no daemon is started")?;
    let text = std::fs::read_to_string(action().join("action.yml"))?;
    let (inputs, steps) = text.split_once("\nruns:").context("inputs, then steps")?;
    let indented = |line: &&str| line.starts_with("  ") && !line.starts_with("   ");
    let declared: BTreeSet<_> =
        inputs.lines().filter(indented).map(|line| line.trim().trim_end_matches(':')).collect();
    let used: BTreeSet<_> = steps
        .split("${{ inputs.")
        .skip(1)
        .filter_map(|rest| rest.split_once(" }}"))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(declared, used);
    for line in steps.lines().filter(|line| line.contains("${{")) {
        let key = line.trim().split(':').next().context("a key")?;
        assert!(key == "working-directory" || key.starts_with(char::is_uppercase), "{line}");
    }
    let script = std::fs::read_to_string(action().join("run.sh"))?;
    for input in declared.iter().filter(|input| **input != "working-directory") {
        let variable = format!("INPUT_{}", input.to_uppercase());
        assert!(
            steps.contains(&format!("{variable}: ")) && script.contains(&variable),
            "{variable}"
        );
    }
    Ok(())
}

/// A runner's directory for temporary files, which belongs to its user.
struct Runner {
    place: tempfile::TempDir,
    switch: PathBuf,
}

impl Runner {
    fn new(kit: &Kit) -> anyhow::Result<Self> {
        kit.only_on_the_host("the action starts `serve`")?;
        kit.only_as_root("the runner's user is an ordinary one")?;
        let place = kit.daemon().directory()?;
        std::os::unix::fs::chown(place.path(), Some(ORDINARY_USER), Some(ORDINARY_USER))?;
        let switch = place.path().join("switch");
        Ok(Self { place, switch })
    }

    /// Runs the step with these inputs. `programs` are put before those of the runner.
    fn step(&self, kit: &Kit, command: &str, flags: &str, root: &str) -> anyhow::Result<Output> {
        // Descriptors, for the user may not be able to reach the files by their paths.
        let start = "exec 8< \"$1\" 9< \"$2\"; exec setpriv --reuid=47110 --regid=47110 --clear-groups \
                     --inh-caps=-all bash /proc/self/fd/8";
        let mut step = Command::new("bash");
        step.args(["-c", start, "runner"]).arg(action().join("run.sh")).arg(kit.binary());
        let path = std::env::var("PATH")?;
        let programs = self.place.path().join("programs");
        step.env("PATH", format!("{}:{path}", programs.display()));
        step.env("INPUT_ACTIOND", "/proc/self/fd/9").env("INPUT_COMMAND", command);
        step.env("INPUT_FLAGS", flags).env("INPUT_ROOT", root);
        step.env("RUNNER_TEMP", self.place.path()).env("TMPDIR", self.place.path());
        step.env("GITHUB_STEP_SUMMARY", self.place.path().join("summary"));
        step.env("ACTIOND_TEST_APPARMOR_SWITCH", &self.switch).env("ACTIOND_CONFIG", "/dev/null");
        // One of the runner's own, which is warned of: a server of this user starts nevertheless.
        step.env("ACTIOND_VERSION", "1");
        Ok(step.current_dir("/").stdin(Stdio::null()).output()?)
    }

    fn summary(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.place.path().join("summary"))?)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn expect(output: &Output, code: i32, stdout: &str) {
    let stderr = text(&output.stderr);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(code), stdout.to_owned()),
        "{stderr}"
    );
}

async fn the_command_has_a_server_and_its_exit_status_is_the_steps(kit: Kit) -> Outcome {
    let runner = Runner::new(&kit)?;
    let command = "echo \"${ACTIOND_ENDPOINT%%:*}\"; grep -c remote_executor \"$ACTIOND_BAZELRC\"; false; echo on";
    let output = runner.step(&kit, command, "--allow-host-rootfs\n--jobs=2\n", "")?;
    // The command is a script that ends at its first failure, as the runner's own steps do.
    expect(&output, 1, "unix\n1\n");
    let summary = runner.summary()?;
    assert!(
        summary.starts_with("linux-actiond: 0 actions") && summary.ends_with("exit status 1\n"),
        "{summary}"
    );
    let output = runner.step(&kit, "exit 5", "--no-such-flag", "")?;
    assert!(!output.status.success() && output.status.code() != Some(5), "{output:?}");
    // Inputs are words, whatever is in them.
    let executed = runner.place.path().join("executed");
    let flag = format!("--platform=x=$(touch '{}') y", executed.display());
    expect(&runner.step(&kit, "echo ran", &flag, "")?, 0, "ran\n");
    assert!(!executed.exists());
    Ok(())
}

async fn a_kept_root_has_the_results_of_the_step_before(kit: Kit) -> Outcome {
    let runner = Runner::new(&kit)?;
    let root = runner.place.path().join("kept root");
    let root = root.to_str().context("a path of UTF-8")?;
    for _ in 0..2 {
        expect(&runner.step(&kit, "true", "", root)?, 0, "");
        assert!(Path::new(root).join("cas").is_dir());
    }
    Ok(())
}

/// Ubuntu's switch is turned off where the runner's user may do that; otherwise the log has a warning.
async fn restricted_user_namespaces_are_allowed_or_told(kit: Kit) -> Outcome {
    let runner = Runner::new(&kit)?;
    std::fs::write(&runner.switch, "1\n")?;
    let programs = runner.place.path().join("programs");
    std::fs::create_dir(&programs)?;
    for (exit, warns) in [(0, false), (1, true)] {
        let sudo = programs.join("sudo");
        let calls = runner.place.path().join("calls");
        std::fs::write(
            &sudo,
            format!("#!/bin/sh\necho \"$*\" > '{}'\nexit {exit}\n", calls.display()),
        )?;
        std::fs::set_permissions(&sudo, std::fs::Permissions::from_mode(0o755))?;
        let output = runner.step(&kit, "echo ran", "", "")?;
        let said = text(&output.stdout);
        assert!(
            output.status.success() && said.ends_with("ran\n"),
            "{said}{}",
            text(&output.stderr)
        );
        assert_eq!(said.contains("::warning::"), warns, "{said}");
        let called = std::fs::read_to_string(&calls)?;
        assert_eq!(
            called,
            "--non-interactive sysctl --quiet kernel.apparmor_restrict_unprivileged_userns=0\n"
        );
    }
    Ok(())
}
