//! The daemon's store on a disk that fails, and the verbs `linux-actiond store`.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use testkit::proto::RequestMetadata;
use testkit::{Client, Daemon, Digest, Kit, Outcome, Run, eventually, eventually_async};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    after_a_failed_sync_health_says_so_until_all_is_verified,
    inputs_that_others_take_away_or_change_are_missing,
    a_killed_server_is_asked_at_once_and_ends_in_order,
    a_server_whose_root_is_removed_ends_with_a_word,
    the_history_counts_to_the_limit,
    the_verbs_work_beside_a_server,
    the_verbs_work_without_a_server,
    the_verbs_say_what_is_wrong,
    the_verbs_tell_their_progress_at_a_terminal,
    the_disk_space_of_a_target_is_told,
}

const MIB: usize = 1 << 20;

/// Mounts a disk of 256 MiB that is stored in 40 MiB of memory, and starts the daemon on it: writes
/// succeed until the kernel writes them back. Without a journal, the file system goes on after that.
const ON_A_THIN_DISK: &str = r#"set -e
directory=$1; shift
mkdir "$directory/thin" "$directory/root"
mount -t tmpfs -o size=40m thin "$directory/thin"
truncate -s 256M "$directory/thin/disk"
mkfs.ext4 -q -F -O ^has_journal -E nodiscard "$directory/thin/disk"
mount -o loop "$directory/thin/disk" "$directory/root"
exec "$@""#;

/// Different content for every number.
fn content(number: usize) -> Vec<u8> {
    (number as u64 + 1).to_le_bytes().repeat(MIB / 8)
}

async fn health(client: &Client, service: &str) -> anyhow::Result<ServingStatus> {
    let request = HealthCheckRequest { service: service.into() };
    Ok(client.health().check(request).await?.into_inner().status())
}

/// Gives the disk of [`ON_A_THIN_DISK`] all the memory that it needs.
fn mend(daemon: &Daemon, directory: &Path) -> anyhow::Result<()> {
    let status = Command::new("nsenter")
        .args(["--mount", "--target", &daemon.pid().to_string(), "--"])
        .args(["mount", "-o", "remount,size=400m"])
        .arg(directory.join("thin"))
        .status()?;
    ensure!(status.success(), "the disk could not be mended: {status}");
    Ok(())
}

/// A daemon on [`ON_A_THIN_DISK`].
struct ThinDisk {
    daemon: Daemon,
    directory: tempfile::TempDir,
}

impl ThinDisk {
    async fn start(kit: &Kit) -> anyhow::Result<Self> {
        kit.only_on_the_host("the disk of a guest is a file of the host")?;
        for program in ["unshare", "mkfs.ext4", "nsenter"] {
            if Command::new(program).arg("--help").output().is_err() {
                testkit::skip(format!("{program} is not installed"))?;
            }
        }
        let directory = kit.daemon().directory()?;
        let wrapper =
            ["unshare", "--mount", "--propagation=private", "sh", "-c", ON_A_THIN_DISK, "sh"];
        let path: OsString = directory.path().into();
        let wrapper: Vec<_> = wrapper.map(Into::into).into_iter().chain([path]).collect();
        let root = directory.path().join("root");
        let daemon = kit.daemon().through(wrapper).root(&root).flag("--cas-size=200m");
        let daemon = daemon.start().await?;
        Ok(Self { daemon, directory })
    }
}

