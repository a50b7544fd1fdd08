//! The cost of an input root by stage. This is not a test: it asserts nothing and is run by hand.
//!
//! `cargo test --release -p inputroot -- --ignored --nocapture measure`
//!
//! The state lies on a journaled ext4 of its own, made on a loop device: what a staging directory
//! costs depends on the file system more than on anything else.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::InputTree;
use sys::mount::{FsContext, MountAttributes, descriptor_path};
use tempfile::TempDir;

use crate::access::Access;
use crate::erofs;
use crate::mounts::Dialect;
use crate::strategies::{Backing, ErofsOverlay, ImageWriter, InputRoots, Places, PresentRequest};
use crate::tree_fixture::TreeFixture;

const ROUNDS: usize = 300;

/// A journaled ext4 in a sparse file, mounted for this process only.
struct JournaledState {
    mount: OwnedFd,
    _image: TempDir,
}

impl JournaledState {
    fn make() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("ext4");
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.expect("creating the image");
        file.set_len(4 << 30).expect("truncate");
        let mut mkfs = Command::new("mkfs.ext4");
        mkfs.args(["-q", "-F", "-E", "lazy_itable_init=0"]).arg(&path).stdout(Stdio::null());
        assert!(mkfs.status().expect("mkfs.ext4 runs").success());
        let losetup = Command::new("losetup").args(["--find", "--show"]).arg(&path).output();
        let device = String::from_utf8(losetup.expect("losetup runs").stdout).expect("a path");
        let ext4 = FsContext::open("ext4").expect("ext4");
        ext4.string("source", device.trim()).expect("source");
        let mount = ext4.mount(MountAttributes::MOUNT_ATTR_NOATIME).expect("mounting ext4");
        // Takes effect when the mount is gone.
        let detached = Command::new("losetup").args(["--detach", device.trim()]).status();
        assert!(detached.expect("losetup runs").success());
        Self { mount, _image: directory }
    }
}

/// `files` inputs in `directories` directories.
fn tree(files: usize, directories: usize) -> Arc<InputTree> {
    let fixture = (0..files).fold(TreeFixture::new(), |tree, number| {
        let directory = number % directories;
        tree.file(&format!("dir-{directory:04}/file-{number:06}.h"), &number.to_le_bytes())
    });
    fixture.build().0
}

/// The median of some times.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The median time of `what`.
fn time(rounds: usize, mut what: impl FnMut()) -> Duration {
    let round = |_| {
        let start = Instant::now();
        what();
        start.elapsed()
    };
    median((0..rounds).map(round).collect())
}

fn row(name: &str, time: Duration) {
    println!("  {name:<34} {:>9.1} µs", time.as_nanos() as f64 / 1000.0);
}

#[test]
#[ignore = "a measurement, run by hand"]
fn measure() {
    let state = JournaledState::make();
    let base = PathBuf::from(descriptor_path(&state.mount));
    // Nothing is opened, so no blob is needed.
    let blobs = base.join("blobs");
    std::fs::create_dir(&blobs).expect("mkdir");
    for (number, (files, directories)) in
        [(1, 1), (1_000, 50), (10_000, 200), (100_000, 1000)].into_iter().enumerate()
    {
        println!("{files} files in {directories} directories");
        let tree = tree(files, directories);
        images(&tree, &state.mount);
        let work = base.join(number.to_string());
        std::fs::create_dir(&work).expect("mkdir");
        roots(&tree, &Places { work, blobs: blobs.clone() });
    }
}

fn images(tree: &InputTree, state: &OwnedFd) {
    let rounds = if tree.file_count() > 10_000 { 10 } else { ROUNDS };
    let mut image = Vec::new();
    let build = time(rounds, || erofs::build(tree, Access::Strict, &mut image).expect("an image"));
    row("build the image", build);
    for (name, backing) in [("file", Backing::File), ("loop device", Backing::Loop)] {
        let writer = ImageWriter::new(backing, state.try_clone().expect("dup"));
        let (mut write, mut mount, mut close) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let start = Instant::now();
            let (stored, _) = writer.store(tree, Access::Strict).expect("storing the image");
            let written = Instant::now();
            let mounted = stored.mount().expect("mounting the image");
            let done = Instant::now();
            drop((stored, mounted));
            write.push(written - start);
            mount.push(done - written);
            close.push(done.elapsed());
        }
        row(&format!("build and store it, {name}"), median(write));
        row(&format!("mount it, {name}"), median(mount));
        row(&format!("close it, {name}"), median(close));
    }
}

fn roots(tree: &Arc<InputTree>, places: &Places) {
    let strategy =
        ErofsOverlay::open("measured", Backing::File, Dialect::Descriptors, places).expect("open");
    for mutable in [false, true] {
        let request = PresentRequest { mutable, ..PresentRequest::default() };
        let mut presented = Vec::new();
        let mut discarded = Vec::new();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let root = strategy.present(tree, &request).expect("present");
            presented.push(start.elapsed());
            let start = Instant::now();
            root.discard();
            discarded.push(start.elapsed());
            // The work of the janitor is measured below.
            std::thread::sleep(Duration::from_millis(2));
        }
        let mode = if mutable { "mutable" } else { "strict" };
        row(&format!("present, {mode}, first"), presented[0]);
        row(&format!("present, {mode}, after that"), median(presented));
        row(&format!("discard, {mode}, until handed over"), median(discarded));
        let start = Instant::now();
        for _ in 0..ROUNDS {
            strategy.present(tree, &request).expect("present").discard();
        }
        row(&format!("whole cycle, {mode}, back to back"), start.elapsed() / ROUNDS as u32);
    }
}
