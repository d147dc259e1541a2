/*
 * Transcripts of POP3 after login over a maildrop in memory: every command, every error, at every
 * byte split; byte-stuffing, long answers at the watermark, limits at the limit and one past it.
 */
#include "pop3/engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct mem {
	const char *const *texts; /* NULL: vanished */
	uint32_t count;
	unsigned char marks[8];
	bool updated, fail_update;
	int open_contents;
	uint64_t huge; /* message 0 is that long */
};

struct mem_content {
	struct mem *m;
	const char *text;
};

static uint32_t
mem_count(void *drop)
{
	return ((struct mem *)drop)->count;
}

static int
mem_size(void *drop, uint32_t i, uint64_t *out_r)
{
	struct mem *m = drop;

	if (!m->texts[i])
		return ERR_NOT_FOUND;
	*out_r = m->huge && i == 0 ? m->huge : strlen(m->texts[i]);
	return 0;
}

static void
mem_uidl(void *drop, uint32_t i, struct buf *out)
{
	(void)drop;
	buf_addf(out, "id%u", i + 1);
}

static int
mem_open(void *drop, uint32_t i, void **content_r)
{
	struct mem *m = drop;
	struct mem_content *c;

	if (!m->texts[i])
		return ERR_NOT_FOUND;
	c = xmalloc(sizeof(*c));
	*c = (struct mem_content){ m, m->texts[i] };
	m->open_contents++;
	*content_r = c;
	return 0;
}

static ptrdiff_t
mem_read(void *content, uint64_t offset, void *out, size_t n)
{
	struct mem_content *c = content;
	size_t len = strlen(c->text);

	if (c->m->huge) {
		if (offset >= c->m->huge)
			return 0;
		n = n > c->m->huge - offset ? (size_t)(c->m->huge - offset) : n;
		memset(out, 'x', n);
		return (ptrdiff_t)n;
	}
	if (strcmp(c->text, "broken") == 0 && offset > 2)
		return -EIO;
	if (offset >= len)
		return 0;
	n = n > 5 ? 5 : n; /* small pieces: every line is cut somewhere */
	n = n > len - offset ? (size_t)(len - offset) : n;
	memcpy(out, c->text + offset, n);
	return (ptrdiff_t)n;
}

static void
mem_close(void *content)
{
	struct mem_content *c = content;

	c->m->open_contents--;
	free(c);
}

static int
mem_update(void *drop, const unsigned char *marks)
{
	struct mem *m = drop;

	memcpy(m->marks, marks, m->count);
	m->updated = true;
	return m->fail_update ? -EIO : 0;
}

static const struct pop3_drop_ops mem_ops = { mem_count, mem_size, mem_uidl, mem_open, mem_read,
	mem_close, mem_update };
static const struct pop3_engine_limits limits = { 4 };

/* The client says in, in pieces of step bytes; everything that comes back. */
static char *
say(struct pop3_engine *e, const char *in, size_t step)
{
	static char out[70000];
	struct slice s = slice_str(in);

	buf_clear(pop3_engine_out(e));
	while (s.n && !pop3_engine_closed(e))
		s = slice_sub(s, pop3_engine_feed(e, slice_sub(s, 0, step)), SIZE_MAX);
	assert_int_equal(slice_copy(buf_slice(pop3_engine_out(e)), out, sizeof(out)), 0);
	return out;
}

static const char *const three[] = { "Subject: a\r\n\r\none\r\n.two\r\n..\r\n", "H: b\n\nx\ny\nz",
	"\r\n.\r\n" };

