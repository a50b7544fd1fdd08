//! Object stores below the store: what is only there is as good as here, and one that hangs, lies, loses objects or is
//! not there costs a build time at most.
//!
//! A directory is in every run. `cargo xtask test` and `cargo xtask e2e upstream` build a server that speaks S3 and name it
//! to the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testkit::upstream::{Copies, blobs_and_inputs_come, incompressible};
use testkit::{
    Client, Daemon, DaemonBuilder, Digest, DigestFunction, Kit, Outcome, ReservedAddress, bounded,
    eventually, eventually_async,
};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    files_take_results_and_give_them_to_another_daemon,
    files_are_asked_for_blobs_and_inputs,
    files_that_lie_are_not_believed_and_replaced,
    files_without_a_blob_of_a_result_have_no_result,
    a_named_pipe_is_no_object_and_replaced,
    a_symlink_among_the_files_leads_nowhere,
    a_directory_that_is_not_there_is_named_at_the_start,
    azure_without_an_account_names_the_variable,
    a_directory_that_goes_away_and_comes_back_is_used,
    a_daemon_that_is_killed_leaves_whole_objects_only,
    the_same_name_in_two_instances_is_two_results,
    s3_takes_results_and_gives_them_to_another_daemon,
    s3_is_asked_for_blobs_and_inputs,
    s3_that_lies_is_not_believed_and_replaced,
    s3_that_hangs_is_given_up,
    s3_is_killed_and_comes_back,
    secrets_of_s3_are_in_no_log,
    s3_that_refuses_is_as_good_as_an_empty_one,
}

/// The variable with the path of a server that speaks S3, `s3s-fs`.
const S3_SERVER: &str = "ACTIOND_TEST_S3_SERVER";

/// The bucket that the tests use.
const BUCKET: &str = "bucket";

/// Credentials of the tests alone.
const KEY: &str = "test-key";

/// As [`KEY`].
const SECRET: &str = "test-secret-that-is-in-no-log";

/// Objects that daemons have below their stores.
struct Objects {
    /// The directory in which each object is a file.
    directory: PathBuf,
    address: String,
    /// Variables of the environment of daemons.
    environment: Vec<String>,
    server: Option<S3Server>,
    _state: tempfile::TempDir,
}

/// A server that speaks S3; killed when dropped.
struct S3Server {
    process: Child,
    address: ReservedAddress,
    root: PathBuf,
}

impl S3Server {
    async fn start(root: &Path) -> anyhow::Result<Self> {
        let address = ReservedAddress::new()?;
        let process = Self::spawn(root, &address).await?;
        Ok(Self { process, address, root: root.to_owned() })
    }

    async fn spawn(root: &Path, address: &ReservedAddress) -> anyhow::Result<Child> {
        let Some(program) = std::env::var_os(S3_SERVER) else {
            testkit::skip(format!("{S3_SERVER} names no server; `cargo xtask e2e upstream` does"))?;
            unreachable!("skipping is an error");
        };
        let log = fs::File::create(root.with_extension("log"))?;
        let mut command = bounded(&program);
        command.args(["--host", "127.0.0.1", "--port", &address.get().port().to_string()]);
        command.args(["--access-key", KEY, "--secret-key", SECRET]).arg(root);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        eventually(
            "the server listens",
            || Ok(std::net::TcpStream::connect(address.get()).is_ok()),
        )
        .await?;
        Ok(process)
    }

    fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    async fn start_again(&mut self) -> anyhow::Result<()> {
        self.process = Self::spawn(&self.root, &self.address).await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("the server has a process")?, signal)?)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.kill();
    }
}

impl Objects {
    fn files(kit: &Kit) -> anyhow::Result<Self> {
        kit.only_on_the_host("a guest has no network for an upstream")?;
        let state = kit.daemon().directory()?;
        let directory = state.path().join("objects");
        fs::create_dir(&directory)?;
        let address = format!("file://{}", directory.display());
        Ok(Self { directory, address, environment: Vec::new(), server: None, _state: state })
    }

    async fn s3(kit: &Kit) -> anyhow::Result<Self> {
        kit.only_on_the_host("a guest has no network for an upstream")?;
        let state = kit.daemon().directory()?;
        let root = state.path().join("s3");
        fs::create_dir_all(root.join(BUCKET))?;
        let server = S3Server::start(&root).await?;
        let endpoint = format!("AWS_ENDPOINT_URL=http://{}", server.address.get());
        let environment = [&endpoint, "AWS_ALLOW_HTTP=true", "AWS_REGION=us-east-1"];
        let mut environment: Vec<_> = environment.map(str::to_owned).to_vec();
        environment.push(format!("AWS_ACCESS_KEY_ID={KEY}"));
        environment.push(format!("AWS_SECRET_ACCESS_KEY={SECRET}"));
        Ok(Self {
            // The server has names of files that are longer by a half, of 255 bytes at most.
            directory: root.join(BUCKET).join("t"),
            address: format!("s3://{BUCKET}/t"),
            environment,
            server: Some(server),
            _state: state,
        })
    }

