//! Limits that hold for an action as a whole, which only a cgroup of its own does.

use anyhow::ensure;

use crate::{Client, Outcome};

/// Runs actions with limits of memory and processes, which may run beside the host's root.
///
/// # Errors
/// When a limit does not hold, or ends an action that is within it.
pub async fn expect_bounds(client: &Client) -> Outcome {
    // `dd` has one buffer of that size until all of it is written. As a bound on each process the limit would let all of
    // this pass.
    let hold = "hold() { dd if=/dev/zero bs=40000000 count=1 2> /dev/null | (sleep $1; wc -c); }";
    let both = "40000000\n40000000\n";
    let action = |script: &str| {
        let action = client.action(&format!("{hold}; {script}")).do_not_cache();
        action.property("limits_memory", "64m").property("limits_pids", "20")
    };
    let run = action("hold 0; hold 0").run().await?;
    let (said, errors) = (run.stdout().await?, run.stderr().await?);
    ensure!(said == both, "one process after the other may have 40 MB of 64: {said:?}, {errors:?}");
    run.succeeded().await?;
    let run = action("hold 5 > a & hold 5 > b & wait; cat a b").run().await?;
    let said = run.stdout().await.unwrap_or_default();
    ensure!(said != both, "two processes had 80 MB of at most 64");
    let fork =
        "for n in $(seq 60); do sleep 60 & done 2> /dev/null; jobs -p | wc -l; kill $(jobs -p)";
    let said = action(fork).run().await?.stdout().await?;
    ensure!(
        said.trim().parse::<u32>().unwrap_or(0) < 20,
        "processes of at most 20 were started: {said:?}"
    );
    action("true").run().await?.succeeded().await?;
    Ok(())
}
