//! The store against a plain map, over random operations, ends and crashes, on a disk that fails.
//!
//! Every blob that the map has must be read back; every other one must be absent, or be right: a
//! crash of the machine may lose what was stored since it was last synced, and may bring back what was
//! deleted since then, but nothing may ever be there that is not what its digest says.
//!
//! A quarter of the operations meets a fault: one call that changes files fails, any of them, or the server dies
//! before it. The objects of the operation may then be as before or as after it, and nothing else may change. A sync
//! that fails is told once, and loses what was not on the disk.
//!
//! Operations are data, made from a seed. A run that fails is shrunk: operations are left out as
//! long as it still fails, and what remains is printed with the seed. A run takes as many seeds as fit into a minute, on all
//! processors.
//! `ACTIOND_MODEL_SEEDS` is another number of seeds, and `ACTIOND_MODEL_FIRST_SEED` the first one:
//!
//! ```sh
//! ACTIOND_MODEL_SEEDS=5000 cargo test -p store model_test
//! ```

macro_rules! ensure {
    ($condition:expr, $($message:tt)*) => {
        if !$condition {
            return Err(format!($($message)*));
        }
    };
}

mod faulty;
mod operation;
#[allow(dead_code, reason = "other tests share it")]
#[path = "../tests/common/roots.rs"]
mod roots;
mod world;

use std::collections::BTreeSet;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use operation::Step;
use roots::Numbers;
use world::{Difference, World};

/// The least number of seeds of a run that does not say how many.
const SEEDS: u64 = 10;
/// After this time such a run begins no other seed.
const PATIENCE: Duration = Duration::from_secs(60);
const OPERATIONS: usize = 120;

fn steps(seed: u64) -> Vec<Step> {
    // Seeds that follow each other would begin alike.
    let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    (0..OPERATIONS).map(|_| Step::random(&mut numbers)).collect()
}

/// A run of so many seeds meets every kind of failure.
const SEEDS_THAT_MEET: u64 = 50;
/// Calls that must have failed in it: else it is not about what it says.
const MET: [&str; 6] = ["open unnamed", "write", "linkat", "renameat", "unlinkat", "syncfs"];

/// Runs operations on a new store. Returns the calls that failed.
fn run(steps: &[Step]) -> Result<BTreeSet<&'static str>, Difference> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new();
        world.start(false)?;
        for (number, step) in steps.iter().enumerate() {
            world.apply_step(*step).map_err(|it| format!("{number}, {step:?}: {it}"))?;
        }
        world.check_all()?;
        Ok(world.met)
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

/// The state that the threads of a run share.
struct Run {
    first: u64,
    /// The number of seeds that were begun.
    begun: AtomicU64,
    has_failed: AtomicBool,
    began: Instant,
    wanted: Option<u64>,
}

impl Run {
    /// The next seed; none at the end of the run, and once a thread has found a difference.
    fn next(&self) -> Option<u64> {
        let goes_on = |begun| match self.wanted {
            _ if self.has_failed.load(Ordering::Relaxed) => false,
            Some(wanted) => begun < wanted,
            None => begun < SEEDS || self.began.elapsed() < PATIENCE,
        };
        let next = |begun| goes_on(begun).then_some(begun + 1);
        self.begun
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .ok()
            .map(|it| self.first + it)
    }

    /// Runs seeds until the end. Returns the calls that failed.
    fn seeds(&self) -> Result<BTreeSet<&'static str>, Difference> {
        let mut met = BTreeSet::new();
        while let Some(seed) = self.next() {
            let steps = steps(seed);
            let difference = match run(&steps) {
                Ok(calls) => {
                    met.extend(calls);
                    continue;
                }
                Err(difference) => difference,
            };
            self.has_failed.store(true, Ordering::Relaxed);
            let fewest = shrink(steps, |steps| run(steps).is_err());
            let last = run(&fewest).err();
            return Err(format!(
                "ACTIOND_MODEL_FIRST_SEED={seed}: {difference}\nwith the fewest operations: {last:?}\n{fewest:?}"
            ));
        }
        Ok(met)
    }
}

#[test]
fn the_store_does_what_a_plain_map_does() {
    let run = Run {
        first: variable("ACTIOND_MODEL_FIRST_SEED").unwrap_or(1),
        begun: AtomicU64::new(0),
        has_failed: AtomicBool::new(false),
        began: Instant::now(),
        wanted: variable("ACTIOND_MODEL_SEEDS"),
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| run.seeds())).collect();
        threads.into_iter().map(|thread| thread.join().expect("panics are caught")).collect()
    });
    let mut met = BTreeSet::new();
    for ended in ended {
        met.extend(ended.unwrap_or_else(|difference| panic!("{difference}")));
    }
    let seeds = run.begun.into_inner();
    println!("{seeds} seeds from {} on", run.first);
    if seeds >= SEEDS_THAT_MEET {
        let unmet: Vec<_> = MET.into_iter().filter(|call| !met.contains(call)).collect();
        assert!(unmet.is_empty(), "no {unmet:?} failed, only {met:?}");
    }
}

#[test]
fn a_failure_is_shrunk_to_what_it_needs() {
    let operations: Vec<u32> = (0..100).collect();
    let fails = |left: &[u32]| left.contains(&17) && left.contains(&18) && left.contains(&90);
    assert_eq!(shrink(operations, fails), [17, 18, 90]);
    assert_eq!(shrink(vec![1, 2, 3], |_| true), Vec::<i32>::new());
}
