//! The view of an action.

use testkit::{Client, Kit, Outcome, elf};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    the_environment_is_the_commands,
    an_action_needs_no_root_file_system,
    the_host_is_not_shown_unless_the_operator_allows_it,
    an_unknown_root_or_libc_is_refused,
    a_libc_comes_from_the_runtime_root,
    the_working_directory_is_in_the_workspace,
    an_action_is_nobody,
    an_action_has_no_capabilities_and_gets_none,
    names_of_users_and_groups_are_known,
    the_host_name_is_known,
    only_its_own_processes_are_seen,
    processes_do_not_outlive_the_action,
    devices_are_there,
    shared_memory_and_terminals_work,
    standard_input_is_at_its_end,
    only_the_three_streams_are_open,
    signals_and_umask_are_as_usual,
    temporary_directories_are_private_and_bounded,
    the_root_can_not_be_written,
    the_host_is_not_seen,
    the_network_is_a_loopback_only,
    shared_memory_is_not_shared,
    the_shown_etc_holds_no_secrets,
    proc_and_sys_can_not_be_written,
    mounts_and_namespaces_are_out_of_reach,
    a_limit_of_processes_holds,
    limits_that_are_no_numbers_are_refused,
    a_misspelled_limit_is_refused_with_the_right_name,
    a_platform_that_this_worker_is_not_is_refused,
    declared_platforms_are_satisfied,
    set_user_id_programs_have_no_effect,
    the_working_directory_is_entered_without_privileges,
}

/// Runs `script` in a sandbox with the host's tools, and returns what it says.
async fn say(client: &Client, script: &str) -> anyhow::Result<String> {
    let run = client.action(script).do_not_cache().run().await?;
    run.succeeded().await?.stdout().await
}

/// Checks for each script that it says what is expected.
async fn check(kit: &Kit, cases: &[(&str, &str)]) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    for (script, expected) in cases {
        assert_eq!(say(&client, script).await?.trim_end(), *expected, "{script}");
    }
    Ok(())
}

/// Checks for each script that it fails, with the same daemon in good order
/// after each.
async fn fails(kit: &Kit, scripts: &[&str]) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    for script in scripts {
        let run = client.action(script).run().await?;
        let bad = run.code() != Code::Ok || run.exit_code()? != 0;
        assert!(bad, "it worked: {script}\n{}", run.stdout().await?);
        assert_eq!(say(&client, "echo fine").await?, "fine\n", "after {script}");
    }
    Ok(())
}

async fn the_environment_is_the_commands(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let action = daemon.client().bare_action(["/usr/bin/env"]).with_programs();
    let run = action.env("B", "two words").env("A", "").env("C", "x=y").run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "A=\nB=two words\nC=x=y\n");
    let empty = daemon.client().bare_action(["/usr/bin/env"]).with_programs();
    assert_eq!(empty.run().await?.succeeded().await?.stdout().await?, "");
    Ok(())
}

async fn an_action_needs_no_root_file_system(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    let client = daemon.client();
    for (path, argument) in [("program", "./program"), ("bin/program", "bin/program")] {
        let action = client.bare_action([argument]).executable(path, elf::exit_with(42));
        assert_eq!(action.run().await?.exit_code()?, 42);
    }
    let in_path = client.bare_action(["program"]).env("PATH", "/execroot/bin");
    let in_path = in_path.executable("bin/program", elf::exit_with(43));
    assert_eq!(in_path.run().await?.exit_code()?, 43);
    let not_executable = client.bare_action(["./program"]).input("program", elf::exit_with(1));
    assert_eq!(not_executable.run().await?.exit_code()?, 126);
    Ok(())
}

