/*
 * The snapshot: bytes in which master hands a process the parameters of its role. Encoded by master
 * (root) and the tools, decoded by every daemon at its start and at a reload, from a sealed memfd.
 * The bytes come from master, yet are checked as if they did not: order, roles, bounds, words, NUL.
 * Layout: magic, CONF_LAYOUT, role, count, then {u16 row, value} in the order of the rows.
 */
#include "conf/raw.h"

#include <stdio.h>
#include <stdlib.h>

#define MAGIC 0x31484342u /* "BCH1" */

static int
role_index(const char *role)
{
	int i;

	for (i = 0; conf_roles[i]; i++)
		if (!strcmp(conf_roles[i], role))
			return i;
	return -1;
}

static void
encode_value(const struct conf *conf, const struct conf_param *param, struct buf *out)
{
	const void *m = (const char *)conf + param->offset;
	const struct conf_list *list = m;
	const struct conf_tables *tables = m;
	size_t i;

	switch (param->type) {
	case CONF_BOOL:
		(void)buf_add_u8(out, *(const bool *)m);
		break;
	case CONF_INT:
	case CONF_SIZE:
	case CONF_TIME:
		(void)buf_add_u64(out, (uint64_t) * (const int64_t *)m);
		break;
	case CONF_STRING:
	case CONF_RAW:
		(void)buf_add_counted(out, slice_str(*(const char *const *)m));
		break;
	case CONF_ENUM:
		(void)buf_add_u8(out, (uint8_t) * (const int *)m);
		break;
	case CONF_LIST:
		(void)buf_add_u32(out, (uint32_t)list->n);
		for (i = 0; i < list->n; i++)
			(void)buf_add_counted(out, slice_str(list->v[i]));
		break;
	case CONF_TABLES:
		(void)buf_add_u32(out, (uint32_t)tables->n);
		for (i = 0; i < tables->n; i++) {
			(void)buf_add_counted(out, slice_str(tables->v[i].type));
			(void)buf_add_counted(out, slice_str(tables->v[i].name));
		}
		break;
	default:
		break;
	}
}

int
conf_snapshot_encode(const struct conf *conf, const char *role, struct buf *out)
{
	int index = role_index(role);
	unsigned i, count = 0;

	if (index < 0)
		return ERR_NOT_FOUND;
	for (i = 0; i < CONF_PARAM_COUNT; i++)
		count += conf_params[i].roles >> index & 1;
	(void)buf_add_u32(out, MAGIC);
	(void)buf_add_u64(out, CONF_LAYOUT);
	(void)buf_add_u16(out, (uint16_t)index);
	(void)buf_add_u16(out, (uint16_t)count);
	for (i = 0; i < CONF_PARAM_COUNT; i++) {
		if (!(conf_params[i].roles >> index & 1))
			continue;
		(void)buf_add_u16(out, (uint16_t)i);
		encode_value(conf, &conf_params[i], out);
	}
	return out->err;
}

/* A counted text without NUL; the copy ends with one. */
static const char *
decode_text(struct cursor *c, struct arena *arena)
{
	struct slice s = cursor_counted(c, CONF_VALUE_LIMIT);

	if (!c->err && slice_find(s, '\0') >= 0)
		c->err = ERR_CORRUPT;
	return (const char *)arena_dup(arena, s).p;
}

/* A count of items that take at least size bytes each: never more than what is left. */
static size_t
decode_count(struct cursor *c, size_t size)
{
	size_t n = cursor_u32(c);

	if (!c->err && (n > CONF_LIST_LIMIT || n > cursor_rest(c).n / size))
		c->err = ERR_CORRUPT;
	return c->err ? 0 : n;
}

static void
decode_list(struct cursor *c, struct arena *arena, struct conf_list *list)
{
	size_t i, n = decode_count(c, 4);

	list->v = arena_alloc(arena, (n + 1) * sizeof(list->v[0]));
	for (i = 0; i < n && !c->err; i++)
		list->v[i] = decode_text(c, arena);
	list->n = i;
}

static void
decode_tables(struct cursor *c, struct arena *arena, struct conf_tables *tables)
{
	size_t i, n = decode_count(c, 8);
	struct conf_table *v = arena_alloc(arena, (n + 1) * sizeof(v[0]));

	for (i = 0; i < n && !c->err; i++) {
		v[i].type = decode_text(c, arena);
		v[i].name = decode_text(c, arena);
	}
	*tables = (struct conf_tables){ i, v };
}

static int
word_count(const struct conf_param *param)
{
	int n = 0;

	while (param->words[n])
		n++;
	return n;
}

static void
decode_value(struct cursor *c, struct conf *conf, const struct conf_param *param)
{
	void *m = (char *)conf + param->offset;
	struct arena *arena = &conf->mem->arena;
	uint8_t byte;
	int64_t number;

	switch (param->type) {
	case CONF_BOOL:
		if ((byte = cursor_u8(c)) > 1 && !c->err)
			c->err = ERR_CORRUPT;
		*(bool *)m = byte == 1;
		break;
	case CONF_INT:
	case CONF_SIZE:
	case CONF_TIME:
		number = (int64_t)cursor_u64(c);
		if (!c->err && (number < param->min || number > param->max))
			c->err = ERR_CORRUPT;
		*(int64_t *)m = number;
		break;
	case CONF_STRING:
	case CONF_RAW:
		*(const char **)m = decode_text(c, arena);
		break;
	case CONF_ENUM:
		if ((byte = cursor_u8(c)) >= word_count(param) && !c->err)
			c->err = ERR_CORRUPT;
		*(int *)m = c->err ? 0 : byte;
		break;
	case CONF_LIST:
		decode_list(c, arena, m);
		break;
	case CONF_TABLES:
		decode_tables(c, arena, m);
		break;
	default:
		c->err = ERR_CORRUPT;
	}
}

static int
decode_all(struct cursor *c, struct conf *conf, const char **role_r)
{
	unsigned i, role, count, expected = 0;

	if (cursor_u32(c) != MAGIC || cursor_u64(c) != CONF_LAYOUT)
		return ERR_CORRUPT;
	role = cursor_u16(c);
	count = cursor_u16(c);
	for (i = 0; conf_roles[i] && i < role; i++)
		;
	if (i != role || !conf_roles[i])
		return ERR_CORRUPT;
	for (i = 0; i < CONF_PARAM_COUNT && !c->err; i++) {
		if (!(conf_params[i].roles >> role & 1))
			continue;
		if (cursor_u16(c) != i)
			return ERR_CORRUPT;
		decode_value(c, conf, &conf_params[i]);
		expected++;
	}
	if (c->err || count != expected || cursor_end(c))
		return ERR_CORRUPT;
	if (role_r)
		*role_r = conf_roles[role];
	return 0;
}

int
conf_snapshot_decode(struct slice in, const char **role_r, struct conf **conf_r)
{
	struct cursor c = cursor(in);
	struct conf *conf;
	int err;

	*conf_r = NULL;
	if (in.n > CONF_SNAPSHOT_LIMIT)
		return ERR_LIMIT;
	conf = xcalloc(1, sizeof(*conf));
	conf->mem = xcalloc(1, sizeof(*conf->mem));
	err = decode_all(&c, conf, role_r);
	if (err)
		conf_free(&conf);
	*conf_r = conf;
	return err;
}
