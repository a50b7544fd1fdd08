//! Orders of eviction: that of this store, and others.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{LEASE, Object, hash};
use crate::recency::{Tick, Usage};

/// A cache with an order of eviction.
pub(super) trait Cache {
    /// Notes a use; false if the object is not there.
    fn touch(&mut self, id: u64, now: Tick) -> bool;
    /// Adds an object that is not there, and evicts others for it.
    fn insert(&mut self, object: Object, now: Tick);
}

/// The order of this store.
pub(super) struct Ours {
    limit: u64,
    used: u64,
    objects: HashMap<u64, (Usage, u64)>,
}

impl Ours {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, used: 0, objects: HashMap::new() }
    }
}

impl Cache for Ours {
    fn touch(&mut self, id: u64, now: Tick) -> bool {
        self.objects.get_mut(&id).map(|(usage, _)| usage.touch(now)).is_some()
    }

    fn insert(&mut self, object: Object, now: Tick) {
        self.objects.insert(object.id, (Usage::first(now), object.cost));
        self.used += object.cost;
        if self.used <= self.limit - self.limit / 128 {
            return;
        }
        // One pass, as the evictor makes it.
        let rank = |(id, (usage, cost)): (&u64, &(Usage, u64))| {
            (usage.rank(now, LEASE), hash(id), *id, *cost)
        };
        let mut ranked: Vec<_> = self.objects.iter().map(rank).collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        for (_, _, id, cost) in ranked {
            if self.used <= self.limit - self.limit / 64 {
                break;
            }
            self.objects.remove(&id);
            self.used -= cost;
        }
    }
}

/// Least recently used; without a limit, a store that never evicts.
#[derive(Default)]
pub(super) struct Lru {
    limit: u64,
    used: u64,
    uses: u64,
    objects: HashMap<u64, (u64, u64)>,
    order: BTreeMap<u64, u64>,
}

impl Lru {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The cost of all that is there.
    pub(super) fn used(&self) -> u64 {
        self.used
    }
}

impl Cache for Lru {
    fn touch(&mut self, id: u64, _: Tick) -> bool {
        let Some((last, _)) = self.objects.get_mut(&id) else { return false };
        self.uses += 1;
        self.order.remove(last);
        self.order.insert(self.uses, id);
        *last = self.uses;
        true
    }

    fn insert(&mut self, object: Object, _: Tick) {
        self.uses += 1;
        self.objects.insert(object.id, (self.uses, object.cost));
        self.order.insert(self.uses, object.id);
        self.used += object.cost;
        while self.used > self.limit {
            let (_, id) = self.order.pop_first().expect("what is used is in the order");
            let (_, cost) = self.objects.remove(&id).expect("and there");
            self.used -= cost;
        }
    }
}

/// S3-FIFO as its paper has it: a small queue of a tenth, a main queue, and a ghost queue.
#[derive(Default)]
pub(super) struct S3Fifo {
    limit: u64,
    small_used: u64,
    main_used: u64,
    /// The uses since the last look, at most 3, and the cost.
    objects: HashMap<u64, (u8, u64)>,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    ghost: VecDeque<u64>,
    ghosts: HashMap<u64, ()>,
}

impl S3Fifo {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, ..Self::default() }
    }

    fn evict_from_small(&mut self) {
        let Some(id) = self.small.pop_front() else { return };
        let (uses, cost) = self.objects[&id];
        self.small_used -= cost;
        if uses > 1 {
            self.main.push_back(id);
            self.main_used += cost;
            self.objects.insert(id, (0, cost));
            return;
        }
        self.objects.remove(&id);
        self.ghost.push_back(id);
        self.ghosts.insert(id, ());
        if self.ghost.len() > self.objects.len()
            && let Some(oldest) = self.ghost.pop_front()
        {
            self.ghosts.remove(&oldest);
        }
    }

    fn evict_from_main(&mut self) {
        let Some(id) = self.main.pop_front() else { return };
        let (uses, cost) = self.objects[&id];
        if uses > 0 {
            self.objects.insert(id, (uses - 1, cost));
            self.main.push_back(id);
        } else {
            self.objects.remove(&id);
            self.main_used -= cost;
        }
    }
}

impl Cache for S3Fifo {
    fn touch(&mut self, id: u64, _: Tick) -> bool {
        self.objects.get_mut(&id).map(|(uses, _)| *uses = (*uses + 1).min(3)).is_some()
    }

    fn insert(&mut self, object: Object, _: Tick) {
        self.objects.insert(object.id, (0, object.cost));
        if self.ghosts.remove(&object.id).is_some() {
            self.main.push_back(object.id);
            self.main_used += object.cost;
        } else {
            self.small.push_back(object.id);
            self.small_used += object.cost;
        }
        while self.small_used + self.main_used > self.limit {
            if self.small_used > self.limit / 10 || self.main.is_empty() {
                self.evict_from_small();
            } else {
                self.evict_from_main();
            }
        }
    }
}
