//! The calls that change files of the store. No module makes one past this one.
//!
//! They are rustix's own. In the tests of this crate each of them asks [`faults`] first, so that a test can have any
//! of them fail, or have the server die before any of them; the product has nothing of that.

#[cfg(not(test))]
pub(crate) use rustix::fs::{
    fchmod, fchown, fsync, ftruncate, linkat, mkdirat, openat, renameat, renameat_with, syncfs,
    unlinkat,
};
#[cfg(not(test))]
pub(crate) use rustix::io::{pwrite, write};

#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
pub(crate) use faults::calls::{
    fchmod, fchown, fsync, ftruncate, linkat, mkdirat, openat, pwrite, renameat, renameat_with,
    syncfs, unlinkat, write,
};

#[cfg(test)]
mod tests {
    /// A call that another module makes is one that no test can have fail.
    #[test]
    fn no_other_module_changes_files() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let calls = [
            "fchmod",
            "fchown",
            "fsync",
            "fdatasync",
            "ftruncate",
            "fallocate",
            "linkat",
            "mkdirat",
            "renameat",
            "renameat_with",
            "symlinkat",
            "sync_file_range",
            "syncfs",
            "unlinkat",
            "openat",
            "pwrite",
            "pwritev",
            "write",
            "writev",
            "copy_file_range",
            "sendfile",
        ];
        let mut looked_at = 0;
        for entry in std::fs::read_dir(sources).expect("the sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() || path.ends_with("disk.rs") {
                continue;
            }
            looked_at += 1;
            let text = std::fs::read_to_string(&path).expect("a source file");
            let product = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            for statement in product.split(';') {
                let statement = statement.trim_start();
                let words = || statement.split(|it: char| !it.is_alphanumeric() && it != '_');
                let is_import = statement.contains("use rustix::fs::")
                    || statement.contains("use rustix::io::");
                let found = |call: &&str| match is_import {
                    true => words().any(|word| word == *call),
                    false => {
                        statement.contains(&format!("rustix::fs::{call}("))
                            || statement.contains(&format!("rustix::io::{call}("))
                    }
                };
                let past = calls.iter().find(|call| found(call));
                assert_eq!(past, None, "{}: {statement}", path.display());
            }
        }
        assert!(looked_at > 30, "{looked_at} sources");
    }
}
