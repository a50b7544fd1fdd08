// SPDX-License-Identifier: GPL-2.0-only
/* Files that the action makes: data, attributes, special files. */
#define _GNU_SOURCE
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <linux/falloc.h>

#include "harness.h"

static void writing(void)
{
	struct stat st;
	char got[16] = "";
	int fd;

	fd = works("creates a file", open("out", O_RDWR | O_CREAT | O_EXCL, 0640));
	works("writes", write(fd, "0123456789", 10));
	works("fstat", fstat(fd, &st));
	holds("size follows the write", st.st_size == 10);
	holds("owner and mode", st.st_uid == ACTION_ID &&
	      st.st_gid == ACTION_ID && st.st_mode == (S_IFREG | 0640));
	holds("reads back", pread(fd, got, 16, 0) == 10 &&
	      !memcmp(got, "0123456789", 10));
	works("ftruncate", ftruncate(fd, 4));
	holds("SEEK_END after ftruncate", lseek(fd, 0, SEEK_END) == 4);
	works("switches to appending", fcntl(fd, F_SETFL, O_APPEND));
	works("pwrite of an appender", pwrite(fd, "A", 1, 0));
	holds("appends", file_is("out", "0123A"));
	works("switches back", fcntl(fd, F_SETFL, 0));
	works("pwrite", pwrite(fd, "B", 1, 0));
	holds("writes in place", file_is("out", "B123A"));
	works("fsync", fsync(fd));
	close(fd);
	works("truncate by path", truncate("out", 2));
	holds("truncated", file_is("out", "B1"));
	works("O_TRUNC", fd = open("out", O_WRONLY | O_TRUNC));
	close(fd);
	holds("emptied", file_is("out", ""));
	fd = works("opens for appending", open("out", O_WRONLY | O_APPEND));
	works("appends one", write(fd, "x", 1));
	works("appends two", write(fd, "y", 1));
	close(fd);
	holds("both are there", file_is("out", "xy"));
	works("makes a file in an input directory",
	      write_file("dir/nested/out", "deep out", 8));
	holds("it reads", file_is("dir/nested/out", "deep out"));
	holds("the input beside it too", file_is("dir/nested/deep", "deep\n"));
	become_root();
	holds("it lies in the stage", file_is(STAGE "/dir/nested/out",
					      "deep out"));
	become_action();
}

static void attributes(void)
{
	struct timespec times[2] = { { .tv_sec = 5 }, { .tv_sec = 6 } };
	struct stat st;
	char list[64], value[16];

	works("chmod", chmod("out", 0711));
	works("utimes", utimensat(AT_FDCWD, "out", times, 0));
	works("stat", stat("out", &st));
	holds("mode and times", (st.st_mode & 07777) == 0711 &&
	      st.st_atime == 5 && st.st_mtime == 6);
	works("touch", utimensat(AT_FDCWD, "out", NULL, 0));
	works("stat", stat("out", &st));
	holds("touched", st.st_mtime > 6);
	fails("chown to root", chown("out", 0, 0), EPERM);
	works("chown to oneself", chown("out", ACTION_ID, ACTION_ID));
	works("chmod 0", chmod("out", 0));
	fails("opening without permission", open("out", O_RDONLY), EACCES);
	works("chmod back", chmod("out", 0644));

	works("setxattr", setxattr("out", "user.a", "one", 3, XATTR_CREATE));
	works("setxattr again", setxattr("out", "user.b", "two", 3, 0));
	fails("setxattr, exclusive", setxattr("out", "user.a", "", 0,
					      XATTR_CREATE), EEXIST);
	holds("getxattr", getxattr("out", "user.b", value, 16) == 3 &&
	      !memcmp(value, "two", 3));
	holds("listxattr", listxattr("out", list, sizeof(list)) == 14);
	works("removexattr", removexattr("out", "user.a"));
	holds("one is left", listxattr("out", list, sizeof(list)) == 7 &&
	      !strcmp(list, "user.b"));
	become_root();
	fails("trusted xattr", setxattr("out", "trusted.a", "1", 1, 0),
	      EOPNOTSUPP);
	become_action();
}

