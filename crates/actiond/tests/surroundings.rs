//! A daemon that is started in an ugly place: it works there, or says at once why it can't.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use anyhow::Context as _;
use testkit::{Kit, Outcome};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    actions_see_nothing_of_an_ugly_place,
    a_blocked_signal_ends_it_all_the_same,
    inherited_descriptors_are_closed,
    low_hard_limits_lower_those_of_actions,
    a_low_limit_of_file_sizes_fails_the_upload_alone,
    a_default_acl_above_the_root_has_no_effect,
    in_a_chroot_it_says_why_it_can_not_serve,
}

/// Runs `script` in bash, which then becomes the daemon by `"$@"`.
fn place(script: &str) -> [&str; 4] {
    ["bash", "-c", script, "place"]
}

async fn actions_see_nothing_of_an_ugly_place(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has a place of its own")?;
    let ugly = "ulimit -c 0; ulimit -Ss 1024; ulimit -Sf 8; ulimit -St 3600; ulimit -Sv 8000000; \
        ulimit -Sn 256; umask 0; export LD_BIND_NOW=1 LC_ALL=tr_TR.UTF-8 TZ=Asia/Kathmandu SECRET=x; \
        cd / && exec nice -n 5 env --ignore-signal=CHLD --ignore-signal=XFSZ --block-signal=USR1 \"$@\"";
    let daemon = kit.daemon().through(place(ugly)).host_rootfs().start().await?;
    let client = daemon.client();
    let script = "ulimit -c; ulimit -s; sed -n 's/^Max file size *\\([^ ]*\\).*/\\1/p' /proc/self/limits; \
        ulimit -t; ulimit -v; umask; \
        env | grep -c 'SECRET\\|LC_ALL\\|TZ\\|LD_'; \
        grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\t'; \
        dd if=/dev/zero of=large bs=1M count=2 2> /dev/null; stat -c '%s %a' large";
    let run = client.action(script).output("large").do_not_cache().run().await?;
    let expected = "0\n8192\n68719476736\nunlimited\nunlimited\n0022\n0\n\
        SigBlk:0000000000000000\nSigIgn:0000000000000000\n2097152 644\n";
    assert_eq!(run.succeeded().await?.stdout().await?, expected);
    assert_eq!(run.output_file("large")?.digest.as_ref().context("a digest")?.size_bytes, 2 << 20);
    // Larger than the soft limit that it was started with.
    client.put(vec![7; 1 << 20]).await?;
    Ok(())
}

async fn a_blocked_signal_ends_it_all_the_same(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has a place of its own")?;
    let blocked = "exec env --block-signal=TERM --block-signal=INT --ignore-signal=TERM \"$@\"";
    let mut daemon = kit.daemon().through(place(blocked)).start().await?;
    daemon.terminate()?;
    let status = daemon.wait()?;
    assert!(status.success(), "{status}\n{}", daemon.log());
    Ok(())
}

async fn inherited_descriptors_are_closed(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has a place of its own")?;
    let open = "exec 3</etc/passwd 77</etc/passwd 200</etc/passwd; exec \"$@\"";
    let daemon = kit.daemon().through(place(open)).start().await?;
    let files = Path::new("/proc").join(daemon.pid().to_string()).join("fd");
    for entry in std::fs::read_dir(&files)? {
        let target = std::fs::read_link(entry?.path());
        assert_ne!(target.ok().as_deref(), Some(Path::new("/etc/passwd")));
    }
    Ok(())
}

/// Without CAP_SYS_RESOURCE, as in a container, nobody can raise them again.
async fn low_hard_limits_lower_those_of_actions(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has a place of its own")?;
    let low = "ulimit -c 0; ulimit -u 1000; ulimit -l 64; \
        exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource \"$@\"";
    let daemon = kit.daemon().through(place(low)).host_rootfs().start().await?;
    let script = "ulimit -c; grep '^Max processes' /proc/self/limits | tr -s ' ' | cut -d' ' -f4";
    let run = daemon.client().action(script).do_not_cache().run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "0\n1000\n");
    Ok(())
}

async fn a_low_limit_of_file_sizes_fails_the_upload_alone(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has a place of its own")?;
    // In units of 1 KiB.
    let low = "ulimit -f 512; \
        exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource \"$@\"";
    let mut daemon = kit.daemon().through(place(low)).host_rootfs().start().await?;
    let client = daemon.client();
    client.put(vec![7; 1 << 20]).await.unwrap_err();
    client.put(vec![7; 1 << 10]).await?;
    let action = client.action("dd if=/dev/zero of=large bs=1M count=2").do_not_cache();
    // By default SIGXFSZ ends a program.
    let run = action.run().await?;
    assert_eq!(run.exit_code()?, 128 + 25, "{}", run.stderr().await?);
    daemon.terminate()?;
    assert_eq!(daemon.wait()?.signal(), None);
    Ok(())
}

async fn a_default_acl_above_the_root_has_no_effect(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has a place of its own")?;
    let parent = kit.daemon().directory()?;
    let acl = default_acl();
    let set = rustix::fs::setxattr(
        parent.path(),
        c"system.posix_acl_default",
        &acl,
        rustix::fs::XattrFlags::empty(),
    );
    if set == Err(rustix::io::Errno::OPNOTSUPP) {
        return testkit::skip("the file system of the state has no ACLs");
    }
    set?;
    let daemon = kit.daemon().root(parent.path().join("root")).host_rootfs().start().await?;
    let script = "umask 027; touch file; mkdir directory; stat -c %a file directory";
    let run = daemon.client().action(script).do_not_cache().run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "640\n750\n");
    Ok(())
}

/// Group and others get everything, below the mask rwx: version 2, then tag, permissions, id.
fn default_acl() -> Vec<u8> {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, id) in
        [(0x01_u16, u32::MAX), (0x02, 1), (0x04, u32::MAX), (0x10, u32::MAX), (0x20, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(7_u16.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

async fn in_a_chroot_it_says_why_it_can_not_serve(kit: Kit) -> Outcome {
    kit.only_on_the_host("a VM has a place of its own")?;
    let root = kit.daemon().directory()?;
    let chroot = format!(
        "mount --make-rprivate / && mount --rbind / '{0}' && exec chroot '{0}' \"$@\"",
        root.path().display()
    );
    let through = ["unshare", "--mount", "bash", "-c", &chroot, "place"];
    let (mut command, _directory) = kit.daemon().through(through).command()?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for part in ["create the user namespace", "Operation not permitted", "outside of chroot(8)"] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("serving on"), "{said}");
    Ok(())
}