    fn server(&mut self) -> anyhow::Result<&mut S3Server> {
        self.server.as_mut().context("the objects have a server")
    }

    fn above_within(&self, kit: &Kit, timeout: &str) -> DaemonBuilder {
        let words = ["env".to_owned()].into_iter().chain(self.environment.clone());
        let daemon = kit.daemon().host_rootfs();
        let daemon = if self.environment.is_empty() { daemon } else { daemon.through(words) };
        let daemon = daemon.flag("--upstream-cas").flag(&self.address);
        daemon.flag("--upstream-ac").flag(&self.address).flag(timeout)
    }

    /// A daemon that has them below its store.
    fn above(&self, kit: &Kit) -> DaemonBuilder {
        // On a busy machine the upstream may take its time.
        self.above_within(kit, "--upstream-timeout=120s")
    }

    /// The file of a blob, as the documentation tells it.
    fn file(&self, digest: &Digest) -> PathBuf {
        let (hex, size) = (digest.hex(), digest.size_bytes());
        let folder = self.directory.join("actiond-1/cas/sha256").join(&hex[..2]);
        folder.join(format!("{hex}-{size}"))
    }

    fn put(&self, content: &[u8]) -> anyhow::Result<Digest> {
        let digest = Digest::of(DigestFunction::Sha256, content);
        let path = self.file(&digest);
        fs::create_dir_all(path.parent().context("objects are in folders")?)?;
        fs::write(&path, content)?;
        Ok(digest)
    }
}

/// A twelfth of what takes three parts of an upload.
fn piece() -> Vec<u8> {
    incompressible(1 << 20)
}

/// Runs an action with outputs, and tells whether it was a hit.
async fn is_a_hit(daemon: &Daemon, number: usize) -> anyhow::Result<bool> {
    Copies::of("content").is_a_hit(daemon, number).await
}

async fn take_and_give(kit: &Kit, objects: Objects) -> Outcome {
    let first = objects.above(kit).flag("--upstream-writes=through").flag("--log=debug");
    let first = first.start().await?;
    for number in 0..3 {
        assert!(!is_a_hit(&first, number).await?);
    }
    // An output of several parts.
    let action = |client: Client| {
        let pad = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat in; done > out";
        client.action(pad).input("in", piece()).output("out")
    };
    let run = action(first.client()).run().await?;
    assert!(!run.succeeded().await?.from_cache());
    let out =
        Digest::from_proto_field(run.output_file("out")?.digest.as_ref(), DigestFunction::Sha256)?;
    assert_eq!(out.size_bytes(), 12 << 20);
    let written = fs::metadata(objects.file(&out)).with_context(|| first.log())?;
    assert_eq!(written.len(), 12 << 20, "the layout is the documented one");
    let second = objects.above(kit).flag("--http=127.0.0.1:0").start().await?;
    for number in 0..3 {
        assert!(is_a_hit(&second, number).await?, "action {number} of another daemon");
    }
    let again = action(second.client()).run().await?;
    assert!(again.succeeded().await?.from_cache());
    assert!(second.metric("upstream_received_bytes_total{tier=\"cas\"}")? >= 12 << 20);
    assert_eq!(second.metric("upstream_hits_total{tier=\"ac\"}")?, 4);
    assert_eq!(second.metric("upstream_failures_total{tier=\"cas\"}")?, 0);
    drop(objects);
    for number in 0..3 {
        assert!(is_a_hit(&second, number).await?, "it is here now");
    }
    assert_eq!(second.client().get(&out).await?.len(), 12 << 20);
    Ok(())
}

async fn files_take_results_and_give_them_to_another_daemon(kit: Kit) -> Outcome {
    take_and_give(&kit, Objects::files(&kit)?).await
}

async fn s3_takes_results_and_gives_them_to_another_daemon(kit: Kit) -> Outcome {
    take_and_give(&kit, Objects::s3(&kit).await?).await
}

async fn blobs_and_inputs(kit: &Kit, objects: Objects) -> Outcome {
    let daemon = objects.above(kit).start().await?;
    blobs_and_inputs_come(kit, &daemon, |content| objects.put(content)).await
}

