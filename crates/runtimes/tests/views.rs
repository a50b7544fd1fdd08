//! Views of real directories, made for each test: what is shown, and above all what is not.

use std::env::consts::ARCH;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use model::{Properties, WorkerPlatform, proto};
use runtimes::{HOSTNAME, InputRootPlace, OpenError, Rootfs, RuntimeOptions, Runtimes, ViewError};
use tempfile::TempDir;

/// A directory that stands for some root; dropped, it is gone.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(below)
    }

    fn directory(self, below: &str) -> Self {
        fs::create_dir_all(self.path(below)).unwrap();
        self
    }

    fn file(self, below: &str, content: &str) -> Self {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn link(self, below: &str, target: &str) -> Self {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
        self
    }

    fn mode(self, below: &str, mode: u32) -> Self {
        fs::set_permissions(self.path(below), Permissions::from_mode(mode)).unwrap();
        self
    }

    fn open_as_runtime_root(&self) -> Result<Runtimes, OpenError> {
        Runtimes::open(&RuntimeOptions {
            runtime_root: Some(self.0.path().to_owned()),
            ..RuntimeOptions::default()
        })
    }

    fn open_as_host(&self) -> Result<Runtimes, OpenError> {
        Runtimes::open(&RuntimeOptions {
            host_rootfs: Some(self.0.path().to_owned()),
            ..RuntimeOptions::default()
        })
    }

    fn host_view(&self) -> Rootfs {
        view(&self.open_as_host().unwrap(), &[("rootfs", "host")]).unwrap()
    }
}

fn properties(pairs: &[(&str, &str)]) -> Properties {
    let properties = pairs
        .iter()
        .map(|(name, value)| proto::platform::Property {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        })
        .collect();
    Properties::parse(Some(&proto::Platform { properties }), &WorkerPlatform::default()).unwrap()
}

fn view(runtimes: &Runtimes, pairs: &[(&str, &str)]) -> Result<Rootfs, ViewError> {
    runtimes.view(&properties(pairs)).map(|view| (*view).clone())
}

fn mount<'a>(view: &'a Rootfs, at: &str) -> Option<&'a Path> {
    let mount = view.mounts.iter().find(|mount| mount.at.as_str() == at)?;
    Some(&mount.source)
}

fn link<'a>(view: &'a Rootfs, at: &str) -> Option<&'a str> {
    let (_, target) = view.symlinks.iter().find(|(path, _)| path.as_str() == at)?;
    Some(target)
}

fn file<'a>(view: &'a Rootfs, at: &str) -> Option<&'a str> {
    let (_, content) = view.files.iter().find(|(path, _)| path.as_str() == at)?;
    Some(str::from_utf8(content).unwrap())
}

/// Every path that a view shows.
fn shown(view: &Rootfs) -> Vec<&str> {
    let mounts = view.mounts.iter().map(|mount| mount.at.as_str());
    let links = view.symlinks.iter().map(|(path, _)| path.as_str());
    let files = view.files.iter().map(|(path, _)| path.as_str());
    let mut shown: Vec<&str> = mounts.chain(links).chain(files).collect();
    shown.sort_unstable();
    shown
}

const GENERATED: [&str; 5] =
    ["etc/group", "etc/hostname", "etc/hosts", "etc/nsswitch.conf", "etc/passwd"];

#[test]
fn the_bare_view_has_the_names_that_tests_need() {
    let bare = Rootfs::bare();
    assert_eq!(shown(&bare), GENERATED);
    let has_line = |path: &str, start: &str| {
        let content = file(&bare, path).unwrap();
        assert!(content.ends_with('\n'));
        assert!(content.lines().any(|line| line.starts_with(start)), "{start}");
    };
    for user in ["root:x:0:0:", "nobody:x:65534:65534:", "unittest:x:"] {
        has_line("etc/passwd", user);
    }
    for group in ["root:x:0:", "nobody:x:", "nogroup:x:65534:", "eng:x:"] {
        has_line("etc/group", group);
    }
    for address in ["127.0.0.1 localhost", "::1 localhost"] {
        has_line("etc/hosts", address);
    }
    assert!(file(&bare, "etc/hosts").unwrap().contains(HOSTNAME));
    has_line("etc/nsswitch.conf", "passwd: files");
}

