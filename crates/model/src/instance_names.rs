//! The instances that a server has.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{InstanceName, InstanceNameError};

/// The instance names that clients may use; all of them by default. A clone shares the list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceNames(Option<Arc<[InstanceName]>>);

/// An error of the text of a list of instance names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InstanceNamesError {
    /// A name is not an instance name.
    #[error(transparent)]
    Name(#[from] InstanceNameError),
    /// A blank is beside a comma, or at an end.
    #[error("`{0}` begins or ends with a blank; write commas alone between the names")]
    Blank(String),
}

/// A client's instance is not one of those that the server has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "this server has no instance `{name}`: set the client's instance name to one that the server's operator allows"
)]
pub struct NoSuchInstance {
    /// The first 80 characters of the name.
    pub name: String,
}

impl InstanceNames {
    /// Whether clients may use that name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|names| names.iter().any(|it| it.as_str() == name))
    }

    /// Lets a request with that name go on.
    ///
    /// # Errors
    /// [`NoSuchInstance`] for all other names.
    pub fn check(&self, name: &str) -> Result<(), NoSuchInstance> {
        if self.contains(name) {
            Ok(())
        } else {
            Err(NoSuchInstance { name: name.chars().take(80).collect() })
        }
    }

    /// The name for a client that has none set: the default one if it is allowed, else the first.
    pub fn preferred(&self) -> &str {
        match &self.0 {
            Some(names) if !self.contains("") => names.first().map_or("", InstanceName::as_str),
            _ => "",
        }
    }
}

/// Names with commas between. The name of the default instance is empty. A blank beside a comma would be a part of a
/// name that no client has, so there may be none.
impl FromStr for InstanceNames {
    type Err = InstanceNamesError;

    fn from_str(text: &str) -> Result<Self, InstanceNamesError> {
        let parse = |name: &str| {
            let has_blanks = name.trim() != name;
            if has_blanks {
                Err(InstanceNamesError::Blank(name.to_owned()))
            } else {
                Ok(InstanceName::parse(name)?)
            }
        };
        Ok(Self(Some(text.split(',').map(parse).collect::<Result<_, _>>()?)))
    }
}

impl fmt::Display for InstanceNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().flat_map(|names| names.iter());
        for (index, name) in names.enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let check = |text: &str, good: &[&str], bad: &[&str], preferred: &str| {
            let names: InstanceNames = text.parse().unwrap();
            assert_eq!(names.to_string(), text);
            assert!(good.iter().all(|name| names.check(name).is_ok()), "{text}");
            assert!(bad.iter().all(|name| names.check(name).is_err()), "{text}");
            assert_eq!(names.preferred(), preferred, "{text}");
        };
        check("main", &["main"], &["", "mai", "main/x", "Main"], "main");
        check("team/a,team/b", &["team/a", "team/b"], &["", "team"], "team/a");
        check("main,", &["main", ""], &["other"], "");
        check("", &[""], &["main"], "");
        let all = InstanceNames::default();
        assert!(all.contains("") && all.contains("any/thing"));
        assert_eq!((all.preferred(), all.to_string().as_str()), ("", ""));
        for bad in ["a//b", "blobs", "a,/b", "a,b/", "main, dev", "main ,dev", " "] {
            bad.parse::<InstanceNames>().unwrap_err();
        }
    }

    #[test]
    fn a_refusal_names_the_cure() {
        let names: InstanceNames = "main".parse().unwrap();
        let refused = names.check(&"x".repeat(200)).unwrap_err();
        assert_eq!(refused.name.len(), 80);
        assert!(refused.to_string().contains("set the client's instance name"));
    }
}