async fn files_are_asked_for_blobs_and_inputs(kit: Kit) -> Outcome {
    blobs_and_inputs(&kit, Objects::files(&kit)?).await
}

async fn s3_is_asked_for_blobs_and_inputs(kit: Kit) -> Outcome {
    blobs_and_inputs(&kit, Objects::s3(&kit).await?).await
}

/// The output of an action whose standard output is small and whose file is not.
async fn two_outputs(daemon: &Daemon) -> anyhow::Result<(bool, [Digest; 2])> {
    let client = daemon.client();
    // Not the inputs, which the daemon has.
    let script = "tr a-z A-Z < in > small; cat large large > large-out";
    let action = client.action(script).input("in", "small content");
    let action = action.input("large", vec![9; 3 << 20]).output("small").output("large-out");
    let run = action.run().await?;
    run.succeeded().await?;
    let digest = |path: &str| {
        let file = run.output_file(path)?;
        let digest = Digest::from_proto_field(file.digest.as_ref(), DigestFunction::Sha256);
        anyhow::Ok(digest?)
    };
    Ok((run.from_cache(), [digest("small")?, digest("large-out")?]))
}

async fn lie(kit: &Kit, objects: Objects) -> Outcome {
    let first = objects.above(kit).flag("--upstream-writes=through").start().await?;
    let (_, outputs) = two_outputs(&first).await?;
    for digest in &outputs {
        let path = objects.file(digest);
        let mut forged = fs::read(&path)?;
        forged[0] ^= 1;
        fs::write(&path, forged)?;
    }
    let daemon = objects.above(kit).flag("--upstream-writes=through").start().await?;
    for digest in &outputs {
        assert_eq!(daemon.client().missing(&[*digest]).await?, [*digest]);
    }
    let (from_cache, again) = two_outputs(&daemon).await?;
    assert!(!from_cache, "a result with a forged output");
    assert_eq!(again, outputs);
    eventually("the log says it", || Ok(daemon.log().contains("another content"))).await?;
    // The daemon that has the content has replaced them.
    for digest in &outputs {
        let content = fs::read(objects.file(digest))?;
        assert_eq!(Digest::of(DigestFunction::Sha256, &content), *digest);
    }
    let (from_cache, _) = two_outputs(&objects.above(kit).start().await?).await?;
    assert!(from_cache);
    // Of another size, it is replaced as well.
    fs::write(objects.file(&outputs[0]), "short")?;
    let daemon = objects.above(kit).flag("--upstream-writes=through").start().await?;
    assert!(!two_outputs(&daemon).await?.0);
    assert_eq!(fs::read(objects.file(&outputs[0]))?, b"SMALL CONTENT");
    Ok(())
}

async fn files_that_lie_are_not_believed_and_replaced(kit: Kit) -> Outcome {
    lie(&kit, Objects::files(&kit)?).await
}

async fn s3_that_lies_is_not_believed_and_replaced(kit: Kit) -> Outcome {
    lie(&kit, Objects::s3(&kit).await?).await
}

async fn files_without_a_blob_of_a_result_have_no_result(kit: Kit) -> Outcome {
    let objects = Objects::files(&kit)?;
    let first = objects.above(&kit).flag("--upstream-writes=through").start().await?;
    let (_, outputs) = two_outputs(&first).await?;
    fs::remove_file(objects.file(&outputs[1]))?;
    let daemon = objects.above(&kit).start().await?;
    assert!(!two_outputs(&daemon).await?.0);
    Ok(())
}

/// Actions run until the log says that the upstream is given up, and a few more that do not ask it.
async fn until_given_up(daemon: &Daemon, mut ask: impl AsyncFnMut() -> Outcome) -> Outcome {
    let run = async |number: usize| {
        let action = daemon.client().action(&format!("echo {number}"));
        action.run().await?.succeeded().await.map(drop)
    };
    let mut number = 0;
    while !daemon.log().contains("given up for a while") {
        ensure!(number < 20, "the upstream is not given up:\n{}", daemon.log());
        ask().await?;
        number += 1;
    }
    for number in 100..110 {
        run(number).await?;
    }
    Ok(())
}

