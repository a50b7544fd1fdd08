//! The turns of fetches: how many run at a time, for all clients, for one of them and from one host.
//!
//! ```text
//! fetch ──► waits ──► runs: 32 for all, 16 for a client, 8 from a host ──► the next one that may
//!           1024, 256 of a client
//! ```
//!
//! Slow fetches of one client, or from one slow host, so leave turns to others. Of those that may run, the one whose client
//! has the fewest running ones goes first; after that, the one that has waited longest.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Fetches at the same time. Each has a connection, a file and some memory.
const RUNNING: usize = 32;

/// Those of one client. Bazel downloads 8 files at a time.
const RUNNING_OF_CLIENT: usize = RUNNING / 2;

/// Those from one host: more connections than browsers open to one are seldom welcome.
const RUNNING_FROM_HOST: usize = 8;

/// Fetches that wait. Each is a call, whose message is held.
const WAITING: usize = 1024;

/// Those of one client: more than the repositories that a build fetches at a time.
const WAITING_OF_CLIENT: usize = WAITING / 4;

/// A fetch that wants a turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The client's principal, empty for all anonymous ones.
    pub(crate) client: Arc<str>,
    /// The host that the URI names.
    pub(crate) host: String,
}

/// A fetch that may not even wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Crowded {
    #[error("{0} fetches wait for their turn; try again later")]
    All(usize),
    #[error("{0} fetches of this client wait for their turn; try again when some have ended")]
    Client(usize),
}

/// The fetches that run and those that wait. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    running: Vec<Claim>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    claim: Claim,
    granted: oneshot::Sender<Turn>,
}

/// The turn of a fetch, until it is dropped.
pub(crate) struct Turn {
    turns: Turns,
    claim: Claim,
}

