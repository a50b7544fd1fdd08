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

/// The bytes that one connection can always borrow: the largest message, or the
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
        let (held_bytes, given_back) = (AtomicU64::new(0), Notify::new());
        Arc::new(Self { limit_bytes, held_bytes, given_back })
    }

    /// The account of one more connection.
    pub(crate) fn account(self: &Arc<Self>) -> Arc<Account> {
        Arc::new(Account { budget: Arc::clone(self), held_bytes: AtomicU64::new(0) })
    }
}

/// The memory that the server holds for one connection.
#[derive(Debug)]
pub(crate) struct Account {
    budget: Arc<Budget>,
    pub(super) held_bytes: AtomicU64,
}

impl Account {
    /// Borrows that many bytes.
    pub(crate) fn lend(self: &Arc<Self>, bytes: u64) -> Result<Loan, Exhausted> {
        let loan = self.loan();
        loan.grow_to(bytes)?;
        Ok(loan)
    }

    /// The same for calls that keep nobody from going on while they wait.
    pub(crate) async fn lend_when_free(self: &Arc<Self>, bytes: u64) -> Result<Loan, Exhausted> {
        let deadline = Instant::now() + MAX_WAIT;
        loop {
            // Listens before it asks, so that nothing is missed in between.
            let given_back = self.budget.given_back.notified();
            match self.lend(bytes) {
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

    /// A loan of nothing, which can grow.
    pub(crate) fn loan(self: &Arc<Self>) -> Loan {
        Loan { account: Arc::clone(self), bytes: AtomicU64::new(0) }
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
pub(crate) struct Loan {
    account: Arc<Account>,
    bytes: AtomicU64,
}

impl Loan {
    /// Borrows what is missing to that many bytes.
    pub(crate) fn grow_to(&self, bytes: u64) -> Result<(), Exhausted> {
        self.grow_by(bytes.saturating_sub(self.bytes.load(Ordering::Relaxed)))
    }

    /// Moves up to that many bytes into a loan of their own.
    pub(crate) fn split_off(&self, bytes: u64) -> Self {
        let mut taken = 0;
        // Never fails: there is always a next value.
        let _ = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            taken = held.min(bytes);
            Some(held - taken)
        });
        Self { account: Arc::clone(&self.account), bytes: AtomicU64::new(taken) }
    }

    /// Borrows that many bytes more.
    pub(crate) fn grow_by(&self, bytes: u64) -> Result<(), Exhausted> {
        if bytes > 0 {
            self.account.take(bytes)?;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let bytes = *self.bytes.get_mut();
        if bytes > 0 {
            self.account.give_back(bytes);
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
        let account = budget.account();
        let loan = account.lend(10 * MIB).unwrap();
        let other = budget.account().lend(20 * MIB).unwrap();
        loan.grow_to(5 * MIB).unwrap();
        loan.grow_to(15 * MIB).unwrap();
        assert_eq!(account.held_bytes.load(Ordering::Relaxed), 15 * MIB);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 35 * MIB);
        drop((loan, other));
        assert_eq!(account.held_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn over_the_limit_each_connection_has_its_guaranteed_part() {
        let budget = Budget::new(100 * MIB);
        let greedy = budget.account();
        let held: Vec<Loan> = std::iter::from_fn(|| greedy.lend(5 * MIB).ok()).collect();
        assert_eq!(held.len(), 20);
        assert!(greedy.lend(1).is_err());
        let modest = budget.account();
        let loan = modest.lend(5 * MIB).unwrap();
        loan.grow_to(GUARANTEED_BYTES).unwrap();
        let refused = modest.lend(1).unwrap_err();
        assert_eq!(refused, Exhausted { asked: 1, held: 108 * MIB });
        drop(held);
        assert!(modest.lend(50 * MIB).is_ok());
    }

    #[test]
    fn the_guaranteed_parts_have_a_bound_together() {
        let budget = Budget::new(100 * MIB);
        let greedy = budget.account();
        let _held = greedy.lend(100 * MIB).unwrap();
        let others: Vec<_> = (0..20).map(|_| budget.account()).collect();
        let loans = others.iter().filter_map(|account| account.lend(GUARANTEED_BYTES).ok());
        assert_eq!(loans.collect::<Vec<_>>().len(), 8);
    }

    #[test]
    fn a_part_of_a_loan_lives_on_by_itself() {
        let account = Budget::new(100 * MIB).account();
        let loan = account.lend(10).unwrap();
        let part = loan.split_off(7);
        let rest = loan.split_off(7);
        drop(loan);
        assert_eq!(account.held_bytes.load(Ordering::Relaxed), 10);
        drop(part);
        assert_eq!(account.held_bytes.load(Ordering::Relaxed), 3);
        drop(rest);
        assert_eq!(account.held_bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_download_waits_for_what_others_give_back() {
        let budget = Budget::new(10 * MIB);
        let (account, other) = (budget.account(), budget.account());
        let held = account.lend(10 * MIB).unwrap();
        assert!(account.is_scarce());
        let waiting = tokio::spawn(async move { other.lend_when_free(9 * MIB).await.is_ok() });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(held);
        assert!(waiting.await.unwrap());
        assert!(!account.is_scarce());
    }

    #[test]
    fn a_refused_loan_holds_nothing() {
        let budget = Budget::new(10 * MIB);
        let account = budget.account();
        assert!(account.lend(11 * MIB).is_err());
        let loan = account.lend(10 * MIB).unwrap();
        assert!(loan.grow_to(11 * MIB).is_err());
        drop(loan);
        assert_eq!(budget.held_bytes.load(Ordering::Relaxed), 0);
    }
}