static const struct {
	const char *client, *server;
} script[] = {
	{ "STAT\r\n", "+OK 3 45\r\n" },
	{ "stat\n", "+OK 3 45\r\n" },
	{ "LIST\r\n", "+OK 3 messages\r\n1 29\r\n2 11\r\n3 5\r\n.\r\n" },
	{ "LIST 2\r\n", "+OK 2 11\r\n" },
	{ "UIDL\r\n", "+OK 3 messages\r\n1 id1\r\n2 id2\r\n3 id3\r\n.\r\n" },
	{ "UIDL 3\r\n", "+OK 3 id3\r\n" },
	{ "NOOP\r\n", "+OK\r\n" },
	{ "RETR 1\r\n", "+OK 29 octets\r\nSubject: a\r\n\r\none\r\n..two\r\n...\r\n.\r\n" },
	{ "RETR 2\r\n", "+OK 11 octets\r\nH: b\r\n\r\nx\r\ny\r\nz\r\n.\r\n" },
	{ "RETR 3\r\n", "+OK 5 octets\r\n\r\n..\r\n.\r\n" },
	{ "TOP 1 0\r\n", "+OK\r\nSubject: a\r\n\r\n.\r\n" },
	{ "TOP 1 2\r\n", "+OK\r\nSubject: a\r\n\r\none\r\n..two\r\n.\r\n" },
	{ "TOP 2 99\r\n", "+OK\r\nH: b\r\n\r\nx\r\ny\r\nz\r\n.\r\n" },
	{ "TOP 3 0\r\n", "+OK\r\n\r\n.\r\n" },
	{ "DELE 2\r\n", "+OK Marked for deletion\r\n" },
	{ "STAT\r\nLIST\r\n", "+OK 2 34\r\n+OK 2 messages\r\n1 29\r\n3 5\r\n.\r\n" },
	{ "UIDL\r\n", "+OK 2 messages\r\n1 id1\r\n3 id3\r\n.\r\n" },
	{ "RSET\r\n", "+OK maildrop has 3 messages (45 octets)\r\n" },
	{ "DELE 2\r\nDELE 3\r\nRETR 1\r\nQUIT\r\nNOOP\r\n",
	    "+OK Marked for deletion\r\n+OK Marked for deletion\r\n+OK 29 octets\r\n"
	    "Subject: a\r\n\r\none\r\n..two\r\n...\r\n.\r\n+OK Good bye\r\n" },
};

static void
transcript_at_every_split(void **state)
{
	(void)state;
	for (size_t step = 1; step < 60; step++) {
		struct mem m = { .texts = three, .count = 3 };
		struct pop3_engine *e = pop3_engine_new(&mem_ops, &m, &limits);
		pop3_engine_start(e, SLICE_LIT("PLAIN"));
		assert_true(slice_eq_str(buf_slice(pop3_engine_out(e)), "+OK Logged in\r\n"));
		for (size_t i = 0; i < sizeof(script) / sizeof(script[0]); i++)
			assert_string_equal(say(e, script[i].client, step), script[i].server);
		assert_true(pop3_engine_closed(e));
		assert_true(m.updated);
		assert_int_equal(m.marks[0], POP3_MARK_RETRIEVED);
		assert_int_equal(m.marks[1], POP3_MARK_DELETED | POP3_MARK_RETRIEVED);
		assert_int_equal(m.marks[2], POP3_MARK_DELETED | POP3_MARK_RETRIEVED);
		assert_int_equal(m.open_contents, 0);
		pop3_engine_free(&e);
	}
}

static void
errors(void **state)
{
	static const char *const bad[] = { "LIST 0\r\n", "LIST 4\r\n", "LIST x\r\n", "LIST -1\r\n",
		"LIST 4294967297\r\n", "LIST 1 2\r\n", "UIDL 9\r\n", "RETR\r\n", "RETR \r\n",
		"RETR 1 \r\n", "TOP 1\r\n", "TOP 1 x\r\n", "TOP\r\n", "TOP 1 -1\r\n", "DELE\r\n",
		"DELE 4\r\n", "FOO\r\n", "\r\n", " STAT\r\n", "USER joe\r\n", "PASS x\r\n",
		"AUTH PLAIN\r\n", "STLS\r\n", "APOP a b\r\n", "CAPA x\r\n", "RETR 2\r\n" };
	static const char *const gone[] = { "a\r\n", NULL, "broken" };
	struct mem m = { .texts = gone, .count = 3 };

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct pop3_engine *e = pop3_engine_new(&mem_ops, &m, &limits);
		const char *out = say(e, bad[i], 100);
		assert_true(slice_has_prefix(slice_str(out), "-ERR "));
		assert_int_equal(strchr(out, '\n') - out + 1, (long)strlen(out));
		assert_string_equal(say(e, "NOOP\r\n", 100), "+OK\r\n");
		pop3_engine_free(&e);
	}
	/* a message that cannot be read to its end: the connection ends, no final dot */
	struct pop3_engine *e = pop3_engine_new(&mem_ops, &m, &limits);
	const char *out = say(e, "RETR 3\r\n", 100);
	assert_true(pop3_engine_closed(e));
	assert_null(strstr(out, "\r\n."));
	assert_int_equal(m.open_contents, 0);
	pop3_engine_free(&e);
	/* QUIT that fails; a session that ends without QUIT */
	m = (struct mem){ .texts = three, .count = 3, .fail_update = true };
	e = pop3_engine_new(&mem_ops, &m, &limits);
	say(e, "DELE 1\r\n", 100);
	assert_false(m.updated);
	assert_true(slice_has_prefix(slice_str(say(e, "QUIT\r\n", 100)), "-ERR [SYS/TEMP]"));
	assert_true(pop3_engine_closed(e));
	pop3_engine_free(&e);
	m = (struct mem){ .texts = three, .count = 3 };
	e = pop3_engine_new(&mem_ops, &m, &limits);
	say(e, "DELE 1\r\nDELE 1\r\n", 100);
	pop3_engine_bye(e, "[SYS/TEMP] over");
	pop3_engine_free(&e);
	assert_false(m.updated);
}

