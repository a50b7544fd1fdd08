// SPDX-License-Identifier: GPL-2.0-only
/* CASes that lie, mount options that make no sense, and the overlay on top. */
#define _GNU_SOURCE
#include <dirent.h>
#include <sys/mount.h>
#include <sys/xattr.h>

#include "harness.h"

#define HASH	"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

/* A tree whose root is @root can be mounted, but not looked into. */
static void refused(const char *what, struct blob root, int expected)
{
	char label[128];
	struct stat st;

	if (mount_tree(root, STAGE, NULL)) {
		verdict(false, what, "cannot be mounted");
		return;
	}
	become_action();
	snprintf(label, sizeof(label), "%s: lookup", what);
	fails(label, stat(TREE "/name", &st), expected);
	snprintf(label, sizeof(label), "%s: list", what);
	fails(label, ({
		DIR *dir = opendir(TREE);
		long got;

		errno = 0;
		got = readdir(dir) || !errno ? 0 : -1;
		int saved = errno;

		closedir(dir);
		errno = saved;
		got;
	}), expected);
	snprintf(label, sizeof(label), "%s: create", what);
	fails(label, open(TREE "/new", O_CREAT | O_WRONLY, 0600), expected);
	become_root();
	umount(TREE);
}

static void bad_messages(void)
{
	static const struct { const char *what, *name; } names[] = {
		{ "a name with a slash", "a/b" },
		{ "a name of dots", ".." },
		{ "an empty name", "" },
		{ "an absolute name", "/etc/passwd" },
	};
	struct message m = {};
	struct blob blob;
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		put_file(&m, names[i].name, HASH, 1, false);
		refused(names[i].what, put_directory_blob(&m), EINVAL);
	}
	put_file(&m, "b", HASH, 1, false);
	put_file(&m, "a", HASH, 1, false);
	refused("unsorted", put_directory_blob(&m), EINVAL);
	put_file(&m, "a", HASH, 1, false);
	put_symlink(&m, "a", "t");
	refused("a duplicate", put_directory_blob(&m), EINVAL);
	put_raw(&m, "\x0a\xff\xff\xff\xff\x0f", 6);
	refused("truncated", put_directory_blob(&m), EINVAL);
	put_raw(&m, "\x7f" "ELF garbage \xff\xff\xff\xff", 17);
	refused("garbage", put_directory_blob(&m), EINVAL);

	blob = (struct blob) { .hex = HASH, .size = 10 };
	refused("a missing root", blob, EIO);
	put_file(&m, "a", HASH, 1, false);
	blob = put_directory_blob(&m);
	blob.size++;
	refused("a root of another size", blob, EIO);
}

static void list_quietly(const char *path)
{
	DIR *dir = opendir(path);

	while (dir && readdir(dir))
		;
	if (dir)
		closedir(dir);
}

static void random_messages(void)
{
	struct message m = {};
	struct stat st;
	int i, j, alive = 0;

	any_seed(getpid());
	for (i = 0; i < 300; i++) {
		put_file(&m, "name", HASH, 1, false);
		put_directory(&m, "other", HASH, 1);
		put_symlink(&m, "third", "t");
		for (j = any(6); j >= 0; j--)
			m.at[any(m.len)] ^= 1 << any(8);
		if (any(4) == 0)
			m.len = any(m.len);
		if (mount_tree(put_directory_blob(&m), STAGE, NULL))
			continue;
		stat(TREE "/name", &st);
		stat(TREE "/other/x", &st);
		list_quietly(TREE);
		alive += !umount(TREE);
	}
	holds("300 damaged messages do no harm", alive == 300);
}

/* A blob under a false name can name itself: depth has a bound. */
static void endless(void)
{
	struct message m = {};
	struct blob root;
	char path[256];
	int depth = 0;

	put_file(&m, "f", HASH, 1, false);
	root = put_directory_blob(&m);
	put_directory(&m, "d", root.hex, 0);
	root.size = m.len;
	/* The size is part of the message; two rounds make it fit. */
	m.len = 0;
	put_directory(&m, "d", root.hex, root.size);
	root.size = m.len;
	m.len = 0;
	put_directory(&m, "d", root.hex, root.size);
	blob_path(path, sizeof(path), root.hex);
	chmod(path, 0644);
	write_file(path, m.at, m.len);
	free(m.at);

	works("mounts a directory that contains itself",
	      mount_tree(root, STAGE, NULL));
	become_action();
	works("enters it", chdir(TREE));
	while (depth < 5000 && !chdir("d"))
		depth++;
	holds("it has an end", errno == ELOOP && depth == 512);
	works("a file at the bottom", write_file("f", "x", 1));
	works("back", chdir("/"));
	become_root();
	works("unmounts", umount(TREE));
}

