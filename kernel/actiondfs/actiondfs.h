/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files of actiondfs share. Names begin with acd_, for adfs is Acorn's.
 *
 * Three kinds of inode:
 *
 *	input file, input symlink	an entry of a parsed Directory; the data
 *					is a blob of the CAS. Never changes.
 *	input directory			a parsed Directory, read when first
 *					needed, and, once something was made
 *					below it, a counterpart in the stage.
 *	staged				an object that the action made: all of
 *					it is an inode of the stage's file system.
 *
 * Locks, outermost first:
 *
 *	inode->i_rwsem (ours)	taken by the VFS, or by write.c for a file
 *	acd_super.stage_lock	counterparts of input directories being made
 *	i_rwsem, s_vfs_rename_mutex of the stage's file system
 *	the caches' spinlocks		innermost
 *
 * Input directories never move, so the chain of their parents is stable
 * without a lock. acd_inode.dir and acd_inode.real of an input directory are
 * written once, with release semantics, and stay until the inode goes.
 *
 * Credentials: blobs are opened, and counterparts made, with the credentials
 * of the mounter. Everything an action does to its own staged objects runs
 * with the action's own credentials, so that the stage's file system repeats
 * all checks; the counterpart of an input directory is 0777 for that.
 */
#ifndef ACTIONDFS_H
#define ACTIONDFS_H

#include <linux/backing-file.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/path.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/rhashtable-types.h>
#include <linux/uuid.h>

#include "parse.h"

#define ACD_MAGIC	0x41444653	/* "ADFS" */

/*
 * Inode numbers of inputs carry this bit; ext4's have 32 bits. 48 bits in all
 * leave room for overlayfs to put the layer's number on top (xino).
 */
#define ACD_INPUT_INO	BIT_ULL(47)

/*
 * When an input was last changed: 2000-01-01. Constant, so that equal trees look
 * equal, and the same as in the EROFS images of the other kind of input root;
 * not the epoch, because there are archive formats that cannot hold it.
 */
#define ACD_INPUT_TIME	946684800

/**
 * struct acd_cas_id - tells CASes apart in the cache of directories
 * @uuid: of the file system
 * @device: on which it is mounted
 * @ino: of the CAS's directory
 * @generation: of that inode
 */
struct acd_cas_id {
	uuid_t uuid;
	u64 device;
	u64 ino;
	u32 generation;
	u32 zero;
};

/**
 * struct acd_key - names a Directory of a CAS
 * @cas: which CAS
 * @hash: the digest's hash
 */
struct acd_key {
	struct acd_cas_id cas;
	u8 hash[ACD_HASH_BYTES];
};

/**
 * struct acd_dir - a parsed Directory, shared by all mounts of a CAS
 * @count: one for the cache while it is in there, one for each inode
 * @used: found since the clock hand came by; see dircache.c
 * @blob_size: size of the Directory message
 * @bytes: what this costs
 * @key: where it belongs
 * @node: in the cache's hash table
 * @age: in the cache's clock list
 * @rcu: for freeing
 * @table: the entries
 */
struct acd_dir {
	refcount_t count;
	bool used;
	u64 blob_size;
	size_t bytes;
	struct acd_key key;
	struct rhash_head node;
	struct list_head age;
	struct rcu_head rcu;
	struct acd_table table;
};

struct acd_blobs;

/**
 * struct acd_super - one mount
 * @cas: the directory of blobs, two hex digits below it
 * @stage: where new objects go; dentry NULL when read-only
 * @cred: the mounter's credentials
 * @id: of the CAS
 * @blobs: the cache of blob dentries, shared by the mounts of one CAS
 * @stage_lock: serialises making counterparts of input directories
 * @root_hash: digest of the root Directory
 * @root_size: its size in bytes, or ACD_SIZE_UNKNOWN
 * @uid: owner of input directories and symlinks
 * @gid: their group
 * @file_uid: owner of input files
 * @file_gid: their group
 */
struct acd_super {
	struct path cas;
	struct path stage;
	const struct cred *cred;
	struct acd_cas_id id;
	struct acd_blobs *blobs;
	struct mutex stage_lock;
	u8 root_hash[ACD_HASH_BYTES];
	u64 root_size;
	kuid_t uid;
	kgid_t gid;
	kuid_t file_uid;
	kgid_t file_gid;
};

#define ACD_SIZE_UNKNOWN	U64_MAX

enum acd_kind {
	ACD_INPUT,
	ACD_STAGED,
};

/**
 * struct acd_inode - see the top of this file
 * @vfs: what the VFS knows
 * @kind: input or staged
 * @depth: directories between the root and this one (input directories)
 * @dir: input directory: its parsed Directory, NULL until read; input symlink:
 *	 its parent's, which holds the target
 * @real: staged: a dentry of the real inode; input directory: its counterpart
 *	  in the stage, or NULL
 * @hash: input file: the blob; input directory: its Directory
 * @blob_size: the size that the parent said @hash has, or ACD_SIZE_UNKNOWN
 */
