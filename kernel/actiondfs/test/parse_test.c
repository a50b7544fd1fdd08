// SPDX-License-Identifier: GPL-2.0-only
/* Unit tests of the parser, in user space: `cargo xtask kernel check`. */
#include <stdio.h>

#include "../parse.h"
#include "message.h"

#define A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static int failures;

static void report(const char *name, bool ok, const char *detail)
{
	printf("%s %s%s%s\n", ok ? "PASS" : "FAIL", name, detail ? ": " : "",
	       detail ? detail : "");
	failures += !ok;
}

static struct acd_table *parse(const struct message *m, struct acd_fault *fault)
{
	struct acd_table sizes = {}, *table;

	if (acd_parse(m->at ? m->at : (u8 *)"", m->len, NULL, &sizes, fault))
		return NULL;
	table = malloc(acd_table_bytes(&sizes));
	if (!table || acd_parse(m->at ? m->at : (u8 *)"", m->len, table, &sizes,
				fault))
		abort();
	return table;
}

/* "name:type:size:x=hash-or-target ..." of all entries, in order. */
static void show(const struct acd_table *table, char *out, size_t room)
{
	size_t used = 0;
	u32 i;

	out[0] = 0;
	for (i = 0; i < table->count && used < room; i++) {
		const struct acd_entry *e = &table->entry[i];

		used += snprintf(out + used, room - used, "%s%s:%c:%llu%s",
				 i ? " " : "", acd_name(table, e),
				 " fds"[e->type], (unsigned long long)e->size,
				 e->executable ? ":x" : "");
		if (used < room && e->type == ACD_SYMLINK)
			used += snprintf(out + used, room - used, ">%s",
					 acd_target(table, e));
	}
}

static void accepts(const char *name, struct message *m, const char *expected)
{
	struct acd_fault fault = {};
	struct acd_table *table = parse(m, &fault);
	char shown[1024] = "";
	u32 i;
	bool ok = table;

	if (table) {
		show(table, shown, sizeof(shown));
		ok = !strcmp(shown, expected);
		for (i = 0; i < table->count; i++) {
			const struct acd_entry *e = &table->entry[i];

			ok &= acd_find(table, acd_name(table, e),
				       e->name_len) == e;
		}
		ok &= !acd_find(table, "no such name", 12);
		ok &= !acd_find(table, "", 0);
	}
	report(name, ok, ok ? NULL : table ? shown : fault.reason);
	free(table);
	free(m->at);
	*m = (struct message) {};
}

static void refuses(const char *name, struct message *m, const char *reason)
{
	struct acd_fault fault = {};
	struct acd_table *table = parse(m, &fault);
	bool ok = !table && !strcmp(fault.reason, reason);

	report(name, ok, ok ? NULL : table ? "accepted" : fault.reason);
	free(table);
	free(m->at);
	*m = (struct message) {};
}

