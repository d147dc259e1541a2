/*
 * ENVELOPE, BODY and BODYSTRUCTURE (RFC 9051 section 7.5.2). Runs in imapd-child; the headers are
 * hostile. Recursion is bounded by the depth limit of the MIME parser.
 *
 *	envelope = "(" env-date SP env-subject SP env-from SP env-sender SP env-reply-to SP
 *	           env-to SP env-cc SP env-bcc SP env-in-reply-to SP env-message-id ")"
 *	body     = "(" (body-type-1part / body-type-mpart) ")"
 */
#include "imap/command.h"
#include "mail/envelope.h"

static void
put_address(struct buf *out, const struct address_entry *a)
{
	buf_add_str(out, "(");
	if (a->kind == ADDRESS_GROUP_START) {
		buf_add_str(out, "NIL NIL ");
		imap_put_string(out, a->name);
		buf_add_str(out, " NIL");
	} else if (a->kind == ADDRESS_GROUP_END) {
		buf_add_str(out, "NIL NIL NIL NIL");
	} else {
		imap_put_nstring(out, a->name, a->name.n > 0);
		buf_add_str(out, " ");
		imap_put_nstring(out, a->route, a->route.n > 0);
		buf_add_str(out, " ");
		imap_put_string(out, a->local);
		buf_add_str(out, " ");
		/* NIL would make it a group: a missing domain is an empty one. */
		imap_put_string(out, a->domain);
	}
	buf_add_str(out, ")");
}

static void
put_addresses(struct buf *out, const struct address_list *l)
{
	const struct address_entry *a;

	if (!l->count) {
		buf_add_str(out, "NIL");
		return;
	}
	buf_add_str(out, "(");
	STAILQ_FOREACH(a, &l->entries, next)
		put_address(out, a);
	buf_add_str(out, ")");
}

void
imap_write_envelope(struct buf *out, struct slice header, struct arena *arena)
{
	struct envelope e;

	envelope_read(header, arena, IMAP_ADDRESSES_MAX, &e);
	const struct address_list *const lists[] = { &e.from, &e.sender, &e.reply_to, &e.to, &e.cc,
		&e.bcc };

	buf_add_str(out, "(");
	imap_put_nstring(out, e.date.text, e.date.present);
	buf_add_str(out, " ");
	imap_put_nstring(out, e.subject.text, e.subject.present);
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++) {
		buf_add_str(out, " ");
		put_addresses(out, lists[i]);
	}
	buf_add_str(out, " ");
	imap_put_nstring(out, e.in_reply_to.text, e.in_reply_to.present);
	buf_add_str(out, " ");
	imap_put_nstring(out, e.message_id.text, e.message_id.present);
	buf_add_str(out, ")");
}

static void
put_params(struct buf *out, const struct mime_param *p)
{
	if (!p) {
		buf_add_str(out, "NIL");
		return;
	}
	buf_add_str(out, "(");
	for (; p; p = p->next) {
		imap_put_string(out, p->name);
		buf_add_str(out, " ");
		imap_put_string(out, p->value);
		if (p->next)
			buf_add_str(out, " ");
	}
	buf_add_str(out, ")");
}

/* body-fld-dsp SP body-fld-lang SP body-fld-loc */
static void
put_extension(struct buf *out, const struct mime_part *p)
{
	if (p->disposition.n) {
		buf_add_str(out, " (");
		imap_put_string(out, p->disposition);
		buf_add_str(out, " ");
		put_params(out, p->disposition_params);
		buf_add_str(out, ") ");
	} else {
		buf_add_str(out, " NIL ");
	}
	imap_put_nstring(out, p->language, p->language.n > 0);
	buf_add_str(out, " ");
	imap_put_nstring(out, p->location, p->location.n > 0);
}

static void
put_multipart(struct buf *out, const struct mime_part *p, bool extended, bool rev2)
{
	for (const struct mime_part *c = p->children; c; c = c->next)
		imap_write_structure(out, c, extended, rev2);
	/* At least one part is due; a multipart without any shows an empty text. */
	if (!p->children)
		buf_add_str(out,
		    extended
			? "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0 NIL "
			  "NIL NIL NIL)"
			: "(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0)");
	buf_add_str(out, " ");
	imap_put_string(out, p->subtype);
	if (extended) {
		buf_add_str(out, " ");
		put_params(out, p->params);
		put_extension(out, p);
	}
}

static bool
as_message(const struct mime_part *p, bool rev2)
{
	return p->kind == MIME_MESSAGE && (rev2 || slice_caseeq_str(p->subtype, "rfc822"));
}

static void
put_single(struct buf *out, const struct mime_part *p, bool extended, bool rev2)
{
	imap_put_string(out, p->type);
	buf_add_str(out, " ");
	imap_put_string(out, p->subtype);
	buf_add_str(out, " ");
	if (!p->typed && slice_eq_str(p->type, "text"))
		buf_add_str(out, "(\"charset\" \"us-ascii\")");
	else
		put_params(out, p->params);
	buf_add_str(out, " ");
	imap_put_nstring(out, p->id, p->id.n > 0);
	buf_add_str(out, " ");
	imap_put_nstring(out, p->description, p->description.n > 0);
	buf_add_str(out, " ");
	imap_put_string(out, p->encoding_name.n ? p->encoding_name : SLICE_LIT("7bit"));
	buf_addf(out, " %llu", (unsigned long long)(p->end - p->body_at));
	if (as_message(p, rev2)) {
		struct arena arena = { 0 };

		buf_add_str(out, " ");
		imap_write_envelope(out, p->children->header, &arena);
		buf_add_str(out, " ");
		imap_write_structure(out, p->children, extended, rev2);
		arena_free(&arena);
	}
	if (as_message(p, rev2) || slice_caseeq_str(p->type, "text"))
		buf_addf(out, " %llu", (unsigned long long)p->lines);
	if (extended) {
		buf_add_str(out, " ");
		imap_put_nstring(out, p->md5, p->md5.n > 0);
		put_extension(out, p);
	}
}

void
imap_write_structure(struct buf *out, const struct mime_part *p, bool extended, bool rev2)
{
	buf_add_str(out, "(");
	if (p->kind == MIME_MULTIPART)
		put_multipart(out, p, extended, rev2);
	else
		put_single(out, p, extended, rev2);
	buf_add_str(out, ")");
}
