//! CPUs for actions that asked for a number of them, where no cgroup can count
//! their time.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::CpuSet;

/// The CPUs that this process may use, handed out in turn.
#[derive(Debug)]
pub(crate) struct Cpus {
    allowed: Vec<usize>,
    next: AtomicUsize,
}

impl Cpus {
    /// All that this process may use; none if the kernel does not say, which
    /// leaves actions unlimited.
    pub(crate) fn of_this_process() -> Self {
        let set = rustix::thread::sched_getaffinity(None);
        let allowed = set.map(|set| (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect());
        Self::new(allowed.unwrap_or_default())
    }

    fn new(allowed: Vec<usize>) -> Self {
        Self { allowed, next: AtomicUsize::new(0) }
    }

    /// `cores` of them, other ones each time; `None` if there are not more anyway.
    pub(crate) fn choose(&self, cores: u32) -> Option<Vec<u64>> {
        let cores = usize::try_from(cores).ok().filter(|&cores| cores < self.allowed.len())?;
        let first = self.next.fetch_add(cores, Ordering::Relaxed) % self.allowed.len();
        let words = self.allowed.last()? / 64 + 1;
        let mut mask = vec![0_u64; words];
        for cpu in self.allowed.iter().cycle().skip(first).take(cores) {
            if let Some(word) = mask.get_mut(cpu / 64) {
                *word |= 1 << (cpu % 64);
            }
        }
        Some(mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_handed_out_in_turn() {
        let cpus = Cpus::new(vec![0, 1, 2, 65]);
        assert_eq!(cpus.choose(3), Some(vec![0b111, 0]));
        assert_eq!(cpus.choose(2), Some(vec![0b1, 0b10]));
        assert_eq!(cpus.choose(1), Some(vec![0b10, 0]));
    }

    #[test]
    fn as_many_as_there_are_is_no_limit() {
        let cpus = Cpus::new(vec![0, 1]);
        assert_eq!(cpus.choose(2), None);
        assert_eq!(cpus.choose(8), None);
        assert_eq!(Cpus::new(vec![]).choose(1), None);
    }
}
