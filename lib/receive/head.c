/*
 * The head of a submitted message. Runs in the children of submission and smtpd, and in pickup, on
 * hostile content. Invariant: of the content nothing changes but whole fields of the header section
 * that message_drop_headers names; what is added stands before its first field.
 */
#include "receive/head.h"

#include "mail/date.h"

static bool
is_dropped(const struct conf_list *names, struct slice name)
{
	for (size_t i = 0; i < names->n; i++)
		if (slice_caseeq_str(name, names->v[i]))
			return true;
	return false;
}

/* In place and in one pass: what is kept moves up over what was dropped. Lines that are no field,
 * as with octets above 127 in the name, are kept, and do not hide those behind them. */
static void
drop_fields(struct mail *m, size_t at, size_t section)
{
	const struct conf_list *names = &m->r->d->conf->message_drop_headers;
	unsigned char *start = m->content.data + m->content.head, *to = start + at;
	struct slice all = slice(to, buf_len(&m->content) - at);
	struct slice rest = slice_sub(all, 0, section);
	struct header_field field;

	if (!names->n)
		return;
	while (rest.n) {
		bool is_field = header_next(&rest, &field) == HEADER_FIELD;
		if (is_field && is_dropped(names, field.name))
			continue;
		memmove(to, field.raw.p, field.raw.n);
		to += field.raw.n;
	}
	all = slice_sub(all, section, all.n);
	memmove(to, all.p, all.n);
	buf_truncate(&m->content, (size_t)(to - start) + all.n);
}

static void
add_fields(const struct mail *m, const struct head *h, struct buf *text)
{
	int64_t now = h->began / 1000000;
	char date[DATE_BUF_SIZE];

	if (!(h->scan->seen & HEADER_DATE)) {
		date_format(now, date_local_zone(now), date);
		buf_addf(text, "Date: %s\r\n", date);
	}
	if (!(h->scan->seen & HEADER_MESSAGE_ID))
		buf_addf(text, "Message-ID: <%llX.%s@%s>\r\n", (unsigned long long)h->began, h->id,
		    m->r->d->conf->myhostname);
}

void
mail_complete_head(struct mail *m, const struct head *h, bool submitted)
{
	struct buf text = { 0 };

	if (submitted && !h->scan->no_header && m->state == MAIL_MEMORY)
		drop_fields(m, h->at, h->scan->bytes);
	if (submitted && m->r->d->conf->submission_add_headers)
		add_fields(m, h, &text);
	if (h->scan->no_header)
		buf_add_str(&text, "\r\n");
	if (buf_len(&text))
		mail_insert(m, h->at, buf_slice(&text));
	buf_free(&text);
	mail_release(m);
}
