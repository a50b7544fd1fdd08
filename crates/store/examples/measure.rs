//! The cost of the store's operations: `cargo run --release -p store --example measure -- DIR`.
//!
//! DIR should be on a journaled file system and is filled with a store of its own, which is
//! removed at the end. Prints medians of several rounds, by piece: elapsed time, processor time, and
//! pieces per second.

use std::ffi::CString;
use std::fs;
use std::hint::black_box;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::{Digest, DigestFunction};
use rustix::time::{ClockId, clock_gettime};
use store::{Durability, Store, StoreOptions};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const ROUNDS: usize = 5;
const BLOBS: usize = 10_000;

fn main() {
    let base = std::env::args().nth(1).expect("a directory as argument");
    let root = PathBuf::from(base).join("measured-store");
    let _ = fs::remove_dir_all(&root);
    presence(&root);
    small_blobs(&root);
    durable_blobs(&root);
    large_blob(&root);
    cached_results(&root);
    adoption(&root);
    start(&root);
    fs::remove_dir_all(&root).expect("the store is removable");
}

/// Different content for every number.
fn content(number: usize, size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    content[..8].copy_from_slice(&(number as u64).to_le_bytes());
    content
}

fn open(root: &Path) -> std::sync::Arc<Store> {
    Store::open(root, StoreOptions::default()).expect("a store")
}

/// The time of a round: wall time and processor time.
#[derive(Clone, Copy)]
struct Took {
    elapsed: Duration,
    processor: Duration,
}

/// Prints the medians of the rounds, by piece.
fn report(what: &str, pieces: usize, mut round: impl FnMut(usize) -> Took) {
    let rounds: Vec<_> = (0..ROUNDS).map(&mut round).collect();
    let median = |of: fn(&Took) -> Duration| {
        let mut times: Vec<_> = rounds.iter().map(of).collect();
        times.sort();
        times[ROUNDS / 2].as_secs_f64() / pieces as f64
    };
    let elapsed = median(|took| took.elapsed);
    let processor = median(|took| took.processor) * 1e6;
    let rate = 1.0 / elapsed;
    println!("{what:40} {:10.2} us {processor:10.2} us cpu {rate:12.0}/s", elapsed * 1e6);
}

fn timed(act: impl FnOnce()) -> Took {
    let (start, processor) = (Instant::now(), processor_time());
    act();
    Took { elapsed: start.elapsed(), processor: processor_time() - processor }
}

/// Of all threads of this process: what a busy machine does not change.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn presence(root: &Path) {
    let store = open(root);
    let digests: Vec<_> =
        (0..4000).map(|number| Digest::of(FUNCTION, &content(number, 64))).collect();
    for number in (0..4000).step_by(2) {
        store.cas().put(FUNCTION, &content(number, 64)).expect("stored");
    }
    report("missing, 4000 digests, half there", 100 * digests.len(), |_| {
        timed(|| {
            for _ in 0..100 {
                black_box(store.cas().missing(&digests));
            }
        })
    });
}

fn small_blobs(root: &Path) {
    let store = open(root);
    report("notice_changes, no change", 100 * BLOBS, |_| {
        timed(|| {
            for _ in 0..100 * BLOBS {
                black_box(store.cas().notice_changes());
            }
        })
    });
    let blobs = |round: usize| -> Vec<_> {
        (0..BLOBS)
            .map(|number| {
                let content = content(1_000_000 * (round + 1) + number, 4096);
                (Digest::of(FUNCTION, &content), content)
            })
            .collect()
    };
    report("put_expected, 4 KiB, new", BLOBS, |round| {
        let blobs = blobs(round);
        timed(|| {
            for (digest, content) in &blobs {
                store.cas().put_expected(digest, content).expect("stored");
            }
        })
    });
    report("put_expected, 4 KiB, new, 2 threads", BLOBS, |round| {
        let blobs = blobs(100 + round);
        timed(|| {
            std::thread::scope(|scope| {
                for half in blobs.chunks(BLOBS / 2) {
                    let store = &store;
                    scope.spawn(move || {
                        for (digest, content) in half {
                            store.cas().put_expected(digest, content).expect("stored");
                        }
                    });
                }
            });
        })
    });
    report("put_expected, 4 KiB, there already", BLOBS, |_| {
        let blobs = blobs(0);
        timed(|| {
            for (digest, content) in &blobs {
                store.cas().put_expected(digest, content).expect("stored");
            }
        })
    });
    report("read, 4 KiB", BLOBS, |_| {
        let blobs = blobs(0);
        timed(|| {
            for (digest, _) in &blobs {
                black_box(store.cas().read(digest).expect("read").expect("there"));
            }
        })
    });
}

