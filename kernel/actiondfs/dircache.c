// SPDX-License-Identifier: GPL-2.0-only
/*
 * Parsed Directories by digest, shared by all mounts.
 *
 * Actions of one build share most of their input directories, and a Directory
 * never changes under its digest, so a parsed one is worth keeping longer than
 * a mount lives. The cache pins nothing of the CAS.
 *
 * Finding one takes no lock: RCU and a reference count. Room is made by a
 * clock: entries stand in a list, a hit sets `used`, and the hand, at the head
 * of the list, gives a used entry another round and drops an unused one. The
 * bound is in bytes; memory pressure lowers it through a shrinker. A Directory
 * that an inode holds stays alive when the cache drops it.
 *
 * Who pays: the first `directory_cache_bytes` that are alive are the machine's,
 * whoever had them read, because all share them. What is alive beyond that can
 * only be alive because inodes pin it, and is charged to the control group of
 * the action that reads it: keeping many large directories open costs the one
 * who does so.
 */
#include <linux/fs.h>
#include <linux/file.h>
#include <linux/init.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rhashtable.h>
#include <linux/shrinker.h>
#include <linux/sizes.h>

#include "actiondfs.h"

/* An LLVM build touches 5,000 directories, which take about 20 MiB. */
static unsigned long acd_cache_limit = SZ_64M;
module_param_named(directory_cache_bytes, acd_cache_limit, ulong, 0644);
MODULE_PARM_DESC(directory_cache_bytes,
		 "memory for parsed directories that no inode holds");

/* Bytes of all parsed directories, in the cache or not. */
static atomic_long_t acd_alive_bytes;

static struct {
	struct rhashtable table;
	spinlock_t lock;	/* age, bytes, count, and removals */
	struct list_head age;
	unsigned long bytes;
	unsigned long count;
} acd_cache = {
	.lock = __SPIN_LOCK_UNLOCKED(acd_cache.lock),
	.age = LIST_HEAD_INIT(acd_cache.age),
};

static const struct rhashtable_params acd_cache_params = {
	.key_len = sizeof(struct acd_key),
	.key_offset = offsetof(struct acd_dir, key),
	.head_offset = offsetof(struct acd_dir, node),
	.automatic_shrinking = true,
};

void acd_dir_put(struct acd_dir *dir)
{
	if (dir && refcount_dec_and_test(&dir->count)) {
		atomic_long_sub(dir->bytes, &acd_alive_bytes);
		kvfree_rcu(dir, rcu);
	}
}

/*
 * Free up to @want entries that nobody used of late. Each may need two looks:
 * one that finds it used, and one that finds it not used since.
 */
static unsigned long acd_cache_turn(unsigned long want, unsigned long limit,
				    struct list_head *dropped)
{
	unsigned long looks = 2 * min(want, acd_cache.count), freed = 0;

	lockdep_assert_held(&acd_cache.lock);
	while (looks-- && freed < want && acd_cache.bytes > limit) {
		struct acd_dir *dir = list_first_entry_or_null(
			&acd_cache.age, struct acd_dir, age);

		if (!dir)
			break;
		if (READ_ONCE(dir->used)) {
			WRITE_ONCE(dir->used, false);
			list_move_tail(&dir->age, &acd_cache.age);
			continue;
		}
		rhashtable_remove_fast(&acd_cache.table, &dir->node,
				       acd_cache_params);
		list_move(&dir->age, dropped);
		acd_cache.bytes -= dir->bytes;
		acd_cache.count--;
		freed++;
	}
	return freed;
}

static void acd_cache_release(struct list_head *dropped)
{
	struct acd_dir *dir, *next;

	list_for_each_entry_safe(dir, next, dropped, age) {
		list_del(&dir->age);
		acd_count(directories_evicted);
		acd_dir_put(dir);
	}
}

static unsigned long acd_cache_count(struct shrinker *shrinker,
				     struct shrink_control *sc)
{
	return READ_ONCE(acd_cache.count) ?: SHRINK_EMPTY;
}

