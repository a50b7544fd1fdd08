//! The store, and what it should hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use model::Digest;
use tempfile::TempDir;

use super::operation::{CONTENTS, Content, FUNCTION, Operation, content, digest};
use super::roots::{Numbers, files, temp_dir};
use crate::disk::faults::{Counted, Fault, arm};
use crate::{BlobPath, Deleted, Durability, Goals, Pin, PinSet, Store, StoreOptions};

/// A difference between the store and the map.
pub(super) type Difference = String;

struct Pinned(Digest);

impl PinSet for Pinned {
    fn contains(&self, digest: &Digest) -> bool {
        *digest == self.0
    }
}

/// The store, and what it should hold.
pub(super) struct World {
    pub(super) root: TempDir,
    pub(super) store: Option<Arc<Store>>,
    pub(super) boots: u32,
    pub(super) blobs: BTreeSet<Content>,
    /// The value of each action.
    pub(super) results: BTreeMap<Content, Content>,
    pub(super) pins: Vec<(Content, Pin)>,
    /// Data that a loss of power can't take: the blobs and results of the last sync that are still there.
    pub(super) synced: BTreeSet<PathBuf>,
    /// The blobs that were deleted since the last sync, and were there then.
    pub(super) unlinked: BTreeSet<Content>,
    /// A sync has failed since the start, so that no other one succeeds.
    pub(super) is_suspect: bool,
    /// The calls that failed.
    pub(super) met: BTreeSet<&'static str>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            root: temp_dir(),
            store: None,
            boots: 0,
            blobs: BTreeSet::new(),
            results: BTreeMap::new(),
            pins: Vec::new(),
            synced: BTreeSet::new(),
            unlinked: BTreeSet::new(),
            is_suspect: false,
            met: BTreeSet::new(),
        }
    }

    pub(super) fn start(&mut self, in_background: bool) -> Result<(), Difference> {
        let boot_id = format!("aaaaaaaa-{:04}", self.boots);
        let options = StoreOptions {
            opens_in_background: in_background,
            durability: Durability::Group,
            // It makes no checkpoint by itself.
            checkpoint_interval: Duration::from_secs(3600),
            boot_id: Some(boot_id),
            ..StoreOptions::default()
        };
        let store = Store::open(self.root.path(), options);
        let failed = |error| format!("the store does not open: {}", model::Chain(&error));
        self.store = Some(store.map_err(failed)?);
        self.is_suspect = false;
        Ok(())
    }

    pub(super) fn store(&self) -> Arc<Store> {
        Arc::clone(self.store.as_ref().expect("a store is open"))
    }

    pub(super) fn stop(&mut self) {
        self.pins.clear();
        self.store = None;
    }

    pub(super) fn apply(&mut self, operation: Operation) -> Result<(), Difference> {
        match operation {
            Operation::Put(number) => {
                let stored = self.store().cas().put(FUNCTION, &content(number));
                ensure!(stored.is_ok_and(|it| it == digest(number)), "{number} is not stored");
                self.add(number);
            }
            Operation::WriteInPieces(number, piece) => {
                let mut writer = self.store().cas().writer(FUNCTION, Some(digest(number)));
                for piece in content(number).chunks(piece) {
                    writer.write(piece).map_err(|error| error.to_string())?;
                }
                writer.commit().map_err(|error| error.to_string())?;
                self.add(number);
            }
            Operation::GiveUp(number) => {
                let mut writer = self.store().cas().writer(FUNCTION, None);
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
            Operation::Sync if self.is_suspect => {
                ensure!(self.store().make_durable().is_err(), "a sync succeeded after one failed");
            }
            Operation::Sync => {
                ensure!(self.store().make_durable().is_ok(), "the sync failed");
                self.note_synced();
            }
            Operation::Restart { in_background, same_boot } => {
                self.stop();
                self.boots += u32::from(!same_boot);
                self.start(in_background)?;
                self.check_all()?;
                // An end in order brings everything to the disk, and so does a start after another end.
                self.note_synced();
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

    pub(super) fn add(&mut self, number: Content) {
        self.blobs.insert(number);
    }

    /// The blob is not there any more.
    pub(super) fn remove(&mut self, number: Content) {
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

    pub(super) fn is_gone(&self, number: Content) -> bool {
        let path = self.store().cas().blobs_path().join(BlobPath::new(&digest(number)).as_str());
        !path.exists()
    }

    pub(super) fn check(&self, number: Content) -> Result<(), Difference> {
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

    pub(super) fn check_all(&self) -> Result<(), Difference> {
        (0..CONTENTS).try_for_each(|number| self.check(number))?;
        while !self.store().is_open() {
            std::thread::yield_now();
        }
        let stats = self.store().stats();
        // And the empty one.
        let expected = self.blobs.len() as u64 + 1;
        ensure!(stats.blobs == expected, "{} blobs, and not {expected}", stats.blobs);
        let bytes: usize = self.blobs.iter().map(|number| content(*number).len()).sum();
        ensure!(stats.bytes == bytes as u64, "{} bytes, and not {bytes}", stats.bytes);
        Ok(())
    }

    pub(super) fn note_synced(&mut self) {
        self.unlinked.clear();
        let root = self.root.path();
        let relative = |path: PathBuf| path.strip_prefix(root).expect("below it").to_owned();
        let found = ["cas/blobs", "ac"].map(|directory| files_below(&root.join(directory)));
        self.synced = found.into_iter().flatten().map(relative).collect();
    }

    /// Ends the store without a change of the disk from here on: as a SIGKILL does.
    pub(super) fn leave_as_it_is(&mut self) {
        let _dead = arm(self.root.path(), Counted::All, 0, Fault::Dies, Box::new(|| ()));
        self.stop();
    }

    fn cut_power(&mut self, in_background: bool, seed: u64) -> Result<(), Difference> {
        self.leave_as_it_is();
        self.lose_power(seed);
        self.start(in_background)?;
        self.check_after_cut()
    }

    /// Takes from the disk what a loss of power may take.
    pub(super) fn lose_power(&mut self, seed: u64) {
        self.boots += 1;
        let mut numbers = Numbers(seed);
        let root = self.root.path();
        tear_unsynced(root, &self.synced, &mut numbers);
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
    }

    /// Whether a loss of power can't have taken it.
    pub(super) fn must_stay(&self, number: Content, directory: &str) -> bool {
        self.synced.iter().any(|path| is_of(path, number, directory))
    }

    fn check_after_cut(&mut self) -> Result<(), Difference> {
        let store = self.store();
        // Torn blobs are gone. The remaining ones must be right, which `check_all` checks.
        for number in 0..CONTENTS {
            let is_there = store.cas().contains(&digest(number));
            ensure!(is_there || !self.must_stay(number, "cas"), "{number} was synced and is lost");
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
            ensure!(is_there || !self.must_stay(number, "ac"), "the result of {number} is lost");
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

/// Tears, loses or keeps every blob and result below a root that is not among the synced ones.
pub(super) fn tear_unsynced(root: &Path, synced: &BTreeSet<PathBuf>, numbers: &mut Numbers) {
    for directory in ["cas/blobs", "ac"] {
        for file in files_below(&root.join(directory)) {
            if !synced.contains(file.strip_prefix(root).expect("below it")) {
                maybe_tear(&file, numbers);
            }
        }
    }
}

/// The blobs or results below their directory. Those of all contents are in a tenth of the directories there, and looking
/// into each takes much of the test's time.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let folder = |number| {
        let path = directory.join(BlobPath::new(&digest(number)).as_str());
        path.parent().expect("it has a folder").to_owned()
    };
    let folders: BTreeSet<_> = (0..CONTENTS).map(folder).collect();
    folders.iter().flat_map(|folder| files(folder)).collect()
}

/// Whether a path below the root is that of a blob, or of the result of the action of that number.
pub(super) fn is_of(path: &Path, number: Content, directory: &str) -> bool {
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
