// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mounting.
 *
 *	root=<64 hex>	digest of the root Directory
 *	root_size=<n>	its size in bytes; left out: not checked
 *	cas=<path>	directory of the blobs, as <2 hex>/<64 hex>
 *	stage=<path>	where new objects go, on a file system of its own or on
 *			that of the CAS; left out: the mount is read-only
 *	uid=, gid=	owner of all inputs, by default 0
 *	file_uid=, file_gid=
 *			owner of input files instead of that
 *
 * A mount reads nothing: the root is looked at when somebody looks into it.
 * Only root of the initial user namespace may mount; whoever can name a CAS
 * can make this kernel read any file in it.
 */
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/init.h>
#include <linux/mount.h>
#include <linux/namei.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/statfs.h>

#include "actiondfs.h"

enum acd_param {
	ACD_PARAM_ROOT,
	ACD_PARAM_ROOT_SIZE,
	ACD_PARAM_CAS,
	ACD_PARAM_STAGE,
	ACD_PARAM_UID,
	ACD_PARAM_GID,
	ACD_PARAM_FILE_UID,
	ACD_PARAM_FILE_GID,
};

static const struct fs_parameter_spec acd_params[] = {
	fsparam_string("root",		ACD_PARAM_ROOT),
	fsparam_u64("root_size",	ACD_PARAM_ROOT_SIZE),
	fsparam_string("cas",		ACD_PARAM_CAS),
	fsparam_string("stage",		ACD_PARAM_STAGE),
	fsparam_uid("uid",		ACD_PARAM_UID),
	fsparam_gid("gid",		ACD_PARAM_GID),
	fsparam_uid("file_uid",		ACD_PARAM_FILE_UID),
	fsparam_gid("file_gid",		ACD_PARAM_FILE_GID),
	{}
};

/* Collects the options; becomes the super block's own at the end. */
struct acd_options {
	struct acd_super *super;
	bool has_root;
	bool has_file_uid;
	bool has_file_gid;
};

static void acd_super_free(struct acd_super *super)
{
	if (!super)
		return;
	if (super->blobs)
		acd_blobs_put(super->blobs);
	path_put(&super->cas);
	path_put(&super->stage);
	if (super->cred)
		put_cred(super->cred);
	kfree(super);
}

static int acd_parse_path(struct fs_context *fc, const char *name,
			  struct path *path)
{
	int err;

	if (path->dentry)
		return invalf(fc, "actiondfs: one path is given twice");
	err = kern_path(name, LOOKUP_FOLLOW | LOOKUP_DIRECTORY, path);
	if (err)
		return invalf(fc, "actiondfs: cannot find '%s' (%d)", name,
			      err);
	if (is_idmapped_mnt(path->mnt)) {
		path_put(path);
		*path = (struct path) {};
		return invalf(fc, "actiondfs: '%s' is on an idmapped mount",
			      name);
	}
	return 0;
}

static int acd_parse_param(struct fs_context *fc, struct fs_parameter *param)
{
	struct acd_options *options = fc->fs_private;
	struct acd_super *super = options->super;
	struct fs_parse_result result;
	int which = fs_parse(fc, acd_params, param, &result);

	switch (which) {
	case ACD_PARAM_ROOT:
		if (!acd_hash_from_hex(super->root_hash, param->string,
				       strlen(param->string)))
			return invalf(fc, "actiondfs: root is not 64 hex digits");
		options->has_root = true;
		return 0;
	case ACD_PARAM_ROOT_SIZE:
		if (result.uint_64 > ACD_BLOB_MAX)
			return invalf(fc, "actiondfs: root_size is above 64 MiB");
		super->root_size = result.uint_64;
		return 0;
	case ACD_PARAM_CAS:
		return acd_parse_path(fc, param->string, &super->cas);
	case ACD_PARAM_STAGE:
		return acd_parse_path(fc, param->string, &super->stage);
	case ACD_PARAM_UID:
		super->uid = result.uid;
		return 0;
	case ACD_PARAM_GID:
		super->gid = result.gid;
		return 0;
	case ACD_PARAM_FILE_UID:
		super->file_uid = result.uid;
		options->has_file_uid = true;
		return 0;
	case ACD_PARAM_FILE_GID:
		super->file_gid = result.gid;
		options->has_file_gid = true;
		return 0;
	default:
		return which;
	}
}

static void acd_identify(struct acd_super *super)
{
	struct inode *inode = d_inode(super->cas.dentry);

	super->id.uuid = inode->i_sb->s_uuid;
	super->id.device = inode->i_sb->s_dev;
	super->id.ino = inode->i_ino;
	super->id.generation = inode->i_generation;
}

/* Names must mean there what they mean here, and stay until we change them. */
static bool acd_plain_names(const struct super_block *sb)
{
	const struct dentry_operations *ops = sb->s_d_op;

	return !ops || !(ops->d_hash || ops->d_compare || ops->d_revalidate ||
			 ops->d_weak_revalidate);
}

static int acd_check_stage(struct fs_context *fc, struct acd_super *super)
{
	if (!super->stage.dentry)
		return 0;
	if (!acd_plain_names(super->stage.dentry->d_sb))
		return invalf(fc, "actiondfs: the stage's file system has names of its own kind");
	if (__mnt_is_readonly(super->stage.mnt))
		return invalf(fc, "actiondfs: the stage is read-only");
	return 0;
}

static int acd_stack(struct super_block *sb, struct fs_context *fc)
{
	struct acd_super *super = acd_super(sb);
	struct super_block *cas = super->cas.dentry->d_sb;

	sb->s_maxbytes = cas->s_maxbytes;
	sb->s_stack_depth = cas->s_stack_depth + 1;
	if (super->stage.dentry) {
		struct super_block *stage = super->stage.dentry->d_sb;

		sb->s_maxbytes = stage->s_maxbytes;
		sb->s_stack_depth = max(sb->s_stack_depth,
					stage->s_stack_depth + 1);
	}
	if (sb->s_stack_depth > FILESYSTEM_MAX_STACK_DEPTH)
		return invalf(fc, "actiondfs: too many file systems on top of each other");
	return 0;
}

