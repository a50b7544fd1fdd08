// SPDX-License-Identifier: GPL-2.0-only
/*
 * The reader of Directory messages. See parse.h for the contract and format.h
 * for the layout.
 *
 * The three lists of a message may lie interleaved on the wire. A cursor walks
 * over one of them and skips the fields of the others; three cursors side by
 * side are merged by name, which sorts the table and finds duplicates without
 * scratch memory. The merge is run twice: once to check and measure, once to
 * fill.
 */
#ifdef __KERNEL__
#include <linux/errno.h>
#include <linux/string.h>
#endif

#include "parse.h"

/* A stretch of the message that is still to be read. */
struct slice {
	const u8 *at;
	const u8 *end;
};

/* One field: varints have a value, byte strings a body, others neither. */
struct field {
	u32 number;
	u32 wire;
	u64 value;
	struct slice body;
};

/* A FileNode, DirectoryNode or SymlinkNode; strings point into the message. */
struct node {
	struct slice name;
	struct slice target;
	u8 hash[ACD_HASH_BYTES];
	bool has_hash;
	bool executable;
	u64 size;
};

/* The walk over one of the three lists. */
struct cursor {
	u32 list;
	struct slice rest;
	bool done;
	struct node node;
};

static size_t slice_len(const struct slice *s)
{
	return s->end - s->at;
}

static int slice_compare(const struct slice *a, const struct slice *b)
{
	size_t la = slice_len(a), lb = slice_len(b);
	int order = memcmp(a->at, b->at, la < lb ? la : lb);

	if (order)
		return order;
	return la < lb ? -1 : la > lb;
}

static const char *read_varint(struct slice *s, u64 *value)
{
	unsigned int shift;

	*value = 0;
	for (shift = 0; shift < 64; shift += 7) {
		u8 byte;

		if (s->at == s->end)
			return "ends inside a number";
		byte = *s->at++;
		if (shift == 63 && byte > 1)
			break;
		*value |= (u64)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return NULL;
	}
	return "a number has more than 64 bits";
}

static const char *skip_bytes(struct slice *s, u64 count, struct slice *body)
{
	if (count > slice_len(s))
		return "a field is longer than what is left";
	body->at = s->at;
	body->end = s->at + count;
	s->at = body->end;
	return NULL;
}