async fn a_named_pipe_is_no_object_and_replaced(kit: Kit) -> Outcome {
    let objects = Objects::files(&kit)?;
    let first = objects.above(&kit).flag("--upstream-writes=through").start().await?;
    let (_, outputs) = two_outputs(&first).await?;
    // Opening one to read waits for a writer that never comes.
    for digest in &outputs {
        let path = objects.file(digest);
        fs::remove_file(&path)?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )?;
    }
    let daemon = objects.above(&kit).flag("--upstream-writes=through").start().await?;
    for digest in &outputs {
        assert_eq!(daemon.client().missing(&[*digest]).await?, [*digest]);
    }
    assert!(!two_outputs(&daemon).await?.0);
    for digest in &outputs {
        let path = objects.file(digest);
        ensure!(fs::symlink_metadata(&path)?.is_file(), "{} is replaced", path.display());
        assert_eq!(Digest::of(DigestFunction::Sha256, &fs::read(&path)?), *digest);
    }
    ensure!(!daemon.log().contains("given up for a while"), "{}", daemon.log());
    Ok(())
}

async fn a_symlink_among_the_files_leads_nowhere(kit: Kit) -> Outcome {
    for level in ["actiond-1", "actiond-1/cas/sha256"] {
        let objects = Objects::files(&kit)?;
        let outside = objects.directory.with_extension("outside");
        fs::create_dir(&outside)?;
        let link = objects.directory.join(level);
        fs::create_dir_all(link.parent().context("it is in a directory")?)?;
        std::os::unix::fs::symlink(&outside, &link)?;
        // The object is there, for one who follows the link.
        let digest = objects.put(b"content")?;
        let before = everything(&outside)?;
        let daemon = objects.above(&kit).start().await?;
        assert_eq!(daemon.client().missing(&[digest]).await?, [digest]);
        assert!(!is_a_hit(&daemon, 0).await?);
        eventually("the log says why nothing is copied", || {
            Ok(daemon.log().contains("a symbolic link or something else than a directory"))
        })
        .await?;
        assert_eq!(everything(&outside)?, before, "{level}");
    }
    Ok(())
}

/// The paths of everything below a directory, sorted.
fn everything(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut next) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                next.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort_unstable();
    Ok(found)
}

async fn s3_that_hangs_is_given_up(kit: Kit) -> Outcome {
    let mut objects = Objects::s3(&kit).await?;
    let daemon = objects.above_within(&kit, "--upstream-timeout=1s").start().await?;
    let client = daemon.client();
    client.missing(&[client.digest(b"nowhere")]).await?;
    objects.server()?.signal(Signal::STOP)?;
    let mut number = 0;
    let ask = async || {
        number += 1;
        let digest = client.digest(format!("nowhere {number}"));
        assert_eq!(client.missing(&[digest]).await?, [digest]);
        Ok(())
    };
    until_given_up(&daemon, ask).await?;
    objects.server()?.signal(Signal::CONT)
}

async fn a_directory_that_is_not_there_is_named_at_the_start(kit: Kit) -> Outcome {
    let objects = Objects::files(&kit)?;
    fs::remove_dir(&objects.directory)?;
    let refused = objects.above(&kit).start().await.err().context("there is no directory")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("make it, or mount what holds it"), "{refused}");
    Ok(())
}

async fn azure_without_an_account_names_the_variable(kit: Kit) -> Outcome {
    let daemon = kit.daemon().flag("--upstream-cas=az://container");
    let without = ["env", "-u", "AZURE_STORAGE_ACCOUNT_NAME", "-u", "AZURE_STORAGE_USE_EMULATOR"];
    let refused = daemon.through(without).start().await.err().context("there is no account")?;
    let refused = format!("{refused:#}");
    ensure!(refused.contains("set AZURE_STORAGE_ACCOUNT_NAME"), "{refused}");
    Ok(())
}

async fn a_directory_that_goes_away_and_comes_back_is_used(kit: Kit) -> Outcome {
    let objects = Objects::files(&kit)?;
    let daemon = objects.above(&kit).start().await?;
    let (away, back) = (objects.directory.with_extension("away"), &objects.directory);
    let digest = objects.put(b"content")?;
    fs::rename(back, &away)?;
    for number in 0..5 {
        assert!(!is_a_hit(&daemon, number).await?);
    }
    ensure!(!back.exists(), "nothing is written in its place");
    fs::rename(&away, back)?;
    let client = daemon.client();
    eventually_async("the directory is used", async || {
        Ok(client.missing(&[digest]).await?.is_empty())
    })
    .await
}

