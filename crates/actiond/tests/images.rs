//! OCI images as root file systems: imported by the command, seen by actions.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use model::{Digest, DigestFunction};
use proto::actiond::internal::v1::images_client::ImagesClient;
use proto::actiond::internal::v1::{Image, PutImageRequest, RemoveImageRequest};
use rustix::process::Signal;
use testkit::wait::eventually;
use testkit::{Action, Daemon, Kit, ORDINARY_USER, Outcome, elf};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_action_runs_in_an_imported_image,
    an_image_can_come_as_an_archive,
    an_image_that_is_not_there_says_how_to_import_it,
    a_changed_layer_is_refused,
    images_are_listed_and_removed,
    a_broken_image_beside_a_server_changes_nothing,
    an_image_of_missing_blobs_is_refused,
    images_are_changed_by_the_owner_alone,
    a_read_only_server_takes_no_image,
    an_image_that_is_in_use_stays,
    an_import_beside_a_server_shows_at_once,
    an_ordinary_user_imports_beside_a_server,
    many_imports_at_once,
    a_signal_reloads_the_list_of_images,
}

/// The answer of the image's program.
const FIRST: i32 = 81;
/// The answer of the second layer's program, which replaces it.
const SECOND: i32 = 82;

/// The files of an OCI image layout, by their paths.
#[derive(Default)]
struct Layout(BTreeMap<String, Vec<u8>>);

impl Layout {
    /// With an image of these layers, given as their files.
    fn with(layers: &[&[(&str, &[u8])]]) -> anyhow::Result<Self> {
        let mut layout = Self::default();
        let mut descriptors = Vec::new();
        for (number, files) in layers.iter().enumerate() {
            let mut layer = archive(files)?;
            // Of each kind one.
            if number % 2 == 0 {
                layer = zstd::encode_all(&*layer, 1)?;
            }
            descriptors.push(layout.blob(layer));
        }
        let config = layout.blob(b"{}".to_vec());
        let manifest = serde_json::json!({ "config": config, "layers": descriptors });
        let manifest = layout.blob(manifest.to_string().into_bytes());
        let index = serde_json::json!({ "manifests": [manifest] }).to_string();
        layout.0.insert("index.json".to_owned(), index.into_bytes());
        layout.0.insert("oci-layout".to_owned(), b"{}".to_vec());
        Ok(layout)
    }

    /// Adds a blob and gives its descriptor.
    fn blob(&mut self, content: Vec<u8>) -> serde_json::Value {
        let hash = Digest::of(DigestFunction::Sha256, &content).hex();
        let descriptor =
            serde_json::json!({ "digest": format!("sha256:{hash}"), "size": content.len() });
        self.0.insert(format!("blobs/sha256/{hash}"), content);
        descriptor
    }

    fn write(&self, directory: &Path) -> Outcome {
        for (path, content) in &self.0 {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().context("a file")?)?;
            fs::write(path, content)?;
        }
        Ok(())
    }
}

fn archive(files: &[(&str, &[u8])]) -> anyhow::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content)?;
    }
    Ok(builder.into_inner()?)
}

fn program(code: i32) -> Vec<u8> {
    elf::exit_with(u8::try_from(code).unwrap_or(u8::MAX))
}

/// An image with `/usr/bin/program`, which a second layer replaces, and `/usr/bin/gone`, which it
/// takes away.
fn toy() -> anyhow::Result<Layout> {
    let (first, second) = (program(FIRST), program(SECOND));
    Layout::with(&[
        &[("usr/bin/program", &first), ("usr/bin/gone", &first), ("etc/issue", b"toy")],
        &[("usr/bin/program", &second), ("usr/bin/.wh.gone", b"")],
    ])
}

/// Runs `linux-actiond image` on that root directory.
fn image(kit: &Kit, root: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(kit.binary());
    command.arg("image").arg("--root").arg(root).args(arguments);
    Ok(command.output()?)
}

