//! Outputs of hostile actions on their way into the store.

mod common;

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use common::{Fixture, SHA256};
use model::Digest;
use rustix::fs::{
    CWD, FallocateFlags, FileType, IFlags, Mode, XattrFlags, fallocate, fsetxattr, ioctl_getflags,
    ioctl_setflags, mknodat,
};
use store::{AdoptError, Adopted};

const LIMIT: u64 = 10 << 20;

/// A store and the directory of an action that is dead.
struct Outputs {
    fixture: Fixture,
    directory: PathBuf,
}

impl Outputs {
    fn new() -> Self {
        let fixture = Fixture::new();
        let directory = fixture.store.work_dir().join("action");
        fs::create_dir(&directory).expect("a directory");
        Self { fixture, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A file as an action makes it.
    fn write(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file");
        chown(&path, Some(65534), Some(65534)).expect("chown");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        path
    }

    fn adopt(&self, name: &str) -> Result<Adopted, AdoptError> {
        let directory = File::open(&self.directory).expect("a directory");
        let name = CString::new(name).expect("a name");
        let cas = self.fixture.store.cas();
        cas.adopt(SHA256, directory.as_fd(), &name, LIMIT)
    }

    /// Adopts a file and checks that a blob like any other came of it.
    fn check(&self, name: &str, content: &[u8], executable: bool) -> fs::Metadata {
        let adopted = self.adopt(name).expect("adopted");
        let digest = Digest::of(SHA256, content);
        let left = adopted.left;
        assert_eq!(adopted, Adopted { digest, executable, left }, "{name}");
        let is_executable = left.unix_mode.expect("a mode") & 0o111 != 0;
        assert!(is_executable == executable && left.mtime.is_some(), "{name}: {left:?}");
        let read = self.fixture.store.cas().read(&digest).expect("read");
        assert!(read.expect("there") == content, "{name}");
        let blob = self.fixture.blob_file(&digest);
        let stat = fs::symlink_metadata(&blob).expect("a file");
        assert_eq!(stat.mode(), 0o100_444, "{name}");
        assert_eq!((stat.uid(), stat.gid()), (0, 0), "{name}");
        let file = File::open(&blob).expect("a file");
        assert_eq!(rustix::fs::flistxattr_query(&file), Ok(0), "{name}");
        stat
    }

    /// Adopts a file and checks that its blob is another file.
    fn check_is_copied(&self, name: &str, content: &[u8]) {
        let before = fs::symlink_metadata(self.path(name)).expect("a file");
        let stat = self.check(name, content, false);
        assert_ne!(stat.ino(), before.ino(), "{name}");
        assert_eq!(stat.nlink(), 1, "{name}");
        let after = fs::symlink_metadata(self.path(name)).expect("a file");
        assert_eq!(after.uid(), before.uid(), "{name} was not touched");
    }

    fn check_is_refused(&self, name: &str, kind: FileType) {
        let blobs = self.fixture.blob_files();
        let error = self.adopt(name).expect_err("refused");
        assert!(
            matches!(error, AdoptError::NotAFile { kind: found, .. } if found == kind),
            "{name}: {error}"
        );
        assert_eq!(self.fixture.blob_files(), blobs);
    }
}

fn make_node(path: &Path, kind: FileType, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o666), device).expect("a node");
}

#[test]
fn a_plain_file_becomes_the_blob_itself() {
    let outputs = Outputs::new();
    for (name, mode, executable) in [
        ("plain", 0o644, false),
        ("tool", 0o755, true),
        ("for others", 0o601, true),
        ("secret", 0o000, false),
    ] {
        let content = name.as_bytes();
        let path = outputs.write(name, content, mode);
        let inode = fs::metadata(&path).expect("a file").ino();
        let stat = outputs.check(name, content, executable);
        assert_eq!(stat.ino(), inode, "{name}: no copy");
    }
}

