//! The ids of the host that sandboxes have for themselves.

use std::fmt;
use std::str::FromStr;

use inputroot::{InputRoots, TrialError};
use sandbox::{Pool, RunError};

use crate::taken_ids::{Taken, first_taken};

/// The first id by default. Neither Debian's policy nor systemd's "Users, Groups, UIDs and GIDs on systemd Systems"
/// assigns its range, SSSD and FreeIPA give users of a domain ids up to 2000200000 by default, and it is below 2^31, from
/// which on some programs read an id as negative.
const FIRST: u32 = 2_100_000_000;

/// Ids below this are those of the system, of people, and of what adduser(8) and systemd make.
const LOWEST: u32 = 65_536;

/// The number of ids that may follow the first. There are never as many sandboxes.
const ROOM: u32 = 1 << 16;

/// The reason why all sandboxes share one user of the host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Shared {
    /// `--action-ids=off`.
    #[error("--action-ids=off")]
    Off,
    /// Only root of the initial user namespace may map other owners to the files of a disk.
    #[error("the server is in a user namespace, or not root")]
    UserNamespace,
    /// The strategy mounts input roots that can't be shown to another user.
    #[error("the strategy {0} shows input roots to one user only")]
    Strategy(&'static str),
    /// Somebody else on this machine has one of the ids.
    #[error("{0}; --action-ids can name others")]
    Taken(Taken),
    /// No sandbox with a user of its own can be made.
    #[error("no sandbox of another user can be made")]
    Sandbox(#[source] RunError),
    /// An input root could not be shown to such a user.
    #[error(
        "no input root can be shown to another user (Linux 6.15, and a file system with id-mapped mounts)"
    )]
    InputRoot(#[source] TrialError),
}

/// The first id of sandboxes, if they have any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActionIds(pub Option<u32>);

impl ActionIds {
    /// The first id, if a sandbox of `config` can have a user of its own and `input_roots` can present a tree to that user.
    /// Both are tried. Nobody else may have one of the ids.
    pub(crate) fn try_out(
        self,
        config: &sandbox::Config,
        input_roots: &dyn InputRoots,
    ) -> Result<u32, Shared> {
        let first = self.0.ok_or(Shared::Off)?;
        if !config.ids.are_initial {
            return Err(Shared::UserNamespace);
        }
        if !input_roots.maps_users() {
            return Err(Shared::Strategy(input_roots.name()));
        }
        let ids = u64::from(first)..u64::from(first).saturating_add(config.helpers_max as u64);
        if let Some(taken) = first_taken(&ids) {
            return Err(Shared::Taken(taken));
        }
        let pool = Pool::new(sandbox::Config { first_user: Some(first), ..config.clone() });
        let tried = pool.try_user(|user| match user {
            Some(user) => inputroot::try_user(input_roots, user).map_err(Shared::InputRoot),
            None => Err(Shared::UserNamespace),
        });
        tried.map_err(Shared::Sandbox)?.map(|()| first)
    }
}

impl Default for ActionIds {
    fn default() -> Self {
        Self(Some(FIRST))
    }
}

impl fmt::Display for ActionIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(first) => write!(f, "{first}"),
            None => f.write_str("off"),
        }
    }
}

impl FromStr for ActionIds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let highest = u32::MAX - ROOM;
        let first = text.parse::<u32>().ok().filter(|first| (LOWEST..=highest).contains(first));
        let first = first.ok_or(format!("expected `off`, or an id from {LOWEST} to {highest}"))?;
        Ok(Self(Some(first)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_system_and_of_people_are_refused() {
        let check = |text: &str, expected: Option<Option<u32>>| {
            assert_eq!(text.parse().ok(), expected.map(ActionIds), "{text}");
        };
        check("off", Some(None));
        check("65536", Some(Some(65_536)));
        check("4294901759", Some(Some(4_294_901_759)));
        for text in ["", "0", "1000", "65534", "65535", "4294901760", "4294967296", "-1", "on"] {
            check(text, None);
        }
        assert_eq!(ActionIds::default().to_string().parse(), Ok(ActionIds::default()));
    }
}
