// SPDX-License-Identifier: GPL-2.0-only
/*
 * Changing the data of staged files.
 *
 * Only a staged file can be open for writing, so none of this ever sees an
 * input as its target. Our inode is locked around each change, so that size
 * and times are taken over from the real inode in the order of the changes.
 */
#include <linux/backing-file.h>
#include <linux/cred.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/splice.h>

#include "actiondfs.h"

static void acd_end_write(struct file *file, loff_t pos, ssize_t written)
{
	acd_copy_data_attributes(file_inode(file));
	if (written > 0)
		acd_count_by(write_bytes, written);
}

ssize_t acd_write_iter(struct kiocb *iocb, struct iov_iter *iter)
{
	struct file *file = iocb->ki_filp, *real = file->private_data;
	struct inode *inode = file_inode(file);
	struct backing_file_ctx context = {
		.cred = real->f_cred,
		.user_file = file,
		.end_write = acd_end_write,
	};
	ssize_t written;

	acd_count(writes);
	inode_lock(inode);
	written = backing_file_write_iter(real, iter, iocb, iocb->ki_flags,
					  &context);
	inode_unlock(inode);
	return written;
}

ssize_t acd_splice_write(struct pipe_inode_info *pipe, struct file *out,
			 loff_t *pos, size_t len, unsigned int flags)
{
	struct file *real = out->private_data;
	struct inode *inode = file_inode(out);
	struct backing_file_ctx context = {
		.cred = real->f_cred,
		.user_file = out,
		.end_write = acd_end_write,
	};
	ssize_t written;

	acd_count(splice_writes);
	inode_lock(inode);
	written = backing_file_splice_write(pipe, real, pos, len, flags,
					    &context);
	inode_unlock(inode);
	return written;
}

long acd_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct file *real = file->private_data;
	struct inode *inode = file_inode(file);
	const struct cred *old_cred;
	long err;

	inode_lock(inode);
	err = file_remove_privs(file);
	if (!err) {
		old_cred = override_creds(real->f_cred);
		err = vfs_fallocate(real, mode, offset, len);
		revert_creds(old_cred);
		acd_copy_data_attributes(inode);
	}
	inode_unlock(inode);
	return err;
}

typedef loff_t (*acd_transfer)(struct file *in, loff_t pos_in, struct file *out,
			       loff_t pos_out, loff_t len, unsigned int flags);

static loff_t acd_transfer_range(struct file *in, loff_t pos_in,
				 struct file *out, loff_t pos_out, loff_t len,
				 unsigned int flags, acd_transfer transfer)
{
	struct file *real_in = in->private_data, *real_out = out->private_data;
	struct inode *inode = file_inode(out);
	const struct cred *old_cred;
	loff_t moved;

	/* From an empty input there is nothing to have. */
	if (!real_in)
		return 0;
	acd_count(copies);
	inode_lock(inode);
	moved = file_remove_privs(out);
	if (!moved) {
		old_cred = override_creds(real_out->f_cred);
		moved = transfer(real_in, pos_in, real_out, pos_out, len,
				 flags);
		revert_creds(old_cred);
		acd_copy_data_attributes(inode);
	}
	inode_unlock(inode);
	if (moved > 0)
		acd_count_by(copy_bytes, moved);
	return moved;
}

static loff_t acd_copy(struct file *in, loff_t pos_in, struct file *out,
		       loff_t pos_out, loff_t len, unsigned int flags)
{
	return vfs_copy_file_range(in, pos_in, out, pos_out, len, flags);
}

ssize_t acd_copy_file_range(struct file *in, loff_t pos_in, struct file *out,
			    loff_t pos_out, size_t len, unsigned int flags)
{
	return acd_transfer_range(in, pos_in, out, pos_out, len, flags,
				  acd_copy);
}

loff_t acd_remap_file_range(struct file *in, loff_t pos_in, struct file *out,
			    loff_t pos_out, loff_t len, unsigned int flags)
{
	if (flags & ~REMAP_FILE_ADVISORY)
		return -EOPNOTSUPP;
	return acd_transfer_range(in, pos_in, out, pos_out, len, flags,
				  vfs_clone_file_range);
}