static void
limits_hold(void **state)
{
	struct mem m = { .texts = three, .count = 3 };
	struct pop3_engine *e = pop3_engine_new(&mem_ops, &m, &limits);
	char line[300];

	(void)state;
	memset(line, ' ', sizeof(line));
	memcpy(line, "NOOP", 4);
	memcpy(line + 253, "\r\n", 3);
	assert_string_equal(say(e, line, 300), "+OK\r\n");
	memset(line + 253, ' ', 3);
	memcpy(line + 254, "\r\n", 3);
	assert_string_equal(say(e, line, 7), "-ERR Line is too long\r\n");
	assert_true(pop3_engine_closed(e));
	pop3_engine_free(&e);
	e = pop3_engine_new(&mem_ops, &m, &limits);
	say(e, "X\r\nX\r\nX\r\n", 300);
	assert_false(pop3_engine_closed(e));
	say(e, "X\r\n", 300);
	assert_true(pop3_engine_closed(e));
	pop3_engine_free(&e);
}

static void
slow_client(void **state)
{
	struct mem m = { .texts = three, .count = 1, .huge = 10000000 };
	struct pop3_engine *e = pop3_engine_new(&mem_ops, &m, &limits);
	struct buf *out = pop3_engine_out(e);
	uint64_t total = 0;
	size_t rounds = 0;

	(void)state;
	struct slice in = SLICE_LIT("RETR 1\r\nNOOP\r\n");
	size_t n = pop3_engine_feed(e, in);
	assert_int_equal(n, 8);
	while (pop3_engine_busy(e) || buf_len(out)) {
		assert_true(buf_len(out) < 2 * POP3_WATERMARK);
		assert_true(!pop3_engine_busy(e) || buf_len(out) >= POP3_WATERMARK);
		total += buf_len(out);
		buf_clear(out);
		n += pop3_engine_feed(e, slice_sub(in, n, SIZE_MAX));
		rounds++;
	}
	assert_true(rounds > 100);
	assert_int_equal(n, in.n);
	assert_int_equal(total, 10000000 + strlen("+OK 10000000 octets\r\n"
						  "\r\n.\r\n"
						  "+OK\r\n"));
	pop3_engine_free(&e);
}

static void
capabilities(void **state)
{
	struct mem m = { .texts = three, .count = 3 };
	struct pop3_engine *e = pop3_engine_new(&mem_ops, &m, &limits);

	(void)state;
	pop3_engine_start(e, SLICE_LIT("PLAIN SCRAM-SHA-256"));
	const char *out = say(e, "CAPA\r\n", 3);
	assert_non_null(strstr(out, "\r\nSASL PLAIN SCRAM-SHA-256\r\n"));
	assert_non_null(strstr(out, "\r\nUSER\r\n"));
	assert_non_null(strstr(out, "\r\nTOP\r\nUIDL\r\n"));
	assert_string_equal(out + strlen(out) - 5, "\r\n.\r\n");
	pop3_engine_free(&e);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(transcript_at_every_split),
		cmocka_unit_test(errors),
		cmocka_unit_test(limits_hold),
		cmocka_unit_test(slow_client),
		cmocka_unit_test(capabilities),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