/// Imports the layout under the name `toy:1` into a new root directory.
fn imported(kit: &Kit, layout: &Path) -> anyhow::Result<tempfile::TempDir> {
    let root = match std::env::var_os("ACTIOND_TEST_STATE_DIR") {
        Some(directory) => tempfile::tempdir_in(directory)?,
        None => tempfile::tempdir()?,
    };
    let path = layout.to_str().context("a plain path")?;
    let output = image(kit, root.path(), &["import", "docker://toy:1", path])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(root)
}

async fn check_runs(kit: &Kit, root: &Path) -> Outcome {
    let daemon = kit.daemon().root(root).start().await?;
    let client = daemon.client();
    for (name, value) in [("container-image", "docker://toy:1"), ("rootfs", "toy:1")] {
        let action = client.bare_action(["/usr/bin/program"]).property(name, value);
        assert_eq!(action.run().await?.exit_code()?, SECOND, "{name}={value}");
        let gone = client.bare_action(["/usr/bin/gone"]).property(name, value).run().await?;
        assert_eq!(gone.exit_code()?, 127);
    }
    let bare = client.bare_action(["/usr/bin/program"]).run().await?;
    assert_eq!(bare.exit_code()?, 127, "only where it is asked for");
    Ok(())
}

async fn an_action_runs_in_an_imported_image(kit: Kit) -> Outcome {
    let layout = tempfile::tempdir()?;
    toy()?.write(layout.path())?;
    let root = imported(&kit, layout.path())?;
    drop(layout);
    check_runs(&kit, root.path()).await
}

async fn an_image_can_come_as_an_archive(kit: Kit) -> Outcome {
    let layout = toy()?;
    let files: Vec<_> = layout.0.iter().map(|(path, it)| (path.as_str(), it.as_slice())).collect();
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), archive(&files)?)?;
    let root = imported(&kit, file.path())?;
    check_runs(&kit, root.path()).await
}

async fn an_image_that_is_not_there_says_how_to_import_it(kit: Kit) -> Outcome {
    let daemon = kit.daemon().start().await?;
    for (name, value) in [("container-image", "docker://toy:1"), ("rootfs", "toy:1")] {
        let run = daemon.client().bare_action(["x"]).property(name, value).run().await?;
        assert_eq!(run.code(), Code::InvalidArgument);
        assert!(run.message().contains("image import toy:1"), "{}", run.message());
    }
    Ok(())
}

async fn a_changed_layer_is_refused(kit: Kit) -> Outcome {
    let mut layout = toy()?;
    let changed = archive(&[("usr/bin/program", b"evil")])?;
    let layer = layout.0.iter_mut().find(|(_, content)| content.starts_with(b"usr/bin/program"));
    *layer.context("the second layer is not compressed")?.1 = changed;
    let directory = tempfile::tempdir()?;
    layout.write(directory.path())?;
    let error = imported(&kit, directory.path()).map(drop).err().context("it was imported")?;
    assert!(error.to_string().contains("does not have the digest"), "{error}");
    Ok(())
}

async fn images_are_listed_and_removed(kit: Kit) -> Outcome {
    let layout = tempfile::tempdir()?;
    toy()?.write(layout.path())?;
    let root = imported(&kit, layout.path())?;
    let listed = || -> anyhow::Result<String> {
        Ok(String::from_utf8(image(&kit, root.path(), &["list"])?.stdout)?)
    };
    assert!(listed()?.starts_with("toy:1  sha256:"), "{}", listed()?);
    assert!(image(&kit, root.path(), &["remove", "toy:1"])?.status.success());
    assert_eq!(listed()?, "");
    assert!(!image(&kit, root.path(), &["remove", "toy:1"])?.status.success());
    Ok(())
}

/// Imports an image under that name beside a server.
fn import(kit: &Kit, daemon: &Daemon, name: &str, layout: &Layout) -> anyhow::Result<Output> {
    let directory = tempfile::tempdir()?;
    layout.write(directory.path())?;
    let path = directory.path().to_str().context("a plain path")?;
    image(kit, daemon.root(), &["import", name, path])
}

