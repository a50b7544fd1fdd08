//! The history as a whole: what is told is read again, whatever becomes of the database.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use events::{Caller, Event, Failure, Finished, Listener as _, LookedUp, Miss, Origin};
use model::proto::{Message as _, RequestMetadata};
use model::{Digest, DigestFunction, InstanceName};
use rusqlite::Connection;

use crate::batch::HOUR_US;
use crate::reader::{Page, ReadError, Tally};
use crate::record::tests::finished;
use crate::record::{Kind, Record};
use crate::schema;
use crate::writer::{BYTES_MIN, Fixed, History, Options, Room, bytes_in};

/// A history without a bound that matters.
fn history(directory: &Path) -> History {
    let age_max = Duration::from_secs(100 * 365 * 86_400);
    History::start(Options {
        directory: directory.join("history"),
        age_max,
        room: Box::new(Fixed(1 << 30)),
    })
    .unwrap()
}

fn tell(history: &History, finished: Finished) {
    history.tell(&Event::Finished(Arc::new(finished)));
}

fn action(number: u32) -> Digest {
    Digest::of(DigestFunction::Sha256, format!("action {number}").as_bytes())
}

fn lookup(number: u32, miss: Option<Miss>) -> LookedUp {
    let metadata = RequestMetadata {
        tool_invocation_id: "build".into(),
        action_mnemonic: "CppCompile".into(),
        target_id: "//a:b".into(),
        ..RequestMetadata::default()
    };
    LookedUp {
        instance: InstanceName::parse("main").unwrap(),
        action: action(number),
        caller: Caller::new("ci".into(), metadata.encode_to_vec().into()),
        at: SystemTime::UNIX_EPOCH,
        miss,
    }
}

#[test]
fn what_was_told_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let told = finished(3);
    for _ in 0..2 {
        // The second round finds the first one's database.
        let history = history(folder.path());
        tell(&history, told.clone());
        history.flush();
        let read = history.reader().recent(Page::first(10)).unwrap();
        let expected = Record { id: read[0].id, ..Record::of_finished(&told).unwrap() };
        assert_eq!(read[0], expected);
        assert_eq!(history.stats().broken, 0);
    }
    let history = history(folder.path());
    let reader = history.reader();
    assert_eq!(reader.recent(Page::first(10)).unwrap().len(), 2);
    assert_eq!(reader.record(1).unwrap().unwrap().action, action(3));
    assert_eq!(reader.record(77).unwrap(), None);
}

#[test]
fn every_question_has_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(folder.path());
    for number in 0..20 {
        let mut finished = finished(number);
        if number == 7 {
            finished.exit_code = None;
            finished.error =
                Some(Failure { kind: "timed_out", step: None, message: "late".into() });
        }
        tell(&history, finished);
    }
    history.tell(&Event::LookedUp(Arc::new(lookup(3, None))));
    history.flush();
    history.tell(&Event::LookedUp(Arc::new(lookup(99, Some(Miss::Incomplete)))));
    history.flush();
    let reader = history.reader();
    let first = Page::first(5);
    let ids = |records: Vec<Record>| records.iter().map(|it| it.id).collect::<Vec<_>>();
    assert_eq!(ids(reader.recent(first).unwrap()), [22, 21, 20, 19, 18]);
    assert_eq!(ids(reader.recent_executions(3).unwrap()), [20, 19, 18]);
    let next = Page { after: Some(18), limit: 2 };
    assert_eq!(ids(reader.recent(next).unwrap()), [17, 16]);
    assert_eq!(ids(reader.of_action(&action(3), first).unwrap()), [21, 4]);
    assert_eq!(ids(reader.of_target("//a:b", next).unwrap()), [17, 16]);
    assert!(reader.of_target("//a", first).unwrap().is_empty());
    assert_eq!(ids(reader.slowest_of("build", 3).unwrap()), [20, 19, 18]);
    assert_eq!(ids(reader.failed_of("build", first).unwrap()), [8]);
    assert_eq!(reader.median_run_us("CppCompile").unwrap(), Some((10, 20)));
    assert_eq!(reader.median_run_us("Other").unwrap(), None);
    let builds = reader.invocations(first).unwrap();
    assert_eq!(reader.invocation("build").unwrap().as_ref(), builds.first());
    assert_eq!((builds[0].first_us, builds[0].last_us), (0, 1049));
    assert_eq!(reader.targets("//a", 5).unwrap(), ["//a:b"]);
    for tally in [reader.tally_of("build").unwrap(), reader.tally_since(0).unwrap()] {
        let sum = |wanted: fn(&Tally) -> bool| -> u64 {
            tally.iter().filter(|it| wanted(it)).map(|it| it.events).sum()
        };
        assert_eq!(sum(|it| it.kind == Kind::Execution), 20);
        assert_eq!(sum(|it| it.failed), 1);
        assert_eq!(sum(|it| it.kind == Kind::Lookup && it.miss.is_none()), 1);
        assert_eq!(sum(|it| it.miss == Some(Miss::Incomplete)), 1);
        assert_eq!(tally.iter().map(|it| it.run_us).sum::<u64>(), 190);
    }
    assert!(reader.tally_since(u64::MAX).unwrap().is_empty());
    let sizes = |trees: Vec<crate::reader::Tree>| -> Vec<(u64, i64)> {
        trees.iter().map(|it| (it.totals.bytes, it.last_event)).collect()
    };
    assert_eq!(sizes(reader.largest_trees(2).unwrap()), [(19, 20), (18, 19)]);
    tell(&history, finished(5));
    history.flush();
    assert_eq!(sizes(reader.recent_trees(2).unwrap()), [(5, 23), (19, 20)]);
    assert!(reader.targets("bazel", 5).unwrap().is_empty(), "not every name is a target");
}

