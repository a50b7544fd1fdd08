//! The ways in which an ordinary user starts a program: with one id, with subordinate ids, or in a container.

use std::{ffi::OsString, fs, os::unix::fs::chown, path::Path, str::FromStr};

use anyhow::{Context, Result};

/// The environment variable that names the way in which tests start their daemons.
pub const VARIABLE: &str = "ACTIOND_TEST_START_AS";

/// The user who starts them, unless another one is named. No account has this number, and none needs to.
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

    /// The way that [`VARIABLE`] names, if it is set.
    ///
    /// # Errors
    /// When there is no such way.
    pub fn wanted() -> Result<Option<Self>> {
        let Some(name) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let way = name.to_string_lossy().parse::<Self>();
        way.map(Some).map_err(|error| error.context(VARIABLE))
    }

    /// The name, as `FromStr` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SubordinateIds => "subordinate-ids",
            Self::Container => "container",
        }
    }

    /// The words before a program and its arguments to start it as `user`; they need root.
    pub fn words(self, user: u32) -> Vec<OsString> {
        let user = user.to_string();
        let namespace = ["unshare", "--mount", "--propagation", "private"];
        // A shell can't trap a signal that it was started to ignore, as background jobs of shells and of nohup are.
        let signals = ["env", "--default-signal=INT,QUIT,HUP"];
        let script = ["bash", "-c", SCRIPT, "start-as", self.name(), &user];
        namespace.iter().chain(&signals).chain(&script).map(OsString::from).collect()
    }

    /// The command by which `user` starts `serve` of the program `daemon` with these flags. Makes its root
    /// directory, which belongs to that user.
    ///
    /// # Errors
    /// When the directory can't be made or given to the user, which needs root.
    pub fn serve_command(
        self,
        daemon: &Path,
        user: u32,
        root: &Path,
        flags: &[OsString],
    ) -> Result<Vec<OsString>> {
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        chown(root, Some(user), Some(user))
            .with_context(|| format!("cannot give {} to user {user}", root.display()))?;
        let serve: [OsString; 4] =
            [daemon.into(), "serve".into(), "--root".into(), root.to_owned().into()];
        Ok(self.words(user).into_iter().chain(serve).chain(flags.iter().cloned()).collect())
    }
}

impl FromStr for StartAs {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let way = Self::ALL.into_iter().find(|way| way.name() == name);
        way.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            anyhow::anyhow!("no way to start a program is called {name:?}: there are {names}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_knows_every_way() {
        for way in StartAs::ALL {
            let name = way.name();
            let lines = [format!("\n{name}) "), format!("\n{name})\n")];
            assert!(lines.iter().any(|line| SCRIPT.contains(line)), "{way:?}");
            assert_eq!(name.parse::<StartAs>().unwrap(), way);
        }
        let error = "root".parse::<StartAs>().unwrap_err().to_string();
        assert!(error.contains("subordinate-ids"), "{error}");
    }
}