fn ensure_success(output: &Output) -> Outcome {
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The output of a command that failed.
fn failure(output: &Output) -> anyhow::Result<String> {
    ensure!(!output.status.success(), "it succeeded");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn list(kit: &Kit, root: &Path) -> anyhow::Result<String> {
    let output = image(kit, root, &["list"])?;
    ensure_success(&output)?;
    Ok(String::from_utf8(output.stdout)?)
}

/// The exit code of the program of an image.
async fn code_in(daemon: &Daemon, name: &str) -> anyhow::Result<i32> {
    let action = daemon.client().bare_action(["/usr/bin/program"]);
    action.property("rootfs", name).do_not_cache().run().await?.exit_code()
}

/// An image whose `/usr/bin/program` exits with that code.
fn image_with(code: i32) -> anyhow::Result<Layout> {
    Layout::with(&[&[("etc/issue", b"toy"), ("usr/bin/program", &program(code))]])
}

/// The mounts of images in the daemon's mount namespace.
fn mounted(daemon: &Daemon) -> anyhow::Result<usize> {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", daemon.pid()))?;
    Ok(mounts.lines().filter(|line| line.contains("/images/mounted/")).count())
}

const NO_SOCKET: &str = "a VM's store has no socket on the host";

async fn a_broken_image_beside_a_server_changes_nothing(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    let daemon = kit.daemon().start().await?;
    ensure_success(&import(&kit, &daemon, "toy:1", &toy()?)?)?;
    let before = list(&kit, daemon.root())?;

    let is_layer = |content: &[u8]| content.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]);
    let mut changed = image_with(1)?;
    let layer = changed.0.values_mut().find(|content| is_layer(content));
    layer.context("a layer")?.push(0);
    let said = failure(&import(&kit, &daemon, "toy:1", &changed)?)?;
    assert!(said.contains("does not have the"), "{said}");

    let mut cut = image_with(1)?;
    cut.0.retain(|_, content| !is_layer(content));
    failure(&import(&kit, &daemon, "toy:1", &cut)?)?;

    // Whole, and no root file system.
    let no_root = Layout::with(&[&[("etc/issue", b"toy")]])?;
    let said = failure(&import(&kit, &daemon, "toy:1", &no_root)?)?;
    assert!(said.contains("neither usr nor bin"), "{said}");

    let said = failure(&import(&kit, &daemon, "host", &toy()?)?)?;
    assert!(said.contains("is no name for an image"), "{said}");

    assert_eq!(list(&kit, daemon.root())?, before);
    assert_eq!(code_in(&daemon, "toy:1").await?, SECOND);
    assert_eq!(mounted(&daemon)?, 1);
    Ok(())
}

/// Requests of a client that did not upload what it names, or names nonsense.
async fn an_image_of_missing_blobs_is_refused(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    let daemon = kit.daemon().start().await?;
    let owner = owner(&daemon).await?;
    let absent = Digest::of(DigestFunction::Sha256, b"absent").to_proto();
    let present = daemon.client().put("no directory").await?.to_proto();
    let good = Image {
        name: "toy:1".to_owned(),
        root_digest: Some(absent),
        manifest: "sha256:00".to_owned(),
    };
    let check = async |image: Image, code: Code, part: &str| {
        let request = PutImageRequest { image: Some(image) };
        let status = owner.clone().put_image(request).await.err().context("it was put")?;
        assert_eq!(status.code(), code, "{}", status.message());
        assert!(status.message().contains(part), "{}", status.message());
        Outcome::Ok(())
    };
    check(good.clone(), Code::FailedPrecondition, "import it again").await?;
    let file = Image { root_digest: Some(present), ..good.clone() };
    check(file, Code::InvalidArgument, "can't be shown").await?;
    for name in ["", "host", "a b", "\u{1b}"] {
        let image = Image { name: name.to_owned(), ..good.clone() };
        check(image, Code::InvalidArgument, "is no name for an image").await?;
    }
    for manifest in ["", "a b", "\u{1b}", &"a".repeat(300)] {
        let image = Image { manifest: manifest.to_owned(), ..good.clone() };
        check(image, Code::InvalidArgument, "manifest").await?;
    }
    let mut digest = good.root_digest.clone().unwrap_or_default();
    digest.hash.pop();
    let image = Image { root_digest: Some(digest), ..good.clone() };
    check(image, Code::InvalidArgument, "root_digest").await?;
    check(Image { root_digest: None, ..good }, Code::InvalidArgument, "root_digest").await?;
    let absent = RemoveImageRequest { name: "toy:1".to_owned() };
    let status = owner.clone().remove_image(absent).await.err().context("it was removed")?;
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(list(&kit, daemon.root())?, "");
    Ok(())
}

