// SPDX-License-Identifier: GPL-2.0-only
/* PID 1 of the test VM: runs the groups, judges the kernel's log, goes away. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/wait.h>

#include "harness.h"

static const char *group = "boot";
static int failures;

void verdict(bool ok, const char *what, const char *format, ...)
{
	char detail[512] = "";
	va_list args;

	if (!ok) {
		va_start(args, format);
		vsnprintf(detail, sizeof(detail), format, args);
		va_end(args);
		failures++;
	}
	printf("%s %s: %s%s%s\n", ok ? "PASS" : "FAIL", group, what,
	       ok ? "" : ": ", detail);
	fflush(stdout);
	errno = 0;
}

void give_up(const char *what)
{
	verdict(false, what, "%s; the rest of the group is skipped",
		strerrorname_np(errno) ?: "no errno");
	_exit(1);
}

/* What the kernel says when something is wrong with the kernel. */
static bool is_trouble(const char *line)
{
	static const char *const signs[] = {
		"WARNING:", "BUG:", "KASAN", "UBSAN", "Oops", "possible recursive",
		"possible circular", "inconsistent lock", "suspicious RCU",
		"sleeping function", "soft lockup", "blocked for more",
		"general protection", "refcount_t:", "kernel BUG", "list_add",
		"list_del", "EXT4-fs error",
	};
	size_t i;

	for (i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
		if (strstr(line, signs[i]))
			return true;
	return false;
}

/* Reads and clears: each group has its own log. */
static void judge_log(void)
{
	static char log[8 << 20];
	int len = klogctl(4, log, sizeof(log) - 1);
	char *line, *rest = log;
	bool clean = len >= 0;

	log[len > 0 ? len : 0] = 0;
	while ((line = strsep(&rest, "\n")))
		if (is_trouble(line)) {
			printf("LOG %s\n", line);
			clean = false;
		}
	verdict(clean, "the kernel's log is clean", "see LOG lines");
}

static void run(const char *name, void (*test)(void))
{
	int status;
	pid_t child = fork();

	group = name;
	if (child == 0) {
		failures = 0;
		scenery();
		test();
		become_root();
		close_range(3, ~0u, 0);
		if (chdir("/"))
			failures++;
		unmount_tree();
		_exit(failures ? 1 : 0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		verdict(false, "runs", "cannot fork");
		return;
	}
	if (WIFSIGNALED(status))
		verdict(false, "ends by itself", "signal %d", WTERMSIG(status));
	failures += status != 0;
	judge_log();
	group = "boot";
}

static void must_mount(const char *source, const char *target, const char *type,
		       unsigned long flags, const char *data)
{
	mkdir(target, 0755);
	if (mount(source, target, type, flags, data) && errno != EBUSY)
		verdict(false, target, "mount: %s", strerrorname_np(errno));
}

static void boot(void)
{
	puts("UP");
	mkdir("/mnt", 0755);
	must_mount("proc", "/proc", "proc", 0, NULL);
	must_mount("sys", "/sys", "sysfs", 0, NULL);
	must_mount("dev", "/dev", "devtmpfs", 0, NULL);
	must_mount("tmp", "/tmp", "tmpfs", 0, NULL);
	must_mount("/dev/vda", SCRATCH, "ext4", MS_NOSUID | MS_NODEV, NULL);
}

static void show_stats(void)
{
	char stats[8192] = "";
	ssize_t len = read_file("/proc/actiondfs_stats", stats,
				sizeof(stats) - 1);
	char *line, *rest = stats;

	if (len < 0)
		return;
	while ((line = strsep(&rest, "\n")) && *line)
		printf("STATS %s\n", line);
}

static bool wanted(const char *word)
{
	char line[1024] = "";

	read_file("/proc/cmdline", line, sizeof(line) - 1);
	return strstr(line, word);
}

/* Becomes the program of a line, which is cut into words. */
static void become(char *line)
{
	char *words[32] = {}, *word;
	size_t count = 0;

	while ((word = strsep(&line, " ")) && count < 31)
		if (*word)
			words[count++] = word;
	setenv("TMPDIR", SCRATCH, 1);
	setenv("RUST_BACKTRACE", "1", 1);
	chmod(words[0], 0755);
	execv(words[0], words);
	_exit(127);
}

/* Programs of others, a line each in a file; see xtask's contract.rs. */
static void run_programs(void)
{
	char text[4096] = "", *line, *rest = text;

	read_file("/programs", text, sizeof(text) - 1);
	while ((line = strsep(&rest, "\n")) && *line) {
		int status = -1;
		pid_t child = fork();

		group = "programs";
		if (child == 0)
			become(line);
		waitpid(child, &status, 0);
		verdict(status == 0, line, "wait status %#x", status);
		judge_log();
	}
	group = "boot";
}

int main(int argc, char **argv)
{
	/* As an input of the tree under test: see test_reading(). */
	if (argc > 1 && !strcmp(argv[1], "--hello"))
		return 42;
	if (argc > 2 && !strcmp(argv[1], "--lay-out"))
		return lay_out(argv[2]);

	boot();
	if (wanted("actiondfs.measure")) {
		run("measure", measure);
	} else if (wanted("actiondfs.programs")) {
		run_programs();
	} else {
		run("reading", test_reading);
		run("refusals", test_refusals);
		run("staging", test_staging);
		run("names", test_names);
		run("special", test_special);
		run("permissions", test_permissions);
		run("listing", test_listing);
		run("hostile", test_hostile);
		run("options", test_options);
		run("overlay", test_overlay);
		run("fsx", test_fsx);
		run("namespace", test_namespace);
		run("pressure", test_pressure);
	}
	if (umount(SCRATCH))
		verdict(false, "the disk can be unmounted in the end", "%s",
			strerrorname_np(errno));
	show_stats();
	printf("DONE %d\n", failures);
	fflush(stdout);
	sync();
	/* No ACPI in a microvm: a reboot is what ends it. */
	reboot(RB_AUTOBOOT);
	return 0;
}
