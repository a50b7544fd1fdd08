// SPDX-License-Identifier: GPL-2.0-only
/*
 * Open files. Each holds one open file of the CAS or of the stage, in
 * private_data, and hands everything through to it: actiondfs has no page
 * cache of its own, so two actions that read or map one blob share its pages.
 *
 * An empty input has no backing file: a store need not hold the empty blob.
 */
#include <linux/backing-file.h>
#include <linux/fadvise.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/splice.h>

#include "actiondfs.h"

/*
 * What the VFS has dealt with already. Appending is asked for per write: it
 * can be switched on and off by fcntl() on our file.
 */
#define ACD_SPENT_FLAGS	(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND)

static struct file *acd_open_staged(struct inode *inode, struct file *file)
{
	struct path path = acd_real_path(inode);

	acd_count(opens_staged);
	return backing_file_open(file, file->f_flags & ~ACD_SPENT_FLAGS, &path,
				 current_cred());
}

static struct file *acd_open_blob(struct inode *inode, struct file *file)
{
	struct acd_super *super = acd_super(inode->i_sb);
	struct acd_inode *ai = acd_inode(inode);
	struct path path = { .mnt = super->cas.mnt };
	int flags = (file->f_flags & ~ACD_SPENT_FLAGS) | O_NOATIME;
	struct file *real;

	acd_count(opens_input);
	path.dentry = acd_blob(inode->i_sb, ai->hash);
	if (IS_ERR(path.dentry))
		return ERR_CAST(path.dentry);
	if (i_size_read(d_inode(path.dentry)) != ai->blob_size) {
		pr_err_ratelimited("actiondfs: blob %*phN has %lld bytes instead of %llu\n",
				   ACD_HASH_BYTES, ai->hash,
				   i_size_read(d_inode(path.dentry)),
				   ai->blob_size);
		real = ERR_PTR(-EIO);
	} else {
		real = backing_file_open(file, flags, &path, super->cred);
	}
	dput(path.dentry);
	return real;
}

static int acd_open(struct inode *inode, struct file *file)
{
	struct file *real;

	if (acd_is_staged(inode))
		real = acd_open_staged(inode, file);
	else if (file->f_mode & FMODE_WRITE)
		real = ERR_PTR(-EROFS);
	else if (acd_inode(inode)->blob_size == 0)
		real = NULL;
	else
		real = acd_open_blob(inode, file);
	if (IS_ERR(real))
		return PTR_ERR(real);
	file->private_data = real;
	return 0;
}

static int acd_release(struct inode *inode, struct file *file)
{
	if (file->private_data)
		fput(file->private_data);
	return 0;
}

static ssize_t acd_read_iter(struct kiocb *iocb, struct iov_iter *iter)
{
	struct file *file = iocb->ki_filp, *real = file->private_data;
	struct backing_file_ctx context = { .user_file = file };
	ssize_t got;

	if (!real)
		return 0;
	context.cred = real->f_cred;
	got = backing_file_read_iter(real, iter, iocb, iocb->ki_flags,
				     &context);
	acd_count(reads);
	if (got > 0)
		acd_count_by(read_bytes, got);
	return got;
}

static ssize_t acd_splice_read(struct file *in, loff_t *pos,
			       struct pipe_inode_info *pipe, size_t len,
			       unsigned int flags)
{
	struct file *real = in->private_data;
	struct backing_file_ctx context = { .user_file = in };
	ssize_t got;

	if (!real)
		return 0;
	context.cred = real->f_cred;
	got = backing_file_splice_read(real, pos, pipe, len, flags, &context);
	acd_count(splice_reads);
	if (got > 0)
		acd_count_by(read_bytes, got);
	return got;
}

/* An empty file can be mapped; every page of it lies beyond the end. */
static vm_fault_t acd_empty_fault(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct vm_operations_struct acd_empty_vm_operations = {
	.fault = acd_empty_fault,
};

static int acd_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct file *real = file->private_data;
	struct backing_file_ctx context = { .user_file = file };

	acd_count(mmaps);
	if (!real) {
		vma->vm_ops = &acd_empty_vm_operations;
		return 0;
	}
	context.cred = real->f_cred;
	return backing_file_mmap(real, vma, &context);
}

/* Where data and holes are only the real file system knows. */
static loff_t acd_llseek(struct file *file, loff_t offset, int whence)
{
	struct inode *inode = file_inode(file);
	struct file *real = file->private_data;
	loff_t limit = inode->i_sb->s_maxbytes;
	loff_t found;

	if (!real || (whence != SEEK_DATA && whence != SEEK_HOLE))
		return generic_file_llseek_size(file, offset, whence, limit,
						i_size_read(inode));
	found = vfs_llseek(real, offset, whence);
	return found < 0 ? found : vfs_setpos(file, found, limit);
}

static int acd_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct file *real = file->private_data;

	/* A blob is as durable as its store has made it. */
	if (!acd_is_staged(file_inode(file)))
		return 0;
	return vfs_fsync_range(real, start, end, datasync);
}

static int acd_fadvise(struct file *file, loff_t offset, loff_t len, int advice)
{
	struct file *real = file->private_data;

	return real ? vfs_fadvise(real, offset, len, advice) : 0;
}

/* Only there to tell the VFS that O_DIRECT may be asked for; never called. */
const struct address_space_operations acd_address_space_operations = {
	.direct_IO	= noop_direct_IO,
};

const struct file_operations acd_file_operations = {
	.open			= acd_open,
	.release		= acd_release,
	.llseek			= acd_llseek,
	.read_iter		= acd_read_iter,
	.write_iter		= acd_write_iter,
	.splice_read		= acd_splice_read,
	.splice_write		= acd_splice_write,
	.mmap			= acd_mmap,
	.fsync			= acd_fsync,
	.fallocate		= acd_fallocate,
	.fadvise		= acd_fadvise,
	.copy_file_range	= acd_copy_file_range,
	.remap_file_range	= acd_remap_file_range,
};