/// Every caller stores a blob and waits until it is on the disk, as the clients of `--durability=group` do.
fn durable_blobs(root: &Path) {
    const PER_CALLER: usize = 50;
    for durability in [Durability::Lazy, Durability::Group] {
        let options = StoreOptions { durability, ..StoreOptions::default() };
        let store = Store::open(root, options).expect("a store");
        for callers in [1, 8, 64] {
            let what = format!("put, 4 KiB, {durability:?}, {callers} callers");
            report(&what, callers * PER_CALLER, |round| {
                let first = 2_000_000_000 + 1_000_000 * (callers * ROUNDS + round);
                let first = first + if durability == Durability::Group { 500_000 } else { 0 };
                timed(|| {
                    std::thread::scope(|scope| {
                        for caller in 0..callers {
                            let store = &store;
                            scope.spawn(move || {
                                for number in 0..PER_CALLER {
                                    let content =
                                        content(first + caller * PER_CALLER + number, 4096);
                                    store.cas().put(FUNCTION, &content).expect("stored");
                                    store.make_durable().expect("on the disk");
                                }
                            });
                        }
                    });
                })
            });
        }
    }
}

fn large_blob(root: &Path) {
    let store = open(root);
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 256;
    for function in DigestFunction::ALL {
        report(&format!("write 256 MiB, {function}, per MiB"), PIECES, |round| {
            let piece = content(round, PIECE);
            timed(|| {
                let mut writer = store.cas().writer(function, None);
                for _ in 0..PIECES {
                    writer.write(&piece).expect("written");
                }
                writer.commit().expect("stored");
            })
        });
    }
}

fn cached_results(root: &Path) {
    let store = open(root);
    let actions = |round: usize| -> Vec<_> {
        (0..BLOBS)
            .map(|number| Digest::of(FUNCTION, &content(round * BLOBS + number, 100)))
            .collect()
    };
    let value = content(1, 500);
    for what in ["new", "replaced"] {
        report(&format!("action cache put, 500 bytes, {what}"), BLOBS, |round| {
            let actions = actions(round);
            timed(|| {
                for action in &actions {
                    let put = store.action_cache().put("", action, &value);
                    put.expect("stored");
                }
            })
        });
    }
    let actions = actions(0);
    report("action cache get, 500 bytes", BLOBS, |_| {
        timed(|| {
            for action in &actions {
                let value = store.action_cache().get("", action).expect("read");
                black_box(value.expect("there"));
            }
        })
    });
}

fn adoption(root: &Path) {
    let store = open(root);
    const FILES: usize = 1000;
    let directory = |round: usize| {
        let path = store.work_dir().join(format!("round-{round}"));
        fs::create_dir(&path).expect("a directory");
        for number in 0..FILES {
            let file = path.join(number.to_string());
            let content = content(500_000_000 + round * FILES + number, 1000);
            fs::write(&file, content).expect("a file");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("chmod");
            chown(&file, Some(65534), Some(65534)).expect("chown");
        }
        path
    };
    report("adopt, 1000 bytes, new", FILES, |round| {
        let path = directory(round);
        let names: Vec<_> =
            (0..FILES).map(|number| CString::new(number.to_string()).expect("digits")).collect();
        let directory = fs::File::open(&path).expect("a directory");
        timed(|| {
            for name in &names {
                let adopted = store.cas().adopt(FUNCTION, directory.as_fd(), name, 1 << 20);
                black_box(adopted.expect("adopted"));
            }
        })
    });
}

fn start(root: &Path) {
    let blobs = open(root).stats().blobs as usize;
    let mut store = None;
    let what = format!("open a store of {blobs} blobs, per blob");
    report(&what, blobs, |_| {
        store = None;
        timed(|| store = Some(open(root)))
    });
}
