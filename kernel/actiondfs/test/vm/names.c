// SPDX-License-Identifier: GPL-2.0-only
/* Names that the action makes, moves, links and removes; and lists. */
#define _GNU_SOURCE
#include <dirent.h>
#include <sys/mount.h>

#include "harness.h"

static void directories(void)
{
	struct stat st;
	char path[5000];
	int i;

	works("mkdir", mkdir("d", 0755));
	works("mkdir below", mkdir("d/e", 0700));
	works("stat", stat("d/e", &st));
	holds("mode and owner", st.st_mode == (S_IFDIR | 0700) &&
	      st.st_uid == ACTION_ID);
	works("stat", stat("d", &st));
	holds("links of a directory", st.st_nlink == 3);
	fails("mkdir twice", mkdir("d", 0755), EEXIST);
	fails("rmdir of a full one", rmdir("d"), ENOTEMPTY);
	fails("unlink of a directory", unlink("d/e"), EISDIR);
	works("rmdir", rmdir("d/e"));
	fails("rmdir of nothing", rmdir("d/e"), ENOENT);
	works("stat", stat("d", &st));
	holds("links after rmdir", st.st_nlink == 2);
	works("mkdir in an input directory", mkdir("dir/nested/made", 0777));
	works("rmdir there", rmdir("dir/nested/made"));
	works("mkdir in an empty input directory", mkdir("emptydir/x", 0777));
	works("rmdir there", rmdir("emptydir/x"));
	memset(path, 'n', 256);
	path[256] = 0;
	fails("a long name", mkdir(path, 0777), ENAMETOOLONG);
	path[255] = 0;
	works("the longest name", mkdir(path, 0777));
	works("goes with rmdir", rmdir(path));
	strcpy(path, "deep");
	for (i = 0; i < 100; i++) {
		if (mkdir(path, 0755))
			break;
		strcat(path, "/d");
	}
	holds("a hundred directories deep", i == 100);
}

static void renames(void)
{
	struct stat before, after;

	works("makes a", write_file("a", "a", 1));
	works("stat", stat("a", &before));
	works("rename", rename("a", "b"));
	works("stat", stat("b", &after));
	holds("the inode stays", before.st_ino == after.st_ino);
	fails("the old name is gone", stat("a", &after), ENOENT);
	works("rename into an input directory", rename("b", "dir/b"));
	works("rename into a deeper one", rename("dir/b", "dir/nested/b"));
	holds("it reads", file_is("dir/nested/b", "a"));
	works("makes c", write_file("c", "c", 1));
	works("rename over", rename("c", "dir/nested/b"));
	holds("replaced", file_is("dir/nested/b", "c"));
	works("makes d1", write_file("d1", "1", 1));
	fails("RENAME_NOREPLACE", renameat2(AT_FDCWD, "d1", AT_FDCWD,
					    "dir/nested/b", RENAME_NOREPLACE),
	      EEXIST);
	works("RENAME_NOREPLACE onto nothing",
	      renameat2(AT_FDCWD, "d1", AT_FDCWD, "d2", RENAME_NOREPLACE));
	works("RENAME_EXCHANGE", renameat2(AT_FDCWD, "d2", AT_FDCWD,
					   "dir/nested/b", RENAME_EXCHANGE));
	holds("exchanged", file_is("d2", "c") && file_is("dir/nested/b", "1"));
	fails("RENAME_WHITEOUT", renameat2(AT_FDCWD, "d2", AT_FDCWD, "d3",
					   RENAME_WHITEOUT), EINVAL);
	works("mkdir", mkdir("m", 0777));
	works("mkdir", mkdir("m/n", 0777));
	fails("a directory into itself", rename("m", "m/n/o"), EINVAL);
	works("a directory moves", rename("m/n", "dir/n"));
	works("a file in it", write_file("dir/n/f", "f", 1));
	works("and moves back", rename("dir/n", "m/n"));
	holds("with its file", file_is("m/n/f", "f"));
	fails("a directory over a file", rename("m", "d2"), ENOTDIR);
	fails("a file over a directory", rename("d2", "m"), EISDIR);
	works("mkdir", mkdir("p", 0777));
	fails("a directory over a full one", rename("p", "m"), ENOTEMPTY);
	works("a directory over an empty one", ({
		mkdir("q", 0777);
		rename("p", "q");
	}));
	fails("a child over its parent", rename("m/n", "m"), ENOTEMPTY);
	fails("no such file", rename("nothing", "n2"), ENOENT);
}

