/*
 * The streaming MIME parser. Runs in imapd-child (FETCH BODYSTRUCTURE, sections, SEARCH) and
 * wherever a message's structure matters; every byte is hostile. Invariants: one pass, no recursion
 * over the input, memory bounded by the limits (header bytes kept, parts, depth), and offsets never
 * run backwards: a child lies within its parent's body.
 *
 * Lines are cut at LF, with the CR before it as part of the line end, so files with either line end
 * parse alike. The line end before a boundary belongs to the boundary (RFC 2046 section 5.1.1).
 */
#include "mail/mime.h"
#include "mail/header.h"

#include <stdlib.h>

const struct mime_limits mime_default_limits = {
	.depth = 100,
	.parts = 10000,
	.params = 128,
	.header = 102400,
	.headers = 10485760,
	.boundary = 2048,
};

struct open_part {
	struct mime_part *part;
	struct slice boundary; /* of a multipart; empty once its end was seen */
	uint64_t first_line;   /* lines before the body */
	bool in_header;
};

struct mime {
	struct mime_limits limits;
	struct arena arena;
	struct mime_part *root;
	struct open_part *open; /* the innermost is the last */
	unsigned depth, parts;
	uint64_t at, lines; /* bytes and line ends seen */
	uint64_t line_at;   /* offset of the present line */
	unsigned eol;       /* length of the line end before it */
	bool last_cr, limited, finished;
	size_t headers;    /* bytes kept so far */
	struct buf line;   /* the present line as far as it is needed */
	struct buf header; /* the present header block */
};

static struct slice
keep(struct mime *m, struct slice s)
{
	return arena_dup(&m->arena, s);
}

static struct mime_part *
open_new(struct mime *m, struct mime_part *parent, bool root)
{
	struct mime_part *p = arena_alloc(&m->arena, sizeof(*p));
	struct open_part *o = &m->open[m->depth++];

	p->parent = parent;
	p->root = root;
	p->number = 1;
	p->header_at = p->body_at = p->end = m->line_at;
	if (parent) {
		if (parent->last_child) {
			parent->last_child->next = p;
			p->number = parent->last_child->number + 1;
		} else {
			parent->children = p;
		}
		parent->last_child = p;
	}
	m->parts++;
	*o = (struct open_part){ .part = p, .in_header = true };
	buf_clear(&m->header);
	return p;
}

struct mime *
mime_new(const struct mime_limits *limits)
{
	struct mime *m = xcalloc(1, sizeof(*m));

	m->limits = limits ? *limits : mime_default_limits;
	m->open = xcalloc(m->limits.depth + 1, sizeof(*m->open));
	m->root = open_new(m, NULL, true);
	return m;
}

void
mime_free(struct mime **mp)
{
	struct mime *m = *mp;

	if (!m)
		return;
	arena_free(&m->arena);
	buf_free(&m->line);
	buf_free(&m->header);
	free(m->open);
	free(m);
	*mp = NULL;
}

bool
mime_limited(const struct mime *m)
{
	return m->limited;
}

unsigned
mime_part_count(const struct mime *m)
{
	return m->parts;
}

/* --- headers --- */

static enum mime_encoding
encoding_of(struct slice s)
{
	static const struct {
		const char *name;
		enum mime_encoding encoding;
	} names[] = { { "7bit", MIME_7BIT }, { "8bit", MIME_8BIT }, { "binary", MIME_BINARY },
		{ "quoted-printable", MIME_QP }, { "base64", MIME_BASE64 } };

	if (!s.n)
		return MIME_7BIT;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (slice_caseeq_str(s, names[i].name))
			return names[i].encoding;
	return MIME_UNKNOWN;
}

static void
read_field(struct mime_part *p, const struct header_field *f, const struct mime_limits *limits,
    struct arena *arena)
{
	struct slice name = slice_sub(f->name, 8, f->name.n);
	struct slice type, subtype;
	struct mime_param *params;

	if (slice_caseeq_str(name, "Type")) {
		if (p->typed ||
		    !mime_parse_params(f->body, arena, limits->params, &type, &subtype, &params))
			return;
		if (!subtype.n)
			return;
		p->typed = true;
		p->type = type, p->subtype = subtype, p->params = params;
	} else if (slice_caseeq_str(name, "Transfer-Encoding")) {
		if (!p->encoding_name.n &&
		    mime_parse_params(f->body, arena, 0, &type, NULL, &params))
			p->encoding_name = type;
	} else if (slice_caseeq_str(name, "Disposition")) {
		if (!p->disposition.n &&
		    mime_parse_params(f->body, arena, limits->params, &type, NULL, &params))
			p->disposition = type, p->disposition_params = params;
	} else if (slice_caseeq_str(name, "ID")) {
		p->id = mime_unfold(f->body, arena);
	} else if (slice_caseeq_str(name, "Description")) {
		p->description = mime_unfold(f->body, arena);
	} else if (slice_caseeq_str(name, "MD5")) {
		p->md5 = mime_unfold(f->body, arena);
	} else if (slice_caseeq_str(name, "Language")) {
		p->language = mime_unfold(f->body, arena);
	} else if (slice_caseeq_str(name, "Location")) {
		p->location = mime_unfold(f->body, arena);
	}
}

