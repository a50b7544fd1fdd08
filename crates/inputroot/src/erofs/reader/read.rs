//! Walks an image from its superblock to its leaves.

use std::collections::HashSet;
use std::mem::size_of;

use model::Mtime;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::super::format::{
    BLOCK_SIZE, BLOCK_SIZE_BITS, CHUNK_FORMAT_BLKBITS_MASK, DataLayout, FEATURE_COMPAT_MTIME,
    FEATURE_INCOMPAT_CHUNKED_FILE, FileType, InodeCompact, InodeExtended, NULL_ADDR, SLOT_SIZE,
    SUPER_OFFSET, SuperBlock, XattrIbodyHeader,
};
use super::parse::{dirents, malformed, slice, structure, xattr};
use super::tree::{Attributes, Directory, Entry, Node, ReadError, Tree, Xattr};

/// Linux takes no longer target, with the NUL behind it.
const MAX_TARGET_BYTES: u64 = 4095;

/// Reads the tree in `image`.
pub(crate) fn read(image: &[u8]) -> Result<Tree<'_>, ReadError> {
    let mut reader = Reader::new(image)?;
    let root = reader.inode(reader.superblock.root_nid.get().into())?;
    if root.file_type != FileType::Directory {
        return Err(malformed("the root is no directory", root.nid));
    }
    let mut found = vec![Found { parent_nid: root.nid, inode: root }];
    let mut directories = Vec::new();
    while let Some(directory) = found.get(directories.len()) {
        let (parent_nid, inode) = (directory.parent_nid, directory.inode);
        let read = reader.directory(inode, parent_nid, &mut found)?;
        directories.push(read);
    }
    if reader.seen.len() as u64 != reader.superblock.inos.get() {
        return Err(malformed("the number of inodes is wrong", 0));
    }
    Ok(Tree { directories })
}

/// A directory that is still to be read.
struct Found {
    parent_nid: u64,
    inode: Inode,
}

/// An inode of either size.
#[derive(Debug, Clone, Copy)]
struct Inode {
    nid: u64,
    file_type: FileType,
    layout: DataLayout,
    attributes: Attributes,
    i_u: u32,
    /// Offset of the extended attributes, behind the inode.
    xattrs_offset: u64,
    /// Their size with the header.
    xattrs_bytes: u64,
}

struct Reader<'a> {
    image: &'a [u8],
    superblock: &'a SuperBlock,
    /// The number of bytes that may still be read.
    budget: u64,
    seen: HashSet<u64>,
}

impl<'a> Reader<'a> {
    fn new(image: &'a [u8]) -> Result<Self, ReadError> {
        let superblock: &SuperBlock = structure(image, SUPER_OFFSET as u64, "superblock")?;
        let blocks = u64::from(superblock.blocks.get());
        let unsupported = |what| ReadError::Unsupported { what, nid: 0 };
        if superblock.magic != SuperBlock::MAGIC {
            return Err(malformed("the magic number is wrong", 0));
        }
        if superblock.blkszbits != BLOCK_SIZE_BITS || superblock.dirblkbits != 0 {
            return Err(unsupported("another block size"));
        }
        if superblock.feature_compat != FEATURE_COMPAT_MTIME
            || superblock.feature_incompat != FEATURE_INCOMPAT_CHUNKED_FILE
            || superblock.sb_extslots != 0
            || superblock.extra_devices != 0
            || superblock.xattr_prefix_count != 0
            || superblock.packed_nid != 0
        {
            return Err(unsupported("a feature of the file system"));
        }
        if blocks * BLOCK_SIZE as u64 != image.len() as u64 {
            return Err(malformed("the number of blocks is wrong", 0));
        }
        Ok(Self { image, superblock, budget: image.len() as u64, seen: HashSet::new() })
    }

    fn charge(&mut self, bytes: u64) -> Result<(), ReadError> {
        self.budget = self.budget.checked_sub(bytes).ok_or(ReadError::Overlap)?;
        Ok(())
    }