async fn after_a_failed_sync_health_says_so_until_all_is_verified(kit: Kit) -> Outcome {
    let disk = ThinDisk::start(&kit).await?;
    let ThinDisk { daemon, directory } = &disk;
    let client = daemon.client();
    let execution = "build.bazel.remote.execution.v2.Execution";
    let cas = "build.bazel.remote.execution.v2.ContentAddressableStorage";
    let says = async |service: &str, expected| Ok(health(&client, service).await? == expected);
    eventually_async("it serves", async || says(execution, ServingStatus::Serving).await).await?;

    let mut acknowledged = Vec::new();
    for number in 0..80 {
        let content = content(number);
        let digest = client.digest(&content);
        client.write(&client.upload_name(&digest), &content, MIB).await?;
        acknowledged.push((digest, content));
    }
    let failed = async || says("", ServingStatus::NotServing).await;
    eventually_async("the failed sync is told", failed).await?;
    assert_eq!(health(&client, execution).await?, ServingStatus::NotServing);
    assert_eq!(health(&client, cas).await?, ServingStatus::Serving);
    never_lies(&client, &acknowledged).await?;

    mend(daemon, directory.path())?;
    let mended = async || says("", ServingStatus::Serving).await;
    eventually_async("all that may be lost was verified", mended).await?;
    assert_eq!(health(&client, execution).await?, ServingStatus::Serving);
    let lost = never_lies(&client, &acknowledged).await?;
    ensure!(lost > 0, "80 MiB went to a disk of 40: the test does not test anything");
    eventually("the log says it", || Ok(daemon.log().contains("the disk works again"))).await?;

    // Clients can upload lost blobs again, and then they are on the disk.
    for (digest, content) in &acknowledged {
        client.write(&client.upload_name(digest), content, MIB).await?;
    }
    assert_eq!(never_lies(&client, &acknowledged).await?, 0);
    Ok(())
}

/// The file of a blob.
fn file_of(daemon: &Daemon, digest: &Digest) -> anyhow::Result<PathBuf> {
    let function = daemon.client().function().name();
    let hex = digest.hex();
    Ok(daemon.store()?.join("cas/blobs").join(function).join(&hex[..2]).join(hex))
}

async fn inputs_that_others_take_away_or_change_are_missing(kit: Kit) -> Outcome {
    kit.only_on_the_host("the store of a guest is in the guest")?;
    type Change = fn(&Path) -> std::io::Result<()>;
    let changes: [(&str, Change); 4] = [
        ("deleted", |path| std::fs::remove_file(path)),
        ("truncated", |path| std::fs::OpenOptions::new().write(true).open(path)?.set_len(1)),
        ("flipped", |path| {
            std::fs::OpenOptions::new().write(true).open(path)?.write_all_at(b"X", 0)
        }),
        ("replaced", |path| {
            std::fs::write(path.with_extension("other"), "something else")?;
            std::fs::rename(path.with_extension("other"), path)
        }),
    ];
    let daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    for (what, change) in changes {
        // The input is changed before the action, after the action has read it, and before it does.
        for script in ["cat in", "cat in > /dev/null; GATE", "GATE; cat in"] {
            let gate = daemon.gate();
            let input = format!("an input, {what}, {script}");
            let action = client.action(&script.replace("GATE", &gate.wait())).input("in", &*input);
            let action_digest = action.upload().await?;
            let start = async || client.execution().execute(action.request()).await;
            let is_gated = script.contains("GATE");
            let digest = client.digest(&input);
            let path = file_of(&daemon, &digest)?;
            if !is_gated {
                change(&path)?;
            }
            let stream = start().await?.into_inner();
            if is_gated {
                gate.reached(1).await?;
                change(&path)?;
                gate.open(1).await?;
            }
            let run = Run::collect(client.clone(), stream).await?;
            ensure!(run.code() == Code::FailedPrecondition, "{what}, {script}: {run:?}");
            assert_eq!(run.missing()?, [format!("blobs/{digest}")], "{what}, {script}");
            ensure!(client.cached(&action_digest).await?.is_none(), "{what}, {script}: cached");

            // The client uploads it again, and all is well.
            client.put(&*input).await?;
            let stream = start().await?.into_inner();
            if is_gated {
                gate.open(1).await?;
            }
            let run = Run::collect(client.clone(), stream).await?;
            run.succeeded().await.with_context(|| format!("{what}, {script}: {}", daemon.log()))?;
            ensure!(client.cached(&action_digest).await?.is_some(), "{what}, {script}: not cached");
        }
    }
    Ok(())
}

