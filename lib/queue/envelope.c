/*
 * The envelope record and the status slots of queue files. Runs in qmgr, in the threads of its
 * pool and in the tools that read a spool. Hostile inputs: the file itself (a damaged disk, a
 * writer of large content that got at more than it should); every length is bounded here and a
 * record that does not fit exactly is refused.
 */
#include "queue/envelope.h"
#include "queue/mail.h"

#include <stdio.h>

#define RECORD_VERSION 1

uint64_t
queue_digest(struct slice s)
{
	static const unsigned char key[16] = "bulkhead queue 1";
	uint64_t d = siphash(key, s);

	return d ? d : 1;
}

struct rcpt_status *
envelope_status(struct arena *a, struct envelope_rcpt *r)
{
	if (!r->status)
		r->status = arena_alloc(a, sizeof(*r->status));
	return r->status;
}

static void
copy_printable(char *dst, size_t size, struct slice s)
{
	size_t n = s.n < size - 1 ? s.n : size - 1;

	/* Cut before a UTF-8 sequence, not within. */
	while (n && n < s.n && (s.p[n] & 0xc0) == 0x80)
		n--;
	for (size_t i = 0; i < n; i++)
		dst[i] = (char)(s.p[i] < 32 || s.p[i] == 127 ? ' ' : s.p[i]);
	dst[n] = '\0';
}

static void
parse_enhanced(struct slice s, unsigned int out_r[3])
{
	uint64_t v[3];

	out_r[0] = out_r[1] = out_r[2] = 0;
	for (int i = 0; i < 3; i++)
		if (slice_u64(slice_split(&s, '.'), 999, &v[i]))
			return;
	if (s.n || (v[0] != 2 && v[0] != 4 && v[0] != 5))
		return;
	for (int i = 0; i < 3; i++)
		out_r[i] = (unsigned int)v[i];
}

void
rcpt_status_set(
    struct rcpt_status *s, struct slice enhanced, struct slice text, struct slice remote)
{
	parse_enhanced(enhanced, s->enhanced);
	copy_printable(s->text, sizeof(s->text), text);
	copy_printable(s->remote, sizeof(s->remote), remote);
}

void
rcpt_status_enhanced(const struct rcpt_status *s, char out_r[16])
{
	out_r[0] = '\0';
	if (s->enhanced[0])
		snprintf(out_r, 16, "%u.%u.%u", s->enhanced[0] % 10, s->enhanced[1] % 1000,
		    s->enhanced[2] % 1000);
}

void
envelope_encode(const struct envelope *e, struct buf *out)
{
	buf_add_u16(out, RECORD_VERSION);
	buf_add_u64(out, e->id);
	buf_add_u64(out, e->arrival);
	buf_add_u64(out, e->size);
	buf_add_u32(out, e->flags);
	buf_add_u8(out, (uint8_t)e->ret);
	buf_add_u8(out, (uint8_t)e->hops);
	buf_add_u64(out, e->content_digest);
	buf_add_counted(out, e->sender);
	buf_add_counted(out, e->envid);
	buf_add_counted(out, e->session);
	buf_add_counted(out, e->client);
	buf_add_counted(out, e->user);
	buf_add_u8(out, (uint8_t)e->n_extents);
	for (size_t i = 0; i < e->n_extents; i++) {
		buf_add_u64(out, e->extents[i].offset);
		buf_add_u64(out, e->extents[i].length);
	}
	buf_add_u32(out, (uint32_t)e->n_rcpts);
	for (size_t i = 0; i < e->n_rcpts; i++) {
		buf_add_u8(out, (uint8_t)e->rcpts[i].notify);
		buf_add_counted(out, e->rcpts[i].address);
		buf_add_counted(out, e->rcpts[i].original);
		buf_add_counted(out, e->rcpts[i].orcpt);
	}
}

