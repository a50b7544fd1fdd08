//! The store against a plain map, over random operations, ends and crashes.
//!
//! Every blob that the map has must be read back; every other one must be absent, or be right: a
//! crash of the machine may lose what was stored since it was last synced, and may bring back what was
//! deleted since then, but nothing may ever be there that is not what its digest says.
//!
//! Operations are data, made from a seed. A run that fails is shrunk: operations are left out as
//! long as it still fails, and what remains is printed with the seed. `ACTIOND_MODEL_SEEDS` is the number of
//! seeds, and `ACTIOND_MODEL_FIRST_SEED` the first one:
//!
//! ```sh
//! ACTIOND_MODEL_SEEDS=5000 cargo test -p store --test model
//! ```

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Numbers, SHA256, files, options, snapshot};
use model::Digest;
use store::{BlobPath, Deleted, Durability, Goals, Pin, PinSet, Store, StoreOptions};
use tempfile::TempDir;

/// The seeds of a run that does not say how many. Each takes a tenth of a second on an idle machine.
const SEEDS: u64 = 10;
const OPERATIONS: usize = 120;
/// Blobs are few, so that they come and go and come again.
const CONTENTS: u64 = 24;

/// One of the contents, by its number.
type Content = u64;

fn content(number: Content) -> Vec<u8> {
    let size = [3, 100, 5_000, 80_000][number as usize % 4];
    vec![number as u8; size - number as usize % 3]
}

fn digest(number: Content) -> Digest {
    Digest::of(SHA256, &content(number))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Put(Content),
    WriteInPieces(Content, usize),
    GiveUp(Content),
    Delete(Content),
    /// Keeps a blob until that number of other pins were made.
    Pin(Content),
    Evict {
        to_bytes: u64,
    },
    PutResult(Content, Content),
    DeleteResult(Content),
    Check(Content),
    FindMissing,
    /// Waits until everything is on the disk.
    Sync,
    Restart {
        in_background: bool,
        same_boot: bool,
    },
    /// SIGKILL.
    Kill {
        in_background: bool,
    },
    /// Data that is not on the disk is lost, torn or kept, by that seed.
    CutPower {
        in_background: bool,
        seed: u64,
    },
}

impl Operation {
    fn random(numbers: &mut Numbers) -> Self {
        let number = numbers.below(CONTENTS);
        let in_background = numbers.below(2) == 0;
        match numbers.below(100) {
            0..30 => Self::Put(number),
            30..38 => {
                let size = content(number).len() as u64;
                Self::WriteInPieces(number, 1 + numbers.below(size * 2) as usize)
            }
            38..42 => Self::GiveUp(number),
            42..52 => Self::Delete(number),
            52..57 => Self::Pin(number),
            57..61 => Self::Evict { to_bytes: numbers.below(1 << 20) },
            61..72 => Self::PutResult(number, numbers.below(CONTENTS)),
            72..75 => Self::DeleteResult(number),
            75..85 => Self::Check(number),
            85..88 => Self::FindMissing,
            88..92 => Self::Sync,
            92..95 => Self::Restart { in_background, same_boot: numbers.below(2) == 0 },
            95..97 => Self::Kill { in_background },
            _ => Self::CutPower { in_background, seed: 1 + numbers.below(1 << 32) },
        }
    }
}

fn operations(seed: u64) -> Vec<Operation> {
    // Seeds that follow each other would begin alike.
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..OPERATIONS).map(|_| Operation::random(&mut numbers)).collect()
}

/// A difference between the store and the map.
type Difference = String;

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}

struct Pinned(Digest);

impl PinSet for Pinned {
    fn contains(&self, digest: &Digest) -> bool {
        *digest == self.0
    }
}

/// The store, and what it should hold.
struct World {
    root: TempDir,
    store: Option<Arc<Store>>,
    boots: u32,
    blobs: BTreeSet<Content>,
    /// The value of each action.
    results: BTreeMap<Content, Content>,
    pins: Vec<(Content, Pin)>,
    /// Data that a loss of power can't take: the blobs and results of the last sync that are still there.
    synced: BTreeSet<PathBuf>,
    /// The blobs that were deleted since the last sync, and were there then.
    unlinked: BTreeSet<Content>,
}