#[test]
fn without_options_there_is_the_bare_view_only() {
    let runtimes = Runtimes::open(&RuntimeOptions::default()).unwrap();
    assert_eq!(view(&runtimes, &[]), Ok(Rootfs::bare()));
    assert_eq!(view(&runtimes, &[("rootfs", "host")]), Err(ViewError::HostRootfsNotAllowed));
    let error = view(&runtimes, &[("libc", "glibc2.31")]).unwrap_err();
    assert!(error.to_string().contains("there is none"));
}

fn libraries(name: &str) -> Root {
    let root = format!("libc/{name}/{ARCH}/root");
    Root::new()
        .file("common/root/etc/services", "common")
        .file("common/root/etc/hosts", "common")
        .file(&format!("{root}/lib/libc.so.6"), "")
        .directory(&format!("{root}/lib64"))
        .directory(&format!("{root}/usr/lib"))
}

#[test]
fn a_c_library_brings_its_directories() {
    let root = libraries("glibc2.31");
    let runtimes = root.open_as_runtime_root().unwrap();
    assert!(runtimes.libc_names().eq(["glibc2.31"]));
    let view = view(&runtimes, &[("libc", "glibc2.31")]).unwrap();
    assert_eq!(view.name, "libc:glibc2.31");
    for at in ["lib", "lib64", "usr/lib"] {
        let source = root.path(&format!("libc/glibc2.31/{ARCH}/root/{at}"));
        assert_eq!(mount(&view, at), Some(&*source));
    }
    assert_eq!(file(&view, "etc/services"), Some("common"));
    assert!(file(&view, "etc/passwd").unwrap().contains("nobody"));
}

#[test]
fn the_common_etc_is_for_actions_without_a_c_library_too() {
    let runtimes = libraries("x").open_as_runtime_root().unwrap();
    let bare = view(&runtimes, &[]).unwrap();
    assert_eq!(file(&bare, "etc/hosts"), Some("common"));
    assert_eq!(mount(&bare, "lib"), None);
}

#[test]
fn a_librarys_etc_goes_before_the_common_one() {
    let etc = format!("libc/x/{ARCH}/root/etc");
    let root = libraries("x")
        .file(&format!("{etc}/hosts"), "library")
        .file(&format!("{etc}/services/below"), "library");
    let runtimes = root.open_as_runtime_root().unwrap();
    let view = view(&runtimes, &[("libc", "x")]).unwrap();
    assert_eq!(file(&view, "etc/hosts"), Some("library"));
    assert_eq!(file(&view, "etc/services"), None);
    let services = root.path(&format!("{etc}/services"));
    assert_eq!(mount(&view, "etc/services"), Some(&*services));
}

#[test]
fn a_merged_library_stands_for_lib_too() {
    for link_lib in [false, true] {
        let library = format!("libc/x/{ARCH}/root");
        let mut root = Root::new()
            .directory(&format!("{library}/usr/lib"))
            .directory(&format!("{library}/usr/lib64"));
        if link_lib {
            root = root.link(&format!("{library}/lib"), "/usr/lib");
        }
        let runtimes = root.open_as_runtime_root().unwrap();
        let view = view(&runtimes, &[("libc", "x")]).unwrap();
        let source = |below: &str| root.path(&format!("{library}/{below}"));
        assert_eq!(mount(&view, "lib"), Some(&*source("usr/lib")));
        assert_eq!(mount(&view, "lib64"), Some(&*source("usr/lib64")));
        assert_eq!(mount(&view, "usr/lib"), Some(&*source("usr/lib")));
    }
}