static void links(void)
{
	struct stat one, two;
	char target[64] = "";

	works("makes a file", write_file("one", "one", 3));
	works("link", link("one", "dir/two"));
	works("stat", stat("one", &one));
	works("stat", stat("dir/two", &two));
	holds("same inode", one.st_ino == two.st_ino && two.st_nlink == 2);
	works("writes through one", write_file("one", "changed", 7));
	holds("reads through the other", file_is("dir/two", "changed"));
	works("unlinks the first", unlink("one"));
	works("stat", stat("dir/two", &two));
	holds("one link is left", two.st_nlink == 1);
	holds("still reads", file_is("dir/two", "changed"));
	works("truncates", truncate("dir/two", 1));
	works("links back", link("dir/two", "one"));
	holds("short now", file_is("one", "c"));
	works("renames one link over the other", rename("one", "dir/two"));
	works("both are there still", stat("one", &one));
	fails("link of a directory", link("dir", "x"), EPERM);
	fails("link over", link("one", "dir/two"), EEXIST);
	works("symlink", symlink("../big", "dir/s"));
	holds("readlink", readlink("dir/s", target, 64) == 6 &&
	      !strcmp(target, "../big"));
	works("follows to an input", stat("dir/s", &one));
	holds("the input", one.st_size == BIG_BYTES);
	works("symlink onto itself", symlink("loop", "loop"));
	fails("a loop", stat("loop", &one), ELOOP);
	works("link of a symlink", linkat(AT_FDCWD, "loop", AT_FDCWD, "loop2",
					  0));
}

/* Once the kernel has forgotten what names it knew. */
static int open_anew(const char *path, int flags, mode_t mode)
{
	int fd, saved;

	become_root();
	write_file("/proc/sys/vm/drop_caches", "6", 1);
	become_action();
	fd = open(path, flags, mode);
	saved = errno;
	if (fd >= 0)
		close(fd);
	errno = saved;
	return fd;
}

static void opens_that_may_make(void)
{
	char path[257];
	struct stat st;
	int fd;

	works("makes", write_file("anew", "first", 5));
	works("O_CREAT of what is there",
	      open_anew("anew", O_RDWR | O_CREAT, 0600));
	holds("changes nothing", file_is("anew", "first"));
	fails("O_EXCL of what is there",
	      open_anew("anew", O_RDWR | O_CREAT | O_EXCL, 0600), EEXIST);
	works("O_TRUNC of what is there",
	      open_anew("anew", O_RDWR | O_CREAT | O_TRUNC, 0600));
	holds("empties it", file_is("anew", ""));
	works("unlink", unlink("anew"));
	works("O_CREAT of what is gone",
	      open_anew("anew", O_RDWR | O_CREAT | O_EXCL, 0640));
	works("stat", stat("anew", &st));
	holds("owner and mode", st.st_uid == ACTION_ID &&
	      st.st_mode == (S_IFREG | 0640));
	works("in an input directory",
	      open_anew("dir/nested/anew", O_WRONLY | O_CREAT, 0644));
	works("again", open_anew("dir/nested/anew", O_WRONLY | O_CREAT, 0644));

	works("O_CREAT of an input", open_anew("hello", O_RDONLY | O_CREAT, 0644));
	fails("for writing", open_anew("hello", O_RDWR | O_CREAT, 0644), EROFS);
	fails("exclusive", open_anew("hello", O_RDONLY | O_CREAT | O_EXCL, 0644),
	      EEXIST);
	fails("of an input directory", open_anew("dir", O_WRONLY | O_CREAT, 0644),
	      EISDIR);
	works("mkdir", mkdir("closed", 0755));
	fails("of a staged directory",
	      open_anew("closed", O_WRONLY | O_CREAT, 0644), EISDIR);

	works("a symlink to nothing", symlink("target", "dangling"));
	fails("O_EXCL of it",
	      open_anew("dangling", O_WRONLY | O_CREAT | O_EXCL, 0644), EEXIST);
	fails("O_NOFOLLOW of it",
	      open_anew("dangling", O_WRONLY | O_CREAT | O_NOFOLLOW, 0644),
	      ELOOP);
	works("O_CREAT through it",
	      open_anew("dangling", O_WRONLY | O_CREAT, 0644));
	works("makes what it leads to", lstat("target", &st));

	fd = works("a mode that forbids what is asked for",
		   open("readonly", O_WRONLY | O_CREAT | O_EXCL, 0444));
	works("holds from the next open on", write(fd, "x", 1));
	close(fd);
	fails("the next open", open_anew("readonly", O_WRONLY | O_CREAT, 0444),
	      EACCES);
	works("makes in it", write_file("closed/in", "in", 2));
	works("closes it", chmod("closed", 0555));
	works("O_CREAT of what is in a closed directory",
	      open_anew("closed/in", O_RDWR | O_CREAT, 0644));
	fails("and of what is not",
	      open_anew("closed/out", O_RDWR | O_CREAT, 0644), EACCES);
	memset(path, 'n', 256);
	path[256] = 0;
	fails("a long name", open_anew(path, O_WRONLY | O_CREAT, 0644),
	      ENAMETOOLONG);
}

