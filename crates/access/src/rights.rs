//! Rights, and which one a method needs.

use std::fmt;
use std::str::FromStr;

/// A group of methods that a caller may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Read blobs and cached results.
    Read,
    /// Upload blobs.
    WriteCas,
    /// Write results into the action cache.
    WriteAc,
    /// Run actions, and see and cancel operations.
    Execute,
    /// Methods for operators, such as the deletion of blobs.
    Admin,
}

impl Right {
    const ALL: [Self; 5] = [Self::Read, Self::WriteCas, Self::WriteAc, Self::Execute, Self::Admin];

    /// The name of the right in flags and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::WriteCas => "write-cas",
            Self::WriteAc => "write-ac",
            Self::Execute => "execute",
            Self::Admin => "admin",
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rights(u8);

/// A text that names no rights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not all, none, client, or rights joined by + (read, write-cas, write-ac, execute, admin)")]
pub struct RightsError;

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self(0b1_1111);
    /// The rights that a build tool needs: every right but [`Right::Admin`].
    pub const CLIENT: Self = Self(Self::ALL.0 & !(1 << Right::Admin as u8));

    /// The set of these rights.
    pub fn of(rights: impl IntoIterator<Item = Right>) -> Self {
        Self(rights.into_iter().fold(0, |set, right| set | 1 << right as u8))
    }

    /// Whether the set has one of `others`.
    pub fn has_one_of(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// The rights of both sets.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The rights of this set that `other` lacks.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The rights that are in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn names(self) -> String {
        let has = |right: &Right| self.has_one_of(Self::of([*right]));
        Right::ALL.into_iter().filter(has).map(Right::as_str).collect::<Vec<_>>().join("+")
    }
}

impl FromStr for Rights {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<Self, RightsError> {
        match text {
            "all" => return Ok(Self::ALL),
            "none" => return Ok(Self::NONE),
            "client" => return Ok(Self::CLIENT),
            _ => {}
        }
        let right = |name: &str| {
            Right::ALL.into_iter().find(|right| right.as_str() == name).ok_or(RightsError)
        };
        Ok(Self::of(text.split('+').map(right).collect::<Result<Vec<_>, _>>()?))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "none".to_owned() } else { self.names() }.as_str())
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

/// The right that a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needed {
    /// Nothing: anybody may ask whether the server is healthy.
    Nothing,
    /// One of these rights.
    OneOf(Rights),
    /// The method is in no list of rights. Administrators may call it; for others it does not exist.
    Unlisted,
}

/// The right that the method at an HTTP path `/SERVICE/METHOD` needs. A method that is not listed here is closed,
/// so that a new one stays closed until somebody thinks about it.
pub(crate) fn needed(path: &str) -> Needed {
    use Right::{Admin, Execute, Read, WriteAc, WriteCas};
    let one_of = |rights: &[Right]| Needed::OneOf(Rights::of(rights.iter().copied()));
    let path = path.strip_prefix('/').unwrap_or(path);
    let (service, method) = path.split_once('/').unwrap_or((path, ""));
    match (service.strip_prefix("build.bazel.remote.execution.v2.").unwrap_or(service), method) {
        ("grpc.health.v1.Health", _) => Needed::Nothing,
        ("grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection", _)
        | ("Capabilities", "GetCapabilities") => one_of(&[Read, WriteCas, WriteAc, Execute, Admin]),
        // A client asks what is missing before it uploads.
        ("ContentAddressableStorage", "FindMissingBlobs") => one_of(&[Read, WriteCas]),
        ("ContentAddressableStorage", "BatchReadBlobs" | "GetTree" | "SplitBlob")
        | ("google.bytestream.ByteStream", "Read")
        | ("ActionCache", "GetActionResult")
        | ("build.bazel.remote.asset.v1.Fetch", "FetchBlob" | "FetchDirectory")
        | (
            "actiond.internal.v1.History",
            "ListActions" | "ListRecords" | "FollowRecords" | "GetTotals",
        ) => one_of(&[Read]),
        ("ContentAddressableStorage", "BatchUpdateBlobs" | "SpliceBlob")
        | ("google.bytestream.ByteStream", "Write" | "QueryWriteStatus") => one_of(&[WriteCas]),
        // Others trust a pushed asset as they trust a result.
        ("ActionCache", "UpdateActionResult")
        | ("build.bazel.remote.asset.v1.Push", "PushBlob" | "PushDirectory") => one_of(&[WriteAc]),
        // The shell has one more condition, which its service checks: the caller owns the server.
        ("Execution", "Execute" | "WaitExecution")
        | ("google.longrunning.Operations", _)
        | ("actiond.internal.v1.Shell", "Run") => one_of(&[Execute]),
        (
            "actiond.internal.v1.CAS" | "actiond.internal.v1.Images" | "actiond.internal.v1.Store",
            _,
        ) => one_of(&[Admin]),
        _ => Needed::Unlisted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_have_one_notation() {
        let check = |text: &str, rights: &[Right]| {
            assert_eq!(text.parse(), Ok(Rights::of(rights.iter().copied())), "{text}");
        };
        check("none", &[]);
        check("read", &[Right::Read]);
        check("execute+read", &[Right::Read, Right::Execute]);
        check("all", &Right::ALL);
        check("client", &Right::ALL[..4]);
        for bad in ["", "+", "read+", "Read", "write", "read,execute"] {
            assert_eq!(bad.parse::<Rights>(), Err(RightsError), "{bad:?}");
        }
        for rights in [Rights::NONE, Rights::ALL, Rights::of([Right::Read, Right::Admin])] {
            assert_eq!(rights.to_string().parse(), Ok(rights));
        }
    }

    #[test]
    fn methods_need_rights() {
        let check = |path: &str, expected: &str| {
            assert_eq!(needed(path), Needed::OneOf(expected.parse().unwrap()), "{path}");
        };
        let reapi = |method: &str| format!("/build.bazel.remote.execution.v2.{method}");
        assert_eq!(needed("/grpc.health.v1.Health/Check"), Needed::Nothing);
        check(&reapi("Capabilities/GetCapabilities"), "all");
        check(&reapi("ContentAddressableStorage/FindMissingBlobs"), "read+write-cas");
        check(&reapi("ContentAddressableStorage/BatchReadBlobs"), "read");
        check(&reapi("ContentAddressableStorage/BatchUpdateBlobs"), "write-cas");
        check("/google.bytestream.ByteStream/Read", "read");
        check("/google.bytestream.ByteStream/Write", "write-cas");
        check(&reapi("ActionCache/GetActionResult"), "read");
        check(&reapi("ActionCache/UpdateActionResult"), "write-ac");
        check(&reapi("Execution/Execute"), "execute");
        check("/google.longrunning.Operations/CancelOperation", "execute");
        check("/actiond.internal.v1.Shell/Run", "execute");
        check("/actiond.internal.v1.CAS/DeleteBlobs", "admin");
        check("/actiond.internal.v1.Images/PutImage", "admin");
        check("/actiond.internal.v1.History/ListRecords", "read");
        check("/build.bazel.remote.asset.v1.Fetch/FetchBlob", "read");
        check("/build.bazel.remote.asset.v1.Push/PushDirectory", "write-ac");
        for unlisted in ["/google.bytestream.ByteStream/Delete", "/unknown/Method", "/", ""] {
            assert_eq!(needed(unlisted), Needed::Unlisted, "{unlisted}");
        }
    }
}
