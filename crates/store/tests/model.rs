//! The store against a plain map, over random operations, ends and crashes.
//!
//! Every blob that the map has must be read back; every other one must be absent, or be right: a
//! crash of the machine may lose what was stored since the last checkpoint, but nothing may ever
//! be there that is not what its digest says.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use common::{Numbers, SHA256, files, options, snapshot};
use model::Digest;
use store::{Deleted, PinSet, Store, StoreOptions};
use tempfile::TempDir;

struct Pinned(Digest);

impl PinSet for Pinned {
    fn contains(&self, digest: &Digest) -> bool {
        *digest == self.0
    }
}

/// The store, and what it should hold.
struct World {
    numbers: Numbers,
    root: TempDir,
    store: Option<Arc<Store>>,
    boots: u32,
    blobs: BTreeMap<Digest, Vec<u8>>,
    results: BTreeMap<Digest, Vec<u8>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            numbers: Numbers(seed),
            root: common::temp_dir(),
            store: None,
            boots: 0,
            blobs: BTreeMap::new(),
            results: BTreeMap::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let boot_id = format!("aaaaaaaa-{:04}", self.boots);
        let opens_in_background = self.numbers.below(2) == 0;
        let options = StoreOptions { opens_in_background, ..options(&boot_id) };
        let store = Store::open(self.root.path(), options);
        self.store = Some(store.expect("the store opens"));
    }

    fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().expect("a store is open"))
    }

    /// One of few contents, so that blobs come and go and come again.
    fn content(&mut self) -> Vec<u8> {
        let number = self.numbers.below(24);
        let size = [3, 100, 5_000, 80_000][number as usize % 4];
        let mut content = vec![number as u8; size];
        content.truncate(size - number as usize % 3);
        content
    }

    fn step(&mut self) {
        match self.numbers.below(100) {
            0..35 => self.upload(),
            35..45 => self.write_in_pieces(),
            45..60 => self.delete(),
            60..75 => self.put_result(),
            75..90 => self.check_one(),
            90..94 => self.give_up(),
            94..97 => self.restart(),
            97..99 => self.kill(),
            _ => self.crash_machine(),
        }
    }

    fn upload(&mut self) {
        let content = self.content();
        let digest = self.store().cas().put(SHA256, &content).expect("stored");
        self.blobs.insert(digest, content);
    }

    fn write_in_pieces(&mut self) {
        let content = self.content();
        let digest = Digest::of(SHA256, &content);
        let mut writer = self.store().cas().writer(SHA256, Some(digest));
        let piece = 1 + self.numbers.below(content.len() as u64 * 2) as usize;
        for piece in content.chunks(piece) {
            writer.write(piece).expect("written");
        }
        writer.commit().expect("stored");
        self.blobs.insert(digest, content);
    }

    fn give_up(&mut self) {
        let content = self.content();
        let mut writer = self.store().cas().writer(SHA256, None);
        writer.write(&content).expect("written");
    }

    fn delete(&mut self) {
        let digest = Digest::of(SHA256, &self.content());
        let cas = self.store().cas().clone();
        let _pin = (self.numbers.below(4) == 0).then(|| cas.pin(Arc::new(Pinned(digest))));
        let expected = match (_pin.is_some(), self.blobs.contains_key(&digest)) {
            (true, _) => Deleted::Pinned,
            (false, true) => Deleted::Gone,
            (false, false) => Deleted::Absent,
        };
        assert_eq!(cas.delete(&digest).expect("asked"), expected);
        if expected == Deleted::Gone {
            self.blobs.remove(&digest);
        }
    }

    fn put_result(&mut self) {
        let action = Digest::of(SHA256, &self.content());
        let value = self.content();
        let store = self.store();
        if self.numbers.below(5) == 0 {
            let deleted = store.action_cache().delete("", &action).expect("asked");
            assert_eq!(deleted, self.results.remove(&action).is_some());
        } else {
            store.action_cache().put("", &action, &value).expect("stored");
            self.results.insert(action, value);
        }
    }

    fn check_one(&mut self) {
        let digest = Digest::of(SHA256, &self.content());
        self.check(&digest);
    }

    fn check(&self, digest: &Digest) {
        let store = self.store();
        let expected = self.blobs.get(digest);
        assert_eq!(store.cas().contains(digest), expected.is_some());
        let read = store.cas().read(digest).expect("read");
        assert!(read.as_deref() == expected.map(Vec::as_slice), "{digest}");
        let result = store.action_cache().get("", digest).expect("read");
        let expected = self.results.get(digest).map(Vec::as_slice);
        assert!(result.as_deref() == expected, "{digest}");
    }

    fn check_all(&self) {
        for (digest, content) in self.blobs.iter().chain(&self.results) {
            self.check(digest);
            self.check(&Digest::of(SHA256, content));
        }
        while !self.store().is_open() {
            std::thread::yield_now();
        }
        let stats = self.store().stats();
        assert_eq!(stats.blobs, self.blobs.len() as u64 + 2, "and the empty ones");
        let bytes: usize = self.blobs.values().map(Vec::len).sum();
        assert_eq!(stats.bytes, bytes as u64);
    }

    fn restart(&mut self) {
        self.store = None;
        self.boots += self.numbers.below(2) as u32;
        self.start();
        self.check_all();
    }

    /// Goes on with a copy that was made while the server ran: what a SIGKILL leaves.
    fn kill(&mut self) {
        let left = snapshot(self.root.path());
        self.store = None;
        self.root = left;
        self.start();
        self.check_all();
    }

    /// As a kill, and some files did not reach the disk, or only in part.
    fn crash_machine(&mut self) {
        let left = snapshot(self.root.path());
        self.store = None;
        self.root = left;
        self.boots += 1;
        for directory in ["cas/blobs", "ac"] {
            for file in files(&self.root.path().join(directory)) {
                self.maybe_tear(&file);
            }
        }
        self.start();
        let store = self.store();
        // Torn blobs are gone. The remaining blobs must be right, which `check_all` checks.
        self.blobs.retain(|digest, _| store.cas().contains(digest));
        self.results.retain(|action, _| {
            let found = store.action_cache().get("", action).expect("read");
            found.is_some()
        });
        self.check_all();
    }

    fn maybe_tear(&mut self, file: &std::path::Path) {
        let mut content = fs::read(file).expect("a file");
        if content.is_empty() {
            return;
        }
        let at = self.numbers.below(content.len() as u64) as usize;
        match self.numbers.below(8) {
            0 => content.truncate(at),
            1 => content[at..].fill(0xaa),
            2 => content.clear(),
            3 => return fs::remove_file(file).expect("removed"),
            _ => return,
        }
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("chmod");
        fs::write(file, content).expect("written");
    }
}

#[test]
fn the_store_does_what_a_plain_map_does() {
    for seed in [1, 42, 20_261_120] {
        let mut world = World::new(seed);
        for _ in 0..400 {
            world.step();
        }
        world.check_all();
    }
}