/// The service at the owner's socket.
async fn owner(daemon: &Daemon) -> anyhow::Result<ImagesClient<Channel>> {
    let uri = format!("unix:{}", daemon.root().join("socket").display());
    Ok(ImagesClient::new(Endpoint::from_shared(uri)?.connect().await?))
}

async fn images_are_changed_by_the_owner_alone(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    // The first place of the kit has all rights for all callers; at another port they are clients.
    let daemon = kit.daemon().flag("--listen=127.0.0.1:0").start().await?;
    ensure_success(&import(&kit, &daemon, "toy:1", &toy()?)?)?;
    let layout = tempfile::tempdir()?;
    image_with(1)?.write(layout.path())?;
    let path = layout.path().to_str().context("a plain path")?;
    let mut port = None;
    eventually("it listens at the second port", || {
        let log = daemon.log();
        port = log
            .lines()
            .filter_map(|line| line.split_once("serving on "))
            .nth(1)
            .map(|(_, it)| it.to_owned());
        Ok(port.is_some())
    })
    .await?;
    let server = format!("--server={}", port.context("a port")?);
    for arguments in [
        &[&*server, "import", "toy:1", path][..],
        &[&*server, "remove", "toy:1"],
        &[&*server, "list"],
    ] {
        let said = failure(&image(&kit, daemon.root(), arguments)?)?;
        assert!(said.contains("right `admin`"), "{said}");
    }
    assert_eq!(code_in(&daemon, "toy:1").await?, SECOND);
    Ok(())
}

async fn a_read_only_server_takes_no_image(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    let daemon = kit.daemon().flag("--read-only").start().await?;
    failure(&import(&kit, &daemon, "toy:1", &toy()?)?)?;
    let absent = RemoveImageRequest { name: "toy:1".to_owned() };
    let status =
        owner(&daemon).await?.remove_image(absent).await.err().context("it was removed")?;
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("read-only"), "{}", status.message());
    Ok(())
}

/// An image with a shell, sleep(1) and the libraries of both, and `version` in a file.
fn tools(version: &str) -> anyhow::Result<Layout> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for program in ["/bin/sh", "/bin/sleep"] {
        files.insert(format!("usr{program}"), fs::read(program)?);
        let libraries = Command::new("ldd").arg(program).output()?;
        let libraries = String::from_utf8(libraries.stdout)?;
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            files.insert(library.trim_start_matches('/').to_owned(), fs::read(library)?);
        }
    }
    files.insert("etc/version".to_owned(), format!("{version}\n").into_bytes());
    let files: Vec<_> = files.iter().map(|(path, it)| (path.as_str(), it.as_slice())).collect();
    Layout::with(&[&files])
}

/// An action in the image `tools` that reads the version, runs a command, and reads the version again: both are
/// the digits of its exit code.
fn versions(daemon: &Daemon, command: &str) -> Action {
    let script = format!("read a </etc/version; {command}; read b </etc/version; exit $a$b");
    let action = daemon.client().bare_action(["/usr/bin/sh", "-c", &script]);
    action.property("rootfs", "tools").env("PATH", "/usr/bin").do_not_cache()
}

