// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who may do what to staged objects. They belong to an action, but root looks
 * at them too, and an action may lock itself out.
 */
#define _GNU_SOURCE
#include <grp.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include "harness.h"

#define OTHER_ID	1234

static void become_other(void)
{
	become_root();
	if (setgroups(0, NULL) || setegid(OTHER_ID) || seteuid(OTHER_ID))
		give_up("becomes another");
}

static void back_to_action(void)
{
	become_root();
	become_action();
}

static void modes(void)
{
	struct stat st;
	int fd;

	umask(027);
	works("creates under a umask", write_file("masked", "", 0));
	works("mkdir under a umask", mkdir("maskeddir", 0777));
	umask(022);
	works("stat", stat("masked", &st));
	holds("the umask counts for files", (st.st_mode & 07777) == 0640);
	works("stat", stat("maskeddir", &st));
	holds("the umask counts for directories", (st.st_mode & 07777) == 0750);

	works("mkdir", mkdir("closed", 0755));
	works("a file in it", write_file("closed/f", "f", 1));
	works("closes it", chmod("closed", 0555));
	fails("no creating there", open("closed/g", O_CREAT | O_WRONLY, 0600),
	      EACCES);
	fails("no mkdir there", mkdir("closed/d", 0777), EACCES);
	fails("no unlink there", unlink("closed/f"), EACCES);
	fails("no rename away", rename("closed/f", "f"), EACCES);
	fails("no link into it", link("masked", "closed/l"), EACCES);
	holds("reading is fine", file_is("closed/f", "f"));
	works("shuts it", chmod("closed", 0));
	fails("no looking in", stat("closed/f", &st), EACCES);
	become_root();
	works("root looks in", stat("closed/f", &st));
	works("root creates there", write_file("closed/root", "", 0));
	back_to_action();
	works("opens it", chmod("closed", 0755));
	works("stat of root's", stat("closed/root", &st));
	holds("it is root's", st.st_uid == 0);
	fails("chmod of root's", chmod("closed/root", 0777), EPERM);
	works("but the directory is the action's", unlink("closed/root"));

	fd = works("opens while allowed", open("closed/f", O_RDWR));
	works("takes the right away", chmod("closed/f", 0));
	works("still writes", write(fd, "gg", 2));
	works("still truncates", ftruncate(fd, 1));
	close(fd);
}

static void set_id(void)
{
	struct stat st;
	int fd;

	works("makes a program", write_file("setuid", "x", 1));
	works("chmod 6755", chmod("setuid", 06755));
	works("stat", stat("setuid", &st));
	holds("it is set-id", (st.st_mode & 07777) == 06755);
	fd = open("setuid", O_WRONLY);
	works("writes to it", write(fd, "y", 1));
	close(fd);
	works("stat", stat("setuid", &st));
	holds("a write takes the bits away", (st.st_mode & 07777) == 0755);

	works("chmod 6755", chmod("setuid", 06755));
	works("truncates it", truncate("setuid", 0));
	works("stat", stat("setuid", &st));
	holds("so does truncation", (st.st_mode & 07777) == 0755);

	works("mkdir", mkdir("setgid", 0755));
	works("chmod g+s", chmod("setgid", 02755));
	works("mkdir in it", mkdir("setgid/d", 0755));
	works("stat", stat("setgid/d", &st));
	holds("the bit is handed down", (st.st_mode & 07777) == 02755);
}

static void others(void)
{
	struct stat st;

	works("a private directory", mkdir("private", 0700));
	works("a secret", write_file("private/secret", "s", 1));
	works("a public file", write_file("public", "p", 1));
	works("a sticky directory", mkdir("sticky", 0777));
	works("chmod", chmod("sticky", 01777));
	works("a file in it", write_file("sticky/mine", "m", 1));

	become_other();
	fails("another cannot enter", stat("private/secret", &st), EACCES);
	holds("another can read", file_is("public", "p"));
	fails("another cannot write", open("public", O_WRONLY), EACCES);
	fails("another cannot chmod", chmod("public", 0777), EPERM);
	fails("another cannot touch", utimensat(AT_FDCWD, "public", NULL, 0),
	      EACCES);
	fails("another cannot set xattrs",
	      setxattr("public", "user.x", "1", 1, 0), EACCES);
	fails("another cannot remove", unlink("sticky/mine"), EPERM);
	fails("another cannot rename", rename("sticky/mine", "sticky/x"), EPERM);
	works("another makes his own", write_file("sticky/his", "h", 1));
	works("in an input directory too", write_file("dir/nested/his", "h", 1));
	holds("an input is for all", file_is("hello", HELLO));
	fails("and for nobody to change", open("hello", O_WRONLY), EROFS);
	back_to_action();
	works("stat", stat("sticky/his", &st));
	holds("it is his", st.st_uid == OTHER_ID && st.st_gid == OTHER_ID);
}

static void opening(void)
{
	struct timespec times[2] = {
		{ .tv_nsec = UTIME_OMIT }, { .tv_sec = 77 },
	};
	struct stat before, after;

	works("symlink", symlink("hello", "tolink"));
	fails("O_NOFOLLOW", open("tolink", O_RDONLY | O_NOFOLLOW), ELOOP);
	fails("O_NOFOLLOW on an input", open("link", O_RDONLY | O_NOFOLLOW),
	      ELOOP);
	fails("O_DIRECTORY on a file", open("hello", O_RDONLY | O_DIRECTORY),
	      ENOTDIR);
	fails("O_CREAT on a directory", open("dir", O_RDONLY | O_CREAT, 0600),
	      EISDIR);
	fails("O_CREAT through a link to an input",
	      open("tolink", O_WRONLY | O_CREAT, 0600), EROFS);
	works("a dangling link", symlink("dir/made", "dangling"));
	works("O_CREAT through it", write_file("dangling", "through", 7));
	holds("made there", file_is("dir/made", "through"));
	fails("a trailing slash", open("dir/made/", O_RDONLY), ENOTDIR);
	fails("creating with a trailing slash",
	      open("nothing/", O_CREAT | O_WRONLY, 0600), EISDIR);
	works("stat", stat("dir/made", &before));
	works("UTIME_OMIT", utimensat(AT_FDCWD, "dir/made", times, 0));
	works("stat", stat("dir/made", &after));
	holds("only one time changed", after.st_mtime == 77 &&
	      after.st_atime == before.st_atime);
}

void test_permissions(void)
{
	mount_strict();
	become_action();
	modes();
	set_id();
	others();
	opening();
}
