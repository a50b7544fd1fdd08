//! `cargo xtask setup`: installs what building and testing need from the distribution.
//!
//! Nothing happens when all of it is there. On a distribution without apt it names what is missing.

use anyhow::{Context, Result, bail};

use crate::{process, workspace};

/// A program that must be there, its Debian package (or several, with spaces), and why.
pub struct Need {
    /// The program.
    pub program: &'static str,
    /// Its package, or several.
    pub package: &'static str,
    /// Its effect here.
    pub why: &'static str,
}

/// All that building the daemon needs beside Rust.
pub const COMPILER: Need = Need {
    program: "cc",
    package: "gcc libc6-dev",
    why: "compiles C and links every Rust program",
};

const NEEDS: [Need; 20] = [
    COMPILER,
    Need { program: "git", package: "git", why: "tells the time of a release's commit" },
    Need { program: "strip", package: "binutils", why: "takes the symbols out of a release" },
    Need { program: "setsid", package: "util-linux", why: "starts daemons in their own session" },
    Need { program: "setpriv", package: "util-linux", why: "ends a daemon with its test" },
    Need { program: "python3", package: "python3-minimal", why: "maps inputs in a test" },
    Need {
        program: "strace",
        package: "strace",
        why: "traces an action that is run again in a test",
    },
    Need { program: "patch", package: "patch", why: "changes copies of inputs in a test" },
    Need { program: "rsync", package: "rsync", why: "copies trees of inputs in a test" },
    Need { program: "fsck.erofs", package: "erofs-utils", why: "checks images of input roots" },
    Need {
        program: "mkfs.ext4",
        package: "e2fsprogs",
        why: "tests keep their state on an ext4 of their own",
    },
    Need { program: "mount", package: "mount", why: "mounts it" },
    Need {
        program: "mkfs.xfs",
        package: "xfsprogs",
        why: "makes the disk of a test that power cuts and full disks meet",
    },
    Need { program: "mkfs.btrfs", package: "btrfs-progs", why: "makes another one" },
    Need {
        program: "unshare",
        package: "util-linux",
        why: "keeps the tests' mounts out of the host's table",
    },
    Need {
        program: "mmdebstrap",
        package: "mmdebstrap",
        why: "makes the roots that real clients live in",
    },
    Need {
        program: "bwrap",
        package: "bubblewrap",
        why: "enters them, and is a container in tests",
    },
    Need {
        program: "newuidmap",
        package: "uidmap",
        why: "gives actions a user of their own where an ordinary user starts the daemon",
    },
    Need { program: "dpkg-deb", package: "dpkg", why: "builds their stub packages" },
    Need {
        program: "gpg",
        package: "gpg gpg-agent",
        why: "signs the archive that the tests of packaging make",
    },
];

/// Shows the pages.
pub const BROWSER: [Need; 1] =
    [Need { program: "chromium", package: "chromium", why: "shows the pages that are tested" }];

/// Runs programs in JavaScript.
pub const NODE: [Need; 2] = [
    Need {
        program: "node",
        package: "nodejs",
        why: "drives the browser, and is a server in tests",
    },
    Need { program: "npm", package: "npm", why: "fetches what both import" },
];

/// Builds the caches of others.
pub const GO: [Need; 1] = [Need {
    program: "go",
    package: "golang-go",
    why: "builds the caches of others that the daemon is tested with",
}];

/// A need that has no program of its own to be found by.
const KEYRING: (&str, &str) =
    ("/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring");

/// Installs what is missing.
pub fn run() -> Result<()> {
    let mut packages = missing(&NEEDS);
    if !std::path::Path::new(KEYRING.0).exists() {
        println!(
            "setup: the keys of Debian's archive are missing ({}): clients' roots are made from it",
            KEYRING.1
        );
        packages.push(KEYRING.1);
    }
    if packages.is_empty() {
        println!("setup: all there");
    }
    install(&packages)
}

/// The same with all that only some of the tests need.
pub fn run_for_tests() -> Result<()> {
    run()?;
    install(&[missing(&BROWSER), missing(&NODE), missing(&GO)].concat())
}

/// Installs what is missing of `needs`, for verbs that need more than most.
pub fn ensure(needs: &[Need]) -> Result<()> {
    install(&missing(needs))
}

/// The packages of the programs that are not there.
fn missing(needs: &[Need]) -> Vec<&'static str> {
    let missing = needs.iter().filter(|need| !process::is_installed(need.program));
    missing
        .inspect(|need| {
            println!("setup: {} is missing ({}): {}", need.program, need.package, need.why);
        })
        .flat_map(|need| need.package.split(' '))
        .collect()
}

/// Installs packages; nothing happens when there are none. One process at a time, for steps run side by
/// side.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if !process::is_installed("apt-get") {
        bail!("there is no apt-get here: install what gives {} yourself", packages.join(", "));
    }
    println!("setup: installing {}", packages.join(", "));
    let _lock = lock()?;
    process::run(apt_get().arg("update").arg("-qq"))?;
    process::run(apt_get().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages))
}

/// Fetches the machine's package lists anew.
pub fn update_lists() -> Result<()> {
    let _lock = lock()?;
    process::run(apt_get().arg("update").arg("-qq"))
}

/// apt-get fails where another one runs, so ours wait for each other.
fn lock() -> Result<std::fs::File> {
    let path = workspace::cache()?.join("apt.lock");
    let lock =
        std::fs::File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(lock)
}

fn apt_get() -> std::process::Command {
    let mut command = process::as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).stdin(std::process::Stdio::null());
    command
}