async fn a_daemon_that_is_killed_leaves_whole_objects_only(kit: Kit) -> Outcome {
    let objects = Objects::files(&kit)?;
    let mut daemon = objects.above(&kit).start().await?;
    let mut seen = 0;
    for number in 0..6_usize {
        let script = format!(
            "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat in; done > out; echo {number} >> out"
        );
        let client = daemon.client();
        let action = client.action(&script).input("in", piece()).output("out");
        action.run().await?.succeeded().await?;
        // At another moment each time: amid the upload, or after it.
        eventually("something is written", || {
            seen = fs::read_dir(&objects.directory)?.count();
            Ok(seen > 0)
        })
        .await?;
        std::thread::sleep(std::time::Duration::from_millis(40 * number as u64));
        daemon.kill()?;
        whole_objects(&objects.directory.join("actiond-1/cas/sha256"))?;
        daemon = daemon.successor().start().await?;
    }
    // The journal is worked off by the last one.
    let last = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do cat in; done > out; echo 5 >> out";
    eventually_async("the last result is there", async || {
        let other = objects.above(&kit).start().await?;
        let client = other.client();
        let action = client.action(last).input("in", piece()).output("out").encode().0;
        Ok(client.cached(&action).await?.is_some())
    })
    .await?;
    ensure!(
        whole_objects(&objects.directory.join("actiond-1/cas/sha256"))? >= 7,
        "objects are there"
    );
    Ok(())
}

/// Checks that each object is what its name says. Returns their number.
fn whole_objects(folder: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    let Ok(folders) = fs::read_dir(folder) else { return Ok(0) };
    for folder in folders {
        for file in fs::read_dir(folder?.path())? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // A file that is not renamed yet has no name that is asked for.
            if name.contains('#') {
                continue;
            }
            let digest = Digest::of(DigestFunction::Sha256, &fs::read(&path)?);
            assert_eq!(name, format!("{}-{}", digest.hex(), digest.size_bytes()));
            count += 1;
        }
    }
    Ok(count)
}

async fn the_same_name_in_two_instances_is_two_results(kit: Kit) -> Outcome {
    let objects = Objects::files(&kit)?;
    let daemon = objects.above(&kit).flag("--upstream-writes=through").start().await?;
    let action = |client: Client| client.action("echo said > out").output("out");
    let run = action(daemon.client().with_instance("team/ä b")).run().await?;
    run.succeeded().await?;
    let other = objects.above(&kit).start().await?;
    let again = action(other.client()).run().await?;
    assert!(!again.succeeded().await?.from_cache(), "a result of another instance");
    let again = action(other.client().with_instance("team/ä b")).run().await?;
    assert!(again.succeeded().await?.from_cache());
    Ok(())
}

async fn s3_is_killed_and_comes_back(kit: Kit) -> Outcome {
    let mut objects = Objects::s3(&kit).await?;
    let daemon = objects.above(&kit).start().await?;
    assert!(!is_a_hit(&daemon, 0).await?);
    objects.server()?.kill()?;
    for number in 1..4 {
        assert!(!is_a_hit(&daemon, number).await?);
    }
    objects.server()?.start_again().await?;
    // Results made in the meantime are copied, and another daemon gets them from there.
    let other = objects.above(&kit).start().await?;
    Copies::of("content").arrives(&other, 3).await
}

async fn secrets_of_s3_are_in_no_log(kit: Kit) -> Outcome {
    let mut objects = Objects::s3(&kit).await?;
    objects.environment.push("AWS_SESSION_TOKEN=token-that-is-in-no-log".to_owned());
    let daemon = objects.above(&kit).flag("--log=trace").flag("--upstream-writes=through");
    let daemon = daemon.start().await?;
    assert!(!is_a_hit(&daemon, 0).await?);
    objects.server()?.kill()?;
    assert!(!is_a_hit(&daemon, 1).await?);
    for secret in [SECRET, "token-that-is-in-no-log"] {
        ensure!(!daemon.log().contains(secret), "the log has a secret:\n{}", daemon.log());
    }
    Ok(())
}

async fn s3_that_refuses_is_as_good_as_an_empty_one(kit: Kit) -> Outcome {
    let mut objects = Objects::s3(&kit).await?;
    let digest = objects.put(b"content")?;
    objects.environment.push("AWS_SECRET_ACCESS_KEY=another-secret".to_owned());
    let daemon = objects.above(&kit).start().await?;
    assert_eq!(daemon.client().missing(&[digest]).await?, [digest]);
    assert!(!is_a_hit(&daemon, 0).await?);
    eventually("the log says it", || Ok(daemon.log().contains("the upstream is down"))).await?;
    ensure!(!daemon.log().contains("another-secret"), "{}", daemon.log());
    // And so is one whose bucket does not exist.
    objects.environment.pop();
    objects.address = "s3://no-such-bucket".to_owned();
    let daemon = objects.above(&kit).start().await?;
    assert!(!is_a_hit(&daemon, 0).await?);
    eventually("the log says it", || Ok(daemon.log().contains("NoSuchBucket"))).await
}
