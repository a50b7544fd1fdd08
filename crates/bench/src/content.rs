//! The blobs and trees of the loads.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use model::proto::{self, Message};
use model::{Digest, DigestFunction};

/// A blob under its digest.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

impl Blob {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { digest: Digest::of(DigestFunction::Sha256, &bytes), bytes }
    }

    pub(crate) fn of_message(message: &impl Message) -> Self {
        Self::new(message.encode_to_vec())
    }
}

/// A number that no other call of this run, nor of another run, gives.
pub(crate) fn unique() -> u128 {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let since_1970 = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    (since_1970 << 32) + u128::from(COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Bytes that do not compress and that no server has seen.
pub(crate) fn random_bytes(length: usize) -> Vec<u8> {
    // xorshift64: quick, and good enough to be unlike anything else.
    let mut state = (unique() as u64) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The smallest program: an ELF file that does nothing but exit(0). A C library
/// would cost the action more than the sandbox does.
pub(crate) fn exit_program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // mov edi, 0; mov eax, 60 (exit); syscall
    #[cfg(target_arch = "x86_64")]
    let (machine, code): (u16, &[u8]) = (62, &[0xbf, 0, 0, 0, 0, 0xb8, 60, 0, 0, 0, 0x0f, 0x05]);
    // mov x0, #0; mov x8, #93 (exit); svc #0
    #[cfg(target_arch = "aarch64")]
    let (machine, code): (u16, &[u8]) =
        (183, &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 1, 0, 0, 0xd4]);
    let size = HEADERS + code.len() as u64;
    let mut elf = Vec::new();
    elf.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    elf.extend(2u16.to_le_bytes()); // executable
    elf.extend(machine.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    elf.extend((BASE + HEADERS).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes()); // no section headers
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1u32.to_le_bytes()); // load
    elf.extend(5u32.to_le_bytes()); // readable, executable
    for word in [0, BASE, BASE, size, size, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// An input tree: its root and all its blobs.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) root: Digest,
    pub(crate) blobs: Vec<Blob>,
}

/// A tree with `program` as `program` and `files - 1` small files in
/// `directories` directories. Each call's tree is new to the server when
/// `fresh` is: one directory differs.
pub(crate) fn tree(program: &Blob, files: usize, directories: usize, fresh: bool) -> Tree {
    let mut blobs = vec![program.clone()];
    let mut root =
        proto::Directory { files: vec![file("program", program, true)], ..Default::default() };
    let small: Vec<Blob> = (1..files).map(|i| Blob::new(format!("input file {i}\n"))).collect();
    for (number, chunk) in small.chunks(small.len().div_ceil(directories.max(1)).max(1)).enumerate()
    {
        let names = (0..chunk.len()).map(|i| format!("file-{i:05}"));
        let mut directory = proto::Directory {
            files: names.zip(chunk).map(|(name, blob)| file(&name, blob, false)).collect(),
            ..Default::default()
        };
        if fresh && number == 0 {
            let blob = Blob::new(unique().to_string());
            directory.files.push(file("unique", &blob, false));
            blobs.push(blob);
        }
        let directory = Blob::of_message(&directory);
        root.directories.push(proto::DirectoryNode {
            name: format!("directory-{number:05}"),
            digest: Some(directory.digest.to_proto()),
        });
        blobs.push(directory);
    }
    blobs.extend(small);
    let root = Blob::of_message(&root);
    let digest = root.digest;
    blobs.push(root);
    Tree { root: digest, blobs }
}

fn file(name: &str, blob: &Blob, is_executable: bool) -> proto::FileNode {
    proto::FileNode {
        name: name.to_owned(),
        digest: Some(blob.digest.to_proto()),
        is_executable,
        ..Default::default()
    }
}
