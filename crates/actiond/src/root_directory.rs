//! The default of `--root`, and whether a root directory is lost at the next boot.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directory for root.
const SYSTEM: &str = "/tmp/actiond";

/// TMPFS_MAGIC of <linux/magic.h>.
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// Whether the directory is on a tmpfs; false where the kernel does not tell.
pub(crate) fn is_in_memory(root: &Path) -> bool {
    rustix::fs::statfs(root).is_ok_and(|file_system| file_system.f_type == TMPFS_MAGIC)
}

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
