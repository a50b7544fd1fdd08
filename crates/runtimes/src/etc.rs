//! The files of `/etc` that every action finds: names for users, groups and the machine itself.
//!
//! Bazel's Test Encyclopedia asks for the users root, nobody and unittest and the groups root,
//! nobody and eng, for a home directory that exists, and for `localhost` and the host's own name to
//! resolve. There is no network, so nothing is looked up anywhere but in these files.
//! <https://bazel.build/reference/test-encyclopedia#initial-conditions>

use model::RelPath;

/// The name of the machine, as an action sees it.
pub const HOSTNAME: &str = "actiond";

/// No home directories exist but `/`. Actions run as `nobody`.
const PASSWD: &str = "\
root:x:0:0:root:/:/bin/sh
unittest:x:1000:1000:unittest:/:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh
";

/// The group of `nobody` has both names that distributions give it.
const GROUP: &str = "\
root:x:0:
eng:x:1000:
nogroup:x:65534:
nobody:x:65534:
";

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files
networks: files
protocols: files
services: files
";

/// The files that every action finds, by their paths in a sandbox's root.
pub fn common_files() -> impl Iterator<Item = (RelPath, Vec<u8>)> {
    let hosts = format!(
        "127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback {HOSTNAME}\n"
    );
    [
        ("etc/group", GROUP.to_owned()),
        ("etc/hostname", format!("{HOSTNAME}\n")),
        ("etc/hosts", hosts),
        ("etc/nsswitch.conf", NSSWITCH.to_owned()),
        ("etc/passwd", PASSWD.to_owned()),
    ]
    .into_iter()
    .filter_map(|(path, content)| Some((RelPath::parse(path).ok()?, content.into_bytes())))
}
