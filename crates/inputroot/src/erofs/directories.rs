//! Places the directories of an image and writes their inodes and entries.

use std::mem::size_of;

use model::{InputTree, NodeProperties};
use zerocopy::IntoBytes;

use super::format::{BLOCK_SIZE, DataLayout, Dirent, FIRST_INODE_OFFSET, FileType, SLOT_SIZE};
use super::inode::Inode;
use crate::access::directory_mode_of;

/// A last block of entries with at most this many bytes is stored behind its inode, where reading
/// the inode has brought it into the cache already.
const MAX_INLINE_TAIL: usize = BLOCK_SIZE / 2;

const DOT: &[u8] = b".";
const DOT_DOT: &[u8] = b"..";

/// The place of one directory.
struct Layout {
    inode_offset: usize,
    size_bytes: u64,
    /// Offset of the entry blocks that are not behind the inode.
    blocks_offset: usize,
    inline: bool,
    links: u32,
    properties: NodeProperties,
}

impl Layout {
    fn inode_bytes(&self) -> usize {
        Inode::bytes(self.size_bytes, self.links, self.properties.mtime.is_some())
    }
}

/// The size of a directory's entries, block by block, as names are added in order.
#[derive(Default)]
struct EntryArea {
    full_blocks: usize,
    used: usize,
}

impl EntryArea {
    /// Adds an entry; true if it opened a new block, because entries do not cross blocks.
    #[inline]
    fn add(&mut self, name: &[u8]) -> bool {
        let bytes = size_of::<Dirent>() + name.len();
        let opens_block = self.used + bytes > BLOCK_SIZE;
        if opens_block {
            self.full_blocks += 1;
            self.used = 0;
        }
        self.used += bytes;
        opens_block
    }

    fn size_bytes(&self) -> usize {
        self.full_blocks * BLOCK_SIZE + self.used
    }
}

/// The places of all directories of a tree, by their index in it.
pub(super) struct DirectoryLayout {
    places: Vec<Layout>,
    end: usize,
}

impl DirectoryLayout {
    pub(super) fn of(tree: &InputTree) -> Self {
        let mut inode_offset = FIRST_INODE_OFFSET;
        let mut outside = 0;
        let mut places = Vec::with_capacity(tree.directories().len());
        for directory in tree.directories() {
            let (area, subdirectories) = measure(directory);
            let inline = area.used <= MAX_INLINE_TAIL;
            let links = 2 + subdirectories;
            let size_bytes = area.size_bytes() as u64;
            let tail = if inline { area.used } else { 0 };
            let properties = directory.content.own_properties();
            let mut place = Layout {
                inode_offset: 0,
                size_bytes,
                blocks_offset: outside,
                inline,
                links,
                properties,
            };
            let bytes = place.inode_bytes() + tail;
            inode_offset = within_block(inode_offset, bytes);
            place.inode_offset = inode_offset;
            places.push(place);
            inode_offset = (inode_offset + bytes).next_multiple_of(SLOT_SIZE);
            outside += (area.full_blocks + usize::from(!inline)) * BLOCK_SIZE;
        }
        let first_block = inode_offset.next_multiple_of(BLOCK_SIZE);
        for place in &mut places {
            place.blocks_offset += first_block;
        }
        Self { places, end: first_block + outside }
    }

    /// Offset of the first byte behind all directories.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    pub(super) fn nid(&self, index: usize) -> u64 {
        (self.places[index].inode_offset / SLOT_SIZE) as u64
    }

    /// The superblock has 16 bits for it; the root is the first inode and so in the first blocks.
    pub(super) fn root_nid(&self) -> u16 {
        (self.places[0].inode_offset / SLOT_SIZE) as u16
    }
}

/// The entry area of a directory and how many directories are in it.
fn measure(directory: &model::TreeDirectory) -> (EntryArea, u32) {
    let mut area = EntryArea::default();
    let mut subdirectories = 0;
    let mut dots = Dots::default();
    for entry in directory.content.entries() {
        for dot in dots.before(entry.name()) {
            area.add(dot);
        }
        area.add(entry.name());
        subdirectories += u32::from(matches!(entry, model::Entry::Directory { .. }));
    }
    for dot in dots.rest() {
        area.add(dot);
    }
    (area, subdirectories)
}

/// The first offset from `offset` at which `bytes` bytes do not cross a block.
///
/// Kernels refuse an inode whose inline data crosses one.
pub(super) fn within_block(offset: usize, bytes: usize) -> usize {
    if offset % BLOCK_SIZE + bytes > BLOCK_SIZE {
        offset.next_multiple_of(BLOCK_SIZE)
    } else {
        offset
    }
}

