//! The paths of the configuration files.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The long name of the flag that names the configuration file. It can't be set in a file.
pub const CONFIG_FLAG: &str = "config";

/// The machine's file.
const SYSTEM_FILE: &str = "/etc/actiond/config.toml";

/// Whether `path` is the machine's file, and not one of a user.
pub(crate) fn is_systems(path: &Path) -> bool {
    path == Path::new(SYSTEM_FILE)
}

/// The files that are read when no flag or variable names one, of rising precedence. Those that do
/// not exist count as empty, and so does a user's file in a home that this process may not enter.
/// `variable` reads the environment.
pub fn default_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder =
        absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let user = folder.map(|folder| folder.join("actiond/config.toml"));
    [PathBuf::from(SYSTEM_FILE)].into_iter().chain(user).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_file_follows_the_machines() {
        let check = |variables: &[(&str, &str)], expected: &[&str]| {
            let read = |name: &str| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(default_files(read), expected);
        };
        check(&[], &[SYSTEM_FILE]);
        check(&[("HOME", "/h")], &[SYSTEM_FILE, "/h/.config/actiond/config.toml"]);
        let both = [("HOME", "/h"), ("XDG_CONFIG_HOME", "/x")];
        check(&both, &[SYSTEM_FILE, "/x/actiond/config.toml"]);
        check(&[("HOME", "relative"), ("XDG_CONFIG_HOME", "")], &[SYSTEM_FILE]);
    }
}
