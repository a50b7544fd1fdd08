//! Images of small packages that each test makes: what gets in, what is refused, and that the same
//! packages give the same bytes.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use backhand::{FilesystemReader, InnerNode};
use packaging::apt::Archives;
use packaging::ar::{self, Member};
use packaging::build::{self, Options};
use packaging::deb;
use packaging::fetch::Versions;
use packaging::recipe::Architecture;
use runtimes::manifest::Manifest;
use tempfile::TempDir;

/// A directory with packages, a recipe, a lock, a cache and images.
struct Workshop(TempDir);

const RECIPE: &str = r#"
    drop = ["usr/share"]
    [[runtime]]
    name = "toy1"
    [[runtime.source]]
    directory = "packages"
    libc = ["toylibc"]
    shell = ["toyshell", { name = "extra", only = ["usr/share/kept"] }]
    [[runtime]]
    name = "elsewhere"
    [[runtime.source]]
    directory = "not-there"
    libc = ["toylibc"]
"#;

impl Workshop {
    /// With the recipe above and the packages that it asks for.
    fn new() -> Self {
        let workshop = Self(tempfile::tempdir().unwrap());
        fs::create_dir(workshop.path("packages")).unwrap();
        fs::write(workshop.path("runtimes.toml"), RECIPE).unwrap();
        let library = &[("./lib/libtoy.so", "library"), ("./usr/share/doc/toy", "a text")];
        workshop.package("toylibc", "1", library);
        let programs = ["bash", "env", "ls"].map(|name| (format!("./usr/bin/{name}*"), name));
        let programs = programs.each_ref().map(|(path, content)| (path.as_str(), *content));
        workshop.package("toyshell", "1", &programs);
        let extra = &[("./usr/share/kept/a", "kept"), ("./usr/bin/not-kept", "")];
        workshop.package("extra", "1", extra);
        workshop
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn package(&self, name: &str, version: &str, files: &[(&str, &str)]) {
        let bytes = deb::write(&control(name, version), &tar(files), 0).unwrap();
        fs::write(self.path(&format!("packages/{name}_{version}_all.deb")), bytes).unwrap();
    }

    fn options(&self, output: &str) -> Options {
        Options {
            recipe: self.path("runtimes.toml"),
            lock: self.path("runtimes.lock"),
            archives: Archives::from_environment(),
            architecture: Architecture::X86_64,
            versions: Versions::Offered,
            packages: None,
            require: Vec::new(),
            cache: self.path("cache"),
            output: self.path(output),
        }
    }

    fn build(&self, output: &str) -> Result<Manifest> {
        build::run(&self.options(output))
    }

    fn update(&self, output: &str) -> Result<Manifest> {
        build::run(&Options { versions: Versions::Update, ..self.options(output) })
    }
}

fn control(name: &str, version: &str) -> Vec<u8> {
    let text = format!("Package: {name}\nVersion: {version}\nArchitecture: all\n");
    tar(&[("./control", text.as_str())])
}

/// An archive of files, executable ones with a `*` at the end of their path.
fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(if path.ends_with('*') { 0o755 } else { 0o644 });
        header.set_mtime(1_700_000_000);
        builder.append_data(&mut header, path.trim_end_matches('*'), content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Every file of an image with its content, and every link with its target; sorted.
fn listing(image: &Path) -> Vec<String> {
    let file = std::io::BufReader::new(fs::File::open(image).unwrap());
    let reader = FilesystemReader::from_reader(file).unwrap();
    let mut lines = Vec::new();
    for node in reader.files() {
        assert_eq!((node.header.uid, node.header.gid, node.header.mtime), (0, 0, 0));
        let path = node.fullpath.display();
        match &node.inner {
            InnerNode::File(file) => {
                let mut content = String::new();
                reader.file(file).reader().read_to_string(&mut content).unwrap();
                lines.push(format!("{path} {:o} {}", node.header.permissions, content));
            }
            InnerNode::Symlink(link) => lines.push(format!("{path} -> {}", link.link.display())),
            InnerNode::Dir(_) => assert_eq!(node.header.permissions, 0o755, "{path}"),
            other => panic!("{path} is {other:?}"),
        }
    }
    lines.sort();
    lines
}

#[test]
fn an_image_has_what_the_packages_bring_and_its_manifest() {
    let workshop = Workshop::new();
    let manifest = workshop.update("image").unwrap();
    let names: Vec<_> = manifest.runtimes.iter().map(|runtime| runtime.name.as_str()).collect();
    assert_eq!(names, ["toy1"], "what can't be had is left out");
    let lines = listing(&workshop.path("image"));
    let below = |root: &str| -> Vec<_> {
        lines.iter().filter_map(|line| line.strip_prefix(root).map(str::to_owned)).collect()
    };
    let libc = ["lib -> usr/lib", "usr/lib/libtoy.so 644 library"];
    assert_eq!(below("/libc/toy1/x86_64/root/"), libc);
    let shell = [
        "bin -> usr/bin",
        "lib -> usr/lib",
        "usr/bin/bash 755 bash",
        "usr/bin/env 755 env",
        "usr/bin/ls 755 ls",
        "usr/bin/sh -> bash",
        "usr/lib/libtoy.so 644 library",
        "usr/share/kept/a 644 kept",
    ];
    assert_eq!(below("/shell/toy1/x86_64/root/"), shell);
    assert!(lines.iter().any(|line| line.starts_with("/common/root/etc/passwd 644 root:")));
    let text = below("/manifest.json 644 ").concat();
    let rest = lines.iter().find(|line| line.starts_with("/manifest.json"));
    assert!(!text.is_empty() && rest.is_some(), "the manifest is there");
    assert_eq!(serde_json::from_str::<Manifest>(&text).unwrap(), manifest);
}

#[test]
fn the_same_packages_give_the_same_bytes() {
    let workshop = Workshop::new();
    workshop.update("one").unwrap();
    workshop.build("two").unwrap();
    // From the packages themselves rather than the cache.
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    workshop.build("three").unwrap();
    let read = |name| fs::read(workshop.path(name)).unwrap();
    assert!(read("one") == read("two") && read("one") == read("three"));
}

#[test]
fn a_package_that_is_not_what_the_lock_says_is_refused() {
    let workshop = Workshop::new();
    workshop.update("image").unwrap();
    let locked = fs::read(workshop.path("runtimes.lock")).unwrap();
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    workshop.package("toylibc", "1", &[("./lib/libtoy.so", "another")]);
    let error = format!("{:#}", workshop.build("image").unwrap_err());
    assert!(error.contains("toylibc") && error.contains("--update"), "{error}");
    assert_eq!(fs::read(workshop.path("runtimes.lock")).unwrap(), locked);
    workshop.update("image").unwrap();
    assert_ne!(fs::read(workshop.path("runtimes.lock")).unwrap(), locked);
}

#[test]
fn a_spoilt_cache_is_not_believed() {
    let workshop = Workshop::new();
    workshop.update("one").unwrap();
    for entry in fs::read_dir(workshop.path("cache/debs")).unwrap() {
        fs::write(entry.unwrap().path(), "spoilt").unwrap();
    }
    workshop.build("two").unwrap();
    let read = |name| fs::read(workshop.path(name)).unwrap();
    assert!(read("one") == read("two"));
}

#[test]
fn nothing_is_built_without_a_lock() {
    let workshop = Workshop::new();
    let error = format!("{:#}", workshop.build("image").unwrap_err());
    assert!(error.contains("no runtime is available"), "{error}");
    assert!(!workshop.path("image").exists());
}

#[test]
fn what_is_required_must_be_there() {
    let workshop = Workshop::new();
    let require = |name: &str| {
        let options = workshop.options("image");
        build::run(&Options {
            versions: Versions::Update,
            require: vec![name.to_owned()],
            ..options
        })
    };
    assert!(require("toy1").is_ok());
    let error = format!("{:#}", require("elsewhere").unwrap_err());
    assert!(error.contains("elsewhere is required"), "{error}");
    let error = format!("{:#}", require("typo").unwrap_err());
    assert!(error.contains("no runtime typo"), "{error}");
}

#[test]
fn packages_of_every_compression_are_read() {
    let workshop = Workshop::new();
    let (control, files) = (control("toylibc", "1"), tar(&[("./lib/libtoy.so", "library")]));
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (packed_control, packed_files) = (zstd(&control), zstd(&files));
    let members = [
        Member { name: "debian-binary", content: b"2.0\n" },
        Member { name: "control.tar.zst", content: &packed_control },
        Member { name: "data.tar.zst", content: &packed_files },
    ];
    let path = workshop.path("packages/toylibc_1_all.deb");
    fs::write(path, ar::write(&members, 0).unwrap()).unwrap();
    workshop.update("image").unwrap();
}

#[test]
fn a_broken_package_is_named() {
    let workshop = Workshop::new();
    fs::write(workshop.path("packages/toylibc_1_all.deb"), "no package").unwrap();
    let error = format!("{:#}", workshop.update("image").unwrap_err());
    assert!(error.contains("toylibc"), "{error}");
}

#[test]
fn a_shell_without_its_programs_is_refused() {
    let workshop = Workshop::new();
    workshop.package("toyshell", "1", &[("./usr/bin/bash*", "bash")]);
    let error = format!("{:#}", workshop.update("image").unwrap_err());
    assert!(error.contains("usr/bin/env"), "{error}");
}
