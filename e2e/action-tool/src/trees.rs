//! Writes output trees: many small files, and the rarer things that a tree can hold.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    str::FromStr,
};

/// How many files share one directory of a filled tree.
const FILES_PER_DIRECTORY: u32 = 32;

/// One of the rarer things.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// `empty/` and `nested/empty/`.
    EmptyDirectory,
    /// `file`, a regular one.
    File,
    /// `tool`, executable.
    Executable,
    /// `link`, relative, to `file`.
    Symlink,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "empty-directory" => Ok(Self::EmptyDirectory),
            "file" => Ok(Self::File),
            "executable" => Ok(Self::Executable),
            "symlink" => Ok(Self::Symlink),
            _ => Err(format!("unknown shape {name:?}")),
        }
    }
}

/// Writes `count` files whose contents follow from `seed`.
pub(crate) fn fill(tree: &Path, count: u32, seed: u64) -> io::Result<()> {
    fs::create_dir_all(tree)?;
    for index in 0..count {
        let directory = tree.join(format!("part_{:02}", index / FILES_PER_DIRECTORY));
        fs::create_dir_all(&directory)?;
        fs::write(
            directory.join(format!("file_{index:03}.txt")),
            format!("{index} of {seed:016x}\n"),
        )?;
    }
    Ok(())
}

/// Adds each of `shapes` to the tree.
pub(crate) fn shape(tree: &Path, shapes: &[Shape]) -> io::Result<()> {
    shapes.iter().try_for_each(|shape| match shape {
        Shape::EmptyDirectory => {
            fs::create_dir(tree.join("empty"))?;
            fs::create_dir_all(tree.join("nested/empty"))
        }
        Shape::File => fs::write(tree.join("file"), "a file\n"),
        Shape::Executable => {
            let tool = tree.join("tool");
            fs::write(&tool, "#!/bin/true\n")?;
            fs::set_permissions(&tool, fs::Permissions::from_mode(0o755))
        }
        Shape::Symlink => symlink("file", tree.join("link")),
    })
}
