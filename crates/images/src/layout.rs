//! An OCI image layout: an index, manifests and layers, each named by its digest.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>
//!
//! It is a directory, or a tar archive of one. Nothing in it is believed before its digest was
//! computed, but for `index.json`, with which everything begins.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The largest index or manifest; common ones have some KiB.
const MAX_JSON_BYTES: u64 = 4 << 20;

/// The deepest nesting of indexes; two levels are common.
const MAX_INDEX_DEPTH: usize = 4;

/// Errors of reading a layout.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file of it can't be read.
    #[error("cannot read {name} of {}", path.display())]
    Read {
        /// The layout.
        path: PathBuf,
        /// The file in it.
        name: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// It has no such file: nothing that an OCI layout would be without.
    #[error("{} has no {name}: it is no OCI image layout, or not all of one", path.display())]
    Missing {
        /// The layout.
        path: PathBuf,
        /// The file that should be in it.
        name: String,
    },
    /// A file is not what its name says.
    #[error("{name} of {} does not have the digest that it is named by", path.display())]
    Digest {
        /// The layout.
        path: PathBuf,
        /// The file in it.
        name: String,
    },
    /// A file says something that makes no sense.
    #[error("{name} of {}: {problem}", path.display())]
    Malformed {
        /// The layout.
        path: PathBuf,
        /// The file in it.
        name: String,
        /// The problem.
        problem: String,
    },
    /// There is no image for this machine's processor.
    #[error("{} has no image for linux/{architecture}", path.display())]
    NoImage {
        /// The layout.
        path: PathBuf,
        /// As OCI calls it.
        architecture: &'static str,
    },
}

/// A reference to a blob of the layout (`descriptor.md` of the specification).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: String,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// The part that indexes and manifests have of each other's fields.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// An image of the layout.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) digest: String,
    pub(crate) layers: Vec<Descriptor>,
}

/// A layout that was opened.
#[derive(Debug)]
pub(crate) struct Layout {
    path: PathBuf,
    /// The positions of files in the archive; `None` for a directory.
    archive: Option<HashMap<String, (u64, u64)>>,
}

impl Layout {
    /// Opens a directory or an archive.
    pub(crate) fn open(path: &Path) -> Result<Self, LayoutError> {
        let mut layout = Self { path: path.to_owned(), archive: None };
        let metadata = path.metadata().map_err(|source| layout.read_error("the layout", source))?;
        if !metadata.is_dir() {
            let files = archive_index(path);
            let files = files.map_err(|source| layout.read_error("the archive", source))?;
            layout.archive = Some(files);
        }
        Ok(layout)
    }

    /// The image for this machine's processor.
    pub(crate) fn manifest(&self) -> Result<Manifest, LayoutError> {
        let name = "index.json";
        let (file, size) = self.file(name)?;
        let mut text = Vec::new();
        file.take(MAX_JSON_BYTES)
            .read_to_end(&mut text)
            .map_err(|source| self.read_error(name, source))?;
        if text.len() as u64 != size {
            return Err(self.malformed(name, "it is too large"));
        }
        let mut document = self.parse(name, &text)?;
        for _ in 0..MAX_INDEX_DEPTH {
            let descriptor = self.choose(&document.manifests)?;
            let name = descriptor.digest.clone();
            document = self.parse(&name, &self.json(&descriptor)?)?;
            if document.manifests.is_empty() {
                return Ok(Manifest { digest: name, layers: document.layers });
            }
        }
        Err(self.malformed(name, "indexes of indexes of indexes"))
    }

    /// The one of an index that is for this machine, or the only one that is for any.
    fn choose(&self, manifests: &[Descriptor]) -> Result<Descriptor, LayoutError> {
        let architecture = architecture();
        let fits = |descriptor: &&Descriptor| match &descriptor.platform {
            Some(platform) => platform.os == "linux" && platform.architecture == architecture,
            None => manifests.len() == 1,
        };
        let found = manifests.iter().find(fits).cloned();
        found.ok_or_else(|| LayoutError::NoImage { path: self.path.clone(), architecture })
    }

    fn json(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        if descriptor.size > MAX_JSON_BYTES {
            return Err(self.malformed(&descriptor.digest, "it is too large"));
        }
        let mut text = Vec::new();
        self.blob(descriptor)?
            .read_to_end(&mut text)
            .map_err(|source| self.read_error(&descriptor.digest, source))?;
        Ok(text)
    }

    fn parse(&self, name: &str, text: &[u8]) -> Result<Document, LayoutError> {
        serde_json::from_slice(text).map_err(|error| self.malformed(name, &error.to_string()))
    }

    /// A blob from its beginning, after all of it was found to be what it is named by.
    pub(crate) fn blob(&self, descriptor: &Descriptor) -> Result<impl Read + use<>, LayoutError> {
        let name = &descriptor.digest;
        let hash = name.strip_prefix("sha256:").unwrap_or_default();
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.malformed(name, "only sha256 digests are understood"));
        }
        let file_name = format!("blobs/sha256/{hash}");
        let (mut file, size) = self.file(&file_name)?;
        let found = sha256(&mut file).map_err(|source| self.read_error(name, source))?;
        if size != descriptor.size || found != hash {
            return Err(LayoutError::Digest { path: self.path.clone(), name: name.clone() });
        }
        Ok(self.file(&file_name)?.0)
    }

    /// A file of the layout with its size in bytes.
    fn file(&self, name: &str) -> Result<(io::Take<File>, u64), LayoutError> {
        let read_error = |source| self.read_error(name, source);
        let missing = || LayoutError::Missing { path: self.path.clone(), name: name.to_owned() };
        let Some(files) = &self.archive else {
            let file = match File::open(self.path.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing()),
                file => file.map_err(read_error)?,
            };
            let size = file.metadata().map_err(read_error)?.len();
            return Ok((file.take(size), size));
        };
        let (offset, size) = *files.get(name).ok_or_else(missing)?;
        let mut file = File::open(&self.path).map_err(read_error)?;
        file.seek(SeekFrom::Start(offset)).map_err(read_error)?;
        Ok((file.take(size), size))
    }

    fn read_error(&self, name: &str, source: io::Error) -> LayoutError {
        LayoutError::Read { path: self.path.clone(), name: name.to_owned(), source }
    }

    fn malformed(&self, name: &str, problem: &str) -> LayoutError {
        let name: String = name.chars().take(128).collect();
        LayoutError::Malformed { path: self.path.clone(), name, problem: problem.to_owned() }
    }
}

/// The hash of all that can be read, in hexadecimal digits.
fn sha256(content: &mut impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut portion = vec![0; 256 << 10];
    loop {
        match content.read(&mut portion)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&portion[..read]),
        }
    }
}

/// The positions of an archive's regular files: offset and size in bytes.
fn archive_index(path: &Path) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut archive = tar::Archive::new(File::open(path)?);
    let mut files = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if entry.header().entry_type().is_file() {
            let path = entry.path()?;
            let names = path.components().filter(|it| !matches!(it, Component::CurDir));
            let name = names.collect::<PathBuf>().to_string_lossy().into_owned();
            files.insert(name, (entry.raw_file_position(), entry.size()));
        }
    }
    Ok(files)
}

/// This machine's processor, as OCI calls it (Go's names).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
