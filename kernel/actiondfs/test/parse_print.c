// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the parser makes of messages, in words: for the test that compares it
 * with the daemon's own (crates/inputroot/tests/same_directories.rs).
 *
 * Reads messages from standard input, each after its length (32 bits, little
 * endian). For each it prints `refused REASON`, or `accepted COUNT` and a line
 * an entry: its type (f, x for an executable, d, s), its name, and its hash and
 * size, or its target. Names, hashes and targets are in hexadecimal.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../parse.h"

static void print_hex(const void *bytes, size_t len)
{
	const u8 *at = bytes;

	putchar(' ');
	while (len--)
		printf("%02x", *at++);
}

static void print_entry(const struct acd_table *table,
			const struct acd_entry *entry)
{
	static const char letters[] = { [ACD_FILE] = 'f', [ACD_DIRECTORY] = 'd',
					[ACD_SYMLINK] = 's' };

	putchar(entry->executable ? 'x' : letters[entry->type]);
	print_hex(acd_name(table, entry), entry->name_len);
	if (entry->type == ACD_SYMLINK) {
		print_hex(acd_target(table, entry), entry->size);
	} else {
		print_hex(entry->hash, sizeof(entry->hash));
		printf(" %llu", (unsigned long long)entry->size);
	}
	putchar('\n');
}

static void print_message(const u8 *message, size_t len)
{
	struct acd_table sizes = {}, *table;
	struct acd_fault fault = {};
	u32 i;

	if (acd_parse(message, len, NULL, &sizes, &fault)) {
		printf("refused %s\n", fault.reason);
		return;
	}
	table = malloc(acd_table_bytes(&sizes));
	if (!table || acd_parse(message, len, table, &sizes, &fault))
		abort();
	printf("accepted %u\n", table->count);
	for (i = 0; i < table->count; i++)
		print_entry(table, &table->entry[i]);
	free(table);
}

int main(void)
{
	u8 head[4];

	while (fread(head, sizeof(head), 1, stdin) == 1) {
		size_t len = head[0] | head[1] << 8 | head[2] << 16 |
			     (size_t)head[3] << 24;
		u8 *message = malloc(len + 1);

		if (!message || fread(message, 1, len, stdin) != len)
			abort();
		print_message(message, len);
		free(message);
	}
	return 0;
}
