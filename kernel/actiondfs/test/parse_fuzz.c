// SPDX-License-Identifier: GPL-2.0-only
/*
 * A fuzzer of the parser and of name lookup. With clang this is a libFuzzer
 * target (-fsanitize=fuzzer); without, -DSTANDALONE gives it a mutator of its
 * own: `parse_fuzz ROUNDS [SEED]`, or `parse_fuzz FILE...` to replay.
 */
#include <stdio.h>

#include "../parse.h"
#include "message.h"

static void check(bool holds, const char *what)
{
	if (holds)
		return;
	fprintf(stderr, "broken: %s\n", what);
	abort();
}

static int compare(const char *a, size_t la, const char *b, size_t lb)
{
	int order = memcmp(a, b, la < lb ? la : lb);

	return order ? order : la < lb ? -1 : la > lb;
}

static void check_table(const struct acd_table *table)
{
	const char *strings = acd_strings(table), *last = "";
	size_t last_len = 0;
	u32 i;

	for (i = 0; i < table->count; i++) {
		const struct acd_entry *e = &table->entry[i];
		const char *name = acd_name(table, e);

		check(e->name + e->name_len < table->strings_len, "name inside");
		check(strlen(name) == e->name_len, "name ended");
		check(e->name_len && e->name_len <= ACD_NAME_MAX, "name length");
		check(!memchr(name, '/', e->name_len), "no slash");
		check(compare(last, last_len, name, e->name_len) < 0, "sorted");
		check(acd_find(table, name, e->name_len) == e, "found");
		if (e->type == ACD_SYMLINK) {
			check(e->target + e->size < table->strings_len,
			      "target inside");
			check(strlen(strings + e->target) == e->size,
			      "target ended");
		}
		last = name;
		last_len = e->name_len;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct acd_table sizes = {}, *table;
	struct acd_fault fault = {};

	if (acd_parse(data, len, NULL, &sizes, &fault)) {
		check(fault.reason && fault.offset <= len, "fault is told");
		return 0;
	}
	table = malloc(acd_table_bytes(&sizes));
	if (!table)
		return 0;
	check(!acd_parse(data, len, table, &sizes, &fault), "parses twice");
	check_table(table);
	/* The input as a name: must be told apart from every real one. */
	acd_find(table, (const char *)data, len);
	free(table);
	return 0;
}

#ifdef STANDALONE
#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static uint64_t state;

static uint32_t any(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return below ? (state >> 11) % below : 0;
}

static struct message seed(void)
{
	struct message m = {};
	uint32_t i, count = any(6);
	char name[8];

	for (i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%c%u", 'a' + any(3), any(30));
		switch (any(3)) {
		case 0:
			put_file(&m, name, HASH, any(1000), any(2));
			break;
		case 1:
			put_directory(&m, name, HASH, any(1000));
			break;
		default:
			put_symlink(&m, name, "../target");
			break;
		}
	}
	return m;
}

static void mutate(struct message *m)
{
	static const uint8_t interesting[] = { 0, 1, 2, 0x7f, 0x80, 0xff, '/',
					       '.', 0x0a, 0x12, 0x1a };
	uint32_t rounds = any(8);

	while (rounds-- && m->len) {
		uint32_t at = any(m->len), span = any(m->len - at + 1);

		switch (any(5)) {
		case 0:
			m->at[at] ^= 1 << any(8);
			break;
		case 1:
			m->at[at] = interesting[any(sizeof(interesting))];
			break;
		case 2:
			m->len = at;
			break;
		case 3:
			memmove(m->at + at, m->at + at + span,
				m->len - at - span);
			m->len -= span;
			break;
		default: {
			uint8_t *copy = malloc(span + 1);

			memcpy(copy, m->at + at, span);
			put_raw(m, copy, span);
			free(copy);
			break;
		}
		}
	}
}

static int replay(const char *path)
{
	struct message m = {};
	char buffer[4096];
	size_t got;
	FILE *file = fopen(path, "rb");

	if (!file) {
		perror(path);
		return 1;
	}
	while ((got = fread(buffer, 1, sizeof(buffer), file)) > 0)
		put_raw(&m, buffer, got);
	fclose(file);
	LLVMFuzzerTestOneInput(m.at ? m.at : (uint8_t *)"", m.len);
	free(m.at);
	return 0;
}

int main(int argc, char **argv)
{
	char *end = NULL;
	unsigned long rounds = argc > 1 ? strtoul(argv[1], &end, 10) : 100000;
	int i, failed = 0;

	if (end && *end) {
		for (i = 1; i < argc; i++)
			failed |= replay(argv[i]);
		return failed;
	}
	state = argc > 2 ? strtoull(argv[2], NULL, 10) : 88172645463325252ull;
	while (rounds--) {
		struct message m = seed();

		mutate(&m);
		/* Memory of exactly that size, for the sanitizer. */
		m.at = realloc(m.at, m.len ? m.len : 1);
		LLVMFuzzerTestOneInput(m.at, m.len);
		free(m.at);
	}
	return 0;
}
#endif
