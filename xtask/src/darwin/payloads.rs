//! The payloads of the program, and the check that they come out again.
//!
//! The linker makes a section of each file. The way back is the program's own, run on Linux: its verb
//! `extract` reads any host's executable and goes the way that `serve-vm` goes before it boots.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::{binaries::Unoptimized, process};

/// The segment of all payloads (`crates/embedded` has these names for reading).
pub(super) const SEGMENT: &str = "__ACTIOND";

const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// The files of a release.
pub(crate) struct Given {
    /// The guest's kernel, an arm64 Image, as it is or compressed with zstd.
    pub(crate) kernel: PathBuf,
    /// The guest's initramfs.
    pub(crate) initramfs: PathBuf,
    /// The image of runtimes for arm64.
    pub(crate) runtimes: PathBuf,
}

/// Files that become sections.
pub(super) struct Payloads(Vec<Payload>);

struct Payload {
    /// As `extract` calls it; its section has the same name after two underscores.
    name: &'static str,
    /// A file whose name changes with its content, so that cargo sees that it has to link again.
    file: PathBuf,
    /// Its content.
    bytes: Vec<u8>,
    /// The expected result.
    content: Vec<u8>,
}

fn section(name: &str) -> String {
    format!("__{name}")
}

impl Payloads {
    /// Puts the files of a release, or stand-ins, into `folder`.
    pub(super) fn stage(given: Option<&Given>, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let read = |path: &PathBuf| {
            fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let bytes = |name, path: Option<&PathBuf>| path.map_or_else(|| stand_in(name), read);
        let files = [
            ("kernel", given.map(|it| &it.kernel)),
            ("initramfs", given.map(|it| &it.initramfs)),
            ("runtimes", given.map(|it| &it.runtimes)),
        ];
        let staged = files.map(|(name, path)| Payload::stage(name, bytes(name, path)?, folder));
        Ok(Self(staged.into_iter().collect::<Result<_>>()?))
    }

    /// The name and the content of each section.
    pub(super) fn sections(&self) -> impl Iterator<Item = (String, &[u8])> {
        self.0.iter().map(|payload| (section(payload.name), &payload.bytes[..]))
    }

    /// A section for each, in a segment that is only read.
    pub(super) fn linker_arguments(&self) -> Vec<String> {
        let sections = self.0.iter().flat_map(|payload| {
            let section = section(payload.name);
            let file = payload.file.display().to_string();
            ["-sectcreate".to_owned(), SEGMENT.to_owned(), section, file]
        });
        let protection = ["-segprot", SEGMENT, "r", "r"].map(str::to_owned);
        sections.chain(protection).collect()
    }

    /// For messages.
    pub(super) fn names(&self) -> String {
        self.0.iter().map(|payload| payload.name).collect::<Vec<_>>().join(", ")
    }

    /// Has this machine's `darwin-actiond` extract from `program`, twice, and compares.
    pub(super) fn check_extraction(&self, program: &Path) -> Result<()> {
        let root = program.with_extension("extracted");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let first = self.extract(program, &root)?;
        for (payload, path) in self.0.iter().zip(&first) {
            let found = fs::read(path).with_context(|| format!("no {}", path.display()))?;
            ensure!(found == payload.content, "the {} came out changed", payload.name);
        }
        let times = modified(&first)?;
        ensure!(self.extract(program, &root)? == first, "extracted to other places again");
        ensure!(modified(&first)? == times, "extracted again what was there");
        fs::remove_dir_all(&root)?;
        Ok(())
    }

    /// The paths of what was extracted, in our order.
    fn extract(&self, program: &Path, root: &Path) -> Result<Vec<PathBuf>> {
        let mut extract = Command::new(Unoptimized::DarwinActiond.build()?);
        extract.args(["extract", "--program"]).arg(program).arg("--root").arg(root);
        let said = process::output(&mut extract)?;
        let path = |payload: &Payload| {
            let mut lines = said.lines().filter_map(|line| line.split_once(' '));
            let found = lines.find(|(name, _)| *name == payload.name);
            let (_, path) = found.with_context(|| format!("extract told no {}", payload.name))?;
            Ok(PathBuf::from(path))
        };
        self.0.iter().map(path).collect()
    }
}

impl Payload {
    fn stage(name: &'static str, bytes: Vec<u8>, folder: &Path) -> Result<Self> {
        let hash = Sha256::digest(&bytes);
        let short: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let file = folder.join(format!("{name}-{short}"));
        fs::write(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
        let content = if bytes.starts_with(ZSTD_MAGIC) {
            zstd::stream::decode_all(&bytes[..])
                .with_context(|| format!("the {name} is damaged"))?
        } else {
            bytes.clone()
        };
        Ok(Self { name, file, bytes, content })
    }
}

/// Something of a payload's kind: compressed but for the runtimes, as in a release.
fn stand_in(name: &str) -> Result<Vec<u8>> {
    let text = format!("stand-in for the {name}\n").repeat(10_000);
    match name {
        "runtimes" => Ok(text.into_bytes()),
        _ => zstd::bulk::compress(text.as_bytes(), 3).context("cannot compress"),
    }
}

fn modified(paths: &[PathBuf]) -> Result<Vec<std::time::SystemTime>> {
    paths.iter().map(|path| Ok(path.metadata()?.modified()?)).collect()
}
