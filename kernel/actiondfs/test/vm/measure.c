// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an input root costs (`actiondfs.measure` on the command line): mount,
 * first and later look at every file, open and read, new files, unmount. The
 * same for EROFS with a data-only overlay on top, whose image the host makes of
 * what lay_out() writes and puts into the initramfs.
 */
#define _GNU_SOURCE
#include <sys/mount.h>
#include <sys/xattr.h>
#include <time.h>

#include "harness.h"

#define DIRECTORIES	50
#define FILES		20
#define OUTPUTS		4
#define ROUNDS		20

static double now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void tell(const char *who, const char *what, double *samples, int count,
		 double each)
{
	qsort(samples, count, sizeof(*samples), compare);
	printf("MEASURE %-16s %-20s %10.2f us\n", who, what,
	       samples[count / 2] / each);
}

static void stat_all(const char *base)
{
	char path[256];
	struct stat st;
	int d, f;

	for (d = 0; d < DIRECTORIES; d++)
		for (f = 0; f < FILES; f++) {
			snprintf(path, sizeof(path), "%s/d%02d/f%02d", base, d,
				 f);
			stat(path, &st);
		}
}

static void read_all(const char *base)
{
	char path[256], byte[4096];
	int d, f;

	for (d = 0; d < DIRECTORIES; d++)
		for (f = 0; f < FILES; f++) {
			snprintf(path, sizeof(path), "%s/d%02d/f%02d", base, d,
				 f);
			read_file(path, byte, sizeof(byte));
		}
}

static void write_all(const char *base)
{
	char path[256];
	int d;

	for (d = 0; d < DIRECTORIES; d++) {
		snprintf(path, sizeof(path), "%s/d%02d/out", base, d);
		write_file(path, "output", 6);
	}
}

static void write_more(const char *base)
{
	char path[256];
	int d, f;

	for (d = 0; d < DIRECTORIES; d++)
		for (f = 0; f < OUTPUTS; f++) {
			snprintf(path, sizeof(path), "%s/d%02d/out%02d", base,
				 d, f);
			write_file(path, "output", 6);
		}
}

typedef void (*act)(const char *base);

static double timed(act what, const char *base)
{
	double start = now_us();

	what(base);
	return now_us() - start;
}

struct samples {
	double mount[ROUNDS], cold[ROUNDS], warm[ROUNDS], read[ROUNDS],
	       again[ROUNDS], write[ROUNDS], more[ROUNDS], unmount[ROUNDS];
};

static void tell_all(const char *who, struct samples *s)
{
	const double files = DIRECTORIES * FILES;

	tell(who, "mount", s->mount, ROUNDS, 1);
	tell(who, "first stat, a file", s->cold, ROUNDS, files);
	tell(who, "later stat, a file", s->warm, ROUNDS, files);
	tell(who, "first read, a file", s->read, ROUNDS, files);
	tell(who, "later read, a file", s->again, ROUNDS, files);
	tell(who, "first new file", s->write, ROUNDS, DIRECTORIES);
	tell(who, "later new file", s->more, ROUNDS,
	     DIRECTORIES * OUTPUTS);
	tell(who, "unmount", s->unmount, ROUNDS, 1);
}

static void measure_one(struct samples *s, int round)
{
	s->cold[round] = timed(stat_all, TREE);
	s->warm[round] = timed(stat_all, TREE);
	s->read[round] = timed(read_all, TREE);
	s->again[round] = timed(read_all, TREE);
	s->write[round] = timed(write_all, TREE);
	s->more[round] = timed(write_more, TREE);
}

static int file_content(char *out, size_t room, int d, int f)
{
	return snprintf(out, room, "file %d of %d", f, d);
}

static struct blob make_tree(void)
{
	struct message root = {};
	char name[32], content[64];
	int d, f, len;

	for (d = 0; d < DIRECTORIES; d++) {
		struct message m = {};
		struct blob blob;

		for (f = 0; f < FILES; f++) {
			snprintf(name, sizeof(name), "f%02d", f);
			len = file_content(content, sizeof(content), d, f);
			blob = put_blob(content, len);
			put_file(&m, name, blob.hex, blob.size, false);
		}
		blob = put_directory_blob(&m);
		snprintf(name, sizeof(name), "d%02d", d);
		put_directory(&root, name, blob.hex, blob.size);
	}
	return put_directory_blob(&root);
}