#[test]
fn equal_hits_share_a_record_and_are_all_counted() {
    let folder = tempfile::tempdir().unwrap();
    {
        let history = history(folder.path());
        for number in [1, 1, 2, 1] {
            history.tell(&Event::LookedUp(Arc::new(lookup(number, None))));
        }
        // Its end writes them.
    }
    let history = history(folder.path());
    let reader = history.reader();
    let records = reader.recent(Page::first(9)).unwrap();
    let mut times: Vec<_> = records.iter().map(|it| (it.action == action(1), it.times)).collect();
    times.sort_unstable();
    assert_eq!(times, [(false, 1), (true, 3)]);
    let tally = reader.tally_of("build").unwrap();
    assert_eq!(
        tally.iter().map(|it| (it.kind, it.events)).collect::<Vec<_>>(),
        [(Kind::Lookup, 4)]
    );
}

#[test]
fn hits_are_written_without_a_question() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(folder.path());
    history.tell(&Event::LookedUp(Arc::new(lookup(1, None))));
    let end = Instant::now() + Duration::from_secs(60);
    while history.stats().written == 0 {
        assert!(Instant::now() < end, "they are due after two seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(history.reader().recent(Page::first(9)).unwrap().len(), 1);
}

#[test]
fn the_oldest_records_go_when_there_are_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("history");
    let age_max = Duration::from_secs(100 * 365 * 86_400);
    let room = Box::new(Fixed(BYTES_MIN));
    let options = Options { directory: directory.clone(), age_max, room };
    let history = History::start(options).unwrap();
    let mut number = 0;
    while history.stats().deleted == 0 {
        for _ in 0..1000 {
            number += 1;
            let mut it = finished(number);
            it.result = Some(Bytes::from(vec![0; 4000]));
            let origin =
                Origin { invocation: format!("{number}").as_str().into(), ..(*it.origin).clone() };
            it.origin = Arc::new(origin);
            tell(&history, it);
        }
        history.flush();
    }
    let stats = history.stats();
    assert!(stats.used_bytes < BYTES_MIN, "{stats:?}");
    assert_eq!(stats.dropped, 0);
    let reader = history.reader();
    assert!(reader.of_action(&action(1), Page::first(1)).unwrap().is_empty());
    assert_eq!(reader.invocation("1").unwrap(), None);
    assert!(reader.tally_of("1").unwrap().is_empty());
    let trees = reader.recent_trees(1000).unwrap();
    assert!(trees.iter().all(|it| reader.record(it.last_event).unwrap().is_some()));
    assert_eq!(reader.of_action(&action(number), Page::first(1)).unwrap().len(), 1);
    let file: u64 = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    // SQLite's own index of its log is 32 KiB.
    assert!(file < BYTES_MIN + (8 << 20), "{file}");
}

/// A room that becomes smaller, and what it was told.
#[derive(Clone)]
struct Shrinking(Arc<[AtomicU64; 2]>);

impl Room for Shrinking {
    fn bytes_max(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) {
        self.0[1].store(bytes, Ordering::Relaxed);
    }
}