async fn a_killed_server_is_asked_at_once_and_ends_in_order(kit: Kit) -> Outcome {
    kit.only_on_the_host("the store of a guest is in the guest")?;
    let mut daemon = kit.daemon().start().await?;
    let mut blobs = Vec::new();
    for number in 0..64 {
        blobs.push(daemon.client().put(content(number)).await?);
    }
    daemon.kill()?;

    // Asked and told to end before all of them were hashed again, or soon after.
    let mut daemon = daemon.successor().start().await?;
    assert_eq!(daemon.client().missing(&blobs).await?, []);
    daemon.terminate()?;
    ensure!(daemon.wait()?.success(), "{}", daemon.log());

    let daemon = daemon.successor().start().await?;
    let client = daemon.client();
    for (number, digest) in blobs.iter().enumerate() {
        ensure!(client.get(digest).await? == content(number), "a false blob was served");
    }
    let serves = async || Ok(health(&client, "").await? == ServingStatus::Serving);
    eventually_async("the store is open", serves).await?;
    Ok(())
}

async fn a_server_whose_root_is_removed_ends_with_a_word(kit: Kit) -> Outcome {
    kit.only_on_the_host("the store of a guest is in the guest")?;
    let directory = kit.daemon().directory()?;
    let root = directory.path().join("root");
    let mut daemon = kit.daemon().root(&root).start().await?;
    daemon.client().put("content").await?;
    std::fs::remove_dir_all(&root).context("removing the root")?;
    assert_eq!(daemon.wait()?.code(), Some(1));
    let log = daemon.log();
    ensure!(log.contains(&format!("the root directory {} was removed", root.display())), "{log}");
    Ok(())
}

/// Runs `linux-actiond store` on a root.
fn store(kit: &Kit, root: &Path, words: &[&str]) -> anyhow::Result<std::process::Output> {
    let mut command = Command::new(kit.binary());
    Ok(command.arg("store").arg("--root").arg(root).args(words).output()?)
}

