// SPDX-License-Identifier: GPL-2.0-only
/* /proc/actiondfs_stats: the counters of stats.h, summed over the CPUs. */
#include <linux/init.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "actiondfs.h"

DEFINE_PER_CPU(struct acd_counters, acd_counters);

static void acd_add(struct acd_counters *sum, const struct acd_counters *one)
{
#define X(name) sum->name += READ_ONCE(one->name);
	ACD_COUNTERS(X)
#undef X
}

static int acd_stats_show(struct seq_file *m, void *v)
{
	struct acd_counters sum = {};
	int cpu;

	for_each_possible_cpu(cpu)
		acd_add(&sum, per_cpu_ptr(&acd_counters, cpu));
#define X(name) seq_printf(m, "%s %llu\n", #name, sum.name);
	ACD_COUNTERS(X)
#undef X
	return 0;
}

static int __init acd_stats_init(void)
{
	if (!proc_create_single("actiondfs_stats", 0444, NULL, acd_stats_show))
		return -ENOMEM;
	return 0;
}
fs_initcall(acd_stats_init);