async fn the_host_is_not_shown_unless_the_operator_allows_it(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has no programs but those of its runtimes")?;
    let daemon = kit.daemon().start().await?;
    let run = daemon.client().action("true").run().await?;
    assert_eq!(run.code(), Code::InvalidArgument);
    assert!(run.message().contains("--allow-host-rootfs"), "{}", run.message());
    // Without the property there is nothing of the host, whatever the flags.
    let daemon = kit.daemon().host_rootfs().start().await?;
    let run = daemon.client().bare_action(["/bin/sh", "-c", "true"]).run().await?;
    assert_eq!(run.exit_code()?, 127);
    let stderr = run.stderr().await?;
    assert!(stderr.contains("`rootfs=host`"), "it says what to ask for: {stderr}");
    Ok(())
}

async fn an_unknown_root_or_libc_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let action = daemon.client().action("true");
    for (name, value) in [("rootfs", "guest"), ("libc", "glibc9.99"), ("libc", "../../..")] {
        let run = action.clone().property(name, value).run().await?;
        assert_eq!(run.code(), Code::InvalidArgument, "{name}={value}: {}", run.message());
    }
    Ok(())
}

async fn a_libc_comes_from_the_runtime_root(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has its runtimes from an image")?;
    let runtimes = tempfile::tempdir()?;
    let architecture = std::env::consts::ARCH;
    let library = runtimes.path().join(format!("libc/mini1.0/{architecture}/root/lib"));
    std::fs::create_dir_all(&library)?;
    let program = library.join("program");
    std::fs::write(&program, elf::exit_with(77))?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let flag = format!("--runtime-root={}", runtimes.path().display());
    let daemon = kit.daemon().flag(flag).start().await?;
    let action = daemon.client().bare_action(["/lib/program"]);
    assert_eq!(action.clone().property("libc", "mini1.0").run().await?.exit_code()?, 77);
    let run = action.clone().property("libc", "mini2.0").run().await?;
    assert_eq!(run.code(), Code::InvalidArgument);
    assert!(run.message().contains("mini1.0"), "it names those there are: {}", run.message());
    assert_eq!(action.run().await?.exit_code()?, 127, "nothing without the property");
    let dynamic = testkit::elf::dynamic("/lib64/ld-linux-x86-64.so.2");
    let dynamic = daemon.client().bare_action(["./program"]).executable("program", dynamic);
    let run = dynamic.run().await?;
    let stderr = run.stderr().await?;
    assert_eq!(run.exit_code()?, 126, "{stderr}");
    assert!(stderr.contains("`libc` (mini1.0)"), "it says what to ask for: {stderr}");
    Ok(())
}

async fn the_working_directory_is_in_the_workspace(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    assert_eq!(say(&client, "pwd; ls -A").await?, "/execroot\n");
    let run = client.action("pwd; ls").working_directory("a/b").input("a/b/c", "").run().await?;
    assert_eq!(run.stdout().await?, "/execroot/a/b\nc\n");
    let run = client.action("true").working_directory("gone").run().await?;
    assert_eq!(run.code(), Code::InvalidArgument, "{}", run.message());
    Ok(())
}

async fn an_action_is_nobody(kit: Kit) -> Outcome {
    check(
        &kit,
        &[
            ("id -u; id -ru; id -g; id -rg; id -G", "65534\n65534\n65534\n65534\n65534"),
            ("id -un", "nobody"),
            ("touch f; stat -c %u:%g f", "65534:65534"),
        ],
    )
    .await
}