static void
mime_read_header(struct mime_part *p, struct slice header, bool digest,
    const struct mime_limits *limits, struct arena *arena)
{
	struct header_field f;
	enum header_step step;

	while ((step = header_next(&header, &f)) != HEADER_END)
		if (step == HEADER_FIELD && slice_has_caseprefix(f.name, "Content-"))
			read_field(p, &f, limits, arena);
	if (!p->typed) {
		p->type = digest ? SLICE_LIT("message") : SLICE_LIT("text");
		p->subtype = digest ? SLICE_LIT("rfc822") : SLICE_LIT("plain");
	}
	p->encoding = encoding_of(p->encoding_name);
}

static bool
is_digest(const struct mime_part *p)
{
	return p && p->kind == MIME_MULTIPART && slice_caseeq_str(p->subtype, "digest");
}

static bool
holds_parts(const struct mime_part *p)
{
	return slice_caseeq_str(p->type, "multipart") ||
	       (slice_caseeq_str(p->type, "message") &&
		   (slice_caseeq_str(p->subtype, "rfc822") ||
		       slice_caseeq_str(p->subtype, "global")));
}

/* Makes a multipart or message of the part whose header has just ended, if the limits allow. */
static void
descend(struct mime *m, struct open_part *o)
{
	struct mime_part *p = o->part;
	const struct mime_param *boundary;
	bool room = m->depth <= m->limits.depth && m->parts < m->limits.parts;

	if (slice_caseeq_str(p->type, "multipart")) {
		boundary = mime_param_find(p->params, "boundary");
		if (room && boundary && boundary->value.n &&
		    boundary->value.n <= m->limits.boundary) {
			o->boundary = boundary->value;
			p->kind = MIME_MULTIPART;
		} else {
			/* Nothing can be found in it: show it as text (RFC 2046 section 4.1.2's
			 * default). */
			m->limited |= !room;
			p->type = SLICE_LIT("text");
			p->subtype = SLICE_LIT("plain");
			p->params = NULL;
		}
	} else if (holds_parts(p)) {
		if (room) {
			p->kind = MIME_MESSAGE;
			(void)open_new(m, p, true);
		} else {
			m->limited = true;
			p->type = SLICE_LIT("application");
			p->subtype = SLICE_LIT("octet-stream");
			p->params = NULL;
		}
	}
}

/* body_at is where the body begins. */
static void
end_header(struct mime *m, uint64_t body_at)
{
	struct open_part *o = &m->open[m->depth - 1];
	struct slice header = buf_slice(&m->header);

	o->in_header = false;
	o->part->body_at = o->part->end = body_at;
	o->first_line = m->lines;
	mime_read_header(o->part, header, is_digest(o->part->parent), &m->limits, &m->arena);
	if (o->part->root)
		o->part->header = keep(m, header);
	buf_clear(&m->header);
	m->line_at = body_at;
	descend(m, o);
}

/* --- lines --- */

/* The header of the innermost part is cut short at end: no part comes of it. */
static void
cut_header(struct mime *m, struct open_part *o, uint64_t end)
{
	struct mime_part *p = o->part;
	struct slice header = buf_slice(&m->header);

	o->in_header = false;
	mime_read_header(p, header, is_digest(p->parent), &m->limits, &m->arena);
	if (p->root)
		p->header = keep(m, header);
	if (holds_parts(p)) {
		p->type = SLICE_LIT("text");
		p->subtype = SLICE_LIT("plain");
		p->params = NULL;
	}
	p->body_at = p->end = end;
	buf_clear(&m->header);
}

/* Closes the innermost parts until depth are left; their content ends at end. The last line end
 * belongs to the delimiter, if one closes them. */
static void
close_to(struct mime *m, unsigned depth, uint64_t end, bool own_line)
{
	while (m->depth > depth) {
		struct open_part *o = &m->open[m->depth - 1];
		struct mime_part *p = o->part;

		if (o->in_header) {
			cut_header(m, o, end);
		} else {
			p->end = end;
			p->lines = m->lines - o->first_line;
			if (own_line && p->lines)
				p->lines--;
		}
		m->depth--;
	}
}

/* Whether the line is a delimiter of an open multipart; then *last_r tells the closing form. It is
 * enough that the line begins with the boundary (RFC 2046 section 5.1.1); of several the longest
 * counts. */
static bool
is_boundary(struct mime *m, struct slice line, unsigned *level_r, bool *last_r)
{
	size_t best = 0;

	if (line.n < 3 || line.p[0] != '-' || line.p[1] != '-')
		return false;
	for (unsigned i = m->depth; i-- > 0;) {
		struct slice b = m->open[i].boundary;

		if (b.n <= best || line.n < b.n + 2 || memcmp(line.p + 2, b.p, b.n))
			continue;
		best = b.n;
		*level_r = i;
		*last_r = line.n >= b.n + 4 && !memcmp(line.p + 2 + b.n, "--", 2);
	}
	return best > 0;
}

