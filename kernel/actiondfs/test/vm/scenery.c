// SPDX-License-Identifier: GPL-2.0-only
/* A CAS, a stage and a standard tree for each group; small helpers. */
#define _GNU_SOURCE
#include <ftw.h>
#include <grp.h>
#include <sys/mount.h>
#include <sys/statfs.h>

#include "harness.h"

static uint64_t random_state = 88172645463325252ull;

void any_seed(uint64_t seed)
{
	random_state = seed * 0x9e3779b97f4a7c15ull | 1;
}

uint32_t any(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return below ? (random_state >> 11) % below : 0;
}

int write_file(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	const char *at = bytes;

	if (fd < 0)
		return -1;
	while (len) {
		ssize_t done = write(fd, at, len);

		if (done <= 0) {
			close(fd);
			return -1;
		}
		at += done;
		len -= done;
	}
	return close(fd);
}

ssize_t read_file(const char *path, void *out, size_t room)
{
	int fd = open(path, O_RDONLY);
	ssize_t got, all = 0;

	if (fd < 0)
		return -1;
	while ((got = read(fd, (char *)out + all, room - all)) > 0)
		all += got;
	close(fd);
	return got < 0 ? -1 : all;
}

bool file_is(const char *path, const char *content)
{
	char got[4096] = "";
	ssize_t len = read_file(path, got, sizeof(got) - 1);

	return len == (ssize_t)strlen(content) && !memcmp(got, content, len);
}

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	return remove(path);
}

static void remove_all(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

void scenery(void)
{
	remove_all(CAS);
	remove_all(STAGE);
	remove_all(PLAIN);
	umask(0);
	mkdir(CAS, 0755);
	mkdir(STAGE, 0777);
	mkdir(PLAIN, 0777);
	mkdir(TREE, 0755);
	umask(022);
}

void blob_path(char *out, size_t room, const char *hex)
{
	snprintf(out, room, CAS "/%.2s/%s", hex, hex);
}

struct blob name_blob(uint64_t size)
{
	static uint32_t serial;
	struct blob blob = { .size = size };

	serial++;
	snprintf(blob.hex, sizeof(blob.hex), "%02x%030u%032x", serial & 0xff,
		 serial, serial * 2654435761u);
	return blob;
}

struct blob put_blob(const void *bytes, size_t len)
{
	struct blob blob = name_blob(len);
	char path[256];

	snprintf(path, sizeof(path), CAS "/%.2s", blob.hex);
	mkdir(path, 0755);
	blob_path(path, sizeof(path), blob.hex);
	if (write_file(path, bytes, len) || chmod(path, 0444))
		give_up("writes a blob");
	return blob;
}

struct blob put_blob_file(const char *path)
{
	struct stat st;
	struct blob blob;
	void *bytes;

	if (stat(path, &st))
		give_up("finds a file for the CAS");
	bytes = malloc(st.st_size);
	if (read_file(path, bytes, st.st_size) != st.st_size)
		give_up("reads a file for the CAS");
	blob = put_blob(bytes, st.st_size);
	free(bytes);
	return blob;
}

struct blob put_directory_blob(struct message *m)
{
	struct blob blob = put_blob(m->at ? (void *)m->at : "", m->len);

	free(m->at);
	*m = (struct message) {};
	return blob;
}

/*
 * big		3 MiB, byte i is i % 251
 * dir/		nested/deep "deep\n", other "other\n"
 * empty	0 bytes, no blob
 * emptydir/	no blob either
 * hello	"hello world\n"
 * init		this program, executable
 * link		-> dir/nested/deep
 */
struct blob standard_tree(void)
{
	struct message m = {};
	struct blob nested, dir, hello, big, init, none = {};
	uint8_t *bytes = malloc(BIG_BYTES);
	size_t i;

	for (i = 0; i < BIG_BYTES; i++)
		bytes[i] = i % 251;
	big = put_blob(bytes, BIG_BYTES);
	free(bytes);
	memset(none.hex, 'e', 64);

	struct blob deep = put_blob("deep\n", 5), other = put_blob("other\n", 6);

	put_file(&m, "deep", deep.hex, 5, false);
	nested = put_directory_blob(&m);
	put_directory(&m, "nested", nested.hex, nested.size);
	put_file(&m, "other", other.hex, 6, false);
	dir = put_directory_blob(&m);

	hello = put_blob(HELLO, strlen(HELLO));
	init = put_blob_file("/init");
	put_file(&m, "big", big.hex, BIG_BYTES, false);
	put_file(&m, "empty", none.hex, 0, false);
	put_file(&m, "hello", hello.hex, hello.size, false);
	put_file(&m, "init", init.hex, init.size, true);
	put_directory(&m, "dir", dir.hex, dir.size);
	put_directory(&m, "emptydir", none.hex, 0);
	put_symlink(&m, "link", "dir/nested/deep");
	return put_directory_blob(&m);
}

int mount_tree(struct blob root, const char *stage, const char *more)
{
	char options[1024];

	snprintf(options, sizeof(options),
		 "root=%s,root_size=%llu,cas=" CAS "%s%s%s", root.hex,
		 (unsigned long long)root.size, stage ? ",stage=" : "",
		 stage ?: "", more ?: "");
	return mount("actiondfs", TREE, "actiondfs",
		     MS_NOSUID | MS_NODEV | MS_NOATIME, options);
}

void mount_strict(void)
{
	if (mount_tree(standard_tree(), STAGE, NULL))
		give_up("mounts the standard tree");
	if (chdir(TREE))
		give_up("enters the standard tree");
}

void unmount_tree(void)
{
	struct statfs fs;

	if (!statfs(TREE, &fs) && (uint32_t)fs.f_type == 0x41444653)
		works("the tree can be unmounted", umount(TREE));
}

void become_action(void)
{
	if (setgroups(0, NULL) || setegid(ACTION_ID) || seteuid(ACTION_ID))
		give_up("becomes the action");
}

void become_root(void)
{
	if (seteuid(0) || setegid(0))
		give_up("becomes root");
}
