//! BuildStream, whose input roots are whole root file systems: each is `/` of its action.
//!
//! The root of the project's elements is a part of Debian 12, which is an input like any other.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{surroundings::Surroundings, tree};
use crate::{
    e2e::{
        Place,
        session::{Finished, Session},
        steps::step,
    },
    process,
};

/// The parts of Debian 12 that compile and run a program. The rest is manual pages, and what the
/// sandbox has of its own.
const BASE: &str = r#"
set -e
mkdir -p usr var etc
for name in bin lib lib32 lib64 libx32 sbin usr/bin usr/include usr/lib usr/lib64 usr/libexec usr/sbin \
    etc/alternatives etc/group etc/ld.so.conf etc/ld.so.conf.d etc/passwd; do
  ! test -e "$root/$name" || cp --archive "$root/$name" "$name"
done
"#;

/// Builds what the project builds, without BuildStream.
const BY_HAND: &str = "cd /client && g++ -O1 -shared -fPIC -Wl,-soname,libgreet.so.1 -o libgreet.so.1 greet.cc && \
    ln -s libgreet.so.1 libgreet.so && g++ -O1 -I. -L. -o hello hello.cc -lgreet";

/// The program's element.
const HELLO: &str = "hello.bst";

pub(super) fn run(place: &Place) -> Result<()> {
    let mut here = Surroundings::open(place, Some("buildstream"))?;
    let base = here.workspace().join("files/base");
    fs::create_dir(&base)?;
    let mut fill = Command::new("sh");
    process::run(fill.args(["-c", BASE]).env("root", &place.debian_12_root).current_dir(&base))?;
    step("the outputs of a build by hand are what those of BuildStream are compared with", || {
        build_by_hand(place, &here)?;
        Ok("a library and a program".into())
    })?;
    let mut actions = 0;
    step("every command runs on the server, in its input root as root", || {
        here.configure("one", "artifacts")?;
        let (ran, _) = here.counting(|here| here.bst(0, "one", &["build", HELLO]))?;
        // The library, its integration into the root of the program, and the program.
        ensure!(ran == 3, "{ran} actions ran");
        actions = ran;
        here.check_out("one", "remote")?;
        here.check_outputs("remote")?;
        Ok(format!("{ran} actions"))
    })?;
    step("another client's build is served from the action cache", || {
        here.configure("another", "")?;
        let (ran, _) = here.counting(|here| here.bst(0, "another", &["build", HELLO]))?;
        ensure!(ran == 0, "{ran} actions ran");
        here.check_out("another", "again")?;
        let compared = tree::ensure_equal(&here.path("remote"), &here.path("again"))?;
        Ok(format!("{actions} hits, {compared} equal files and directories"))
    })?;
    step("a client that builds nothing gets the artifact by its name (Remote Asset)", || {
        here.configure("third", "artifacts")?;
        let pull = ["artifact", "pull", "--deps", "run", HELLO];
        let (ran, _) = here.counting(|here| here.bst(0, "third", &pull))?;
        ensure!(ran == 0, "{ran} actions ran");
        here.check_out("third", "pulled")?;
        let compared = tree::ensure_equal(&here.path("remote"), &here.path("pulled"))?;
        Ok(format!("{compared} equal files and directories"))
    })?;
    step("a root that can be read only is one", || {
        here.bst(0, "one", &["build", "tested.bst"])?;
        Ok("script element".into())
    })?;
    step("a workspace keeps the times of what was built in it", || here.build_in_a_workspace())?;
    step("a command that fails is told with its exit code and its streams", || {
        let Finished { stdout, stderr, .. } = here.bst(255, "one", &["build", "fails.bst"])?;
        let said = [stdout, stderr].concat();
        for part in ["failed with exitcode 7", "words on stderr"] {
            ensure!(said.contains(part), "{part:?} is not in:\n{said}");
        }
        Ok("exit code 7".into())
    })?;
    here.close()
}

