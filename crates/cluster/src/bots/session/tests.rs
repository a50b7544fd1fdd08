//! Conversations of a slot with a scheduler that speaks the Remote Workers API.

use super::*;
use tonic::Status;

struct Fixture {
    session: Session,
    now: Instant,
}

fn fixture() -> Fixture {
    let now = Instant::now();
    Fixture { session: Session::new(now), now }
}

const PENDING: LeaseState = LeaseState::Pending;
const ACTIVE: LeaseState = LeaseState::Active;
const CANCELLED: LeaseState = LeaseState::Cancelled;

fn payload(name: &str) -> Any {
    Any { type_url: name.to_owned(), ..Any::default() }
}

fn lease(id: &str, state: LeaseState) -> Lease {
    let payload = Some(payload(id));
    Lease { id: id.to_owned(), state: state.into(), payload, ..Lease::default() }
}

fn refusal(code: Code) -> CallError {
    CallError::Failed(Box::new(Status::new(code, "")))
}

impl Fixture {
    fn answer_told(&mut self, told: BotStatus, seconds: u64, leases: Vec<Lease>) -> Wish {
        let clock = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let expire_time = Some((clock + Duration::from_secs(seconds)).into());
        let (name, version) = ("farm/1".to_owned(), "7".to_owned());
        let session = BotSession { name, version, expire_time, leases, ..Default::default() };
        self.session.answered(self.now, clock, Answer { told, session })
    }

    fn answer(&mut self, leases: Vec<Lease>) -> Wish {
        self.answer_told(BotStatus::Ok, 60, leases)
    }

    fn fail(&mut self, error: &CallError) -> Wish {
        self.session.failed(self.now, Some(error))
    }

    fn report(&self) -> Report {
        self.session.question(true, false).message
    }

    fn start(&mut self, id: &str) {
        assert_eq!(self.answer(vec![lease(id, PENDING)]), Wish::Start(Some(payload(id))));
    }

    fn complete(&mut self) {
        self.session.completed(ExecuteResponse::default());
    }
}

#[test]
fn a_session_is_made_first_and_then_waits_for_leases() {
    let mut fixture = fixture();
    let question = fixture.session.question(true, false);
    assert!(!question.may_wait, "a call that makes a session is never given up");
    assert_eq!((question.message.name, question.message.leases.len()), (None, 0));
    assert!(fixture.session.may_end(fixture.now), "no session, no lease");
    assert_eq!(fixture.answer(vec![]), Wish::Continue);
    let question = fixture.session.question(true, false);
    assert!(question.may_wait);
    assert_eq!(question.message.name.as_deref(), Some("farm/1"));
    assert_eq!(question.message.version, "7", "the version is the scheduler's");
    assert_eq!(question.message.status, BotStatus::Ok);
    assert!(!fixture.session.may_end(fixture.now), "the scheduler gives leases to it");
}

#[test]
fn a_lease_is_accepted_kept_and_completed() {
    let mut fixture = fixture();
    fixture.start("a");
    assert_eq!(fixture.session.due(), fixture.now, "it is accepted at once");
    let report = fixture.report();
    assert_eq!((report.leases[0].id.as_str(), report.leases[0].state()), ("a", ACTIVE));
    assert_eq!(report.leases[0].payload, None);
    assert_eq!(fixture.answer(vec![lease("a", ACTIVE)]), Wish::Continue);
    assert_eq!(fixture.session.due(), fixture.now + LATEST_CALL);
    fixture.complete();
    let report = fixture.report();
    assert_eq!(report.leases[0].state(), LeaseState::Completed);
    assert!(!fixture.session.may_end(fixture.now), "the scheduler does not know the result");
    assert_eq!(fixture.answer(vec![]), Wish::Continue);
    assert!(fixture.report().leases.is_empty(), "what is known is not repeated");
}

#[test]
fn the_answer_to_a_result_can_be_the_next_lease() {
    let mut fixture = fixture();
    fixture.start("a");
    fixture.complete();
    fixture.start("b");
    assert_eq!(fixture.session.state, State::Active("b".to_owned()));
}

#[test]
fn a_result_is_repeated_until_the_scheduler_knows_it() {
    let mut fixture = fixture();
    fixture.start("a");
    fixture.complete();
    assert_eq!(fixture.fail(&refusal(Code::Unavailable)), Wish::Continue);
    assert_eq!(fixture.report().leases[0].state(), LeaseState::Completed);
    let echo = Lease { payload: None, ..lease("a", ACTIVE) };
    assert_eq!(fixture.answer(vec![echo]), Wish::Continue);
    assert!(fixture.session.would_repeat());
    assert_eq!(fixture.report().leases[0].state(), LeaseState::Completed);
    // With its payload it is to be run once more: BuildGrid tries again what ended with UNAVAILABLE.
    fixture.start("a");
    assert_eq!(fixture.session.state, State::Active("a".to_owned()));
}

