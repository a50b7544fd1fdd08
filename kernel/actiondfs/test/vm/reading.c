// SPDX-License-Identifier: GPL-2.0-only
/* Inputs as the action sees them, and what it must not be able to do to them. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "harness.h"

static void attributes(void)
{
	struct stat st, again;
	struct statfs fs;
	char target[64] = "";

	works("stat of a file", stat("hello", &st));
	holds("a file has its size", st.st_size == (off_t)strlen(HELLO));
	holds("a file is 0444 root", st.st_mode == (S_IFREG | 0444) &&
	      st.st_uid == 0 && st.st_gid == 0);
	holds("a file has one link", st.st_nlink == 1);
	holds("times are constant", st.st_mtime == 946684800);
	works("stat of an executable", stat("init", &st));
	holds("an executable is 0555", st.st_mode == (S_IFREG | 0555));
	works("stat of a directory", stat("dir", &st));
	holds("a directory is 0777", st.st_mode == (S_IFDIR | 0777));
	works("lstat of a link", lstat("link", &st));
	holds("a link is a link", S_ISLNK(st.st_mode) && st.st_size == 15);
	holds("readlink", readlink("link", target, sizeof(target)) == 15 &&
	      !strcmp(target, "dir/nested/deep"));
	holds("a link is followed", file_is("link", "deep\n"));
	fails("no such name", stat("nothing", &st), ENOENT);
	fails("no such name below", stat("dir/nothing", &st), ENOENT);
	fails("a file is no directory", stat("hello/x", &st), ENOTDIR);

	works("stat once", stat("dir/nested/deep", &st));
	become_root();
	write_file("/proc/sys/vm/drop_caches", "7", 1);
	become_action();
	works("stat again", stat("dir/nested/deep", &again));
	holds("inode numbers are stable", st.st_ino == again.st_ino);
	holds("inode numbers have 48 bits", st.st_ino >> 48 == 0);
	works("statfs", statfs(".", &fs));
	holds("statfs tells the type", (uint32_t)fs.f_type == 0x41444653);
	holds("statfs tells the room", fs.f_blocks > 0 && fs.f_bavail > 0);
}

static void data(void)
{
	static uint8_t bytes[BIG_BYTES];
	uint8_t *map;
	void *direct = NULL;
	size_t i, wrong = 0;
	int fd;

	holds("a file reads", file_is("hello", HELLO));
	holds("a nested file reads", file_is("dir/nested/deep", "deep\n"));
	holds("an empty file reads", file_is("empty", ""));
	holds("a big file reads",
	      read_file("big", bytes, sizeof(bytes)) == BIG_BYTES);
	for (i = 0; i < BIG_BYTES; i++)
		wrong += bytes[i] != i % 251;
	holds("a big file is right", wrong == 0);

	fd = works("opens big", open("big", O_RDONLY));
	holds("pread", pread(fd, bytes, 2, 1000) == 2 && bytes[0] == 247);
	holds("SEEK_DATA", lseek(fd, 10, SEEK_DATA) == 10);
	holds("SEEK_HOLE", lseek(fd, 10, SEEK_HOLE) == BIG_BYTES);
	fails("SEEK_DATA beyond", lseek(fd, BIG_BYTES, SEEK_DATA), ENXIO);
	holds("SEEK_END", lseek(fd, 0, SEEK_END) == BIG_BYTES);
	works("fadvise", posix_fadvise(fd, 0, 0, POSIX_FADV_WILLNEED) ? -1 : 0);
	works("readahead", readahead(fd, 0, 4096));
	works("fsync of an input", fsync(fd));
	map = mmap(NULL, BIG_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	holds("mmap", map != MAP_FAILED && map[300] == 300 % 251);
	fails("a shared mapping cannot be made writable",
	      mprotect(map, 4096, PROT_READ | PROT_WRITE), EACCES);
	munmap(map, BIG_BYTES);
	map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	holds("a private mapping is writable", map != MAP_FAILED &&
	      (map[0] = 9) == 9);
	munmap(map, 4096);
	close(fd);

	fd = works("opens with O_DIRECT", open("big", O_RDONLY | O_DIRECT));
	holds("memory for O_DIRECT", !posix_memalign(&direct, 4096, 8192));
	holds("O_DIRECT reads", pread(fd, direct, 8192, 4096) == 8192 &&
	      ((uint8_t *)direct)[0] == 4096 % 251);
	free(direct);
	close(fd);

	fd = works("opens an empty file", open("empty", O_RDONLY));
	map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	holds("an empty file can be mapped", map != MAP_FAILED);
	munmap(map, 4096);
	close(fd);
}

static void program(void)
{
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		execl("./init", "init", "--hello", NULL);
		_exit(1);
	}
	waitpid(child, &status, 0);
	holds("an executable input runs", WIFEXITED(status) &&
	      WEXITSTATUS(status) == 42);
	fails("a plain input does not run", execl("./hello", "hello", NULL),
	      EACCES);
}

static void map_names(void)
{
	char line[512];
	bool named = false;
	int fd = open("hello", O_RDONLY);
	void *map = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
	FILE *maps = fopen("/proc/self/maps", "r");

	while (maps && fgets(line, sizeof(line), maps))
		named |= strstr(line, TREE "/hello") != NULL;
	holds("/proc/self/maps shows the tree's path", named);
	if (maps)
		fclose(maps);
	munmap(map, 4096);
	close(fd);
}

void test_reading(void)
{
	mount_strict();
	become_action();
	attributes();
	data();
	program();
	map_names();
}

static void refused_data(void)
{
	static const int flags[] = {
		O_WRONLY, O_RDWR, O_WRONLY | O_TRUNC, O_RDONLY | O_TRUNC,
		O_WRONLY | O_APPEND, O_RDWR | O_CREAT,
	};
	size_t i;
	int fd;

	for (i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		fails("opening an input for writing", open("hello", flags[i], 0600),
		      EROFS);
	fails("writing to an empty input", open("empty", O_WRONLY), EROFS);
	fails("writing to an executable", open("init", O_WRONLY), EROFS);
	fails("truncate", truncate("hello", 0), EROFS);
	fails("access for writing", access("hello", W_OK), EROFS);
	fails("exclusive creation", open("hello", O_CREAT | O_EXCL | O_WRONLY,
					 0600), EEXIST);
	fails("opening a directory for writing", open("dir", O_WRONLY), EISDIR);
	fd = open("hello", O_RDONLY);
	fails("writing through a reading descriptor", write(fd, "x", 1), EBADF);
	fails("ftruncate of a reading descriptor", ftruncate(fd, 0), EINVAL);
	fails("a writable shared mapping",
	      mmap(NULL, 4096, PROT_WRITE, MAP_SHARED, fd, 0), EACCES);
	close(fd);
	fails("reopening through /proc", ({
		char path[64];

		fd = open("hello", O_RDONLY);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		open(path, O_RDWR);
	}), EROFS);
}

static void refused_names(void)
{
	works("makes an own file", write_file("own", "own", 3));
	fails("unlink of a file", unlink("hello"), EROFS);
	fails("unlink of a link", unlink("link"), EROFS);
	fails("rmdir", rmdir("emptydir"), EROFS);
	fails("rmdir of a full one", rmdir("dir"), EROFS);
	fails("rename away", rename("hello", "other"), EROFS);
	fails("rename over", rename("own", "hello"), EROFS);
	fails("rename of a directory", rename("dir", "other"), EROFS);
	fails("rename over a link", rename("own", "link"), EROFS);
	fails("exchange", renameat2(AT_FDCWD, "own", AT_FDCWD, "hello",
				    RENAME_EXCHANGE), EROFS);
	fails("hard link", link("hello", "other"), EXDEV);
	fails("mkdir over", mkdir("hello", 0777), EEXIST);
	fails("symlink over", symlink("x", "dir"), EEXIST);
	fails("mknod over", mknod("link", S_IFIFO | 0600, 0), EEXIST);
	holds("the file is still there", file_is("hello", HELLO));
	works("removes the own file", unlink("own"));
}

static void refused_attributes(void)
{
	struct timespec times[2] = { { .tv_sec = 5 }, { .tv_sec = 6 } };
	struct stat before, after;

	works("stat before", stat("hello", &before));
	fails("chmod +x", chmod("hello", 0755), EROFS);
	fails("chmod +s", chmod("init", 04755), EROFS);
	fails("chown", chown("hello", ACTION_ID, ACTION_ID), EROFS);
	fails("setxattr", setxattr("hello", "user.x", "1", 1, 0), EROFS);
	fails("setxattr on a directory", setxattr("dir", "user.x", "1", 1, 0),
	      EROFS);
	fails("getxattr", getxattr("hello", "user.x", NULL, 0), ENODATA);
	fails("security xattr", getxattr("hello", "security.capability", NULL, 0),
	      EOPNOTSUPP);
	holds("listxattr", listxattr("hello", NULL, 0) == 0);
	works("chmod that adds nothing", chmod("hello", 0644));
	works("chmod of an executable", chmod("init", 0755));
	works("chmod of a directory", chmod("dir", 0755));
	works("utimes of a file", utimensat(AT_FDCWD, "hello", times, 0));
	works("utimes of a directory", utimensat(AT_FDCWD, "dir", times, 0));
	works("touch", utimensat(AT_FDCWD, "hello", NULL, 0));
	works("chown to nobody new", chown("hello", -1, -1));
	works("stat after", stat("hello", &after));
	holds("nothing has changed", !memcmp(&before, &after, sizeof(before)));
}

void test_refusals(void)
{
	mount_strict();
	become_action();
	refused_data();
	refused_names();
	refused_attributes();
	/* Root has no more rights over a blob than the action. */
	become_root();
	refused_data();
	refused_names();
}