#[test]
fn links_in_a_library_do_not_leave_it() {
    let library = format!("libc/x/{ARCH}/root");
    let root = Root::new()
        .directory("secret")
        .link(&format!("{library}/lib"), "../../../../../secret")
        .link(&format!("{library}/lib64"), "/etc")
        .directory(&format!("{library}/usr/lib"));
    let runtimes = root.open_as_runtime_root().unwrap();
    let view = view(&runtimes, &[("libc", "x")]).unwrap();
    let own = root.path(&format!("{library}/usr/lib"));
    assert_eq!(mount(&view, "lib"), Some(&*own), "the link is dangling inside");
    assert_eq!(mount(&view, "lib64"), None);
}

#[test]
fn names_of_libraries_are_looked_up_and_never_paths() {
    let runtimes = libraries("x").open_as_runtime_root().unwrap();
    for name in ["y", "../libc/x", "x/", "/x", ".", "..", "x\0", "X"] {
        let error = view(&runtimes, &[("libc", name)]).unwrap_err();
        let expected =
            ViewError::UnknownLibc { name: name.to_owned(), known: vec!["x".to_owned()] };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("there is x"));
    }
}

#[test]
fn strange_and_foreign_libraries_are_left_out() {
    let root = libraries("good")
        .directory(&format!("libc/.hidden/{ARCH}/root/lib"))
        .directory(&format!("libc/with space/{ARCH}/root/lib"))
        .directory("libc/foreign/pdp11/root/lib");
    let runtimes = root.open_as_runtime_root().unwrap();
    assert!(runtimes.libc_names().eq(["good"]));
}