static struct slice
text(struct cursor *c, size_t max)
{
	struct slice s = cursor_counted(c, max);

	for (size_t i = 0; i < s.n && !c->err; i++)
		if (s.p[i] == '\0' || s.p[i] == '\r' || s.p[i] == '\n')
			c->err = ERR_CORRUPT;
	return c->err ? SLICE_NULL : s;
}

static int
decode_extents(struct cursor *c, struct envelope *e)
{
	uint64_t sum = 0;

	e->n_extents = cursor_u8(c);
	if (c->err || e->n_extents > ENVELOPE_EXTENTS_MAX)
		return ERR_CORRUPT;
	for (size_t i = 0; i < e->n_extents; i++) {
		e->extents[i].offset = cursor_u64(c);
		e->extents[i].length = cursor_u64(c);
		if (c->err || e->extents[i].length > UINT64_MAX - sum ||
		    e->extents[i].offset > UINT64_MAX - e->extents[i].length)
			return ERR_CORRUPT;
		sum += e->extents[i].length;
	}
	return sum == e->size ? 0 : ERR_CORRUPT;
}

static int
decode_rcpts(struct cursor *c, struct arena *a, struct envelope *e)
{
	uint32_t n = cursor_u32(c);

	/* A recipient takes 13 bytes at least: no small file makes a big allocation. */
	if (c->err || n == 0 || n > ENVELOPE_RECIPIENTS_MAX || n > cursor_rest(c).n / 13)
		return ERR_CORRUPT;
	e->n_rcpts = n;
	e->rcpts = arena_alloc(a, n * sizeof(*e->rcpts));
	for (size_t i = 0; i < n; i++) {
		e->rcpts[i].notify = cursor_u8(c);
		e->rcpts[i].address = text(c, ENVELOPE_ADDRESS_MAX);
		e->rcpts[i].original = text(c, ENVELOPE_ADDRESS_MAX);
		e->rcpts[i].orcpt = text(c, ENVELOPE_ADDRESS_MAX);
		if (c->err || e->rcpts[i].address.n == 0)
			return ERR_CORRUPT;
	}
	return 0;
}

int
envelope_decode(struct slice record, struct arena *a, struct envelope *out_r)
{
	struct cursor c = cursor(record);
	struct envelope e = { 0 };

	if (cursor_u16(&c) != RECORD_VERSION)
		return ERR_CORRUPT;
	e.id = cursor_u64(&c);
	e.arrival = cursor_u64(&c);
	e.size = cursor_u64(&c);
	e.flags = cursor_u32(&c);
	e.ret = cursor_u8(&c);
	e.hops = cursor_u8(&c);
	e.content_digest = cursor_u64(&c);
	e.sender = text(&c, ENVELOPE_ADDRESS_MAX);
	e.envid = text(&c, 256);
	e.session = text(&c, 64);
	e.client = text(&c, 512);
	e.user = text(&c, 256);
	if (c.err || e.ret > RET_HDRS || e.id >> 60 || !e.id)
		return ERR_CORRUPT;
	if (decode_extents(&c, &e) || decode_rcpts(&c, a, &e) || cursor_end(&c))
		return ERR_CORRUPT;
	*out_r = e;
	return 0;
}

