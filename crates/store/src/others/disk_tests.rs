//! Room for others on real file systems that are full.

use std::fs::{File, remove_file};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use model::{Digest, DigestFunction};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::size::StoreSize;
use crate::store::{Store, StoreOptions};

#[path = "../../tests/common/tmpfs.rs"]
mod tmpfs;

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const DISK_BYTES: u64 = 64 << 20;
/// As the store has it: a fiftieth.
const RESERVE_BYTES: u64 = DISK_BYTES / 50;
const BLOB_BYTES: usize = 64 << 10;
const BLOBS: u32 = 320;
/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(300);

/// A store on a disk of its own, with blobs that all have a lease.
struct Disk {
    store: Arc<Store>,
    blobs: Vec<Digest>,
    path: PathBuf,
    _mount: OwnedFd,
}

impl Disk {
    fn new() -> Self {
        let mount = tmpfs::small_tmpfs("64m", "100k");
        let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
        let size = StoreSize::Bytes(DISK_BYTES);
        let store =
            Store::open(&path.join("root"), StoreOptions { size, ..StoreOptions::default() })
                .expect("the store opens");
        let content = |number: u32| number.to_le_bytes().repeat(BLOB_BYTES / 4);
        let put = |number| store.cas().put(FUNCTION, &content(number)).expect("stored");
        let blobs = (0..BLOBS).map(put).collect();
        let disk = Self { store, blobs, path, _mount: mount };
        // The growth so far is counted.
        assert_eq!(disk.store.evictor().make_room(0), (0, 0), "nothing is missing yet");
        disk
    }

    fn set_patience(&self, patience: Duration) {
        self.store.evictor().others.lock().patience = patience;
    }

    /// Others take all but so much. Returns their file.
    fn fill(&self, free_bytes: u64) -> PathBuf {
        let stat = statvfs(&self.path).expect("a file system");
        let path = self.path.join("filler");
        let filler = File::create(&path).expect("a file");
        let size = stat.f_bavail * stat.f_frsize - free_bytes;
        fallocate(&filler, FallocateFlags::empty(), 0, size).expect("there is so much");
        path
    }

    fn lost(&self) -> usize {
        self.blobs.iter().filter(|blob| !self.store.cas().index().contains(blob)).count()
    }
}

/// Waits for the evictor's own thread.
fn eventually(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "it never is");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_comes_back_costs_nothing() {
    let disk = Disk::new();
    disk.set_patience(LONG);
    let filler = disk.fill(0);
    let is_back = Arc::new(AtomicBool::new(false));
    let remover = {
        let is_back = Arc::clone(&is_back);
        std::thread::spawn(move || {
            // Long enough for a few looks, on any machine that is not busy.
            std::thread::sleep(Duration::from_millis(300));
            is_back.store(true, Ordering::Relaxed);
            remove_file(filler).expect("removed");
        })
    };
    assert_eq!(disk.store.evictor().make_room(0), (0, 0));
    assert!(is_back.load(Ordering::Relaxed), "it waits");
    remover.join().expect("no panic");
    assert_eq!(disk.lost(), 0);
}

#[test]
fn what_does_not_come_back_costs_even_leases() {
    let disk = Disk::new();
    disk.set_patience(Duration::from_millis(100));
    disk.fill(RESERVE_BYTES / 2);
    eventually(|| disk.lost() > 0);
    // Twice the reserve is free then, and all is quiet.
    let free = || statvfs(&disk.path).map(|stat| stat.f_bavail * stat.f_frsize).unwrap_or(0);
    eventually(|| free() >= 2 * RESERVE_BYTES);
    let wanted = (3 * RESERVE_BYTES / 2).div_ceil(BLOB_BYTES as u64) as usize;
    assert!(disk.lost() <= wanted + 2, "{} of {wanted}", disk.lost());
}

#[test]
fn a_disk_that_stays_full_is_waited_for_once() {
    let disk = Disk::new();
    disk.set_patience(Duration::from_millis(100));
    let filler = disk.fill(0);
    // All that the store has is not enough.
    let taken = || {
        let filler = File::options().write(true).open(&filler).expect("the file");
        let size = filler.metadata().expect("its size").len();
        let stat = statvfs(&disk.path).expect("a file system");
        let free = stat.f_bavail * stat.f_frsize;
        free == 0 || fallocate(&filler, FallocateFlags::empty(), size, free).is_ok()
    };
    eventually(|| taken() && disk.lost() == disk.blobs.len());
    let is_in_vain = || disk.store.evictor().others.lock().stays;
    eventually(|| taken() && is_in_vain());
    disk.set_patience(LONG);
    let begun = Instant::now();
    disk.store.evictor().make_room(0);
    assert!(begun.elapsed() < LONG, "it waited again");
    remove_file(&filler).expect("removed");
    eventually(|| {
        disk.store.evictor().make_room(0);
        !is_in_vain()
    });
}

#[test]
fn before_the_reserve_is_touched_others_get_an_eighth_of_what_is_not_leased() {
    let disk = Disk::new();
    disk.set_patience(LONG);
    let filler = disk.fill(RESERVE_BYTES * 11 / 10);
    assert_eq!(disk.store.evictor().make_room(0).1, 0, "all has a lease");
    assert_eq!(disk.lost(), 0);

    disk.store.set_lease(Duration::ZERO);
    let share = disk.store.stats().used_bytes / 8;
    // Whatever was given up, others take at once.
    let filled = || {
        let filler = File::options().write(true).open(&filler).expect("the file");
        let size = filler.metadata().expect("its size").len();
        let stat = statvfs(&disk.path).expect("a file system");
        let free = (stat.f_bavail * stat.f_frsize).saturating_sub(RESERVE_BYTES * 11 / 10);
        fallocate(&filler, FallocateFlags::empty(), size, free.max(1)).expect("there is so much");
    };
    let mut last = 0;
    loop {
        disk.store.evictor().make_room(0);
        filled();
        let given = disk.store.stats().evicted_bytes;
        if given == last {
            break;
        }
        last = given;
    }
    assert!(last > share / 10 * 8 && last <= share, "{last} of {share}");
}

#[test]
fn what_the_store_takes_itself_it_evicts_for_at_once() {
    let disk = Disk::new();
    disk.set_patience(LONG);
    disk.fill(RESERVE_BYTES * 19 / 10);
    assert_eq!(disk.store.evictor().make_room(0).1, 0, "all has a lease");
    // More than what is free.
    let more = 3 * RESERVE_BYTES / BLOB_BYTES as u64;
    for number in 0..more as u32 {
        let content = (1_000_000 + number).to_le_bytes().repeat(BLOB_BYTES / 4);
        disk.store.cas().put(FUNCTION, &content).expect("room is made");
    }
    assert!(disk.lost() > 0);
}

#[test]
fn a_file_system_without_inodes_is_waited_for_as_well() {
    let disk = Disk::new();
    disk.set_patience(LONG);
    let directory = disk.path.join("fillers");
    std::fs::create_dir(&directory).expect("a directory");
    let make = |path: &Path| std::fs::write(path, "").is_ok();
    let made = (0..).take_while(|number| make(&directory.join(number.to_string()))).count();
    assert!(made > 50_000, "{made} inodes");
    let remover = std::thread::spawn(move || std::fs::remove_dir_all(directory).expect("removed"));
    assert_eq!(disk.store.evictor().make_room(0).1, 0);
    remover.join().expect("no panic");
    assert_eq!(disk.lost(), 0);
}