impl World {
    fn new() -> Self {
        Self {
            root: common::temp_dir(),
            store: None,
            boots: 0,
            blobs: BTreeSet::new(),
            results: BTreeMap::new(),
            pins: Vec::new(),
            synced: BTreeSet::new(),
            unlinked: BTreeSet::new(),
        }
    }

    fn start(&mut self, in_background: bool) -> Result<(), Difference> {
        let boot_id = format!("aaaaaaaa-{:04}", self.boots);
        let options = StoreOptions {
            opens_in_background: in_background,
            durability: Durability::Group,
            ..options(&boot_id)
        };
        let store = Store::open(self.root.path(), options);
        self.store = Some(store.map_err(|error| format!("the store does not open: {error}"))?);
        Ok(())
    }

    fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().expect("a store is open"))
    }

    fn stop(&mut self) {
        self.pins.clear();
        self.store = None;
    }

    fn apply(&mut self, operation: Operation) -> Result<(), Difference> {
        match operation {
            Operation::Put(number) => {
                let stored = self.store().cas().put(SHA256, &content(number));
                ensure!(stored.is_ok_and(|it| it == digest(number)), "{number} is not stored");
                self.add(number);
            }
            Operation::WriteInPieces(number, piece) => {
                let mut writer = self.store().cas().writer(SHA256, Some(digest(number)));
                for piece in content(number).chunks(piece) {
                    writer.write(piece).map_err(|error| error.to_string())?;
                }
                writer.commit().map_err(|error| error.to_string())?;
                self.add(number);
            }
            Operation::GiveUp(number) => {
                let mut writer = self.store().cas().writer(SHA256, None);
                writer.write(&content(number)).map_err(|error| error.to_string())?;
            }
            Operation::Delete(number) => self.delete(number)?,
            Operation::Pin(number) => {
                let pin = self.store().cas().pin(Arc::new(Pinned(digest(number))));
                self.pins.push((number, pin));
                if self.pins.len() > 3 {
                    drop(self.pins.remove(0));
                }
            }
            Operation::Evict { to_bytes } => self.evict(to_bytes)?,
            Operation::PutResult(action, value) => {
                let cache = self.store().action_cache().clone();
                let stored = cache.put("", &digest(action), &content(value));
                ensure!(stored.is_ok(), "the result of {action} is not stored");
                self.results.insert(action, value);
                // An entry that replaces another one is not on the disk before the next sync.
                self.synced.retain(|path| !is_of(path, action, "ac"));
            }
            Operation::DeleteResult(action) => {
                let deleted = self.store().action_cache().delete("", &digest(action));
                let expected = self.results.remove(&action).is_some();
                ensure!(deleted.is_ok_and(|it| it == expected), "the result of {action}");
                self.synced.retain(|path| !is_of(path, action, "ac"));
            }
            Operation::Check(number) => self.check(number)?,
            Operation::FindMissing => {
                let digests: Vec<_> = (0..CONTENTS).map(digest).collect();
                let missing = self.store().cas().missing(&digests);
                let absent = (0..CONTENTS).filter(|number| !self.blobs.contains(number));
                ensure!(
                    missing == absent.map(digest).collect::<Vec<_>>(),
                    "other blobs are missing"
                );
            }
            Operation::Sync => {
                ensure!(self.store().make_durable().is_ok(), "the sync failed");
                self.note_synced();
            }
            Operation::Restart { in_background, same_boot } => {
                self.stop();
                self.boots += u32::from(!same_boot);
                // An end in order brings everything to the disk.
                self.note_synced();
                self.start(in_background)?;
                self.check_all()?;
            }
            Operation::Kill { in_background } => {
                self.leave_as_it_is();
                self.start(in_background)?;
                self.check_all()?;
            }
            Operation::CutPower { in_background, seed } => self.cut_power(in_background, seed)?,
        }
        Ok(())
    }

    fn add(&mut self, number: Content) {
        self.blobs.insert(number);
    }

    /// The blob is not there any more.
    fn remove(&mut self, number: Content) {
        self.blobs.remove(&number);
        let before = self.synced.len();
        self.synced.retain(|path| !is_of(path, number, "cas"));
        if self.synced.len() < before {
            self.unlinked.insert(number);
        }
    }

    fn delete(&mut self, number: Content) -> Result<(), Difference> {
        let is_pinned = self.pins.iter().any(|(pinned, _)| *pinned == number);
        let expected = match (is_pinned, self.blobs.contains(&number)) {
            (true, _) => Deleted::Pinned,
            (false, true) => Deleted::Gone,
            (false, false) => Deleted::Absent,
        };
        let deleted = self.store().cas().delete(&digest(number)).map_err(|e| e.to_string())?;
        ensure!(deleted == expected, "deleting {number}: {deleted:?}, and not {expected:?}");
        if expected == Deleted::Gone {
            self.remove(number);
        }
        Ok(())
    }

    fn evict(&mut self, to_bytes: u64) -> Result<(), Difference> {
        let store = self.store();
        let goals = Goals { used_bytes_max: Some(to_bytes), ..Goals::default() };
        let collected = store.collect_garbage(goals, |_| ControlFlow::Continue(()));
        let used = collected.map_err(|error| error.to_string())?.used_bytes;
        let gone: Vec<_> = self.blobs.iter().copied().filter(|n| self.is_gone(*n)).collect();
        for number in gone {
            let is_pinned = self.pins.iter().any(|(pinned, _)| *pinned == number);
            ensure!(!is_pinned, "{number} was evicted and is pinned");
            self.remove(number);
        }
        let has_unpinned =
            self.blobs.iter().any(|it| self.pins.iter().all(|(pinned, _)| pinned != it));
        ensure!(used <= to_bytes || !has_unpinned, "{used} bytes are used, and not {to_bytes}");
        let cache = store.action_cache();
        let is_there = |action| cache.get("", &digest(action)).is_ok_and(|found| found.is_some());
        let lost: Vec<_> = self.results.keys().copied().filter(|it| !is_there(*it)).collect();
        for action in lost {
            self.results.remove(&action);
            self.synced.retain(|path| !is_of(path, action, "ac"));
        }
        Ok(())
    }

    fn is_gone(&self, number: Content) -> bool {
        let path = self.store().cas().blobs_path().join(BlobPath::new(&digest(number)).as_str());
        !path.exists()
    }

    fn check(&self, number: Content) -> Result<(), Difference> {
        let (store, digest) = (self.store(), digest(number));
        let is_expected = self.blobs.contains(&number);
        let is_there = store.cas().contains(&digest);
        ensure!(is_there == is_expected, "{number}: there {is_there}, expected {is_expected}");
        let read = store.cas().read(&digest).map_err(|error| error.to_string())?;
        let expected = is_expected.then(|| content(number));
        ensure!(read.as_deref() == expected.as_deref(), "{number} is read as something else");
        let result = store.action_cache().get("", &digest).map_err(|error| error.to_string())?;
        let expected = self.results.get(&number).map(|value| content(*value));
        ensure!(result.as_deref() == expected.as_deref(), "the result of {number} is another one");
        Ok(())
    }

    fn check_all(&self) -> Result<(), Difference> {
        (0..CONTENTS).try_for_each(|number| self.check(number))?;
        while !self.store().is_open() {
            std::thread::yield_now();
        }
        let stats = self.store().stats();
        let expected = self.blobs.len() as u64 + 2;
        ensure!(stats.blobs == expected, "{} blobs, and not {expected}", stats.blobs);
        let bytes: usize = self.blobs.iter().map(|number| content(*number).len()).sum();
        ensure!(stats.bytes == bytes as u64, "{} bytes, and not {bytes}", stats.bytes);
        Ok(())
    }

    fn note_synced(&mut self) {
        self.unlinked.clear();
        let root = self.root.path();
        let relative = |path: PathBuf| path.strip_prefix(root).expect("below it").to_owned();
        let found = ["cas/blobs", "ac"].map(|directory| files(&root.join(directory)));
        self.synced = found.into_iter().flatten().map(relative).collect();
    }

    /// Goes on with a copy that was made while the server ran: what a SIGKILL leaves.
    fn leave_as_it_is(&mut self) {
        let left = snapshot(self.root.path());
        self.stop();
        self.root = left;
    }

    fn cut_power(&mut self, in_background: bool, seed: u64) -> Result<(), Difference> {
        self.leave_as_it_is();
        self.boots += 1;
        let mut numbers = Numbers(seed);
        let root = self.root.path();
        for directory in ["cas/blobs", "ac"] {
            for file in files(&root.join(directory)) {
                if !self.synced.contains(file.strip_prefix(root).expect("below it")) {
                    maybe_tear(&file, &mut numbers);
                }
            }
        }
        // The index is not synced by itself.
        if root.join("index").exists() {
            maybe_tear(&root.join("index"), &mut numbers);
        }
        for number in self.unlinked.iter().filter(|_| numbers.below(2) == 0) {
            let path = root.join("cas/blobs").join(BlobPath::new(&digest(*number)).as_str());
            if !path.exists() {
                write(&path, &content(*number));
            }
        }
        self.start(in_background)?;
        let store = self.store();
        let must_stay = |number: Content, directory: &str| {
            self.synced.iter().any(|path| is_of(path, number, directory))
        };
        // Torn blobs are gone. The remaining ones must be right, which `check_all` checks.
        for number in 0..CONTENTS {
            let is_there = store.cas().contains(&digest(number));
            ensure!(is_there || !must_stay(number, "cas"), "{number} was synced and is lost");
            ensure!(
                !is_there || self.blobs.contains(&number) || self.unlinked.contains(&number),
                "{number} came from nowhere"
            );
            if is_there {
                self.blobs.insert(number);
            } else {
                self.blobs.remove(&number);
            }
            let result = store.action_cache().get("", &digest(number));
            let is_there = result.map_err(|error| error.to_string())?.is_some();
            ensure!(is_there || !must_stay(number, "ac"), "the result of {number} is lost");
            if !is_there {
                self.results.remove(&number);
            }
        }
        self.check_all()?;
        // Everything that is there now was verified on the disk.
        self.note_synced();
        Ok(())
    }
}