static unsigned long acd_cache_scan(struct shrinker *shrinker,
				    struct shrink_control *sc)
{
	LIST_HEAD(dropped);
	unsigned long freed;

	spin_lock(&acd_cache.lock);
	freed = acd_cache_turn(sc->nr_to_scan, 0, &dropped);
	spin_unlock(&acd_cache.lock);
	acd_cache_release(&dropped);
	return freed ?: SHRINK_STOP;
}

static struct acd_dir *acd_cache_find(const struct acd_key *key)
{
	struct acd_dir *dir;

	rcu_read_lock();
	dir = rhashtable_lookup(&acd_cache.table, key, acd_cache_params);
	if (dir && !refcount_inc_not_zero(&dir->count))
		dir = NULL;
	rcu_read_unlock();
	if (dir && !READ_ONCE(dir->used))
		WRITE_ONCE(dir->used, true);
	return dir;
}

/* Offer @dir to the cache; returns the one to use, which may be another's. */
static struct acd_dir *acd_cache_offer(struct acd_dir *dir)
{
	unsigned long limit = READ_ONCE(acd_cache_limit);
	struct acd_dir *other;
	LIST_HEAD(dropped);

	/* One huge directory is not worth all the others. */
	if (dir->bytes > limit / 8)
		return dir;

	spin_lock(&acd_cache.lock);
	other = rhashtable_lookup_get_insert_fast(&acd_cache.table, &dir->node,
						  acd_cache_params);
	if (!other) {
		refcount_inc(&dir->count);
		list_add_tail(&dir->age, &acd_cache.age);
		acd_cache.bytes += dir->bytes;
		acd_cache.count++;
		acd_cache_turn(ULONG_MAX, limit, &dropped);
	} else if (!IS_ERR(other)) {
		/* The lock keeps it in the cache, the cache keeps it alive. */
		refcount_inc(&other->count);
	}
	spin_unlock(&acd_cache.lock);

	acd_cache_release(&dropped);
	if (IS_ERR_OR_NULL(other))
		return dir;
	acd_dir_put(dir);
	return other;
}

static int acd_read_whole(struct file *file, void *buffer, size_t size)
{
	loff_t pos = 0;

	while (pos < size) {
		ssize_t got = kernel_read(file, buffer + pos, size - pos, &pos);

		if (got < 0)
			return got;
		if (got == 0)
			return -EIO;
	}
	return 0;
}

/* The Directory message, in memory of its own. */
static void *acd_read_message(struct super_block *sb, const u8 *hash,
			      u64 expected, size_t *size)
{
	struct acd_super *super = acd_super(sb);
	struct path path = { .mnt = super->cas.mnt };
	struct file *file;
	void *message;
	int err;

	path.dentry = acd_blob(sb, hash);
	if (IS_ERR(path.dentry))
		return ERR_CAST(path.dentry);
	file = kernel_file_open(&path, O_RDONLY | O_LARGEFILE | O_NOATIME,
				super->cred);
	dput(path.dentry);
	if (IS_ERR(file))
		return ERR_CAST(file);

	*size = i_size_read(file_inode(file));
	err = -EIO;
	message = NULL;
	if (*size > ACD_BLOB_MAX ||
	    (expected != ACD_SIZE_UNKNOWN && *size != expected)) {
		pr_err_ratelimited("actiondfs: directory %*phN has %zu bytes instead of %lld\n",
				   ACD_HASH_BYTES, hash, *size, expected);
		goto out;
	}
	err = -ENOMEM;
	message = kvmalloc(*size ?: 1, GFP_KERNEL_ACCOUNT);
	if (!message)
		goto out;
	err = acd_read_whole(file, message, *size);
out:
	fput(file);
	if (!err)
		return message;
	kvfree(message);
	return ERR_PTR(err);
}