async fn an_action_has_no_capabilities_and_gets_none(kit: Kit) -> Outcome {
    let none = "0000000000000000";
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let expected: Vec<_> = sets.iter().map(|set| format!("{set}:\t{none}")).collect();
    check(
        &kit,
        &[
            ("grep ^Cap /proc/self/status", &expected.join("\n")),
            ("grep ^NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
            ("grep ^Seccomp: /proc/self/status", "Seccomp:\t2"),
        ],
    )
    .await
}

async fn names_of_users_and_groups_are_known(kit: Kit) -> Outcome {
    check(
        &kit,
        &[
            ("for u in root nobody unittest; do id -u $u >/dev/null || echo no $u; done", ""),
            ("for g in root nobody eng; do grep -q ^$g: /etc/group || echo no $g; done", ""),
            (
                "test -d ~nobody && test -d \"$(grep ^nobody: /etc/passwd | cut -d: -f6)\" && echo yes",
                "yes",
            ),
        ],
    )
    .await
}

async fn the_host_name_is_known(kit: Kit) -> Outcome {
    kit.only_on_the_host("runtimes have no getent")?;
    check(
        &kit,
        &[
            ("uname -n", "actiond"),
            ("getent hosts localhost >/dev/null && getent hosts $(uname -n) >/dev/null && echo yes", "yes"),
        ],
    )
    .await
}

async fn only_its_own_processes_are_seen(kit: Kit) -> Outcome {
    // PID 1, the shell, and what the shell runs.
    check(&kit, &[("set -- /proc/[0-9]*; test $# -le 3 && echo few", "few")]).await
}

async fn processes_do_not_outlive_the_action(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let mark = "31415.926";
    let script = format!(
        "trap '' TERM HUP; setsid sleep {mark} & setsid setsid sleep {mark} & (sleep {mark} &) ; echo begun"
    );
    assert_eq!(say(&daemon.client(), &script).await?, "begun\n");
    daemon.ensure_seen()?;
    let alive = format!("sleep\0{mark}\0");
    for entry in std::fs::read_dir("/proc")? {
        let command = std::fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        assert_ne!(command, alive.as_bytes(), "a process lives on");
    }
    Ok(())
}

async fn devices_are_there(kit: Kit) -> Outcome {
    check(
        &kit,
        &[
            ("head -c 4 /dev/zero | od -An -tx1", " 00 00 00 00"),
            ("head -c 8 /dev/urandom | wc -c", "8"),
            ("head -c 8 /dev/random | wc -c", "8"),
            ("echo gone > /dev/null; wc -c < /dev/null", "0"),
            ("echo x 2>/dev/null > /dev/full || echo full", "full"),
            ("test -c /dev/tty && echo tty", "tty"),
            ("echo out > /dev/stdout; echo fd > /dev/fd/1", "out\nfd"),
            ("echo err > /dev/stderr", ""),
            ("cat < /dev/stdin", ""),
            ("find /dev -type b | wc -l", "0"),
        ],
    )
    .await
}

async fn shared_memory_and_terminals_work(kit: Kit) -> Outcome {
    check(
        &kit,
        &[
            ("echo x > /dev/shm/x && cat /dev/shm/x", "x"),
            ("test -d /dev/pts && test -e /dev/ptmx && echo yes", "yes"),
            ("exec 3<>/dev/ptmx && echo opened", "opened"),
        ],
    )
    .await
}

async fn standard_input_is_at_its_end(kit: Kit) -> Outcome {
    check(&kit, &[("wc -c", "0"), ("read line || echo end", "end")]).await
}

async fn only_the_three_streams_are_open(kit: Kit) -> Outcome {
    // The shell's own descriptors; `ls` would show the directory that it reads.
    check(
        &kit,
        &[("for fd in 3 4 5 6 7 8 9; do test -e /proc/$$/fd/$fd && echo $fd; done; echo", "")],
    )
    .await
}

async fn signals_and_umask_are_as_usual(kit: Kit) -> Outcome {
    check(
        &kit,
        &[
            ("umask", "0022"),
            (
                "grep -E '^Sig(Blk|Ign)' /proc/self/status",
                "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000",
            ),
            ("test $(ulimit -n) -ge 1024 && echo enough", "enough"),
            ("ulimit -c", "0"),
        ],
    )
    .await
}

async fn temporary_directories_are_private_and_bounded(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--tmp-bytes=1m").start().await?;
    let client = daemon.client();
    for directory in ["/tmp", "/var/tmp"] {
        let script = format!("ls -A {directory}; touch {directory}/mine; stat -Lc %a {directory}");
        for _ in 0..3 {
            assert_eq!(say(&client, &script).await?, "1777\n", "{directory}");
        }
        let script = format!("head -c 2M /dev/zero > {directory}/large");
        let run = client.action(&script).run().await?;
        assert_ne!(run.exit_code()?, 0, "{directory} is bounded");
    }
    Ok(())
}

async fn the_root_can_not_be_written(kit: Kit) -> Outcome {
    fails(
        &kit,
        &[
            "touch /file",
            "mkdir /directory",
            "touch /etc/file",
            "echo x >> /etc/passwd",
            "rm /etc/hosts",
            "touch /usr/file",
            "touch /dev/file",
            "rm /dev/null",
            "mv /execroot /elsewhere",
            "rmdir /tmp",
            "chmod 777 /",
        ],
    )
    .await
}

async fn the_host_is_not_seen(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    for path in
        ["/root", "/home", "/var/lib", "/var/log", "/run", "/srv", "/mnt", "/media", "/boot"]
    {
        let script = format!("ls -A {path} 2>/dev/null");
        let run = client.action(&script).run().await?;
        assert_eq!(run.stdout().await?, "", "{path}");
    }
    let root = daemon.root().display().to_string();
    for path in [root.clone(), format!("/proc/1/root{root}"), format!("/proc/self/root{root}")] {
        let run = client.action(&format!("ls {path}")).run().await?;
        assert_ne!(run.exit_code()?, 0, "{path}");
    }
    Ok(())
}

async fn the_network_is_a_loopback_only(kit: Kit) -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let devices = say(&client, "tail -n +3 /proc/net/dev | cut -d: -f1").await?;
    assert_eq!(devices.trim(), "lo");
    assert_eq!(say(&client, "cat /proc/net/route | wc -l").await?.trim(), "1", "no routes");
    for (host, port) in
        [("127.0.0.1", port), ("127.0.0.1", daemon.address().port()), ("1.1.1.1", 80)]
    {
        let script = format!("exec 3<>/dev/tcp/{host}/{port}");
        let run = client.bare_action(["/bin/bash", "-c", &script]).with_programs().run().await?;
        assert_ne!(run.exit_code()?, 0, "{host}:{port} answers");
    }
    Ok(())
}

