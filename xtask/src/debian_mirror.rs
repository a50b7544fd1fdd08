//! Where this machine's apt has Debian's packages from, for verbs that need those of other suites.

use std::{env, process::Command};

use anyhow::{Context, Result};

use crate::process;

/// Names a Debian mirror where apt knows none, as on Ubuntu.
const VARIABLE: &str = "ACTIOND_DEBIAN_MIRROR";

/// The address of Debian's main archive on the mirror that this machine uses.
pub(crate) fn provide() -> Result<String> {
    if let Ok(mirror) = env::var(VARIABLE) {
        return Ok(mirror);
    }
    if let Some(mirror) = configured()? {
        return Ok(mirror);
    }
    // A fresh machine has never fetched the indexes that say whose archive a mirror holds.
    process::run(process::as_root("apt-get").args(["update", "-qq"]))?;
    configured()?.with_context(|| {
        format!("apt is configured with no Debian mirror here; {VARIABLE} can name one")
    })
}

fn configured() -> Result<Option<String>> {
    let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
    let targets = process::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    Ok(main_archive(&targets))
}

/// The address of Debian's main archive among apt's index targets; not that of security updates,
/// which has no such suites.
fn main_archive(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_prefix("Debian|Debian|")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_archive_is_found_among_others() {
        let targets = "Else|Else|https://else.invalid/\n\
                       Debian|Debian-Security|http://mirror.invalid/security/\n\
                       Debian|Debian|http://mirror.invalid/debian/\n";
        assert_eq!(main_archive(targets).as_deref(), Some("http://mirror.invalid/debian/"));
        assert_eq!(main_archive("Ubuntu|Ubuntu|http://mirror.invalid/ubuntu/\n"), None);
    }
}