#[test]
fn once_the_directory_is_gone_the_blob_has_one_name() {
    let outputs = Outputs::new();
    outputs.write("file", b"content", 0o644);
    outputs.check("file", b"content", false);
    fs::remove_dir_all(&outputs.directory).expect("removed");
    let blob = outputs.fixture.blob_file(&Digest::of(SHA256, b"content"));
    assert_eq!(fs::metadata(&blob).expect("a file").nlink(), 1);
}

#[test]
fn files_around_the_size_of_a_read() {
    let outputs = Outputs::new();
    for size in [0, 1, 4096, 262_143, 262_144, 262_145, 5_000_000] {
        let content: Vec<u8> = (0..size).map(|i| (i * 3) as u8).collect();
        let name = size.to_string();
        outputs.write(&name, &content, 0o644);
        outputs.check(&name, &content, false);
    }
}

#[test]
fn what_is_there_already_is_left() {
    let outputs = Outputs::new();
    let digest = outputs.fixture.store.cas().put(SHA256, b"known").expect("stored");
    let blob = outputs.fixture.blob_file(&digest);
    let before = fs::metadata(&blob).expect("a file").ino();
    outputs.write("file", b"known", 0o755);
    outputs.check("file", b"known", true);
    assert_eq!(fs::metadata(&blob).expect("a file").ino(), before);
    outputs.check("file", b"known", true);
}

#[test]
fn the_same_output_declared_twice_is_one_blob() {
    let outputs = Outputs::new();
    outputs.write("file", b"content", 0o644);
    outputs.check("file", b"content", false);
    // Its mode is the blob's by now; a caller collects a file once.
    outputs.check("file", b"content", false);
}

#[test]
fn symlinks_are_not_followed() {
    let outputs = Outputs::new();
    outputs.write("file", b"content", 0o644);
    for (name, target) in [
        ("link", "file"),
        ("passwd", "/etc/shadow"),
        ("dangling", "nowhere"),
        ("root", "/proc/self/root"),
    ] {
        symlink(target, outputs.path(name)).expect("a symlink");
        outputs.check_is_refused(name, FileType::Symlink);
    }
}

#[test]
fn nothing_but_a_regular_file_is_opened() {
    let outputs = Outputs::new();
    make_node(&outputs.path("fifo"), FileType::Fifo, 0);
    outputs.check_is_refused("fifo", FileType::Fifo);
    let zero = rustix::fs::makedev(1, 5);
    make_node(&outputs.path("zero"), FileType::CharacterDevice, zero);
    outputs.check_is_refused("zero", FileType::CharacterDevice);
    make_node(&outputs.path("whiteout"), FileType::CharacterDevice, 0);
    outputs.check_is_refused("whiteout", FileType::CharacterDevice);
    let disk = rustix::fs::makedev(7, 0);
    make_node(&outputs.path("disk"), FileType::BlockDevice, disk);
    outputs.check_is_refused("disk", FileType::BlockDevice);
    fs::create_dir(outputs.path("directory")).expect("a directory");
    outputs.check_is_refused("directory", FileType::Directory);
    let _socket = UnixListener::bind(outputs.path("socket")).expect("a socket");
    outputs.check_is_refused("socket", FileType::Socket);
}

#[test]
fn a_name_is_one_name() {
    let outputs = Outputs::new();
    fs::create_dir(outputs.path("sub")).expect("a directory");
    outputs.write("sub/file", b"content", 0o644);
    for name in ["sub/file", "../lock", "..", ".", "", "/etc/passwd", "sub/"] {
        let error = outputs.adopt(name).expect_err("refused");
        assert!(matches!(error, AdoptError::Io { .. }), "{name}: {error}");
    }
}