/// The JSON objects that `linux-actiond store --json` prints, which must succeed.
fn json(kit: &Kit, root: &Path, words: &[&str]) -> anyhow::Result<Vec<serde_json::Value>> {
    let output = store(kit, root, &[&["--json"], words].concat())?;
    ensure!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Checks du, ls, rm and gc on a store that holds 12 blobs of 1 MiB, of which `kept` is one.
fn check_verbs(kit: &Kit, root: &Path, blobs: &[Digest]) -> anyhow::Result<()> {
    let usage = &json(kit, root, &["du"])?[0];
    let kinds = usage["kinds"].as_array().context("kinds")?;
    let kind = kinds.iter().find(|kind| kind["name"] == "blobs").context("blobs")?;
    assert_eq!(kind["files"], blobs.len() as u64 + 2, "and the empty blobs: {usage}");
    let cost = (MIB + 512) as u64;
    assert_eq!(kind["bytes"], blobs.len() as u64 * cost + 2 * 512, "{usage}");
    assert_eq!(usage["ages"][0]["name"], "up to 1 hour");
    assert_eq!(usage["ages"][0]["files"], blobs.len() as u64 + 2);

    let listed = json(kit, root, &["ls", "--larger-than=1m", "--sort=size"])?;
    let mut names: Vec<_> = listed.iter().map(|it| it["digest"].as_str().unwrap()).collect();
    names.sort_unstable();
    let mut expected: Vec<_> = blobs.iter().map(|digest| format!("sha256:{digest}")).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(json(kit, root, &["ls", "--older-than=1d"])?.len(), 0);
    assert_eq!(json(kit, root, &["ls", "--limit=3"])?.len(), 3);

    let name = blobs[0].to_string();
    assert_eq!(json(kit, root, &["rm", &name])?[0]["outcome"], "removed");
    let again = store(kit, root, &["rm", &name])?;
    assert_eq!(again.status.code(), Some(1));
    ensure!(String::from_utf8_lossy(&again.stdout).contains("absent"));

    let verified = &json(kit, root, &["verify"])?[0];
    assert_eq!(verified["verified_blobs"], blobs.len() as u64 + 1, "{verified}");
    assert_eq!(verified["damaged"].as_array().map(Vec::len), Some(0));

    assert_eq!(json(kit, root, &["gc", "--older-than=7d"])?[0]["evicted_files"], 0);
    let used = usage["used_bytes"].as_u64().context("used")? - cost;
    let goal = used - 3 * cost;
    let collected = &json(kit, root, &["gc", "--to", &goal.to_string()])?[0];
    assert_eq!(collected["evicted_files"], 3, "{collected}");
    assert_eq!(collected["used_bytes"], goal, "{collected}");
    assert_eq!(json(kit, root, &["ls", "--larger-than=1m"])?.len(), blobs.len() - 4);
    assert_eq!(json(kit, root, &["gc", "--older-than=0s"])?[0]["evicted_files"], 8);
    assert_eq!(json(kit, root, &["ls", "--larger-than=1"])?.len(), 0);
    Ok(())
}

async fn filled(kit: &Kit) -> anyhow::Result<(Daemon, Vec<Digest>)> {
    let daemon = kit.daemon().flag("--cas-size=64m").start().await?;
    let client = daemon.client();
    let mut blobs = Vec::new();
    for number in 0..12 {
        blobs.push(client.put(content(number)).await?);
    }
    Ok((daemon, blobs))
}

async fn the_history_counts_to_the_limit(kit: Kit) -> Outcome {
    kit.only_on_the_host("the store of a guest is in the guest")?;
    let (mut daemon, blobs) = filled(&kit).await?;
    let client = daemon.client();
    ensure!(client.cached(&blobs[0]).await?.is_none(), "no action has run");
    let charged = |root: &Path| -> anyhow::Result<(u64, u64)> {
        let usage = &json(&kit, root, &["du"])?[0];
        let kinds = usage["kinds"].as_array().context("kinds")?;
        let history = kinds.iter().find(|kind| kind["name"] == "history").context("history")?;
        let used = usage["used_bytes"].as_u64().context("used")?;
        Ok((used, history["bytes"].as_u64().context("bytes")?))
    };
    let stored: u64 = blobs.iter().map(Digest::size_bytes).sum();
    let (used, history) = charged(daemon.root())?;
    ensure!(history > 0 && used >= stored + history, "{used} bytes, {history} of the history");

    daemon.terminate()?;
    ensure!(daemon.wait()?.success());
    let (used, history) = charged(daemon.root())?;
    ensure!(history > 0, "it is kept");
    std::fs::remove_dir_all(daemon.root().join("history"))?;
    assert_eq!(charged(daemon.root())?, (used - history, 0));
    Ok(())
}

async fn the_verbs_work_beside_a_server(kit: Kit) -> Outcome {
    kit.only_on_the_host("the store of a guest is in the guest")?;
    let (daemon, blobs) = filled(&kit).await?;
    check_verbs(&kit, daemon.root(), &blobs)?;
    let client = daemon.client();
    assert_eq!(client.missing(&blobs).await?, blobs, "the server knows");
    assert_eq!(json(&kit, daemon.root(), &["du"])?[0]["limit_bytes"], 64 << 20);
    // At its port as well, for whoever has the right.
    let server = format!("--server={}", daemon.address());
    let usage = json(&kit, Path::new("/nowhere"), &[&server, "du"])?;
    assert_eq!(usage[0]["limit_bytes"], 64 << 20);
    Ok(())
}

async fn the_verbs_work_without_a_server(kit: Kit) -> Outcome {
    kit.only_on_the_host("the store of a guest is in the guest")?;
    let (mut daemon, blobs) = filled(&kit).await?;
    daemon.terminate()?;
    ensure!(daemon.wait()?.success());
    let root = daemon.root().to_owned();
    check_verbs(&kit, &root, &blobs)?;

    let daemon = daemon.successor().start().await?;
    let client = daemon.client();
    let digest = client.put(content(1)).await?;
    let path = file_of(&daemon, &digest)?;
    let mut daemon = daemon;
    daemon.terminate()?;
    ensure!(daemon.wait()?.success());
    std::fs::OpenOptions::new().write(true).open(path)?.write_all_at(b"X", 100)?;
    let verified = store(&kit, &root, &["verify"])?;
    assert_eq!(verified.status.code(), Some(1));
    let said = String::from_utf8(verified.stdout)?;
    ensure!(said.starts_with(&format!("damaged: sha256:{digest}\n")), "{said}");
    let usage = &json(&kit, &root, &["du"])?[0];
    let quarantine = &usage["kinds"].as_array().context("kinds")?[2];
    assert_eq!((&quarantine["name"], &quarantine["files"]), (&"quarantine".into(), &1.into()));
    let daemon = daemon.successor().start().await?;
    assert_eq!(daemon.client().missing(&[digest]).await?, [digest]);
    Ok(())
}

async fn the_disk_space_of_a_target_is_told(kit: Kit) -> Outcome {
    kit.only_on_the_host("the store of a guest is in the guest")?;
    let mut daemon = kit.daemon().host_rootfs().start().await?;
    let client = daemon.client();
    let run = async |target: &str, script: &str| {
        let origin = RequestMetadata { target_id: target.into(), ..RequestMetadata::default() };
        client.action(script).output("out").sent_by(origin).run().await
    };
    // Files in a directory are named by a Tree only.
    let tree =
        "mkdir out; for i in 1 2 3; do head -c 1048576 /dev/zero | tr '\\0' $i > out/$i; done";
    run("//trees", tree).await?;
    run("//file", "head -c 2097152 /dev/zero > out").await?;
    let check = |usage: &serde_json::Value| -> anyhow::Result<()> {
        let targets = usage["targets"].as_array().context("targets")?;
        let of = |name: &str| -> anyhow::Result<(u64, u64)> {
            let target = targets.iter().find(|it| it["name"] == name).context("a target")?;
            let number = |name: &str| target[name].as_u64().context("a number");
            Ok((number("files")?, number("bytes")? >> 20))
        };
        assert_eq!(targets.len(), 2, "{usage}");
        assert_eq!(targets[0]["name"], "//trees", "the largest first: {usage}");
        // Files or a file, the Tree and its Directory, the Action and the Command.
        assert_eq!((of("//trees")?, of("//file")?), ((7, 3), (3, 2)), "{usage}");
        let sum: u64 = targets.iter().filter_map(|it| it["files"].as_u64()).sum();
        let blobs = usage["kinds"][0]["files"].as_u64().context("blobs")?;
        assert_eq!(usage["no_known_target"]["files"], blobs - sum);
        Ok(())
    };
    check(&json(&kit, daemon.root(), &["du", "--by=target"])?[0])?;
    // A hit of another target takes the Action and what the cached result names; nothing reads the Command.
    run("//hit", "head -c 2097152 /dev/zero > out").await?;
    let usage = &json(&kit, daemon.root(), &["du", "--by=target"])?[0];
    let names: Vec<_> = usage["targets"].as_array().context("targets")?.iter().collect();
    assert_eq!((names[1]["name"].as_str(), &names[1]["files"]), (Some("//hit"), &2.into()));
    run("//file", "head -c 2097152 /dev/zero > out").await?;
    daemon.terminate()?;
    ensure!(daemon.wait()?.success());
    check(&json(&kit, daemon.root(), &["du", "--by=target"])?[0])?;
    let text = store(&kit, daemon.root(), &["du", "--by=target"])?.stdout;
    let text = String::from_utf8(text)?;
    ensure!(text.contains("files  //trees\n") && !text.contains("by kind"), "{text}");

    let daemon = daemon.successor().flag("--history-days=0").start().await?;
    let refused = store(&kit, daemon.root(), &["du", "--by=target"])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(!refused.status.success() && said.contains("--history-days"), "{said}");
    Ok(())
}

/// The lines of `linux-actiond store` at a terminal that is its standard error, and its output.
fn at_a_terminal(
    kit: &Kit,
    root: &Path,
    words: &[&str],
) -> anyhow::Result<(String, std::process::Output)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let terminal = openpt(flags)?;
    unlockpt(&terminal)?;
    let end = ioctl_tiocgptpeer(&terminal, flags)?;
    tcsetwinsize(&end, Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 })?;
    let mut command = Command::new(kit.binary());
    command.args(["store", "--root"]).arg(root).args(words).env("TERM", "xterm");
    let child = command.stdout(Stdio::piped()).stderr(end).spawn()?;
    // Or the terminal has another end that is open, and reading does not end.
    drop(command);
    let (mut shown, mut terminal) = (Vec::new(), File::from(terminal));
    // The kernel answers EIO when the last process has closed its end.
    let _ = terminal.read_to_end(&mut shown);
    Ok((String::from_utf8_lossy(&shown).into_owned(), child.wait_with_output()?))
}