async fn shared_memory_is_not_shared(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=1").start().await?;
    let client = daemon.client();
    say(&client, "echo left > /dev/shm/left; ipcmk -M 4096 -Q -S 1 >/dev/null 2>&1 || true")
        .await?;
    assert_eq!(say(&client, "ls -A /dev/shm").await?, "");
    let left =
        say(&client, "tail -qn +2 /proc/sysvipc/msg /proc/sysvipc/sem /proc/sysvipc/shm").await?;
    assert_eq!(left, "");
    Ok(())
}

async fn the_shown_etc_holds_no_secrets(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    for name in ["shadow", "gshadow", "ssh", "sudoers", "machine-id", "gitconfig", "ssl/private"] {
        let run = client.action(&format!("ls /etc/{name}")).run().await?;
        assert_ne!(run.exit_code()?, 0, "{name} is shown");
    }
    Ok(())
}

async fn proc_and_sys_can_not_be_written(kit: Kit) -> Outcome {
    fails(
        &kit,
        &[
            "echo 1 > /proc/sys/kernel/panic",
            "echo x > /proc/sys/kernel/core_pattern",
            "echo h > /proc/sysrq-trigger",
            "echo 0 > /proc/sys/fs/protected_hardlinks",
            "cat /proc/kcore",
            "cat /proc/1/environ",
            "cat /proc/1/mem",
            "echo -17 > /proc/1/oom_score_adj",
            "ls /sys/kernel",
        ],
    )
    .await
}

async fn mounts_and_namespaces_are_out_of_reach(kit: Kit) -> Outcome {
    kit.only_on_the_host("runtimes have no mount, unshare and nsenter")?;
    fails(
        &kit,
        &[
            "mount -t tmpfs tmpfs /tmp",
            "mount --bind /etc /execroot",
            "umount /tmp",
            "unshare -m true",
            "unshare -n true",
            "unshare -U true",
            "unshare -Ur id",
            "nsenter -t 1 -m true",
            "chroot /execroot true",
            "hostname other",
            "mknod disk b 8 0",
        ],
    )
    .await
}

