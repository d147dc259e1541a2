/*
 * POP3 whole: the dialogue before login (first byte even) with a driver that answers as the input
 * says, and the session after it (odd) over a maildrop cut out of the input. Output is bounded, and
 * every answer of a session is framed: no message can forge the end of one.
 */
#include "fuzz/login.h"
#include "pop3/engine.h"
#include "pop3/login.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
before_login(struct slice in)
{
	static const struct login_limits limits = {
		.max_auth = 200, .max_errors = 5, .max_commands = 30, .max_auth_failures = 3
	};
	bool tls = in.n && in.p[0] & 2;
	struct login *l = login_new(&pop3_login, &limits, tls ? "PLAIN LOGIN" : "", !tls, tls);
	struct buf b = { 0 };

	(void)fuzz_login(l, slice_sub(in, 1, in.n));
	login_handover(l, SLICE_LIT("::1"), SLICE_LIT("x"), &b);
	buf_free(&b);
	login_free(&l);
}

/* --- a maildrop of three pieces of the input --- */

struct mem {
	struct slice texts[3];
	int opened;
};

static struct mem *mem; /* contents find their maildrop by it; one at a time */

static uint32_t
mem_count(void *drop)
{
	(void)drop;
	return 3;
}

static int
mem_size(void *drop, uint32_t i, uint64_t *out_r)
{
	*out_r = ((struct mem *)drop)->texts[i].n;
	return 0;
}

static void
mem_uidl(void *drop, uint32_t i, struct buf *out)
{
	(void)drop;
	buf_addf(out, "%u", i);
}

static int
mem_open(void *drop, uint32_t i, void **content_r)
{
	struct mem *m = drop;

	m->opened++;
	*content_r = &m->texts[i];
	return 0;
}

static ptrdiff_t
mem_read(void *content, uint64_t offset, void *out, size_t n)
{
	struct slice s = slice_sub(*(struct slice *)content, (size_t)offset, SIZE_MAX);

	n = n > 13 ? 13 : n;
	n = n > s.n ? s.n : n;
	if (n)
		memcpy(out, s.p, n);
	return (ptrdiff_t)n;
}

static void
mem_close(void *content)
{
	(void)content;
	mem->opened--;
}

static int
mem_update(void *drop, const unsigned char *marks)
{
	(void)drop;
	return marks[0] == 3 ? -5 : 0;
}

static const struct pop3_drop_ops ops = { mem_count, mem_size, mem_uidl, mem_open, mem_read,
	mem_close, mem_update };

/* Every line of the output ends with CRLF, and a message never shows a lone dot before its end: so
 * the number of lone dots is at most that of the multi-line answers begun. */
static void
check_output(struct slice out, bool whole)
{
	size_t dots = 0, answers = 0;

	while (out.n) {
		struct slice line = slice_split(&out, '\n');
		if (!line.n || line.p[line.n - 1] != '\r') {
			if (out.n || whole)
				abort();
			break;
		}
		line.n--;
		dots += slice_eq_str(line, ".");
		answers += slice_has_prefix(line, "+OK");
	}
	if (dots > answers)
		abort();
}

static void
fuzz_session(struct slice in)
{
	static const struct pop3_engine_limits limits = { 10 };
	struct mem m = { .opened = 0 };
	struct buf all = { 0 };

	for (int i = 0; i < 3; i++)
		m.texts[i] = slice_split(&in, 0xff);
	mem = &m;
	struct pop3_engine *e = pop3_engine_new(&ops, &m, &limits);
	pop3_engine_start(e, SLICE_LIT("PLAIN"));
	for (unsigned turn = 0; turn < 2000 && !pop3_engine_closed(e); turn++) {
		size_t n = pop3_engine_feed(e, slice_sub(in, 0, 1 + turn % 50));
		if (buf_len(pop3_engine_out(e)) > 2 * POP3_WATERMARK)
			abort();
		in = slice_sub(in, n, SIZE_MAX);
		if (buf_len(&all) < 1 << 20)
			buf_add(&all, buf_slice(pop3_engine_out(e)));
		buf_clear(pop3_engine_out(e));
		if (!in.n && !pop3_engine_busy(e))
			break;
	}
	if (buf_len(&all) < 1 << 20)
		check_output(buf_slice(&all), !pop3_engine_busy(e));
	pop3_engine_free(&e);
	if (m.opened)
		abort();
	buf_free(&all);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] & 1)
		fuzz_session(slice(data + 1, size - 1));
	else
		before_login(slice(data + 1, size - 1));
	return 0;
}