/// Has Debian 12 itself compile the same sources.
fn build_by_hand(place: &Place, here: &Surroundings) -> Result<()> {
    let folder = here.path("by-hand");
    fs::create_dir(&folder)?;
    for name in ["greet/greet.cc", "greet/greet.h", "hello/hello.cc"] {
        let source = here.workspace().join("files").join(name);
        let name = Path::new(name).file_name().context("a source has a name")?;
        fs::copy(&source, folder.join(name))?;
    }
    let mut session = Session::open(&place.debian_12_root, &folder)?;
    let words = ["sh", "-c", BY_HAND].map(str::to_owned);
    let Finished { exit_code, stderr, .. } = session.run("/client", &words)?;
    ensure!(exit_code == 0, "{stderr}");
    Ok(())
}

impl Surroundings {
    /// Writes the configuration of a client with a cache of its own. `artifacts` names the section for the
    /// server that keeps them, or is empty.
    fn configure(&self, client: &str, artifacts: &str) -> Result<()> {
        let url = self.url();
        let service = |name: &str| format!("  {name}:\n    url: {url}\n");
        let services = ["execution-service", "storage-service", "action-cache-service"];
        let services: String = services.into_iter().map(service).collect();
        let artifacts = match artifacts {
            "" => String::new(),
            section => format!("{section}:\n  servers:\n  - url: {url}\n    push: true\n"),
        };
        let text =
            format!("cachedir: /client/cache-{client}\nremote-execution:\n{services}{artifacts}");
        Ok(fs::write(self.path(&format!("{client}.conf")), text)?)
    }

    fn bst(&mut self, exit_code: i32, client: &str, words: &[&str]) -> Result<Finished> {
        let configuration = format!("--config=/client/{client}.conf");
        let first = ["bst", "--no-colors", "--no-interactive", "--on-error=quit", &configuration];
        self.ends_with(exit_code, &[&first[..], words].concat())
    }

    /// Has the artifact of the program checked out to a folder.
    fn check_out(&mut self, client: &str, folder: &str) -> Result<()> {
        let folder = format!("--directory=/client/{folder}");
        self.bst(0, client, &["artifact", "checkout", "--deps=none", &folder, HELLO]).map(drop)
    }

    /// Compares the program with the one that was made by hand, and looks at what its build wrote.
    fn check_outputs(&self, folder: &str) -> Result<()> {
        let read = |path: &str| fs::read(self.path(folder).join(path)).context(path.to_owned());
        let by_hand = fs::read(self.path("by-hand/hello"))?;
        ensure!(read("usr/bin/hello")? == by_hand, "the programs differ");
        let text = |path: &str| read(path).map(|text| String::from_utf8_lossy(&text).into_owned());
        let said = text("usr/share/hello/said")?;
        ensure!(said == "hello from the library\n", "the program said {said:?}");
        let place = text("usr/share/hello/place")?;
        ensure!(place == "/buildstream/e2e/hello.bst\n", "it was built in {place:?}");
        let steps = text("usr/share/hello/steps")?;
        ensure!(steps == "built\ncompiled\n", "the steps were {steps:?}");
        Ok(())
    }

    /// Builds the program in a workspace, twice: the second build finds the program of the first, which is
    /// newer than its source.
    fn build_in_a_workspace(&mut self) -> Result<String> {
        let directory = "--directory=/client/opened";
        self.bst(0, "one", &["workspace", "open", directory, HELLO])?;
        for (file, expected) in
            [("first.txt", "built\ncompiled\n"), ("second.txt", "built\ncompiled\nbuilt\n")]
        {
            fs::write(self.path("opened").join(file), "another build\n")?;
            self.bst(0, "one", &["build", HELLO])?;
            self.check_out("one", file)?;
            let steps = fs::read_to_string(self.path(file).join("usr/share/hello/steps"))?;
            ensure!(steps == expected, "{file}: the steps were {steps:?}");
        }
        Ok("compiled once, built twice".into())
    }
}
