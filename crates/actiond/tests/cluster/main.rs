//! `linux-actiond worker` in a cluster: the scheduler is a small one of our own, the storage another actiond, or
//! bazel-remote and Buildbarn's where `cargo xtask test` or `cargo xtask e2e upstream` runs this. The build ends right
//! when a part is killed, cut off, drained or restarted amid an action.

mod metrics;
mod recording;
mod scheduler;
mod storage;
mod tls;
mod unreachable;
mod worker_process;

use std::time::Duration;

use ::proto::buildbarn::remoteworker::current_state::WorkerState;
use ::proto::buildbarn::remoteworker::desired_state::Executing;
use anyhow::{Context as _, ensure};
use metrics::the_worker_has_metrics_of_its_scheduler_and_storage;
use recording::{
    the_real_scheduler_answers_as_it_was_recorded,
    the_scheduler_of_the_tests_answers_as_the_real_one,
};
use rustix::process::Signal;
use scheduler::{Answer, Scheduler, order};
use storage::{Other, Storage};
use testkit::proto::{self, ExecuteResponse, Message as _};
use testkit::{Action, Client, Digest, Kit, Outcome, eventually, eventually_async};
use tls::{
    a_server_with_tls_is_named, a_worker_of_strangers_gets_no_action,
    a_worker_shows_its_certificate_to_scheduler_and_storage,
};
use tonic::Code;
use unreachable::{
    a_scheduler_that_is_not_there_is_named, a_server_without_tls_is_named,
    a_storage_that_is_not_there_is_named,
};
use worker_process::WorkerProcess;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    outputs_are_in_the_storage_before_the_answer,
    a_whole_tree_is_fetched,
    results_that_may_not_be_served_again_are_not_cached,
    the_schedulers_timeout_holds,
    missing_inputs_are_named,
    a_malformed_order_is_refused_and_the_next_one_runs,
    an_action_that_the_scheduler_drops_is_stopped,
    the_worker_says_what_it_is,
    a_worker_that_is_killed_costs_one_more_run,
    a_worker_that_is_cut_off_comes_back,
    a_draining_worker_ends_its_action_and_takes_no_other,
    a_worker_whose_time_is_up_gives_its_action_back,
    an_idle_worker_ends_at_once,
    a_scheduler_that_is_not_there_is_named,
    a_storage_that_is_not_there_is_named,
    a_server_without_tls_is_named,
    a_server_with_tls_is_named,
    the_scheduler_is_restarted,
    the_storage_is_restarted_before_the_outputs_are_copied,
    the_storage_is_restarted_before_the_inputs_are_fetched,
    the_storage_is_not_there_when_the_worker_starts,
    a_build_survives_all_of_it,
    bazel_remote_as_storage,
    bb_storage_as_storage,
    a_build_survives_all_of_it_with_bb_storage,
    the_worker_has_metrics_of_its_scheduler_and_storage,
    a_worker_shows_its_certificate_to_scheduler_and_storage,
    a_worker_of_strangers_gets_no_action,
    the_scheduler_of_the_tests_answers_as_the_real_one,
    the_real_scheduler_answers_as_it_was_recorded,
}

/// A cluster without workers.
struct Cluster {
    kit: Kit,
    scheduler: Scheduler,
    storage: Storage,
}

impl Cluster {
    async fn start(kit: Kit) -> anyhow::Result<Self> {
        kit.only_on_the_host("a guest has no network for a cluster")?;
        let storage = Storage::actiond(&kit).await?;
        Ok(Self { scheduler: Scheduler::start().await?, storage, kit })
    }

    /// A cluster with a storage that is not ours.
    async fn with(kit: Kit, storage: Other) -> anyhow::Result<Self> {
        kit.only_on_the_host("a guest has no network for a cluster")?;
        let storage = Storage::other(&kit, storage).await?;
        Ok(Self { scheduler: Scheduler::start().await?, storage, kit })
    }

    fn worker(&self, name: &str, flags: &[&str]) -> anyhow::Result<WorkerProcess> {
        let (scheduler, storage) = (self.scheduler.address(), self.storage.address());
        WorkerProcess::start(&self.kit, name, &scheduler, &storage, flags)
    }

    fn action(&self, script: &str) -> Action {
        self.storage.client().action(script)
    }

