// SPDX-License-Identifier: GPL-2.0-only
/*
 * Renaming: staged objects only, and never onto an input.
 *
 * The VFS holds our two directories and, for directories that move, our
 * s_vfs_rename_mutex; below, the same is done once more for the real ones.
 */
#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/namei.h>

#include "actiondfs.h"

/* A rename between two real directories. */
struct acd_move {
	struct dentry *old_dir;
	struct dentry *new_dir;
	struct dentry *old;
	struct dentry *new;
	/* From lock_rename(): neither of the two names may be this one. */
	struct dentry *trap;
	unsigned int flags;
};

static int acd_move_locked(struct acd_move *move)
{
	struct renamedata data = {
		.old_mnt_idmap	= &nop_mnt_idmap,
		.old_dir	= d_inode(move->old_dir),
		.old_dentry	= move->old,
		.new_mnt_idmap	= &nop_mnt_idmap,
		.new_dir	= d_inode(move->new_dir),
		.new_dentry	= move->new,
		.flags		= move->flags,
	};

	if (move->old == move->trap)
		return -EINVAL;
	if (move->new == move->trap)
		return move->flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
	return vfs_rename(&data);
}

static int acd_move(struct acd_move *move, struct dentry *old_dentry,
		    struct dentry *new_dentry)
{
	int err;

	move->trap = lock_rename(move->old_dir, move->new_dir);
	if (IS_ERR(move->trap))
		return PTR_ERR(move->trap);

	move->old = acd_stage_name(move->old_dir, old_dentry);
	err = PTR_ERR_OR_ZERO(move->old);
	if (err)
		goto unlock;
	move->new = acd_stage_name(move->new_dir, new_dentry);
	err = PTR_ERR_OR_ZERO(move->new);
	if (err)
		goto put_old;
	err = acd_move_locked(move);
	dput(move->new);
put_old:
	dput(move->old);
unlock:
	unlock_rename(move->old_dir, move->new_dir);
	return err;
}

static bool acd_is_input(const struct dentry *dentry)
{
	return d_really_is_positive(dentry) && !acd_is_staged(d_inode(dentry));
}

int acd_rename(struct mnt_idmap *idmap, struct inode *old_dir,
	       struct dentry *old_dentry, struct inode *new_dir,
	       struct dentry *new_dentry, unsigned int flags)
{
	struct acd_super *super = acd_super(old_dir->i_sb);
	struct acd_move move = { .flags = flags };
	int err;

	if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	if (acd_is_input(old_dentry) || acd_is_input(new_dentry)) {
		acd_count(refused_changes);
		return -EROFS;
	}
	err = mnt_want_write(super->stage.mnt);
	if (err)
		return err;

	move.old_dir = acd_stage_directory(old_dentry->d_parent);
	move.new_dir = acd_stage_directory(new_dentry->d_parent);
	if (IS_ERR(move.old_dir))
		err = PTR_ERR(move.old_dir);
	else if (IS_ERR(move.new_dir))
		err = PTR_ERR(move.new_dir);
	else
		err = acd_move(&move, old_dentry, new_dentry);
	mnt_drop_write(super->stage.mnt);

	if (!err)
		acd_count(stage_renames);
	acd_copy_attributes(old_dir);
	acd_copy_attributes(new_dir);
	acd_copy_attributes(d_inode(old_dentry));
	if (d_really_is_positive(new_dentry))
		acd_copy_attributes(d_inode(new_dentry));
	return err;
}
