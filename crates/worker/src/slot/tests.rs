//! The end of an action, for each failure at each step.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use inputroot::PresentError;
use model::proto::Message as _;
use model::{DigestFunction, InstanceName};
use runtimes::RuntimeOptions;
use sandbox::StepName;
use store::{StoreOptions, StoreView as _};
use sys::loop_device::LoopError;
use sys::mount::MountError;

use super::*;
use crate::fakes::{
    Behaviour, FakeDestination, FakeDisk, FakeInputRoots, FakeOutputs, FakeSandboxes, Left, Step,
};
use crate::operation::OperationState;
use crate::queue::{self, Demand, Rank};

const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// An action, and everything around it that may fail.
#[derive(Default)]
struct Scene {
    behaviour: Behaviour,
    present_fails: Option<PresentError>,
    store_fails: Option<(Step, Errno)>,
    disk_is_full: bool,
    left: Vec<(&'static [u8], Left)>,
    unlisted: Option<Errno>,
    config: WorkerConfig,
}

/// The result of an action.
#[derive(Debug)]
struct End {
    done: Done,
    /// The result in `done`, decoded.
    result: Option<proto::ActionResult>,
    is_cached: bool,
    released: usize,
    discarded: usize,
}

impl End {
    fn kind(&self) -> &'static str {
        self.done.error.as_ref().map_or("ok", ActionError::kind)
    }

    fn result(&self) -> &proto::ActionResult {
        self.result.as_ref().expect("a result")
    }
}

impl Scene {
    /// Runs an action that declares what it leaves outside of directories.
    fn play(self, stage: &Stage) -> End {
        let declared = self.left.iter().filter(|(path, _)| !path.contains(&b'/'));
        let declared = declared.map(|(path, _)| String::from_utf8(path.to_vec()).unwrap());
        let declared: Vec<String> = declared.collect();
        let (slot, counters) = self.slot(stage);
        let job = stage.job(stage.upload(declared));
        let (digest, operation) = (job.action.action, Arc::clone(&job.operation));
        let (bytes, rank) = (job.memory_bytes(), job.rank.clone());
        slot.shared.queue.push(job, bytes, rank).unwrap();
        slot.shared.queue.close();
        slot.serve();
        let done = operation.answer().expect("an answer");
        let is_cached = stage.store.blocking().cached_result("", &digest).unwrap().is_some();
        let result = done.result.as_ref().map(|result| result.message().clone());
        let result = result.map(|result| proto::ActionResult::decode(result).unwrap());
        let [released, discarded] = counters.map(|counter| counter.load(Ordering::Relaxed));
        End { done, result, is_cached, released, discarded }
    }

    /// A slot that has an empty queue, and the numbers of sandboxes released and input roots discarded.
    fn slot(self, stage: &Stage) -> (Slot, [Arc<AtomicUsize>; 2]) {
        let store = &stage.store;
        let outputs = FakeOutputs::new(&stage.staging(), &self.left);
        let outputs = match self.unlisted {
            Some(errno) => outputs.unlisted(errno),
            None => outputs,
        };
        let (released, discarded) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let shared = Shared {
            inputs: Inputs::new(self.config.tree, self.config.tree_cache_bytes),
            ignored_properties: IgnoredProperties::default(),
            input_roots: Box::new(FakeInputRoots {
                outputs,
                fails: self.present_fails.into(),
                discarded: Arc::clone(&discarded),
            }),
            sandboxes: Box::new(FakeSandboxes {
                behaviour: self.behaviour,
                released: Arc::clone(&released),
            }),
            destination: Arc::new(FakeDestination {
                store: Arc::clone(store),
                fails: self.store_fails,
            }),
            disk: Box::new(FakeDisk(AtomicBool::new(self.disk_is_full))),
            runtimes: Runtimes::open(&RuntimeOptions::default()).unwrap(),
            reading: Reading::default(),
            registry: Registry::new(1, u64::MAX),
            queue: Queue::new(queue::Limits {
                items: 1,
                bytes: u64::MAX,
                machine: self.config.machine(),
            }),
            elsewhere: None,
            is_ending: AtomicBool::new(false),
            listeners: Listeners::new([]),
            limits: RwLock::new(self.config.limits),
            config: self.config,
            store: Arc::clone(store),
        };
        let slot = Slot { shared: Arc::new(shared), stop: StopEvent::new().unwrap() };
        (slot, [released, discarded])
    }
}

/// A store for many scenes, as making one takes longer than they do.
struct Stage {
    root: tempfile::TempDir,
    store: Arc<Store>,
    scenes: AtomicUsize,
}

