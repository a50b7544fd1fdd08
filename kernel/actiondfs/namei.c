// SPDX-License-Identifier: GPL-2.0-only
/*
 * Making and removing names, in the stage.
 */
#include <linux/dcache.h>
#include <linux/fs.h>
#include <linux/namei.h>

#include "actiondfs.h"

static int acd_make_real(struct acd_stage *stage, umode_t mode,
			 const char *target)
{
	struct inode *dir = d_inode(stage->dir);

	switch (mode & S_IFMT) {
	case S_IFREG:
		return vfs_create(&nop_mnt_idmap, dir, stage->real, mode, true);
	case S_IFDIR:
		return vfs_mkdir(&nop_mnt_idmap, dir, stage->real, mode);
	case S_IFLNK:
		return vfs_symlink(&nop_mnt_idmap, dir, stage->real, target);
	case S_IFIFO:
	case S_IFSOCK:
		return vfs_mknod(&nop_mnt_idmap, dir, stage->real, mode, 0);
	default:
		return -EPERM;
	}
}

static int acd_instantiate(struct dentry *dentry, struct dentry *real)
{
	struct inode *inode = acd_staged(dentry->d_sb, real);

	if (IS_ERR(inode)) {
		/* It is there, only not in memory: look it up next time. */
		d_drop(dentry);
		return PTR_ERR(inode);
	}
	d_instantiate(dentry, inode);
	return 0;
}

static int acd_make(struct inode *dir, struct dentry *dentry, umode_t mode,
		    const char *target)
{
	struct acd_stage stage;
	int err;

	err = acd_stage_begin(&stage, dentry);
	if (err)
		return err;
	err = acd_make_real(&stage, mode, target);
	if (!err)
		err = acd_instantiate(dentry, stage.real);
	acd_copy_attributes(dir);
	acd_stage_end(&stage);
	if (!err)
		acd_count(stage_creates);
	return err;
}

static int acd_create(struct mnt_idmap *idmap, struct inode *dir,
		      struct dentry *dentry, umode_t mode, bool excl)
{
	return acd_make(dir, dentry, mode | S_IFREG, NULL);
}

/* Gives @dentry, not looked up yet, the regular file that @stage has or gets. */
static struct dentry *acd_find_or_make(struct acd_stage *stage,
				       struct dentry *dentry, umode_t mode,
				       bool *made)
{
	int err;

	*made = d_really_is_negative(stage->real);
	if (*made) {
		err = acd_make_real(stage, mode | S_IFREG, NULL);
		if (err)
			return ERR_PTR(err);
		acd_count(stage_creates);
	}
	return d_splice_alias(acd_staged(dentry->d_sb, stage->real), dentry);
}

/*
 * Without it, making a file asks the stage twice: whether there is one, and
 * again under the lock that the making needs.
 */
static int acd_open_or_create(struct inode *dir, struct dentry *dentry,
			      struct file *file, umode_t mode)
{
	struct dentry *other;
	struct acd_stage stage;
	bool made;
	int err;

	err = acd_stage_enter(&stage, dentry);
	if (err)
		return err;
	acd_count(lookups);
	acd_count(lookups_staged);
	other = acd_find_or_make(&stage, dentry, mode, &made);
	acd_copy_attributes(dir);
	acd_stage_end(&stage);
	if (IS_ERR(other))
		return PTR_ERR(other);
	if (!made)
		return finish_no_open(file, other);
	file->f_mode |= FMODE_CREATED;
	err = finish_open(file, other ?: dentry, NULL);
	dput(other);
	return err;
}

static int acd_atomic_open(struct inode *dir, struct dentry *dentry,
			   struct file *file, unsigned int flags, umode_t mode)
{
	struct dentry *other = NULL;
	int err;

	if (d_in_lookup(dentry)) {
		if ((flags & O_CREAT) && acd_is_free(dir, &dentry->d_name))
			return acd_open_or_create(dir, dentry, file, mode);
		other = acd_lookup(dir, dentry, 0);
		if (IS_ERR(other))
			return PTR_ERR(other);
		return finish_no_open(file, other);
	}
	if (!(flags & O_CREAT) || d_really_is_positive(dentry))
		return finish_no_open(file, NULL);
	err = acd_make(dir, dentry, mode | S_IFREG, NULL);
	if (err)
		return err;
	file->f_mode |= FMODE_CREATED;
	return finish_open(file, dentry, NULL);
}

