/*
 * What FETCH asks for. Runs in imapd-child on what the user sends.
 *
 *	fetch     = "FETCH" SP sequence-set SP ("ALL" / "FULL" / "FAST" / fetch-att /
 *	            "(" fetch-att *(SP fetch-att) ")")
 *	fetch-att = "ENVELOPE" / "FLAGS" / "INTERNALDATE" / "UID" /
 *	            "RFC822" [".HEADER" / ".SIZE" / ".TEXT"] / "BODY" ["STRUCTURE"] /
 *	            "BODY" [".PEEK"] section [partial] /
 *	            "BINARY" [".PEEK"] section-binary [partial] / "BINARY.SIZE" section-binary
 *	section-spec = section-msgtext / (section-part ["." section-text])
 */
#include "imap/command.h"

enum { MAX_ATTS = 200, MAX_DEPTH = 100, MAX_FIELDS = 1000 };

static const struct {
	const char *name;
	enum fetch_type type;
} plain[] = {
	{ "UID", FETCH_UID },
	{ "FLAGS", FETCH_FLAGS },
	{ "INTERNALDATE", FETCH_DATE },
	{ "RFC822.SIZE", FETCH_SIZE },
	{ "ENVELOPE", FETCH_ENVELOPE },
	{ "BODYSTRUCTURE", FETCH_STRUCTURE },
};

static struct fetch_att *
add(struct imap_session *s, struct fetch_att ***tail, enum fetch_type type)
{
	struct fetch_att *a = arena_alloc(&s->arena, sizeof(*a));

	a->type = type;
	**tail = a;
	*tail = &a->next;
	return a;
}

/* --- sections --- */

/* section-part = nz-number *("." nz-number) */
static bool
section_path(struct imap_session *s, struct imap_parse *p, struct fetch_att *a)
{
	a->path = arena_alloc(&s->arena, MAX_DEPTH * sizeof(*a->path));
	do {
		if (!ascii_is_digit((unsigned char)imap_peek(p)))
			break;
		if (a->depth == MAX_DEPTH)
			return imap_fail(p, "Section is too deep");
		if (!imap_nz_number(p, &a->path[a->depth++]))
			return false;
		if (imap_peek(p) != '.')
			return true;
	} while (imap_try(p, '.'));
	/* A text name follows: at once, or behind the last dot. */
	return true;
}

/* header-list = "(" header-fld-name *(SP header-fld-name) ")" */
static bool
header_list(struct imap_session *s, struct imap_parse *p, struct fetch_att *a)
{
	size_t size = 0;

	if (!imap_sp(p) || !imap_need(p, '('))
		return false;
	do {
		if (a->field_count == MAX_FIELDS)
			return imap_fail(p, "Too many header fields");
		if (a->field_count == size) {
			struct slice *bigger;

			size = size ? 2 * size : 8;
			bigger = arena_alloc(&s->arena, size * sizeof(*bigger));
			if (a->field_count)
				memcpy(bigger, a->fields, a->field_count * sizeof(*bigger));
			a->fields = bigger;
		}
		if (!imap_astring(p, &a->fields[a->field_count++]))
			return false;
	} while (imap_try(p, ' '));
	return imap_need(p, ')');
}

static bool
section_text(struct imap_session *s, struct imap_parse *p, struct fetch_att *a)
{
	if (imap_try_text(p, "HEADER.FIELDS.NOT"))
		a->kind = SECTION_FIELDS_NOT;
	else if (imap_try_text(p, "HEADER.FIELDS"))
		a->kind = SECTION_FIELDS;
	else if (imap_try_text(p, "HEADER"))
		a->kind = SECTION_HEADER;
	else if (imap_try_text(p, "TEXT"))
		a->kind = SECTION_TEXT;
	else if (a->depth && imap_try_text(p, "MIME"))
		a->kind = SECTION_MIME;
	else
		return imap_fail(p, "Unknown section");
	if (a->kind == SECTION_FIELDS || a->kind == SECTION_FIELDS_NOT)
		return header_list(s, p, a);
	return true;
}

static bool
section(struct imap_session *s, struct imap_parse *p, struct fetch_att *a, bool binary)
{
	if (!imap_need(p, '[') || !section_path(s, p, a))
		return false;
	if (imap_peek(p) != ']') {
		/* "1TEXT" is no section: a name needs its dot behind a number. */
		if (binary || (a->depth && p->in.p[p->at - 1] != '.') || !section_text(s, p, a))
			return imap_fail(p, "Unknown section");
	} else if (a->depth && p->in.p[p->at - 1] == '.') {
		return imap_fail(p, "Unknown section");
	}
	return imap_need(p, ']');
}

/* partial = "<" number64 "." nz-number64 ">" */
static bool
partial(struct imap_parse *p, struct fetch_att *a)
{
	if (!imap_try(p, '<'))
		return true;
	a->partial = true;
	if (!imap_number64(p, &a->origin) || !imap_need(p, '.') || !imap_number64(p, &a->count))
		return false;
	if (!a->count)
		return imap_fail(p, "Partial of no bytes");
	return imap_need(p, '>');
}

