//! Podman of an ordinary user: the server in its containers, with the options that the README names, and without.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{Client, Place, Suite, debian_root::Recipe, steps::step};
use crate::process;

pub(super) const CLIENT: Client = Client {
    name: "podman",
    recipe: Recipe {
        name: "podman",
        suites: &["trixie", "sid"],
        packages: &["crun", "podman", "uidmap"],
        stubs: &[],
    },
    is_optional: true,
    suites: &[],
    more_suites: &[Suite { name: "container", run }],
};

/// Lays a layer over the root `$1`, goes there with the program `$3` as `/actiond`, and becomes the words after it as
/// an ordinary user with subordinate ids. What is kept is below `$2`. All mounts are in a namespace of their own.
/// Podman refuses a mixture of the two versions of cgroups, which some machines have.
const ENTER: &str = r#"set -eu
root=$1 folder=$2 program=$3
shift 3
mkdir -p "$folder/root" "$folder/layer" "$folder/work" "$folder/state/home" "$folder/state/data"
chown -R 47110:47110 "$folder/state"
mount -t overlay overlay -o "lowerdir=$root,upperdir=$folder/layer,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount --make-rprivate sys
umount --recursive sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mkdir -p state
mount --bind ../state state
touch actiond
mount --bind "$program" actiond
grep -q ^builder: etc/passwd || {
    echo builder:x:47110:47110::/state/home:/bin/sh >> etc/passwd
    echo builder:x:47110: >> etc/group
    echo builder:100000:65536 | tee etc/subuid > etc/subgid
}
pivot_root . mnt
cd /
umount --lazy /mnt
mount --make-rshared /
mkdir -p /run/user/47110
chown 47110:47110 /run/user/47110
exec setpriv --reuid=47110 --regid=47110 --clear-groups env --ignore-environment \
    PATH=/usr/bin:/bin HOME=/state/home XDG_RUNTIME_DIR=/run/user/47110 "$@"
"#;

/// The options that a container needs.
const SECCOMP: &str = "--security-opt=seccomp=unconfined";
const PROC: &str = "--security-opt=unmask=ALL";
const VOLUME: &str = "--volume=/state/data:/data";

/// Starts a server, which tries a sandbox first, and ends it.
const SERVER: [&str; 6] =
    ["/actiond", "run", "--root=/data/store", "--http=off", "--allow-host-rootfs", "--"];

/// The server's line at the end of a command that succeeded.
const SERVED: &str = "exit status 0";

/// Containers with options that `serve` works in.
const SERVING: [(&str, &[&str]); 3] = [
    ("root of the container", &[]),
    ("root without capabilities but one", &["--cap-drop=all", "--cap-add=SETFCAP"]),
    ("another user of the container", &["--user=1000", "--volume=/state/of-1000:/data:U"]),
];

/// Containers that lack something, and what the server says of it.
const REFUSED: [(&str, &[&str], &str); 4] = [
    (
        "no options",
        &[VOLUME],
        "--security-opt seccomp=unconfined, and Podman --security-opt unmask=ALL",
    ),
    ("/proc covered", &[VOLUME, SECCOMP], "all of /proc: --security-opt unmask=ALL for Podman"),
    ("no volume", &[SECCOMP, PROC], "in a container a volume"),
    ("root without capabilities", &[VOLUME, SECCOMP, PROC, "--cap-drop=all"], "--cap-add=SETFCAP"),
];

fn run(place: &Place) -> Result<()> {
    let podman = Podman { place, folder: place.scratch.join("podman") };
    step("Debian's base is an image", || {
        let state = podman.folder.join("state");
        fs::create_dir_all(state.join("of-1000"))?;
        process::run(
            Command::new("tar")
                .args(["--create", "--exclude=./var/cache", "--file"])
                .arg(state.join("base.tar"))
                .arg("--directory")
                .arg(&place.clean_root)
                .arg("."),
        )?;
        let said = podman.run(true, &["import", "/state/base.tar", "base"])?;
        Ok(said.lines().last().unwrap_or_default().to_owned())
    })?;
    for (name, options) in SERVING {
        step(&format!("it serves in a container of an ordinary user: {name}"), || {
            let volume =
                if options.iter().any(|it| it.contains(":/data")) { &[][..] } else { &[VOLUME] };
            let said = podman.container(true, &[&[SECCOMP, PROC], volume, options].concat())?;
            ensure!(said.contains(SERVED), "{said}");
            Ok(said
                .lines()
                .find(|line| line.contains("input roots") || line.contains("user namespace"))
                .unwrap_or(SERVED)
                .to_owned())
        })?;
    }
    for (name, options, expected) in REFUSED {
        step(&format!("it names the option that is missing: {name}"), || {
            let said = podman.container(false, options)?;
            ensure!(said.contains(expected), "no {expected:?} in\n{said}");
            Ok(expected.into())
        })?;
    }
    Ok(())
}

struct Podman<'a> {
    place: &'a Place,
    folder: PathBuf,
}

impl Podman<'_> {
    /// Starts a server in a container with these options.
    fn container(&self, succeeds: bool, options: &[&str]) -> Result<String> {
        let run = [
            "run",
            "--rm",
            "--network=none",
            "--cgroups=disabled",
            "--volume=/actiond:/actiond:ro",
        ];
        self.run(succeeds, &[&run, options, &["base"], &SERVER, &["true"]].concat())
    }

    /// Podman with these arguments. Gives what it prints.
    fn run(&self, succeeds: bool, words: &[&str]) -> Result<String> {
        let output = self.command(&self.place.client_root, words).output();
        let output = output.context("cannot start unshare")?;
        let said =
            [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        let said = said.concat();
        ensure!(
            output.status.success() == succeeds,
            "podman ended with {}:\n{said}",
            output.status
        );
        Ok(said)
    }

    fn command(&self, root: &Path, words: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
        command.args(["bash", "-c", ENTER, "podman"]).arg(root).arg(&self.folder);
        command.arg(&self.place.daemon).arg("podman").args(words);
        command
    }
}