static void bad_blobs(void)
{
	struct message m = {};
	struct blob wrong = put_blob("four", 4), directory, odd;
	struct stat st;
	char path[256], byte;

	directory = wrong;
	odd = put_blob("", 0);
	blob_path(path, sizeof(path), odd.hex);
	unlink(path);
	mkfifo(path, 0444);

	put_file(&m, "fifo", odd.hex, 1, false);
	put_file(&m, "missing", HASH, 1, false);
	put_file(&m, "short", wrong.hex, 5, false);
	put_file(&m, "vast", wrong.hex, INT64_MAX, true);
	put_directory(&m, "dir", directory.hex, 4);
	put_directory(&m, "gone", HASH, 9);
	put_directory(&m, "huge", HASH, 1ull << 40);
	works("mounts a tree of bad blobs",
	      mount_tree(put_directory_blob(&m), STAGE, NULL));
	become_action();
	works("stat of a missing file", stat(TREE "/missing", &st));
	fails("open of a missing file", open(TREE "/missing", O_RDONLY), EIO);
	fails("open of a file of another size", open(TREE "/short", O_RDONLY),
	      EIO);
	fails("open of a file of 2^63-1 bytes", open(TREE "/vast", O_RDONLY),
	      EIO);
	fails("running it", execl(TREE "/vast", "vast", NULL), EIO);
	fails("a fifo for a blob", open(TREE "/fifo", O_RDONLY), EIO);
	fails("a file for a directory", stat(TREE "/dir/x", &st), EINVAL);
	fails("a missing directory", stat(TREE "/gone/x", &st), EIO);
	fails("a huge directory", stat(TREE "/huge/x", &st), EIO);
	fails("making a file in a missing directory",
	      open(TREE "/gone/x", O_CREAT | O_WRONLY, 0600), EIO);
	become_root();
	works("unmounts", umount(TREE));

	/* A symlink in the place of a blob leads nowhere. */
	unlink(path);
	holds("plants a symlink", !symlink("/etc/shadow", path));
	put_file(&m, "link", odd.hex, 0, false);
	put_file(&m, "link1", odd.hex, 1, false);
	works("mounts", mount_tree(put_directory_blob(&m), STAGE, NULL));
	fails("a symlink for a blob", open(TREE "/link1", O_RDONLY), EIO);
	holds("an empty file asks nobody", read_file(TREE "/link", &byte, 1) == 0);
	works("unmounts", umount(TREE));
}

/* A blob that the store deletes is gone; one that comes back is found. */
static void deleted_blobs(void)
{
	struct message m = {};
	struct blob blob = put_blob("once", 4);
	char path[256];

	put_file(&m, "f", blob.hex, 4, false);
	blob_path(path, sizeof(path), blob.hex);
	works("mounts", mount_tree(put_directory_blob(&m), STAGE, NULL));
	holds("reads", file_is(TREE "/f", "once"));
	works("deletes the blob", unlink(path));
	fails("cannot be opened any more", open(TREE "/f", O_RDONLY), EIO);
	works("the blob comes back", write_file(path, "more", 4));
	holds("reads again", file_is(TREE "/f", "more"));
	works("unmounts", umount(TREE));
}

void test_hostile(void)
{
	bad_messages();
	random_messages();
	endless();
	bad_blobs();
	deleted_blobs();
}

/* --- Options ------------------------------------------------------------ */

static long try(const char *options)
{
	return mount("actiondfs", TREE, "actiondfs", 0, options);
}

