//! The messages of a slot to a scheduler that speaks the Remote Workers API, and their times: decisions only, no calls
//! and no clocks.
//!
//! ```text
//!              a lease                the action is over
//! ┌──────┐               ┌────────┐                      ┌───────────┐
//! │ IDLE ├──────────────►│ ACTIVE ├─────────────────────►│ COMPLETED │
//! └──▲───┘               └───┬────┘                      └─────┬─────┘
//!    │   the lease is gone   │    the scheduler dropped it     │ another lease
//!    └───────────────────────┴─────────────────────────────────┴─► ACTIVE
//! ```
//!
//! All of it belongs to a bot session that the scheduler made. When the scheduler refuses an update, the session is lost:
//! its leases are given to others, what runs is stopped, and a new session is made. While the scheduler can't be reached
//! the session stays what it is.

use std::time::{Duration, Instant, SystemTime};

use model::proto::google::devtools::remoteworkers::v1test2::{
    BotSession, BotStatus, Lease, LeaseState,
};
use model::proto::{Any, ExecuteResponse, Timestamp};
use tonic::Code;

use super::lease;
use crate::protocol::{CallError, Question};

/// The longest wait between two calls while an action runs: an action that nobody wants any more is stopped after it.
const LATEST_CALL: Duration = Duration::from_secs(10);

/// The shortest one, for a scheduler whose clock goes wrong.
const EARLIEST_CALL: Duration = Duration::from_millis(500);

/// The calls that a session can lose until it expires.
const CALLS_UNTIL_EXPIRY: u32 = 3;

/// The longest time for which a session is believed to live without a call.
const LONGEST_LIFE: Duration = Duration::from_secs(3_600);

/// The time for which an idle worker that ends tries to say so. Leases that it does not know are given to others when
/// its session expires.
const GOODBYE: Duration = Duration::from_secs(10);

/// The parts that change from call to call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    /// The name of the session; `None` if one is to be made.
    pub(super) name: Option<String>,
    /// The version that the scheduler gave the session. BuildGrid compares it to see whether leases have changed.
    pub(super) version: String,
    pub(super) status: BotStatus,
    pub(super) leases: Vec<Lease>,
}

/// The session as the scheduler answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status of the bot in the call.
    pub(super) told: BotStatus,
    pub(super) session: BotSession,
}

/// The wish of the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wish {
    Continue,
    Stop,
    Start(Option<Any>),
}

/// A session that the scheduler made.
#[derive(Debug)]
struct Bot {
    name: String,
    version: String,
    expires: Instant,
    /// The status that the scheduler was told last.
    told: BotStatus,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Idle,
    /// The lease of that id.
    Active(String),
    Completed(Box<Lease>),
}

/// The state of one slot and the scheduler's view of it.
#[derive(Debug)]
pub(super) struct Session {
    bot: Option<Bot>,
    state: State,
    due: Instant,
    /// Until when an idle worker that ends tries to say so; `None` while the scheduler answers.
    goodbye_until: Option<Instant>,
}

impl Session {
    pub(super) fn new(now: Instant) -> Self {
        Self { bot: None, state: State::Idle, due: now, goodbye_until: None }
    }

    /// When the scheduler is to be called, if nothing happens before.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether the scheduler gives this bot no lease until it is called again.
    pub(super) fn would_wait(&self) -> bool {
        let is_healthy = self.bot.as_ref().is_some_and(|bot| bot.told == BotStatus::Ok);
        self.state == State::Idle && !is_healthy
    }

    /// Whether a result waits until the scheduler takes it.
    pub(super) fn would_repeat(&self) -> bool {
        matches!(self.state, State::Completed(_))
    }

    /// Whether a worker that wants to end can do so without an action being lost.
    pub(super) fn may_end(&self, now: Instant) -> bool {
        let Some(bot) = &self.bot else { return true };
        match self.state {
            State::Idle => {
                let is_told = bot.told == BotStatus::BotTerminating;
                is_told || self.goodbye_until.is_some_and(|until| now > until)
            }
            State::Active(_) => false,
            State::Completed(_) => now > bot.expires,
        }
    }

