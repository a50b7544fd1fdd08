//! The names of strategies, as in flags and reports.

use std::fmt;
use std::str::FromStr;

/// A way to present input roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyName {
    /// The kernel reads the tree out of the store. Our own guest's kernel.
    ActiondFs,
    /// An EROFS image in a file, and an overlay. Linux 6.12, state on ext4, xfs or the like.
    ErofsFile,
    /// An EROFS image on a loop device, and an overlay. Linux 6.5.
    ErofsLoop,
    /// A tmpfs with the names, and an overlay without privileges. Linux 6.16.
    TmpfsOverlay,
    /// A tree of hard links, and an overlay without privileges. Linux 5.11.
    LinkOverlay,
    /// A bind mount for every input. Linux 5.12.
    Bind,
}

impl StrategyName {
    /// All of them, the best first.
    pub const ALL: [Self; 6] = [
        Self::ActiondFs,
        Self::ErofsFile,
        Self::ErofsLoop,
        Self::TmpfsOverlay,
        Self::LinkOverlay,
        Self::Bind,
    ];

    /// The name in flags and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ActiondFs => "actiondfs",
            Self::ErofsFile => "erofs-file",
            Self::ErofsLoop => "erofs-loop",
            Self::TmpfsOverlay => "tmpfs-overlay",
            Self::LinkOverlay => "link-overlay",
            Self::Bind => "bind",
        }
    }
}

impl fmt::Display for StrategyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no strategy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no input root strategy {0:?}")]
pub struct UnknownStrategy(String);

impl FromStr for StrategyName {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|strategy| strategy.as_str() == name);
        known.ok_or_else(|| UnknownStrategy(name.to_owned()))
    }
}
