//! Clients that come in small packages: Siso, recc, trexe, casupload, casdownload, justbuild and BuildStream.
//!
//! They live in roots of Debian unstable, the only suite that has all of them: BuildStream in its own, the others
//! in one. Packages come and go there: where a root can't be made, its clients are skipped, and the reason is told.
//!
//! Each suite builds a workspace of `e2e/` twice: in the client's root without a server, and with every
//! action on the server, which shows actions that same root. The outputs must be equal.

mod buildstream;
mod cas;
mod justbuild;
pub(super) mod recc;
mod siso;
mod surroundings;
mod tls;
pub(super) mod tree;
mod trexe;

use super::{Client, Suite, debian_root::Recipe};

const ROOT: Recipe = Recipe {
    name: "light",
    suites: &["sid"],
    packages: &["buildbox", "g++", "justbuild", "ninja-build", "siso"],
    stubs: &[],
};

/// A Ninja that runs its steps remotely, made for Chromium.
pub(super) const SISO: Client = Client {
    name: "siso",
    recipe: ROOT,
    is_optional: true,
    suites: &[Suite { name: "siso", run: siso::run }],
    more_suites: &[],
};

/// The tools of the BuildGrid project.
pub(super) const BUILDBOX: Client = Client {
    name: "buildbox",
    recipe: ROOT,
    is_optional: true,
    suites: &[
        Suite { name: "recc", run: recc::run },
        Suite { name: "trexe", run: trexe::run },
        Suite { name: "cas", run: cas::run },
        Suite { name: "tls", run: tls::run },
    ],
    more_suites: &[],
};

/// A build system that describes every action by itself.
pub(super) const JUSTBUILD: Client = Client {
    name: "justbuild",
    recipe: ROOT,
    is_optional: true,
    suites: &[Suite { name: "justbuild", run: justbuild::run }],
    more_suites: &[],
};

/// A builder of whole systems.
pub(super) const BUILDSTREAM: Client = Client {
    name: "buildstream",
    recipe: Recipe {
        name: "buildstream",
        suites: &["sid"],
        packages: &["buildbox", "buildstream"],
        stubs: &[],
    },
    is_optional: true,
    suites: &[Suite { name: "buildstream", run: buildstream::run }],
    more_suites: &[],
};