static void
label_section(struct buf *b, const struct fetch_att *a)
{
	static const char *const kinds[] = { "", "HEADER", "HEADER.FIELDS", "HEADER.FIELDS.NOT",
		"TEXT", "MIME" };

	buf_add_str(b, "[");
	for (size_t i = 0; i < a->depth; i++)
		buf_addf(b, i ? ".%u" : "%u", a->path[i]);
	if (a->depth && a->kind != SECTION_ALL)
		buf_add_str(b, ".");
	buf_add_str(b, kinds[a->kind]);
	for (size_t i = 0; i < a->field_count; i++) {
		buf_add_str(b, i ? " " : " (");
		imap_put_string(b, a->fields[i]);
	}
	buf_add_str(b, a->field_count ? ")]" : "]");
}

static void
label(struct imap_session *s, struct fetch_att *a, const char *name)
{
	struct buf b = { 0 };

	buf_add_str(&b, name);
	label_section(&b, a);
	if (a->partial)
		buf_addf(&b, "<%llu>", (unsigned long long)a->origin);
	a->label = (const char *)arena_dup(&s->arena, buf_slice(&b)).p;
	buf_free(&b);
}

static bool
body(struct imap_session *s, struct imap_parse *p, struct fetch_att ***tail)
{
	bool peek = imap_try_text(p, ".PEEK");
	struct fetch_att *a;

	if (!peek && imap_peek(p) != '[') {
		(void)add(s, tail, FETCH_BODY);
		return true;
	}
	a = add(s, tail, FETCH_SECTION);
	a->peek = peek;
	if (!section(s, p, a, false) || !partial(p, a))
		return false;
	label(s, a, "BODY");
	return true;
}

static bool
binary(struct imap_session *s, struct imap_parse *p, struct fetch_att ***tail)
{
	bool size = imap_try_text(p, ".SIZE");
	struct fetch_att *a = add(s, tail, size ? FETCH_BINARY_SIZE : FETCH_BINARY);

	a->peek = size || imap_try_text(p, ".PEEK");
	if (!section(s, p, a, true) || (!size && !partial(p, a)))
		return false;
	label(s, a, size ? "BINARY.SIZE" : "BINARY");
	return true;
}

static bool
rfc822(struct imap_session *s, struct imap_parse *p, struct fetch_att ***tail)
{
	struct fetch_att *a = add(s, tail, FETCH_SECTION);

	if (imap_try_word(p, ".HEADER")) {
		a->kind = SECTION_HEADER;
		a->peek = true;
		a->label = "RFC822.HEADER";
	} else if (imap_try_word(p, ".TEXT")) {
		a->kind = SECTION_TEXT;
		a->label = "RFC822.TEXT";
	} else if (imap_peek(p) == '.') {
		return imap_fail(p, "Unknown FETCH attribute");
	} else {
		a->label = "RFC822";
	}
	return true;
}

static bool
attribute(struct imap_session *s, struct imap_parse *p, struct fetch_att ***tail)
{
	for (size_t i = 0; i < sizeof(plain) / sizeof(*plain); i++)
		if (imap_try_word(p, plain[i].name)) {
			(void)add(s, tail, plain[i].type);
			return true;
		}
	if (imap_try_text(p, "BODY"))
		return body(s, p, tail);
	if (imap_try_text(p, "BINARY"))
		return binary(s, p, tail);
	if (imap_try_text(p, "RFC822"))
		return rfc822(s, p, tail);
	return imap_fail(p, "Unknown FETCH attribute");
}

static bool
macro(struct imap_session *s, struct imap_parse *p, struct fetch_att ***tail)
{
	static const enum fetch_type all[] = { FETCH_FLAGS, FETCH_DATE, FETCH_SIZE, FETCH_ENVELOPE,
		FETCH_BODY };
	size_t n = imap_try_word(p, "ALL")    ? 4
		   : imap_try_word(p, "FULL") ? 5
		   : imap_try_word(p, "FAST") ? 3
					      : 0;

	for (size_t i = 0; i < n; i++)
		(void)add(s, tail, all[i]);
	return n > 0;
}

bool
imap_fetch_atts(struct imap_session *s, struct imap_parse *p, struct fetch_att **out_r)
{
	struct fetch_att **tail = out_r;
	unsigned count = 0;

	*out_r = NULL;
	if (macro(s, p, &tail))
		return true;
	if (!imap_try(p, '('))
		return attribute(s, p, &tail);
	do {
		if (++count > MAX_ATTS)
			return imap_fail(p, "Too many FETCH attributes");
		if (!attribute(s, p, &tail))
			return false;
	} while (imap_try(p, ' '));
	return imap_need(p, ')');
}
