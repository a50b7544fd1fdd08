/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A writer of Directory messages for tests: enough of protobuf to build good
 * ones, and every kind of bad one, byte by byte.
 */
#ifndef ACTIONDFS_TEST_MESSAGE_H
#define ACTIONDFS_TEST_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct message {
	uint8_t *at;
	size_t len;
	size_t room;
};

static inline void put_raw(struct message *m, const void *bytes, size_t len)
{
	if (m->len + len > m->room) {
		m->room = 2 * (m->len + len) + 64;
		m->at = realloc(m->at, m->room);
		if (!m->at)
			abort();
	}
	if (len)
		memcpy(m->at + m->len, bytes, len);
	m->len += len;
}

static inline void put_varint(struct message *m, uint64_t value)
{
	do {
		uint8_t byte = value & 0x7f;

		value >>= 7;
		if (value)
			byte |= 0x80;
		put_raw(m, &byte, 1);
	} while (value);
}

static inline void put_number(struct message *m, uint32_t field, uint64_t value)
{
	put_varint(m, (uint64_t)field << 3);
	put_varint(m, value);
}

static inline void put_bytes(struct message *m, uint32_t field,
			     const void *bytes, size_t len)
{
	put_varint(m, (uint64_t)field << 3 | 2);
	put_varint(m, len);
	put_raw(m, bytes, len);
}

static inline void put_text(struct message *m, uint32_t field, const char *text)
{
	put_bytes(m, field, text, strlen(text));
}

/* Append @inner as a field of @m and free it. */
static inline void put_message(struct message *m, uint32_t field,
			       struct message *inner)
{
	put_bytes(m, field, inner->at, inner->len);
	free(inner->at);
	*inner = (struct message) {};
}

static inline void put_digest(struct message *node, const char *hex,
			      uint64_t size)
{
	struct message digest = {};

	put_text(&digest, 1, hex);
	put_number(&digest, 2, size);
	put_message(node, 2, &digest);
}

static inline void put_file(struct message *m, const char *name,
			    const char *hex, uint64_t size, bool executable)
{
	struct message node = {};

	put_text(&node, 1, name);
	put_digest(&node, hex, size);
	if (executable)
		put_number(&node, 4, 1);
	put_message(m, 1, &node);
}

static inline void put_directory(struct message *m, const char *name,
				 const char *hex, uint64_t size)
{
	struct message node = {};

	put_text(&node, 1, name);
	put_digest(&node, hex, size);
	put_message(m, 2, &node);
}

static inline void put_symlink(struct message *m, const char *name,
			       const char *target)
{
	struct message node = {};

	put_text(&node, 1, name);
	put_text(&node, 2, target);
	put_message(m, 3, &node);
}

#endif /* ACTIONDFS_TEST_MESSAGE_H */