/// Hands out "." and ".." at their places in byte order: names like "-x" sort before them.
#[derive(Default)]
struct Dots {
    given: usize,
}

impl Dots {
    const ALL: [&'static [u8]; 2] = [DOT, DOT_DOT];

    /// Those not yet given that sort before `name`.
    #[inline]
    fn before(&mut self, name: &[u8]) -> &'static [&'static [u8]] {
        let start = self.given;
        while self.given < Self::ALL.len() && Self::ALL[self.given] < name {
            self.given += 1;
        }
        &Self::ALL[start..self.given]
    }

    fn rest(&mut self) -> &'static [&'static [u8]] {
        let start = std::mem::replace(&mut self.given, Self::ALL.len());
        &Self::ALL[start..]
    }
}

/// Writes directories one after the other: `begin`, `entry` for each in order, `finish`.
pub(super) struct DirectoryWriter<'a> {
    layout: &'a DirectoryLayout,
    index: usize,
    parent: usize,
    dots: Dots,
    area: EntryArea,
    /// The entries of the block that is being filled; at most 4096 / 13 of them.
    pending: Vec<(&'a [u8], u64, FileType)>,
}

impl<'a> DirectoryWriter<'a> {
    pub(super) fn new(layout: &'a DirectoryLayout) -> Self {
        Self {
            layout,
            index: 0,
            parent: 0,
            dots: Dots::default(),
            area: EntryArea::default(),
            pending: Vec::with_capacity(BLOCK_SIZE / (size_of::<Dirent>() + 1)),
        }
    }

    /// Starts the directory with this index in the tree and writes its inode.
    pub(super) fn begin(&mut self, tree: &InputTree, index: usize, image: &mut [u8]) {
        let place = &self.layout.places[index];
        self.index = index;
        self.parent = tree.directories()[index].parent as usize;
        self.dots = Dots::default();
        self.area = EntryArea::default();
        let inode = Inode {
            file_type: FileType::Directory,
            permissions: directory_mode_of(&place.properties),
            nlink: place.links,
            size_bytes: place.size_bytes,
            layout: if place.inline { DataLayout::FlatInline } else { DataLayout::FlatPlain },
            blkaddr: (place.blocks_offset / BLOCK_SIZE) as u32,
            ino: index as u32 + 1,
            mtime: place.properties.mtime,
        };
        inode.write(&mut image[place.inode_offset..]);
    }

    #[inline]
    pub(super) fn entry(
        &mut self,
        name: &'a [u8],
        nid: u64,
        file_type: FileType,
        image: &mut [u8],
    ) {
        for dot in self.dots.before(name) {
            self.dot(dot, image);
        }
        self.push(name, nid, file_type, image);
    }

    pub(super) fn finish(&mut self, image: &mut [u8]) {
        for dot in self.dots.rest() {
            self.dot(dot, image);
        }
        let place = &self.layout.places[self.index];
        let offset = if place.inline {
            place.inode_offset + place.inode_bytes()
        } else {
            self.block_offset(self.area.full_blocks)
        };
        self.write_block(offset, image);
    }

    fn dot(&mut self, name: &'static [u8], image: &mut [u8]) {
        let index = if name == DOT { self.index } else { self.parent };
        self.push(name, self.layout.nid(index), FileType::Directory, image);
    }

    #[inline]
    fn push(&mut self, name: &'a [u8], nid: u64, file_type: FileType, image: &mut [u8]) {
        let block = self.area.full_blocks;
        if self.area.add(name) {
            self.write_block(self.block_offset(block), image);
        }
        self.pending.push((name, nid, file_type));
    }

    fn block_offset(&self, block: usize) -> usize {
        self.layout.places[self.index].blocks_offset + block * BLOCK_SIZE
    }

    /// Writes the pending entries as one block at `offset`.
    fn write_block(&mut self, offset: usize, image: &mut [u8]) {
        let (mut head, mut nameoff) = (0, self.pending.len() * size_of::<Dirent>());
        let block = &mut image[offset..];
        for &(name, nid, file_type) in &self.pending {
            let entry = Dirent {
                nid: nid.into(),
                nameoff: (nameoff as u16).into(),
                file_type: file_type as u8,
                reserved: 0,
            };
            block[head..][..size_of::<Dirent>()].copy_from_slice(entry.as_bytes());
            block[nameoff..][..name.len()].copy_from_slice(name);
            head += size_of::<Dirent>();
            nameoff += name.len();
        }
        self.pending.clear();
    }
}
