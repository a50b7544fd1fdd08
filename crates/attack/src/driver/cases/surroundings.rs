//! Things that an action could find around itself and must not.

use crate::case::{Case, Need, calls, program};

const HOST: &[(&str, &str)] = &[("rootfs", "host")];

pub(super) const CASES: &[Case] = &[
    program("descriptors-of-the-server", &["descriptors"]).prints("0 is /dev/null"),
    program("variables-of-the-server", &["environment"]).prints(""),
    program("processes-of-others", &["processes"]).prints(""),
    program("the-host-in-proc", &["host-in-proc"]).prints(""),
    program("addresses-in-the-kernel", &["addresses"]).prints(""),
    program("mounts-that-can-be-used", &["mounts"]).prints(""),
    program("where-the-servers-state-is", &["paths-with", "{state}"]).needs(Need::Local).prints(""),
    // With the host's toolchains, where the operator shows them.
    program("mounts-with-the-hosts-root", &["mounts"])
        .properties(HOST)
        .needs(Need::Local)
        .prints(""),
    program("where-the-servers-state-is-with-the-hosts-root", &["paths-with", "{state}"])
        .properties(HOST)
        .needs(Need::Local)
        .prints(""),
    program("a-file-of-the-host-with-its-root", &["walk-up", "{canary}"])
        .properties(HOST)
        .needs(Need::Local)
        .prints(""),
    program("the-hosts-shadow-with-its-root", &["walk-up", "/etc/shadow"])
        .properties(HOST)
        .needs(Need::Local)
        .prints(""),
    program("homes-with-the-hosts-root", &["walk-up", "/root/"])
        .properties(HOST)
        .needs(Need::Local)
        .prints(""),
    program("processes-with-the-hosts-root", &["processes"])
        .properties(HOST)
        .needs(Need::Local)
        .prints(""),
    calls("write-the-hosts-toolchain", "openat AT '/usr/pwned' WRONLY|CREAT 0666")
        .properties(HOST)
        .needs(Need::Local)
        .fails("EROFS|EACCES"),
    calls("change-modes-of-the-hosts-toolchain", "fchmodat AT '/usr/bin/env' 0777")
        .properties(HOST)
        .needs(Need::Local)
        .fails("EROFS|EPERM"),
];
