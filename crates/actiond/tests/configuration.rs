//! The configuration from file, environment and flags, at start and at SIGHUP.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use testkit::{Kit, Outcome, eventually};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_file_configures_the_daemon,
    show_tells_values_and_origins,
    check_names_the_place_of_a_mistake,
    serve_refuses_a_wrong_file,
    a_misspelled_variable_is_refused,
    the_users_file_is_found,
    a_signal_reloads_what_can_change,
    a_signal_changes_limits,
    a_mistake_at_a_reload_changes_nothing,
}

/// A directory with a configuration file in it.
struct ConfigFile(tempfile::TempDir);

impl ConfigFile {
    fn new(text: &str) -> anyhow::Result<Self> {
        let file = Self(tempfile::tempdir()?);
        file.write(text)?;
        Ok(file)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("config.toml")
    }

    fn write(&self, text: &str) -> Outcome {
        Ok(std::fs::write(self.path(), text)?)
    }

    fn flag(&self) -> String {
        format!("--config={}", self.path().display())
    }
}

/// Runs `linux-actiond config VERB` with these flags, in an environment without settings.
fn config(kit: &Kit, verb: &str, flags: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(kit.binary());
    command.args(["config", verb]).args(flags).env_clear();
    Ok(command.output()?)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn a_file_configures_the_daemon(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM's worker has no configuration file")?;
    let file = ConfigFile::new(
        "allow_host_rootfs = true\nunknown_properties = 'refuse'\nplatform = ['Pool=a']\n",
    )?;
    let daemon = kit.daemon().flag(file.flag()).start().await?;
    let action = daemon.client().action("true");
    action.clone().property("Pool", "a").run().await?.succeeded().await?;
    let run = action.clone().property("other", "x").run().await?;
    assert_eq!(run.code(), Code::InvalidArgument, "{}", run.message());
    // A flag goes before the file.
    let ignoring = kit.daemon().flag(file.flag()).flag("--unknown-properties=ignore");
    let ignoring = ignoring.start().await?;
    ignoring.client().action("true").property("other", "x").run().await?.succeeded().await?;
    Ok(())
}

async fn show_tells_values_and_origins(kit: Kit) -> Outcome {
    let file = ConfigFile::new("\njobs = 3\nplatform = ['Pool=a', 'gpu=1']\n")?;
    let output = config(&kit, "show", &[&file.flag(), "--tmp-bytes", "2Gi"])?;
    assert!(output.status.success(), "{}", stderr(&output));
    let shown = stdout(&output);
    let line = |start: &str| {
        shown.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{shown}"))
    };
    assert!(line("jobs = 3").contains("config.toml:2"), "{shown}");
    assert!(line(r#"platform = ["Pool=a", "gpu=1"]"#).contains("config.toml:3"), "{shown}");
    assert!(line(r#"tmp_bytes = "2Gi""#).ends_with("# flag"), "{shown}");
    assert!(line("# queue_limit = 10000").ends_with("# default"), "{shown}");
    Ok(())
}

async fn check_names_the_place_of_a_mistake(kit: Kit) -> Outcome {
    for (text, expected) in [
        ("\njob = 3", "config.toml:2: job: there is no such setting; did you mean jobs?"),
        ("jobs = 0", "config.toml:1: jobs:"),
        ("jobs = ", "config.toml:1:"),
        ("log = 'x=y=z'", "log filter"),
        ("runtime_root = '/a'\nruntime_image = '/b'", "cannot be used with"),
    ] {
        let file = ConfigFile::new(text)?;
        let output = config(&kit, "check", &[&file.flag()])?;
        assert!(!output.status.success(), "{text}");
        assert!(stderr(&output).contains(expected), "`{expected}` in {}", stderr(&output));
    }
    let file = ConfigFile::new("jobs = 3")?;
    let output = config(&kit, "check", &[&file.flag()])?;
    assert!(output.status.success() && stdout(&output).contains("config.toml"));
    Ok(())
}

async fn serve_refuses_a_wrong_file(kit: Kit) -> Outcome {
    let file = ConfigFile::new("jobs = 'many'")?;
    let output = Command::new(kit.binary()).args(["serve", &file.flag()]).output()?;
    assert!(!output.status.success());
    assert!(stderr(&output).contains("config.toml:1: jobs:"), "{}", stderr(&output));
    Ok(())
}

async fn a_misspelled_variable_is_refused(kit: Kit) -> Outcome {
    let check = |verb: &[&str], name: &str| {
        let mut command = Command::new(kit.binary());
        command.args(verb).env("ACTIOND_CONFIG", "/dev/null").env(name, "5").output()
    };
    let meant = "ACTIOND_QUEU_LIMIT: there is no such setting; did you mean ACTIOND_QUEUE_LIMIT?";
    for verb in [&["config", "check"][..], &["serve"], &["run", "--", "true"]] {
        let output = check(verb, "ACTIOND_QUEU_LIMIT")?;
        assert!(!output.status.success(), "{verb:?}");
        assert!(stderr(&output).contains(meant), "`{meant}` in {}", stderr(&output));
    }
    // A variable of an image or a cluster is told, and no mistake.
    let output = check(&["config", "check"], "ACTIOND_VERSION")?;
    assert!(output.status.success(), "{}", stderr(&output));
    let told = "variable ACTIOND_VERSION: there is no such setting";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));
    for name in ["ACTIOND_ENDPOINT", "ACTIOND_TOKEN", "ACTIOND_FLAGS"] {
        let output = check(&["config", "check"], name)?;
        assert!(output.status.success() && stderr(&output).is_empty(), "{}", stderr(&output));
    }
    Ok(())
}

async fn the_users_file_is_found(kit: Kit) -> Outcome {
    let home = tempfile::tempdir()?;
    let folder = home.path().join(".config/actiond");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("config.toml"), "queue_limit = 7")?;
    let show = |home: &Path| -> anyhow::Result<String> {
        let mut command = Command::new(kit.binary());
        command.args(["config", "show"]).env_clear().env("HOME", home);
        Ok(stdout(&command.env("ACTIOND_JOBS", "5").output()?))
    };
    let shown = show(home.path())?;
    assert!(shown.contains("queue_limit = 7") && shown.contains("jobs = 5"), "{shown}");
    assert!(shown.contains("variable ACTIOND_JOBS"), "{shown}");
    assert!(!show(&home.path().join("nobody"))?.contains("queue_limit = 7"));
    Ok(())
}

async fn a_signal_reloads_what_can_change(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM's worker has no configuration file")?;
    let file = ConfigFile::new("allow_host_rootfs = true\nlog = 'warn'\njobs = 1\n")?;
    let daemon = kit.daemon().flag(file.flag()).start().await?;
    let action = || daemon.client().action("true").do_not_cache();
    action().run().await?.succeeded().await?;
    assert!(!daemon.log().contains("action finished"), "{}", daemon.log());
    file.write("allow_host_rootfs = true\nlog = 'info'\njobs = 2\n")?;
    daemon.signal(Signal::HUP)?;
    eventually("the configuration is read again", || {
        Ok(daemon.log().contains("the configuration was read again"))
    })
    .await?;
    let log = daemon.log();
    assert!(log.contains(r#"now=["log"]"#) && log.contains(r#"after_restart=["jobs"]"#), "{log}");
    action().run().await?.succeeded().await?;
    eventually("actions are logged", || Ok(daemon.log().contains("action finished"))).await
}

/// The limits of actions, of the queue and of the store, in both directions.
async fn a_signal_changes_limits(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM's worker has no configuration file")?;
    let wide = "allow_host_rootfs = true\n";
    let narrow = "cas_size = '16m'\nstream_limit_bytes = '1k'\noutput_entries_limit = 3\n";
    let file = ConfigFile::new(wide)?;
    let daemon = kit.daemon().flag(file.flag()).start().await?;
    let client = daemon.client();
    let reload = async |text: &str, times: usize| {
        file.write(&format!("{wide}{text}"))?;
        daemon.signal(Signal::HUP)?;
        eventually("the configuration is read again", || {
            Ok(daemon.log().matches("the configuration was read again").count() == times)
        })
        .await
    };
    let action = |script: &str| client.action(script).do_not_cache();
    let talk = action("head -c 5000 /dev/zero");
    let asks = action("true").timeout(Duration::from_secs(60));
    let files = action("mkdir out; touch out/1 out/2 out/3 out/4").output("out");
    let upload = async |byte: u8| {
        let content = vec![byte; 20 << 20];
        client.write(&client.upload_name(&client.digest(&content)), &content, 1 << 20).await
    };

    for action in [&talk, &asks, &files] {
        action.run().await?.succeeded().await?;
    }
    upload(1).await?;

    reload(narrow, 1).await?;
    let log = daemon.log();
    let keys = r#"now=["cas_size", "stream_limit_bytes", "output_entries_limit"]"#;
    assert!(log.contains(keys) && log.contains("after_restart=[]"), "{log}");
    assert_eq!(talk.run().await?.code(), Code::ResourceExhausted);
    assert_eq!(files.run().await?.code(), Code::ResourceExhausted);
    let refused = upload(2).await.expect_err("it can't fit");
    assert!(refused.message().contains("--cas-size"), "{refused}");

    reload("max_timeout_ms = 700\n", 2).await?;
    assert_eq!(asks.run().await?.code(), Code::InvalidArgument);
    assert_eq!(action("sleep 1000").run().await?.code(), Code::DeadlineExceeded);

    reload("queue_limit = 0\n", 3).await?;
    let refused = action("true").start().await.err().map(|it| it.downcast::<tonic::Status>());
    let refused = refused.transpose()?.map(|status| status.code());
    assert_eq!(refused, Some(Code::ResourceExhausted));

    reload("", 4).await?;
    for action in [&talk, &asks, &files] {
        action.run().await?.succeeded().await?;
    }
    upload(2).await?;
    Ok(())
}

async fn a_mistake_at_a_reload_changes_nothing(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM's worker has no configuration file")?;
    let file = ConfigFile::new("allow_host_rootfs = true\n")?;
    let daemon = kit.daemon().flag(file.flag()).start().await?;
    file.write("log = 'off'\nnonsense = 1\n")?;
    daemon.signal(Signal::HUP)?;
    eventually("the mistake is told", || {
        Ok(daemon.log().contains("nonsense: there is no such setting"))
    })
    .await?;
    daemon.client().action("true").run().await?.succeeded().await?;
    eventually("the log goes on", || Ok(daemon.log().contains("action finished"))).await
}
