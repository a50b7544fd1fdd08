/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters: one line of /proc/actiondfs_stats each, `name value`. Summed over
 * all CPUs and mounts since boot. Without CONFIG_ACTIONDFS_STATS all of this
 * compiles to nothing.
 */
#ifndef ACTIONDFS_STATS_H
#define ACTIONDFS_STATS_H

#define ACD_COUNTERS(X)							\
	X(mounts)		/* super blocks made */			\
	X(lookups)		/* names looked up */			\
	X(lookups_negative)	/* ... that do not exist */		\
	X(lookups_staged)	/* ... that had to ask the stage */	\
	X(directories_hit)	/* parsed directories found */		\
	X(directories_read)	/* ... read from the CAS and parsed */	\
	X(directories_refused)	/* ... missing or malformed */		\
	X(directories_evicted)	/* ... dropped for room */		\
	X(blobs_hit)		/* blob dentries found */		\
	X(blobs_walked)		/* ... looked up by path */		\
	X(blobs_missing)	/* ... that are not in the CAS */	\
	X(blobs_evicted)	/* ... dropped for room */		\
	X(blobs_stale)		/* ... dropped because deleted */	\
	X(opens_input)		/* input files opened */		\
	X(opens_staged)		/* staged files opened */		\
	X(reads)		/* read calls */			\
	X(read_bytes)		/* bytes read */			\
	X(splice_reads)		/* splice and sendfile calls */		\
	X(mmaps)		/* mappings made */			\
	X(writes)		/* write calls */			\
	X(write_bytes)		/* bytes written */			\
	X(splice_writes)	/* splice and sendfile into a file */	\
	X(copies)		/* copy_file_range calls */		\
	X(copy_bytes)		/* bytes they moved */			\
	X(readdirs)		/* getdents calls */			\
	X(stage_directories)	/* counterparts made */			\
	X(stage_creates)	/* files, directories, nodes made */	\
	X(stage_links)		/* hard links made */			\
	X(stage_renames)	/* renames */				\
	X(stage_removes)	/* unlinks and rmdirs */		\
	X(refused_changes)	/* changes of inputs refused */

#ifdef CONFIG_ACTIONDFS_STATS
#include <linux/percpu.h>

struct acd_counters {
#define X(name) u64 name;
	ACD_COUNTERS(X)
#undef X
};

DECLARE_PER_CPU(struct acd_counters, acd_counters);
#define acd_count_by(name, value)	this_cpu_add(acd_counters.name, value)
#else
#define acd_count_by(name, value)	((void)(value))
#endif

#define acd_count(name)			acd_count_by(name, 1)

#endif /* ACTIONDFS_STATS_H */
