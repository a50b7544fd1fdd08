//! The parts of a case.

use std::pin::Pin;

use testkit::proto;
use tonic::Code;

use crate::world::{ACTION_TIMEOUT, World};

/// One attack, and what must come of it.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Says what is tried.
    pub(crate) name: &'static str,
    /// The attempt.
    pub(crate) attack: Attack,
    /// The expected outcome.
    pub(crate) expect: Expect,
    /// Symlinks among the inputs: name, target.
    pub(crate) links: &'static [(&'static str, &'static str)],
    pub(crate) working_directory: &'static str,
    pub(crate) outputs: &'static [&'static str],
    pub(crate) properties: &'static [(&'static str, &'static str)],
    /// The timeout that the action asks for.
    pub(crate) timeout_ms: u64,
    /// Without this it can't be tried.
    pub(crate) need: Need,
    /// Takes seconds, or much of the machine.
    pub(crate) costly: bool,
    /// The place of the input root.
    pub(crate) place: Place,
    /// Says nothing of an action whose input root is its root.
    pub(crate) only_beside_a_root: bool,
}

/// The place of an action's input root.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// At `/execroot`, beside the sandbox's root.
    Execroot,
    /// At `/`.
    Root,
}

/// The attempt. Words may hold names of [`crate::host::Host::substitute`].
#[derive(Clone, Copy)]
pub(crate) enum Attack {
    /// An action makes system calls; see the attacker's `script`.
    Calls(&'static str),
    /// An action runs one of the attacker's programs.
    Program(&'static [&'static str]),
    /// An action with this input root.
    Tree(fn() -> proto::Directory),
    /// A command that was changed.
    Command(fn(&mut proto::Command)),
    /// An action that was changed.
    Action(fn(&mut proto::Action)),
    /// Anything else; it judges by itself.
    Steps(Steps),
}

/// Steps that fail with what gave way, or with [`Skip`].
pub(crate) type Steps = fn(&World) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + '_>>;

/// A reason why a case can't be tried here.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Skip(pub(crate) String);

/// The expected outcome of an attack.
#[derive(Clone, Copy)]
pub(crate) enum Expect {
    /// The action ends well, and its last call failed with one of these errors.
    Fails(&'static str),
    /// The action ends well and prints this.
    Prints(&'static str),
    /// There is no result, for one of these reasons.
    Refused(&'static [Code]),
    /// The action ends well and leaves these outputs.
    Outputs(&'static [&'static str]),
    /// Any end: only the checks after every case count.
    Anything,
}

/// The needs of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing but a server.
    Nothing,
    /// To see the server's root directory and processes.
    Local,
    /// The server's program, to start another with principals.
    Daemon,
    /// To run as a server that may set limits for others (CAP_SYS_RESOURCE).
    Privileged,
    /// Actions with a user of their own, whom the kernel tells from the server's.
    OwnUser,
    /// Actions with a user of the host for each sandbox.
    OwnHostUser,
    /// A processor of that family.
    X86,
    /// A kernel that runs 32-bit programs there.
    I386,
}

const fn case(name: &'static str, attack: Attack) -> Case {
    Case {
        name,
        attack,
        expect: Expect::Anything,
        links: &[],
        working_directory: "",
        outputs: &[],
        properties: &[],
        timeout_ms: ACTION_TIMEOUT.as_millis() as u64,
        need: Need::Nothing,
        costly: false,
        place: Place::Execroot,
        only_beside_a_root: false,
    }
}

/// An action that makes system calls.
pub(crate) const fn calls(name: &'static str, script: &'static str) -> Case {
    case(name, Attack::Calls(script))
}

/// An action that runs one of the attacker's programs.
pub(crate) const fn program(name: &'static str, words: &'static [&'static str]) -> Case {
    case(name, Attack::Program(words))
}

/// An action with an input root that must be refused.
pub(crate) const fn tree(name: &'static str, root: fn() -> proto::Directory) -> Case {
    case(name, Attack::Tree(root)).refused(&[Code::InvalidArgument])
}

/// A command that must be refused.
pub(crate) const fn command(name: &'static str, change: fn(&mut proto::Command)) -> Case {
    case(name, Attack::Command(change)).refused(&[Code::InvalidArgument])
}

/// An action that must be refused.
pub(crate) const fn action(name: &'static str, change: fn(&mut proto::Action)) -> Case {
    case(name, Attack::Action(change)).refused(&[Code::InvalidArgument])
}

/// A case of several steps.
pub(crate) const fn steps(name: &'static str, steps: Steps) -> Case {
    case(name, Attack::Steps(steps))
}

impl Case {
    /// The last call must fail with one of these errors, `EPERM|EACCES`.
    pub(crate) const fn fails(self, errors: &'static str) -> Self {
        Self { expect: Expect::Fails(errors), ..self }
    }

    /// This must be printed.
    pub(crate) const fn prints(self, text: &'static str) -> Self {
        Self { expect: Expect::Prints(text), ..self }
    }

    /// The answer must be one of these codes.
    pub(crate) const fn refused(self, codes: &'static [Code]) -> Self {
        Self { expect: Expect::Refused(codes), ..self }
    }

    /// Declares outputs, and what must come of them.
    pub(crate) const fn leaves(
        self,
        declared: &'static [&'static str],
        expected: &'static [&'static str],
    ) -> Self {
        Self { outputs: declared, expect: Expect::Outputs(expected), ..self }
    }

    /// Declares outputs.
    pub(crate) const fn declares(self, outputs: &'static [&'static str]) -> Self {
        Self { outputs, ..self }
    }

    /// Adds symlinks to the inputs.
    pub(crate) const fn links(self, links: &'static [(&'static str, &'static str)]) -> Self {
        Self { links, ..self }
    }

    /// Sets the working directory.
    pub(crate) const fn in_directory(self, path: &'static str) -> Self {
        Self { working_directory: path, ..self }
    }

    /// Sets platform properties.
    pub(crate) const fn properties(
        self,
        properties: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self { properties, ..self }
    }

    /// Sets the timeout.
    pub(crate) const fn timeout_ms(self, timeout_ms: u64) -> Self {
        Self { timeout_ms, ..self }
    }

    /// It can't be tried without.
    pub(crate) const fn needs(self, need: Need) -> Self {
        Self { need, ..self }
    }

    /// It is not tried with the input root as root, where it is allowed or says nothing.
    pub(crate) const fn only_beside_a_root(self) -> Self {
        Self { only_beside_a_root: true, ..self }
    }

    /// It is tried with the input root as root.
    pub(crate) const fn at_the_root(self) -> Self {
        Self { place: Place::Root, ..self }
    }

    /// The same with the input root as root; `None` if it says nothing there or names another root.
    pub(crate) fn in_the_root(self) -> Option<Self> {
        let is_action = matches!(self.attack, Attack::Calls(_) | Attack::Program(_));
        let is_wanted = is_action && self.properties.is_empty() && !self.only_beside_a_root;
        is_wanted.then(|| self.at_the_root())
    }

    /// It is left out of quick runs.
    pub(crate) const fn costly(self) -> Self {
        Self { costly: true, ..self }
    }
}
