/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The formats of actiondfs, and nothing else: what a Directory message looks
 * like on the wire, and what it looks like once parsed.
 *
 * On the wire (Remote Execution API v2, `Directory`, protobuf encoding):
 *
 *	Directory        1 files*  2 directories*  3 symlinks*  5 node_properties
 *	FileNode         1 name    2 digest  4 is_executable  6 node_properties
 *	DirectoryNode    1 name    2 digest
 *	SymlinkNode      1 name    2 target  4 node_properties
 *	Digest           1 hash (64 lower-case hex digits)  2 size_bytes
 *
 * Each of the three lists is strictly sorted by name, in byte order, and no
 * name stands in two of them. Unknown fields and node_properties are skipped.
 *
 * Parsed, in one piece of memory (struct acd_table):
 *
 *	header | entry[0] ... entry[n-1] | names and targets, each NUL-ended
 *
 * The entries are sorted by name over all three kinds, so that a lookup is a
 * binary search and a position in the directory is an index.
 */
#ifndef ACTIONDFS_FORMAT_H
#define ACTIONDFS_FORMAT_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/types.h>
#else
#include "test/userspace.h"
#endif

/* --- On the wire ------------------------------------------------------- */

enum acd_wire_type {
	ACD_WIRE_VARINT		= 0,
	ACD_WIRE_FIXED64	= 1,
	ACD_WIRE_BYTES		= 2,
	/* 3 and 4 are groups: gone from protobuf, refused here. */
	ACD_WIRE_FIXED32	= 5,
};

enum acd_directory_field {
	ACD_DIRECTORY_FILES		= 1,
	ACD_DIRECTORY_DIRECTORIES	= 2,
	ACD_DIRECTORY_SYMLINKS		= 3,
};

enum acd_node_field {
	ACD_NODE_NAME		= 1,
	ACD_NODE_DIGEST		= 2,	/* FileNode and DirectoryNode */
	ACD_NODE_TARGET		= 2,	/* SymlinkNode */
	ACD_NODE_EXECUTABLE	= 4,	/* FileNode */
};

enum acd_digest_field {
	ACD_DIGEST_HASH		= 1,
	ACD_DIGEST_SIZE		= 2,
};

#define ACD_HASH_BYTES	32
#define ACD_HASH_HEX	(2 * ACD_HASH_BYTES)

/* --- Limits ------------------------------------------------------------ */

/* Longest name of an entry: what every Linux file system allows. */
#define ACD_NAME_MAX	255
/* Longest symlink target: PATH_MAX without the NUL. */
#define ACD_TARGET_MAX	4095
/* Largest Directory message that is read at all, in bytes. */
#define ACD_BLOB_MAX	(64u << 20)
/*
 * Most entries of one directory. An entry takes at least 8 bytes on the wire
 * and 48 in memory: without this limit one blob would cost six times its size.
 */
#define ACD_ENTRIES_MAX	(1u << 20)
/*
 * Deepest input directory. Digests make real cycles impossible, but nobody
 * checks digests here: a blob under a false name could contain itself.
 */
#define ACD_DEPTH_MAX	512

/* --- In memory --------------------------------------------------------- */

enum acd_entry_type {
	ACD_FILE	= 1,
	ACD_DIRECTORY	= 2,
	ACD_SYMLINK	= 3,
};

/**
 * struct acd_entry - one file, directory or symlink of a parsed Directory
 * @name: where its name begins, in bytes from the table's strings
 * @name_len: the name's length, without the NUL
 * @type: enum acd_entry_type
 * @executable: 1 for a FileNode with is_executable, else 0
 * @size: bytes of the blob; for a symlink the length of its target
 * @hash: the blob's hash (files and directories)
 * @target: where the target begins in the table's strings (symlinks)
 */
struct acd_entry {
	u32 name;
	u16 name_len;
	u8 type;
	u8 executable;
	u64 size;
	union {
		u8 hash[ACD_HASH_BYTES];
		u32 target;
	};
};

/**
 * struct acd_table - a parsed Directory
 * @count: number of entries
 * @strings_len: bytes of all names and targets with their NULs
 * @entry: the entries, sorted by name; the strings follow the last one
 */
struct acd_table {
	u32 count;
	u32 strings_len;
	struct acd_entry entry[];
};

static_assert(sizeof(struct acd_entry) == 48);
static_assert(sizeof(struct acd_table) == 8);
/* All offsets into the strings fit into u32: they are part of the blob. */
static_assert(2ull * ACD_BLOB_MAX < 0xffffffffull);
/* The entries of a full directory can be counted in bytes in a u32. */
static_assert((unsigned long long)ACD_ENTRIES_MAX * 48 < 0xffffffffull);

#endif /* ACTIONDFS_FORMAT_H */
