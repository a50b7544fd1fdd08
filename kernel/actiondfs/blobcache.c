// SPDX-License-Identifier: GPL-2.0-only
/*
 * From a digest to the dentry of its blob, without walking a path.
 *
 * One cache for all mounts of a CAS; it lives while at least one of them does,
 * because the dentries in it need the file system to stay. (Whoever wants it
 * to stay warm between actions keeps one mount open.)
 *
 * An entry pins a dentry, and with it an inode: a blob that the store deletes
 * would keep its disk space. So a sweep, once a second while there are
 * entries, drops those whose dentry was unhashed by a deletion.
 *
 * Same clock as in dircache.c.
 */
#include <linux/dcache.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/namei.h>
#include <linux/rhashtable.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "actiondfs.h"

/* Enough for the inputs of some hundred actions; 3 MiB with the dentries. */
static unsigned int acd_blobs_limit = 16384;
module_param_named(blob_cache_entries, acd_blobs_limit, uint, 0644);
MODULE_PARM_DESC(blob_cache_entries, "blobs whose dentries are kept at hand");

#define ACD_SWEEP_INTERVAL	HZ
/* Entries looked at in one go, under a spinlock: some 50 microseconds. */
#define ACD_SWEEP_BATCH		2048

/**
 * struct acd_blobs - the cache of one CAS
 * @link: in acd_all_blobs
 * @mounts: how many mounts share it, under acd_all_blobs_lock
 * @cas: the CAS's directory, only to compare with
 * @table: the entries by hash
 * @lock: @age, @count, and changes of @table
 * @age: the clock list
 * @count: number of entries
 * @shrinker: for memory pressure
 * @sweep: for deleted blobs
 */
struct acd_blobs {
	struct list_head link;
	unsigned int mounts;
	struct dentry *cas;
	struct rhashtable table;
	spinlock_t lock;
	struct list_head age;
	unsigned int count;
	struct shrinker *shrinker;
	struct delayed_work sweep;
};

struct acd_blob_entry {
	u8 hash[ACD_HASH_BYTES];
	struct dentry *dentry;
	bool used;
	struct rhash_head node;
	struct list_head age;
	struct rcu_head rcu;
};

static DEFINE_MUTEX(acd_all_blobs_lock);
static LIST_HEAD(acd_all_blobs);

static const struct rhashtable_params acd_blobs_params = {
	.key_len = ACD_HASH_BYTES,
	.key_offset = offsetof(struct acd_blob_entry, hash),
	.head_offset = offsetof(struct acd_blob_entry, node),
	.automatic_shrinking = true,
};

static void acd_blob_drop(struct acd_blobs *blobs, struct acd_blob_entry *entry,
			  struct list_head *dropped)
{
	lockdep_assert_held(&blobs->lock);
	rhashtable_remove_fast(&blobs->table, &entry->node, acd_blobs_params);
	list_move(&entry->age, dropped);
	blobs->count--;
}

static void acd_blobs_release(struct list_head *dropped)
{
	struct acd_blob_entry *entry, *next;

	list_for_each_entry_safe(entry, next, dropped, age) {
		list_del(&entry->age);
		acd_count(blobs_evicted);
		/*
		 * A reader under RCU may still try to take a reference: dentries
		 * are freed by RCU, and it takes none from a dead one.
		 */
		dput(entry->dentry);
		kfree_rcu(entry, rcu);
	}
}

static unsigned long acd_blobs_turn(struct acd_blobs *blobs, unsigned long want,
				    unsigned int limit,
				    struct list_head *dropped)
{
	unsigned long looks = 2 * min_t(unsigned long, want, blobs->count);
	unsigned long freed = 0;

	while (looks-- && freed < want && blobs->count > limit) {
		struct acd_blob_entry *entry = list_first_entry(
			&blobs->age, struct acd_blob_entry, age);

		if (READ_ONCE(entry->used)) {
			WRITE_ONCE(entry->used, false);
			list_move_tail(&entry->age, &blobs->age);
			continue;
		}
		acd_blob_drop(blobs, entry, dropped);
		freed++;
	}
	return freed;
}

static unsigned long acd_blobs_count(struct shrinker *shrinker,
				     struct shrink_control *sc)
{
	struct acd_blobs *blobs = shrinker->private_data;