async fn the_verbs_tell_their_progress_at_a_terminal(kit: Kit) -> Outcome {
    kit.only_on_the_host("the store of a guest is in the guest")?;
    let (mut daemon, blobs) = filled(&kit).await?;
    let root = daemon.root().to_owned();
    let check = |words: &[&str], expected: &str| {
        let (shown, output) = at_a_terminal(&kit, &root, words)?;
        let printed = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{words:?}: {shown}");
        ensure!(shown.contains(expected), "{words:?} showed {shown:?}");
        // The line is cleared in the end, and what is printed is for programs.
        ensure!(shown.ends_with("\x1b[2K") || shown.ends_with("\x1b[0J"), "{shown:?}");
        ensure!(printed.starts_with(expected) && !printed.contains('\x1b'), "{printed:?}");
        anyhow::Ok(())
    };
    check(&["verify"], "verified ")?;
    check(&["gc", "--to=8m"], "evicted ")?;
    daemon.terminate()?;
    ensure!(daemon.wait()?.success());
    check(&["verify"], "verified ")?;
    check(&["gc", "--to=1m"], "evicted ")?;
    let daemon = daemon.successor().start().await?;
    assert_eq!(daemon.client().missing(&blobs).await?, blobs);
    Ok(())
}

async fn the_verbs_say_what_is_wrong(kit: Kit) -> Outcome {
    kit.only_on_the_host("there is no store of a guest here")?;
    let directory = kit.daemon().directory()?;
    let root = directory.path();
    let anonymous = kit.daemon();
    let check = |words: &[&str], expected: &str| -> anyhow::Result<()> {
        let output = store(&kit, root, words)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(expected), "{words:?}: {said}");
        Ok(())
    };
    check(&["du"], "there is no store at")?;
    ensure!(root.read_dir()?.next().is_none(), "looking makes no store");
    check(&["gc"], "--to")?;
    check(&["rm", "abc"], "HASH/SIZE")?;
    check(&["rm", "murmur3:abc/3"], "no digest function is called")?;
    check(&["rm", "md5:abc/3"], "a hash of 3 characters does not belong")?;
    check(&["--server=unix:/nowhere/socket", "du"], "connecting to the server at unix:/nowhere")?;
    // Anonymous callers at a port have no right to this.
    let daemon = anonymous.listen("0.0.0.0:0".parse()?).start().await?;
    let server = format!("--server=127.0.0.1:{}", daemon.address().port());
    check(&[&server, "du"], "the right `admin`")?;
    check(&[&server, "gc", "--older-than=0s"], "the right `admin`")?;
    Ok(())
}

/// Checks that every blob is missing or is what was uploaded; gives the number of missing ones.
async fn never_lies(
    client: &Client,
    blobs: &[(testkit::Digest, Vec<u8>)],
) -> anyhow::Result<usize> {
    let mut missing = 0;
    for (digest, content) in blobs {
        match client.get(digest).await {
            Ok(read) => ensure!(read == *content, "a false blob was served"),
            Err(error) => {
                let text = format!("{error:#}");
                let absent = client.missing(&[*digest]).await?;
                ensure!(absent == [*digest], "neither missing nor served: {text}");
                missing += 1;
            }
        }
    }
    Ok(missing)
}
