//! Actions of several clients that wait for the same slots.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use testkit::google::longrunning::Operation;
use testkit::{Action, Client, Kit, Outcome, Run, proto};
use tonic::Code;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_build_of_many_actions_does_not_hold_up_another,
    urgent_actions_go_first,
    declared_cores_are_not_given_twice,
    a_full_queue_says_when_to_try_again,
}

fn of_invocation(action: Action, invocation: &str) -> Action {
    let metadata = proto::RequestMetadata {
        tool_invocation_id: invocation.to_owned(),
        ..proto::RequestMetadata::default()
    };
    action.sent_by(metadata)
}

/// When the command of a run began and ended, in nanoseconds.
fn span(run: &Run) -> anyhow::Result<[i128; 2]> {
    let metadata = run.execution_metadata()?;
    let ns = |time: &Option<testkit::google::protobuf::Timestamp>| {
        let time = time.as_ref().context("no timestamp")?;
        Ok::<_, anyhow::Error>(i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos))
    };
    Ok([ns(&metadata.execution_start_timestamp)?, ns(&metadata.execution_completed_timestamp)?])
}

/// An action that was taken on.
struct Started {
    client: Client,
    stream: tonic::Streaming<Operation>,
}

async fn start(action: &Action) -> anyhow::Result<Started> {
    let mut stream = action.start().await?;
    stream.message().await?.context("the stream is empty")?;
    Ok(Started { client: action.client().clone(), stream })
}

impl Started {
    /// Waits for the end.
    async fn run(self) -> anyhow::Result<Run> {
        Run::collect(self.client, self.stream).await
    }
}

async fn a_build_of_many_actions_does_not_hold_up_another(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=1").start().await?;
    let client = daemon.client();
    let numbered = |number: usize| client.action(&format!("sleep 0.05; echo {number}"));
    // So that nothing else starts before all is queued.
    let gate = daemon.gate();
    let before = start(&of_invocation(client.action(&gate.wait()), "many")).await?;
    let mut many = Vec::new();
    for number in 0..20 {
        many.push(start(&of_invocation(numbered(number), "many")).await?);
    }
    let few = start(&of_invocation(numbered(1000), "few")).await?;
    gate.open(1).await?;
    let [few, _] = span(&few.run().await?)?;
    before.run().await?;
    let mut earlier = 0;
    for started in many {
        let [start, _] = span(&started.run().await?)?;
        earlier += usize::from(start < few);
    }
    ensure!(earlier <= 2, "{earlier} of the large build's actions went first");
    Ok(())
}

async fn urgent_actions_go_first(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=1").start().await?;
    let client = daemon.client();
    let gate = daemon.gate();
    let before = start(&client.action(&gate.wait())).await?;
    let late = start(&client.action("echo late").priority(5)).await?;
    let usual = start(&client.action("echo usual")).await?;
    let urgent = start(&client.action("echo urgent").priority(-5)).await?;
    gate.open(1).await?;
    before.run().await?;
    let mut spans = Vec::new();
    for run in [urgent, usual, late] {
        spans.push(span(&run.run().await?)?);
    }
    ensure!(spans.is_sorted(), "{spans:?}");
    Ok(())
}

async fn declared_cores_are_not_given_twice(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--jobs=4").start().await?;
    let client = daemon.client();
    let action = |cores: &str, number: usize| {
        client.action(&format!("sleep 0.3; echo {cores} {number}")).property("cores", cores)
    };
    let mut started = Vec::new();
    // The last declares more than there are.
    for (number, cores) in ["3", "3", "64"].into_iter().enumerate() {
        started.push(start(&action(cores, number)).await?);
    }
    let mut spans = Vec::new();
    for one in started {
        spans.push(span(&one.run().await?)?);
    }
    spans.sort_unstable();
    for two in spans.windows(2) {
        ensure!(two[0][1] <= two[1][0], "two ran at the same time: {spans:?}");
    }
    Ok(())
}

async fn a_full_queue_says_when_to_try_again(kit: Kit) -> Outcome {
    let flags = kit.daemon().host_rootfs().flag("--jobs=1").flag("--queue-limit=1");
    let daemon = flags.start().await?;
    let client = daemon.client();
    let endless = "while :; do sleep 0.1; done";
    let timeout = Duration::from_secs(30);
    let mut started = Vec::new();
    let refused = loop {
        let number = started.len();
        let action = client.action(&format!("{endless}; {number}")).timeout(timeout);
        match start(&action).await {
            Ok(one) => started.push(one),
            Err(error) => break error.downcast::<tonic::Status>()?,
        }
        ensure!(started.len() < 10, "the queue has no bound");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    ensure!(!refused.details().is_empty(), "no RetryInfo: {refused:?}");
    Ok(())
}
