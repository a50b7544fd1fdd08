// SPDX-License-Identifier: GPL-2.0-only
/*
 * The same random operations on actiondfs and on plain ext4 beside it: results
 * and errors must be the same at every step. First on the data of one file (as
 * fsx does), then on a tree of names.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <linux/falloc.h>

#include "harness.h"

#define FSX_BYTES	(256u << 10)
#define FSX_ROUNDS	4000

struct twin {
	int fd;
	int source;
};

static uint8_t payload[FSX_BYTES];

static long map_write(int fd, off_t at, size_t len)
{
	off_t page = at & ~4095l;
	struct stat st;
	uint8_t *map;

	if (fstat(fd, &st) || st.st_size < (off_t)(at + len))
		return 0;
	map = mmap(NULL, at + len - page, PROT_READ | PROT_WRITE, MAP_SHARED,
		   fd, page);
	if (map == MAP_FAILED)
		return -1;
	memcpy(map + (at - page), payload, len);
	return munmap(map, at + len - page);
}

static long send_to(const struct twin *twin, off_t at, size_t len)
{
	off_t from = any(FSX_BYTES);

	if (lseek(twin->fd, at, SEEK_SET) < 0)
		return -1;
	return sendfile(twin->fd, twin->source, &from, len);
}

static long copy_from(const struct twin *twin, off_t at, size_t len)
{
	loff_t from = any(FSX_BYTES), to = at;

	return copy_file_range(twin->source, &from, twin->fd, &to, len, 0);
}

static long one_change(const struct twin *twin, uint32_t what, off_t at,
		       size_t len)
{
	int fd = twin->fd;

	switch (what) {
	case 0:
	case 1:
		return pwrite(fd, payload, len, at);
	case 2:
		return ftruncate(fd, at);
	case 3:
		return fallocate(fd, 0, at, len + 1);
	case 4:
		return fallocate(fd, FALLOC_FL_PUNCH_HOLE |
				 FALLOC_FL_KEEP_SIZE, at, len + 1);
	case 5:
		return fallocate(fd, FALLOC_FL_ZERO_RANGE, at, len + 1);
	case 6:
		return map_write(fd, at, len);
	case 7:
		return send_to(twin, at, len);
	case 8:
		return copy_from(twin, at, len);
	case 9:
		return lseek(fd, at, SEEK_HOLE);
	case 10:
		return lseek(fd, at, SEEK_DATA);
	default:
		return fdatasync(fd);
	}
}

static bool same_data(int a, int b)
{
	static uint8_t one[2 * FSX_BYTES], two[2 * FSX_BYTES];
	ssize_t la = pread(a, one, sizeof(one), 0);
	ssize_t lb = pread(b, two, sizeof(two), 0);
	struct stat sa, sb;

	return la == lb && la >= 0 && !memcmp(one, two, la) &&
	       !fstat(a, &sa) && !fstat(b, &sb) && sa.st_size == sb.st_size &&
	       sa.st_size == la;
}

void test_fsx(void)
{
	struct twin ours, theirs;
	uint32_t seed = 4711, round;
	char source[256];

	mount_strict();
	become_action();
	ours.fd = works("our file", open("fsx", O_RDWR | O_CREAT, 0644));
	theirs.fd = works("their file", open(PLAIN "/fsx", O_RDWR | O_CREAT,
					     0644));
	/* The same bytes: as an input here, as a copy of it there. */
	ours.source = works("our source", open("big", O_RDONLY));
	snprintf(source, sizeof(source), PLAIN "/big");
	theirs.source = works("their source", open(source, O_RDWR | O_CREAT,
						   0644));
	while (sendfile(theirs.source, ours.source, NULL, BIG_BYTES) > 0)
		;
	holds("the sources are alike", lseek(theirs.source, 0, SEEK_END) ==
	      BIG_BYTES);

	for (round = 0; round < FSX_ROUNDS; round++) {
		uint32_t what, at, len, i;
		long a, b;

		any_seed(seed + round);
		what = any(12);
		at = any(FSX_BYTES);
		len = any(FSX_BYTES - at < 30000 ? FSX_BYTES - at : 30000);
		for (i = 0; i < len; i++)
			payload[i] = any(256);
		any_seed(seed + round);
		errno = 0;
		a = one_change(&ours, what, at, len) * 1000 - errno;
		any_seed(seed + round);
		errno = 0;
		b = one_change(&theirs, what, at, len) * 1000 - errno;
		if (a != b || !same_data(ours.fd, theirs.fd)) {
			verdict(false, "data is the same",
				"round %u, operation %u at %u+%u: %ld and %ld",
				round, what, at, len, a, b);
			return;
		}
	}
	holds("4000 changes of data", true);
}