async fn an_image_that_is_in_use_stays(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    let daemon = kit.daemon().flag("--jobs=2").start().await?;
    ensure_success(&import(&kit, &daemon, "tools", &tools("1")?)?)?;
    let gate = daemon.gate();
    let waiting = versions(&daemon, &gate.wait());
    let waiting = tokio::spawn(async move { waiting.run().await });
    gate.reached(1).await?;

    let said = failure(&image(&kit, daemon.root(), &["remove", "tools"])?)?;
    assert!(said.contains("in use by 1 running actions"), "{said}");
    assert_eq!(versions(&daemon, ":").run().await?.exit_code()?, 11);

    // Another image of that name is for those that come; an action that runs keeps the old one.
    ensure_success(&import(&kit, &daemon, "tools", &tools("2")?)?)?;
    assert_eq!(versions(&daemon, ":").run().await?.exit_code()?, 22);
    assert_eq!(mounted(&daemon)?, 2);
    ensure_success(&image(&kit, daemon.root(), &["remove", "tools"])?)?;
    assert_eq!(versions(&daemon, ":").run().await?.code(), Code::InvalidArgument);

    gate.open(1).await?;
    assert_eq!(waiting.await??.exit_code()?, 11);
    eventually("nothing is left of the images", || Ok(mounted(&daemon)? == 0)).await
}

async fn an_import_beside_a_server_shows_at_once(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    let mut daemon = kit.daemon().flag("--instance-names=main").start().await?;
    let client = daemon.client().with_instance("main");
    // Files that go in a batch, and one that does not.
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let layout = Layout::with(&[&[
        ("usr/bin/program", &program(FIRST)),
        ("usr/share/empty", b""),
        ("usr/share/small", b"small"),
        ("usr/share/large", &large),
    ]])?;
    let directory = tempfile::tempdir()?;
    layout.write(directory.path())?;
    let path = directory.path().to_str().context("a plain path")?;
    let root = daemon.root().to_owned();
    let import = |more: &[&str]| {
        let arguments: Vec<_> = ["import", "big:1", path].iter().chain(more).copied().collect();
        image(&kit, &root, &arguments)
    };
    let said = failure(&import(&[])?)?;
    assert!(said.contains("instance"), "{said}");
    ensure_success(&import(&["--instance=main"])?)?;
    // What is there is not sent again.
    ensure_success(&import(&["--instance=main"])?)?;
    let digest = client.digest(&large);
    assert!(client.missing(&[digest]).await?.is_empty());
    let action = client.bare_action(["/usr/bin/program"]).property("rootfs", "big:1");
    assert_eq!(action.run().await?.exit_code()?, FIRST);
    assert!(list(&kit, &root)?.starts_with("big:1  sha256:"));

    daemon.terminate()?;
    daemon.wait()?;
    let next = daemon.successor().start().await?;
    let action = next.client().with_instance("main").bare_action(["/usr/bin/program"]);
    assert_eq!(action.property("rootfs", "big:1").run().await?.exit_code()?, FIRST);
    Ok(())
}

/// Becomes the ordinary user of `$1` and executes the rest, through a descriptor: the user may not be able to reach
/// the program by its path.
const AS_USER: &str = "user=$1; bin=$2; shift 2; exec 9< \"$bin\"; \
    exec setpriv --reuid=$user --regid=$user --clear-groups --inh-caps=-all /proc/self/fd/9 \"$@\"";

