// SPDX-License-Identifier: GPL-2.0-only
/*
 * Listing directories.
 *
 * A staged directory is listed by the stage's file system; only the number of
 * its parent is ours. An input directory is listed from its parsed Directory,
 * followed by what is staged in it. Positions there:
 *
 *	0, 1		. and ..
 *	2 + i		entry i of the Directory
 *	2 + n + i	staged name i of a listing that the open file keeps
 *
 * The listing is taken when a reader comes to its start, so it is stable while
 * he deletes what he reads, and new after a rewind.
 */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/slab.h>

#include "actiondfs.h"

struct acd_listed {
	u64 ino;
	unsigned int type;
	unsigned int len;
	char name[];
};

struct acd_listing {
	struct dir_context context;
	const struct acd_table *inputs;
	struct acd_listed **names;
	size_t count;
	size_t room;
	int err;
};

static void acd_listing_free(struct acd_listing *listing)
{
	size_t i;

	if (!listing)
		return;
	for (i = 0; i < listing->count; i++)
		kfree(listing->names[i]);
	kvfree(listing->names);
	kfree(listing);
}

static int acd_listing_reserve(struct acd_listing *listing)
{
	size_t room = listing->room ? 2 * listing->room : 32;
	struct acd_listed **names;

	if (listing->count < listing->room)
		return 0;
	names = kvrealloc(listing->names, room * sizeof(*names),
			  GFP_KERNEL_ACCOUNT);
	if (!names)
		return -ENOMEM;
	listing->names = names;
	listing->room = room;
	return 0;
}