/* --- Names -------------------------------------------------------------- */

#define NAMES_ROUNDS	6000

static void any_path(char *path, size_t room, const char *base)
{
	int depth = 1 + any(3), i;

	snprintf(path, room, "%s", base);
	for (i = 0; i < depth; i++) {
		size_t used = strlen(path);

		snprintf(path + used, room - used, "/n%u", any(5));
	}
}

/* Returns errno, or 0. */
static int one_operation(const char *base)
{
	char a[256], b[256];
	struct stat st;
	uint32_t what = any(14);
	int got, fd;

	any_path(a, sizeof(a), base);
	any_path(b, sizeof(b), base);
	errno = 0;
	switch (what) {
	case 0:
	case 1:
		fd = open(a, O_CREAT | O_WRONLY | O_NONBLOCK |
			     (any(2) ? O_EXCL : 0), 0644);
		got = fd < 0 ? -1 : close(fd);
		break;
	case 2:
	case 3:
		got = mkdir(a, 0755);
		break;
	case 4:
		got = unlink(a);
		break;
	case 5:
		got = rmdir(a);
		break;
	case 6:
	case 7:
		got = rename(a, b);
		break;
	case 8:
		got = renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
		break;
	case 9:
		got = link(a, b);
		break;
	case 10:
		got = symlink("n1", a);
		break;
	case 11:
		got = mkfifo(a, 0600);
		break;
	case 12:
		got = chmod(a, any(2) ? 0755 : 0711);
		break;
	default:
		got = lstat(a, &st);
		break;
	}
	return got < 0 ? errno : 0;
}

/* What a tree looks like, as a number; names, types, links, modes. */
static uint64_t digest_tree(const char *path)
{
	struct dirent **names = NULL;
	int count = scandir(path, &names, NULL, alphasort), i;
	uint64_t digest = 14695981039346656037ull;

	for (i = 0; i < count; i++) {
		const char *name = names[i]->d_name, *c;
		char below[512];
		struct stat st = {};

		if (name[0] != '.') {
			snprintf(below, sizeof(below), "%s/%s", path, name);
			lstat(below, &st);
			for (c = name; *c; c++)
				digest = (digest ^ *c) * 1099511628211ull;
			digest = (digest ^ st.st_mode) * 1099511628211ull;
			digest = (digest ^ st.st_nlink) * 1099511628211ull;
			if (S_ISDIR(st.st_mode))
				digest = (digest ^ digest_tree(below)) *
					 1099511628211ull;
		}
		free(names[i]);
	}
	free(names);
	return digest;
}

void test_namespace(void)
{
	uint32_t round;

	mount_strict();
	become_action();
	works("a directory here", mkdir("dir/ns", 0777));
	works("a directory there", mkdir(PLAIN "/ns", 0777));
	for (round = 0; round < NAMES_ROUNDS; round++) {
		int ours, theirs;

		any_seed(round + 1);
		ours = one_operation("dir/ns");
		any_seed(round + 1);
		theirs = one_operation(PLAIN "/ns");
		if (ours != theirs ||
		    (round % 50 == 0 && digest_tree("dir/ns") !=
		     digest_tree(PLAIN "/ns"))) {
			verdict(false, "names are the same",
				"round %u: %s and %s", round,
				ours ? strerrorname_np(ours) : "success",
				theirs ? strerrorname_np(theirs) : "success");
			return;
		}
	}
	holds("6000 operations on names", digest_tree("dir/ns") ==
	      digest_tree(PLAIN "/ns"));
	become_root();
	holds("the stage looks like it", digest_tree(STAGE "/dir/ns") ==
	      digest_tree(PLAIN "/ns"));
}