#[test]
fn a_library_without_libraries_is_an_error() {
    let root = Root::new().directory(&format!("libc/x/{ARCH}/root/etc"));
    let error = root.open_as_runtime_root().unwrap_err();
    assert!(matches!(error, OpenError::NoLibraries { name, .. } if name == "x"));
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    for (runtime_root, host_rootfs) in [(Some("/nonexistent"), None), (None, Some("/nonexistent"))]
    {
        let options = RuntimeOptions {
            runtime_root: runtime_root.map(PathBuf::from),
            host_rootfs: host_rootfs.map(PathBuf::from),
            runtime_image: None,
        };
        let error = Runtimes::open(&options).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}

#[test]
fn an_image_is_a_root_of_its_own() {
    let root = Root::new()
        .file("usr/bin/sh", "")
        .link("bin", "usr/bin")
        .file("etc/passwd", "its own")
        .file("etc/hosts", "its own")
        .file("etc/resolv.conf", "its own")
        .file("etc/alternatives/x", "")
        .file("var/lib/x", "")
        .directory("var/tmp")
        .file("opt/tool/x", "")
        .directory("tmp")
        .directory("proc")
        .directory("execroot")
        .file("secret/x", "")
        .mode("secret", 0o700);
    let view = runtimes::image_rootfs(&root.path(""), "it", "1").unwrap();
    let mounts: Vec<_> = view.mounts.iter().map(|mount| mount.at.as_str()).collect();
    assert_eq!(mounts, ["etc/alternatives", "opt", "usr", "var/lib"]);
    assert_eq!(link(&view, "bin"), Some("usr/bin"));
    assert_eq!(file(&view, "etc/passwd"), Some("its own"));
    assert_eq!(file(&view, "etc/hosts"), file(&Rootfs::bare(), "etc/hosts"));
    assert_eq!(file(&view, "etc/group"), file(&Rootfs::bare(), "etc/group"));
    assert_eq!(file(&view, "etc/resolv.conf"), None);
    assert!(runtimes::image_rootfs(&root.path("etc"), "it", "1").is_err(), "no programs");
}

#[test]
fn images_are_chosen_by_name() {
    let root = Root::new().directory("usr");
    let runtimes = libraries("x").open_as_runtime_root().unwrap();
    let image = runtimes::image_rootfs(&root.path(""), "a/b:1", "1").unwrap();
    let shared = runtimes.clone();
    shared.set_image("a/b:1".to_owned(), image.clone());
    for (name, value) in
        [("rootfs", "a/b:1"), ("container-image", "a/b:1"), ("container-image", "docker://a/b:1")]
    {
        assert_eq!(view(&runtimes, &[(name, value)]), Ok(image.clone()), "{name}={value}");
    }
    let both = [("rootfs", "a/b:1"), ("container-image", "docker://a/b:1")];
    assert_eq!(view(&runtimes, &both), Ok(image));
    let two = [("rootfs", "host"), ("container-image", "docker://a/b:1")];
    assert_eq!(view(&runtimes, &two), Err(ViewError::TwoRoots));
    let libc = [("libc", "x"), ("container-image", "docker://a/b:1")];
    assert_eq!(view(&runtimes, &libc), Err(ViewError::LibcAndRootfs));
    let error = view(&runtimes, &[("container-image", "docker://host")]).unwrap_err();
    assert!(error.to_string().contains("image import host"), "{error}");
    assert!(error.to_string().contains("there is a/b:1"), "{error}");
}

#[test]
fn an_image_that_goes_leaves_its_views_to_those_that_have_them() {
    let root = Root::new().directory("usr");
    let runtimes = libraries("x").open_as_runtime_root().unwrap();
    let image = || runtimes::image_rootfs(&root.path(""), "a", "1").unwrap();
    runtimes.set_image("a".to_owned(), image());
    let view = || runtimes.view(&properties(&[("rootfs", "a")]));
    let first = view().unwrap();
    let user = first.enter();
    assert_eq!(runtimes.users_of_image("a"), 1);
    runtimes.set_image("a".to_owned(), image());
    assert_eq!(runtimes.users_of_image("a"), 0, "another image of that name");
    assert!(first.is_retired() && !view().unwrap().is_retired());
    assert_eq!(first.users(), 1);
    drop(user);
    runtimes.remove_image("a");
    assert!(matches!(view(), Err(ViewError::UnknownImage { .. })));
    runtimes.remove_image("a");
}

fn with_shell(root: Root, name: &str) -> Root {
    let shell = format!("shell/{name}/{ARCH}/root");
    root.file(&format!("libc/{name}/{ARCH}/root/usr/lib/libc.so.6"), "")
        .file(&format!("{shell}/usr/lib/libc.so.6"), "")
        .file(&format!("{shell}/usr/bin/bash"), "")
        .link(&format!("{shell}/bin"), "usr/bin")
}

#[test]
fn a_shell_comes_with_the_library_that_it_runs_on() {
    let root = with_shell(Root::new(), "x");
    let runtimes = root.open_as_runtime_root().unwrap();
    let alone = view(&runtimes, &[("libc", "x")]).unwrap();
    assert_eq!(mount(&alone, "bin"), None);
    let with_shell = view(&runtimes, &[("libc", "x"), ("requires-bash", "")]).unwrap();
    for (at, below) in
        [("bin", "usr/bin"), ("usr/bin", "usr/bin"), ("lib", "usr/lib"), ("usr/lib", "usr/lib")]
    {
        let source = root.path(&format!("shell/x/{ARCH}/root/{below}"));
        assert_eq!(mount(&with_shell, at), Some(&*source), "{at}");
    }
    assert_ne!(alone.name, with_shell.name);
}

#[test]
fn a_shell_alone_is_the_newest() {
    let root = ["glibc2.9", "glibc2.31", "glibc2.4"].into_iter().fold(Root::new(), with_shell);
    let root = root.directory(&format!("libc/glibc2.40/{ARCH}/root/lib"));
    let runtimes = root.open_as_runtime_root().unwrap();
    let view = view(&runtimes, &[("requires-bash", "")]).unwrap();
    assert_eq!(view.name, "libc:glibc2.31+shell");
}

#[test]
fn without_a_shell_bash_is_an_error() {
    let runtimes = libraries("x").open_as_runtime_root().unwrap();
    let error = view(&runtimes, &[("requires-bash", "")]).unwrap_err();
    assert_eq!(error, ViewError::NoShell { libc: None });
    let error = view(&runtimes, &[("requires-bash", ""), ("libc", "x")]).unwrap_err();
    assert!(error.to_string().contains("for the C library \"x\""), "{error}");
    let error = view(&runtimes, &[("requires-bash", ""), ("libc", "y")]).unwrap_err();
    assert!(matches!(error, ViewError::UnknownLibc { .. }));
}

#[test]
fn a_host_brings_its_own_shell() {
    let runtimes = merged_host().open_as_host().unwrap();
    let view = view(&runtimes, &[("rootfs", "host"), ("requires-bash", "")]).unwrap();
    assert_eq!(view.name, "host");
}

/// A root of today's shape: everything in `/usr`, links to it beside it.
fn merged_host() -> Root {
    Root::new()
        .directory("usr/bin")
        .directory("usr/lib")
        .link("bin", "usr/bin")
        .link("lib", "usr/lib")
        .link("lib64", "/usr/lib64")
        .directory("etc")
}

#[test]
fn a_host_with_merged_directories() {
    let root = merged_host();
    let view = root.host_view();
    assert_eq!(view.name, "host");
    assert_eq!(mount(&view, "usr"), Some(&*root.path("usr")));
    assert_eq!(link(&view, "bin"), Some("usr/bin"));
    assert_eq!(link(&view, "lib"), Some("usr/lib"));
    assert_eq!(link(&view, "lib64"), Some("/usr/lib64"));
    assert_eq!(view.mounts.len(), 1);
}

#[test]
fn a_host_with_separate_directories() {
    let root = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"]
        .into_iter()
        .fold(Root::new(), Root::directory);
    let view = root.host_view();
    for at in ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"] {
        assert_eq!(mount(&view, at), Some(&*root.path(at)));
    }
}

