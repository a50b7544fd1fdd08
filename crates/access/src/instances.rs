//! The rights of a principal, by instance name.
//!
//! An instance name (REAPI) separates cached results and operations. A principal has some rights in every
//! instance, and other ones in those instances that the file of principals names for it.
//!
//! Blobs are one store for all instances, for a blob is its content: `read` and `write-cas` in any instance
//! are `read` and `write-cas` for all blobs.

use std::collections::BTreeMap;

use crate::rights::{Rights, RightsError};

/// The suffix of a pattern that stands for all instances below a name.
const BELOW: &str = "/*";

/// The rights in every instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceRights {
    /// In instances that have no rights of their own.
    elsewhere: Rights,
    /// By name: `ci`.
    named: BTreeMap<String, Rights>,
    /// By the name above, as in `release/*`; the longest first.
    below: Vec<(String, Rights)>,
}

/// A pattern that matches no instance, or whose rights are wrong.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InstanceRightsError {
    #[error("instance {0:?} is no instance name, and no name with /* after it")]
    Pattern(String),
    #[error("the rights in instance {pattern:?}")]
    Rights { pattern: String, source: RightsError },
}

impl InstanceRights {
    /// The same rights in every instance.
    pub(crate) fn everywhere(rights: Rights) -> Self {
        Self { elsewhere: rights, named: BTreeMap::new(), below: Vec::new() }
    }

    /// Other rights in the instances of these patterns.
    pub(crate) fn but_in(
        mut self,
        patterns: BTreeMap<String, Vec<String>>,
    ) -> Result<Self, InstanceRightsError> {
        for (pattern, rights) in patterns {
            let rights = rights.join("+").parse().map_err(|source| {
                InstanceRightsError::Rights { pattern: pattern.clone(), source }
            })?;
            match pattern.strip_suffix(BELOW) {
                Some(above) if is_plain(above) => self.below.push((above.to_owned(), rights)),
                None if pattern.is_empty() || is_plain(&pattern) => {
                    self.named.insert(pattern, rights);
                }
                _ => return Err(InstanceRightsError::Pattern(pattern)),
            }
        }
        self.below.sort_by_key(|(above, _)| std::cmp::Reverse(above.len()));
        Ok(self)
    }

    /// The rights in that instance.
    pub(crate) fn within(&self, instance: &str) -> Rights {
        if let Some(rights) = self.named.get(instance) {
            return *rights;
        }
        let is_below =
            |above: &str| instance.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
        let found = self.below.iter().find(|(above, _)| is_below(above));
        found.map_or(self.elsewhere, |(_, rights)| *rights)
    }

    /// The rights that the principal has in at least one instance.
    pub(crate) fn anywhere(&self) -> Rights {
        self.others().fold(self.elsewhere, |union, rights| union.or(*rights))
    }

    /// The rights that the principal has in every instance.
    pub(crate) fn in_all(&self) -> Rights {
        self.others().fold(self.elsewhere, |intersection, rights| intersection.and(*rights))
    }

    fn others(&self) -> impl Iterator<Item = &Rights> {
        self.named.values().chain(self.below.iter().map(|(_, rights)| rights))
    }
}

/// Whether it can be an instance name, or the upper part of one.
fn is_plain(name: &str) -> bool {
    !name.contains('*') && name.split('/').all(|segment| !segment.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(text: &str) -> Rights {
        text.parse().unwrap()
    }

    fn with(patterns: &[(&str, &str)]) -> Result<InstanceRights, InstanceRightsError> {
        let patterns = patterns
            .iter()
            .map(|(pattern, rights)| ((*pattern).to_owned(), vec![(*rights).to_owned()]));
        InstanceRights::everywhere(rights("read")).but_in(patterns.collect())
    }

    #[test]
    fn the_most_exact_pattern_decides() {
        let table = with(&[
            ("", "execute"),
            ("ci", "client"),
            ("release/*", "none"),
            ("release/trial/*", "write-ac"),
            ("release/trial/x", "all"),
        ])
        .unwrap();
        let check = |instance: &str, expected: &str| {
            assert_eq!(table.within(instance), rights(expected), "{instance}");
        };
        check("", "execute");
        check("ci", "client");
        check("other", "read");
        check("ci/below", "read");
        check("release", "read");
        check("releases/x", "read");
        check("release/x", "none");
        check("release/trial", "none");
        check("release/trial/y", "write-ac");
        check("release/trial/x", "all");
        assert_eq!(table.anywhere(), Rights::ALL);
        assert_eq!(table.in_all(), Rights::NONE);
        assert_eq!(InstanceRights::everywhere(rights("read")).anywhere(), rights("read"));
        assert_eq!(InstanceRights::everywhere(rights("read")).in_all(), rights("read"));
    }

    #[test]
    fn wrong_patterns_are_named() {
        for bad in ["*", "/*", "a*", "a//b", "/a", "a/", "a/*/b", "a/**"] {
            let expected = InstanceRightsError::Pattern(bad.to_owned());
            assert_eq!(with(&[(bad, "read")]), Err(expected), "{bad}");
        }
        let wrong = with(&[("a", "write")]).unwrap_err();
        assert_eq!(wrong.to_string(), "the rights in instance \"a\"");
    }
}
