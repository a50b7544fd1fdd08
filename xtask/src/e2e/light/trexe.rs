//! trexe, which runs one command on the server.

use std::fs;

use anyhow::{Result, ensure};

use super::{
    surroundings::Surroundings,
    tree::{Entry, mode_and_time, read},
};
use crate::e2e::{Place, session::Finished, steps::step};

/// A file of some age, and one that only its owner may read.
const INPUTS: &str = "mkdir -p tree/below && echo words > tree/file && echo '#!/bin/sh' > tree/tool && \
                      chmod 755 tree/tool && ln -s ../file tree/below/link && \
                      touch -d 2019-01-01T00:00:00Z tree/file";

/// 2019-01-01 and 2021-01-01.
const OLD: i64 = 1_546_300_800;
const NEW: i64 = 1_609_459_200;

/// A socket of the server, which gRPC's C core has in `:authority` with a percent sign for each slash.
const SOCKET: &str = "/client/actiond.sock";

pub(super) fn run(place: &Place) -> Result<()> {
    let mut listen = std::ffi::OsString::from("--listen=unix:");
    listen.push(place.scratch.join("client/actiond.sock"));
    fs::create_dir_all(place.scratch.join("client"))?;
    let mut here = Surroundings::open_with(place, None, &[listen])?;
    here.run(&["sh", "-c", INPUTS])?;
    let script = "cp tree/below/link copy && mkdir -p out/empty && ln -s ../copy out/link && \
                  cp tree/tool out && echo words on stdout && echo words on stderr >&2";
    let words = ["--input-path=tree:tree", "--output-path=copy", "--output-path=out"];
    step("files, directories, symlinks and streams come back", || {
        let (ran, finished) = here.counting(|here| here.trexe(0, "first", &words, script))?;
        ensure!(ran == 1, "{ran} actions ran");
        let told = (finished.stdout.as_str(), finished.stderr.as_str());
        ensure!(told == ("words on stdout\n", "words on stderr\n"), "it says {told:?}");
        let tree = read(&here.workspace().join("first"))?;
        let file = |content: &str, is_executable| Entry::File {
            content: content.as_bytes().to_vec(),
            is_executable,
        };
        let expected = [
            ("copy", file("words\n", false)),
            ("out", Entry::Directory),
            ("out/empty", Entry::Directory),
            ("out/link", Entry::Symlink("../copy".into())),
            ("out/tool", file("#!/bin/sh\n", true)),
        ];
        ensure!(tree == expected.map(|(path, entry)| (path.into(), entry)).into(), "{tree:?}");
        Ok(format!("{} entries", tree.len()))
    })?;
    step("the same command again is a hit", || {
        let (ran, finished) = here.counting(|here| here.trexe(0, "second", &words, script))?;
        ensure!(ran == 0 && finished.stdout == "words on stdout\n", "{ran} actions ran");
        ensure!(
            read(&here.workspace().join("first"))? == read(&here.workspace().join("second"))?,
            "the outputs differ"
        );
        Ok("none run, the same outputs".into())
    })?;
    step("a command that fails has its exit code, its streams and its outputs", || {
        let script = "echo words on stderr >&2; echo partly > out; exit 3";
        let finished = here.trexe(3, "failed", &["--output-path=out"], script)?;
        ensure!(finished.stderr == "words on stderr\n", "it says {}", finished.stderr);
        let output = fs::read_to_string(here.workspace().join("failed/out"))?;
        ensure!(output == "partly\n", "the output is {output:?}");
        Ok("exit code 3".into())
    })?;
    step("times and modes of files go both ways where they are asked for", || {
        let words = [
            "--input-path=tree/file:file:mtime",
            "--output-path=out",
            "--output-path=seen",
            "--output-node-properties=mtime",
            "--output-node-properties=unix_mode",
        ];
        let script = "stat -c %Y file > seen && echo words > out && chmod 751 out && \
                      touch -d 2021-01-01T00:00:00Z out";
        here.trexe(0, "properties", &words, script)?;
        let folder = here.workspace().join("properties");
        let seen = fs::read_to_string(folder.join("seen"))?;
        ensure!(seen == format!("{OLD}\n"), "the action saw {seen:?}");
        let told = mode_and_time(&folder.join("out"))?;
        ensure!(told == (0o751, NEW), "the output has {told:?}");
        Ok("0751, 2021-01-01".into())
    })?;
    step("a socket in the file system serves it too, whatever its path is", || {
        let remote = format!("--remote=unix:{}", SOCKET);
        let mut words =
            here.trexe_words(&["--wait", "--d=socket", "--output-path=out"], "echo words > out");
        words[1] = remote;
        here.run(&as_words(&words))?;
        let output = fs::read_to_string(here.workspace().join("socket/out"))?;
        ensure!(output == "words\n", "the output is {output:?}");
        Ok(SOCKET.into())
    })?;
    step("a command that takes too long is stopped, and the client is told", || {
        let finished = here.trexe(1, "late", &["--exec-timeout=1"], "sleep 1000")?;
        ensure!(finished.stderr.contains("after its timeout of 1 s"), "{}", finished.stderr);
        Ok("after a second".into())
    })?;
    step("an operation that is cancelled ends", || {
        let words = here.trexe_words(&["--no-wait", "--do-not-cache"], "sleep 1000");
        let finished = here.run(&as_words(&words))?;
        let (url, operation) = (here.url(), format!("--operation={}", finished.stdout.trim()));
        let trexe = ["trexe", &format!("--remote={url}"), &operation];
        here.run(&[&trexe[..], &["--cancel"]].concat())?;
        let finished = here.ends_with(1, &[&trexe[..], &["--d=cancelled"]].concat())?;
        ensure!(finished.stderr.contains("cancelled"), "{}", finished.stderr);
        Ok("CANCELLED".into())
    })?;
    here.close()
}

impl Surroundings {
    /// trexe with a script of the shell, more flags before it.
    fn trexe_words(&self, flags: &[&str], script: &str) -> Vec<String> {
        let remote = format!("--remote={}", self.url());
        let first = ["trexe", &remote, "--platform-properties=rootfs=host"];
        let words = first.into_iter().chain(["--env=PATH=/usr/bin:/bin"]);
        let words = words.chain(flags.iter().copied()).chain(["/bin/sh", "-c", script]);
        words.map(str::to_owned).collect()
    }

    /// Runs a script, and downloads its outputs into a folder of the workspace.
    fn trexe(
        &mut self,
        exit_code: i32,
        folder: &str,
        flags: &[&str],
        script: &str,
    ) -> Result<Finished> {
        let folder = format!("--d={folder}");
        let words = self.trexe_words(&[&["--wait", &folder], flags].concat(), script);
        self.ends_with(exit_code, &as_words(&words))
    }
}

fn as_words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