async fn a_limit_of_processes_holds(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    // They end with the shell, and not before it, however slow the machine is.
    let script =
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do sleep 1000 & done";
    for name in ["limits_pids", "limits.pids.max", "pids.max", "pids"] {
        let run = client.action(script).property(name, "10").run().await?;
        assert_ne!(run.exit_code()?, 0, "{name}");
    }
    Ok(())
}

async fn limits_that_are_no_numbers_are_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let action = daemon.client().action("true");
    for (name, value) in [
        ("pids", "many"),
        ("cpu", "0"),
        ("cpu", "-1"),
        ("memory", "1x"),
        ("limits.memory.bytes", ""),
        ("limits_memory", "1x"),
    ] {
        let run = action.clone().property(name, value).run().await?;
        assert_eq!(run.code(), Code::InvalidArgument, "{name}={value}");
    }
    let action = action.property("memory", "512m").property("cpu", "1").property("pids", "100");
    action.run().await?.succeeded().await?;
    Ok(())
}

async fn a_misspelled_limit_is_refused_with_the_right_name(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let run = daemon.client().action("true").property("limit_memory", "1g").run().await?;
    assert_eq!(run.code(), Code::InvalidArgument);
    assert!(run.message().contains("limits_memory"), "{}", run.message());
    Ok(())
}

async fn a_platform_that_this_worker_is_not_is_refused(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let action = daemon.client().action("true");
    for (name, value) in
        [("OSFamily", "windows"), ("ISA", "riscv64"), ("network", "on"), ("gpu", "8")]
    {
        let run = action.clone().property(name, value).run().await?;
        assert_eq!(run.code(), Code::InvalidArgument, "{name}={value}");
        assert!(run.message().contains(name), "{}", run.message());
    }
    let fitting = action.property("OSFamily", "Linux").property("Arch", std::env::consts::ARCH);
    fitting.property("Pool", "default").run().await?.succeeded().await?;
    Ok(())
}

async fn declared_platforms_are_satisfied(kit: Kit) -> Outcome {
    let flags = ["--platform=gpu=1", "--platform=Pool=fast", "--unknown-properties=refuse"];
    let daemon = flags.into_iter().fold(kit.daemon().host_rootfs(), |it, flag| it.flag(flag));
    let daemon = daemon.start().await?;
    let action = daemon.client().action("true");
    let fitting = action.clone().property("gpu", "1").property("Pool", "fast");
    fitting.run().await?.succeeded().await?;
    for (name, value) in [("gpu", "2"), ("Pool", "slow"), ("cache-silo-key", "x")] {
        let run = action.clone().property(name, value).run().await?;
        assert_eq!(run.code(), Code::InvalidArgument, "{name}={value}");
        assert!(run.message().contains(name), "{}", run.message());
    }
    Ok(())
}

async fn set_user_id_programs_have_no_effect(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let script =
        "cp /bin/sh mine; chmod 6755 mine; ./mine -c 'id -u'; su -c 'id -u' </dev/null; true";
    let said = say(&daemon.client(), script).await?;
    assert_eq!(said.trim(), "65534");
    Ok(())
}

async fn the_working_directory_is_entered_without_privileges(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let root = daemon.root().display().to_string();
    for target in [
        format!("/proc/1/root{root}"),
        format!("/proc/self/cwd{root}"),
        "/proc/1/cwd".to_owned(),
        "/root".to_owned(),
    ] {
        let action = client.action("pwd -P; ls -la").symlink("link", &target);
        let run = action.working_directory("link").run().await?;
        assert!(run.result().is_err(), "{target}: {}", run.stdout().await?);
    }
    Ok(())
}
