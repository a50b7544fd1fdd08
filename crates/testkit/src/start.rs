//! The same cases against a daemon that an ordinary user starts, in one of several ways.
//!
//! A case asks its kit for a daemon and does not know who starts it.

use std::ffi::OsString;

use anyhow::bail;

/// Set to the name of a way to have an ordinary user start the daemons.
const START_AS: &str = "ACTIOND_TEST_START_AS";

/// The user who starts them. No account has this number, and none needs to.
pub const ORDINARY_USER: u32 = 47_110;

/// The script that starts a program in such a way; it says how.
const SCRIPT: &str = include_str!("../../../e2e/start-as.sh");

/// How an ordinary user starts a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAs {
    /// With one id for its user namespace.
    User,
    /// With subordinate ids.
    SubordinateIds,
    /// In a bubblewrap container that allows user namespaces.
    Container,
}

impl StartAs {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::User, Self::SubordinateIds, Self::Container];

    /// The way that the environment asks for, if it does.
    ///
    /// # Errors
    /// When there is no such way.
    pub(crate) fn wanted() -> anyhow::Result<Option<Self>> {
        let Some(name) = std::env::var_os(START_AS) else { return Ok(None) };
        match Self::ALL.into_iter().find(|way| name == way.name()) {
            Some(way) => Ok(Some(way)),
            None => bail!("{START_AS} is set to {name:?}, and no way has that name"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SubordinateIds => "subordinate-ids",
            Self::Container => "container",
        }
    }

    /// The words before a program and its arguments; they need root.
    pub fn words(self) -> Vec<OsString> {
        let user = ORDINARY_USER.to_string();
        let namespace = ["unshare", "--mount", "--propagation", "private"];
        // A shell can't trap a signal that it was started to ignore, as background jobs of shells are.
        let signals = ["env", "--default-signal=INT,QUIT"];
        let script = ["bash", "-c", SCRIPT, "start-as", self.name(), &user];
        namespace.iter().chain(&signals).chain(&script).map(OsString::from).collect()
    }
}