static void good_messages(void)
{
	struct message m = {}, node = {};

	accepts("an empty message is an empty directory", &m, "");

	put_file(&m, "a", A, 7, false);
	put_file(&m, "b", A, 0, true);
	put_directory(&m, "0", B, 9);
	put_directory(&m, "c", B, 9);
	put_symlink(&m, "aa", "../x");
	accepts("three lists are merged by name", &m,
		"0:d:9 a:f:7 aa:s:4>../x b:f:0:x c:d:9");

	put_symlink(&m, "a", "");
	accepts("an empty target is the link's own directory", &m, "a:s:1>.");

	put_symlink(&m, "l", "t");
	put_file(&m, "a", A, 1, false);
	put_directory(&m, "d", A, 1);
	put_file(&m, "z", A, 1, false);
	put_directory(&m, "e", A, 1);
	accepts("lists may lie interleaved", &m,
		"a:f:1 d:d:1 e:d:1 l:s:1>t z:f:1");

	put_number(&m, 99, 5);
	put_text(&m, 98, "x");
	put_varint(&m, 97 << 3 | 1);
	put_raw(&m, "12345678", 8);
	put_varint(&m, 96 << 3 | 5);
	put_raw(&m, "1234", 4);
	put_text(&m, 5, "properties");
	put_file(&m, "a", A, 1, false);
	accepts("unknown fields are skipped", &m, "a:f:1");

	put_text(&node, 1, "old");
	put_text(&node, 1, "new");
	put_digest(&node, A, 1);
	put_digest(&node, B, 2);
	put_message(&m, 1, &node);
	accepts("the last of a repeated field counts", &m, "new:f:2");

	put_file(&m, "A", A, 1, false);
	put_file(&m, "a", A, 1, false);
	put_file(&m, "a\x01", A, 1, false);
	put_file(&m, "aa", A, 1, false);
	put_file(&m, "\xc3\xa4", A, 1, false);
	accepts("order is that of unsigned bytes", &m,
		"A:f:1 a:f:1 a\x01:f:1 aa:f:1 \xc3\xa4:f:1");

	put_file(&m, "...", A, 1, false);
	put_file(&m, "..a", A, 1, false);
	put_file(&m, ".a", A, 1, false);
	accepts("names may begin with dots", &m, "...:f:1 ..a:f:1 .a:f:1");
}

static void bad_names(void)
{
	static const char long_name[] = {
		[0 ... 255] = 'n', [256] = 0,
	};
	static const struct { const char *what, *name, *why; } cases[] = {
		{ "an empty name", "", "a name is empty or longer than 255 bytes" },
		{ "a long name", long_name, "a name is empty or longer than 255 bytes" },
		{ "a dot", ".", "a name is . or .." },
		{ "two dots", "..", "a name is . or .." },
		{ "a slash", "a/b", "a name contains a slash or a NUL" },
		{ "an absolute name", "/etc", "a name contains a slash or a NUL" },
	};
	struct message m = {}, node = {};
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		put_file(&m, cases[i].name, A, 1, false);
		refuses(cases[i].what, &m, cases[i].why);
		put_directory(&m, cases[i].name, A, 1);
		refuses(cases[i].what, &m, cases[i].why);
		put_symlink(&m, cases[i].name, "t");
		refuses(cases[i].what, &m, cases[i].why);
	}
	put_bytes(&node, 1, "a\0b", 3);
	put_digest(&node, A, 1);
	put_message(&m, 1, &node);
	refuses("a NUL in a name", &m, "a name contains a slash or a NUL");
}

static void bad_order(void)
{
	const char *sorted = "the names of a list are not strictly sorted";
	const char *twice = "one name stands in two lists";
	struct message m = {};

	put_file(&m, "b", A, 1, false);
	put_file(&m, "a", A, 1, false);
	refuses("unsorted files", &m, sorted);
	put_file(&m, "a", A, 1, false);
	put_file(&m, "a", A, 1, false);
	refuses("a file twice", &m, sorted);
	put_symlink(&m, "a", "t");
	put_symlink(&m, "a", "t");
	refuses("a symlink twice", &m, sorted);
	put_file(&m, "aa", A, 1, false);
	put_file(&m, "a", A, 1, false);
	refuses("a prefix after the longer name", &m, sorted);
	put_file(&m, "a", A, 1, false);
	put_directory(&m, "a", A, 1);
	refuses("a file and a directory of one name", &m, twice);
	put_symlink(&m, "x", "t");
	put_directory(&m, "a", A, 1);
	put_directory(&m, "x", A, 1);
	refuses("a symlink and a directory of one name", &m, twice);
}