impl Stage {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("state"), StoreOptions::default()).unwrap();
        Self { root, store, scenes: AtomicUsize::new(0) }
    }

    /// An empty folder for what one action leaves.
    fn staging(&self) -> PathBuf {
        let path = self.root.path().join(self.scenes.load(Ordering::Relaxed).to_string());
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Stores an action that is unlike all before it.
    fn upload(&self, output_paths: Vec<String>) -> ActionMessage {
        let store = &self.store;
        let number = self.scenes.fetch_add(1, Ordering::Relaxed);
        let put = |message: Vec<u8>| Some(store.cas().put(FUNCTION, &message).unwrap().to_proto());
        let command = proto::Command {
            arguments: vec!["program".to_owned()],
            output_paths,
            ..Default::default()
        };
        let action = proto::Action {
            command_digest: put(command.encode_to_vec()),
            input_root_digest: put(proto::Directory::default().encode_to_vec()),
            salt: number.to_le_bytes().to_vec().into(),
            ..Default::default()
        };
        let message = action.encode_to_vec();
        let digest = store.cas().put(FUNCTION, &message).unwrap();
        ActionMessage::parse(digest, &message).unwrap()
    }

    /// The action, waiting for a slot.
    fn job(&self, action: ActionMessage) -> Job {
        let timeline = Timeline::queued_now("worker");
        let first = OperationState::queued(action.action, timeline.metadata().clone());
        let operation = Operation::new("operations/1".into(), InstanceName::default(), first);
        let demand = Demand { cpu_cores: 1, memory_bytes: 0 };
        Job {
            operation: Arc::new(operation),
            origin: Arc::default(),
            described: Described::to_run(&action, events::Miss::Absent),
            action,
            timeline,
            skip_cache_lookup: false,
            rank: Rank { priority: 0, client: "".into(), demand, may_leave: false },
            journey: Journey::default(),
            conversation: None,
        }
    }
}

fn with(behaviour: Behaviour) -> Scene {
    Scene { behaviour, ..Scene::default() }
}

fn exits(code: i32) -> Behaviour {
    Behaviour { status: ExitStatus::Code(code), ..Behaviour::default() }
}

/// Every errno of a machine that fails, and the kind of error that an action ends with.
/// [`ActionError::ResourceExhausted`] is RESOURCE_EXHAUSTED, which clients retry; `internal` and
/// `set_up` are INTERNAL.
const ERRNOS: [(Errno, bool); 6] = [
    (Errno::NOSPC, true),
    (Errno::DQUOT, true),
    (Errno::MFILE, true),
    (Errno::NOMEM, true),
    (Errno::IO, false),
    (Errno::ROFS, false),
];

