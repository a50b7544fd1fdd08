/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * From a Directory message to a sorted table, and lookups in that table.
 *
 * Pure: no allocation, no locks, no kernel services, so that the same file is
 * compiled into the kernel and into the unit tests and fuzzers of user space.
 * Every byte of the input is taken to be hostile.
 */
#ifndef ACTIONDFS_PARSE_H
#define ACTIONDFS_PARSE_H

#include "format.h"

/**
 * struct acd_fault - why a message was refused, for one line in the log
 * @reason: a constant sentence
 * @offset: the byte of the message at which the parser stood
 */
struct acd_fault {
	const char *reason;
	size_t offset;
};

/**
 * acd_parse - check a Directory message, and fill a table from it
 * @blob: the message
 * @len: its length in bytes
 * @table: the table to fill, or NULL to only check and measure
 * @sizes: without @table: receives count and strings_len; with @table: what
 *	   the first call said, and what @table has room for
 * @fault: receives the reason of a refusal
 *
 * Return: 0, or -EINVAL with @fault set.
 */
int acd_parse(const u8 *blob, size_t len, struct acd_table *table,
	      struct acd_table *sizes, struct acd_fault *fault);

/**
 * acd_table_bytes - the room that a table takes
 * @sizes: count and strings_len as acd_parse() measured them
 */
size_t acd_table_bytes(const struct acd_table *sizes);

/**
 * acd_find - look a name up
 * @table: where
 * @name: the name, not NUL-ended
 * @len: its length
 *
 * Return: the entry, or NULL.
 */
const struct acd_entry *acd_find(const struct acd_table *table,
				 const char *name, size_t len);

static inline const char *acd_strings(const struct acd_table *table)
{
	return (const char *)&table->entry[table->count];
}

static inline const char *acd_name(const struct acd_table *table,
				   const struct acd_entry *entry)
{
	return acd_strings(table) + entry->name;
}

static inline const char *acd_target(const struct acd_table *table,
				     const struct acd_entry *entry)
{
	return acd_strings(table) + entry->target;
}

/**
 * acd_hash_from_hex - 64 lower-case hex digits to 32 bytes
 * @hash: receives the bytes
 * @hex: the digits
 * @len: their number
 *
 * Return: false when @hex is anything else.
 */
bool acd_hash_from_hex(u8 hash[ACD_HASH_BYTES], const char *hex, size_t len);

#endif /* ACTIONDFS_PARSE_H */