    /// Uploads the action and runs it on whatever worker there is.
    async fn run(&self, action: &Action) -> anyhow::Result<Ended> {
        let order = ordered(action).await?;
        self.run_order(order).await
    }

    async fn run_order(&self, order: Executing) -> anyhow::Result<Ended> {
        let response = self.scheduler.run(order).await?;
        Ok(Ended { response, client: self.storage.client() })
    }
}

/// The order to run the action, whose blobs are in the storage.
async fn ordered(action: &Action) -> anyhow::Result<Executing> {
    let digest = action.upload().await?;
    let message = proto::Action::decode(action.client().get(&digest).await?.as_slice())?;
    Ok(order(&digest, message))
}

fn digest_of(order: &Executing, client: &Client) -> anyhow::Result<Digest> {
    let digest = order.action_digest.as_ref().context("an order has a digest")?;
    Ok(Digest::from_proto(digest, client.function())?)
}

/// An action that is over, as the client of the cluster sees it.
struct Ended {
    response: ExecuteResponse,
    client: Client,
}

impl Ended {
    fn code(&self) -> Code {
        self.response.status.as_ref().map_or(Code::Ok, |status| status.code.into())
    }

    fn result(&self) -> anyhow::Result<&proto::ActionResult> {
        let status = &self.response.status;
        self.response.result.as_ref().with_context(|| format!("no result: {status:?}"))
    }

    /// The content of the output, read from the storage.
    async fn file(&self, path: &str) -> anyhow::Result<String> {
        let result = self.result()?;
        let status = &self.response.status;
        ensure!(self.code() == Code::Ok && result.exit_code == 0, "{status:?} {result:?}");
        let file = result.output_files.iter().find(|file| file.path == path);
        let digest = file.and_then(|file| file.digest.as_ref()).context("no such output")?;
        let digest = Digest::from_proto(digest, self.client.function())?;
        Ok(String::from_utf8(self.client.get(&digest).await?)?)
    }
}

async fn outputs_are_in_the_storage_before_the_answer(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let _worker = cluster.worker("w", &["--browser-url=http://browser.example"])?;
    let action = cluster.action("cp in out; mkdir d; seq 100000 > d/deep; echo said");
    let action = action.input("in", "content").output("out").output("d");
    let order = ordered(&action).await?;
    let digest = digest_of(&order, action.client())?;
    let ended = cluster.run_order(order.clone()).await?;
    assert_eq!(ended.file("out").await?, "content");
    let result = ended.result()?;
    assert_eq!(&result.stdout_raw[..], b"said\n");
    let tree = result.output_directories[0].tree_digest.clone().context("a tree")?;
    let tree = Digest::from_proto(&tree, ended.client.function())?;
    let tree = proto::Tree::decode(ended.client.get(&tree).await?.as_slice())?;
    let deep = tree.root.context("a root")?.files[0].digest.clone().context("a digest")?;
    let deep = ended.client.get(&Digest::from_proto(&deep, ended.client.function())?).await?;
    assert!(deep.ends_with(b"\n100000\n"));
    let metadata = result.execution_metadata.as_ref().context("metadata")?;
    assert_eq!(
        (metadata.worker.as_str(), metadata.queued_timestamp),
        ("w", order.queued_timestamp)
    );
    let page = format!("http://browser.example/blobs/sha256/action/{}-", digest.hex());
    assert!(ended.response.message.contains(&page), "{}", ended.response.message);

    let cached = ended.client.cached(&digest).await?.context("the result is cached")?;
    assert_eq!(cached.output_files, result.output_files);
    assert!(cached.stdout_raw.is_empty() && cached.stdout_digest.is_some(), "{cached:?}");
    Ok(())
}

async fn a_whole_tree_is_fetched(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let worker = cluster.worker("w", &[])?;
    let mut action = cluster.action("cat $(find . -name 'f*' | sort) | sha256sum > out");
    let mut whole = String::new();
    for depth in 0..12 {
        for number in 0..20 {
            let content = format!("{depth} {number}\n").repeat(1 + 100 * depth);
            let path = format!("{}f{number:02}", "d/".repeat(depth));
            action = action.input(&path, content.clone());
            whole.push_str(&content);
        }
    }
    let action = action.output("out");
    let ended = cluster.run(&action).await?;
    let lines = ended.file("out").await?;
    assert_eq!(lines.split_whitespace().next().map(str::len), Some(64), "{lines}");
    // A second action with the same inputs fetches nothing: the local store is a cache.
    let again = cluster.run(&action.salt("again")).await?;
    assert_eq!(again.file("out").await?, lines);
    drop(worker);
    Ok(())
}