const fn kind(is_exhaustion: bool, otherwise: &'static str) -> &'static str {
    if is_exhaustion { "resource_exhausted" } else { otherwise }
}

#[test]
fn a_good_action_is_answered_cached_and_put_away() {
    let stage = Stage::new();
    let end = Scene { left: vec![(b"out", Left::File("x"))], ..Scene::default() }.play(&stage);
    assert_eq!((end.kind(), end.is_cached, end.released, end.discarded), ("ok", true, 1, 1));
    let result = end.result();
    assert_eq!((result.exit_code, result.output_files.len()), (0, 1));
    assert_eq!(
        (&result.stdout_raw[..], &result.stderr_raw[..]),
        (&b"said\n"[..], &b"warned\n"[..])
    );
    assert!(result.execution_metadata.is_some());
    assert_eq!(end.done.message, "");
}

#[test]
fn every_end_has_its_exit_code_error_and_words() {
    let stage = Stage::new();
    let check = |behaviour: Behaviour, exit_code, kind, message: &str| {
        let shown = format!("{behaviour:?}");
        let end = Scene { left: vec![(b"log", Left::File("x"))], ..with(behaviour) }.play(&stage);
        assert_eq!((end.result().exit_code, end.kind()), (exit_code, kind), "{shown}");
        assert_eq!(end.done.message, message, "{shown}");
        assert!(!end.is_cached, "{shown}");
        assert_eq!((end.released, end.discarded), (1, 1), "{shown}");
        end.result().output_files.len()
    };
    let killed = || Behaviour { status: ExitStatus::Signal(9), ..Behaviour::default() };
    let stopped = |stopped| Behaviour { stopped: Some(stopped), ..killed() };
    assert_eq!(check(exits(3), 3, "ok", ""), 1);
    assert_eq!(check(killed(), 137, "ok", "the command was killed by signal 9"), 1);
    let oom = "the action used more memory than its limit and was killed";
    assert_eq!(check(Behaviour { oom_killed: true, ..killed() }, 137, "ok", oom), 1);
    // The status says it, so the message does not.
    assert_eq!(check(stopped(Stopped::Deadline), 137, "timed_out", ""), 1);
    assert_eq!(check(stopped(Stopped::Cancelled), 137, "cancelled", ""), 0);
    assert_eq!(check(stopped(Stopped::Forbidden), 137, "resource_exhausted", ""), 0);
}

#[test]
fn a_disk_at_its_reserve_makes_a_failure_one_to_retry_and_caches_nothing() {
    let stage = Stage::new();
    let end = Scene { disk_is_full: true, ..with(exits(1)) }.play(&stage);
    assert_eq!((end.kind(), end.is_cached), ("resource_exhausted", false));
    let end = Scene { disk_is_full: true, ..Scene::default() }.play(&stage);
    assert_eq!((end.kind(), end.is_cached), ("ok", false));
}

#[test]
fn an_errno_while_presenting_the_inputs() {
    let stage = Stage::new();
    for (errno, is_exhaustion) in ERRNOS {
        let mount =
            |call: &str| MountError { call: call.to_owned(), errno, explanation: String::new() };
        let open = || LoopError::Open { path: PathBuf::from("/dev/loop0"), source: errno.into() };
        let failures = [
            // The image of erofs-file and erofs-loop.
            PresentError::StoreImage { step: "write", source: errno.into() },
            // The device of erofs-loop.
            open().into(),
            LoopError::NoneFree(errno.into()).into(),
            LoopError::Configure(errno.into()).into(),
            // The overlay of all but bind, the mounts of bind, the tree of actiondfs.
            mount("fsmount(overlay)").into(),
            mount("open_tree").into(),
            mount("fsmount(actiondfs)").into(),
            // The directory that the action writes to.
            PresentError::Staging { step: "mkdir(staging/1/upper)".to_owned(), source: errno },
            PresentError::Thread { source: errno.into() },
        ];
        for failure in failures {
            let shown = failure.to_string();
            let end = Scene { present_fails: Some(failure), ..Scene::default() }.play(&stage);
            assert_eq!(end.kind(), kind(is_exhaustion, "internal"), "{errno}: {shown}");
            assert!(end.done.result.is_none() && !end.is_cached, "{shown}");
        }
    }
    // A tree that cannot be presented stays so.
    let failure = PresentError::TooManyMounts { files: 2, mounts: 2, max_mounts: 1 };
    let end = Scene { present_fails: Some(failure), ..Scene::default() }.play(&stage);
    assert_eq!(end.kind(), "unsupported");
}

#[test]
fn an_errno_while_the_sandbox_is_made_and_runs() {
    let stage = Stage::new();
    use StepName::*;
    for (errno, is_exhaustion) in ERRNOS {
        for step in [Spawn, Isolate, Namespaces, UserNamespace, CloneView, TemplateRoot, Cgroup] {
            let acquire_fails = Some(RunError::new(step, errno));
            let end = with(Behaviour { acquire_fails, ..Behaviour::default() }).play(&stage);
            assert_eq!(end.kind(), kind(is_exhaustion, "set_up"), "{errno}: {step}");
            assert_eq!((end.released, end.discarded), (0, 0), "{errno}: {step}");
            assert_eq!(end.done.server_log.is_none(), is_exhaustion, "{errno}: {step}");
            if let Some(log) = end.done.server_log {
                let log = stage.store.cas().read(&log).unwrap().unwrap();
                let log = String::from_utf8(log.to_vec()).unwrap();
                assert!(log.contains(&step.to_string()) && log.contains("operations/1"), "{log}");
            }
        }
        for step in [Request, Clone, MountProc, MountTmp, AttachInputRoot, Limit, Streams, Kill] {
            let run_fails = Some(RunError::new(step, errno));
            let end = with(Behaviour { run_fails, ..Behaviour::default() }).play(&stage);
            assert_eq!(end.kind(), kind(is_exhaustion, "set_up"), "{errno}: {step}");
            assert_eq!((end.released, end.discarded), (1, 1), "{errno}: {step}");
        }
    }
    // A lack of resources is not the command's fault, also at the steps that look at the command.
    for step in [EnterDirectory, Execute] {
        for (errno, expected) in [
            (Errno::NOMEM, "resource_exhausted"),
            (Errno::MFILE, "resource_exhausted"),
            (Errno::IO, "set_up"),
        ] {
            let run_fails = Some(RunError::new(step, errno));
            let end = with(Behaviour { run_fails, ..Behaviour::default() }).play(&stage);
            assert_eq!(end.kind(), expected, "{errno}: {step}");
        }
    }
}

#[test]
fn an_errno_while_a_stream_is_stored() {
    let stage = Stage::new();
    let large = || Behaviour { stdout: vec![b'x'; 100_000], ..Behaviour::default() };
    for (errno, is_exhaustion) in ERRNOS {
        // A small stream is in the result all the same; a large one is lost.
        for (step, behaviour, inline) in
            [(Step::Put, Behaviour::default(), 5), (Step::Commit, large(), 0)]
        {
            let store_fails = Some((step, errno));
            let end = Scene { store_fails, ..with(behaviour) }.play(&stage);
            assert_eq!(end.kind(), kind(is_exhaustion, "internal"), "{errno}: {step:?}");
            assert_eq!(end.result().stdout_raw.len(), inline, "{errno}: {step:?}");
            assert_eq!(end.result().stdout_digest, None);
            assert!(end.done.message.starts_with("not in the result: `standard output`"));
            assert!(!end.is_cached);
        }
        // The action is stopped where its output cannot be written.
        let store_fails = Some((Step::Write, errno));
        let end = Scene { store_fails, ..with(large()) }.play(&stage);
        assert_eq!(end.kind(), kind(is_exhaustion, "internal"), "{errno}");
        assert_eq!(end.result().stderr_raw, b"warned\n"[..]);
        // A failure of the action itself is told before.
        let store_fails = Some((Step::Put, errno));
        let end = Scene { store_fails, ..with(exits(1)) }.play(&stage);
        assert_eq!((end.kind(), end.result().exit_code), ("ok", 1), "{errno}");
        assert!(end.done.message.contains("storing the standard output"), "{}", end.done.message);
    }
}

#[test]
fn an_errno_while_outputs_are_collected() {
    let stage = Stage::new();
    let tree = || {
        vec![
            (&b"dir"[..], Left::Directory),
            (b"dir/file", Left::File("x")),
            (b"link", Left::Symlink(b"dir")),
        ]
    };
    for (errno, is_exhaustion) in ERRNOS {
        let scenes = || {
            [
                Scene {
                    left: [tree(), vec![(b"bad", Left::Unreadable(errno))]].concat(),
                    ..Scene::default()
                },
                Scene { unlisted: Some(errno), left: tree(), ..Scene::default() },
                Scene {
                    store_fails: Some((Step::ReadFile, errno)),
                    left: tree(),
                    ..Scene::default()
                },
                Scene {
                    store_fails: Some((Step::AdoptFile, errno)),
                    left: tree(),
                    ..Scene::default()
                },
                Scene {
                    store_fails: Some((Step::PutDirectory, errno)),
                    left: tree(),
                    ..Scene::default()
                },
            ]
        };
        for (index, scene) in scenes().into_iter().enumerate() {
            let end = scene.play(&stage);
            assert_eq!(end.kind(), kind(is_exhaustion, "internal"), "{errno}: scene {index}");
            // The rest is there.
            assert_eq!(end.result().output_symlinks.len(), 1, "{errno}: scene {index}");
            assert_eq!(end.result().stdout_raw, b"said\n"[..]);
            assert!(end.done.message.starts_with("not in the result: `"), "{}", end.done.message);
            assert!(!end.is_cached, "{errno}: scene {index}");
        }
        for (index, scene) in scenes().into_iter().enumerate() {
            let end = Scene { behaviour: exits(1), ..scene }.play(&stage);
            assert_eq!((end.kind(), end.result().exit_code), ("ok", 1), "{errno}: scene {index}");
            assert!(end.done.message.starts_with("not in the result: "), "{}", end.done.message);
        }
    }
}

#[test]
fn an_errno_while_the_result_is_cached_leaves_a_good_result() {
    let stage = Stage::new();
    for (errno, _) in ERRNOS {
        let end =
            Scene { store_fails: Some((Step::Cache, errno)), ..Scene::default() }.play(&stage);
        assert_eq!((end.kind(), end.is_cached, end.done.message.as_str()), ("ok", false, ""));
        assert_eq!(end.result().exit_code, 0);
    }
}

#[test]
fn a_stream_over_its_bound_stops_the_action_and_keeps_its_head() {
    let stage = Stage::new();
    let limits = Limits { stream_bytes: 3, ..Limits::default() };
    let config = WorkerConfig { limits, ..WorkerConfig::default() };
    let end = Scene { config, ..Scene::default() }.play(&stage);
    assert_eq!(end.kind(), "resource_exhausted");
    assert_eq!(end.result().stdout_raw, b"sai"[..]);
    assert_eq!(end.done.message, "");
}

#[test]
fn a_command_that_was_parsed_to_find_the_machine_is_not_read_again() {
    let stage = Stage::new();
    let (slot, _) = Scene::default().slot(&stage);
    let job = stage.job(stage.upload(Vec::new()));
    let Machine::This(parsed) = slot.machine_of(&job) else { panic!("it asks for no machine") };
    let command = job.action.command;
    stage.store.cas().delete(&command).unwrap();
    let load = |parsed| slot.load(&job.operation, &job.origin, &job.action, parsed);
    let loaded = load(parsed.map(|parsed| *parsed)).map(|(action, _)| action.action);
    assert_eq!(loaded.unwrap(), job.action.action);
    let unread = load(None).map(drop);
    assert!(matches!(&unread, Err(ActionError::MissingBlobs(blobs)) if *blobs == [command]));
}
