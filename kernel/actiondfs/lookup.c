// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a name in a directory to an inode.
 *
 * Inputs come first: that is a binary search in memory, and no staged object
 * can bear the name of an input, except the counterparts of directories. The
 * stage is asked only when the directory has something staged at all: of the
 * names that a compiler looks for, most do not exist.
 */
#include <linux/fs.h>
#include <linux/namei.h>

#include "actiondfs.h"

static struct dentry *acd_real_child(struct inode *dir, const struct qstr *name)
{
	struct dentry *real = acd_real(dir);

	if (!real)
		return ERR_PTR(-ENOENT);
	acd_count(lookups_staged);
	return lookup_one_positive_unlocked(&nop_mnt_idmap, name->name, real,
					    name->len);
}

/* NULL when there is none. */
static struct dentry *acd_counterpart(struct inode *dir,
				      const struct qstr *name)
{
	struct dentry *real = acd_real_child(dir, name);

	if (real == ERR_PTR(-ENOENT))
		return NULL;
	if (!IS_ERR(real) && !d_is_dir(real)) {
		dput(real);
		pr_err_ratelimited("actiondfs: the stage hides an input directory\n");
		return ERR_PTR(-EIO);
	}
	return real;
}

static struct inode *acd_lookup_staged(struct inode *dir,
				       const struct qstr *name)
{
	struct dentry *real = acd_real_child(dir, name);
	struct inode *inode;

	if (real == ERR_PTR(-ENOENT))
		return NULL;
	if (IS_ERR(real))
		return ERR_CAST(real);
	inode = acd_staged(dir->i_sb, real);
	dput(real);
	return inode;
}

static struct inode *acd_lookup_input(struct inode *parent,
				      const struct qstr *name)
{
	struct acd_dir *dir = acd_directory(parent);
	const struct acd_entry *entry;
	struct dentry *real = NULL;

	if (IS_ERR(dir))
		return ERR_CAST(dir);
	entry = acd_find(&dir->table, name->name, name->len);
	if (!entry)
		return acd_lookup_staged(parent, name);
	if (entry->type == ACD_DIRECTORY) {
		if (acd_inode(parent)->depth >= ACD_DEPTH_MAX)
			return ERR_PTR(-ELOOP);
		real = acd_counterpart(parent, name);
		if (IS_ERR(real))
			return ERR_CAST(real);
	}
	return acd_input(parent, dir, entry, real);
}

/**
 * acd_is_free - whether a name can be nowhere but in the stage
 * @inode: the directory
 * @name: the name
 */
bool acd_is_free(struct inode *inode, const struct qstr *name)
{
	struct acd_dir *dir;

	if (name->len > ACD_NAME_MAX)
		return false;
	if (acd_is_staged(inode))
		return true;
	dir = acd_directory(inode);
	return !IS_ERR(dir) && !acd_find(&dir->table, name->name, name->len);
}

struct dentry *acd_lookup(struct inode *dir, struct dentry *dentry,
			  unsigned int flags)
{
	struct inode *inode;

	if (dentry->d_name.len > ACD_NAME_MAX)
		return ERR_PTR(-ENAMETOOLONG);

	acd_count(lookups);
	if (acd_is_staged(dir))
		inode = acd_lookup_staged(dir, &dentry->d_name);
	else
		inode = acd_lookup_input(dir, &dentry->d_name);
	if (!inode)
		acd_count(lookups_negative);
	return d_splice_alias(inode, dentry);
}