/// Whether a path below the root is that of a blob, or of the result of the action of that number.
fn is_of(path: &Path, number: Content, directory: &str) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    path.starts_with(directory) && name.starts_with(&digest(number).hex().to_string())
}

fn maybe_tear(file: &Path, numbers: &mut Numbers) {
    let mut content = fs::read(file).expect("a file");
    if content.is_empty() {
        return;
    }
    let at = numbers.below(content.len() as u64) as usize;
    match numbers.below(8) {
        0 => content.truncate(at),
        1 => content[at..].fill(0xaa),
        2 => content[at..].fill(0),
        3 => content.clear(),
        4 => return fs::remove_file(file).expect("removed"),
        _ => return,
    }
    write(file, &content);
}

fn write(file: &Path, content: &[u8]) {
    if file.exists() {
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("chmod");
    }
    fs::write(file, content).expect("written");
}

/// Runs operations on a new store.
fn run(operations: &[Operation]) -> Result<(), Difference> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new();
        world.start(false)?;
        for (number, operation) in operations.iter().enumerate() {
            world.apply(*operation).map_err(|it| format!("{number}, {operation:?}: {it}"))?;
        }
        world.check_all()
    }));
    ran.unwrap_or_else(|_| Err("a panic".to_owned()))
}

/// The operations that are left when none of them, and no run of them, can be left out without
/// `fails` becoming false: delta debugging.
fn shrink<T: Clone>(mut operations: Vec<T>, fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut length = operations.len().div_ceil(2);
    loop {
        let (before, mut at) = (operations.len(), 0);
        while at < operations.len() {
            let mut fewer = operations.clone();
            fewer.drain(at..operations.len().min(at + length));
            if fails(&fewer) {
                operations = fewer;
            } else {
                at += length;
            }
        }
        if length <= 1 && operations.len() == before {
            return operations;
        }
        length = (length / 2).max(1);
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn the_store_does_what_a_plain_map_does() {
    let seeds = variable("ACTIOND_MODEL_SEEDS").unwrap_or(SEEDS);
    let first = variable("ACTIOND_MODEL_FIRST_SEED").unwrap_or(1);
    for seed in first..first + seeds {
        let operations = operations(seed);
        if let Err(difference) = run(&operations) {
            let fewest = shrink(operations, |operations| run(operations).is_err());
            let last = run(&fewest).err();
            panic!(
                "ACTIOND_MODEL_FIRST_SEED={seed}: {difference}\nwith the fewest operations: \
                 {last:?}\n{fewest:#?}"
            );
        }
    }
}

#[test]
fn a_failure_is_shrunk_to_what_it_needs() {
    let operations: Vec<u32> = (0..100).collect();
    let fails = |left: &[u32]| left.contains(&17) && left.contains(&18) && left.contains(&90);
    assert_eq!(shrink(operations, fails), [17, 18, 90]);
    assert_eq!(shrink(vec![1, 2, 3], |_| true), Vec::<i32>::new());
}
