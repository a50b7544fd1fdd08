//! A file system that is full, in earnest: a small tmpfs that no other process sees.

mod common;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use common::{SHA256, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use store::StoreError;

/// A detached mount: gone with its descriptor.
fn small_tmpfs() -> OwnedFd {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).expect("fsopen");
    fsconfig_set_string(&context, "size", "8m").expect("a size");
    fsconfig_set_string(&context, "mode", "0700").expect("a mode");
    fsconfig_create(&context).expect("a tmpfs");
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).expect("a mount")
}

/// Different content for every number.
fn content(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(256 * 1024 / 4)
}

#[test]
fn a_full_disk_is_an_error_that_leaves_no_trace_and_passes() {
    let mount = small_tmpfs();
    let store = open(&PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd())));
    let cas = store.cas();
    let mut stored = Vec::new();
    let error = loop {
        match cas.put(SHA256, &content(stored.len() as u32)) {
            Ok(digest) => stored.push(digest),
            Err(error) => break error,
        }
        assert!(stored.len() < 100, "the disk never fills up");
    };
    assert!(error.is_out_of_space(), "{error}");
    assert_eq!(store.stats().blobs, stored.len() as u64 + 2, "and the empty ones");
    for digest in &stored {
        assert!(cas.read(digest).expect("read").is_some());
    }

    let mut writer = cas.writer(SHA256, None);
    let written = (1000..1100).try_for_each(|number| writer.write(&content(number)));
    assert!(written.is_err_and(|error| error.is_out_of_space()));
    drop(writer);
    let action = stored[0];
    let result = store.action_cache().put("", &action, &content(0).repeat(40));
    assert!(result.is_err_and(|error: StoreError| error.is_out_of_space()));
    assert!(store.action_cache().get("", &action).expect("read").is_none());

    cas.delete(&stored[0]).expect("deleted");
    cas.put(SHA256, &content(5000)).expect("there is room again");
}