struct acd_inode {
	struct inode vfs;
	enum acd_kind kind;
	unsigned int depth;
	struct acd_dir *dir;
	struct dentry *real;
	u8 hash[ACD_HASH_BYTES];
	u64 blob_size;
};

static inline struct acd_super *acd_super(const struct super_block *sb)
{
	return sb->s_fs_info;
}

static inline struct acd_inode *acd_inode(const struct inode *inode)
{
	return container_of(inode, struct acd_inode, vfs);
}

static inline bool acd_is_staged(const struct inode *inode)
{
	return acd_inode(inode)->kind == ACD_STAGED;
}

/* The staged object, or an input directory's counterpart, or NULL. */
static inline struct dentry *acd_real(const struct inode *inode)
{
	/* Pairs with the store in acd_make_counterpart(). */
	return smp_load_acquire(&acd_inode(inode)->real);
}

/* The path to reopen a staged object by; borrowed from its inode. */
static inline struct path acd_real_path(const struct inode *inode)
{
	return (struct path) {
		.mnt = acd_super(inode->i_sb)->stage.mnt,
		.dentry = acd_real(inode),
	};
}

/* dircache.c */
int __init acd_dircache_init(void);
struct acd_dir *acd_dir_get(struct super_block *sb, const u8 *hash, u64 size);
void acd_dir_put(struct acd_dir *dir);

/* blobcache.c */
struct acd_blobs *acd_blobs_get(struct dentry *cas);
void acd_blobs_put(struct acd_blobs *blobs);
struct dentry *acd_blob(struct super_block *sb, const u8 *hash);

/* inode.c */
int __init acd_inode_init(void);
struct inode *acd_alloc_inode(struct super_block *sb);
void acd_free_inode(struct inode *inode);
void acd_destroy_inode(struct inode *inode);
struct inode *acd_root(struct super_block *sb);
struct inode *acd_input(struct inode *parent, struct acd_dir *dir,
			const struct acd_entry *entry, struct dentry *real);
struct inode *acd_staged(struct super_block *sb, struct dentry *real);
struct acd_dir *acd_directory(struct inode *inode);
u64 acd_input_ino(u64 parent, u32 index);
void acd_copy_data_attributes(struct inode *inode);
void acd_copy_attributes(struct inode *inode);
int acd_permission(struct mnt_idmap *idmap, struct inode *inode, int mask);
int acd_getattr(struct mnt_idmap *idmap, const struct path *path,
		struct kstat *stat, u32 mask, unsigned int flags);
int acd_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
		struct iattr *attr);

/* lookup.c */
bool acd_is_free(struct inode *inode, const struct qstr *name);
struct dentry *acd_lookup(struct inode *dir, struct dentry *dentry,
			  unsigned int flags);

/* stage.c */

/**
 * struct acd_stage - a change of one name in the stage, under way
 * @super: whose stage
 * @dir: the real directory, locked; borrowed from its actiondfs inode
 * @real: the real dentry of the name, positive or negative
 */
struct acd_stage {
	struct acd_super *super;
	struct dentry *dir;
	struct dentry *real;
};

struct dentry *acd_stage_directory(struct dentry *dentry);
int acd_stage_begin(struct acd_stage *stage, struct dentry *dentry);
int acd_stage_enter(struct acd_stage *stage, struct dentry *dentry);
void acd_stage_end(struct acd_stage *stage);
struct dentry *acd_stage_name(struct dentry *dir, struct dentry *dentry);

/* namei.c, rename.c, readdir.c, file.c, write.c, xattr.c */
extern const struct inode_operations acd_directory_inode_operations;
extern const struct inode_operations acd_file_inode_operations;
extern const struct inode_operations acd_symlink_inode_operations;
int acd_rename(struct mnt_idmap *idmap, struct inode *old_dir,
	       struct dentry *old_dentry, struct inode *new_dir,
	       struct dentry *new_dentry, unsigned int flags);
extern const struct file_operations acd_directory_operations;
extern const struct file_operations acd_file_operations;
extern const struct address_space_operations acd_address_space_operations;
ssize_t acd_write_iter(struct kiocb *iocb, struct iov_iter *iter);
ssize_t acd_splice_write(struct pipe_inode_info *pipe, struct file *out,
			 loff_t *pos, size_t len, unsigned int flags);
long acd_fallocate(struct file *file, int mode, loff_t offset, loff_t len);
ssize_t acd_copy_file_range(struct file *in, loff_t pos_in, struct file *out,
			    loff_t pos_out, size_t len, unsigned int flags);
loff_t acd_remap_file_range(struct file *in, loff_t pos_in, struct file *out,
			    loff_t pos_out, loff_t len, unsigned int flags);
extern const struct xattr_handler * const acd_xattr_handlers[];
ssize_t acd_listxattr(struct dentry *dentry, char *list, size_t size);

#include "stats.h"

#endif /* ACTIONDFS_H */