static void
at_boundary(struct mime *m, unsigned level, bool last, uint64_t next_line)
{
	struct open_part *o = &m->open[level];

	const struct open_part *inner = &m->open[m->depth - 1];
	uint64_t start = inner->in_header ? inner->part->header_at : inner->part->body_at;
	/* The line end before it belongs to the delimiter, unless it ends a header or another one.
	 */
	bool own = m->line_at > start;

	close_to(m, level + 1, m->line_at - (own ? m->eol : 0), own);
	m->line_at = next_line;
	if (last) {
		o->boundary = SLICE_NULL;
	} else if (m->parts < m->limits.parts) {
		(void)open_new(m, o->part, false);
	} else {
		m->limited = true;
	}
}

static void
keep_header(struct mime *m, struct slice bytes)
{
	size_t room = m->limits.header - buf_len(&m->header);

	if (room > m->limits.headers - m->headers)
		room = m->limits.headers - m->headers;
	if (bytes.n > room) {
		m->limited = true;
		bytes.n = room;
	}
	m->headers += bytes.n;
	buf_add(&m->header, bytes);
}

/* One line without its LF, or its beginning (cut); next is the offset behind it; eol 0 at the end
 * of the message. */
static void
end_line(struct mime *m, struct slice line, bool cut, uint64_t next, unsigned eol)
{
	unsigned level;
	bool last;

	if (is_boundary(m, line, &level, &last)) {
		at_boundary(m, level, last, next);
		m->lines += eol ? 1 : 0;
	} else {
		bool in_header = m->open[m->depth - 1].in_header;

		m->lines += eol ? 1 : 0;
		if (in_header && eol && line.n == eol - 1 && !cut) {
			end_header(m, next);
		} else if (in_header) {
			keep_header(m, line);
			if (eol)
				keep_header(m, SLICE_LIT("\n"));
		}
	}
	m->line_at = next;
	m->eol = eol;
}

/* Bytes of the present line that are of use. */
static size_t
useful(const struct mime *m)
{
	return m->open[m->depth - 1].in_header ? m->limits.header + 2 : m->limits.boundary + 64;
}

void
mime_feed(struct mime *m, struct slice bytes)
{
	while (bytes.n && !m->finished) {
		const unsigned char *lf = memchr(bytes.p, '\n', bytes.n);
		size_t n = lf ? (size_t)(lf - bytes.p) + 1 : bytes.n;
		struct slice line = slice_sub(bytes, 0, lf ? n - 1 : n);
		bool cr = line.n ? line.p[line.n - 1] == '\r' : m->last_cr;

		if (m->at != m->line_at || !lf) {
			size_t room = useful(m) - buf_len(&m->line);

			buf_add(&m->line, slice_sub(line, 0, room));
			line = buf_slice(&m->line);
		}
		m->at += n;
		m->last_cr = cr && !lf;
		if (lf) {
			end_line(m, line, line.n < m->at - 1 - m->line_at, m->at, cr ? 2 : 1);
			buf_clear(&m->line);
		}
		bytes = slice_sub(bytes, n, bytes.n);
	}
}

/* A last delimiter with nothing behind it begins no part. */
static void
drop_empty(struct mime *m)
{
	struct open_part *o = &m->open[m->depth - 1];
	struct mime_part *parent = o->part->parent, *before;

	if (!parent || parent->kind != MIME_MULTIPART || !o->in_header ||
	    o->part->header_at != m->at)
		return;
	m->depth--;
	m->parts--;
	if (parent->children == o->part) {
		parent->children = parent->last_child = NULL;
		return;
	}
	for (before = parent->children; before->next != o->part; before = before->next)
		;
	before->next = NULL;
	parent->last_child = before;
}

const struct mime_part *
mime_finish(struct mime *m)
{
	if (m->finished)
		return m->root;
	if (m->at > m->line_at)
		end_line(m, buf_slice(&m->line), buf_len(&m->line) < m->at - m->line_at, m->at, 0);
	m->eol = 0;
	drop_empty(m);
	close_to(m, 0, m->at, false);
	m->finished = true;
	return m->root;
}

/* A part that has a number: what its child number k is. */
static const struct mime_part *
numbered_child(const struct mime_part *p, bool numbered, uint32_t k)
{
	if (numbered && p->kind == MIME_MESSAGE)
		p = p->children;
	else if (numbered && p->kind == MIME_LEAF)
		return NULL;
	if (p->kind != MIME_MULTIPART)
		return k == 1 ? p : NULL;
	for (p = p->children; p && p->number != k; p = p->next)
		;
	return p;
}

const struct mime_part *
mime_find(const struct mime_part *root, const uint32_t *path, size_t n)
{
	for (size_t i = 0; i < n && root; i++)
		root = numbered_child(root, i > 0, path[i]);
	return root;
}
