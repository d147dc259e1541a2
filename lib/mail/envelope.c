/*
 * ENVELOPE from a header block. Runs in imapd-child on hostile headers; linear, bounded by the
 * block.
 */
#include "mail/envelope.h"
#include "mail/header.h"
#include "mail/mime_param.h"

static void
read_text(struct envelope_text *t, struct slice body, struct arena *arena)
{
	if (t->present)
		return;
	t->present = true;
	t->text = mime_unfold(body, arena);
}

static void
read_list(struct address_list *l, struct slice body, struct arena *arena, size_t max)
{
	if (l->count)
		return;
	/* Too many: the first max are shown. */
	if (address_list_parse(body, arena, max, l) < 0)
		return;
}

void
envelope_read(struct slice header, struct arena *arena, size_t max, struct envelope *e)
{
	struct header_field f;
	enum header_step step;
	const struct {
		const char *name;
		struct envelope_text *text;
		struct address_list *list;
	} fields[] = {
		{ "Date", &e->date, NULL },
		{ "Subject", &e->subject, NULL },
		{ "In-Reply-To", &e->in_reply_to, NULL },
		{ "Message-ID", &e->message_id, NULL },
		{ "From", NULL, &e->from },
		{ "Sender", NULL, &e->sender },
		{ "Reply-To", NULL, &e->reply_to },
		{ "To", NULL, &e->to },
		{ "Cc", NULL, &e->cc },
		{ "Bcc", NULL, &e->bcc },
	};

	memset(e, 0, sizeof(*e));
	while ((step = header_next(&header, &f)) != HEADER_END) {
		if (step != HEADER_FIELD)
			continue;
		for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
			if (!slice_caseeq_str(f.name, fields[i].name))
				continue;
			if (fields[i].text)
				read_text(fields[i].text, f.body, arena);
			else
				read_list(fields[i].list, f.body, arena, max);
			break;
		}
	}
	if (!e->sender.count)
		e->sender = e->from;
	if (!e->reply_to.count)
		e->reply_to = e->from;
}
