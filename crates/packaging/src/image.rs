//! Writes a tree as a SquashFS image, the same bytes for the same tree.

use std::fs::{self, File};
use std::io::{self, Cursor, IsTerminal, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use backhand::compression::{CompressionOptions, Compressor, Zstd};
use backhand::{FilesystemCompressor, FilesystemWriter, NodeHeader, kind};

use crate::tree::{Node, Tree};

/// The level of zstd, of 22. The last three levels cost four times the time for one per cent.
const ZSTD_LEVEL: u32 = 19;

/// As large as a block can be: the larger the blocks, the better they compress, and libraries are
/// read from one end to the other anyway.
const BLOCK_BYTES: u32 = 1 << 20;

/// Writes the image to `path`: whole, or not at all.
///
/// # Errors
/// When it can't be written.
pub fn write(tree: &Tree, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .with_context(|| folder.display().to_string())?;
    let mut writer = writer(tree)?;
    let mut progress = Progress::new(file.as_file(), unpacked_bytes(tree));
    writer.write(&mut progress).context("writing the image")?;
    progress.say("\n");
    file.persist(path).with_context(|| path.display().to_string())?;
    Ok(())
}

fn writer(tree: &Tree) -> Result<FilesystemWriter<'_, '_, '_>> {
    let options = CompressionOptions::Zstd(Zstd { compression_level: ZSTD_LEVEL });
    let mut writer = FilesystemWriter::default();
    writer.set_kind(kind::Kind::from_const(kind::LE_V4_0).map_err(anyhow::Error::msg)?);
    writer.set_block_size(BLOCK_BYTES);
    writer.set_compressor(FilesystemCompressor::new(Compressor::Zstd, Some(options))?);
    writer.set_time(0);
    writer.set_only_root_id();
    writer.set_root_mode(0o755);
    for (path, node) in tree.iter() {
        let pushed = match node {
            Node::Directory => writer.push_dir(path, header(0o755)),
            Node::File { content, executable } => {
                let mode = if *executable { 0o755 } else { 0o644 };
                writer.push_file(Cursor::new(content.clone()), path, header(mode))
            }
            Node::Symlink(target) => writer.push_symlink(target, path, header(0o777)),
        };
        pushed.with_context(|| path.to_owned())?;
    }
    Ok(writer)
}

fn header(permissions: u16) -> NodeHeader {
    NodeHeader { permissions, uid: 0, gid: 0, mtime: 0 }
}

fn unpacked_bytes(tree: &Tree) -> u64 {
    let size = |node: &Node| match node {
        Node::File { content, .. } => content.len() as u64,
        Node::Directory | Node::Symlink(_) => 0,
    };
    tree.iter().map(|(_, node)| size(node)).sum()
}

/// Says how far the image is, about once a second, where somebody watches.
struct Progress<'a> {
    file: &'a File,
    unpacked_bytes: u64,
    position: u64,
    /// The writer goes back to mend its headers; the furthest position is the progress.
    written_bytes: u64,
    said: Instant,
    watched: bool,
}

impl<'a> Progress<'a> {
    fn new(file: &'a File, unpacked_bytes: u64) -> Self {
        let watched = io::stderr().is_terminal();
        let said = Instant::now();
        Self { file, unpacked_bytes, position: 0, written_bytes: 0, said, watched }
    }

    fn say(&self, end: &str) {
        const MIB: f64 = (1 << 20) as f64;
        let (written, unpacked) =
            (self.written_bytes as f64 / MIB, self.unpacked_bytes as f64 / MIB);
        let start = if self.watched { "\r" } else { "" };
        eprint!("{start}runtimes: {unpacked:.1} MiB of files, {written:.1} MiB of image{end}");
    }
}

impl Write for Progress<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.position += written as u64;
        self.written_bytes = self.written_bytes.max(self.position);
        if self.watched && self.said.elapsed() > Duration::from_secs(1) {
            self.said = Instant::now();
            self.say("");
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Progress<'_> {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(position)?;
        Ok(self.position)
    }
}