static void bad_nodes(void)
{
	struct message m = {}, node = {};
	char target[4097];

	put_text(&node, 1, "a");
	put_message(&m, 1, &node);
	refuses("no digest", &m, "a node has no digest");
	put_file(&m, "a", "abc", 1, false);
	refuses("a short hash", &m, "a hash is not 64 hex digits");
	put_file(&m, "a", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 1, false);
	refuses("upper-case hex", &m, "a hash is not 64 hex digits");
	put_file(&m, "a", A, UINT64_MAX, false);
	refuses("a negative size", &m, "a size is not a positive number");
	memset(target, 't', 4096);
	target[4096] = 0;
	put_symlink(&m, "a", target);
	refuses("a long target", &m, "a target is longer than 4095 bytes");
	put_text(&node, 1, "a");
	put_bytes(&node, 2, "t\0", 2);
	put_message(&m, 3, &node);
	refuses("a NUL in a target", &m, "a target contains a NUL");
	put_number(&m, 1, 4);
	refuses("a number for a node", &m, "a node is not a message");
	put_number(&node, 1, 4);
	put_message(&m, 1, &node);
	refuses("a number for a name", &m, "a name is not a string");
	put_text(&node, 1, "a");
	put_digest(&node, A, 1);
	put_text(&node, 4, "yes");
	put_message(&m, 1, &node);
	refuses("a string for a bool", &m, "is_executable is not a bool");
}

static void bad_wire(void)
{
	struct message m = {};

	put_raw(&m, "\x0a\x05" "ab", 4);
	refuses("a field beyond the end", &m,
		"a field is longer than what is left");
	put_raw(&m, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11);
	refuses("a length of 2^64-1", &m,
		"a field is longer than what is left");
	put_raw(&m, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11);
	refuses("a number of more than 64 bits", &m,
		"a number has more than 64 bits");
	put_raw(&m, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 11);
	refuses("a number of eleven bytes", &m,
		"a number has more than 64 bits");
	put_raw(&m, "\x0a", 1);
	refuses("an end after a tag", &m, "ends inside a number");
	put_raw(&m, "\x80", 1);
	refuses("an end inside a tag", &m, "ends inside a number");
	put_raw(&m, "\x0b\x0c", 2);
	refuses("a group", &m, "a field has an unknown wire type");
	put_raw(&m, "\x00\x00", 2);
	refuses("field number 0", &m, "a field has an impossible number");
	put_raw(&m, "\x09" "1234", 5);
	refuses("a cut fixed64", &m, "a field is longer than what is left");
}

/* Any prefix of a good message is either a good one or refused; never read
 * beyond its end (the sanitizer looks on: each prefix has its own memory). */
static void every_prefix(void)
{
	struct message m = {};
	struct acd_fault fault;
	size_t len;

	put_file(&m, "file", A, 7, true);
	put_directory(&m, "directory", B, 9);
	put_symlink(&m, "symlink", "../target");
	for (len = 0; len <= m.len; len++) {
		struct message prefix = {};

		put_raw(&prefix, m.at, len);
		prefix.at = realloc(prefix.at, len ? len : 1);
		free(parse(&prefix, &fault));
		free(prefix.at);
	}
	free(m.at);
	report("every prefix ends well", true, NULL);
}

static void large(void)
{
	struct message m = {};
	struct acd_fault fault = {};
	struct acd_table *table;
	char name[16];
	bool ok;
	u32 i;

	for (i = 0; i < 10000; i++) {
		snprintf(name, sizeof(name), "f%07u", i);
		put_file(&m, name, A, i, false);
	}
	table = parse(&m, &fault);
	ok = table && table->count == 10000;
	for (i = 0; ok && i < 10000; i++) {
		const struct acd_entry *e;

		snprintf(name, sizeof(name), "f%07u", i);
		e = acd_find(table, name, strlen(name));
		ok = e && e->size == i;
	}
	report("ten thousand files are all found", ok, NULL);
	free(table);
	free(m.at);
	m = (struct message) {};

	for (i = 0; i <= ACD_ENTRIES_MAX; i++) {
		snprintf(name, sizeof(name), "%07x", i);
		put_symlink(&m, name, "t");
	}
	refuses("more than a million entries", &m,
		"has more than a million entries");
}

int main(void)
{
	good_messages();
	bad_names();
	bad_order();
	bad_nodes();
	bad_wire();
	every_prefix();
	large();
	return failures != 0;
}
