//! Quotas that the kernel counts by user: one action's share must not be another's.
//!
//! Pages in pipes, descriptors in flight and epoll watches are counted by user of the host alone, queued signals and message
//! queues also as those of the owner of the user namespace, so these need a user for each sandbox. The others are counted by
//! user in a user namespace, of which each sandbox has its own; so are processes, which fork bombs in `denial` take. Keys are counted by user as well, and no action has any (`kernel/add-a-key`).

use anyhow::{Context as _, ensure};

use crate::case::{Case, Need, Steps, steps};
use crate::host::{self, Process};
use crate::world::{World, eventually};

const fn by_user(name: &'static str, attempt: Steps) -> Case {
    steps(name, attempt).needs(Need::OwnHostUser)
}

const fn by_namespace(name: &'static str, attempt: Steps) -> Case {
    steps(name, attempt).needs(Need::Local)
}

pub(super) const CASES: &[Case] = &[
    by_user("the-user-of-a-neighbour", |world| Box::pin(two_users(world))),
    by_user("pages-of-pipes-of-a-neighbour", |world| {
        Box::pin(beside(world, "pipes", "pipe-size", "65536"))
    }),
    by_user("descriptors-in-flight-of-a-neighbour", |world| {
        Box::pin(beside(world, "in-flight", "send-one", ALLOWED))
    }),
    by_user("epoll-watches-of-a-neighbour", |world| {
        Box::pin(beside(world, "epoll-watches", "watch-one", ALLOWED))
    })
    .costly(),
    by_user("queued-signals-of-a-neighbour", |world| {
        Box::pin(beside(world, "timers", "one-timer", ALLOWED))
    }),
    by_user("message-queues-of-a-neighbour", |world| {
        Box::pin(beside(world, "queues", "one-queue", ALLOWED))
    }),
    by_namespace("inotify-of-a-neighbour", |world| {
        Box::pin(beside(world, "watches", "one-watcher", ALLOWED))
    }),
];

const ALLOWED: &str = "allowed";

/// Two actions at the same time are two users and groups of the host, and neither is one of the system's.
async fn two_users(world: &World) -> anyhow::Result<()> {
    let action = world.ready(&["sleep"]).await?;
    let started = [world.start(&action).await?, world.start(&action).await?];
    let mut owners = Vec::new();
    let both_run = async || {
        owners = world.processes()?.iter().filter_map(Process::owner).collect();
        Ok(owners.len() == 2)
    };
    let both_run = eventually(both_run).await?;
    for action in started {
        world.stop(action).await?;
    }
    ensure!(both_run, "two actions were to run: {owners:?}");
    ensure!(owners[0] != owners[1], "both have the same user: {owners:?}");
    let own = |(user, group): &(u32, u32)| user == group && *user > u32::from(u16::MAX);
    ensure!(owners.iter().all(own), "a user of the system: {owners:?}");
    Ok(())
}

/// A hog has taken all that it can get, which a second process of it shows, and an action beside it prints `expected` all
/// the same.
async fn beside(world: &World, hog: &str, word: &str, expected: &str) -> anyhow::Result<()> {
    let hog = world.start(&world.ready(&[hog]).await?).await?;
    let is_full = eventually(async || Ok(world.processes()?.len() > 1));
    let said = match is_full.await {
        Ok(true) => world.say(&[word]).await,
        Ok(false) => Err(anyhow::anyhow!("the hog takes nothing")),
        Err(error) => Err(error),
    };
    world.stop(hog).await?;
    let said = said.context("beside it")?;
    ensure!(said.trim_end() == expected, "{expected} was expected, and it said: {said}");
    host::ensure_works()
}
