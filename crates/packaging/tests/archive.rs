//! A mirror that moves on: a small archive with an index that the test signs with a key of its own,
//! whose packages rise after the lock was made, and which is then tampered with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;
use packaging::apt::Archives;
use packaging::build::{self, Options};
use packaging::fetch::Versions;
use packaging::recipe::Architecture;
use runtimes::manifest::Manifest;
use tempfile::TempDir;

const RECIPE: &str = r#"
    [[runtime]]
    name = "toy1"
    [[runtime.source]]
    archive = "debian"
    suite = "toy"
    libc = ["toylibc", "toyzlib"]
"#;

/// The date of the first Release file, and the snapshot that is made a day later.
const RELEASED: &str = "Sat, 21 Nov 2026 09:15:44 UTC";
const SNAPSHOT: &str = "20261122T091544Z";

/// An archive, a recipe with its lock, and a cache.
struct Place(TempDir);

impl Place {
    /// With version 1 of both packages in the archive, and no lock.
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.path("runtimes.toml"), RECIPE).unwrap();
        place.make_key("archive");
        for name in ["toylibc", "toyzlib"] {
            place.publish(name, "1", "1");
        }
        place.release(RELEASED, "archive");
        place
    }

    /// The same with the packages locked and an empty cache, as on a new machine.
    fn locked() -> Self {
        let place = Self::new();
        place.build(Versions::Update).unwrap();
        place.forget();
        place
    }

    /// The same after the mirror moved on: version 2 of one package, and version 1 is deleted.
    fn moved_on() -> Self {
        let place = Self::locked();
        run(Command::new("cp").arg("-a").arg(place.mirror()).arg(place.path("old")));
        place.publish("toylibc", "2", "2");
        fs::remove_file(place.mirror().join("pool/toylibc_1_all.deb")).unwrap();
        place.release("Sat, 28 Nov 2026 09:00:00 UTC", "archive");
        place
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn mirror(&self) -> PathBuf {
        self.path("mirror")
    }

    /// Makes a key, whose public half is then a keyring.
    fn make_key(&self, name: &str) {
        let home = self.path(name);
        fs::create_dir(&home).unwrap();
        run(Command::new("chmod").arg("700").arg(&home));
        run(self.gpg(name).args([
            "--passphrase",
            "",
            "--quick-generate-key",
            name,
            "rsa2048",
            "sign",
            "never",
        ]));
        run(self.gpg(name).arg("--output").arg(self.path(&format!("{name}.gpg"))).arg("--export"));
    }

    fn gpg(&self, key: &str) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir").arg(self.path(key)).args(["--batch", "--quiet", "--yes"]);
        gpg
    }

    /// Builds a package with dpkg-deb and puts it into the archive's pool.
    fn publish(&self, name: &str, version: &str, content: &str) {
        let tree = self.path("tree");
        fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        fs::create_dir_all(tree.join("usr/lib")).unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody\n\
             Description: a toy\n"
        );
        fs::write(tree.join("DEBIAN/control"), control).unwrap();
        fs::write(tree.join(format!("usr/lib/{name}.txt")), content).unwrap();
        let pool = self.mirror().join("pool");
        fs::create_dir_all(&pool).unwrap();
        let package = pool.join(format!("{name}_{version}_all.deb"));
        run(Command::new("dpkg-deb")
            .args(["--build", "--root-owner-group"])
            .arg(&tree)
            .arg(package));
        fs::remove_dir_all(tree).unwrap();
    }

    /// Writes the suite's index of what is in the pool, and signs it.
    fn release(&self, date: &str, key: &str) {
        self.write_packages();
        self.sign(date, key);
    }

    fn index(&self) -> PathBuf {
        self.mirror().join("dists/toy/main/binary-amd64/Packages")
    }

    fn write_packages(&self) {
        let mut text = String::new();
        let mut files: Vec<_> = fs::read_dir(self.mirror().join("pool"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        for file in files {
            let name = file.file_name().unwrap().to_str().unwrap();
            let control = output(Command::new("dpkg-deb").arg("--field").arg(&file));
            let size = fs::metadata(&file).unwrap().len();
            let hash = sha256(&file);
            text += control.trim_end();
            text += &format!("\nFilename: pool/{name}\nSize: {size}\nSHA256: {hash}\n\n");
        }
        fs::create_dir_all(self.index().parent().unwrap()).unwrap();
        fs::write(self.index(), text).unwrap();
    }

    fn sign(&self, date: &str, key: &str) {
        let suite = self.mirror().join("dists/toy");
        let size = fs::metadata(self.index()).unwrap().len();
        let hash = sha256(&self.index());
        let release = format!(
            "Origin: Debian\nLabel: Debian\nSuite: toy\nCodename: toy\nDate: {date}\n\
             Architectures: all amd64\nComponents: main\n\
             SHA256:\n {hash} {size} main/binary-amd64/Packages\n"
        );
        fs::write(suite.join("Release"), release).unwrap();
        run(self
            .gpg(key)
            .arg("--output")
            .arg(suite.join("InRelease"))
            .arg("--clear-sign")
            .arg(suite.join("Release")));
        fs::remove_file(suite.join("Release")).unwrap();
    }

    /// Empties the cache.
    fn forget(&self) {
        fs::remove_dir_all(self.path("cache")).unwrap();
    }

    fn options(&self, versions: Versions) -> Options {
        let mut archives = Archives::from_environment();
        archives.debian.keyring = self.path("archive.gpg");
        archives.debian.mirror = Some(format!("file://{}", self.mirror().display()));
        archives.debian.snapshots = None;
        Options {
            recipe: self.path("runtimes.toml"),
            lock: self.path("runtimes.lock"),
            archives,
            architecture: Architecture::X86_64,
            versions,
            packages: None,
            require: Vec::new(),
            cache: self.path("cache"),
            output: self.path("image"),
        }
    }

    fn build(&self, versions: Versions) -> Result<Manifest> {
        build::run(&self.options(versions))
    }

    fn build_error(&self, versions: Versions) -> String {
        format!("{:#}", self.build(versions).unwrap_err())
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.path("runtimes.lock")).unwrap()
    }
}

