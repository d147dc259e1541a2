/*
 * What a command answers: untagged data, the tagged end, and before it what changed in the selected
 * mailbox. Runs in imapd-child. Invariant: every tagged reply goes through here, and a session that
 * has ended says nothing more.
 */
#include "imap/command.h"

#include <errno.h>

/* --- replies --- */

void
imap_put(struct imap_session *s, const char *text)
{
	buf_add_str(&s->out, text);
}

void
imap_putf(struct imap_session *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	buf_addv(&s->out, fmt, ap);
	va_end(ap);
}

void
imap_put_tag(struct imap_session *s)
{
	if (s->tag_len)
		buf_add(&s->out, slice(s->tag, s->tag_len));
	else
		imap_put(s, "*");
}

static void
reply(struct imap_session *s, const char *kind, const char *text)
{
	imap_put_tag(s);
	imap_put(s, kind);
	imap_put(s, text);
	imap_put(s, "\r\n");
}

void
imap_ok(struct imap_session *s, bool expunges, const char *text)
{
	imap_sync(s, expunges);
	if (s->ended)
		return;
	s->errors = 0;
	reply(s, " OK ", text);
}

void
imap_okf(struct imap_session *s, bool expunges, const char *fmt, ...)
{
	va_list ap;

	imap_sync(s, expunges);
	if (s->ended)
		return;
	s->errors = 0;
	imap_put_tag(s);
	imap_put(s, " OK ");
	va_start(ap, fmt);
	buf_addv(&s->out, fmt, ap);
	va_end(ap);
	imap_put(s, "\r\n");
}

void
imap_no(struct imap_session *s, const char *text)
{
	imap_sync(s, false);
	if (!s->ended)
		reply(s, " NO ", text);
}

void
imap_bad(struct imap_session *s, const char *text)
{
	reply(s, " BAD ", text);
	s->counts.errors++;
	if (++s->errors >= s->config.max_errors) {
		s->limit = "imap_error_limit";
		imap_session_bye(s, "Too many bad commands");
	}
}

void
imap_store_failed(struct imap_session *s, int err)
{
	switch (err) {
	case ERR_NOT_FOUND:
		imap_no(s, "[NONEXISTENT] There is no such mailbox");
		break;
	case -EEXIST:
		imap_no(s, "[ALREADYEXISTS] The mailbox exists already");
		break;
	case ERR_DENIED:
		imap_no(s, "[CANNOT] Not allowed for this mailbox");
		break;
	case ERR_SYNTAX:
		imap_no(s, "[CANNOT] Not possible");
		break;
	case -ENOSPC:
		s->trouble = err;
		FALLTHROUGH;
	case ERR_LIMIT:
	case -EDQUOT:
		imap_no(s, "[OVERQUOTA] There is no room");
		break;
	case ERR_CORRUPT:
		s->trouble = err;
		imap_no(s, "[CORRUPTION] Stored data is damaged");
		break;
	default:
		s->trouble = err;
		imap_no(s, "[UNAVAILABLE] The mail store failed, try again later");
		break;
	}
}

/* --- changes --- */

static void
tell(void *ctx, const struct store_event *e)
{
	struct imap_session *s = ctx;

	switch (e->type) {
	case EVENT_EXPUNGED:
		imap_putf(s, "* %u EXPUNGE\r\n", e->seq);
		if (s->content_uid == e->uid)
			imap_drop_content(s);
		break;
	case EVENT_FLAGS:
		imap_putf(s, "* %u FETCH (", e->seq);
		if (s->uid || s->rev2)
			imap_putf(s, "UID %u ", e->uid);
		imap_put_flags(s, e->seq);
		imap_put(s, ")\r\n");
		break;
	case EVENT_KEYWORDS:
		if (mailbox_keyword_count(s->mailbox) != s->keywords_told)
			imap_put_mailbox_flags(s);
		break;
	case EVENT_EXISTS:
		imap_putf(s, "* %u EXISTS\r\n", e->seq);
		if (!s->rev2)
			imap_putf(s, "* %u RECENT\r\n", mailbox_recent_count(s->mailbox));
		break;
	}
}

void
imap_sync(struct imap_session *s, bool expunges)
{
	if (!s->mailbox)
		return;
	if (mailbox_sync(s->mailbox, expunges ? 0 : SYNC_NO_EXPUNGE, tell, s) == ERR_NOT_FOUND) {
		/* The folder is gone: the session cannot go on with it (RFC 2180 section 3). */
		imap_session_bye(s, "The selected mailbox was deleted");
	}
}
