//! Actions on a disk that is full, or read-only, in earnest.
//!
//! One directory of the state is a small tmpfs, which only the daemon and what it starts can see. The store
//! measures the file system of its root, which has room, so that it evicts nothing, and what the test
//! fills stays full.
//!
//! | the full directory | the step that fails |
//! |---|---|
//! | `work` | presenting the inputs; the action's own writes |
//! | `cas` | collecting the outputs |
//! | `ac` | publishing the result |

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use inputroot::StrategyName;
use testkit::{Action, Daemon, Kit, Outcome, Run, eventually, eventually_async, skip};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    presenting_on_a_full_disk_is_resource_exhausted_with_overlays,
    presenting_on_a_full_disk_is_resource_exhausted_with_binds,
    presenting_on_a_read_only_disk_is_internal,
    an_action_that_fills_the_disk_is_resource_exhausted,
    an_action_that_hides_a_full_disk_is_not_cached,
    collecting_on_a_full_disk_is_resource_exhausted,
    publishing_on_a_full_disk_leaves_a_good_result,
}

/// Options of the tmpfs: the directories of a store and room for a few actions, which are filled up fast.
const SIZE: &str = "size=32m,nr_inodes=4000";

/// A daemon with a directory of its state on a disk of its own.
struct Scene {
    daemon: Daemon,
    directory: &'static str,
    disk: PathBuf,
    // Dropped last.
    _place: tempfile::TempDir,
}

impl Scene {
    /// `flags` are of the daemon, `directory` is one of its root directory.
    async fn start(kit: &Kit, directory: &'static str, flags: &[&str]) -> anyhow::Result<Self> {
        kit.only_on_the_host("a VM has a disk of its own")?;
        let place = kit.daemon().directory()?;
        let root = place.path().join("root");
        // The first daemon makes the directories, which the disk gets a copy of.
        let mut first = kit.daemon().root(&root).start().await?;
        first.terminate()?;
        ensure!(first.wait()?.success(), "the first daemon: {}", first.log());
        let disk = place.path().join("disk");
        fs::create_dir(&disk)?;
        let script = format!(
            "mount -t tmpfs -o {SIZE},mode=700 tmpfs {disk} && cp -a {root}/{directory}/. {disk} && \
             mount --move {disk} {root}/{directory} && exec \"$@\"",
            disk = disk.display(),
            root = root.display(),
        );
        let through = ["unshare", "--mount", "--propagation", "private", "bash", "-c"];
        let through = through.into_iter().chain([script.as_str(), "place"]);
        let builder = kit.daemon().through(through).host_rootfs().flag("--jobs=1").root(&root);
        let builder = flags.iter().fold(builder, |builder, flag| builder.flag(*flag));
        let daemon = builder.start().await?;
        let seen = PathBuf::from(format!("/proc/{}/root", daemon.pid()));
        let disk = seen.join(root.strip_prefix("/")?).join(directory);
        Ok(Self { daemon, directory, disk, _place: place })
    }

    fn filler(&self) -> PathBuf {
        self.disk.join("filler")
    }

