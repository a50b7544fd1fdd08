//! The modes of files do not depend on the umask. In a file of its own, because the umask is the
//! process's.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use common::{Fixture, SHA256, files};

#[test]
fn blobs_are_readable_for_all_whatever_the_umask() {
    for mask in [0o022, 0o077, 0o777] {
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        let fixture = Fixture::new();
        let digest = fixture.store.cas().put(SHA256, b"abc").expect("stored");
        fixture.store.action_cache().put("", &digest, b"value").expect("stored");
        let mode = |file| fs::metadata(file).expect("a file").permissions().mode() & 0o7777;
        assert_eq!(mode(fixture.blob_file(&digest)), 0o444, "umask {mask:o}");
        let entry = files(&fixture.root.path().join("ac")).remove(0);
        assert_eq!(mode(entry), 0o400, "umask {mask:o}");
    }
}