#[test]
fn what_toolchains_need_of_a_hosts_etc() {
    let root = merged_host()
        .link("etc/alternatives/cc", "/usr/bin/gcc")
        .file("etc/ld.so.cache", "cache")
        .file("etc/ld.so.conf.d/x.conf", "/usr/lib/x")
        .file("etc/java-17-openjdk/security/java.security", "")
        .file("etc/python3.11/sitecustomize.py", "")
        .file("etc/ssl/certs/ca-certificates.crt", "")
        .file("etc/ssl/openssl.cnf", "openssl")
        .link("etc/localtime", "/usr/share/zoneinfo/Etc/UTC");
    let view = root.host_view();
    for at in [
        "etc/alternatives",
        "etc/ld.so.conf.d",
        "etc/java-17-openjdk",
        "etc/python3.11",
        "etc/ssl/certs",
    ] {
        assert_eq!(mount(&view, at), Some(&*root.path(at)), "{at}");
    }
    assert_eq!(file(&view, "etc/ld.so.cache"), Some("cache"));
    assert_eq!(file(&view, "etc/ssl/openssl.cnf"), Some("openssl"));
    assert_eq!(link(&view, "etc/localtime"), Some("/usr/share/zoneinfo/Etc/UTC"));
}

#[test]
fn nothing_else_of_a_host_is_shown() {
    let private = [
        "home/user/.ssh/id_rsa",
        "root/.netrc",
        "var/lib/secret",
        "run/secret",
        "opt/vendor/licence",
        "srv/data",
        "etc/shadow",
        "etc/gshadow",
        "etc/sudoers",
        "etc/ssh/ssh_host_rsa_key",
        "etc/ssl/private/key.pem",
        "etc/pki/tls/private/key.pem",
        "etc/gitconfig",
        "etc/pip.conf",
        "etc/npmrc",
        "etc/environment",
        "etc/machine-id",
        "etc/krb5.keytab",
    ];
    let root = private
        .into_iter()
        .fold(merged_host(), |root, path| root.file(path, "secret"))
        .file("etc/passwd", "user:x:1000:1000:Name:/home/user:/bin/sh")
        .file("etc/hosts", "10.0.0.1 internal");
    let view = root.host_view();
    let mut expected = vec!["bin", "lib", "lib64", "usr"];
    expected.extend(GENERATED);
    expected.sort_unstable();
    assert_eq!(shown(&view), expected);
    for path in GENERATED {
        assert_eq!(file(&view, path), file(&Rootfs::bare(), path));
    }
}