async fn results_that_may_not_be_served_again_are_not_cached(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let _worker = cluster.worker("w", &[])?;
    let failing = cluster.action("echo why >&2; echo half > out; exit 3").output("out");
    let ended = cluster.run(&failing).await?;
    assert_eq!((ended.code(), ended.result()?.exit_code), (Code::Ok, 3));
    assert_eq!(&ended.result()?.stderr_raw[..], b"why\n");
    let half = ended.result()?.output_files[0].digest.clone().context("a digest")?;
    let half = Digest::from_proto(&half, ended.client.function())?;
    assert_eq!(
        ended.client.get(&half).await?,
        b"half\n",
        "outputs of failed actions are copied too"
    );
    let uncacheable = cluster.action("echo x > out").output("out").do_not_cache();
    assert_eq!(cluster.run(&uncacheable).await?.file("out").await?, "x\n");
    for action in [failing, uncacheable] {
        assert!(action.client().cached(&action.encode().0).await?.is_none());
    }
    Ok(())
}

async fn the_schedulers_timeout_holds(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let _worker = cluster.worker("w", &[])?;
    let action = cluster.action("echo before; sleep 1000").timeout(Duration::from_secs(900));
    // Longer and longer timeouts, until the command had the time to write something.
    for milliseconds in [300, 3000, 30_000, 300_000] {
        let mut order = ordered(&action).await?;
        let message = order.action.as_mut().context("an action")?;
        message.timeout = Some(Duration::from_millis(milliseconds).try_into()?);
        let ended = cluster.run_order(order).await?;
        assert_eq!(ended.code(), Code::DeadlineExceeded);
        assert!(action.client().cached(&action.encode().0).await?.is_none());
        if !ended.result()?.stdout_raw.is_empty() {
            assert_eq!(&ended.result()?.stdout_raw[..], b"before\n");
            return Ok(());
        }
    }
    anyhow::bail!("the command wrote nothing in minutes")
}

async fn missing_inputs_are_named(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let _worker = cluster.worker("w", &[])?;
    let action = cluster.action("cat in > out").input("in", "nobody has it").output("out");
    let lost = action.client().digest("nobody has it");
    let order = ordered(&action).await?;
    action.client().delete(&[lost]).await?;
    let ended = cluster.run_order(order.clone()).await?;
    assert_eq!(ended.code(), Code::FailedPrecondition);
    let status = ended.response.status.context("a status")?;
    let failure = testkit::google::rpc::PreconditionFailure::decode(&status.details[0].value[..])?;
    let subjects: Vec<_> = failure.violations.iter().map(|it| it.subject.clone()).collect();
    assert_eq!(subjects, [format!("blobs/{lost}")]);
    // As the client does.
    action.client().put("nobody has it").await?;
    assert_eq!(cluster.run_order(order).await?.file("out").await?, "nobody has it");
    Ok(())
}

async fn a_malformed_order_is_refused_and_the_next_one_runs(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let _worker = cluster.worker("w", &["--instance=a"])?;
    let action = cluster.action("echo x > out").output("out");
    let good = ordered(&action).await?;
    let changes: [fn(&mut Executing); 5] = [
        |order| order.action = None,
        |order| order.digest_function = 99,
        |order| order.digest_function = 0,
        |order| order.instance_name_suffix = "a/../b".repeat(100),
        |order| order.action.as_mut().unwrap().command_digest = None,
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(cluster.run_order(bad).await?.code(), Code::InvalidArgument);
    }
    assert_eq!(cluster.run_order(good).await?.file("out").await?, "x\n");
    Ok(())
}

async fn an_action_that_the_scheduler_drops_is_stopped(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let worker = cluster.worker("w", &[])?;
    let long = ordered(&cluster.action("sleep 1000000")).await?;
    let digest = digest_of(&long, &cluster.storage.client())?;
    let _nobody = cluster.scheduler.push(long);
    cluster.scheduler.running(&digest).await?;
    cluster.scheduler.drop_action(&digest);
    // There is one slot: this runs only once the other has been stopped.
    let next = cluster.action("echo next > out").output("out");
    assert_eq!(cluster.run(&next).await?.file("out").await?, "next\n");
    assert!(worker.log().contains("does not want the action"), "{}", worker.log());
    Ok(())
}