	return READ_ONCE(blobs->count) ?: SHRINK_EMPTY;
}

static unsigned long acd_blobs_scan(struct shrinker *shrinker,
				    struct shrink_control *sc)
{
	struct acd_blobs *blobs = shrinker->private_data;
	LIST_HEAD(dropped);
	unsigned long freed;

	/* The last reference to a deleted blob truncates it. */
	if (!(sc->gfp_mask & __GFP_FS))
		return SHRINK_STOP;
	spin_lock(&blobs->lock);
	freed = acd_blobs_turn(blobs, sc->nr_to_scan, 0, &dropped);
	spin_unlock(&blobs->lock);
	acd_blobs_release(&dropped);
	return freed ?: SHRINK_STOP;
}

/* The clock list serves as a ring: what was looked at goes to its end. */
static void acd_blobs_sweep(struct work_struct *work)
{
	struct acd_blobs *blobs =
		container_of(to_delayed_work(work), struct acd_blobs, sweep);
	unsigned int looks;
	LIST_HEAD(dropped);

	spin_lock(&blobs->lock);
	looks = min_t(unsigned int, blobs->count, ACD_SWEEP_BATCH);
	while (looks--) {
		struct acd_blob_entry *entry = list_first_entry(
			&blobs->age, struct acd_blob_entry, age);

		if (d_unhashed(entry->dentry)) {
			acd_count(blobs_stale);
			acd_blob_drop(blobs, entry, &dropped);
		} else {
			list_move_tail(&entry->age, &blobs->age);
		}
	}
	if (blobs->count)
		schedule_delayed_work(&blobs->sweep, ACD_SWEEP_INTERVAL);
	spin_unlock(&blobs->lock);
	acd_blobs_release(&dropped);
}

static struct dentry *acd_blobs_find(struct acd_blobs *blobs, const u8 *hash)
{
	struct acd_blob_entry *entry;
	struct dentry *dentry = NULL;

	rcu_read_lock();
	entry = rhashtable_lookup(&blobs->table, hash, acd_blobs_params);
	if (entry && lockref_get_not_dead(&entry->dentry->d_lockref)) {
		dentry = entry->dentry;
		if (!READ_ONCE(entry->used))
			WRITE_ONCE(entry->used, true);
	}
	rcu_read_unlock();

	/* Deleted meanwhile; perhaps uploaded again under the same name. */
	if (dentry && d_unhashed(dentry)) {
		dput(dentry);
		return NULL;
	}
	return dentry;
}

static void acd_blobs_add(struct acd_blobs *blobs, const u8 *hash,
			  struct dentry *dentry)
{
	struct acd_blob_entry *entry, *other;
	LIST_HEAD(dropped);

	entry = kmalloc(sizeof(*entry), GFP_KERNEL);
	if (!entry)
		return;
	memcpy(entry->hash, hash, sizeof(entry->hash));
	entry->dentry = dget(dentry);
	entry->used = false;

	spin_lock(&blobs->lock);
	other = rhashtable_lookup_fast(&blobs->table, hash, acd_blobs_params);
	if (other)
		acd_blob_drop(blobs, other, &dropped);
	if (rhashtable_insert_fast(&blobs->table, &entry->node,
				   acd_blobs_params)) {
		list_add(&entry->age, &dropped);
	} else {
		list_add_tail(&entry->age, &blobs->age);
		if (!blobs->count++)
			schedule_delayed_work(&blobs->sweep,
					      ACD_SWEEP_INTERVAL);
		acd_blobs_turn(blobs, ULONG_MAX, READ_ONCE(acd_blobs_limit),
			       &dropped);
	}
	spin_unlock(&blobs->lock);
	acd_blobs_release(&dropped);
}

static struct dentry *acd_blob_walk(struct acd_super *super, const u8 *hash)
{
	/* <2 hex>/<64 hex> */
	char name[3 + ACD_HASH_HEX + 1];
	const struct cred *old_cred;
	struct path path;
	int err;

