//! A runtime image as files, for servers that may not mount it: in a user namespace the kernel mounts no
//! block device.
//!
//! ```text
//! <mount point>.unpacked/<hash of the image>   complete, read by every start after the first
//! <mount point>.unpacked/new                   one that is being made, or was when a server died
//! ```
//!
//! The views are read-only mounts of it, as they are of a mounted image. The image is the operator's or
//! the program's own, so what is checked is that it is whole, and not that it means well.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use backhand::{FilesystemReader, InnerNode, NodeHeader};
use model::{BlobHasher, DigestFunction};

/// The files of the image at `image`, unpacked below `directory` unless an earlier start has done that.
pub(crate) fn provide(image: &Path, directory: &Path) -> io::Result<PathBuf> {
    let name = hash(image)?;
    let complete = directory.join(&name);
    if complete.is_dir() {
        return Ok(complete);
    }
    // Those of other images too: only one is used at a time.
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let new = directory.join("new");
    fs::create_dir_all(&new)?;
    unpack(image, &new)?;
    // A directory of the final name is whole, also after a power failure.
    rustix::fs::syncfs(File::open(&new)?)?;
    fs::rename(&new, &complete)?;
    Ok(complete)
}

fn hash(image: &Path) -> io::Result<String> {
    let mut file = File::open(image)?;
    let mut hasher = BlobHasher::new(DigestFunction::Sha256);
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finish().hex()),
            length => hasher.update(&chunk[..length]),
        }
    }
}

fn unpack(image: &Path, to: &Path) -> io::Result<()> {
    let reader = BufReader::new(File::open(image)?);
    let system = FilesystemReader::from_reader(reader).map_err(io::Error::other)?;
    // Parents come before their children. Symlinks are last, so that no path goes through one.
    let mut links = Vec::new();
    let mut directories = Vec::new();
    for node in system.files() {
        let path = to.join(inside(&node.fullpath)?);
        match &node.inner {
            InnerNode::Dir(_) => {
                fs::create_dir_all(&path)?;
                directories.push((path, node.header));
            }
            InnerNode::File(file) => {
                let mut made = File::create_new(&path)?;
                io::copy(&mut system.file(file).reader(), &mut made)?;
                made.set_modified(modified(&node.header))?;
                made.set_permissions(permissions(&node.header))?;
            }
            InnerNode::Symlink(link) => links.push((link.link.clone(), path)),
            other => {
                let text = format!("{} is {other:?}", node.fullpath.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    for (target, path) in links {
        symlink(target, path)?;
    }
    // Inner ones first: what is made in a directory changes its time, and needs the right to write.
    for (path, header) in directories.iter().rev() {
        let directory = File::open(path)?;
        directory.set_modified(modified(header))?;
        directory.set_permissions(permissions(header))?;
    }
    Ok(())
}

/// The path of a node, which begins with `/`, relative to the root of the image.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut relative = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir => {}
            Component::Normal(name) => relative.push(name),
            _ => {
                let text = format!("the path {}", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
    }
    Ok(relative)
}

fn modified(header: &NodeHeader) -> std::time::SystemTime {
    UNIX_EPOCH + Duration::from_secs(header.mtime.into())
}

/// Without set-user-id bits; the owner can delete what it has.
fn permissions(header: &NodeHeader) -> fs::Permissions {
    fs::Permissions::from_mode(u32::from(header.permissions) & 0o777 | 0o600)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::os::unix::fs::MetadataExt as _;

    use backhand::FilesystemWriter;

    use super::*;

    fn image(at: &Path, content: &str) {
        let mut writer = FilesystemWriter::default();
        let compressor = backhand::compression::Compressor::Zstd;
        writer.set_compressor(backhand::FilesystemCompressor::new(compressor, None).unwrap());
        writer.set_root_mode(0o755);
        let header = |permissions| NodeHeader { permissions, mtime: 7, ..NodeHeader::default() };
        writer.push_dir_all("usr/lib", header(0o755)).unwrap();
        let library = Cursor::new(content.as_bytes().to_vec());
        writer.push_file(library, "usr/lib/library", header(0o4755)).unwrap();
        writer.push_symlink("usr/lib", "lib", header(0o777)).unwrap();
        writer.write(File::create(at).unwrap()).unwrap();
    }

    #[test]
    fn an_image_is_unpacked_once() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("image");
        image(&file, "a library");
        let below = directory.path().join("runtimes.unpacked");
        // The remains of a server that died while it unpacked.
        fs::create_dir_all(below.join("new/usr")).unwrap();
        let files = provide(&file, &below).unwrap();
        let library = files.join("lib/library");
        assert_eq!(fs::read_to_string(&library).unwrap(), "a library");
        let stat = fs::metadata(&library).unwrap();
        assert_eq!((stat.mode() & 0o7777, stat.mtime()), (0o755, 7));
        assert_eq!(fs::metadata(files.join("usr/lib")).unwrap().mtime(), 7);
        assert_eq!(fs::read_link(files.join("lib")).unwrap(), Path::new("usr/lib"));
        fs::write(files.join("mark"), "").unwrap();
        assert_eq!(provide(&file, &below).unwrap(), files);
        assert!(files.join("mark").exists(), "it was unpacked again");
    }

    #[test]
    fn another_image_replaces_it() {
        let directory = tempfile::tempdir().unwrap();
        let (file, below) = (directory.path().join("image"), directory.path().join("unpacked"));
        image(&file, "one");
        let one = provide(&file, &below).unwrap();
        image(&file, "another");
        let another = provide(&file, &below).unwrap();
        assert_eq!(fs::read_to_string(another.join("lib/library")).unwrap(), "another");
        assert!(!one.exists());
        assert_eq!(fs::read_dir(&below).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_image_leaves_nothing_to_use() {
        let directory = tempfile::tempdir().unwrap();
        let (file, below) = (directory.path().join("image"), directory.path().join("unpacked"));
        image(&file, &"content that is compressed ".repeat(1000));
        let mut damaged = fs::read(&file).unwrap();
        // The first block of content is behind the superblock of 96 bytes.
        damaged[96..112].fill(0xff);
        fs::write(&file, &damaged).unwrap();
        assert!(provide(&file, &below).is_err());
        let left: Vec<_> = fs::read_dir(&below).unwrap().flatten().collect();
        assert!(left.iter().all(|entry| entry.file_name() == "new"), "{left:?}");
    }
}
