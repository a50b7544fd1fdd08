/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The test program of actiondfs. It is the only program of its VM: it boots as
 * /init, mounts a scratch ext4, runs all groups of cases, prints one line per
 * case ("PASS group: what" or "FAIL ..."), and powers the VM off.
 *
 * Each group runs in a process of its own, on a CAS and a stage of its own.
 */
#ifndef ACTIONDFS_VM_HARNESS_H
#define ACTIONDFS_VM_HARNESS_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include "../message.h"

/* Who the action is. */
#define ACTION_ID	65534

/* The tree that most groups look at; see tree.c. */
#define HELLO		"hello world\n"
#define BIG_BYTES	(3u << 20)

/* --- Verdicts ---------------------------------------------------------- */

void verdict(bool ok, const char *what, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* @what holds. */
#define holds(what, condition)						\
	verdict(condition, what, "line %d, errno %s", __LINE__,		\
		strerrorname_np(errno) ?: "none")

/* @call succeeds. */
#define works(what, call) ({						\
	long got_ = (long)(call);					\
	verdict(got_ != -1, what, "line %d: %s", __LINE__,		\
		strerrorname_np(errno));				\
	got_;								\
})

/* @call fails with @expected. */
#define fails(what, call, expected) ({					\
	long got_;							\
	errno = 0;							\
	got_ = (long)(call);						\
	verdict(got_ == -1 && errno == (expected), what,		\
		"line %d: %s instead of %s", __LINE__,			\
		got_ == -1 ? strerrorname_np(errno) : "success",	\
		strerrorname_np(expected));				\
})

/* Stop the group: what follows makes no sense without this. */
void give_up(const char *what) __attribute__((noreturn));

/* --- Scenery (scenery.c) ----------------------------------------------- */

/* Every test's working directories; made anew for each group. */
#define SCRATCH		"/scratch"
#define CAS		SCRATCH "/cas"
#define STAGE		SCRATCH "/stage"
#define TREE		"/mnt/tree"
#define PLAIN		SCRATCH "/plain"

void scenery(void);

/* Nobody checks hashes in the kernel, so blobs are named by serial numbers. */
struct blob {
	char hex[65];
	uint64_t size;
};

/* The next name, without a blob. */
struct blob name_blob(uint64_t size);
struct blob put_blob(const void *bytes, size_t len);
struct blob put_blob_file(const char *path);
/* Write the message as a blob and free it. */
struct blob put_directory_blob(struct message *m);
void blob_path(char *out, size_t room, const char *hex);

/* The standard tree's root; see scenery.c for what stands in it. */
struct blob standard_tree(void);

/* Mount; -1 and errno on failure. stage may be NULL: read-only. */
int mount_tree(struct blob root, const char *stage, const char *more);
void mount_strict(void);
void unmount_tree(void);

/* From here on the process is the action (fsuid and capabilities). */
void become_action(void);
void become_root(void);

/* --- Small things ------------------------------------------------------ */

int write_file(const char *path, const void *bytes, size_t len);
/* Bytes read into @out, or -1. */
ssize_t read_file(const char *path, void *out, size_t room);
bool file_is(const char *path, const char *content);
uint32_t any(uint32_t below);
void any_seed(uint64_t seed);

/* --- Groups ------------------------------------------------------------ */

void test_reading(void);
void test_refusals(void);
void test_staging(void);
void test_names(void);
void test_special(void);
void test_permissions(void);
void test_listing(void);
void test_hostile(void);
void test_options(void);
void test_overlay(void);
void test_fsx(void);
void test_namespace(void);
void test_pressure(void);
void measure(void);
/* On the host: make the tree that measure() looks at, for mkfs.erofs. */
int lay_out(const char *directory);

#endif /* ACTIONDFS_VM_HARNESS_H */
