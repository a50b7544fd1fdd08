// SPDX-License-Identifier: GPL-2.0-only
/*
 * Inodes: where they come from, what they tell, what may be changed of them.
 */
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/init.h>
#include <linux/slab.h>
#include <linux/stat.h>

#include "actiondfs.h"

static struct kmem_cache *acd_inode_cache;

static void acd_inode_once(void *object)
{
	inode_init_once(&((struct acd_inode *)object)->vfs);
}

int __init acd_inode_init(void)
{
	acd_inode_cache = kmem_cache_create("actiondfs_inode",
					    sizeof(struct acd_inode), 0,
					    SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT,
					    acd_inode_once);
	return acd_inode_cache ? 0 : -ENOMEM;
}

struct inode *acd_alloc_inode(struct super_block *sb)
{
	struct acd_inode *ai = alloc_inode_sb(sb, acd_inode_cache, GFP_KERNEL);

	if (!ai)
		return NULL;
	ai->kind = ACD_INPUT;
	ai->depth = 0;
	ai->dir = NULL;
	ai->real = NULL;
	ai->blob_size = ACD_SIZE_UNKNOWN;
	return &ai->vfs;
}

void acd_destroy_inode(struct inode *inode)
{
	dput(acd_inode(inode)->real);
}

/* After a grace period: walks under RCU may still read a target in ->dir. */
void acd_free_inode(struct inode *inode)
{
	acd_dir_put(acd_inode(inode)->dir);
	kmem_cache_free(acd_inode_cache, acd_inode(inode));
}

/**
 * acd_input_ino - the number of an input
 * @parent: the number of its directory
 * @index: its place in the parsed Directory
 *
 * Depends on the path alone, so that it is the same when an inode is dropped
 * and made again. 47 bits of hash: a collision is improbable, and harmless,
 * because nothing takes two files with one link each for hard links.
 */
u64 acd_input_ino(u64 parent, u32 index)
{
	u64 mixed = (parent * GOLDEN_RATIO_64 + index) * GOLDEN_RATIO_64;

	return ACD_INPUT_INO | mixed >> 17;
}

static void acd_init_input(struct inode *inode, u64 ino, umode_t mode, u64 size)
{
	const struct acd_super *super = acd_super(inode->i_sb);
	struct timespec64 time = { .tv_sec = ACD_INPUT_TIME };

	inode->i_ino = ino;
	inode->i_mode = mode;
	inode->i_uid = S_ISREG(mode) ? super->file_uid : super->uid;
	inode->i_gid = S_ISREG(mode) ? super->file_gid : super->gid;
	inode->i_size = size;
	inode->i_blocks = DIV_ROUND_UP_ULL(size, 512);
	inode->i_flags |= S_NOATIME | S_NOCMTIME;
	inode_set_atime_to_ts(inode, time);
	inode_set_mtime_to_ts(inode, time);
	inode_set_ctime_to_ts(inode, time);
}

static void acd_set_operations(struct inode *inode)
{
	switch (inode->i_mode & S_IFMT) {
	case S_IFREG:
		inode->i_op = &acd_file_inode_operations;
		inode->i_fop = &acd_file_operations;
		inode->i_mapping->a_ops = &acd_address_space_operations;
		break;
	case S_IFDIR:
		inode->i_op = &acd_directory_inode_operations;
		inode->i_fop = &acd_directory_operations;
		break;
	case S_IFLNK:
		inode->i_op = &acd_symlink_inode_operations;
		break;
	default:
		inode->i_op = &acd_file_inode_operations;
		init_special_inode(inode, inode->i_mode, 0);
		break;
	}
}

/*
 * Permissions of inputs. In a strict mount anybody may make new names in any
 * directory, and what must not happen to inputs is refused by the operations,
 * with EROFS: a sticky bit would make it EPERM. A read-only mount is the lower
 * layer of an overlay: its modes are what a copied-up file gets, so they let
 * the owner write.
 */
static umode_t acd_input_mode(const struct super_block *sb, u8 type, bool exec)
{
	bool lower = !acd_super(sb)->stage.dentry;

	switch (type) {
	case ACD_DIRECTORY:
		return S_IFDIR | (lower ? 0755 : 0777);
	case ACD_SYMLINK:
		return S_IFLNK | 0777;
	default:
		return S_IFREG | (lower ? 0644 : 0444) | (exec ? 0111 : 0);
	}
}

/**
 * acd_root - the inode of the root directory
 * @sb: a mount; its root is not read before somebody looks into it
 */
struct inode *acd_root(struct super_block *sb)
{
	struct acd_super *super = acd_super(sb);
	struct inode *inode = new_inode(sb);
	struct acd_inode *ai;

	if (!inode)
		return NULL;
	ai = acd_inode(inode);
	memcpy(ai->hash, super->root_hash, sizeof(ai->hash));
	ai->blob_size = super->root_size;
	ai->real = dget(super->stage.dentry);
	acd_init_input(inode, ACD_INPUT_INO | 1,
		       acd_input_mode(sb, ACD_DIRECTORY, false), 0);
	acd_set_operations(inode);
	return inode;
}