	snprintf(name, sizeof(name), "%02x/%*phN", hash[0], ACD_HASH_BYTES,
		 hash);
	old_cred = override_creds(super->cred);
	err = vfs_path_lookup(super->cas.dentry, super->cas.mnt, name,
			      LOOKUP_NO_SYMLINKS | LOOKUP_NO_XDEV, &path);
	revert_creds(old_cred);
	if (!err && !d_is_reg(path.dentry)) {
		path_put(&path);
		err = -EISDIR;
	}
	if (err) {
		acd_count(blobs_missing);
		pr_err_ratelimited("actiondfs: no blob %*phN in the CAS (error %d)\n",
				   ACD_HASH_BYTES, hash, err);
		return ERR_PTR(-EIO);
	}
	mntput(path.mnt);
	return path.dentry;
}

/**
 * acd_blob - the dentry of a blob
 * @sb: a mount
 * @hash: the blob's hash
 *
 * Return: a reference to the dentry of a regular file, or -EIO.
 */
struct dentry *acd_blob(struct super_block *sb, const u8 *hash)
{
	struct acd_super *super = acd_super(sb);
	struct dentry *dentry = acd_blobs_find(super->blobs, hash);

	if (dentry) {
		acd_count(blobs_hit);
		return dentry;
	}
	dentry = acd_blob_walk(super, hash);
	if (IS_ERR(dentry))
		return dentry;
	acd_count(blobs_walked);
	acd_blobs_add(super->blobs, hash, dentry);
	return dentry;
}

static struct acd_blobs *acd_blobs_new(struct dentry *cas)
{
	struct acd_blobs *blobs = kzalloc(sizeof(*blobs), GFP_KERNEL);

	if (!blobs)
		return NULL;
	blobs->cas = cas;
	blobs->mounts = 1;
	spin_lock_init(&blobs->lock);
	INIT_LIST_HEAD(&blobs->age);
	INIT_DEFERRABLE_WORK(&blobs->sweep, acd_blobs_sweep);
	if (rhashtable_init(&blobs->table, &acd_blobs_params))
		goto free;
	blobs->shrinker = shrinker_alloc(0, "actiondfs-blobs");
	if (!blobs->shrinker)
		goto destroy;
	blobs->shrinker->count_objects = acd_blobs_count;
	blobs->shrinker->scan_objects = acd_blobs_scan;
	blobs->shrinker->private_data = blobs;
	shrinker_register(blobs->shrinker);
	return blobs;

destroy:
	rhashtable_destroy(&blobs->table);
free:
	kfree(blobs);
	return NULL;
}

static void acd_blobs_free(struct acd_blobs *blobs)
{
	LIST_HEAD(dropped);

	shrinker_free(blobs->shrinker);
	cancel_delayed_work_sync(&blobs->sweep);
	spin_lock(&blobs->lock);
	while (!list_empty(&blobs->age))
		acd_blob_drop(blobs, list_first_entry(&blobs->age,
						      struct acd_blob_entry,
						      age), &dropped);
	spin_unlock(&blobs->lock);
	acd_blobs_release(&dropped);
	rhashtable_destroy(&blobs->table);
	kfree(blobs);
}

/**
 * acd_blobs_get - join the cache of a CAS
 * @cas: the CAS's directory; the caller holds it as long as the cache
 *
 * Return: the cache, or NULL when there is no memory.
 */
struct acd_blobs *acd_blobs_get(struct dentry *cas)
{
	struct acd_blobs *blobs;

	mutex_lock(&acd_all_blobs_lock);
	list_for_each_entry(blobs, &acd_all_blobs, link) {
		if (blobs->cas == cas) {
			blobs->mounts++;
			goto out;
		}
	}
	blobs = acd_blobs_new(cas);
	if (blobs)
		list_add(&blobs->link, &acd_all_blobs);
out:
	mutex_unlock(&acd_all_blobs_lock);
	return blobs;
}

/**
 * acd_blobs_put - leave the cache of a CAS
 * @blobs: the cache; the last one to leave frees it
 */
void acd_blobs_put(struct acd_blobs *blobs)
{
	bool last;

	mutex_lock(&acd_all_blobs_lock);
	last = --blobs->mounts == 0;
	if (last)
		list_del(&blobs->link);
	mutex_unlock(&acd_all_blobs_lock);
	if (last)
		acd_blobs_free(blobs);
}
