//! casupload and casdownload, which move trees to the store and back.

use anyhow::{Result, ensure};

use super::{
    surroundings::Surroundings,
    tree::{ensure_equal, mode_and_time},
};
use crate::e2e::{Place, steps::step};

/// Files of many sizes; the largest one is sent in pieces. Times and modes are of some age.
const INPUTS: &str = "mkdir -p tree/below/empty && cd tree && echo words > file && : > nothing && \
                      echo '#!/bin/sh' > tool && chmod 755 tool && ln -s ../file below/link && \
                      ln -s nowhere dangling && head -c 20000000 /dev/urandom > large && \
                      chmod 640 file && touch -d 2019-01-01T00:00:00Z file below";

const OLD: i64 = 1_546_300_800;

/// Those that the tools know and the server has by default.
const FUNCTIONS: [&str; 3] = ["SHA256", "SHA384", "SHA512"];

pub(super) fn run(place: &Place) -> Result<()> {
    let mut here = Surroundings::open(place, None)?;
    here.run(&["sh", "-c", INPUTS])?;
    step("a tree comes back as it was, by its root directory and as one message", || {
        for function in FUNCTIONS {
            here.upload(function)?;
            for (kind, flag) in [("root", "--root-digest"), ("tree", "--tree-digest")] {
                let folder = format!("{function}-{kind}");
                here.download(function, kind, flag, &folder)?;
            }
        }
        Ok(FUNCTIONS.join(", "))
    })?;
    step("a killed and restarted server still has it", || {
        here.server.kill()?;
        here.server.restart()?;
        here.download("SHA256", "root", "--root-digest", "restarted")?;
        Ok("all of it".into())
    })?;
    step("a digest function that the server does not offer is refused", || {
        let remote = format!("--remote={}", here.url());
        let words = ["casupload", &remote, "--digest-function=MD5", "tree"];
        let finished = here.ends_with(1, &words)?;
        ensure!(finished.stderr.contains("MD5"), "{}", finished.stderr);
        Ok("MD5".into())
    })?;
    here.close()
}

impl Surroundings {
    /// Uploads the tree both as directories and as one message.
    fn upload(&mut self, function: &str) -> Result<()> {
        let remote = format!("--remote={}", self.url());
        let function_flag = format!("--digest-function={function}");
        let root = format!("--output-digest-file={function}-root.digest");
        let tree = format!("--output-tree-digest-file={function}-tree.digest");
        let words = ["casupload", &remote, &function_flag, &root, &tree, "--directory-format=both"];
        let more = ["--capture-mtime", "--capture-unix-mode", "tree"];
        self.run(&[&words[..], &more].concat())?;
        Ok(())
    }

    /// Downloads it into an empty folder, and compares it with the original.
    fn download(&mut self, function: &str, kind: &str, flag: &str, folder: &str) -> Result<()> {
        let digest = self.workspace().join(format!("{function}-{kind}.digest"));
        let digest = format!("{flag}={}", std::fs::read_to_string(digest)?.trim());
        let remote = format!("--remote={}", self.url());
        let function = format!("--digest-function={function}");
        let destination = format!("--destination-dir={folder}");
        self.run(&["mkdir", folder])?;
        self.run(&["casdownload", &remote, &function, &digest, &destination])?;
        let folder = self.workspace().join(folder);
        ensure_equal(&self.workspace().join("tree"), &folder)?;
        let told = mode_and_time(&folder.join("file"))?;
        ensure!(told == (0o640, OLD), "the file has {told:?}");
        Ok(())
    }
}