/**
 * acd_input - the inode of an entry of a parsed Directory
 * @parent: the directory that @entry stands in
 * @dir: its parsed Directory
 * @entry: the entry
 * @real: a directory's counterpart in the stage, or NULL; taken over
 *
 * Each call makes a new inode: an input has one name, and the VFS sees to it
 * that one name has one dentry.
 */
struct inode *acd_input(struct inode *parent, struct acd_dir *dir,
			const struct acd_entry *entry, struct dentry *real)
{
	struct inode *inode = new_inode(parent->i_sb);
	u32 index = entry - dir->table.entry;
	struct acd_inode *ai;

	if (!inode) {
		dput(real);
		return ERR_PTR(-ENOMEM);
	}
	acd_init_input(inode, acd_input_ino(parent->i_ino, index),
		       acd_input_mode(parent->i_sb, entry->type,
				      entry->executable),
		       entry->type == ACD_DIRECTORY ? 0 : entry->size);
	acd_set_operations(inode);

	ai = acd_inode(inode);
	ai->real = real;
	if (entry->type == ACD_SYMLINK) {
		refcount_inc(&dir->count);
		ai->dir = dir;
		inode->i_link = (char *)acd_target(&dir->table, entry);
		return inode;
	}
	memcpy(ai->hash, entry->hash, sizeof(ai->hash));
	ai->blob_size = entry->size;
	ai->depth = acd_inode(parent)->depth + 1;
	return inode;
}

static int acd_staged_test(struct inode *inode, void *real_inode)
{
	return inode->i_private == real_inode;
}

static int acd_staged_set(struct inode *inode, void *real_inode)
{
	inode->i_private = real_inode;
	return 0;
}

/**
 * acd_staged - the inode of an object in the stage
 * @sb: a mount
 * @real: one of the object's dentries; a reference is taken
 *
 * Hard links share an inode: it is found by the address of the real inode,
 * which stays as long as ours, because ours holds @real.
 */
struct inode *acd_staged(struct super_block *sb, struct dentry *real)
{
	struct inode *real_inode = d_inode(real), *inode;

	if (S_ISCHR(real_inode->i_mode) || S_ISBLK(real_inode->i_mode)) {
		pr_err_ratelimited("actiondfs: a device node in the stage\n");
		return ERR_PTR(-EIO);
	}
	inode = iget5_locked(sb, (unsigned long)real_inode, acd_staged_test,
			     acd_staged_set, real_inode);
	if (!inode)
		return ERR_PTR(-ENOMEM);
	if (!(inode->i_state & I_NEW))
		return inode;

	acd_inode(inode)->kind = ACD_STAGED;
	acd_inode(inode)->real = dget(real);
	inode->i_ino = real_inode->i_ino & (ACD_INPUT_INO - 1);
	inode->i_flags |= S_NOATIME | S_NOCMTIME;
	inode->i_mode = real_inode->i_mode;
	acd_set_operations(inode);
	acd_copy_attributes(inode);
	unlock_new_inode(inode);
	return inode;
}

/**
 * acd_copy_data_attributes - take over what a change of data has changed
 * @inode: a staged inode; the end of an asynchronous write holds no lock on it
 */
void acd_copy_data_attributes(struct inode *inode)
{
	struct inode *real = d_inode(acd_inode(inode)->real);

	inode->i_mode = real->i_mode;
	inode->i_blocks = real->i_blocks;
	i_size_write(inode, i_size_read(real));
	inode_set_atime_to_ts(inode, inode_get_atime(real));
	inode_set_mtime_to_ts(inode, inode_get_mtime(real));
	inode_set_ctime_to_ts(inode, inode_get_ctime(real));
}

/**
 * acd_copy_attributes - take over what the real inode says
 * @inode: a locked or new staged inode; for inputs nothing is done
 */
void acd_copy_attributes(struct inode *inode)
{
	struct inode *real;

	if (!acd_is_staged(inode))
		return;
	real = d_inode(acd_inode(inode)->real);
	inode->i_uid = real->i_uid;
	inode->i_gid = real->i_gid;
	set_nlink(inode, real->i_nlink);
	acd_copy_data_attributes(inode);
}

/**
 * acd_directory - the parsed Directory of an input directory
 * @inode: the directory
 *
 * Return: borrowed from @inode, or an error as of acd_dir_get().
 */
struct acd_dir *acd_directory(struct inode *inode)
{
	struct acd_inode *ai = acd_inode(inode);
	struct acd_dir *dir, *other;

	/* Pairs with the cmpxchg() below, by whoever was first. */
	dir = smp_load_acquire(&ai->dir);
	if (dir)
		return dir;
	dir = acd_dir_get(inode->i_sb, ai->hash, ai->blob_size);
	if (IS_ERR(dir))
		return dir;
	other = cmpxchg(&ai->dir, NULL, dir);
	if (!other)
		return dir;
	acd_dir_put(dir);
	return other;
}

/*
 * Writing to an input is refused with EROFS, whoever asks and whatever the
 * mode says: by open and by access, which say what they are. A bare MAY_WRITE
 * comes before a change of attributes, which acd_setattr() judges (touching an
 * input is harmless), or before one of data or xattrs, which is refused where
 * it happens.
 */