/// The server and the command without root, and another user who has no way in.
async fn an_ordinary_user_imports_beside_a_server(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    let (user, other) = (ORDINARY_USER.to_string(), (ORDINARY_USER + 1).to_string());
    let directory = kit.daemon().directory()?;
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))?;
    let home = directory.path().join("home");
    fs::create_dir(&home)?;
    chown(&home, Some(ORDINARY_USER), Some(ORDINARY_USER))?;
    toy()?.write(&directory.path().join("layout"))?;
    let layout = directory.path().join("layout");
    let root = home.join("root");
    let mut daemon =
        kit.daemon().through(["bash", "-c", AS_USER, "as", &user]).root(&root).start().await?;
    let image = |user: &str, arguments: &[&str]| {
        let mut command = Command::new("bash");
        command.args(["-c", AS_USER, "as", user]).arg(kit.binary()).arg("image");
        command.arg("--root").arg(&root).args(arguments).output()
    };
    let import = ["import", "toy:1", layout.to_str().context("a plain path")?];
    failure(&image(&other, &import)?)?;
    ensure_success(&image(&user, &import)?)?;
    assert_eq!(code_in(&daemon, "toy:1").await?, SECOND);
    let listed = image(&user, &["list"])?;
    ensure_success(&listed)?;
    assert!(String::from_utf8(listed.stdout)?.starts_with("toy:1  sha256:"));
    failure(&image(&other, &["remove", "toy:1"])?)?;
    ensure_success(&image(&user, &["remove", "toy:1"])?)?;
    daemon.terminate()?;
    assert!(daemon.wait()?.success(), "{}", daemon.log());
    // Everything belongs to the user, who can delete it.
    let gone = Command::new("setpriv")
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "rm", "-r"])
        .arg(&root)
        .output()?;
    ensure_success(&gone)
}

async fn many_imports_at_once(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    let daemon = kit.daemon().start().await?;
    let layouts = tempfile::tempdir()?;
    let mut imports = Vec::new();
    for number in 0..6 {
        let directory = layouts.path().join(number.to_string());
        image_with(FIRST + number)?.write(&directory)?;
        // Two of each name.
        let mut command = Command::new(kit.binary());
        command.args(["image", "import", &format!("toy:{}", number % 3)]).arg(&directory);
        command.arg("--root").arg(daemon.root()).stderr(Stdio::piped()).stdout(Stdio::null());
        imports.push(command.spawn()?);
    }
    for import in imports {
        ensure_success(&import.wait_with_output()?)?;
    }
    assert_eq!(list(&kit, daemon.root())?.lines().count(), 3);
    let records = fs::read_dir(daemon.root().join("images"))?;
    let names = records.map(|entry| Ok(entry?.file_name())).collect::<anyhow::Result<Vec<_>>>()?;
    assert_eq!(names.len(), 4, "three records and the mount points: {names:?}");
    for number in 0..3 {
        let code = code_in(&daemon, &format!("toy:{number}")).await?;
        assert!([FIRST + number, FIRST + number + 3].contains(&code), "{code}");
    }
    eventually("one mount of each is left", || Ok(mounted(&daemon)? == 3)).await
}

async fn a_signal_reloads_the_list_of_images(kit: Kit) -> Outcome {
    kit.only_on_the_host(NO_SOCKET)?;
    let daemon = kit.daemon().start().await?;
    ensure_success(&import(&kit, &daemon, "toy:1", &toy()?)?)?;
    assert_eq!(code_in(&daemon, "toy:1").await?, SECOND);
    let records = fs::read_dir(daemon.root().join("images"))?;
    let mut paths = records.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|it| it == "json"));
    let [path] = &paths[..] else { anyhow::bail!("{paths:?}") };
    let record = fs::read(path)?;

    let reloaded = async |text: &str| {
        daemon.signal(Signal::HUP)?;
        eventually("the signal is answered", || Ok(daemon.log().contains(text))).await
    };
    // One that can't be read changes nothing.
    fs::write(path, "{}")?;
    reloaded("the images stay as they were").await?;
    assert_eq!(code_in(&daemon, "toy:1").await?, SECOND);
    fs::remove_file(path)?;
    reloaded(r#"gone=["toy:1"]"#).await?;
    let action = daemon.client().bare_action(["/usr/bin/program"]).property("rootfs", "toy:1");
    assert_eq!(action.run().await?.code(), Code::InvalidArgument);
    fs::write(path, record)?;
    reloaded(r#"shown=["toy:1"]"#).await?;
    assert_eq!(code_in(&daemon, "toy:1").await?, SECOND);
    Ok(())
}
