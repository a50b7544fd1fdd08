//! The daemon as an ordinary user starts it: alone, with subordinate ids, or in a container.

use std::{ffi::OsString, fs, os::unix::fs::chown, path::Path};

use anyhow::{Context, Result};

/// The user who starts it, unless another one is named. No account has this number, and none needs to.
pub(crate) const ORDINARY_USER: u32 = 47_110;

/// The variable that has the tests' daemons started in such a way.
pub(crate) const VARIABLE: &str = "ACTIOND_TEST_START_AS";

/// The script that starts a program in such a way; it says how.
const SCRIPT: &str = include_str!("../../e2e/start-as.sh");

/// How an ordinary user starts a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StartAs {
    /// With one id for its user namespace.
    User,
    /// With subordinate ids.
    SubordinateIds,
    /// In a bubblewrap container that allows user namespaces.
    Container,
}

impl StartAs {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::SubordinateIds => "subordinate-ids",
            Self::Container => "container",
        }
    }

    /// The words before a program and its arguments, which need root.
    fn words(self, user: u32) -> Vec<OsString> {
        let user = user.to_string();
        let namespace = ["unshare", "--mount", "--propagation", "private"];
        // A shell can't trap a signal that it was started to ignore, as background jobs of shells are.
        let signals = ["env", "--default-signal=INT,QUIT"];
        let script = ["bash", "-c", SCRIPT, "start-as", self.name(), &user];
        namespace.iter().chain(&signals).chain(&script).map(OsString::from).collect()
    }

    /// The command by which `user` starts the daemon with these flags. Its root directory is made, and
    /// belongs to that user.
    pub(crate) fn serve_command(
        self,
        daemon: &Path,
        user: u32,
        root: &Path,
        flags: &[OsString],
    ) -> Result<Vec<OsString>> {
        give_directory(root, user)?;
        let serve: [OsString; 4] =
            [daemon.into(), "serve".into(), "--root".into(), root.to_owned().into()];
        Ok(self.words(user).into_iter().chain(serve).chain(flags.iter().cloned()).collect())
    }
}

/// Makes a directory that belongs to `user`.
pub(crate) fn give_directory(path: &Path, user: u32) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    chown(path, Some(user), Some(user)).with_context(|| format!("cannot give {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

    #[test]
    fn the_script_knows_every_way() {
        for way in StartAs::value_variants() {
            assert!(
                SCRIPT.contains(&format!("\n{}) ", way.name()))
                    || SCRIPT.contains(&format!("\n{})\n", way.name())),
                "{way:?}"
            );
            assert_eq!(way.to_possible_value().unwrap().get_name(), way.name());
        }
    }
}