static const char *read_field(struct slice *s, struct field *f)
{
	const char *why;
	u64 tag;

	memset(f, 0, sizeof(*f));
	why = read_varint(s, &tag);
	if (why)
		return why;
	if (tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
		return "a field has an impossible number";
	f->number = tag >> 3;
	f->wire = tag & 7;

	switch (f->wire) {
	case ACD_WIRE_VARINT:
		return read_varint(s, &f->value);
	case ACD_WIRE_FIXED64:
		return skip_bytes(s, 8, &f->body);
	case ACD_WIRE_FIXED32:
		return skip_bytes(s, 4, &f->body);
	case ACD_WIRE_BYTES:
		why = read_varint(s, &f->value);
		return why ? why : skip_bytes(s, f->value, &f->body);
	default:
		return "a field has an unknown wire type";
	}
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

bool acd_hash_from_hex(u8 hash[ACD_HASH_BYTES], const char *hex, size_t len)
{
	size_t i;

	if (len != ACD_HASH_HEX)
		return false;
	for (i = 0; i < ACD_HASH_BYTES; i++) {
		int high = hex_digit(hex[2 * i]);
		int low = hex_digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		hash[i] = high << 4 | low;
	}
	return true;
}

static const char *read_digest(struct slice s, struct node *node)
{
	struct field f;

	while (s.at != s.end) {
		const char *why = read_field(&s, &f);

		if (why)
			return why;
		if (f.number == ACD_DIGEST_HASH) {
			if (f.wire != ACD_WIRE_BYTES ||
			    !acd_hash_from_hex(node->hash,
					       (const char *)f.body.at,
					       slice_len(&f.body)))
				return "a hash is not 64 hex digits";
			node->has_hash = true;
		} else if (f.number == ACD_DIGEST_SIZE) {
			if (f.wire != ACD_WIRE_VARINT || f.value >> 63)
				return "a size is not a positive number";
			node->size = f.value;
		}
	}
	return NULL;
}

static const char *read_node_field(u32 list, const struct field *f,
				   struct node *node)
{
	switch (f->number) {
	case ACD_NODE_NAME:
		if (f->wire != ACD_WIRE_BYTES)
			return "a name is not a string";
		node->name = f->body;
		return NULL;
	case ACD_NODE_DIGEST: /* and ACD_NODE_TARGET */
		if (f->wire != ACD_WIRE_BYTES)
			return "a digest or target is not a message or string";
		if (list != ACD_DIRECTORY_SYMLINKS)
			return read_digest(f->body, node);
		node->target = f->body;
		return NULL;
	case ACD_NODE_EXECUTABLE:
		if (list != ACD_DIRECTORY_FILES)
			return NULL;
		if (f->wire != ACD_WIRE_VARINT)
			return "is_executable is not a bool";
		node->executable = f->value != 0;
		return NULL;
	default:
		return NULL;
	}
}

static const char *check_name(const struct slice *name)
{
	size_t len = slice_len(name);

	if (len == 0 || len > ACD_NAME_MAX)
		return "a name is empty or longer than 255 bytes";
	if (memchr(name->at, '/', len) || memchr(name->at, 0, len))
		return "a name contains a slash or a NUL";
	if (name->at[0] == '.' && (len == 1 || (len == 2 && name->at[1] == '.')))
		return "a name is . or ..";
	return NULL;
}

/* A client that encodes the path "." as nothing means the link's own directory. */
static void complete_target(struct slice *target)
{
	static const u8 dot[] = { '.' };

	if (slice_len(target) == 0) {
		target->at = dot;
		target->end = dot + sizeof(dot);
	}
}

static const char *check_target(const struct slice *target)
{
	size_t len = slice_len(target);

	if (len > ACD_TARGET_MAX)
		return "a target is longer than 4095 bytes";
	if (memchr(target->at, 0, len))
		return "a target contains a NUL";
	return NULL;
}

static const char *read_node(u32 list, struct slice s, struct node *node)
{
	const char *why;
	struct field f;

	memset(node, 0, sizeof(*node));
	/* Never NULL: memcmp and memchr want a pointer even for no bytes. */
	node->name.at = node->name.end = s.at;
	node->target.at = node->target.end = s.at;
	while (s.at != s.end) {
		why = read_field(&s, &f);
		if (!why)
			why = read_node_field(list, &f, node);
		if (why)
			return why;
	}
	why = check_name(&node->name);
	if (why)
		return why;
	if (list == ACD_DIRECTORY_SYMLINKS) {
		complete_target(&node->target);
		return check_target(&node->target);
	}
	return node->has_hash ? NULL : "a node has no digest";
}

/* Move on to the next node of the cursor's list. */
static const char *advance(struct cursor *c)
{
	struct slice last = c->node.name;
	bool first = !last.at;
	struct field f;

	while (c->rest.at != c->rest.end) {
		const char *why = read_field(&c->rest, &f);

		if (why)
			return why;
		if (f.number != c->list)
			continue;
		if (f.wire != ACD_WIRE_BYTES)
			return "a node is not a message";
		why = read_node(c->list, f.body, &c->node);
		if (why)
			return why;
		if (!first && slice_compare(&last, &c->node.name) >= 0)
			return "the names of a list are not strictly sorted";
		return NULL;
	}
	c->done = true;
	return NULL;
}

static struct cursor *smallest(struct cursor *cursors, const char **why)
{
	struct cursor *best = NULL;
	int i;

	*why = NULL;
	for (i = 0; i < 3; i++) {
		struct cursor *c = &cursors[i];
		int order = -1;

		if (c->done)
			continue;
		if (best)
			order = slice_compare(&c->node.name, &best->node.name);
		if (order == 0)
			*why = "one name stands in two lists";
		if (order < 0)
			best = c;
	}
	return best;
}

static u32 put_string(char *strings, u32 *used, const struct slice *s)
{
	u32 at = *used;
	size_t len = slice_len(s);

	if (strings) {
		memcpy(strings + at, s->at, len);
		strings[at + len] = 0;
	}
	*used += len + 1;
	return at;
}

static void put_entry(struct acd_entry *entry, char *strings, u32 *used,
		      const struct cursor *c)
{
	static const u8 types[] = {
		[ACD_DIRECTORY_FILES] = ACD_FILE,
		[ACD_DIRECTORY_DIRECTORIES] = ACD_DIRECTORY,
		[ACD_DIRECTORY_SYMLINKS] = ACD_SYMLINK,
	};
	const struct node *node = &c->node;
	struct acd_entry made = {
		.name_len = slice_len(&node->name),
		.type = types[c->list],
		.executable = node->executable,
		.size = node->size,
	};

	made.name = put_string(strings, used, &node->name);
	if (made.type == ACD_SYMLINK) {
		made.size = slice_len(&node->target);
		made.target = put_string(strings, used, &node->target);
	} else {
		memcpy(made.hash, node->hash, sizeof(made.hash));
	}
	if (entry)
		*entry = made;
}

int acd_parse(const u8 *blob, size_t len, struct acd_table *table,
	      struct acd_table *sizes, struct acd_fault *fault)
{
	struct cursor cursors[3], *c = cursors;
	u32 count = 0, used = 0;
	char *strings = NULL;
	const char *why;
	int i;

	fault->offset = 0;
	if (len > ACD_BLOB_MAX) {
		fault->reason = "is larger than 64 MiB";
		return -EINVAL;
	}
	if (table) {
		table->count = sizes->count;
		table->strings_len = sizes->strings_len;
		strings = (char *)acd_strings(table);
	}

	memset(cursors, 0, sizeof(cursors));
	for (i = 0; i < 3; i++) {
		c = &cursors[i];
		c->list = ACD_DIRECTORY_FILES + i;
		c->rest.at = blob;
		c->rest.end = blob + len;
		why = advance(c);
		if (why)
			goto refused;
	}

	while ((c = smallest(cursors, &why)) && !why) {
		if (count == ACD_ENTRIES_MAX) {
			why = "has more than a million entries";
			break;
		}
		put_entry(table ? &table->entry[count] : NULL, strings, &used,
			  c);
		count++;
		why = advance(c);
		if (why)
			break;
	}
	if (why)
		goto refused;
	sizes->count = count;
	sizes->strings_len = used;
	return 0;

refused:
	fault->reason = why;
	fault->offset = c->rest.at - blob;
	return -EINVAL;
}

size_t acd_table_bytes(const struct acd_table *sizes)
{
	return sizeof(struct acd_table) +
	       (size_t)sizes->count * sizeof(struct acd_entry) +
	       sizes->strings_len;
}

static int entry_compare(const struct acd_table *table,
			 const struct acd_entry *entry,
			 const char *name, size_t len)
{
	size_t shared = entry->name_len < len ? entry->name_len : len;
	int order = memcmp(acd_name(table, entry), name, shared);

	if (order)
		return order;
	return entry->name_len < len ? -1 : entry->name_len > len;
}

const struct acd_entry *acd_find(const struct acd_table *table,
				 const char *name, size_t len)
{
	u32 low = 0, high = table->count;

	while (low < high) {
		u32 middle = low + (high - low) / 2;
		const struct acd_entry *entry = &table->entry[middle];
		int order = entry_compare(table, entry, name, len);

		if (order == 0)
			return entry;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}