#[test]
fn what_is_not_for_everyone_is_not_shown() {
    let root = merged_host()
        .file("etc/ld.so.cache", "secret")
        .mode("etc/ld.so.cache", 0o640)
        .directory("etc/alternatives")
        .mode("etc/alternatives", 0o750)
        .directory("etc/perl")
        .mode("etc/perl", 0o744);
    let view = root.host_view();
    assert!(
        shown(&view)
            .iter()
            .all(|path| { !["etc/ld.so.cache", "etc/alternatives", "etc/perl"].contains(path) })
    );
}

#[test]
fn links_of_another_root_do_not_lead_into_this_one() {
    let root = Root::new()
        .directory("real/usr/bin")
        .link("usr", "/real/usr")
        .link("etc", "/real/etc")
        .file("real/etc/ld.so.cache", "its own")
        .link("real/etc/alternatives", "../../../../../../../etc")
        .link("real/etc/perl", "/etc");
    let view = root.host_view();
    assert_eq!(mount(&view, "usr"), Some(&*root.path("real/usr")));
    assert_eq!(file(&view, "etc/ld.so.cache"), Some("its own"));
    for at in ["etc/alternatives", "etc/perl"] {
        assert!(link(&view, at).is_some(), "a link stays a link");
        assert_eq!(mount(&view, at), None);
    }
    let inside = root.path("");
    assert!(view.mounts.iter().all(|m| m.source.starts_with(&inside)));
}

#[test]
fn a_view_has_no_fifo_and_no_huge_file() {
    let root = merged_host().file("etc/ld.so.conf", &"x".repeat((4 << 20) + 1));
    let fifo = root.path("etc/mime.types");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mkfifoat(rustix::fs::CWD, fifo, mode).unwrap();
    let view = root.host_view();
    assert_eq!(file(&view, "etc/ld.so.conf"), None);
    assert_eq!(file(&view, "etc/mime.types"), None);
}

#[test]
fn an_empty_directory_is_no_host() {
    let error = Root::new().open_as_host().unwrap_err();
    assert!(matches!(error, OpenError::NotARoot(_)));
}

#[test]
fn properties_that_mean_no_view() {
    let root = merged_host();
    let runtimes = root.open_as_host().unwrap();
    let error = view(&runtimes, &[("rootfs", "/")]).unwrap_err();
    assert_eq!(error, ViewError::UnknownImage { name: "/".to_owned(), known: Vec::new() });
    assert_eq!(
        view(&runtimes, &[("rootfs", "host"), ("libc", "x")]),
        Err(ViewError::LibcAndRootfs)
    );
    assert_eq!(view(&runtimes, &[("rootfs", ""), ("libc", "none")]), Ok(Rootfs::bare()));
}

#[test]
fn a_root_that_is_the_input_root_has_nothing_beside_it() {
    let runtimes = libraries("x").open_as_runtime_root().unwrap();
    let of_input_root = view(&runtimes, &[("rootfs", "input-root")]).unwrap();
    assert_eq!(of_input_root.input_root, InputRootPlace::Root);
    assert!(of_input_root.mounts.is_empty() && of_input_root.symlinks.is_empty());
    assert!(of_input_root.files.is_empty());
    assert_ne!(of_input_root.environment(), view(&runtimes, &[]).unwrap().environment());
    for property in ["libc", "container-image"] {
        assert!(view(&runtimes, &[("rootfs", "input-root"), (property, "x")]).is_err());
    }
    // An image of that name is another root.
    assert!(view(&runtimes, &[("container-image", "input-root")]).is_err());
}

/// The machine the tests run on: whatever it is, its secrets stay where they are.
#[test]
fn this_machine_as_host() {
    let options =
        RuntimeOptions { host_rootfs: Some(PathBuf::from("/")), ..RuntimeOptions::default() };
    let view = view(&Runtimes::open(&options).unwrap(), &[("rootfs", "host")]).unwrap();
    assert_eq!(mount(&view, "usr"), Some(Path::new("/usr")));
    for mount in &view.mounts {
        assert_eq!(mount.source.canonicalize().unwrap(), mount.source);
        let top = mount.at.components().next().unwrap();
        assert!(["usr", "bin", "sbin", "etc"].contains(&top) || top.starts_with("lib"));
    }
}