int acd_permission(struct mnt_idmap *idmap, struct inode *inode, int mask)
{
	if ((mask & MAY_WRITE) && S_ISREG(inode->i_mode) &&
	    !acd_is_staged(inode)) {
		if (mask & (MAY_OPEN | MAY_ACCESS)) {
			acd_count(refused_changes);
			return -EROFS;
		}
		mask &= ~(MAY_WRITE | MAY_APPEND);
	}
	return generic_permission(idmap, inode, mask);
}

static void acd_getattr_input(struct inode *inode, struct mnt_idmap *idmap,
			      struct kstat *stat, u32 mask)
{
	struct dentry *real = acd_real(inode);

	generic_fillattr(idmap, mask, inode, stat);
	/* What was made in an input directory shows in its times. */
	if (real) {
		stat->mtime = inode_get_mtime(d_inode(real));
		stat->ctime = inode_get_ctime(d_inode(real));
	}
}

int acd_getattr(struct mnt_idmap *idmap, const struct path *path,
		struct kstat *stat, u32 mask, unsigned int flags)
{
	struct inode *inode = d_inode(path->dentry);
	struct path real;
	int err;

	if (!acd_is_staged(inode)) {
		acd_getattr_input(inode, idmap, stat, mask);
		return 0;
	}
	real = acd_real_path(inode);
	err = vfs_getattr_nosec(&real, stat, mask, flags);
	if (err)
		return err;
	stat->dev = inode->i_sb->s_dev;
	stat->ino = inode->i_ino;
	return 0;
}

/* A mode that promises nothing which an input does not hold already. */
static bool acd_harmless_mode(const struct inode *inode, umode_t mode)
{
	if (mode & (S_ISUID | S_ISGID | S_ISVTX))
		return false;
	return S_ISDIR(inode->i_mode) || !(mode & 0111) ||
	       (inode->i_mode & 0111);
}

/*
 * Tools set modes and times of files that they only read (tar, install -p,
 * rsync, touch as a stamp). To such a change of an input we say yes and do
 * nothing. What they might rely on later gives EROFS: size, another owner,
 * an executable bit that is not there.
 */
static int acd_setattr_input(struct mnt_idmap *idmap, struct inode *inode,
			     const struct iattr *attr)
{
	if (attr->ia_valid & ATTR_SIZE)
		goto refused;
	if (i_uid_needs_update(idmap, attr, inode) ||
	    i_gid_needs_update(idmap, attr, inode))
		goto refused;
	if ((attr->ia_valid & ATTR_MODE) &&
	    !acd_harmless_mode(inode, attr->ia_mode))
		goto refused;
	return 0;

refused:
	acd_count(refused_changes);
	return -EROFS;
}

static int acd_setattr_staged(struct inode *inode, struct iattr *attr)
{
	struct acd_super *super = acd_super(inode->i_sb);
	struct dentry *real = acd_real(inode);
	struct inode *real_inode = d_inode(real);
	int err;

	if (attr->ia_valid & (ATTR_KILL_SUID | ATTR_KILL_SGID))
		attr->ia_valid &= ~ATTR_MODE;
	/* Both speak of our file, not of the real one. */
	attr->ia_valid &= ~(ATTR_FILE | ATTR_OPEN);

	err = mnt_want_write(super->stage.mnt);
	if (err)
		return err;
	if (attr->ia_valid & ATTR_SIZE)
		err = get_write_access(real_inode);
	if (err)
		goto out;
	inode_lock(real_inode);
	err = notify_change(&nop_mnt_idmap, real, attr, NULL);
	inode_unlock(real_inode);
	if (attr->ia_valid & ATTR_SIZE)
		put_write_access(real_inode);
	acd_copy_attributes(inode);
out:
	mnt_drop_write(super->stage.mnt);
	return err;
}

int acd_setattr(struct mnt_idmap *idmap, struct dentry *dentry,
		struct iattr *attr)
{
	struct inode *inode = d_inode(dentry);
	int err;

	if (!acd_is_staged(inode))
		return acd_setattr_input(idmap, inode, attr);
	err = setattr_prepare(idmap, dentry, attr);
	return err ?: acd_setattr_staged(inode, attr);
}

static const char *acd_get_link(struct dentry *dentry, struct inode *inode,
				struct delayed_call *done)
{
	/* An input's. The VFS takes this itself, overlayfs asks us. */
	if (inode->i_link)
		return inode->i_link;
	if (!dentry)
		return ERR_PTR(-ECHILD);
	return vfs_get_link(acd_real(inode), done);
}

const struct inode_operations acd_symlink_inode_operations = {
	.get_link	= acd_get_link,
	.permission	= acd_permission,
	.getattr	= acd_getattr,
	.setattr	= acd_setattr,
	.listxattr	= acd_listxattr,
};

const struct inode_operations acd_file_inode_operations = {
	.permission	= acd_permission,
	.getattr	= acd_getattr,
	.setattr	= acd_setattr,
	.listxattr	= acd_listxattr,
};