#[test]
fn the_files_become_smaller_with_their_room() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("history");
    let age_max = Duration::from_secs(100 * 365 * 86_400);
    let room = Shrinking(Arc::new([AtomicU64::new(1 << 30), AtomicU64::new(0)]));
    let told = || room.0[1].load(Ordering::Relaxed);
    let options = Options { directory: directory.clone(), age_max, room: Box::new(room.clone()) };
    let history = History::start(options).unwrap();
    assert!(told() > 0);
    let mut number = 0;
    while told() < 4 * BYTES_MIN {
        for _ in 0..1000 {
            number += 1;
            let mut it = finished(number);
            it.result = Some(Bytes::from(vec![0; 4000]));
            tell(&history, it);
        }
        history.flush();
    }
    assert_eq!(history.stats().deleted, 0);
    room.0[0].store(0, Ordering::Relaxed);
    tell(&history, finished(number + 1));
    history.flush();
    // The log is cut when the next transaction begins it anew.
    tell(&history, finished(number + 2));
    history.flush();
    drop(history);
    assert_eq!(told(), bytes_in(&directory));
    assert!(told() <= BYTES_MIN, "{}", told());
}

#[test]
fn old_records_go() {
    let folder = tempfile::tempdir().unwrap();
    {
        let history = history(folder.path());
        tell(&history, finished(1));
        let mut new = finished(2);
        new.queued_at = SystemTime::now();
        tell(&history, new);
    }
    let options = Options {
        directory: folder.path().join("history"),
        age_max: Duration::from_secs(86_400),
        room: Box::new(Fixed(1 << 30)),
    };
    let history = History::start(options).unwrap();
    history.flush();
    assert_eq!(history.stats().deleted, 1);
    let left = history.reader().recent(Page::first(10)).unwrap();
    assert_eq!(left.iter().map(|it| it.action).collect::<Vec<_>>(), [action(2)]);
    let day = history.reader().tally_since(HOUR_US * 24).unwrap();
    assert_eq!(day.iter().map(|it| it.events).sum::<u64>(), 1);
}

#[test]
fn a_broken_history_is_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = schema::file(&folder.path().join("history"));
    let check = |breaking: &dyn Fn()| {
        {
            let history = history(folder.path());
            tell(&history, finished(1));
        }
        breaking();
        let history = history(folder.path());
        tell(&history, finished(2));
        history.flush();
        assert_eq!(history.stats().broken, 1);
        assert_eq!(history.stats().dropped, 0);
        let left = history.reader().recent(Page::first(10)).unwrap();
        assert_eq!(left.iter().map(|it| it.action).collect::<Vec<_>>(), [action(2)]);
        drop(history);
        std::fs::remove_dir_all(folder.path().join("history")).unwrap();
    };
    check(&|| std::fs::write(&path, "not a database at all").unwrap());
    check(&|| {
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "user_version", 99).unwrap();
    });
    check(&|| {
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("DROP TABLE event").unwrap();
    });
    // All pages but the first: what a torn write leaves.
    check(&|| {
        let bytes = std::fs::read(&path).unwrap();
        let torn = [&bytes[..4096], &vec![0xa5; bytes.len() - 4096]].concat();
        std::fs::write(&path, torn).unwrap();
    });
}

#[test]
fn a_reader_that_finds_it_broken_has_it_started_anew() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(folder.path());
    tell(&history, finished(1));
    history.flush();
    let reader = history.reader();
    assert_eq!(reader.recent(Page::first(1)).unwrap().len(), 1);
    history.report_broken();
    history.flush();
    assert_eq!(history.stats().broken, 1);
    assert!(reader.recent(Page::first(1)).unwrap().is_empty(), "the reader has the new one");
}

#[test]
fn without_a_place_records_are_dropped_and_nothing_fails() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("history"), "a file").unwrap();
    let history = history(folder.path());
    tell(&history, finished(1));
    history.flush();
    assert_eq!(history.stats().dropped, 1);
    assert!(matches!(history.reader().recent(Page::first(1)), Err(ReadError::Read(_))));
}

#[test]
fn names_of_clients_are_data() {
    let folder = tempfile::tempdir().unwrap();
    let history = history(folder.path());
    let hostile = "'; DROP TABLE event; --\0\u{202e}";
    let mut it = finished(1);
    let name = || hostile.into();
    it.origin = Arc::new(Origin { target: name(), invocation: name(), ..Origin::default() });
    it.instance = hostile.to_owned();
    tell(&history, it.clone());
    history.flush();
    let reader = history.reader();
    let target = it.origin.target.as_str();
    assert_eq!(reader.of_target(target, Page::first(1)).unwrap()[0].origin, *it.origin);
    assert_eq!(reader.slowest_of(target, 1).unwrap().len(), 1);
}
