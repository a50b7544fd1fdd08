// SPDX-License-Identifier: GPL-2.0-only
/*
 * Extended attributes: `user.` ones of staged files and directories, as the
 * stage's file system has them. Inputs have none, and can get none.
 */
#include <linux/fs.h>
#include <linux/mount.h>
#include <linux/xattr.h>

#include "actiondfs.h"

static int acd_xattr_get(const struct xattr_handler *handler,
			 struct dentry *dentry, struct inode *inode,
			 const char *name, void *buffer, size_t size)
{
	if (!acd_is_staged(inode))
		return -ENODATA;
	return vfs_getxattr(&nop_mnt_idmap, acd_real(inode),
			    xattr_full_name(handler, name), buffer, size);
}

static int acd_xattr_set(const struct xattr_handler *handler,
			 struct mnt_idmap *idmap, struct dentry *dentry,
			 struct inode *inode, const char *name,
			 const void *value, size_t size, int flags)
{
	struct acd_super *super = acd_super(inode->i_sb);
	const char *full_name = xattr_full_name(handler, name);
	int err;

	if (!acd_is_staged(inode))
		return -EROFS;
	err = mnt_want_write(super->stage.mnt);
	if (err)
		return err;
	if (value)
		err = vfs_setxattr(&nop_mnt_idmap, acd_real(inode), full_name,
				   value, size, flags);
	else
		err = vfs_removexattr(&nop_mnt_idmap, acd_real(inode),
				      full_name);
	mnt_drop_write(super->stage.mnt);
	acd_copy_attributes(inode);
	return err;
}

/* Close the gaps that names of other classes leave in the list. */
static ssize_t acd_keep_user_names(char *list, ssize_t size)
{
	char *end = list + size, *from = list, *to = list;

	while (from < end) {
		size_t len = strnlen(from, end - from) + 1;

		if (!strncmp(from, XATTR_USER_PREFIX, XATTR_USER_PREFIX_LEN)) {
			memmove(to, from, len);
			to += len;
		}
		from += len;
	}
	return to - list;
}

ssize_t acd_listxattr(struct dentry *dentry, char *list, size_t size)
{
	struct inode *inode = d_inode(dentry);
	ssize_t len;

	if (!acd_is_staged(inode))
		return 0;
	len = vfs_listxattr(acd_real(inode), list, size);
	/* Asked for the size alone: too large an answer does no harm. */
	return len <= 0 || size == 0 ? len : acd_keep_user_names(list, len);
}

static const struct xattr_handler acd_user_xattr_handler = {
	.prefix	= XATTR_USER_PREFIX,
	.get	= acd_xattr_get,
	.set	= acd_xattr_set,
};

const struct xattr_handler * const acd_xattr_handlers[] = {
	&acd_user_xattr_handler,
	NULL,
};
