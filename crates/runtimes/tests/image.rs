//! Runtime images, written by each test, mounted by the real kernel.
//!
//! Every test runs in a thread with a mount namespace of its own, as the daemon does: nothing shows
//! on the machine, and nothing stays there.

use std::env::consts::ARCH;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use backhand::{FilesystemWriter, NodeHeader};
use model::{Properties, WorkerPlatform, proto};
use runtimes::manifest::{self, Manifest};
use runtimes::{ImageError, ImageOptions, OpenError, RuntimeOptions, Runtimes};
use tempfile::TempDir;

/// Runs a test in a private mount namespace and with a directory of its own.
fn run(test: impl FnOnce(&Path) + Send + 'static) {
    let body = move || {
        sys::mount::enter_private_namespace().expect("these tests need root");
        let directory = TempDir::new().unwrap();
        test(&directory.path().canonicalize().unwrap());
    };
    if let Err(panic) = std::thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

/// An image with these files.
fn write_image(path: &Path, files: &[(&str, String)]) {
    let mut writer = FilesystemWriter::default();
    let compressor = backhand::compression::Compressor::Zstd;
    writer.set_compressor(backhand::FilesystemCompressor::new(compressor, None).unwrap());
    writer.set_root_mode(0o755);
    let header = |permissions| NodeHeader { permissions, ..NodeHeader::default() };
    for (path, content) in files {
        let parent = Path::new(path).parent().unwrap();
        writer.push_dir_all(parent, header(0o755)).unwrap();
        let content = Cursor::new(content.clone().into_bytes());
        writer.push_file(content, path, header(0o644)).unwrap();
    }
    writer.write(fs::File::create(path).unwrap()).unwrap();
}

fn manifest(change: impl FnOnce(&mut Manifest)) -> (&'static str, String) {
    let mut manifest = Manifest::new(ARCH);
    change(&mut manifest);
    (manifest::PATH, serde_json::to_string(&manifest).unwrap())
}

fn good_image(path: &Path) {
    let library = format!("{}/usr/lib/libc.so.6", manifest::libc_root("toy", ARCH));
    let hosts = "common/root/etc/hosts";
    let files = [manifest(|_| {}), (&*library, "library".to_owned()), (hosts, "hosts".to_owned())];
    write_image(path, &files);
}

fn open(file: PathBuf, mount_point: PathBuf) -> Result<Runtimes, OpenError> {
    let image = ImageOptions { file, mount_point };
    Runtimes::open(&RuntimeOptions { runtime_image: Some(image), ..RuntimeOptions::default() })
}

fn libc(name: &str) -> Properties {
    let property = proto::platform::Property { name: "libc".into(), value: name.into() };
    Properties::parse(
        Some(&proto::Platform { properties: vec![property] }),
        &WorkerPlatform::default(),
    )
    .unwrap()
}

/// The error of using the image. Nothing of it is mounted.
fn refusal(directory: &Path) -> ImageError {
    let mount_point = directory.join("mounted");
    let error = open(directory.join("image"), mount_point.clone()).unwrap_err();
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains(mount_point.to_str().unwrap()));
    match error {
        OpenError::Image(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn an_image_is_a_runtime_root() {
    run(|directory| {
        good_image(&directory.join("image"));
        let runtimes = open(directory.join("image"), directory.join("mounted")).unwrap();
        assert!(runtimes.libc_names().eq(["toy"]));
        let view = runtimes.view(&libc("toy")).unwrap();
        let lib = view.mounts.iter().find(|mount| mount.at.as_str() == "usr/lib").unwrap();
        assert!(lib.source.starts_with(directory.join("mounted")), "{}", lib.source.display());
        // As a sandbox takes it.
        let copy = sys::mount_tree::clone_read_only(&lib.source).unwrap();
        let flags = rustix::fs::OFlags::RDONLY;
        let mode = rustix::fs::Mode::empty();
        assert!(rustix::fs::openat(&copy, "libc.so.6", flags, mode).is_ok());
        let writing = rustix::fs::OFlags::WRONLY;
        assert!(rustix::fs::openat(&copy, "libc.so.6", writing, mode).is_err());
        let hosts = view.files.iter().find(|(path, _)| path.as_str() == "etc/hosts").unwrap();
        assert_eq!(hosts.1, b"hosts");
    });
}

#[test]
fn an_image_is_given_back() {
    run(|directory| {
        let (image, mount_point) = (directory.join("image"), directory.join("mounted"));
        good_image(&image);
        let runtimes = open(image.clone(), mount_point.clone()).unwrap();
        let copy = runtimes.clone();
        assert!(mount_point.join(manifest::PATH).exists());
        drop(runtimes);
        assert!(mount_point.join(manifest::PATH).exists(), "a copy still needs it");
        drop(copy);
        assert_eq!(fs::read_dir(&mount_point).unwrap().count(), 0);
        // Another process that looks at the device, as udev does, delays its end.
        while loop_devices_of(&image) > 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        open(image, mount_point).unwrap();
    });
}

/// The number of loop devices that have this file.
fn loop_devices_of(image: &Path) -> usize {
    let devices = fs::read_dir("/sys/block").unwrap();
    let backing = |device: fs::DirEntry| {
        fs::read_to_string(device.path().join("loop/backing_file")).unwrap_or_default()
    };
    let names = devices.map(|device| backing(device.unwrap()));
    names.filter(|name| Path::new(name.trim_end()) == image).count()
}

#[test]
fn what_is_no_image_is_refused() {
    run(|directory| {
        for content in [&b""[..], b"hsqs", &[0; 4096]] {
            fs::write(directory.join("image"), content).unwrap();
            assert!(matches!(refusal(directory), ImageError::NotSquashFs(_)));
        }
        fs::remove_file(directory.join("image")).unwrap();
        assert!(matches!(refusal(directory), ImageError::Read { .. }));
        fs::create_dir(directory.join("image")).unwrap();
        assert!(matches!(refusal(directory), ImageError::NotSquashFs(_)));
    });
}

#[test]
fn an_image_that_is_cut_off_is_refused() {
    run(|directory| {
        let path = directory.join("image");
        good_image(&path);
        let image = fs::read(&path).unwrap();
        fs::write(&path, &image[..200]).unwrap();
        assert!(matches!(refusal(directory), ImageError::CutOff { found: 200, .. }));
    });
}

#[test]
fn an_image_with_a_broken_inside_is_refused() {
    run(|directory| {
        let path = directory.join("image");
        good_image(&path);
        let mut image = fs::read(&path).unwrap();
        // The positions of all tables lie beyond the file.
        image[48..96].fill(0x7f);
        fs::write(&path, &image).unwrap();
        assert!(matches!(refusal(directory), ImageError::Mount { .. }));
    });
}

#[test]
fn an_image_of_something_else_is_refused() {
    run(|directory| {
        let path = directory.join("image");
        write_image(&path, &[("a/b", "c".to_owned())]);
        assert!(matches!(refusal(directory), ImageError::NoManifest { .. }));
        write_image(&path, &[(manifest::PATH, "{}".to_owned())]);
        assert!(matches!(refusal(directory), ImageError::NoManifest { .. }));
        write_image(&path, &[manifest(|manifest| manifest.format = 99)]);
        assert!(matches!(refusal(directory), ImageError::Format { found: 99, .. }));
        write_image(&path, &[manifest(|manifest| manifest.architecture = "pdp11".into())]);
        let error = refusal(directory);
        assert!(error.to_string().contains("is for pdp11"), "{error}");
    });
}

#[test]
fn a_directory_and_an_image_exclude_each_other() {
    run(|directory| {
        good_image(&directory.join("image"));
        let mount_point = directory.join("mounted");
        let image = ImageOptions { file: directory.join("image"), mount_point };
        let error = Runtimes::open(&RuntimeOptions {
            runtime_root: Some(directory.to_owned()),
            runtime_image: Some(image),
            ..RuntimeOptions::default()
        });
        assert!(matches!(error, Err(OpenError::RootAndImage)));
    });
}