    fn inode(&mut self, nid: u64) -> Result<Inode, ReadError> {
        let outside = ReadError::Outside { what: "inode", offset: u64::MAX };
        let meta = u64::from(self.superblock.meta_blkaddr.get()) * BLOCK_SIZE as u64;
        let offset = nid.checked_mul(SLOT_SIZE as u64).and_then(|offset| offset.checked_add(meta));
        let offset = offset.ok_or(outside)?;
        let compact: &InodeCompact = structure(self.image, offset, "inode")?;
        let format = compact.i_format.get();
        let layout = match format >> 1 {
            0 => DataLayout::FlatPlain,
            2 => DataLayout::FlatInline,
            4 => DataLayout::ChunkBased,
            _ => return Err(ReadError::Unsupported { what: "the data layout", nid }),
        };
        let mode = compact.i_mode.get();
        let mut attributes = Attributes {
            permissions: mode & !FileType::MODE_MASK,
            uid: compact.i_uid.get().into(),
            gid: compact.i_gid.get().into(),
            nlink: compact.i_nlink.get().into(),
            size_bytes: compact.i_size.get().into(),
            modified: mtime(self.superblock.build_time.get(), 0),
        };
        let (mut i_u, mut bytes) = (compact.i_u.get(), size_of::<InodeCompact>() as u64);
        if format & 1 == 1 {
            let extended: &InodeExtended = structure(self.image, offset, "extended inode")?;
            attributes.uid = extended.i_uid.get();
            attributes.gid = extended.i_gid.get();
            attributes.nlink = extended.i_nlink.get();
            attributes.size_bytes = extended.i_size.get();
            attributes.modified = mtime(extended.i_mtime.get(), extended.i_mtime_nsec.get());
            (i_u, bytes) = (extended.i_u.get(), size_of::<InodeExtended>() as u64);
        }
        let known = [FileType::Regular, FileType::Directory, FileType::Symlink];
        let file_type =
            known.into_iter().find(|known| known.mode_bits() == mode & FileType::MODE_MASK);
        let file_type = file_type.ok_or(ReadError::Unsupported { what: "the file type", nid })?;
        let xattrs_bytes = match compact.i_xattr_icount.get() {
            0 => 0,
            count => size_of::<XattrIbodyHeader>() as u64 + 4 * (u64::from(count) - 1),
        };
        if !self.seen.insert(nid) {
            return Err(malformed("the inode has two names", nid));
        }
        self.charge(bytes + xattrs_bytes)?;
        let xattrs_offset = offset + bytes;
        Ok(Inode { nid, file_type, layout, attributes, i_u, xattrs_offset, xattrs_bytes })
    }

    /// The data of a directory or a symlink: full blocks, and the rest.
    fn data(&mut self, inode: &Inode) -> Result<(&'a [u8], &'a [u8]), ReadError> {
        let size = inode.attributes.size_bytes;
        self.charge(size)?;
        let start = u64::from(inode.i_u) * BLOCK_SIZE as u64;
        match inode.layout {
            DataLayout::FlatPlain => Ok((slice(self.image, start, size, "data")?, &[])),
            DataLayout::FlatInline => {
                let block = BLOCK_SIZE as u64;
                let tail = if size == 0 { 0 } else { (size - 1) % block + 1 };
                let offset = inode.xattrs_offset + inode.xattrs_bytes;
                if offset % block + tail > block {
                    return Err(malformed("inline data crosses a block", inode.nid));
                }
                let full = match size - tail {
                    0 => &[],
                    full => slice(self.image, start, full, "data")?,
                };
                Ok((full, slice(self.image, offset, tail, "inline data")?))
            }
            DataLayout::ChunkBased => {
                let what = "a directory or symlink in chunks";
                Err(ReadError::Unsupported { what, nid: inode.nid })
            }
        }
    }