static void
put(unsigned char *p, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t
get(const unsigned char *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v |= (uint64_t)p[i] << (8 * i);
	return v;
}

/* state 1, notices 1, attempts 2, enhanced 3 x 2, text length 1, remote length 1, last attempt 8,
 * digest 8, in large slots two more bytes, the first of them the upper byte of the text's length;
 * then the texts. */
#define SLOT_HEAD_OLD 28
#define SLOT_HEAD 30
#define SLOT_TEXT_MAX_OLD 160u
#define SLOT_REMOTE_MAX_OLD 56u

_Static_assert(SLOT_HEAD + SLOT_TEXT_MAX + SLOT_REMOTE_MAX <= SLOT_SIZE, "slot texts fit");
_Static_assert(
    SLOT_HEAD_OLD + SLOT_TEXT_MAX_OLD + SLOT_REMOTE_MAX_OLD <= SLOT_SIZE_OLD, "old ones fit too");

static uint64_t
slot_digest(const unsigned char *in, size_t size)
{
	unsigned char copy[SLOT_SIZE];

	memcpy(copy, in, size);
	memset(copy + 20, 0, 8);
	return queue_digest(slice(copy, size));
}

/* How much of a text a slot takes: what is cut has room for "..." and ends before a UTF-8 sequence.
 */
static size_t
slot_text(const char *text, size_t max)
{
	size_t n = strnlen(text, RCPT_TEXT_MAX);

	if (n <= max)
		return n;
	n = max - 3;
	while (n && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--;
	return n;
}

void
slot_encode(const struct rcpt_status *s, size_t size, unsigned char *out_r)
{
	static const struct rcpt_status todo = { .state = RCPT_TODO };
	bool old = size == SLOT_SIZE_OLD;
	unsigned char *texts = out_r + (old ? SLOT_HEAD_OLD : SLOT_HEAD);
	size_t text_n, remote_n, cut;

	if (!s)
		s = &todo;
	text_n = slot_text(s->text, old ? SLOT_TEXT_MAX_OLD : SLOT_TEXT_MAX);
	remote_n = strnlen(s->remote, old ? SLOT_REMOTE_MAX_OLD : SLOT_REMOTE_MAX);
	cut = s->text[text_n] ? 3 : 0;
	memset(out_r, 0, size);
	/* A job under way is nothing that a restart could know of. */
	out_r[0] = (unsigned char)(s->state == RCPT_IN_FLIGHT ? RCPT_TODO : s->state);
	out_r[1] = (unsigned char)s->notices;
	put(out_r + 2, s->attempts < 65535 ? s->attempts : 65535, 2);
	for (size_t i = 0; i < 3; i++)
		put(out_r + 4 + 2 * i, s->enhanced[i], 2);
	out_r[10] = (unsigned char)(text_n + cut);
	out_r[11] = (unsigned char)remote_n;
	put(out_r + 12, s->last_attempt, 8);
	if (!old)
		out_r[28] = (unsigned char)((text_n + cut) >> 8);
	memcpy(texts, s->text, text_n);
	memcpy(texts + text_n, "...", cut);
	memcpy(texts + text_n + cut, s->remote, remote_n);
	put(out_r + 20, slot_digest(out_r, size), 8);
}

int
slot_decode(const unsigned char *in, size_t size, struct rcpt_status *out_r)
{
	struct rcpt_status s = { .state = in[0] };
	bool old = size == SLOT_SIZE_OLD;
	const unsigned char *texts = in + (old ? SLOT_HEAD_OLD : SLOT_HEAD);
	size_t text_n = in[10] | (old ? 0u : (size_t)in[28] << 8), remote_n = in[11];

	*out_r = (struct rcpt_status){ .state = RCPT_TODO };
	if (get(in + 20, 8) != slot_digest(in, size) || in[0] >= RCPT_STATES ||
	    in[0] == RCPT_IN_FLIGHT || text_n > (old ? SLOT_TEXT_MAX_OLD : SLOT_TEXT_MAX) ||
	    remote_n > (old ? SLOT_REMOTE_MAX_OLD : SLOT_REMOTE_MAX))
		return ERR_CORRUPT;
	s.notices = in[1];
	s.attempts = (unsigned int)get(in + 2, 2);
	for (size_t i = 0; i < 3; i++)
		s.enhanced[i] = (unsigned int)get(in + 4 + 2 * i, 2);
	s.last_attempt = get(in + 12, 8);
	copy_printable(s.text, sizeof(s.text), slice(texts, text_n));
	copy_printable(s.remote, sizeof(s.remote), slice(texts + text_n, remote_n));
	*out_r = s;
	return 0;
}
