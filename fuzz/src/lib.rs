//! The parts that fuzz targets share: input trees made of a fuzzer's bytes, and a runtime for asynchronous parsers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use model::proto::{self, Message};
use model::{Digest, DigestFunction, Directory, InputTree, LoadError, TreeLimits};

/// Takes the fuzzer's bytes apart. Behind their end there are zeros.
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// Choices by `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    /// The next bytes, as many as there are up to `count`.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Whether there are any bytes left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Runs a future to its end on this thread.
pub fn block_on(future: impl Future<Output = ()>) {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future));
}

/// A valid tree that the choices describe, of at most some hundred entries.
pub fn tree(choices: &mut Choices<'_>) -> InputTree {
    let function = DigestFunction::ALL[usize::from(choices.byte()) % DigestFunction::ALL.len()];
    let mut messages = HashMap::new();
    // Directories are made from the leaves up; each takes some of those made before it.
    let mut made: Vec<Digest> = Vec::new();
    for _ in 0..1 + choices.byte() % 16 {
        let message = directory(choices, function, &made).encode_to_vec();
        let digest = Digest::of(function, &message);
        messages.insert(digest, message);
        made.push(digest);
    }
    let root = *made.last().expect("there is one at least");
    let mut load = |digest: &Digest| {
        let message = messages.get(digest).cloned().unwrap_or_default();
        let directory = Directory::parse(message.into(), digest.function());
        directory.map(|it| Some(Arc::new(it))).map_err(LoadError::<Infallible>::from)
    };
    let limits = TreeLimits { max_entries: 4096, ..TreeLimits::default() };
    InputTree::assemble(root, limits, &mut load).unwrap_or_else(|_| empty(function))
}

fn empty(function: DigestFunction) -> InputTree {
    let load = &mut |_: &Digest| Ok::<_, LoadError<Infallible>>(None);
    InputTree::assemble(Digest::empty(function), TreeLimits::default(), load)
        .expect("an empty tree needs no directory")
}

fn directory(
    choices: &mut Choices<'_>,
    function: DigestFunction,
    made: &[Digest],
) -> proto::Directory {
    let mut names: Vec<String> = (0..choices.byte() % 32).map(|_| name(choices)).collect();
    names.sort();
    names.dedup();
    let mut directory = proto::Directory::default();
    for name in names {
        match choices.byte() % 8 {
            0 | 1 if !made.is_empty() => {
                let digest = made[usize::from(choices.byte()) % made.len()].to_proto();
                directory.directories.push(proto::DirectoryNode { name, digest: Some(digest) });
            }
            2 => {
                let target = "t".repeat(1 + usize::from(choices.byte()) * 16);
                let node = proto::SymlinkNode { name, target, ..Default::default() };
                directory.symlinks.push(node);
            }
            kind => {
                let size = u64::from(choices.byte()) << (choices.byte() % 36);
                let digest = Digest::new(function, [choices.byte(); 32], size).to_proto();
                let node = proto::FileNode { name, digest: Some(digest), ..Default::default() };
                directory.files.push(proto::FileNode { is_executable: kind == 3, ..node });
            }
        }
    }
    directory
}

/// A valid name: the text of some bytes without what no name may have, and never a dot alone.
fn name(choices: &mut Choices<'_>) -> String {
    let length = usize::from(choices.byte()) % 84;
    let text = String::from_utf8_lossy(choices.bytes(length)).replace(['\0', '/'], "-");
    format!("{text}{}", choices.byte() % 10)
}
