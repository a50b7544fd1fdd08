/* SPDX-License-Identifier: GPL-2.0-only */
/* What parse.c takes from the kernel, for a build in user space. */
#ifndef ACTIONDFS_TEST_USERSPACE_H
#define ACTIONDFS_TEST_USERSPACE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* As in the kernel: without a message. */
#define static_assert(condition)	_Static_assert(condition, #condition)

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#endif /* ACTIONDFS_TEST_USERSPACE_H */
