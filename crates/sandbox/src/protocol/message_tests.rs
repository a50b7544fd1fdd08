use sys::call::Resource;

use super::*;

#[track_caller]
fn check_request(request: Request) {
    let (kind, body) = request.encode();
    assert_eq!(Request::decode(kind, &body), Ok(request));
    // Nothing shorter is a message, and nothing longer either.
    for length in 0..body.len() {
        Request::decode(kind, &body[..length]).unwrap_err();
    }
    Request::decode(kind, &[body.as_slice(), &[0]].concat()).unwrap_err();
}

#[track_caller]
fn check_response(response: Response) {
    let (kind, body) = response.encode();
    assert_eq!(Response::decode(kind, &body), Ok(response));
    for length in 0..body.len() {
        Response::decode(kind, &body[..length]).unwrap_err();
    }
}

#[test]
fn requests_come_back_as_they_were() {
    check_request(Request::Prepare);
    check_request(Request::Kill);
    check_request(Request::Setup(Setup {
        sizes: Sizes { tmp_bytes: 1, tmp_inodes: 2, shm_bytes: 3, shm_inodes: u64::MAX },
        open_files: 5,
        mounts: vec![b"usr".to_vec(), b"lib/x".to_vec()],
        symlinks: vec![(b"bin".to_vec(), b"usr/bin".to_vec())],
        files: vec![(b"etc/passwd".to_vec(), b"root".to_vec()), (b"etc/empty".to_vec(), vec![])],
    }));
    check_request(Request::Run(vec![
        Step::AttachInputRoot,
        Step::ConfineInit,
        Step::Limit { resource: Resource::AddressSpace, value: 1 << 40 },
        Step::RunOn { mask: vec![1, u64::MAX] },
        Step::Streams,
        Step::EnterDirectory { path: [c"/execroot"].into_iter().collect() },
        Step::Execute {
            candidates: [c"/bin/a", c"/usr/bin/a"].into_iter().collect(),
            arguments: [c"a", c"", c"-b"].into_iter().collect(),
            environment: [c"A=b"].into_iter().collect(),
        },
    ]));
    check_request(Request::Run(crate::plan::preparation(&Sizes::default())));
}

#[test]
fn responses_come_back_as_they_were() {
    check_response(Response::Ready);
    let usage = Usage { user_us: 1, system_us: 2, involuntary_switches: 9, ..Usage::default() };
    let finished = Finished { wait_status: Some(0x100), started_ns: 3, ended_ns: u64::MAX, usage };
    check_response(Response::Finished(finished));
    check_response(Response::Finished(Finished { wait_status: None, ..finished }));
    check_response(Response::Failed(Failed {
        step: StepName::Execute,
        errno: 2,
        detail: "x".to_owned(),
    }));
}

#[test]
fn the_layout_stays_as_it_is_written_down() {
    let steps = vec![Step::Limit { resource: Resource::Processes, value: 2 }, Step::Streams];
    let (kind, body) = Request::Run(steps).encode();
    assert_eq!((kind, body), (3, vec![2, 0, 0, 0, 16, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 18, 0]));
    let failed = Failed { step: StepName::Execute, errno: 2, detail: "x".to_owned() };
    assert_eq!(Response::Failed(failed).encode(), (18, vec![20, 0, 2, 0, 0, 0, 1, 0, 0, 0, b'x']));
    assert_eq!(Request::Prepare.encode(), (2, vec![]));
    assert_eq!(Request::Kill.encode(), (4, vec![]));
    assert_eq!(Response::Ready.encode(), (16, vec![]));
}

#[test]
fn unknown_kinds_are_refused() {
    assert_eq!(Request::decode(0, &[]), Err(Malformed("an unknown request")));
    assert_eq!(Request::decode(16, &[]), Err(Malformed("an unknown request")));
    assert_eq!(Response::decode(1, &[]), Err(Malformed("an unknown response")));
}
