//! The memory that all clients together may make the server hold, and each connection's part of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use crate::status;

/// Borrowed by all connections together, in bytes: a hundred large messages at a
/// time, beside what connections are guaranteed.
pub(crate) const MAX_BORROWED_BYTES: u64 = 512 << 20;

/// The bytes that one connection can always reserve: the largest message, or the
/// pieces of a few streams.
pub(crate) const GUARANTEED_BYTES: u64 = 8 << 20;

/// The memory that connections are guaranteed beyond the budget, in bytes: the parts of eight connections. A
/// guarantee for each connection would let clients raise the bound by opening more of them.
const RESERVED_BYTES: u64 = 8 * GUARANTEED_BYTES;

/// The time that a call may wait; after it the client gets an error.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// One that waits looks again after this time, if nobody woke it: what was given
/// back may have been too little for who was woken, and enough for another.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// No more may be held for this client now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{asked} more bytes can't be held for this client while {held} bytes are; try again")]
pub(crate) struct Exhausted {
    /// Bytes asked for.
    asked: u64,
    /// Bytes that are held for all clients.
    held: u64,
}

impl From<Exhausted> for Status {
    fn from(error: Exhausted) -> Self {
        status::of(Code::ResourceExhausted, &error)
    }
}

/// The memory that the server holds for all its clients.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: u64,
    held_bytes: AtomicU64,
    given_back: Notify,
    connections: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Budget {
    /// The budget of this machine: at most an eighth of its memory.
    pub(crate) fn of_this_machine() -> Arc<Self> {
        let system = rustix::system::sysinfo();
        let memory_bytes = u64::from(system.mem_unit).saturating_mul(system.totalram);
        Self::new(MAX_BORROWED_BYTES.min(memory_bytes / 8))
    }

    /// A budget of that many bytes.
    pub(crate) fn new(limit_bytes: u64) -> Arc<Self> {
        let [held_bytes, connections, received_bytes, sent_bytes] = Default::default();
        let given_back = Notify::new();
        Arc::new(Self {
            limit_bytes,
            held_bytes,
            given_back,
            connections,
            received_bytes,
            sent_bytes,
        })
    }

    /// The limit, without what connections are guaranteed beyond it, in bytes.
    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// The memory that is held for all clients, in bytes.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }

    /// Connections with a quota.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Bytes of all requests so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of all answers so far.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }

    /// The quota of one more connection.
    pub(crate) fn quota(self: &Arc<Self>) -> Arc<ConnectionQuota> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Arc::new(ConnectionQuota { budget: Arc::clone(self), held_bytes: AtomicU64::new(0) })
    }
}

