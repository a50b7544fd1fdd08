// SPDX-License-Identifier: GPL-2.0-only
/*
 * The stage: where what an action makes really lies.
 *
 * Below it the stage has the shape of the tree: what is made as a/b/out lies
 * as a/b/out in the stage. Where a and b are input directories, counterparts
 * of them are made on the way. Nobody else changes a stage while it is in use.
 */
#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/namei.h>

#include "actiondfs.h"

/*
 * Everybody may write into an input directory, so also into its counterpart;
 * mkdir alone would apply the umask of whoever comes first.
 */
static int acd_open_to_all(struct dentry *real)
{
	struct inode *inode = d_inode(real);
	struct iattr attr = { .ia_valid = ATTR_MODE };
	int err;

	if ((inode->i_mode & 0777) == 0777)
		return 0;
	attr.ia_mode = inode->i_mode | 0777;
	inode_lock(inode);
	err = notify_change(&nop_mnt_idmap, real, &attr, NULL);
	inode_unlock(inode);
	return err;
}

static struct dentry *acd_real_mkdir(struct dentry *dir,
				     const struct qstr *name)
{
	struct inode *inode = d_inode(dir);
	struct dentry *real;
	int err = 0;

	inode_lock_nested(inode, I_MUTEX_PARENT);
	real = lookup_one_len(name->name, dir, name->len);
	if (!IS_ERR(real) && d_really_is_negative(real))
		err = vfs_mkdir(&nop_mnt_idmap, inode, real, 0777);
	inode_unlock(inode);
	if (IS_ERR(real))
		return real;

	if (!err)
		err = d_is_dir(real) ? acd_open_to_all(real) : -EIO;
	if (err) {
		dput(real);
		return ERR_PTR(err);
	}
	return real;
}

/* @dentry: an input directory without a counterpart, its parent with one. */
static int acd_make_counterpart(struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	struct dentry *real;

	real = acd_real_mkdir(acd_real(d_inode(dentry->d_parent)),
			      &dentry->d_name);
	if (IS_ERR(real))
		return PTR_ERR(real);
	acd_count(stage_directories);
	/* Pairs with the load in acd_real(): the dentry is whole before seen. */
	smp_store_release(&acd_inode(inode)->real, real);
	return 0;
}

/**
 * acd_stage_directory - the real directory of a directory
 * @dentry: a staged directory, or an input directory, whose counterpart is
 *	    made if there is none, after those of its parents
 *
 * The caller has write access to the stage's mount.
 *
 * Return: borrowed from the inode of @dentry, or an error.
 */
struct dentry *acd_stage_directory(struct dentry *dentry)
{
	struct acd_super *super = acd_super(dentry->d_sb);
	struct dentry *real = acd_real(d_inode(dentry)), *top;
	const struct cred *old_cred;
	int err = 0;

	if (real)
		return real;

	mutex_lock(&super->stage_lock);
	old_cred = override_creds(super->cred);
	while (!err && !(real = acd_real(d_inode(dentry)))) {
		/* The root has one. Quadratic, but ACD_DEPTH_MAX bounds it. */
		top = dentry;
		while (!acd_real(d_inode(top->d_parent)))
			top = top->d_parent;
		err = acd_make_counterpart(top);
	}
	revert_creds(old_cred);
	mutex_unlock(&super->stage_lock);
	return err ? ERR_PTR(err) : real;
}

/**
 * acd_stage_name - look a dentry's name up in a locked real directory
 * @dir: the real directory
 * @dentry: ours
 *
 * Return: a negative real dentry for a negative @dentry, for a staged one the
 * real dentry of that very object; -ESTALE when the stage disagrees, because
 * somebody meddled with it from outside.
 */
struct dentry *acd_stage_name(struct dentry *dir, struct dentry *dentry)
{
	struct inode *inode = d_inode(dentry);
	struct dentry *real;

	real = lookup_one_len(dentry->d_name.name, dir, dentry->d_name.len);
	if (IS_ERR(real))
		return real;
	if (d_inode(real) != (inode ? d_inode(acd_real(inode)) : NULL)) {
		dput(real);
		return ERR_PTR(-ESTALE);
	}
	return real;
}

typedef struct dentry *(*acd_stage_look)(struct dentry *dir,
					 struct dentry *dentry);

static int acd_stage_open(struct acd_stage *stage, struct dentry *dentry,
			  acd_stage_look look)
{
	int err;

	stage->super = acd_super(dentry->d_sb);
	err = mnt_want_write(stage->super->stage.mnt);
	if (err)
		return err;
	stage->dir = acd_stage_directory(dentry->d_parent);
	if (IS_ERR(stage->dir)) {
		err = PTR_ERR(stage->dir);
		goto drop_write;
	}
	inode_lock_nested(d_inode(stage->dir), I_MUTEX_PARENT);
	stage->real = look(stage->dir, dentry);
	if (!IS_ERR(stage->real))
		return 0;

	err = PTR_ERR(stage->real);
	inode_unlock(d_inode(stage->dir));
drop_write:
	mnt_drop_write(stage->super->stage.mnt);
	return err;
}

/**
 * acd_stage_begin - get ready to change one name
 * @stage: filled in on success; end it with acd_stage_end()
 * @dentry: the name, negative or staged, in a directory locked by the VFS
 */
int acd_stage_begin(struct acd_stage *stage, struct dentry *dentry)
{
	return acd_stage_open(stage, dentry, acd_stage_name);
}

static struct dentry *acd_stage_look_up(struct dentry *dir,
					struct dentry *dentry)
{
	return lookup_one_len(dentry->d_name.name, dir, dentry->d_name.len);
}

/**
 * acd_stage_enter - the same for a name that was not looked up yet
 * @stage: its real dentry is positive or negative
 * @dentry: the name
 */
int acd_stage_enter(struct acd_stage *stage, struct dentry *dentry)
{
	return acd_stage_open(stage, dentry, acd_stage_look_up);
}

/**
 * acd_stage_end - done with one name
 * @stage: as filled in by acd_stage_begin()
 */
void acd_stage_end(struct acd_stage *stage)
{
	dput(stage->real);
	inode_unlock(d_inode(stage->dir));
	mnt_drop_write(stage->super->stage.mnt);
}