#[test]
fn a_lease_that_is_gone_or_cancelled_is_stopped() {
    for leases in [vec![], vec![lease("a", CANCELLED)]] {
        let mut fixture = fixture();
        fixture.start("a");
        assert_eq!(fixture.answer(leases), Wish::Stop);
        assert_eq!(fixture.session.state, State::Idle);
    }
    let mut fixture = fixture();
    fixture.start("a");
    fixture.start("b");
}

#[test]
fn a_second_lease_waits_for_the_first() {
    let mut fixture = fixture();
    fixture.start("a");
    let both = vec![lease("b", PENDING), lease("a", ACTIVE)];
    assert_eq!(fixture.answer(both), Wish::Continue);
    assert_eq!(fixture.report().leases.len(), 1);
}

#[test]
fn a_session_that_is_lost_stops_its_action_and_another_one_is_made() {
    let lost = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::DataLoss,
    ];
    for code in lost {
        let mut fixture = fixture();
        fixture.start("a");
        assert_eq!(fixture.fail(&refusal(code)), Wish::Stop, "{code:?}");
        let report = fixture.report();
        assert_eq!((report.name, report.leases.len()), (None, 0));
        assert!(fixture.session.may_end(fixture.now));
    }
    let mut fixture = fixture();
    fixture.start("a");
    fixture.complete();
    assert_eq!(fixture.fail(&refusal(Code::NotFound)), Wish::Continue, "nothing runs");
}

#[test]
fn a_scheduler_that_is_away_costs_nothing() {
    for error in [
        refusal(Code::Unavailable),
        refusal(Code::Internal),
        refusal(Code::PermissionDenied),
        CallError::TimedOut(Duration::from_secs(1)),
    ] {
        let mut fixture = fixture();
        fixture.start("a");
        assert_eq!(fixture.fail(&error), Wish::Continue, "{error}");
        assert_eq!(fixture.report().name.as_deref(), Some("farm/1"));
        assert_eq!(fixture.report().leases[0].state(), ACTIVE);
    }
}

#[test]
fn an_idle_worker_says_that_it_ends() {
    let mut fixture = fixture();
    fixture.answer(vec![]);
    // The call that waited is given up: a lease may have been assigned meanwhile.
    assert_eq!(fixture.session.failed(fixture.now, None), Wish::Continue);
    assert!(!fixture.session.may_end(fixture.now + LONGEST_LIFE));
    let question = fixture.session.question(true, true);
    assert_eq!(question.message.status, BotStatus::BotTerminating);
    assert!(!question.may_wait);
    fixture.answer_told(BotStatus::BotTerminating, 60, vec![]);
    assert!(fixture.session.may_end(fixture.now));
    // A lease that was assigned before is worked on.
    let last = vec![lease("a", ACTIVE)];
    let wish = fixture.answer_told(BotStatus::BotTerminating, 60, last);
    assert_eq!(wish, Wish::Start(Some(payload("a"))));
    assert!(!fixture.session.may_end(fixture.now));
}

#[test]
fn an_end_does_not_wait_for_a_scheduler_that_is_away() {
    let mut idle = fixture();
    idle.answer(vec![]);
    idle.fail(&refusal(Code::Unavailable));
    assert!(!idle.session.may_end(idle.now));
    assert!(idle.session.may_end(idle.now + GOODBYE + Duration::from_secs(1)));
    let mut done = fixture();
    done.start("a");
    done.complete();
    done.fail(&refusal(Code::Unavailable));
    assert!(!done.session.may_end(done.now + Duration::from_secs(59)));
    assert!(done.session.may_end(done.now + Duration::from_secs(61)), "the session expired");
}

#[test]
fn a_worker_that_can_run_nothing_is_unhealthy() {
    let mut fixture = fixture();
    assert!(fixture.session.would_wait(), "no session, no leases");
    fixture.answer(vec![]);
    assert!(!fixture.session.would_wait(), "leases may come: the scheduler has to be told");
    let question = fixture.session.question(false, false);
    assert_eq!(question.message.status, BotStatus::Unhealthy);
    assert!(!question.may_wait);
    fixture.answer_told(BotStatus::Unhealthy, 60, vec![]);
    assert!(fixture.session.would_wait());
}

#[test]
fn calls_come_before_a_session_expires() {
    for (seconds, expected) in
        [(0, EARLIEST_CALL), (6, Duration::from_secs(2)), (1 << 40, LATEST_CALL)]
    {
        let mut fixture = fixture();
        fixture.start("a");
        fixture.answer_told(BotStatus::Ok, seconds, vec![lease("a", ACTIVE)]);
        assert_eq!(fixture.session.due(), fixture.now + expected, "{seconds}");
    }
    let mut fixture = fixture();
    fixture.start("a");
    let expire_time = Some((SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_003)).into());
    fixture.answer(vec![Lease { expire_time, ..lease("a", ACTIVE) }]);
    assert_eq!(fixture.session.due(), fixture.now + Duration::from_secs(1), "the lease's");
    assert_eq!(life(SystemTime::now(), None), Duration::ZERO);
    let never = Timestamp { seconds: i64::MIN, nanos: -1 };
    assert_eq!(life(SystemTime::now(), Some(&never)), Duration::ZERO);
}
