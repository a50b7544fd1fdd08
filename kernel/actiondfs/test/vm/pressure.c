// SPDX-License-Identifier: GPL-2.0-only
/*
 * Many processes in one mount and mounts that come and go, while caches are
 * tiny and memory is taken away. What counts is that every read is right and
 * that the kernel's log stays clean.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "harness.h"

#define PROCESSES	6
#define ROUNDS		300
#define DIRECTORIES	40
#define FILES		25

static struct blob wide_tree(void)
{
	struct message root = {};
	char name[32], content[32];
	int d, f;

	for (d = 0; d < DIRECTORIES; d++) {
		struct message m = {};
		struct blob blob;

		for (f = 0; f < FILES; f++) {
			snprintf(name, sizeof(name), "f%02d", f);
			snprintf(content, sizeof(content), "%d/%d", d, f);
			blob = put_blob(content, strlen(content));
			put_file(&m, name, blob.hex, blob.size, false);
		}
		blob = put_directory_blob(&m);
		snprintf(name, sizeof(name), "d%02d", d);
		put_directory(&root, name, blob.hex, blob.size);
	}
	return put_directory_blob(&root);
}

static bool read_one(const char *base)
{
	char path[256], expected[32];
	int d = any(DIRECTORIES), f = any(FILES);

	snprintf(path, sizeof(path), "%s/d%02d/f%02d", base, d, f);
	snprintf(expected, sizeof(expected), "%d/%d", d, f);
	return file_is(path, expected);
}

/* Names collide between the processes on purpose: errors are fine here. */
static void change_one(void)
{
	char a[64], b[64];
	int fd;

	snprintf(a, sizeof(a), "d%02d/s%u", any(DIRECTORIES), any(4));
	snprintf(b, sizeof(b), "d%02d/s%u", any(DIRECTORIES), any(4));
	switch (any(8)) {
	case 0:
	case 1:
		write_file(a, "staged", 6);
		break;
	case 2:
		rename(a, b);
		break;
	case 3:
		link(a, b);
		break;
	case 4:
		unlink(a);
		break;
	case 5:
		mkdir(a, 0777);
		break;
	case 6:
		rmdir(a);
		break;
	default:
		fd = open(a, O_RDWR);
		if (fd >= 0) {
			ftruncate(fd, any(9000));
			close(fd);
		}
		break;
	}
}

static void work(int seed)
{
	int round, wrong = 0;

	any_seed(seed);
	become_action();
	for (round = 0; round < ROUNDS; round++) {
		wrong += !read_one(".");
		change_one();
		if (round % 10 == 0) {
			DIR *dir = opendir(".");

			while (dir && readdir(dir))
				;
			if (dir)
				closedir(dir);
		}
	}
	_exit(wrong != 0);
}

/* Mounts of the same CAS that come and go, each in a namespace of its own. */
static void come_and_go(struct blob root)
{
	char options[512];
	int round, wrong = 0;

	any_seed(99);
	snprintf(options, sizeof(options), "root=%s,root_size=%llu,cas=" CAS,
		 root.hex, (unsigned long long)root.size);
	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		_exit(1);
	for (round = 0; round < ROUNDS / 3; round++) {
		if (mount("x", "/tmp", "actiondfs", MS_RDONLY, options))
			_exit(2);
		wrong += !read_one("/tmp");
		if (umount("/tmp"))
			_exit(3);
	}
	_exit(wrong != 0);
}

static void take_memory(void)
{
	for (;;) {
		/* Dentries and inodes (2), without a line in the log (4). */
		write_file("/proc/sys/vm/drop_caches", "6", 1);
		usleep(20000);
	}
}

static void set_limit(const char *name, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/module/actiondfs/parameters/%s",
		 name);
	fd = open(path, O_WRONLY);
	holds(name, fd >= 0 && write(fd, value, strlen(value)) > 0);
	close(fd);
}

void test_pressure(void)
{
	struct blob root = wide_tree();
	pid_t children[PROCESSES + 2], killer;
	int i, status;

	set_limit("directory_cache_bytes", "40000");
	set_limit("blob_cache_entries", "50");
	if (mount_tree(root, STAGE, NULL) || chdir(TREE))
		give_up("mounts a wide tree");

	killer = fork();
	if (killer == 0)
		take_memory();
	for (i = 0; i < PROCESSES; i++) {
		children[i] = fork();
		if (children[i] == 0)
			work(i + 1);
	}
	for (; i < PROCESSES + 2; i++) {
		children[i] = fork();
		if (children[i] == 0)
			come_and_go(root);
	}
	for (i = 0; i < PROCESSES + 2; i++) {
		waitpid(children[i], &status, 0);
		holds("all reads were right", status == 0);
	}
	kill(killer, 9);
	waitpid(killer, &status, 0);

	set_limit("directory_cache_bytes", "67108864");
	set_limit("blob_cache_entries", "16384");
}