static void ranges(void)
{
	int fd = works("creates", open("ranges", O_RDWR | O_CREAT, 0644));
	struct stat st;
	uint8_t *map;

	works("fallocate", fallocate(fd, 0, 0, 65536));
	works("fstat", fstat(fd, &st));
	holds("fallocate extends", st.st_size == 65536 && st.st_blocks >= 128);
	works("punches a hole", fallocate(fd, FALLOC_FL_PUNCH_HOLE |
					  FALLOC_FL_KEEP_SIZE, 0, 65536));
	works("writes behind it", pwrite(fd, "x", 1, 40960));
	holds("SEEK_DATA", lseek(fd, 0, SEEK_DATA) == 40960);
	holds("the position follows", lseek(fd, 0, SEEK_CUR) == 40960);
	holds("SEEK_HOLE", lseek(fd, 0, SEEK_HOLE) == 0);
	map = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	holds("maps shared", map != MAP_FAILED && map[40960] == 'x');
	map[1] = 'm';
	works("msync", msync(map, 65536, MS_SYNC));
	holds("a store through the map is read", pread(fd, &st, 1, 1) == 1 &&
	      *(char *)&st == 'm');
	works("pwrite under the map", pwrite(fd, "p", 1, 2));
	holds("a write is seen in the map", map[2] == 'p');
	munmap(map, 65536);
	fails("O_DIRECT wants alignment", ({
		int direct = open("ranges", O_RDWR | O_DIRECT);
		long got = pwrite(direct, "abc", 3, 1);
		int saved = errno;

		close(direct);
		errno = saved;
		got;
	}), EINVAL);
	close(fd);
}

static void copying(void)
{
	int in = works("opens an input", open("big", O_RDONLY));
	int out = works("creates", open("copy", O_RDWR | O_CREAT, 0644));
	int pipes[2];
	loff_t from = 1000, to = 0;
	off_t offset = 0;
	struct stat st;
	uint8_t byte;

	holds("copy_file_range", copy_file_range(in, &from, out, &to, 500000,
						 0) == 500000);
	holds("copied the right bytes", pread(out, &byte, 1, 7) == 1 &&
	      byte == 1007 % 251);
	works("fstat", fstat(out, &st));
	holds("size follows the copy", st.st_size == 500000);
	from = BIG_BYTES - 10;
	to = 0;
	holds("copy_file_range over the end", copy_file_range(in, &from, out,
							      &to, 100, 0) == 10);
	works("rewind", lseek(out, 0, SEEK_SET));
	holds("sendfile into an output", sendfile(out, in, &offset, 100000) ==
	      100000);
	holds("sent the right bytes", pread(out, &byte, 1, 99999) == 1 &&
	      byte == 99999 % 251);
	works("pipe", pipe(pipes));
	works("splice out of an input", splice(in, NULL, pipes[1], NULL, 4096, 0));
	offset = 600000;
	holds("splice into an output", splice(pipes[0], NULL, out, &offset,
					      4096, 0) == 4096);
	works("fstat", fstat(out, &st));
	holds("size follows the splice", st.st_size == 604096);
	from = 0;
	to = 1 << 20;
	works("copy within one file", copy_file_range(out, &from, out, &to,
						      4096, 0));
	close(pipes[0]);
	close(pipes[1]);
	close(in);
	close(out);
}

static void without_a_name(void)
{
	char path[64];
	struct stat st;
	int fd = works("O_TMPFILE", open("dir", O_TMPFILE | O_RDWR, 0600));

	works("writes to it", write(fd, "nameless", 8));
	works("fstat", fstat(fd, &st));
	holds("it has no link", st.st_nlink == 0 && st.st_size == 8);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	works("gives it a name", linkat(AT_FDCWD, path, AT_FDCWD, "dir/named",
					AT_SYMLINK_FOLLOW));
	holds("it reads", file_is("dir/named", "nameless"));
	works("fstat", fstat(fd, &st));
	holds("it has a link", st.st_nlink == 1);
	close(fd);
	fd = works("O_TMPFILE, exclusive", open(".", O_TMPFILE | O_EXCL | O_RDWR,
						0600));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fails("cannot be named", linkat(AT_FDCWD, path, AT_FDCWD, "named",
					AT_SYMLINK_FOLLOW), ENOENT);
	close(fd);

	fd = works("opens", open("gone", O_RDWR | O_CREAT, 0600));
	works("unlinks while open", unlink("gone"));
	works("still writes", write(fd, "still", 5));
	works("fstat", fstat(fd, &st));
	holds("still there", st.st_size == 5 && st.st_nlink == 0);
	works("fchmod of an unlinked file", fchmod(fd, 0644));
	works("ftruncate of an unlinked file", ftruncate(fd, 1));
	close(fd);
}