async fn the_worker_says_what_it_is(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let flags =
        ["--platform=pool=b", "--platform=OSFamily=linux", "--size-class=4", "--instance=team/x"];
    let _worker = cluster.worker("name", &flags)?;
    let action = cluster.action("echo x > out").output("out");
    cluster.run(&action).await?.file("out").await?;
    let request = cluster.scheduler.requests().into_iter().next().context("a request")?;
    let properties = request.platform.context("a platform")?.properties;
    let properties: Vec<_> =
        properties.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
    assert_eq!(properties, [("OSFamily", "linux"), ("pool", "b")], "sorted");
    assert_eq!((request.size_class, request.instance_name_prefix.as_str()), (4, "team/x"));
    assert_eq!(request.worker_id.get("node").map(String::as_str), Some("name"));
    // The result has the whole instance name.
    let client = cluster.storage.client();
    let digest = action.encode().0;
    assert!(client.with_instance("team/x").cached(&digest).await?.is_some());
    assert!(client.cached(&digest).await?.is_none());
    Ok(())
}

async fn a_worker_that_is_killed_costs_one_more_run(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let first = cluster.worker("first", &[])?;
    let gate = cluster.storage.gate();
    let action = cluster.action(&format!("{}; echo x > out", gate.wait())).output("out");
    let order = ordered(&action).await?;
    let digest = digest_of(&order, action.client())?;
    let run = cluster.run_order(order);
    let fault = async {
        cluster.scheduler.running(&digest).await?;
        cluster.scheduler.give_up_soon();
        first.signal(Signal::KILL)?;
        let second = cluster.worker("second", &[])?;
        // The process of the first may still be there.
        cluster.scheduler.running_on(&digest, Some("second")).await?;
        gate.open(1).await?;
        anyhow::Ok(second)
    };
    let (ended, second) = tokio::join!(run, fault);
    let (ended, _second) = (ended?, second?);
    assert_eq!(ended.file("out").await?, "x\n");
    let metadata = ended.result()?.execution_metadata.clone().context("metadata")?;
    assert_eq!(metadata.worker, "second");
    Ok(())
}

async fn a_worker_that_is_cut_off_comes_back(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let worker = cluster.worker("w", &[])?;
    let long = ordered(&cluster.action("sleep 1000000")).await?;
    let digest = digest_of(&long, &cluster.storage.client())?;
    let answer = cluster.scheduler.push(long);
    cluster.scheduler.running(&digest).await?;
    cluster.scheduler.give_up_soon();
    worker.signal(Signal::STOP)?;
    let answer = answer.await?;
    assert!(matches!(answer, Answer::WorkerLost), "{answer:?}");
    worker.signal(Signal::CONT)?;
    let next = cluster.action("echo next > out").output("out");
    assert_eq!(cluster.run(&next).await?.file("out").await?, "next\n");
    Ok(())
}

async fn a_draining_worker_ends_its_action_and_takes_no_other(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let mut worker = cluster.worker("w", &["--drain-timeout-ms=600000"])?;
    let gate = cluster.storage.gate();
    let action = cluster.action(&format!("{}; echo x > out", gate.wait())).output("out");
    let order = ordered(&action).await?;
    let digest = digest_of(&order, action.client())?;
    let answer = cluster.scheduler.push(order);
    let mut waiting = cluster.scheduler.push(ordered(&cluster.action("echo other")).await?);
    cluster.scheduler.running(&digest).await?;
    worker.signal(Signal::TERM)?;
    eventually("the worker drains", || Ok(worker.log().contains("draining"))).await?;
    gate.open(1).await?;
    let Answer::Done(response) = answer.await? else { panic!("the worker was lost") };
    let ended = Ended { response: *response, client: cluster.storage.client() };
    assert_eq!(ended.file("out").await?, "x\n");
    assert!(worker.wait()?.success(), "{}", worker.log());
    assert!(waiting.try_recv().is_err(), "the other action was taken");
    let last = cluster.scheduler.requests().into_iter().next_back().context("a request")?;
    assert!(last.prefer_being_idle);
    Ok(())
}