/* A file without data that sends overlayfs to the blob of the same serial. */
static int lay_out_file(const char *path, int len)
{
	struct blob blob = name_blob(len);
	char redirect[80];

	snprintf(redirect, sizeof(redirect), "/%.2s/%s", blob.hex, blob.hex);
	return write_file(path, "", 0) || truncate(path, len) ||
	       setxattr(path, "trusted.overlay.metacopy", "", 0, 0) ||
	       setxattr(path, "trusted.overlay.redirect", redirect,
			strlen(redirect), 0);
}

int lay_out(const char *directory)
{
	char path[512], content[64];
	int d, f;

	for (d = 0; d < DIRECTORIES; d++) {
		snprintf(path, sizeof(path), "%s/d%02d", directory, d);
		if (mkdir(path, 0777) || chmod(path, 01777))
			return 1;
		for (f = 0; f < FILES; f++) {
			snprintf(path, sizeof(path), "%s/d%02d/f%02d",
				 directory, d, f);
			if (lay_out_file(path, file_content(content,
							    sizeof(content), d,
							    f)))
				return 1;
		}
		/* make_tree() gives the directory's blob a name of its own. */
		name_blob(0);
	}
	return 0;
}

static void measure_actiondfs(struct blob root, const char *who)
{
	static struct samples s;
	char stage[64];
	int round;

	for (round = 0; round < ROUNDS; round++) {
		double start;

		snprintf(stage, sizeof(stage), STAGE "/%zu.%d", strlen(who), round);
		mkdir(stage, 0777);
		chmod(stage, 0777);
		start = now_us();
		if (mount_tree(root, stage, NULL))
			give_up("mounts");
		s.mount[round] = now_us() - start;
		measure_one(&s, round);
		start = now_us();
		umount(TREE);
		s.unmount[round] = now_us() - start;
	}
	tell_all(who, &s);
}

static bool overlay(const char *who, int round)
{
	char options[512], upper[64], work[64];

	snprintf(upper, sizeof(upper), STAGE "/%zu.%du", strlen(who), round);
	snprintf(work, sizeof(work), STAGE "/%zu.%dw", strlen(who), round);
	mkdir(upper, 0777);
	mkdir(work, 0777);
	snprintf(options, sizeof(options),
		 "lowerdir=/mnt/lower::" CAS ",metacopy=on,upperdir=%s,workdir=%s,volatile",
		 upper, work);
	return !mount("overlay", TREE, "overlay", 0, options);
}

/* To the disk: EROFS takes no image that lies in memory. */
static bool copy_image(void)
{
	static char bytes[4 << 20];
	ssize_t len = read_file("/tree.erofs", bytes, sizeof(bytes));

	return len > 0 && !write_file(SCRATCH "/tree.erofs", bytes, len);
}

static bool mount_image(void)
{
	return !mount(SCRATCH "/tree.erofs", "/mnt/lower", "erofs", MS_RDONLY,
		      NULL);
}

/* @kept: the image stays mounted from one overlay to the next. */
static void measure_erofs(const char *who, bool kept)
{
	static struct samples s;
	int round;

	if (kept && !mount_image())
		give_up("mounts the EROFS image");
	for (round = 0; round < ROUNDS; round++) {
		double start = now_us();

		if ((!kept && !mount_image()) || !overlay(who, round))
			give_up("puts an overlay on an EROFS");
		s.mount[round] = now_us() - start;
		measure_one(&s, round);
		start = now_us();
		umount(TREE);
		if (!kept)
			umount("/mnt/lower");
		s.unmount[round] = now_us() - start;
	}
	if (kept)
		umount("/mnt/lower");
	tell_all(who, &s);
}

void measure(void)
{
	struct blob root = make_tree();

	measure_actiondfs(root, "actiondfs");
	/* One mount stays, as the guest does it: that keeps the caches warm. */
	if (mount_tree(root, NULL, NULL) || mount(TREE, "/tmp", NULL, MS_MOVE,
						  NULL))
		give_up("keeps a mount");
	measure_actiondfs(root, "actiondfs, kept");
	umount("/tmp");
	mkdir("/mnt/lower", 0755);
	if (!copy_image())
		give_up("finds the EROFS image");
	measure_erofs("erofs", false);
	measure_erofs("erofs, kept", true);
}