#[test]
fn what_is_not_there_is_enoent() {
    let outputs = Outputs::new();
    let error = outputs.adopt("nothing").expect_err("refused");
    let AdoptError::Io { source, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_file_with_other_names_is_copied() {
    let outputs = Outputs::new();
    let path = outputs.write("file", b"content", 0o644);
    fs::hard_link(&path, outputs.path("other")).expect("a link");
    outputs.check_is_copied("file", b"content");
    fs::write(outputs.path("other"), "changed later").expect("written");
    let digest = Digest::of(SHA256, b"content");
    let read = outputs.fixture.store.cas().read(&digest).expect("read");
    assert_eq!(read.expect("there"), "content");
}

#[test]
fn a_file_with_attributes_is_copied() {
    let outputs = Outputs::new();
    // An ACL that lets uid 65534 write: version 2; user, named user, group, mask, other.
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [
        (0x01_u16, 6_u16, u32::MAX),
        (0x02, 6, 65534),
        (0x04, 4, u32::MAX),
        (0x10, 6, u32::MAX),
        (0x20, 4, u32::MAX),
    ] {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let set = |name: &str, attribute: &CStr, value: &[u8]| {
        let path = outputs.write(name, name.as_bytes(), 0o644);
        let file = File::options().write(true).open(path).expect("a file");
        fsetxattr(&file, attribute, value, XattrFlags::empty()).expect("an attribute");
    };
    set("user", c"user.note", b"hello");
    outputs.check_is_copied("user", b"user");
    set("acl", c"system.posix_acl_access", &acl);
    outputs.check_is_copied("acl", b"acl");
    set("trusted", c"trusted.overlay.metacopy", b"");
    outputs.check_is_copied("trusted", b"trusted");
    // A name as long as that of SELinux's label.
    set("as long", c"user.0123456789a", b"x");
    outputs.check_is_copied("as long", b"as long");
    // Where SELinux does not run, nothing of the store has a label.
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        set("label", c"security.selinux", b"system_u:object_r:forged_t:s0");
        outputs.check_is_copied("label", b"label");
    }
}

#[test]
fn a_label_like_those_of_the_store_is_let_pass() {
    if Path::new("/sys/fs/selinux/enforce").exists() {
        eprintln!("skipped: SELinux itself gives labels here");
        return;
    }
    let outputs = Outputs::new();
    let label = |path: &Path, value: &[u8]| {
        let file = File::open(path).expect("a file");
        fsetxattr(&file, c"security.selinux", value, XattrFlags::empty()).expect("a label");
    };
    let blobs = outputs.fixture.blob_file(&Digest::of(SHA256, b"any"));
    let blobs = blobs.ancestors().find(|path| path.ends_with("blobs")).expect("the blobs");
    label(blobs, b"system_u:object_r:var_lib_t:s0");
    for (name, value, is_usual) in [
        ("usual", "system_u:object_r:var_lib_t:s0", true),
        ("of another user", "unconfined_u:object_r:var_lib_t:s0", true),
        ("of another type", "system_u:object_r:bin_t:s0", false),
        ("of another level", "system_u:object_r:var_lib_t:s0:c1,c2", false),
        ("not a label", "x", false),
    ] {
        let path = outputs.write(name, name.as_bytes(), 0o644);
        label(&path, value.as_bytes());
        let inode = fs::metadata(&path).expect("a file").ino();
        outputs.adopt(name).expect("adopted");
        let blob = outputs.fixture.blob_file(&Digest::of(SHA256, name.as_bytes()));
        let is_taken = fs::metadata(blob).expect("a file").ino() == inode;
        assert_eq!(is_taken, is_usual, "{name}");
    }
}

/// With the flags of `chattr` that ext4 has; other file systems have some of them.
#[test]
fn a_file_with_flags_is_copied() {
    let outputs = Outputs::new();
    let mut tried = 0;
    for (name, flag) in [
        ("immutable", IFlags::IMMUTABLE),
        ("append-only", IFlags::APPEND),
        ("not dumped", IFlags::NODUMP),
        ("without access times", IFlags::NOATIME),
        ("synchronous", IFlags::SYNC),
        ("compressed", IFlags::COMPRESSED),
        ("securely removed", IFlags::SECURE_REMOVAL),
        ("undeletable", IFlags::UNRM),
        ("journaled", IFlags::JOURNALING),
        ("without tail", IFlags::NOTAIL),
    ] {
        let path = outputs.write(name, name.as_bytes(), 0o644);
        let file = File::open(&path).expect("a file");
        let Ok(plain) = ioctl_getflags(&file) else { continue };
        // Some file systems refuse a flag, others ignore it.
        let _ = ioctl_setflags(&file, plain | flag);
        if ioctl_getflags(&file).expect("flags").contains(flag) {
            tried += 1;
            outputs.check_is_copied(name, name.as_bytes());
            let blob = outputs.fixture.blob_file(&Digest::of(SHA256, name.as_bytes()));
            let blob = File::open(blob).expect("a file");
            assert!(!ioctl_getflags(&blob).expect("flags").contains(flag), "{name}");
        }
        // Else nobody could remove it.
        ioctl_setflags(&file, plain).expect("flags");
    }
    if tried == 0 {
        eprintln!("skipped: the file system has no flags");
    }
}

#[test]
fn set_user_id_bits_are_gone() {
    let outputs = Outputs::new();
    for (name, mode) in [("suid", 0o4755), ("sgid", 0o2755), ("sticky", 0o1755)] {
        let path = outputs.write(name, name.as_bytes(), mode);
        assert_eq!(fs::metadata(path).expect("a file").mode() & 0o7777, mode);
        outputs.check(name, name.as_bytes(), true);
    }
}

#[test]
fn a_sparse_file_of_exabytes_is_refused_at_once() {
    let outputs = Outputs::new();
    let path = outputs.write("huge", b"", 0o644);
    let file = File::options().write(true).open(path).expect("a file");
    file.set_len(15 << 40).expect("sparse");
    let error = outputs.adopt("huge").expect_err("refused");
    assert!(
        matches!(error, AdoptError::TooLarge { max_bytes: LIMIT, size_bytes, .. } if size_bytes == 15 << 40),
        "{error}"
    );
}

#[test]
fn a_sparse_file_within_the_limit_is_a_blob() {
    let outputs = Outputs::new();
    let path = outputs.write("sparse", b"", 0o644);
    let file = File::options().write(true).open(path).expect("a file");
    file.write_at(b"end", 5 << 20).expect("written");
    let mut content = vec![0; 5 << 20];
    content.extend(b"end");
    outputs.check("sparse", &content, false);
}

#[test]
fn blocks_beyond_the_end_are_not_taken_in() {
    let outputs = Outputs::new();
    let path = outputs.write("fat", b"content", 0o644);
    let file = File::options().write(true).open(path).expect("a file");
    fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 64 << 20).expect("allocated");
    outputs.check_is_copied("fat", b"content");
}

#[test]
fn a_file_of_another_file_system_is_copied() {
    let fixture = Fixture::new();
    let elsewhere = tempfile::TempDir::new().expect("a temporary directory");
    let device = |path: &Path| fs::metadata(path).expect("a directory").dev();
    if device(elsewhere.path()) == device(fixture.root.path()) {
        eprintln!("skipped: /tmp and /dev/shm are one file system");
        return;
    }
    let outputs = Outputs { fixture, directory: elsewhere.path().to_owned() };
    outputs.write("file", b"content", 0o644);
    outputs.check_is_copied("file", b"content");
}

#[test]
fn many_adopt_the_same_content_at_once() {
    let outputs = Outputs::new();
    for number in 0..64 {
        outputs.write(&number.to_string(), b"the same", 0o644);
    }
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let outputs = &outputs;
            scope.spawn(move || {
                for number in (thread..64).step_by(4) {
                    outputs.adopt(&number.to_string()).expect("adopted");
                }
            });
        }
    });
    fs::remove_dir_all(&outputs.directory).expect("removed");
    let digest = Digest::of(SHA256, b"the same");
    let stat = fs::metadata(outputs.fixture.blob_file(&digest)).expect("a file");
    assert_eq!((stat.nlink(), stat.mode(), stat.uid()), (1, 0o100_444, 0));
    assert_eq!(outputs.fixture.store.stats().blobs, 3);
}
