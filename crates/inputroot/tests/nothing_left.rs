//! When a strategy is gone, so is everything that it made: mounts, loop devices, files.
//!
//! In a process of its own, because the mounts and loop devices of other tests would be counted.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inputroot::{InputRoots, PresentRequest, StrategyName, choose, probe};
use model::InputTree;
use rustix::fs::{Mode, OFlags};
use store::{Store, StoreOptions};

#[path = "support/tree.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod tree_fixture;

/// Everything of the host that an input root could leave a trace in.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: String,
    loop_devices: Vec<String>,
    descriptors: usize,
    files: Vec<String>,
}

impl Traces {
    fn of(store: &Store) -> Self {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        let mut files = Vec::new();
        list(store.work_dir(), &mut files);
        files.sort();
        Self {
            mounts,
            loop_devices: loop_devices(),
            descriptors: fs::read_dir("/proc/self/fd").expect("descriptors").count(),
            files,
        }
    }
}

/// The loop devices that carry an image.
fn loop_devices() -> Vec<String> {
    let devices = fs::read_dir("/sys/block").expect("block devices").flatten();
    let backing = devices.filter_map(|device| {
        let backing = fs::read_to_string(device.path().join("loop/backing_file")).ok()?;
        backing.contains("input root image").then_some(backing)
    });
    backing.collect()
}

fn list(directory: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        files.push(entry.path().to_string_lossy().into_owned());
        if entry.file_type().expect("a type").is_dir() {
            list(&entry.path(), files);
        }
    }
}

fn tree(store: &Store, number: usize) -> Arc<InputTree> {
    let fixture = (0..20).fold(tree_fixture::TreeFixture::new(), |tree, file| {
        let content = format!("{number}/{file}");
        tree.file(&format!("d{}/f{file}", file % 3), content.as_bytes())
    });
    let (tree, blobs) = fixture.executable("tool", b"#!/bin/sh\n").build();
    for (digest, content) in blobs {
        store.cas().put_expected(&digest, &content).expect("the blob can be stored");
    }
    tree
}

fn use_it(strategy: &dyn InputRoots, store: &Store) {
    for number in 0..12 {
        let tree = tree(store, number % 5);
        let request = PresentRequest { mutable: number % 3 == 0, ..PresentRequest::default() };
        let presented = strategy.present(&tree, &request).expect("the tree can be presented");
        let inputroot::Attachment::Mount(mount) = presented.attachment();
        let input = rustix::fs::openat(mount, "d1/f1", OFlags::RDONLY, Mode::empty());
        input.expect("an input can be opened");
        let flags = OFlags::CREATE | OFlags::WRONLY;
        rustix::fs::openat(mount, "d1/out", flags, Mode::RUSR).expect("an output can be made");
        if number % 2 == 0 {
            presented.discard();
        } else {
            drop(presented);
        }
    }
}

/// Descriptors are closed and loop devices cleared by the kernel in its own time.
fn settled(store: &Store, expected: &Traces) -> Traces {
    const PATIENCE: Duration = Duration::from_secs(300);
    const PAUSE: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + PATIENCE;
    let mut traces = Traces::of(store);
    while traces != *expected && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
        traces = Traces::of(store);
    }
    traces
}

/// One test after the other: each would see the descriptors of the other. In a mount namespace that no
/// other process changes.
#[test]
fn nothing_is_left() {
    sys::mount::enter_private_namespace().expect("these tests need root");
    strategies_leave_nothing();
    the_probe_leaves_nothing();
}

/// The store at `root`, as it is when a server before it has closed it and it knows all of its files.
fn open(root: &Path) -> Arc<Store> {
    let mut store = None;
    for _ in 0..2 {
        drop(store.take());
        let opened = Store::open(root, StoreOptions::default()).expect("the store opens");
        while !opened.is_open() {
            std::thread::sleep(Duration::from_millis(1));
        }
        store = Some(opened);
    }
    store.expect("it was opened twice")
}

fn strategies_leave_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for name in StrategyName::ALL {
        let root = directory.path().join(name.as_str());
        let store = open(&root);
        let before = Traces::of(&store);

        let strategy = match choose(&store, Some(name)) {
            Ok(strategy) => strategy,
            Err(error) => {
                eprintln!("SKIPPED: {name}: {error}");
                continue;
            }
        };
        assert_eq!(strategy.name(), name.as_str());
        use_it(&*strategy, &store);
        let during = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
        assert_eq!(during, before.mounts, "{name} shows a mount to the host");
        drop(strategy);

        // The directories that are kept for the next actions go when the store is opened again.
        drop(store);
        let store = open(&root);
        assert_eq!(settled(&store, &before), before, "{name} leaves something behind");
    }
}

fn the_probe_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("store");
    let store = open(&root);
    let before = Traces::of(&store);
    let reports = probe(&store);
    let names: Vec<_> = reports.iter().map(|report| report.name).collect();
    assert_eq!(names, StrategyName::ALL);
    let works = reports.iter().filter(|report| report.outcome.is_ok()).count();
    assert!(works > 0, "{reports:?}");
    assert_eq!(settled(&store, &before), before);
}