static int acd_mkdir(struct mnt_idmap *idmap, struct inode *dir,
		     struct dentry *dentry, umode_t mode)
{
	return acd_make(dir, dentry, mode | S_IFDIR, NULL);
}

static int acd_mknod(struct mnt_idmap *idmap, struct inode *dir,
		     struct dentry *dentry, umode_t mode, dev_t device)
{
	return acd_make(dir, dentry, mode, NULL);
}

static int acd_symlink(struct mnt_idmap *idmap, struct inode *dir,
		       struct dentry *dentry, const char *target)
{
	return acd_make(dir, dentry, S_IFLNK | 0777, target);
}

static int acd_link(struct dentry *old_dentry, struct inode *dir,
		    struct dentry *dentry)
{
	struct inode *inode = d_inode(old_dentry);
	struct acd_stage stage;
	int err;

	/*
	 * A second name in the stage for a blob of the CAS would make the blob
	 * writable. EXDEV is what makes tools copy instead.
	 */
	if (!acd_is_staged(inode))
		return -EXDEV;
	err = acd_stage_begin(&stage, dentry);
	if (err)
		return err;
	err = vfs_link(acd_real(inode), &nop_mnt_idmap, d_inode(stage.dir),
		       stage.real, NULL);
	acd_copy_attributes(inode);
	acd_copy_attributes(dir);
	if (!err) {
		ihold(inode);
		d_instantiate(dentry, inode);
		acd_count(stage_links);
	}
	acd_stage_end(&stage);
	return err;
}

static int acd_remove(struct inode *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	struct acd_stage stage;
	int err;

	if (!acd_is_staged(inode)) {
		acd_count(refused_changes);
		return -EROFS;
	}
	err = acd_stage_begin(&stage, dentry);
	if (err)
		return err;
	if (S_ISDIR(inode->i_mode))
		err = vfs_rmdir(&nop_mnt_idmap, d_inode(stage.dir), stage.real);
	else
		err = vfs_unlink(&nop_mnt_idmap, d_inode(stage.dir), stage.real,
				 NULL);
	acd_copy_attributes(inode);
	acd_copy_attributes(dir);
	acd_stage_end(&stage);
	if (!err)
		acd_count(stage_removes);
	return err;
}

/* The real file is open already; there is nothing left to do for the VFS. */
static int acd_already_open(struct inode *inode, struct file *file)
{
	return 0;
}

static int acd_tmpfile_at(struct file *file, struct path *dir, umode_t mode)
{
	struct dentry *dentry = file->f_path.dentry;
	struct file *real;
	struct inode *inode;
	int err;

	real = backing_tmpfile_open(file, file->f_flags, dir, mode,
				    current_cred());
	if (IS_ERR(real))
		return PTR_ERR(real);
	inode = acd_staged(dentry->d_sb, real->f_path.dentry);
	if (IS_ERR(inode)) {
		fput(real);
		return PTR_ERR(inode);
	}
	d_mark_tmpfile(file, inode);
	d_instantiate(dentry, inode);
	file->private_data = real;
	err = finish_open(file, dentry, acd_already_open);
	if (!(file->f_mode & FMODE_OPENED))
		fput(real);
	else
		acd_count(stage_creates);
	return err;
}

static int acd_tmpfile(struct mnt_idmap *idmap, struct inode *dir,
		       struct file *file, umode_t mode)
{
	struct dentry *parent = file->f_path.dentry->d_parent;
	struct path real = { .mnt = acd_super(dir->i_sb)->stage.mnt };
	int err;

	err = mnt_want_write(real.mnt);
	if (err)
		return err;
	real.dentry = acd_stage_directory(parent);
	if (IS_ERR(real.dentry))
		err = PTR_ERR(real.dentry);
	else
		err = acd_tmpfile_at(file, &real, mode);
	mnt_drop_write(real.mnt);
	return err;
}

const struct inode_operations acd_directory_inode_operations = {
	.lookup		= acd_lookup,
	.create		= acd_create,
	.mkdir		= acd_mkdir,
	.mknod		= acd_mknod,
	.symlink	= acd_symlink,
	.link		= acd_link,
	.unlink		= acd_remove,
	.rmdir		= acd_remove,
	.rename		= acd_rename,
	.atomic_open	= acd_atomic_open,
	.tmpfile	= acd_tmpfile,
	.permission	= acd_permission,
	.getattr	= acd_getattr,
	.setattr	= acd_setattr,
	.listxattr	= acd_listxattr,
};