async fn a_worker_whose_time_is_up_gives_its_action_back(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let mut worker = cluster.worker("w", &["--drain-timeout-ms=100"])?;
    let long = ordered(&cluster.action("sleep 1000000")).await?;
    let digest = digest_of(&long, &cluster.storage.client())?;
    let answer = cluster.scheduler.push(long);
    cluster.scheduler.running(&digest).await?;
    worker.signal(Signal::TERM)?;
    let Answer::Done(response) = answer.await? else { panic!("the scheduler was not told") };
    let code: Code = response.status.unwrap_or_default().code.into();
    assert_eq!(code, Code::Unavailable, "a client tries again elsewhere");
    assert!(!worker.wait()?.success());
    Ok(())
}

async fn an_idle_worker_ends_at_once(kit: Kit) -> Outcome {
    let cluster = Cluster::start(kit).await?;
    let mut worker = cluster.worker("w", &["--drain-timeout-ms=600000"])?;
    let is_known = || Ok(!cluster.scheduler.requests().is_empty());
    eventually("the worker calls", is_known).await?;
    worker.signal(Signal::TERM)?;
    assert!(worker.wait()?.success(), "{}", worker.log());
    let last = cluster.scheduler.requests().into_iter().next_back().context("a request")?;
    let state = last.current_state.and_then(|state| state.worker_state);
    assert_eq!((state, last.prefer_being_idle), (Some(WorkerState::Idle(())), true));
    Ok(())
}

async fn the_scheduler_is_restarted(kit: Kit) -> Outcome {
    let mut cluster = Cluster::start(kit).await?;
    let _worker = cluster.worker("w", &[])?;
    let long = ordered(&cluster.action("sleep 1000000")).await?;
    let digest = digest_of(&long, &cluster.storage.client())?;
    let answer = cluster.scheduler.push(long);
    cluster.scheduler.running(&digest).await?;
    cluster.scheduler.restart().await?;
    assert!(answer.await.is_err(), "the client's stream breaks");
    // The worker is told that nobody wants what it runs.
    let next = cluster.action("echo next > out").output("out");
    assert_eq!(cluster.run(&next).await?.file("out").await?, "next\n");
    Ok(())
}

async fn the_storage_is_restarted_before_the_outputs_are_copied(kit: Kit) -> Outcome {
    let mut cluster = Cluster::start(kit).await?;
    let worker = cluster.worker("w", &[])?;
    let gate = cluster.storage.gate();
    let action = cluster.action(&format!("{}; echo x > out", gate.wait())).output("out");
    let order = ordered(&action).await?;
    let digest = digest_of(&order, action.client())?;
    let answer = cluster.scheduler.push(order);
    cluster.scheduler.running(&digest).await?;
    cluster.storage.kill()?;
    gate.open(1).await?;
    eventually("the worker waits", || Ok(worker.log().contains("waits for it"))).await?;
    cluster.storage.start_again(&cluster.kit).await?;
    let Answer::Done(response) = answer.await? else { panic!("the worker was lost") };
    let ended = Ended { response: *response, client: cluster.storage.client() };
    assert_eq!(ended.file("out").await?, "x\n");
    assert!(ended.client.cached(&digest).await?.is_some());
    Ok(())
}

async fn the_storage_is_restarted_before_the_inputs_are_fetched(kit: Kit) -> Outcome {
    let mut cluster = Cluster::start(kit).await?;
    let worker = cluster.worker("w", &[])?;
    cluster.run(&cluster.action("echo first > out").output("out")).await?.file("out").await?;
    let action = cluster.action("cat in > out").input("in", "content").output("out");
    let order = ordered(&action).await?;
    // The worker may wait for an action while the storage goes.
    cluster.storage.kill()?;
    let answer = cluster.scheduler.push(order);
    let is_told = || Ok(worker.log().contains("waits for it") || worker.log().contains("is down"));
    eventually("the worker notices", is_told).await?;
    cluster.storage.start_again(&cluster.kit).await?;
    let Answer::Done(response) = answer.await? else { panic!("the worker was lost") };
    let ended = Ended { response: *response, client: cluster.storage.client() };
    assert_eq!(ended.file("out").await?, "content");
    Ok(())
}

