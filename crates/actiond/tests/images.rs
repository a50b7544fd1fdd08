//! OCI images as root file systems: imported by the command, seen by actions.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use model::{Digest, DigestFunction};
use testkit::{Kit, Outcome, elf};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_action_runs_in_an_imported_image,
    an_image_can_come_as_an_archive,
    an_image_that_is_not_there_says_how_to_import_it,
    a_changed_layer_is_refused,
    images_are_listed_and_removed,
    the_store_of_a_running_server_is_left_alone,
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

async fn the_store_of_a_running_server_is_left_alone(kit: Kit) -> Outcome {
    let layout = tempfile::tempdir()?;
    toy()?.write(layout.path())?;
    let daemon = kit.daemon().start().await?;
    let path = layout.path().to_str().context("a plain path")?;
    let output = image(&kit, daemon.root(), &["import", "toy:1", path])?;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    let who = format!(
        "{} is in use by another server, process {}",
        daemon.root().display(),
        daemon.pid()
    );
    assert!(said.contains(&who), "{said}");
    assert!(said.contains("stop that server, import, and start it again"), "{said}");
    Ok(())
}