    /// The action of the lease is over, or did not even begin.
    pub(super) fn completed(&mut self, response: ExecuteResponse) {
        if let State::Active(id) = &self.state {
            self.state = State::Completed(Box::new(lease::completed(id.clone(), response)));
        }
    }

    /// The call to make now. `is_ready` says whether an action could run.
    pub(super) fn question(&self, is_ready: bool, is_draining: bool) -> Question<Report> {
        let status = match (is_draining, is_ready) {
            (true, _) => BotStatus::BotTerminating,
            (false, false) => BotStatus::Unhealthy,
            (false, true) => BotStatus::Ok,
        };
        let leases = match &self.state {
            State::Idle => Vec::new(),
            State::Active(id) => {
                let state = LeaseState::Active.into();
                vec![Lease { id: id.clone(), state, ..Lease::default() }]
            }
            State::Completed(lease) => vec![(**lease).clone()],
        };
        let (name, version) = match &self.bot {
            None => (None, String::new()),
            Some(bot) => (Some(bot.name.clone()), bot.version.clone()),
        };
        // A call that makes a session is never given up: the scheduler would give leases to a session that nobody
        // knows.
        let may_wait = self.bot.is_some() && self.state == State::Idle && status == BotStatus::Ok;
        Question { message: Report { name, version, status, leases }, may_wait }
    }

    /// The call failed, or was given up.
    pub(super) fn failed(&mut self, now: Instant, error: Option<&CallError>) -> Wish {
        if !error.is_some_and(is_refusal) {
            if error.is_some() {
                self.goodbye_until.get_or_insert(now + GOODBYE);
            }
            return Wish::Continue;
        }
        let was = std::mem::replace(&mut self.state, State::Idle);
        (self.bot, self.due) = (None, now);
        if matches!(was, State::Active(_)) { Wish::Stop } else { Wish::Continue }
    }

    /// The scheduler answered, at `now` by the monotonic clock and `clock` by the one of the machine.
    pub(super) fn answered(&mut self, now: Instant, clock: SystemTime, answer: Answer) -> Wish {
        let Answer { told, session } = answer;
        let life = life(clock, session.expire_time.as_ref());
        let (name, version) = (session.name, session.version);
        self.bot = Some(Bot { name, version, expires: now + life, told });
        self.goodbye_until = None;
        let offered: Vec<Lease> = session.leases.into_iter().filter(is_offered).collect();
        let expiries = offered.iter().filter_map(|lease| lease.expire_time.as_ref());
        let shortest = expiries.map(|at| self::life(clock, Some(at))).fold(life, Duration::min);
        self.due = now + (shortest / CALLS_UNTIL_EXPIRY).clamp(EARLIEST_CALL, LATEST_CALL);
        match &self.state {
            State::Active(id) if offered.iter().any(|lease| lease.id == *id) => {
                return Wish::Continue;
            }
            // An echo of the lease, not the same action once more, which would have its payload.
            State::Completed(own)
                if offered.iter().any(|lease| lease.id == own.id && lease.payload.is_none()) =>
            {
                return Wish::Continue;
            }
            _ => {}
        }
        // One at a time: the scheduler sends again what is not reported.
        if let Some(lease) = offered.into_iter().next() {
            self.state = State::Active(lease.id);
            // The lease is accepted by the next call.
            self.due = now;
            return Wish::Start(lease.payload);
        }
        let was = std::mem::replace(&mut self.state, State::Idle);
        if matches!(was, State::Active(_)) { Wish::Stop } else { Wish::Continue }
    }
}

/// Whether the scheduler wants the lease to be worked on.
fn is_offered(lease: &Lease) -> bool {
    matches!(lease.state(), LeaseState::Pending | LeaseState::Active)
}

/// Whether the scheduler knows no such session any more. All other errors may pass.
fn is_refusal(error: &CallError) -> bool {
    let CallError::Failed(status) = error else { return false };
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::DataLoss
    )
}

/// The time until a session or a lease expires. The clocks of two machines differ, so that it is kept within bounds.
fn life(clock: SystemTime, at: Option<&Timestamp>) -> Duration {
    let at = at.and_then(|at| SystemTime::try_from(*at).ok());
    let life = at.and_then(|at| at.duration_since(clock).ok()).unwrap_or_default();
    life.min(LONGEST_LIFE)
}

#[cfg(test)]
mod tests;