/// The versions of the packages in an image.
fn versions(manifest: &Manifest) -> Vec<(&str, &str)> {
    let packages = manifest.runtimes[0].packages.iter();
    packages.map(|package| (package.name.as_str(), package.version.as_str())).collect()
}

fn run(command: &mut Command) {
    output(command);
}

fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn sha256(path: &Path) -> String {
    packaging::cache::sha256(&fs::read(path).unwrap())
}

/// The programs that the archive is made with. `cargo xtask setup` installs them.
fn has_tools() -> bool {
    let missing = ["apt-get", "dpkg-deb", "gpg"].iter().find(|program| {
        let found = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        !found.is_ok_and(|status| status.success())
    });
    if let Some(program) = missing {
        eprintln!("SKIPPED: there is no {program} on this machine");
    }
    missing.is_none()
}

#[test]
fn a_build_takes_what_the_suite_has_and_changes_no_lock() {
    if !has_tools() {
        return;
    }
    let place = Place::moved_on();
    let lock = place.lock();
    let manifest = place.build(Versions::Offered).unwrap();
    assert_eq!(versions(&manifest), [("toylibc", "2"), ("toyzlib", "1")]);
    assert_eq!(place.lock(), lock);
}

#[test]
fn a_build_says_in_one_line_what_differs_from_the_lock() {
    if !has_tools() {
        return;
    }
    let place = Place::moved_on();
    let before = packaging::lock::Lock::load(&place.path("runtimes.lock")).unwrap();
    place.build(Versions::Update).unwrap();
    let after = packaging::lock::Lock::load(&place.path("runtimes.lock")).unwrap();
    assert_eq!(after.changes_since(&before), ["toylibc 2 of toy1 (locked: 1)"]);
    assert!(after.changes_since(&after).is_empty());
}

#[test]
fn a_locked_build_names_what_is_gone_and_how_to_go_on() {
    if !has_tools() {
        return;
    }
    let place = Place::locked();
    let manifest = place.build(Versions::Locked).unwrap();
    assert_eq!(versions(&manifest), [("toylibc", "1"), ("toyzlib", "1")], "the mirror has it yet");

    let place = Place::moved_on();
    let error = place.build_error(Versions::Locked);
    for expected in ["toylibc 1;", "ACTIOND_DEBIAN_SNAPSHOTS", "--packages", "--update"] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(!error.contains("toyzlib"), "{error}");
}

