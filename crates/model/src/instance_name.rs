//! The name of an instance: the namespace that a client keeps its cached results in.

use std::fmt;
use std::sync::Arc;

/// The longest instance name in bytes: as long as a file name may be, which is enough for the names
/// that people give to teams and projects.
const MAX_BYTES: usize = 255;

/// Path segments that REAPI reserves for resource names; an instance name has none of them.
const RESERVED_SEGMENTS: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "actionResults",
    "operations",
    "capabilities",
    "compressed-blobs",
];

/// A valid REAPI instance name: empty, or segments between slashes, none of them empty or reserved.
///
/// Blobs are shared by all instances, because a blob is its content. Cached results are kept apart.
/// A clone shares the text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct InstanceName(Arc<str>);

/// The text is too long for an instance name, or could be taken for a resource name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not an instance name: segments are not empty and no keyword of REAPI")]
pub struct InstanceNameError {
    /// The first 80 characters of the text.
    pub name: String,
}

impl InstanceName {
    /// Parses the `instance_name` field of a request.
    ///
    /// # Errors
    /// [`InstanceNameError`] for a text that is not an instance name.
    pub fn parse(name: &str) -> Result<Self, InstanceNameError> {
        if Self::is_valid(name) {
            Ok(Self(name.into()))
        } else {
            Err(InstanceNameError { name: name.chars().take(80).collect() })
        }
    }

    /// Whether `name` is an instance name; allocates nothing.
    pub fn is_valid(name: &str) -> bool {
        name.is_empty() || (name.len() <= MAX_BYTES && name.split('/').all(is_valid_segment))
    }

    /// The name as text; empty for the default instance.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_valid_segment(segment: &str) -> bool {
    !segment.is_empty() && !segment.contains('\0') && !RESERVED_SEGMENTS.contains(&segment)
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_valid() {
        for name in ["", "main", "team/project", "with space", "ünïcode", &"x".repeat(255)] {
            let parsed = InstanceName::parse(name);
            assert_eq!(parsed.as_ref().map(InstanceName::as_str), Ok(name));
        }
    }

    #[test]
    fn names_that_are_refused() {
        let long = "x".repeat(256);
        for name in ["/", "a//b", "/a", "a/", "blobs", "a/uploads/b", "operations", "a\0", &long] {
            let error = InstanceName::parse(name).unwrap_err();
            assert!(error.name.len() <= 80 && name.starts_with(&error.name), "{name}");
        }
    }
}