    /// Takes every block and every inode that is free.
    fn fill(&self) -> Outcome {
        fs::create_dir_all(self.filler())?;
        let zeros = vec![0; 1 << 16];
        let mut names = 0..;
        loop {
            let name = self.filler().join(names.next().context("a name")?.to_string());
            if name.exists() {
                continue;
            }
            let written = File::create(name).and_then(|mut file| {
                // The first file takes the blocks, the others the inodes.
                while file.write_all(&zeros).is_ok() {}
                file.flush()
            });
            match written {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        ensure!(self.is_full()?, "{} is not full", self.directory);
        Ok(())
    }

    /// Frees that many inodes, and a block for each.
    fn give_back(&self, inodes: usize) -> Outcome {
        let names = fs::read_dir(self.filler())?.take(inodes);
        for name in names {
            fs::remove_file(name?.path())?;
        }
        Ok(())
    }

    fn is_full(&self) -> anyhow::Result<bool> {
        let disk = rustix::fs::statvfs(&self.disk)?;
        Ok(disk.f_bfree == 0 && disk.f_ffree == 0)
    }

    fn empty(&self) -> Outcome {
        fs::remove_dir_all(self.filler())?;
        Ok(())
    }

    /// Mounts the disk anew, `ro` or `rw`. Waits until no work of the daemon's is in the way.
    async fn remount(&self, mode: &str) -> Outcome {
        let path = fs::canonicalize(&self.disk)?;
        // As the daemon sees it.
        let path = PathBuf::from("/")
            .join(path.strip_prefix(format!("/proc/{}/root", self.daemon.pid())).unwrap_or(&path));
        eventually("the disk is remounted", || {
            let mut command = Command::new("nsenter");
            command.arg("--mount").arg("--target").arg(self.daemon.pid().to_string());
            command.args(["mount", "-o", &format!("remount,{mode}")]).arg(&path);
            Ok(command.output()?.status.success())
        })
        .await
    }

    fn action(&self, script: &str) -> Action {
        self.daemon.client().action(script).input("in", "x").output("out")
    }

    /// The server goes on: the same action works and its result is cached.
    async fn works_again(&self, action: &Action) -> Outcome {
        // The space of an earlier action may still be taken during the first runs, whose results are not kept then.
        eventually_async("the action succeeds and is cached", async || {
            let run = action.run().await?;
            Ok(run.code() == Code::Ok && run.exit_code()? == 0 && run.from_cache())
        })
        .await
    }

    async fn is_not_cached(&self, action: &Action) -> Outcome {
        let cached = self.daemon.client().cached(&action.encode().0).await?;
        ensure!(cached.is_none(), "cached: {cached:?}");
        Ok(())
    }
}

fn expect(run: &Run, code: Code, parts: &[&str]) -> Outcome {
    let message = run.message();
    ensure!(run.code() == code, "{:?}: {message}", run.code());
    ensure!(parts.iter().all(|part| message.contains(part)), "{parts:?} in: {message}");
    Ok(())
}

/// The strategies whose state can be on tmpfs, as far as the machine has them.
async fn with_strategy(
    kit: &Kit,
    strategy: StrategyName,
    directory: &'static str,
) -> anyhow::Result<Scene> {
    match Scene::start(kit, directory, &[&format!("--input-root-strategy={strategy}")]).await {
        Err(error) if format!("{error:#}").contains("no input root strategy works here") => {
            skip(format!("{strategy} does not work here: {error:#}")).map(|()| unreachable!())
        }
        scene => scene,
    }
}

/// Fails with up to that many free inodes.
async fn presenting_on_a_full_disk(kit: Kit, strategy: StrategyName, inodes_max: usize) -> Outcome {
    let scene = with_strategy(&kit, strategy, "work").await?;
    for inodes in 0..=inodes_max {
        let action = scene.action(&format!("cp in out # {inodes}")).skip_cache_lookup();
        action.upload().await?;
        // The next fill takes the space that the janitor frees after an action's answer, and an action on a full
        // disk frees no more than it took. So the disk stays full sooner or later.
        eventually_async("presenting fails", async || {
            scene.fill()?;
            scene.give_back(inodes)?;
            let run = action.run_without_upload().await?;
            let is_presented = !run.message().contains("presenting the inputs: ");
            ensure!(!is_presented || run.code() != Code::Internal, "{}", run.message());
            if is_presented {
                return Ok(false);
            }
            expect(&run, Code::ResourceExhausted, &["No space left on device"])?;
            Ok(true)
        })
        .await?;
        scene.is_not_cached(&action).await?;
    }
    scene.empty()?;
    scene.works_again(&scene.action("cp in out # again")).await
}

async fn presenting_on_a_full_disk_is_resource_exhausted_with_overlays(kit: Kit) -> Outcome {
    // The kernel makes four of the overlay's own. Without the first one it mounts read-only, without the
    // second it refuses.
    presenting_on_a_full_disk(kit, StrategyName::ErofsLoop, 2).await
}

async fn presenting_on_a_full_disk_is_resource_exhausted_with_binds(kit: Kit) -> Outcome {
    presenting_on_a_full_disk(kit, StrategyName::Bind, 0).await
}

async fn presenting_on_a_read_only_disk_is_internal(kit: Kit) -> Outcome {
    let scene = with_strategy(&kit, StrategyName::Bind, "work").await?;
    let action = scene.action("cp in out");
    action.upload().await?;
    scene.remount("ro").await?;
    let run = action.run_without_upload().await?;
    expect(&run, Code::Internal, &["presenting the inputs: ", "Read-only file system"])?;
    scene.is_not_cached(&action).await?;
    scene.remount("rw").await?;
    scene.works_again(&action).await
}

async fn an_action_that_fills_the_disk_is_resource_exhausted(kit: Kit) -> Outcome {
    let scene = Scene::start(&kit, "work", &[]).await?;
    for script in [
        "cat /dev/zero > big",
        "mkdir d; i=0; while : > d/$i; do i=$((i + 1)); done; exit 1",
        "cat /dev/zero > big 2> /dev/null; sleep 1000",
    ] {
        let action = scene.action(script);
        let run = action.run().await?;
        expect(&run, Code::ResourceExhausted, &["disk", "nearly full"])?;
        scene.is_not_cached(&action).await?;
        // The server frees the action's space after the answer.
        scene.works_again(&scene.action(&format!("cp in out # after {script}"))).await?;
    }
    Ok(())
}

async fn an_action_that_hides_a_full_disk_is_not_cached(kit: Kit) -> Outcome {
    let scene = Scene::start(&kit, "work", &[]).await?;
    let gate = scene.daemon.gate();
    let fill = "cat /dev/zero > big 2> /dev/null";
    // The disk is full at the end, or is for as long as a supervisor needs to see it.
    for script in [
        format!("{fill}; : > out; exit 0"),
        format!("{fill}; {}; rm big; cp in out; exit 0", gate.wait()),
    ] {
        let action = scene.action(&script);
        let run = action.run().await?;
        ensure!(matches!(run.code(), Code::Ok | Code::ResourceExhausted), "{}", run.message());
        scene.is_not_cached(&action).await?;
        scene.works_again(&scene.action(&format!("cp in out # after {script}"))).await?;
    }
    Ok(())
}

async fn collecting_on_a_full_disk_is_resource_exhausted(kit: Kit) -> Outcome {
    let scene = Scene::start(&kit, "cas", &[]).await?;
    // A small output, a large one, and one in a directory, with a stream too large for the result.
    for (number, make) in [
        "echo new > out",
        "head -c 1m /dev/urandom > out",
        "mkdir out; echo new2 > out/file",
        "echo new3 > out; head -c 100k /dev/zero",
    ]
    .into_iter()
    .enumerate()
    {
        let action = scene.action(&format!("echo said >&2; {make}")).output("link");
        action.upload().await?;
        scene.fill()?;
        // An action that takes long may be stopped, for the disk is full while it runs.
        let mut end = None;
        eventually_async("the action ends by itself", async || {
            let run = action.run_without_upload().await?;
            ensure!(run.code() == Code::ResourceExhausted, "case {number}: {}", run.message());
            let is_stopped = run.exit_code()? == 137;
            end = Some(run);
            Ok(!is_stopped)
        })
        .await?;
        let run = end.context("the action's run")?;
        expect(&run, Code::ResourceExhausted, &["No space left on device"])?;
        // The answer still reports what the action did.
        ensure!(run.exit_code()? == 0, "case {number}: {:?}", run.result()?);
        ensure!(run.result()?.stderr_raw == b"said\n"[..], "case {number}: {:?}", run.result()?);
        scene.is_not_cached(&action).await?;
        scene.empty()?;
        scene.works_again(&action).await?;
    }
    Ok(())
}

async fn publishing_on_a_full_disk_leaves_a_good_result(kit: Kit) -> Outcome {
    let scene = Scene::start(&kit, "ac", &["--http=127.0.0.1:0"]).await?;
    let action = scene.action("cp in out");
    scene.fill()?;
    for _ in 0..2 {
        let run = action.run().await?;
        ensure!(run.code() == Code::Ok && !run.from_cache(), "{}", run.message());
        assert_eq!(run.succeeded().await?.file("out").await?, "x");
        scene.is_not_cached(&action).await?;
    }
    let log = scene.daemon.log();
    ensure!(log.contains("not cached") && log.contains("No space left on device"), "{log}");
    let metrics = metrics(&log)?;
    let counted = r#"actiond_store_failed_writes_total{reason="disk_full"} 2"#;
    ensure!(metrics.lines().any(|line| line == counted), "{metrics}");
    scene.empty()?;
    scene.works_again(&action).await
}

/// The metrics of the server with this log.
fn metrics(log: &str) -> anyhow::Result<String> {
    let said = log.split_once("page and metrics on http://").context("the address of the page")?.1;
    let address = said.split('/').next().context("an address")?;
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
