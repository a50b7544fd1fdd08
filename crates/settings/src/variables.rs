//! The names of variables: those of the settings, and those that are nobody's.

use std::fmt;

/// The prefix of the variables' names.
const PREFIX: &str = "ACTIOND_";

/// Variables with the prefix that have a meaning elsewhere: the endpoint that `run` gives to its command, the
/// clients' token, the flags that a systemd unit reads from its file, and the file of the GitHub action.
const OTHERS: [&str; 4] = ["ENDPOINT", "TOKEN", "FLAGS", "BAZELRC"];

/// The prefix of variables for this project's own tests, after [`PREFIX`].
const OF_TESTS: &str = "TEST_";

/// A variable with the prefix that sets nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The variable that is most like it, if any is.
    pub suggestion: Option<String>,
}

impl fmt::Display for UnknownVariable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "variable {}: there is no such setting", self.name)?;
        match &self.suggestion {
            Some(name) => write!(f, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

/// The variable of a flag.
pub(crate) fn of_flag(long: &str) -> String {
    format!("{PREFIX}{}", long.replace('-', "_").to_ascii_uppercase())
}

/// The variables that set nothing, given the names of all variables and the flags that have one.
///
/// # Errors
/// The first that is a misspelled setting. Others may be an image's or a cluster's own, such as `ACTIOND_VERSION`
/// or the addresses of a service called `actiond`: they must not keep the daemon from starting.
pub(crate) fn unknown<'a>(
    names: &[String],
    flags: impl Iterator<Item = &'a str>,
) -> Result<Vec<UnknownVariable>, UnknownVariable> {
    let known: Vec<String> = flags.map(of_flag).collect();
    let mut unknown = Vec::new();
    for name in names {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if known.contains(name) || OTHERS.contains(&rest) || rest.starts_with(OF_TESTS) {
            continue;
        }
        match known.iter().find(|known| is_misspelled(rest, &known[PREFIX.len()..])) {
            Some(meant) => {
                let suggestion = Some(meant.clone());
                return Err(UnknownVariable { name: name.clone(), suggestion });
            }
            None => unknown.push(UnknownVariable { name: name.clone(), suggestion: None }),
        }
    }
    Ok(unknown)
}

/// Whether at most every third letter must be changed, as in `LOGS` for `LOG` and `CLIENTS_CA` for `CLIENT_CA`.
fn is_misspelled(name: &str, known: &str) -> bool {
    strsim::damerau_levenshtein(&name.to_ascii_uppercase(), known) * 3 <= known.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: [&str; 5] = ["config", "log", "queue-limit", "root", "tls-client-ca"];

    fn check(name: &str, expected: Result<&[&str], &str>) {
        let found = unknown(&[name.to_owned(), "PATH".to_owned()], FLAGS.into_iter());
        let found = found.map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        let found = found.map_err(|error| error.to_string());
        let expected = expected.map(|all| all.iter().map(|it| (*it).to_owned()).collect());
        assert_eq!(found, expected.map_err(str::to_owned), "{name}");
    }

    #[test]
    fn misspelled_settings_are_errors() {
        for (name, meant) in [
            ("ACTIOND_QUEU_LIMIT", "ACTIOND_QUEUE_LIMIT"),
            ("ACTIOND_QUEUE_LIMITS", "ACTIOND_QUEUE_LIMIT"),
            ("ACTIOND_queue_limit", "ACTIOND_QUEUE_LIMIT"),
            ("ACTIOND_QUEUE-LIMIT", "ACTIOND_QUEUE_LIMIT"),
            ("ACTIOND_TLS_CLIENTS_CA", "ACTIOND_TLS_CLIENT_CA"),
            ("ACTIOND_LOGS", "ACTIOND_LOG"),
            ("ACTIOND_ROTO", "ACTIOND_ROOT"),
            ("ACTIOND_CONFGI", "ACTIOND_CONFIG"),
        ] {
            let error = format!("variable {name}: there is no such setting; did you mean {meant}?");
            check(name, Err(&error));
        }
    }

    #[test]
    fn variables_of_others_are_told_and_no_error() {
        for name in ["ACTIOND_VERSION", "ACTIOND_SERVICE_HOST", "ACTIOND_PORT_8980_TCP", "ACTIOND_"]
        {
            check(name, Ok(&[&format!("variable {name}: there is no such setting")]));
        }
    }

    #[test]
    fn variables_with_a_meaning_are_not_told() {
        for name in [
            "ACTIOND_LOG",
            "ACTIOND_CONFIG",
            "ACTIOND_TLS_CLIENT_CA",
            "ACTIOND_ENDPOINT",
            "ACTIOND_TOKEN",
            "ACTIOND_FLAGS",
            "ACTIOND_BAZELRC",
            "ACTIOND_TEST_STATE_DIR",
            "MY_ACTIOND_LOGS",
        ] {
            check(name, Ok(&[]));
        }
    }
}