static struct acd_dir *acd_dir_alloc(const struct acd_key *key, size_t size,
				     const struct acd_table *sizes)
{
	size_t bytes = offsetof(struct acd_dir, table) + acd_table_bytes(sizes);
	unsigned long alive = atomic_long_add_return(bytes, &acd_alive_bytes);
	bool shared = alive <= READ_ONCE(acd_cache_limit);
	struct acd_dir *dir;

	dir = kvmalloc(bytes, shared ? GFP_KERNEL : GFP_KERNEL_ACCOUNT);
	if (!dir) {
		atomic_long_sub(bytes, &acd_alive_bytes);
		return NULL;
	}
	memset(dir, 0, sizeof(*dir));
	refcount_set(&dir->count, 1);
	dir->blob_size = size;
	dir->bytes = bytes;
	dir->key = *key;
	INIT_LIST_HEAD(&dir->age);
	return dir;
}

static struct acd_dir *acd_parse_message(const struct acd_key *key,
					 const void *message, size_t size)
{
	struct acd_table sizes = {};
	struct acd_fault fault;
	struct acd_dir *dir;
	int err;

	err = acd_parse(message, size, NULL, &sizes, &fault);
	if (err) {
		pr_err_ratelimited("actiondfs: directory %*phN %s (byte %zu)\n",
				   ACD_HASH_BYTES, key->hash, fault.reason,
				   fault.offset);
		return ERR_PTR(err);
	}
	dir = acd_dir_alloc(key, size, &sizes);
	if (!dir)
		return ERR_PTR(-ENOMEM);
	err = acd_parse(message, size, &dir->table, &sizes, &fault);
	if (WARN_ON_ONCE(err)) {
		acd_dir_put(dir);
		return ERR_PTR(err);
	}
	return dir;
}

static struct acd_dir *acd_dir_read(struct super_block *sb,
				    const struct acd_key *key, u64 size)
{
	struct acd_dir *dir;
	size_t got = 0;
	void *message = NULL;

	/* No store need hold the empty blob. */
	if (size != 0) {
		message = acd_read_message(sb, key->hash, size, &got);
		if (IS_ERR(message))
			return ERR_CAST(message);
	}
	dir = acd_parse_message(key, message ?: "", got);
	kvfree(message);
	return dir;
}

/**
 * acd_dir_get - the parsed Directory of a digest
 * @sb: a mount
 * @hash: the digest's hash
 * @size: the digest's size, or ACD_SIZE_UNKNOWN
 *
 * Return: a reference; -EIO when the blob is missing or has another size,
 * -EINVAL when it is no valid Directory.
 */
struct acd_dir *acd_dir_get(struct super_block *sb, const u8 *hash, u64 size)
{
	struct acd_key key = { .cas = acd_super(sb)->id };
	struct acd_dir *dir;

	memcpy(key.hash, hash, sizeof(key.hash));
	dir = acd_cache_find(&key);
	if (dir) {
		if (size == ACD_SIZE_UNKNOWN || size == dir->blob_size) {
			acd_count(directories_hit);
			return dir;
		}
		acd_dir_put(dir);
		acd_count(directories_refused);
		return ERR_PTR(-EIO);
	}

	dir = acd_dir_read(sb, &key, size);
	if (IS_ERR(dir)) {
		acd_count(directories_refused);
		return dir;
	}
	acd_count(directories_read);
	return acd_cache_offer(dir);
}

int __init acd_dircache_init(void)
{
	struct shrinker *shrinker;
	int err;

	err = rhashtable_init(&acd_cache.table, &acd_cache_params);
	if (err)
		return err;
	shrinker = shrinker_alloc(0, "actiondfs-directories");
	if (!shrinker) {
		rhashtable_destroy(&acd_cache.table);
		return -ENOMEM;
	}
	shrinker->count_objects = acd_cache_count;
	shrinker->scan_objects = acd_cache_scan;
	shrinker_register(shrinker);
	return 0;
}
