use std::os::fd::AsFd;

use crate::plan::step::{ActionStep, Execute, InitStep, StepName, TmpfsSize};
use crate::plan::{Run, Sizes};
use crate::protocol::message::{Failed, Finished, Request, Response, Setup};
use crate::protocol::packet::{self, PacketError};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sys::init::{Hindrance, Obstacle, Part, Usage};

/// Sends a message, and sends everything that is shorter or longer, too.
#[track_caller]
fn check<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(message: M) {
    let (left, right) = packet::pair().unwrap();
    packet::send(&left, &message, &[]).unwrap();
    let received = packet::receive::<M>(&right).unwrap().unwrap();
    assert_eq!(received.message, message);

    let body = postcard::to_allocvec(&message).unwrap();
    let bodies =
        (0..body.len())
            .map(|length| body[..length].to_vec())
            .chain([[body.as_slice(), &[0]].concat()]);
    for body in bodies {
        rustix::net::send(&left, &[&[0], body.as_slice()].concat(), packet::no_flags()).unwrap();
        let error = packet::receive::<M>(&right).unwrap_err();
        assert!(matches!(error, PacketError::Body(_) | PacketError::Malformed(_)), "{body:?}");
    }
}

#[test]
fn requests_come_back_as_they_were() {
    check(Request::Prepare);
    check(Request::Kill);
    check(Request::Setup(Setup {
        ids: crate::plan::Ids { are_initial: false, has_action: true },
        user: Some(2_100_000_000),
        sizes: Sizes {
            tmp: TmpfsSize { bytes: 1, inodes: 2 },
            shm: TmpfsSize { bytes: 3, inodes: u64::MAX },
        },
        open_files: 5,
        file_bytes: 6,
        mounts: vec![b"usr".to_vec(), b"lib/x".to_vec()],
        symlinks: vec![(b"bin".to_vec(), b"usr/bin".to_vec())],
        files: vec![(b"etc/passwd".to_vec(), b"root".to_vec()), (b"etc/empty".to_vec(), vec![])],
    }));
    check(Request::Run(Run {
        init: vec![InitStep::AttachInputRoot, InitStep::Confine],
        action: vec![
            ActionStep::LimitAddressSpace(1 << 40),
            ActionStep::RunOn { mask: vec![1, u64::MAX] },
            ActionStep::Streams,
            ActionStep::EnterDirectory { path: [c"/execroot"].into_iter().collect() },
        ],
        execute: Execute {
            candidates: [c"/bin/a", c"/usr/bin/a"].into_iter().collect(),
            arguments: [c"a", c"", c"-b"].into_iter().collect(),
            environment: [c"A=b"].into_iter().collect(),
        },
    }));
}

#[test]
fn responses_come_back_as_they_were() {
    check(Response::Ready);
    check(Response::Runs);
    let usage = Usage { user_us: 1, system_us: 2, involuntary_switches: 9, ..Usage::default() };
    let finished = Finished { wait_status: Some(0x100), started_ns: 3, ended_ns: u64::MAX, usage };
    check(Response::Finished(finished));
    check(Response::Finished(Finished { wait_status: None, ..finished }));
    let failed = Failed::new(StepName::Execute, Errno::NOENT, "x");
    check(Response::Failed(failed.clone()));
    for (part, hindrance) in [
        (Part::Program, Hindrance::Unreachable(2)),
        (Part::Interpreter, Hindrance::Forbidden(0o644)),
        (Part::Loader, Hindrance::Machine(183)),
    ] {
        let obstacle = Obstacle { program: b"a".to_vec(), part, path: b"b\r".to_vec(), hindrance };
        check(Response::Failed(Failed { obstacle: Some(obstacle), ..failed.clone() }));
    }
}

/// A length in a body asks for no more memory than the body has.
#[test]
fn a_count_that_the_body_cannot_hold_is_refused() {
    let (left, right) = packet::pair().unwrap();
    // A set-up whose list of mounts claims 2^35 entries.
    let body = [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 127];
    rustix::net::send(left.as_fd(), &body, packet::no_flags()).unwrap();
    packet::receive::<Request>(&right).unwrap_err();
}

#[test]
fn an_error_tells_its_cause_once() {
    let (left, right) = packet::pair().unwrap();
    rustix::net::send(left.as_fd(), &[0, 255], packet::no_flags()).unwrap();
    let error = packet::receive::<Request>(&right).unwrap_err();
    assert_eq!(error.to_string(), "malformed packet");
    let error = PacketError::from(Errno::PIPE);
    assert_eq!(error.to_string(), Errno::PIPE.to_string());
}
