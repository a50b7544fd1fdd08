//! An action's remains for the next one.

use anyhow::ensure;

use crate::case::{Case, steps};
use crate::world::World;

pub(super) const CASES: &[Case] = &[
    steps("files-and-shared-memory", |world| Box::pin(left(world, "leave"))),
    steps("sockets-and-connections", |world| Box::pin(left(world, "network-leftovers"))),
    steps("processes-that-ignore-signals", |world| Box::pin(left(world, "daemons"))),
    steps("a-descriptor-in-a-socket-in-itself", |world| {
        Box::pin(left_by(world, &["descriptor-in-flight", "/execroot/left"]))
    }),
    steps("what-a-killed-action-had", |world| Box::pin(left_by_a_killed_action(world))),
];

async fn left(world: &World, program: &str) -> anyhow::Result<()> {
    left_by(world, &[program]).await
}

async fn left_by(world: &World, words: &[&str]) -> anyhow::Result<()> {
    world.say(words).await?;
    ensure_nothing_found(world).await
}

/// More actions than slots look, so that one is where the last one was.
async fn ensure_nothing_found(world: &World) -> anyhow::Result<()> {
    for _ in 0..6 {
        let found = world.say(&["leftovers"]).await?;
        ensure!(found.is_empty(), "the next action found:\n{found}");
        let found = world.say(&["processes"]).await?;
        ensure!(found.is_empty(), "the next action sees processes:\n{found}");
    }
    Ok(())
}

async fn left_by_a_killed_action(world: &World) -> anyhow::Result<()> {
    let action = world.ready(&["pipes"]).await?.timeout(std::time::Duration::from_millis(300));
    world.run(&action).await?;
    ensure_nothing_found(world).await
}
