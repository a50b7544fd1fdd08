//! `cargo xtask e2e web`: the pages in a real browser.
//!
//! The browser and node come from the distribution. The library that drives the browser and the checker of
//! accessibility come from npm, at the versions and hashes in `e2e/web/package-lock.json`, and are kept in the
//! user's cache. The checks are a test of the daemon, which is skipped where no browser is named: [`Browser`] names
//! it to `cargo test`. Pictures of all pages are in `target/screenshots` afterwards.

use std::{ffi::OsString, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{cargo_test, npm, process, setup, workspace};

/// The script, beside the lists of what it imports.
const SCRIPT: &str = "pages.mjs";

/// The variables of the test, in the order of the fields of [`Browser`].
const VARIABLES: [&str; 3] =
    ["ACTIOND_TEST_CHROMIUM", "ACTIOND_TEST_WEB_SCRIPTS", "ACTIOND_TEST_SCREENSHOTS"];

/// A browser, and what drives it.
pub(crate) struct Browser {
    chromium: PathBuf,
    scripts: PathBuf,
    screenshots: PathBuf,
}

impl Browser {
    /// Installs and fetches what is missing.
    pub(crate) fn provide() -> Result<Self> {
        setup::ensure(&setup::BROWSER)?;
        npm::ensure_node(super::WEB)?;
        let screenshots = workspace::target().join("screenshots");
        fs::create_dir_all(&screenshots)
            .with_context(|| format!("cannot make {}", screenshots.display()))?;
        let chromium = process::find("chromium").context("chromium is not on the PATH")?;
        Ok(Self { chromium, scripts: npm::provide("web", &[SCRIPT])?, screenshots })
    }

    /// Names them to tests.
    pub(crate) fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let values = [&self.chromium, &self.scripts, &self.screenshots];
        command.envs(VARIABLES.into_iter().zip(values))
    }
}

/// The verb.
pub(crate) fn run() -> Result<()> {
    let browser = Browser::provide()?;
    let words = ["--package", "actiond", "--test", "browser", "--", "--nocapture"];
    cargo_test::run(&words.map(OsString::from), |cargo| {
        browser.tell(cargo);
    })?;
    println!("e2e web: pictures of the pages are in {}", browser.screenshots.display());
    Ok(())
}
