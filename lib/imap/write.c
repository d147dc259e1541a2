/*
 * Writing of IMAP data. Runs in imapd-child; what is written comes from hostile messages and
 * clients. Invariant: no CR, LF or NUL from a message gets out of a literal.
 */
#include "imap/command.h"

static bool
may_quote(struct slice s)
{
	if (s.n > 1000)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 32 || s.p[i] > 126)
			return false;
	return true;
}

void
imap_put_string(struct buf *out, struct slice s)
{
	if (!may_quote(s)) {
		size_t from = 0;

		buf_addf(out, "{%zu}\r\n", s.n);
		for (size_t i = 0; i < s.n; i++)
			if (!s.p[i]) {
				buf_add(out, slice_sub(s, from, i));
				buf_add_byte(out, '?');
				from = i + 1;
			}
		buf_add(out, slice_sub(s, from, s.n));
		return;
	}
	buf_add_byte(out, '"');
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '"' || s.p[i] == '\\')
			buf_add_byte(out, '\\');
		buf_add_byte(out, s.p[i]);
	}
	buf_add_byte(out, '"');
}

void
imap_put_nstring(struct buf *out, struct slice s, bool present)
{
	if (present)
		imap_put_string(out, s);
	else
		buf_add_str(out, "NIL");
}

void
imap_put_mailbox(struct imap_session *s, const char *name)
{
	struct buf encoded = { 0 };

	if (s->rev2) {
		/* quoted-specials aside, UTF-8 may stand in a quoted string (RFC 9051 section 9).
		 */
		imap_put(s, "\"");
		for (const char *c = name; *c; c++) {
			if (*c == '"' || *c == '\\')
				buf_add_byte(&s->out, '\\');
			buf_add_byte(&s->out, (unsigned char)*c);
		}
		imap_put(s, "\"");
		return;
	}
	if (mutf7_encode(slice_str(name), &encoded) < 0) {
		buf_clear(&encoded);
		buf_add_str(&encoded, name);
	}
	imap_put_string(&s->out, buf_slice(&encoded));
	buf_free(&encoded);
}

void
imap_put_name(struct imap_session *s, const char *attributes, const char *name, const char *oldname)
{
	if (!s->rev2)
		return;
	imap_putf(s, "* LIST (%s) \"/\" ", attributes);
	imap_put_mailbox(s, name);
	if (oldname) {
		imap_put(s, " (\"OLDNAME\" (");
		imap_put_mailbox(s, oldname);
		imap_put(s, "))");
	}
	imap_put(s, "\r\n");
}

static const struct {
	enum message_flag flag;
	const char *name;
} system_flags[] = {
	{ FLAG_ANSWERED, "\\Answered" },
	{ FLAG_FLAGGED, "\\Flagged" },
	{ FLAG_DELETED, "\\Deleted" },
	{ FLAG_SEEN, "\\Seen" },
	{ FLAG_DRAFT, "\\Draft" },
};

uint8_t
imap_system_flag(struct slice name)
{
	for (size_t i = 0; i < sizeof(system_flags) / sizeof(*system_flags); i++)
		if (slice_caseeq_str(name, system_flags[i].name))
			return (uint8_t)system_flags[i].flag;
	return 0;
}

static void
put_word(struct imap_session *s, const char **sep, const char *word)
{
	imap_put(s, *sep);
	imap_put(s, word);
	*sep = " ";
}

void
imap_put_flags(struct imap_session *s, uint32_t seq)
{
	const struct message *m = mailbox_message(s->mailbox, seq);
	const char *sep = "";

	imap_put(s, "FLAGS (");
	for (size_t i = 0; m && i < sizeof(system_flags) / sizeof(*system_flags); i++)
		if (m->flags & system_flags[i].flag)
			put_word(s, &sep, system_flags[i].name);
	if (!s->rev2 && mailbox_is_recent(s->mailbox, seq))
		put_word(s, &sep, "\\Recent");
	for (unsigned i = 0; m && m->keywords >> i && i < STORE_KEYWORDS; i++) {
		const char *name = mailbox_keyword(s->mailbox, i);

		if (name && m->keywords >> i & 1)
			put_word(s, &sep, name);
		if (i == 63)
			break;
	}
	imap_put(s, ")");
}

static void
put_all_flags(struct imap_session *s)
{
	const char *sep = "";

	for (size_t i = 0; i < sizeof(system_flags) / sizeof(*system_flags); i++)
		put_word(s, &sep, system_flags[i].name);
	for (unsigned i = 0; i < mailbox_keyword_count(s->mailbox); i++) {
		const char *name = mailbox_keyword(s->mailbox, i);

		if (name)
			put_word(s, &sep, name);
	}
}

/* Whether a keyword that the mailbox does not have yet can be made. */
static bool
room_for_keywords(struct imap_session *s)
{
	unsigned i = 0;

	while (i < STORE_KEYWORDS && mailbox_keyword(s->mailbox, i))
		i++;
	return i < STORE_KEYWORDS;
}

void
imap_put_mailbox_flags(struct imap_session *s)
{
	s->keywords_told = mailbox_keyword_count(s->mailbox);
	imap_put(s, "* FLAGS (");
	put_all_flags(s);
	imap_put(s, ")\r\n* OK [PERMANENTFLAGS (");
	if (!mailbox_read_only(s->mailbox)) {
		put_all_flags(s);
		imap_put(s, room_for_keywords(s) ? " \\*" : "");
	}
	imap_put(s, ")] Flags that are kept\r\n");
}

void
imap_put_set(struct buf *out, const uint32_t *ids, size_t n)
{
	for (size_t i = 0; i < n;) {
		size_t last = i;

		while (last + 1 < n && ids[last + 1] == ids[last] + 1)
			last++;
		buf_addf(out, "%s%u", i ? "," : "", ids[i]);
		if (last > i)
			buf_addf(out, ":%u", ids[last]);
		i = last + 1;
	}
}