#[test]
fn a_locked_build_takes_packages_from_a_folder_by_their_hashes() {
    if !has_tools() {
        return;
    }
    let place = Place::moved_on();
    let folder = place.path("folder");
    fs::create_dir(&folder).unwrap();
    let options = Options { packages: Some(folder.clone()), ..place.options(Versions::Locked) };
    // Another package under the name of the locked one counts for nothing.
    fs::copy(place.mirror().join("pool/toylibc_2_all.deb"), folder.join("toylibc_1_all.deb"))
        .unwrap();
    let error = format!("{:#}", build::run(&options).unwrap_err());
    assert!(error.contains("toylibc 1;"), "{error}");

    fs::copy(place.path("old/pool/toylibc_1_all.deb"), folder.join("any-name.deb")).unwrap();
    let manifest = build::run(&options).unwrap();
    assert_eq!(versions(&manifest), [("toylibc", "1"), ("toyzlib", "1")]);
}

#[test]
fn a_locked_build_takes_the_snapshot_of_the_day_after_the_release() {
    if !has_tools() {
        return;
    }
    let place = Place::moved_on();
    let snapshots = place.path("snapshots");
    fs::create_dir(&snapshots).unwrap();
    let mut options = place.options(Versions::Locked);
    options.archives.debian.snapshots = Some(format!("file://{}", snapshots.display()));
    let error = format!("{:#}", build::run(&options).unwrap_err());
    assert!(error.contains("toylibc 1"), "{error}");

    fs::rename(place.path("old"), snapshots.join(SNAPSHOT)).unwrap();
    let manifest = build::run(&options).unwrap();
    assert_eq!(versions(&manifest), [("toylibc", "1"), ("toyzlib", "1")]);
}

#[test]
fn what_was_locked_and_is_cached_needs_no_archive() {
    if !has_tools() {
        return;
    }
    let place = Place::new();
    place.build(Versions::Update).unwrap();
    fs::remove_dir_all(place.mirror()).unwrap();
    for mode in [Versions::Offered, Versions::Locked] {
        let manifest = place.build(mode).unwrap();
        assert_eq!(versions(&manifest), [("toylibc", "1"), ("toyzlib", "1")]);
    }
}

/// Checks that no build takes anything of an archive after `tamper` had its way with it.
fn check_refused(tamper: impl Fn(&Place), said: &str) {
    if !has_tools() {
        return;
    }
    // On a new machine, and on one that has the indexes of the archive as it was.
    for known in [false, true] {
        let place = Place::locked();
        if known {
            place.build(Versions::Offered).unwrap();
            fs::remove_dir_all(place.path("cache/debs")).unwrap();
        }
        fs::remove_file(place.path("image")).unwrap();
        tamper(&place);
        let lock = place.lock();
        for mode in [Versions::Offered, Versions::Update, Versions::Locked] {
            let mut options = place.options(mode);
            options.require = vec!["toy1".to_owned()];
            let error = format!("{:#}", build::run(&options).unwrap_err());
            assert!(error.contains(said), "{mode:?}, known: {known}: {error}");
            assert!(!place.path("image").exists());
            assert!(!place.path("cache/debs").exists(), "nothing of it is kept");
            assert_eq!(place.lock(), lock);
        }
    }
}

#[test]
fn an_archive_that_another_key_signed_is_refused() {
    let tamper = |place: &Place| {
        place.make_key("other");
        place.sign("Sun, 22 Nov 2026 09:00:00 UTC", "other");
    };
    check_refused(tamper, "apt-get");
}

#[test]
fn an_archive_without_a_signature_is_refused() {
    let tamper = |place: &Place| {
        let suite = place.mirror().join("dists/toy");
        let signed = fs::read_to_string(suite.join("InRelease")).unwrap();
        let (_, text) = signed.split_once("\n\n").unwrap();
        let (text, _) = text.split_once("-----BEGIN PGP SIGNATURE").unwrap();
        fs::write(suite.join("Release"), text).unwrap();
        fs::remove_file(suite.join("InRelease")).unwrap();
    };
    check_refused(tamper, "apt-get");
}

#[test]
fn an_index_that_is_not_the_signed_one_is_refused() {
    let tamper = |place: &Place| {
        place.publish("toylibc", "1", "evil");
        place.write_packages();
        // apt does not fetch an index again while the Release file is the one that it has.
        let lists = place.path("cache/apt/debian-toy-x86_64/lists");
        if lists.exists() {
            fs::remove_dir_all(lists).unwrap();
        }
    };
    check_refused(tamper, "apt-get");
}

#[test]
fn a_package_that_is_not_the_signed_one_is_refused() {
    check_refused(|place| place.publish("toylibc", "1", "evil"), "toylibc");
}
