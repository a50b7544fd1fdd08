//! What an action finds around itself, and must not.

use crate::case::{Case, program};

pub(super) const CASES: &[Case] = &[
    program("descriptors-of-the-server", &["descriptors"]).prints("0 is /dev/null"),
    program("variables-of-the-server", &["environment"]).prints(""),
    program("processes-of-others", &["processes"]).prints(""),
    program("addresses-in-the-kernel", &["addresses"]).prints(""),
    program("mounts-that-can-be-used", &["mounts"]).prints(""),
];