    fn directory(
        &mut self,
        inode: Inode,
        parent_nid: u64,
        found: &mut Vec<Found>,
    ) -> Result<Directory<'a>, ReadError> {
        let (full, tail) = self.data(&inode)?;
        let (mut entries, mut last, mut dots) = (Vec::new(), None, 0);
        let mut subdirectories = 0;
        for block in full.chunks(BLOCK_SIZE).chain((!tail.is_empty()).then_some(tail)) {
            for dirent in dirents(block, inode.nid)? {
                let (name, dirent) = dirent?;
                if last.replace(name).is_some_and(|last| last >= name) {
                    return Err(malformed("names are not sorted", inode.nid));
                }
                let nid = dirent.nid.get();
                if matches!(name, b"." | b"..") {
                    let expected = if name == b"." { inode.nid } else { parent_nid };
                    if nid != expected || dirent.file_type != FileType::Directory as u8 {
                        return Err(malformed("\".\" or \"..\" leads elsewhere", inode.nid));
                    }
                    dots += 1;
                    continue;
                }
                let child = self.inode(nid)?;
                if dirent.file_type != child.file_type as u8 {
                    return Err(malformed("the type of an entry is wrong", inode.nid));
                }
                let attributes = child.attributes;
                if child.file_type != FileType::Directory && attributes.nlink != 1 {
                    return Err(malformed("the number of links is wrong", nid));
                }
                let node = match child.file_type {
                    FileType::Regular => Node::File { attributes, xattrs: self.file(&child)? },
                    FileType::Symlink => Node::Symlink { attributes, target: self.target(&child)? },
                    FileType::Directory => {
                        subdirectories += 1;
                        found.push(Found { parent_nid: inode.nid, inode: child });
                        Node::Directory(found.len() - 1)
                    }
                };
                entries.push(Entry { name, node });
            }
        }
        if dots != 2 {
            return Err(malformed("\".\" or \"..\" is missing", inode.nid));
        }
        if inode.xattrs_bytes != 0 {
            return Err(ReadError::Unsupported { what: "a directory's xattrs", nid: inode.nid });
        }
        if u64::from(inode.attributes.nlink) != 2 + subdirectories {
            return Err(malformed("the number of links is wrong", inode.nid));
        }
        Ok(Directory { attributes: inode.attributes, entries })
    }

    fn target(&mut self, inode: &Inode) -> Result<&'a [u8], ReadError> {
        let size = inode.attributes.size_bytes;
        if size == 0 || size > MAX_TARGET_BYTES {
            return Err(malformed("the length of the target is wrong", inode.nid));
        }
        if inode.xattrs_bytes != 0 {
            return Err(ReadError::Unsupported { what: "a symlink's xattrs", nid: inode.nid });
        }
        let (full, tail) = self.data(inode)?;
        let target = if tail.is_empty() { full } else { tail };
        if target.contains(&0) {
            return Err(malformed("there is a NUL in the target", inode.nid));
        }
        Ok(target)
    }

    /// The extended attributes of a file. Its content must be nothing or one chunk without data.
    fn file(&mut self, inode: &Inode) -> Result<Vec<Xattr<'a>>, ReadError> {
        let Inode { nid, i_u, .. } = *inode;
        let size = inode.attributes.size_bytes;
        match inode.layout {
            DataLayout::FlatPlain if size == 0 => {}
            DataLayout::ChunkBased => {
                let bits = i_u & u32::from(CHUNK_FORMAT_BLKBITS_MASK);
                if bits != i_u {
                    return Err(ReadError::Unsupported { what: "the chunk format", nid });
                }
                if size == 0 || size > (BLOCK_SIZE as u64) << bits {
                    return Err(ReadError::Unsupported { what: "a file of many chunks", nid });
                }
                let table = inode.xattrs_offset + inode.xattrs_bytes;
                self.charge(size_of::<U32>() as u64)?;
                let blkaddr: &U32 = structure(self.image, table, "chunk table")?;
                if *blkaddr != NULL_ADDR {
                    return Err(ReadError::Unsupported { what: "a file with content", nid });
                }
            }
            _ => return Err(ReadError::Unsupported { what: "a file with content", nid }),
        }
        self.xattrs(inode)
    }

    fn xattrs(&self, inode: &Inode) -> Result<Vec<Xattr<'a>>, ReadError> {
        let Inode { nid, xattrs_offset, xattrs_bytes, .. } = *inode;
        if xattrs_bytes == 0 {
            return Ok(Vec::new());
        }
        // Charged with the inode, as a whole.
        let body = slice(self.image, xattrs_offset, xattrs_bytes, "extended attributes")?;
        let truncated = malformed("the extended attributes are cut off", nid);
        let (header, rest) = XattrIbodyHeader::ref_from_prefix(body).map_err(|_| truncated)?;
        let shared = usize::from(header.h_shared_count);
        let (shared, mut rest) =
            <[U32]>::ref_from_prefix_with_elems(rest, shared).map_err(|_| truncated)?;
        let mut xattrs = Vec::new();
        let base = u64::from(self.superblock.xattr_blkaddr.get()) * BLOCK_SIZE as u64;
        for id in shared {
            let offset = base + 4 * u64::from(id.get());
            let length = (self.image.len() as u64).saturating_sub(offset);
            let (xattr, _) = xattr(slice(self.image, offset, length, "shared attribute")?, nid)?;
            xattrs.push(xattr);
        }
        while !rest.is_empty() {
            let (xattr, bytes) = xattr(rest, nid)?;
            xattrs.push(xattr);
            rest = rest.get(bytes..).ok_or(truncated)?;
        }
        Ok(xattrs)
    }
}

fn mtime(seconds: u64, nanos: u32) -> Mtime {
    Mtime { seconds: seconds as i64, nanos }
}