/* As the worker mounts: by descriptors, attached to nothing. */
static void detached(void)
{
	struct blob root = standard_tree();
	int cas = works("opens the CAS", open(CAS, O_PATH | O_DIRECTORY));
	int context = works("fsopen", fsopen("actiondfs", FSOPEN_CLOEXEC));
	int tree, file;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", cas);
	works("root", fsconfig(context, FSCONFIG_SET_STRING, "root", root.hex, 0));
	works("cas", fsconfig(context, FSCONFIG_SET_STRING, "cas", path, 0));
	works("stage", fsconfig(context, FSCONFIG_SET_STRING, "stage", STAGE, 0));
	works("create", fsconfig(context, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	tree = works("fsmount", fsmount(context, FSMOUNT_CLOEXEC,
					MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
	close(context);
	close(cas);
	file = works("opens an input", openat(tree, "dir/other", O_RDONLY));
	works("makes a file", mkdirat(tree, "dir/new", 0777));
	close(tree);
	holds("an open file outlives its mount", read(file, path, 6) == 6);
	close(file);
	holds("what was made is in the stage", !access(STAGE "/dir/new", F_OK));
}

void test_options(void)
{
	struct blob root = standard_tree();
	char options[512];
	struct stat st;

	fails("no options", try(""), EINVAL);
	fails("no cas", try("root=" HASH), EINVAL);
	fails("no root", try("cas=" CAS), EINVAL);
	fails("a short root", try("root=abc,cas=" CAS), EINVAL);
	fails("an unknown option", try("root=" HASH ",cas=" CAS ",x=1"), EINVAL);
	fails("a cas that is not there", try("root=" HASH ",cas=/no"), EINVAL);
	fails("a cas that is a file", try("root=" HASH ",cas=/init"), EINVAL);
	fails("a root beyond 64 MiB", try("root=" HASH ",root_size=67108865,cas="
					  CAS), EINVAL);
	fails("two stages", try("root=" HASH ",cas=" CAS ",stage=" STAGE
				",stage=" STAGE), EINVAL);
	fails("a stage that is no disk", try("root=" HASH ",cas=" CAS
					    ",stage=/sys"), EINVAL);
	mkdir("/mnt/ro", 0755);
	works("a read-only view", mount(STAGE, "/mnt/ro", NULL, MS_BIND, NULL));
	works("a read-only view", mount(NULL, "/mnt/ro", NULL, MS_BIND |
					MS_REMOUNT | MS_RDONLY, NULL));
	fails("a read-only stage", try("root=" HASH ",cas=" CAS
				       ",stage=/mnt/ro"), EINVAL);
	works("no view", umount("/mnt/ro"));
	become_action();
	fails("mounting as the action", try("root=" HASH ",cas=" CAS), EPERM);
	become_root();

	snprintf(options, sizeof(options), "root=%s,cas=" CAS, root.hex);
	works("without root_size", try(options));
	works("reads", stat(TREE "/hello", &st));
	holds("a lower layer's file is writable for its owner",
	      st.st_mode == (S_IFREG | 0644));
	fails("read-only", open(TREE "/new", O_CREAT | O_WRONLY, 0600), EROFS);
	fails("stays read-only", mount(NULL, TREE, NULL, MS_REMOUNT, NULL),
	      EINVAL);
	works("unmounts", umount(TREE));

	works("with an owner", mount_tree(root, STAGE, ",uid=7,gid=8"));
	works("stat", stat(TREE "/hello", &st));
	holds("inputs belong to him", st.st_uid == 7 && st.st_gid == 8);
	works("becomes read-only", mount(NULL, TREE, NULL,
					 MS_REMOUNT | MS_RDONLY, NULL));
	fails("no more writing", mkdir(TREE "/d", 0777), EROFS);
	works("and back", mount(NULL, TREE, NULL, MS_REMOUNT, NULL));
	works("writing again", mkdir(TREE "/d", 0777));
	works("unmounts", umount(TREE));

	detached();
}

/* --- Under overlayfs ---------------------------------------------------- */

#define MERGED	"/mnt/merged"

void test_overlay(void)
{
	struct stat st;

	works("mounts read-only", mount_tree(standard_tree(), NULL,
					     ",uid=65534,gid=65534"));
	mkdir(MERGED, 0755);
	mkdir(PLAIN "/upper", 0777);
	mkdir(PLAIN "/work", 0777);
	chown(PLAIN "/upper", ACTION_ID, ACTION_ID);
	if (mount("overlay", MERGED, "overlay", 0, "lowerdir=" TREE ",upperdir="
		  PLAIN "/upper,workdir=" PLAIN "/work,redirect_dir=on,xino=on,volatile"))
		give_up("puts an overlay on top");
	become_action();
	if (chdir(MERGED))
		give_up("enters the overlay");

	holds("reads through", file_is("hello", HELLO));
	holds("reads a nested one", file_is("link", "deep\n"));
	works("writes an input", write_file("hello", "changed", 7));
	holds("sees the change", file_is("hello", "changed"));
	holds("the input is what it was", file_is(TREE "/hello", HELLO));
	works("unlinks an input", unlink("dir/other"));
	fails("it is gone", stat("dir/other", &st), ENOENT);
	works("renames an input directory", rename("dir", "moved"));
	holds("reads what was in it", file_is("moved/nested/deep", "deep\n"));
	works("chmod of an input", chmod("init", 0700));
	works("makes a file", write_file("emptydir/new", "new", 3));
	works("appends to an input", ({
		int fd = open("moved/nested/deep", O_WRONLY | O_APPEND);
		int done = write(fd, "er\n", 3);

		close(fd);
		done == 3 ? 0 : -1;
	}));
	holds("appended", file_is("moved/nested/deep", "deep\ner\n"));
	works("hard link of an input", link("big", "big2"));

	become_root();
	works("leaves", chdir("/"));
	works("unmounts the overlay", umount(MERGED));
}