impl Drop for ConnectionQuota {
    fn drop(&mut self) {
        self.budget.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The memory that the server holds for one connection.
#[derive(Debug)]
pub(crate) struct ConnectionQuota {
    budget: Arc<Budget>,
    pub(super) held_bytes: AtomicU64,
}

impl ConnectionQuota {
    /// Reserves that many bytes.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, Exhausted> {
        let reservation = self.reservation();
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }

    /// The same for calls that keep nobody from going on while they wait.
    pub(crate) async fn reserve_when_free(
        self: &Arc<Self>,
        bytes: u64,
    ) -> Result<Reservation, Exhausted> {
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            // Listens before it asks, so that nothing is missed in between.
            let given_back = self.budget.given_back.notified();
            match self.reserve(bytes) {
                Err(_) if Instant::now() < deadline => {
                    // Either way it looks again.
                    let _ = timeout(LOOK_AGAIN, given_back).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether half of the budget is used up: then buffers should be small.
    pub(crate) fn is_scarce(&self) -> bool {
        self.budget.held_bytes.load(Ordering::Relaxed) > self.budget.limit_bytes / 2
    }

    /// A reservation of nothing, which can grow.
    pub(crate) fn reservation(self: &Arc<Self>) -> Reservation {
        Reservation { quota: Arc::clone(self), bytes: AtomicU64::new(0) }
    }

    fn take(&self, bytes: u64) -> Result<(), Exhausted> {
        let own = self.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.budget.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let limit_bytes = self.budget.limit_bytes;
        let is_guaranteed = own <= GUARANTEED_BYTES && all <= limit_bytes + RESERVED_BYTES;
        if is_guaranteed || all <= limit_bytes {
            return Ok(());
        }
        self.subtract(bytes);
        Err(Exhausted { asked: bytes, held: all - bytes })
    }

    fn give_back(&self, bytes: u64) {
        self.subtract(bytes);
        self.budget.given_back.notify_one();
    }

    fn subtract(&self, bytes: u64) {
        self.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    quota: Arc<ConnectionQuota>,
    bytes: AtomicU64,
}

impl Reservation {
    /// Counts bytes of a request.
    pub(super) fn count_received(&self, bytes: usize) {
        self.quota.budget.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes of an answer.
    pub(super) fn count_sent(&self, bytes: usize) {
        self.quota.budget.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Reserves what is missing to that many bytes.
    pub(crate) fn grow_to(&self, bytes: u64) -> Result<(), Exhausted> {
        self.grow_by(bytes.saturating_sub(self.bytes.load(Ordering::Relaxed)))
    }

    /// Moves up to that many bytes into a reservation of their own.
    pub(crate) fn split_off(&self, bytes: u64) -> Self {
        let mut taken = 0;
        // Never fails: there is always a next value.
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            taken = held.min(bytes);
            Some(held - taken)
        });
        Self { quota: Arc::clone(&self.quota), bytes: AtomicU64::new(taken) }
    }

    /// A reservation of nothing for the same connection, which can grow.
    pub(crate) fn another(&self) -> Self {
        self.quota.reservation()
    }

    /// Reserves that many bytes more.
    pub(crate) fn grow_by(&self, bytes: u64) -> Result<(), Exhausted> {
        if bytes > 0 {
            self.quota.take(bytes)?;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.quota.give_back(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn loans_are_counted_until_they_are_dropped() {
        let budget = Budget::new(100 * MIB);
        let quota = budget.quota();
        let reservation = quota.reserve(10 * MIB).unwrap();
        let other = budget.quota().reserve(20 * MIB).unwrap();
        reservation.grow_to(5 * MIB).unwrap();
        reservation.grow_to(15 * MIB).unwrap();
        assert_eq!(quota.held_bytes.load(Ordering::Relaxed), 15 * MIB);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 35 * MIB);
        drop((reservation, other));
        assert_eq!(quota.held_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn over_the_limit_each_connection_has_its_guaranteed_part() {
        let budget = Budget::new(100 * MIB);
        let greedy = budget.quota();
        let held: Vec<Reservation> = std::iter::from_fn(|| greedy.reserve(5 * MIB).ok()).collect();
        assert_eq!(held.len(), 20);
        assert!(greedy.reserve(1).is_err());
        let modest = budget.quota();
        let reservation = modest.reserve(5 * MIB).unwrap();
        reservation.grow_to(GUARANTEED_BYTES).unwrap();
        let refused = modest.reserve(1).unwrap_err();
        assert_eq!(refused, Exhausted { asked: 1, held: 108 * MIB });
        drop(held);
        assert!(modest.reserve(50 * MIB).is_ok());
    }

    #[test]
    fn the_guaranteed_parts_have_a_bound_together() {
        let budget = Budget::new(100 * MIB);
        let greedy = budget.quota();
        let _held = greedy.reserve(100 * MIB).unwrap();
        let others: Vec<_> = (0..20).map(|_| budget.quota()).collect();
        let reservations = others.iter().filter_map(|quota| quota.reserve(GUARANTEED_BYTES).ok());
        assert_eq!(reservations.collect::<Vec<_>>().len(), 8);
    }

    #[test]
    fn a_part_of_a_loan_lives_on_by_itself() {
        let quota = Budget::new(100 * MIB).quota();
        let reservation = quota.reserve(10).unwrap();
        let part = reservation.split_off(7);
        let rest = reservation.split_off(7);
        drop(reservation);
        assert_eq!(quota.held_bytes.load(Ordering::Relaxed), 10);
        drop(part);
        assert_eq!(quota.held_bytes.load(Ordering::Relaxed), 3);
        drop(rest);
        assert_eq!(quota.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_download_waits_for_what_others_give_back() {
        let budget = Budget::new(10 * MIB);
        let (quota, other) = (budget.quota(), budget.quota());
        let held = quota.reserve(10 * MIB).unwrap();
        assert!(quota.is_scarce());
        let waiting = tokio::spawn(async move { other.reserve_when_free(9 * MIB).await.is_ok() });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert!(waiting.await.unwrap());
        assert!(!quota.is_scarce());
    }

    #[test]
    fn a_refused_loan_holds_nothing() {
        let budget = Budget::new(10 * MIB);
        let quota = budget.quota();
        assert!(quota.reserve(11 * MIB).is_err());
        let reservation = quota.reserve(10 * MIB).unwrap();
        assert!(reservation.grow_to(11 * MIB).is_err());
        drop(reservation);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }
}