async fn the_storage_is_not_there_when_the_worker_starts(kit: Kit) -> Outcome {
    let mut cluster = Cluster::start(kit).await?;
    let action = cluster.action("cat in > out").input("in", "content").output("out");
    let order = ordered(&action).await?;
    cluster.storage.kill()?;
    let worker = cluster.worker("w", &[])?;
    let answer = cluster.scheduler.push(order);
    let says_so = || Ok(worker.log().contains("the upstream is down; actions wait for it"));
    eventually("the log says why no action is taken", says_so).await?;
    cluster.storage.start_again(&cluster.kit).await?;
    let Answer::Done(response) = answer.await? else { panic!("the worker was lost") };
    let ended = Ended { response: *response, client: cluster.storage.client() };
    assert_eq!(ended.file("out").await?, "content");
    Ok(())
}

async fn a_build_survives_all_of_it(kit: Kit) -> Outcome {
    survive_all_of_it(Cluster::start(kit).await?).await
}

async fn a_build_survives_all_of_it_with_bb_storage(kit: Kit) -> Outcome {
    survive_all_of_it(Cluster::with(kit, Other::BbStorage).await?).await
}

/// Three workers; one is killed, one cut off, one drained, and the storage restarted, while thirty actions run.
async fn survive_all_of_it(mut cluster: Cluster) -> Outcome {
    let killed = cluster.worker("killed", &[])?;
    let stopped = cluster.worker("cut-off", &[])?;
    let mut drained = cluster.worker("drained", &["--drain-timeout-ms=600000"])?;
    let mut orders = Vec::new();
    for number in 0..30 {
        let action = cluster.action(&format!("cat in > out; sleep 0.{}", number % 5));
        let action = action.input("in", format!("content {number}")).output("out");
        orders.push(ordered(&action).await?);
    }
    let (started, client) = (&cluster.scheduler, cluster.storage.client());
    let mut builds: Vec<_> = orders.iter().map(|order| started.push(order.clone())).collect();
    let is_under_way = || Ok(started.requests().len() > 8);
    eventually("the build is under way", is_under_way).await?;
    cluster.scheduler.give_up_soon();
    killed.signal(Signal::KILL)?;
    stopped.signal(Signal::STOP)?;
    cluster.storage.kill()?;
    cluster.storage.start_again(&cluster.kit).await?;
    drained.signal(Signal::TERM)?;
    assert!(drained.wait()?.success(), "{}", drained.log());
    let _fourth = cluster.worker("fourth", &[])?;
    for (number, build) in builds.drain(..).enumerate() {
        let response = match build.await? {
            Answer::Done(response) => *response,
            Answer::WorkerLost => cluster.scheduler.run(orders[number].clone()).await?,
        };
        let ended = Ended { response, client: client.clone() };
        // Connections break when the storage is restarted.
        let content = async || Ok(ended.file("out").await.is_ok());
        eventually_async("the output is in the storage", content).await?;
        assert_eq!(ended.file("out").await?, format!("content {number}"));
    }
    stopped.signal(Signal::CONT)?;
    Ok(())
}

async fn bazel_remote_as_storage(kit: Kit) -> Outcome {
    another_storage(kit, Other::BazelRemote).await
}

async fn bb_storage_as_storage(kit: Kit) -> Outcome {
    another_storage(kit, Other::BbStorage).await
}

async fn another_storage(kit: Kit, other: Other) -> Outcome {
    let mut cluster = Cluster::with(kit, other).await?;
    let worker = cluster.worker("w", &[])?;
    let large = "x".repeat(2 << 20);
    let action = cluster.action("cat in > out").input("in", large.clone()).output("out");
    let ended = cluster.run(&action).await?;
    assert_eq!(ended.file("out").await?, large);
    assert!(ended.client.cached(&action.encode().0).await?.is_some());

    let gate = cluster.storage.gate();
    let action = cluster.action(&format!("{}; echo x > out", gate.wait())).output("out");
    let order = ordered(&action).await?;
    let digest = digest_of(&order, action.client())?;
    let answer = cluster.scheduler.push(order);
    cluster.scheduler.running(&digest).await?;
    cluster.storage.kill()?;
    gate.open(1).await?;
    eventually("the worker waits", || Ok(worker.log().contains("waits for it"))).await?;
    cluster.storage.start_again(&cluster.kit).await?;
    let Answer::Done(response) = answer.await? else { panic!("the worker was lost") };
    let ended = Ended { response: *response, client: cluster.storage.client() };
    assert_eq!(ended.file("out").await?, "x\n");
    Ok(())
}