impl Turns {
    /// Waits for a turn. To drop the future is to give the place up.
    pub(crate) async fn turn(&self, claim: Claim) -> Result<Turn, Crowded> {
        let (granted, turn) = oneshot::channel();
        self.state().wait(Waiting { claim, granted })?;
        self.grant();
        // The sender is kept until it has sent.
        turn.await.map_err(|_| Crowded::All(0))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives turns to those who may run.
    fn grant(&self) {
        loop {
            // A turn that can't be sent ends when it is dropped, and that takes the lock.
            let next = self.state().start_next();
            let Some(Waiting { claim, granted }) = next else { return };
            drop(granted.send(Turn { turns: self.clone(), claim }));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.state().end(&self.claim);
        self.turns.grant();
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.claim.fmt(f)
    }
}

impl State {
    /// Has one wait, or says why it may not.
    fn wait(&mut self, one: Waiting) -> Result<(), Crowded> {
        self.forget_those_who_left();
        let client = &one.claim.client;
        let of_client = self.waiting.iter().filter(|other| other.claim.client == *client).count();
        if of_client >= WAITING_OF_CLIENT {
            return Err(Crowded::Client(of_client));
        }
        if self.waiting.len() >= WAITING {
            return Err(Crowded::All(self.waiting.len()));
        }
        self.waiting.push_back(one);
        Ok(())
    }

    fn forget_those_who_left(&mut self) {
        self.waiting.retain(|waiting| !waiting.granted.is_closed());
    }

    /// Takes the next one from those who wait, and counts it among those that run.
    fn start_next(&mut self) -> Option<Waiting> {
        self.forget_those_who_left();
        let may_run = self.waiting.iter().enumerate().filter(|(_, one)| self.may_run(&one.claim));
        // The first of several.
        let (place, _) = may_run.min_by_key(|(_, one)| self.running_of(&one.claim.client))?;
        let next = self.waiting.remove(place)?;
        self.running.push(next.claim.clone());
        Some(next)
    }

    fn may_run(&self, claim: &Claim) -> bool {
        let from_host = self.running.iter().filter(|other| other.host == claim.host).count();
        self.running.len() < RUNNING
            && self.running_of(&claim.client) < RUNNING_OF_CLIENT
            && from_host < RUNNING_FROM_HOST
    }

    fn running_of(&self, client: &str) -> usize {
        self.running.iter().filter(|other| *other.client == *client).count()
    }

    fn end(&mut self, claim: &Claim) {
        if let Some(place) = self.running.iter().position(|other| other == claim) {
            self.running.swap_remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;

    use super::*;

    type Later = Pin<Box<dyn Future<Output = Result<Turn, Crowded>>>>;

    fn ask(turns: &Turns, client: &str, host: &str) -> Later {
        let (turns, claim) = (turns.clone(), Claim { client: client.into(), host: host.into() });
        Box::pin(async move { turns.turn(claim).await })
    }

    fn now(later: &mut Later) -> Option<Turn> {
        later.now_or_never().map(|turn| turn.expect("it may wait"))
    }

    /// As many turns as there are at once.
    fn all(turns: &Turns, client: &str, host: impl Fn(usize) -> String) -> Vec<Turn> {
        (0..).map_while(|number| now(&mut ask(turns, client, &host(number)))).collect()
    }

    #[test]
    fn one_host_leaves_turns_to_others() {
        let turns = Turns::default();
        let held = all(&turns, "a", |_| "slow".into());
        assert_eq!(held.len(), RUNNING_FROM_HOST);
        assert!(now(&mut ask(&turns, "b", "slow")).is_none());
        assert!(now(&mut ask(&turns, "a", "other")).is_some());
        assert!(now(&mut ask(&turns, "b", "other")).is_some());
    }

    #[test]
    fn one_client_leaves_turns_to_others() {
        let turns = Turns::default();
        let held = all(&turns, "a", |number| format!("host-{number}"));
        assert_eq!(held.len(), RUNNING_OF_CLIENT);
        let others = all(&turns, "b", |number| format!("host-{number}"));
        assert_eq!(others.len(), RUNNING - RUNNING_OF_CLIENT);
        assert!(now(&mut ask(&turns, "c", "another")).is_none());
        drop(held);
        assert!(now(&mut ask(&turns, "c", "another")).is_some());
    }

    #[test]
    fn the_client_with_the_fewest_goes_first_and_then_the_oldest() {
        let turns = Turns::default();
        let mut held = all(&turns, "a", |_| "host".into());
        let mut of_a = [ask(&turns, "a", "host"), ask(&turns, "a", "host")];
        let mut of_b = [ask(&turns, "b", "host"), ask(&turns, "b", "host")];
        for one in of_a.iter_mut().chain(&mut of_b) {
            assert!(now(one).is_none());
        }
        let mut end_one = || drop(held.pop());
        end_one();
        let first = now(&mut of_b[0]).unwrap();
        assert!(now(&mut of_a[0]).is_none() && now(&mut of_b[1]).is_none());
        end_one();
        let second = now(&mut of_b[1]).unwrap();
        end_one();
        let third = now(&mut of_a[0]).unwrap();
        assert!(now(&mut of_a[1]).is_none());
        drop((first, second, third));
        assert!(now(&mut of_a[1]).is_some());
    }

    #[test]
    fn those_who_leave_keep_no_place() {
        let turns = Turns::default();
        let mut held = all(&turns, "a", |_| "host".into());
        let mut gone = ask(&turns, "a", "host");
        let mut stays = ask(&turns, "a", "host");
        assert!(now(&mut gone).is_none() && now(&mut stays).is_none());
        drop(gone);
        held.pop();
        let turn = now(&mut stays);
        assert!(turn.is_some());
        // A turn that was granted to one who leaves before it looks.
        let mut late = ask(&turns, "a", "host");
        assert!(now(&mut late).is_none());
        held.pop();
        drop(late);
        assert!(now(&mut ask(&turns, "a", "host")).is_some());
    }

    #[test]
    fn a_client_that_has_too_many_waiting_is_refused() {
        let turns = Turns::default();
        let _held = all(&turns, "a", |_| "host".into());
        let mut waiting: Vec<Later> = Vec::new();
        let refused = loop {
            let mut next = ask(&turns, "a", "host");
            match next.as_mut().now_or_never() {
                None => waiting.push(next),
                Some(turn) => break turn.unwrap_err(),
            }
        };
        assert_eq!(refused, Crowded::Client(WAITING_OF_CLIENT));
        assert_eq!(waiting.len(), WAITING_OF_CLIENT);
        for client in ["b", "c", "d"] {
            for _ in 0..WAITING_OF_CLIENT {
                let mut next = ask(&turns, client, "host");
                assert!(now(&mut next).is_none());
                waiting.push(next);
            }
        }
        let refused = ask(&turns, "e", "host").now_or_never().unwrap().unwrap_err();
        assert_eq!(refused, Crowded::All(WAITING));
        waiting.clear();
        assert!(now(&mut ask(&turns, "e", "other")).is_some());
    }
}
