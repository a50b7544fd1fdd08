//! The forms that a strategy takes on one kernel or another.

use super::names::StrategyName;
use crate::error::PresentError;
use crate::mounts::Dialect;
use crate::strategies::{
    ActiondFs, Backing, BindMounts, ByProperties, ErofsOverlay, InputRoots, LinkOverlay, Places,
    TmpfsOverlay,
};

/// A strategy as it can be on one kernel or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    ActiondFs,
    Erofs(Backing, Dialect),
    TmpfsOverlay,
    LinkOverlay(Dialect),
    Bind,
}

impl Variant {
    /// The ways in which a strategy can be done, the best first.
    pub(crate) const fn of(name: StrategyName) -> &'static [Self] {
        match name {
            StrategyName::ActiondFs => &[Self::ActiondFs],
            StrategyName::ErofsFile => &[
                Self::Erofs(Backing::File, Dialect::Descriptors),
                Self::Erofs(Backing::File, Dialect::Paths),
            ],
            StrategyName::ErofsLoop => &[
                Self::Erofs(Backing::Loop, Dialect::Descriptors),
                Self::Erofs(Backing::Loop, Dialect::Paths),
            ],
            StrategyName::TmpfsOverlay => &[Self::TmpfsOverlay],
            StrategyName::LinkOverlay => {
                &[Self::LinkOverlay(Dialect::Descriptors), Self::LinkOverlay(Dialect::Paths)]
            }
            StrategyName::Bind => &[Self::Bind],
        }
    }

    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::ActiondFs => "a file system made for it",
            Self::Erofs(Backing::File, Dialect::Descriptors) => {
                "image in a file, layers by descriptor"
            }
            Self::Erofs(Backing::File, Dialect::Paths) => "image in a file, layers by path",
            Self::Erofs(Backing::Loop, Dialect::Descriptors) => {
                "image on a loop device, layers by descriptor"
            }
            Self::Erofs(Backing::Loop, Dialect::Paths) => "image on a loop device, layers by path",
            Self::TmpfsOverlay => "names in a tmpfs",
            Self::LinkOverlay(Dialect::Descriptors) => "hard links, layers by descriptor",
            Self::LinkOverlay(Dialect::Paths) => "hard links, layers by path",
            Self::Bind => "a mount for every input",
        }
    }

    pub(crate) fn open(
        self,
        name: StrategyName,
        places: &Places,
    ) -> Result<Box<dyn InputRoots>, PresentError> {
        let name = name.as_str();
        Ok(match self {
            Self::ActiondFs => Box::new(ByProperties::new(ActiondFs::open(name, places)?, places)),
            Self::Erofs(backing, dialect) => {
                Box::new(ErofsOverlay::open(name, backing, dialect, places)?)
            }
            Self::TmpfsOverlay => Box::new(TmpfsOverlay::open(name, places)?),
            Self::LinkOverlay(dialect) => Box::new(LinkOverlay::open(name, dialect, places)?),
            Self::Bind => Box::new(BindMounts::open(name, places)?),
        })
    }
}
