//! One case, from the attempt to the verdict.

use anyhow::{Result, bail, ensure};
use prost::Message as _;
use testkit::Run;
use tonic::{Code, Status};

use crate::case::{Attack, Case, Expect, Need, Skip};
use crate::host::Local;
use crate::world::World;

/// The outcome of a case.
pub(crate) enum Verdict {
    /// The walls held.
    Held,
    /// It was not tried.
    Skipped(String),
    /// Something gave way.
    Breach(String),
}

/// Tries a case.
pub(crate) async fn judge(world: &World, case: &Case, quick: bool) -> Verdict {
    if case.costly && quick {
        return Verdict::Skipped("takes long; the full run has it".into());
    }
    let outcome = match lacking(world, case.need).await {
        Ok(None) => attempt(world, case).await,
        Ok(Some(reason)) => return Verdict::Skipped(reason),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => Verdict::Held,
        Err(error) => match error.downcast::<Skip>() {
            Ok(Skip(reason)) => Verdict::Skipped(reason),
            Err(error) => Verdict::Breach(format!("{error:#}")),
        },
    }
}

/// The reason why the case can't be tried here.
async fn lacking(world: &World, need: Need) -> Result<Option<String>> {
    let is_x86 = cfg!(target_arch = "x86_64");
    Ok(match need {
        Need::Local if world.local.is_none() => {
            Some("the server's root directory and process are not known".into())
        }
        Need::Daemon if world.daemon.is_none() => {
            Some("the server's program is not known (--daemon)".into())
        }
        Need::Privileged if world.local.as_ref().is_some_and(|local| !local.sets_limits()) => {
            Some("the server lacks CAP_SYS_RESOURCE".into())
        }
        Need::OwnUser if world.local.as_ref().is_some_and(Local::has_one_id) => Some(
            "actions have the server's user: docs/threat-model.md tells what that means".into(),
        ),
        Need::OwnHostUser if !world.local.as_ref().is_some_and(|local| local.own_users) => Some(
            "actions share one user of the host here: docs/threat-model.md tells what that means"
                .into(),
        ),
        Need::X86 | Need::I386 if !is_x86 => Some("only x86 has this".into()),
        Need::I386 => {
            // getpid by the 32-bit table; a kernel without it ends the program.
            let run = world.run(&world.ready(&["i386", "20:0"]).await?).await?;
            (run.exit_code()? != 0).then(|| "this kernel runs no 32-bit programs".into())
        }
        _ => None,
    })
}

async fn attempt(world: &World, case: &Case) -> Result<()> {
    match case.attack {
        Attack::Steps(steps) => steps(world).await?,
        _ => compare(world, case, start(world, case).await).await?,
    }
    world.ensure_no_process().await?;
    world.host.ensure_untouched()?;
    world.ensure_serves().await
}

/// Runs the action of a case.
async fn start(world: &World, case: &Case) -> Result<Run> {
    let action = match case.attack {
        Attack::Calls(script) => world.prepare(case, &["calls", script]).await?,
        Attack::Program(words) => world.prepare(case, words).await?,
        Attack::Tree(root) => {
            let root = world.client.put(root().encode_to_vec()).await?;
            world.action(&["nothing"]).input_root(root)
        }
        Attack::Command(change) => world.prepare(case, &["nothing"]).await?.change_command(change),
        Attack::Action(change) => {
            let action = world.prepare(case, &["nothing"]).await?;
            return world.run_changed(&action, change).await;
        }
        Attack::Steps(_) => bail!("steps run by themselves"),
    };
    world.run(&action).await
}

async fn compare(world: &World, case: &Case, run: Result<Run>) -> Result<()> {
    match case.expect {
        Expect::Anything => ignore_refusal(run),
        Expect::Refused(codes) => {
            let (code, message) = code_of(run)?;
            ensure!(codes.contains(&code), "{codes:?} was expected, and {code:?} came: {message}");
            Ok(())
        }
        Expect::Fails(errors) => {
            let said = said(&run?).await?;
            let errno = said.lines().last().and_then(|line| line.split_once(' '));
            let (_, errno) = errno.unwrap_or_default();
            ensure!(
                errors.split('|').any(|error| error == errno),
                "{errors} was expected of:\n{said}"
            );
            Ok(())
        }
        Expect::Prints(text) => {
            let said = said(&run?).await?;
            ensure!(said.trim_end() == world.substitute(text), "`{text}` was expected of:\n{said}");
            Ok(())
        }
        Expect::Outputs(expected) => {
            let run = run?;
            let outputs = run.succeeded().await?.outputs()?;
            let expected: Vec<_> = expected.iter().map(|output| world.substitute(output)).collect();
            let said = run.stdout().await?;
            ensure!(
                outputs == expected,
                "{expected:?} was expected, and {outputs:?} came after:\n{said}"
            );
            Ok(())
        }
    }
}

async fn said(run: &Run) -> Result<String> {
    run.succeeded().await?.stdout().await
}

/// A refusal is as good as a result; a server that can't be spoken with is not.
fn ignore_refusal(run: Result<Run>) -> Result<()> {
    code_of(run).map(drop)
}

/// The code of the answer, or of the call.
pub(crate) fn code_of(run: Result<Run>) -> Result<(Code, String)> {
    let error = match run {
        Ok(run) => return Ok((run.code(), run.message().to_owned())),
        Err(error) => error,
    };
    match error.downcast::<Status>() {
        Ok(status) if status.code() != Code::Unknown => {
            Ok((status.code(), status.message().to_owned()))
        }
        Ok(status) => Err(status.into()),
        Err(error) => Err(error),
    }
}