static int acd_statfs(struct dentry *dentry, struct kstatfs *buf)
{
	struct acd_super *super = acd_super(dentry->d_sb);
	int err = vfs_statfs(super->stage.dentry ? &super->stage : &super->cas,
			     buf);

	buf->f_type = ACD_MAGIC;
	buf->f_namelen = ACD_NAME_MAX;
	return err;
}

static int acd_show_options(struct seq_file *m, struct dentry *root)
{
	struct acd_super *super = acd_super(root->d_sb);

	seq_printf(m, ",root=%*phN", ACD_HASH_BYTES, super->root_hash);
	if (super->root_size != ACD_SIZE_UNKNOWN)
		seq_printf(m, ",root_size=%llu", super->root_size);
	if (!uid_eq(super->uid, GLOBAL_ROOT_UID))
		seq_printf(m, ",uid=%u",
			   from_kuid_munged(&init_user_ns, super->uid));
	if (!gid_eq(super->gid, GLOBAL_ROOT_GID))
		seq_printf(m, ",gid=%u",
			   from_kgid_munged(&init_user_ns, super->gid));
	if (!uid_eq(super->file_uid, super->uid))
		seq_printf(m, ",file_uid=%u",
			   from_kuid_munged(&init_user_ns, super->file_uid));
	if (!gid_eq(super->file_gid, super->gid))
		seq_printf(m, ",file_gid=%u",
			   from_kgid_munged(&init_user_ns, super->file_gid));
	return 0;
}

/* No sync_fs: what a build makes is durable when the store says so. */
static const struct super_operations acd_super_operations = {
	.alloc_inode	= acd_alloc_inode,
	.destroy_inode	= acd_destroy_inode,
	.free_inode	= acd_free_inode,
	/* Nothing is won by keeping what no dentry needs. */
	.drop_inode	= generic_delete_inode,
	.statfs		= acd_statfs,
	.show_options	= acd_show_options,
};

static int acd_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct acd_options *options = fc->fs_private;
	int err;

	sb->s_fs_info = options->super;
	options->super = NULL;
	sb->s_op = &acd_super_operations;
	sb->s_xattr = acd_xattr_handlers;
	sb->s_magic = ACD_MAGIC;
	sb->s_time_gran = 1;
	if (!acd_super(sb)->stage.dentry)
		sb->s_flags |= SB_RDONLY;
	err = acd_stack(sb, fc);
	if (err)
		return err;
	sb->s_root = d_make_root(acd_root(sb));
	if (!sb->s_root)
		return -ENOMEM;
	acd_count(mounts);
	return 0;
}

static int acd_get_tree(struct fs_context *fc)
{
	struct acd_options *options = fc->fs_private;
	struct acd_super *super = options->super;
	int err;

	if (!options->has_root || !super->cas.dentry)
		return invalf(fc, "actiondfs: root and cas must be given");
	err = acd_check_stage(fc, super);
	if (err)
		return err;
	if (!options->has_file_uid)
		super->file_uid = super->uid;
	if (!options->has_file_gid)
		super->file_gid = super->gid;
	acd_identify(super);
	super->blobs = acd_blobs_get(super->cas.dentry);
	if (!super->blobs)
		return -ENOMEM;
	return get_tree_nodev(fc, acd_fill_super);
}

static int acd_reconfigure(struct fs_context *fc)
{
	struct acd_super *super = acd_super(fc->root->d_sb);

	if (!(fc->sb_flags & SB_RDONLY) && !super->stage.dentry)
		return invalf(fc, "actiondfs: without a stage there is no writing");
	return 0;
}

static void acd_free_context(struct fs_context *fc)
{
	struct acd_options *options = fc->fs_private;

	if (!options)
		return;
	acd_super_free(options->super);
	kfree(options);
}

static const struct fs_context_operations acd_context_operations = {
	.parse_param	= acd_parse_param,
	.get_tree	= acd_get_tree,
	.reconfigure	= acd_reconfigure,
	.free		= acd_free_context,
};

static int acd_init_context(struct fs_context *fc)
{
	struct acd_options *options = kzalloc(sizeof(*options), GFP_KERNEL);
	struct acd_super *super;

	if (!options)
		return -ENOMEM;
	super = kzalloc(sizeof(*super), GFP_KERNEL);
	if (!super) {
		kfree(options);
		return -ENOMEM;
	}
	mutex_init(&super->stage_lock);
	super->cred = get_cred(fc->cred);
	super->root_size = ACD_SIZE_UNKNOWN;
	super->uid = GLOBAL_ROOT_UID;
	super->gid = GLOBAL_ROOT_GID;
	options->super = super;
	fc->fs_private = options;
	fc->ops = &acd_context_operations;
	return 0;
}

static void acd_kill_super(struct super_block *sb)
{
	struct acd_super *super = acd_super(sb);

	/* Inodes hold dentries of the stage: they go first. */
	kill_anon_super(sb);
	acd_super_free(super);
}

static struct file_system_type acd_type = {
	.owner			= THIS_MODULE,
	.name			= "actiondfs",
	.init_fs_context	= acd_init_context,
	.parameters		= acd_params,
	.kill_sb		= acd_kill_super,
};

static int __init acd_init(void)
{
	int err = acd_inode_init();

	if (!err)
		err = acd_dircache_init();
	return err ?: register_filesystem(&acd_type);
}
fs_initcall(acd_init);