void test_names(void)
{
	mount_strict();
	become_action();
	directories();
	renames();
	links();
	opens_that_may_make();
}

/* --- Listing ------------------------------------------------------------ */

static int count_entries(const char *path, const char *wanted, bool check)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	struct stat st;
	int count = 0;

	while (dir && (entry = readdir(dir))) {
		count++;
		/* Above the root of a mount lies another file system. */
		if (!strcmp(path, ".") && !strcmp(entry->d_name, ".."))
			continue;
		if (check && !fstatat(dirfd(dir), entry->d_name, &st,
				      AT_SYMLINK_NOFOLLOW) &&
		    st.st_ino != entry->d_ino)
			holds("d_ino is st_ino", false);
		if (check && (st.st_mode & S_IFMT) != (mode_t)DTTOIF(entry->d_type))
			holds("d_type is st_mode", false);
		if (wanted && !strcmp(entry->d_name, wanted))
			count += 1000;
	}
	if (dir)
		closedir(dir);
	return dir ? count : -1;
}

static void make_many(const char *directory, int count)
{
	char path[256];
	int i;

	for (i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "%s/f%05d", directory, i);
		if (write_file(path, "", 0))
			break;
	}
	holds("makes many files", i == count);
}

static void remove_while_reading(const char *path, int expected)
{
	DIR *dir = opendir(path);
	struct dirent *entry;
	int removed = 0;

	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] == 'f')
			removed += !unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	holds("what is removed while reading is not skipped",
	      removed == expected);
}

static void positions(const char *path)
{
	DIR *dir = opendir(path);
	char name[256];
	int i;
	long pos;

	for (i = 0; dir && i < 9; i++)
		readdir(dir);
	pos = telldir(dir);
	strcpy(name, readdir(dir)->d_name);
	while (readdir(dir))
		;
	seekdir(dir, pos);
	holds("seekdir goes back", !strcmp(readdir(dir)->d_name, name));
	make_many(path, 3);
	rewinddir(dir);
	for (i = 0; readdir(dir); i++)
		;
	holds("rewinddir shows what is new", i == count_entries(path, NULL, false));
	closedir(dir);
}

void test_listing(void)
{
	mount_strict();
	become_action();
	holds("the root", count_entries(".", "hello", true) == 1009);
	holds("a directory", count_entries("dir", "other", true) == 1004);
	holds("an empty directory", count_entries("emptydir", NULL, true) == 2);
	make_many("dir", 2000);
	holds("inputs and staged", count_entries("dir", "f01999", true) == 3004);
	holds("a counterpart is not told twice",
	      count_entries(".", "dir", true) == 1009);
	works("mkdir", mkdir("own", 0777));
	make_many("own", 2000);
	holds("staged alone", count_entries("own", "f00000", true) == 3002);
	positions("dir");
	positions("own");
	remove_while_reading("dir", 2000);
	remove_while_reading("own", 2000);
	holds("inputs are left", count_entries("dir", "nested", true) == 1004);
	works("the staged one can be removed", rmdir("own"));
}
