//! The default of `--root`.

use std::ffi::OsString;
use std::path::PathBuf;

/// The directory for root.
const SYSTEM: &str = "/tmp/actiond";

/// The directory that `--root` means where it is not given: root's has always been `/tmp/actiond`, other
/// users' is in their cache.
pub(crate) fn default() -> PathBuf {
    default_for(rustix::process::geteuid().as_raw(), |name| std::env::var_os(name))
}

fn default_for(user: u32, variable: impl Fn(&str) -> Option<OsString>) -> PathBuf {
    if user == 0 {
        return SYSTEM.into();
    }
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache =
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    // Without a home there is no better place; the store refuses a directory of another user.
    cache.map_or_else(|| format!("{SYSTEM}-{user}").into(), |cache| cache.join("actiond"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_keep_theirs_in_their_cache() {
        let check = |user, variables: &[(&str, &str)], expected: &str| {
            let read = |name: &str| {
                let found = variables.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| OsString::from(value))
            };
            assert_eq!(default_for(user, read), PathBuf::from(expected));
        };
        check(0, &[("HOME", "/root")], "/tmp/actiond");
        check(1000, &[("HOME", "/h")], "/h/.cache/actiond");
        check(1000, &[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")], "/c/actiond");
        check(1000, &[("HOME", "/h"), ("XDG_CACHE_HOME", "relative")], "/h/.cache/actiond");
        check(1000, &[], "/tmp/actiond-1000");
    }
}
