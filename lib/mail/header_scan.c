/*
 * What a receiver must know of a header section while the content streams by: hop count, sizes,
 * which fields are there. Runs in smtpd and submission on bytes from strangers; keeps 32 bytes of a
 * field name and nothing else. Invariant: any cut of the input into feeds gives the same result.
 */
#include "mail/header.h"

static const struct {
	const char *name;
	unsigned bit;
} known[] = {
	{ "date", HEADER_DATE },
	{ "message-id", HEADER_MESSAGE_ID },
	{ "from", HEADER_FROM },
	{ "sender", HEADER_SENDER },
	{ "resent-from", HEADER_RESENT_FROM },
	{ "return-path", HEADER_RETURN_PATH },
};

static void
field_named(struct header_scan *h)
{
	struct slice name = slice_trim(slice(h->name, h->name_n), false);

	h->fields++;
	if (h->count_limit && h->fields > h->count_limit)
		h->err = ERR_LIMIT;
	if (name.n == HEADER_NAME_KEPT) /* there may be more of it */
		return;
	if (slice_eq_str(name, "received"))
		h->received++;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (slice_eq_str(name, known[i].name))
			h->seen |= known[i].bit;
}

/* A line that is no field ends the section: what follows is body. */
static void
not_a_field(struct header_scan *h)
{
	h->done = true;
	if (!h->fields)
		h->no_header = true;
}

static void
at_line_start(struct header_scan *h, unsigned char c)
{
	if (c == '\r') {
		h->state = SCAN_EMPTY_CR;
		h->field_bytes = 0;
	} else if (c == ' ' || c == '\t') {
		if (h->fields)
			h->state = SCAN_VALUE;
		else
			not_a_field(h);
	} else {
		h->state = SCAN_NAME;
		h->field_bytes = h->name_n = 0;
	}
}

static void
in_name(struct header_scan *h, unsigned char c)
{
	if (c == ':') {
		if (h->name_n)
			field_named(h);
		else
			not_a_field(h);
		h->state = SCAN_VALUE;
	} else if (c < 32 && c != '\t') {
		not_a_field(h);
	} else if (h->name_n && (h->name[h->name_n - 1] == ' ' || h->name[h->name_n - 1] == '\t') &&
		   c != ' ' && c != '\t') {
		not_a_field(h); /* blanks may stand only before the colon */
	} else if (h->name_n < HEADER_NAME_KEPT) {
		h->name[h->name_n++] = ascii_lower(c);
	}
}

static void
count_bytes(struct header_scan *h, size_t n)
{
	h->bytes += n;
	h->field_bytes += n;
	if ((h->section_limit && h->bytes > h->section_limit) ||
	    (h->field_limit && h->field_bytes > h->field_limit))
		h->err = ERR_LIMIT;
}

/* Skips to the line end at one go; values are not looked into. */
static size_t
skip_value(struct header_scan *h, struct slice s)
{
	ptrdiff_t lf = slice_find(s, '\n');
	size_t n = lf < 0 ? s.n : (size_t)lf + 1;

	for (size_t i = 0; i < n && !h->non_ascii; i++)
		if (s.p[i] >= 0x80)
			h->non_ascii = true;
	if (lf >= 0)
		h->state = SCAN_START;
	count_bytes(h, n);
	return n;
}

void
header_scan_feed(struct header_scan *h, struct slice s)
{
	size_t i = 0;

	while (i < s.n && !h->done && !h->err) {
		unsigned char c = s.p[i];
		switch (h->state) {
		case SCAN_START:
			at_line_start(h, c);
			if (h->done)
				break;
			if (h->state == SCAN_NAME)
				in_name(h, c);
			count_bytes(h, 1);
			i++;
			break;
		case SCAN_NAME:
			in_name(h, c);
			count_bytes(h, 1);
			i++;
			break;
		case SCAN_VALUE:
			i += skip_value(h, slice_sub(s, i, s.n));
			break;
		case SCAN_EMPTY_CR:
			h->done = true;
			count_bytes(h, 1);
			i++;
			break;
		}
		if (c >= 0x80)
			h->non_ascii = true;
	}
}

void
header_scan_end(struct header_scan *h)
{
	if (!h->done && !h->fields && h->state == SCAN_NAME)
		h->no_header = true;
	h->done = true;
}
