//! `cargo xtask e2e web`: the pages in a real browser.
//!
//! The browser and node come from the distribution. The library that drives the browser and the checker of
//! accessibility come from npm, at the versions and hashes in `e2e/web/package-lock.json`, and are kept in the
//! user's cache. The checks are a test of the daemon, which is skipped where no browser is named: [`Browser`] names
//! it to `cargo test`. Pictures of all pages are in `target/screenshots` afterwards.

use std::{
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{cargo_test, process, setup, workspace};

/// The files that say what is fetched, and the script.
const FILES: [&str; 3] = ["package.json", "package-lock.json", "pages.mjs"];

/// The variables of the test, in the order of the fields of [`Browser`].
const VARIABLES: [&str; 3] =
    ["ACTIOND_TEST_CHROMIUM", "ACTIOND_TEST_WEB_SCRIPTS", "ACTIOND_TEST_SCREENSHOTS"];

/// The oldest node that the library which drives the browser runs on, by the number before the first dot.
const NODE_MIN: u32 = 20;

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
        check_node()?;
        let screenshots = workspace::target().join("screenshots");
        fs::create_dir_all(&screenshots)
            .with_context(|| format!("cannot make {}", screenshots.display()))?;
        let chromium = process::find("chromium").context("chromium is not on the PATH")?;
        Ok(Self { chromium, scripts: scripts()?, screenshots })
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

fn check_node() -> Result<()> {
    let version = process::output(Command::new("node").arg("--version"))?;
    let number = version.trim().trim_start_matches('v').split('.').next();
    let number = number.and_then(|number| number.parse::<u32>().ok());
    ensure!(
        number.is_some_and(|number| number >= NODE_MIN),
        "node {} is too old to drive a browser: install version {NODE_MIN} or later, as in Debian 13; `--skip web` \
         leaves the pages out",
        version.trim(),
    );
    Ok(())
}

/// A folder with the script and what it imports, made once for each content of [`FILES`].
fn scripts() -> Result<PathBuf> {
    let source = workspace::root().join("e2e/web");
    let mut hasher = DefaultHasher::new();
    let mut contents = Vec::new();
    for name in FILES {
        let path = source.join(name);
        let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        content.hash(&mut hasher);
        contents.push((name, content));
    }
    let folder = workspace::cache()?.join(format!("web-{:016x}", hasher.finish()));
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = folder.with_extension("unfinished");
    fs::create_dir_all(&unfinished)
        .with_context(|| format!("cannot make {}", unfinished.display()))?;
    for (name, content) in contents {
        fs::write(unfinished.join(name), content)?;
    }
    println!("e2e web: fetching what drives the browser");
    // No package of it needs to run anything when it is installed.
    let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
    process::run(Command::new("npm").args(npm).current_dir(&unfinished))
        .context("fetching the packages of e2e/web")?;
    fs::rename(&unfinished, &folder)
        .with_context(|| format!("cannot rename {}", unfinished.display()))?;
    Ok(folder)
}