static void locks_and_events(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	char events[512];
	int a = open("out", O_RDWR), b = open("out", O_RDWR), watch;

	works("flock", flock(a, LOCK_EX | LOCK_NB));
	fails("flock of another", flock(b, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	works("fcntl lock", fcntl(a, F_SETLK, &lock));
	close(a);
	close(b);
	watch = works("inotify", inotify_init1(IN_NONBLOCK));
	works("watches a directory", inotify_add_watch(watch, "dir", IN_CREATE |
						       IN_CLOSE_WRITE));
	works("makes a file", write_file("dir/watched", "x", 1));
	holds("an event comes", read(watch, events, sizeof(events)) > 0);
	close(watch);
}

static void programs(void)
{
	static char bytes[1 << 22];
	ssize_t len = read_file("init", bytes, sizeof(bytes));
	int fd, status = 0;
	pid_t child;

	works("copies a program", write_file("program", bytes, len));
	works("chmod +x", chmod("program", 0755));
	fd = open("program", O_WRONLY);
	child = fork();
	if (child == 0) {
		execl("./program", "program", "--hello", NULL);
		_exit(errno == ETXTBSY ? 26 : 1);
	}
	waitpid(child, &status, 0);
	holds("does not run while open for writing",
	      WIFEXITED(status) && WEXITSTATUS(status) == 26);
	close(fd);
	child = fork();
	if (child == 0) {
		execl("./program", "program", "--hello", NULL);
		_exit(1);
	}
	waitpid(child, &status, 0);
	holds("runs", WIFEXITED(status) && WEXITSTATUS(status) == 42);
}

void test_staging(void)
{
	mount_strict();
	become_action();
	writing();
	attributes();
	ranges();
	copying();
	without_a_name();
	locks_and_events();
	programs();
}

static void fifo(void)
{
	char got[8] = "";
	int fd, status;
	pid_t child;

	works("mkfifo", mkfifo("fifo", 0600));
	child = fork();
	if (child == 0) {
		fd = open("fifo", O_WRONLY);
		_exit(write(fd, "through", 7) != 7);
	}
	fd = works("opens the fifo", open("fifo", O_RDONLY));
	holds("reads through the fifo", read(fd, got, 8) == 7 &&
	      !strcmp(got, "through"));
	close(fd);
	waitpid(child, &status, 0);
	works("removes the fifo", unlink("fifo"));
}

static void sockets(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int server = socket(AF_UNIX, SOCK_STREAM, 0);
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	struct stat st;

	strcpy(name.sun_path, "dir/socket");
	works("binds a socket", bind(server, (void *)&name, sizeof(name)));
	works("stat of the socket", stat("dir/socket", &st));
	holds("it is a socket", S_ISSOCK(st.st_mode));
	works("listens", listen(server, 1));
	works("connects", connect(client, (void *)&name, sizeof(name)));
	fails("opening a socket", open("dir/socket", O_RDONLY), ENXIO);
	close(server);
	close(client);
	works("removes the socket", unlink("dir/socket"));
}

void test_special(void)
{
	mount_strict();
	become_action();
	fifo();
	sockets();
	fails("a device node", mknod("null", S_IFCHR | 0666, 0x103), EPERM);
	become_root();
	fails("a device node by root", mknod("null", S_IFCHR | 0666, 0x103),
	      EPERM);
	fails("a block device by root", mknod("disk", S_IFBLK | 0666, 0xfe00),
	      EPERM);
	become_action();
	works("a regular file by mknod", mknod("file", S_IFREG | 0644, 0));
	holds("it reads", file_is("file", ""));
}