static bool acd_is_dots(const char *name, int len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

static bool acd_list_name(struct dir_context *context, const char *name,
			  int len, loff_t pos, u64 ino, unsigned int type)
{
	struct acd_listing *listing =
		container_of(context, struct acd_listing, context);
	struct acd_listed *listed;

	/* The counterparts of input directories have been told already. */
	if (acd_is_dots(name, len) || acd_find(listing->inputs, name, len))
		return true;
	listing->err = acd_listing_reserve(listing);
	if (listing->err)
		return false;
	listed = kmalloc(struct_size(listed, name, len), GFP_KERNEL_ACCOUNT);
	if (!listed) {
		listing->err = -ENOMEM;
		return false;
	}
	listed->ino = ino & (ACD_INPUT_INO - 1);
	listed->type = type;
	listed->len = len;
	memcpy(listed->name, name, len);
	listing->names[listing->count++] = listed;
	return true;
}

static struct acd_listing *acd_listing_take(struct inode *inode,
					    const struct acd_table *inputs)
{
	struct path path = acd_real_path(inode);
	struct acd_listing *listing;
	struct file *real;

	listing = kzalloc(sizeof(*listing), GFP_KERNEL_ACCOUNT);
	if (!listing)
		return ERR_PTR(-ENOMEM);
	listing->context.actor = acd_list_name;
	listing->inputs = inputs;

	real = dentry_open(&path, O_RDONLY | O_DIRECTORY | O_LARGEFILE,
			   acd_super(inode->i_sb)->cred);
	if (IS_ERR(real)) {
		listing->err = PTR_ERR(real);
	} else {
		int err = iterate_dir(real, &listing->context);

		listing->err = listing->err ?: err;
		fput(real);
	}
	if (listing->err) {
		int err = listing->err;

		acd_listing_free(listing);
		return ERR_PTR(err);
	}
	return listing;
}

static int acd_list_staged(struct file *file, struct dir_context *context,
			   const struct acd_table *inputs)
{
	struct acd_listing *listing = file->private_data;
	loff_t start = 2 + (loff_t)inputs->count;

	if (!acd_real(file_inode(file)))
		return 0;
	if (!listing || context->pos == start) {
		listing = acd_listing_take(file_inode(file), inputs);
		if (IS_ERR(listing))
			return PTR_ERR(listing);
		acd_listing_free(file->private_data);
		file->private_data = listing;
	}
	while (context->pos - start < listing->count) {
		struct acd_listed *one = listing->names[context->pos - start];

		if (!dir_emit(context, one->name, one->len, one->ino,
			      one->type))
			return 0;
		context->pos++;
	}
	return 0;
}

static unsigned int acd_dirent_type(const struct acd_entry *entry)
{
	switch (entry->type) {
	case ACD_DIRECTORY:
		return DT_DIR;
	case ACD_SYMLINK:
		return DT_LNK;
	default:
		return DT_REG;
	}
}

static int acd_iterate_input(struct file *file, struct dir_context *context)
{
	struct inode *inode = file_inode(file);
	struct acd_dir *dir = acd_directory(inode);
	const struct acd_table *table;

	if (IS_ERR(dir))
		return PTR_ERR(dir);
	if (!dir_emit_dots(file, context))
		return 0;
	table = &dir->table;
	while (context->pos - 2 < table->count) {
		u32 index = context->pos - 2;
		const struct acd_entry *entry = &table->entry[index];

		if (!dir_emit(context, acd_name(table, entry), entry->name_len,
			      acd_input_ino(inode->i_ino, index),
			      acd_dirent_type(entry)))
			return 0;
		context->pos++;
	}
	return acd_list_staged(file, context, table);
}

/* Between the stage's file system and the reader. */
struct acd_relay {
	struct dir_context context;
	struct dir_context *reader;
	u64 parent_ino;
};

static bool acd_relay_name(struct dir_context *context, const char *name,
			   int len, loff_t pos, u64 ino, unsigned int type)
{
	struct acd_relay *relay =
		container_of(context, struct acd_relay, context);

	if (len == 2 && acd_is_dots(name, len))
		ino = relay->parent_ino;
	else
		ino &= ACD_INPUT_INO - 1;
	relay->reader->pos = pos;
	return relay->reader->actor(relay->reader, name, len, pos, ino, type);
}

static int acd_iterate_staged(struct file *file, struct dir_context *context)
{
	struct acd_relay relay = {
		.context.actor = acd_relay_name,
		.reader = context,
		.parent_ino = d_parent_ino(file->f_path.dentry),
	};
	int err = iterate_dir(file->private_data, &relay.context);

	context->pos = relay.context.pos;
	return err;
}

static int acd_iterate(struct file *file, struct dir_context *context)
{
	acd_count(readdirs);
	if (acd_is_staged(file_inode(file)))
		return acd_iterate_staged(file, context);
	return acd_iterate_input(file, context);
}

static int acd_directory_open(struct inode *inode, struct file *file)
{
	struct path path;
	struct file *real;

	if (!acd_is_staged(inode))
		return 0;
	path = acd_real_path(inode);
	real = dentry_open(&path, O_RDONLY | O_DIRECTORY | O_LARGEFILE,
			   current_cred());
	if (IS_ERR(real))
		return PTR_ERR(real);
	file->private_data = real;
	return 0;
}

static int acd_directory_release(struct inode *inode, struct file *file)
{
	if (!file->private_data)
		return 0;
	if (acd_is_staged(inode))
		fput(file->private_data);
	else
		acd_listing_free(file->private_data);
	return 0;
}

static loff_t acd_directory_llseek(struct file *file, loff_t offset, int whence)
{
	struct inode *inode = file_inode(file);
	loff_t pos;

	if (!acd_is_staged(inode)) {
		/* Positions of an input directory have no end to seek to. */
		if (whence != SEEK_SET && whence != SEEK_CUR)
			return -EINVAL;
		return generic_file_llseek_size(file, offset, whence,
						LLONG_MAX, 0);
	}
	pos = vfs_llseek(file->private_data, offset, whence);
	if (pos >= 0)
		file->f_pos = pos;
	return pos;
}

static int acd_directory_fsync(struct file *file, loff_t start, loff_t end,
			       int datasync)
{
	if (!acd_is_staged(file_inode(file)))
		return 0;
	return vfs_fsync_range(file->private_data, start, end, datasync);
}

const struct file_operations acd_directory_operations = {
	.open		= acd_directory_open,
	.release	= acd_directory_release,
	.iterate_shared	= acd_iterate,
	.read		= generic_read_dir,
	.llseek		= acd_directory_llseek,
	.fsync		= acd_directory_fsync,
};
