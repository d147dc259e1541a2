/*
 * The maildrop of a POP3 session: a view of the INBOX that is never synced while the session lasts,
 * so message numbers stand. Runs in pop3d-child as the user. Other sessions may remove messages
 * meanwhile: then RETR says so, and nothing else changes. Files stay in new/ until they are read.
 * UIDL is Dovecot's default (UID and UIDVALIDITY in hex), or what dovecot-uidlist gave.
 */
#include "pop3d/drop.h"

#include <stdlib.h>

enum { BATCH = 500 };

struct drop {
	struct mailbox *m;
};

int
drop_open(struct store *store, struct drop **out_r)
{
	struct drop *d = xcalloc(1, sizeof(*d));
	int rc = mailbox_open(store, SLICE_LIT("INBOX"), MAILBOX_KEEP_RECENT, &d->m);

	if (rc < 0)
		drop_free(&d);
	*out_r = d;
	return rc;
}

void
drop_free(struct drop **dp)
{
	struct drop *d = *dp;

	*dp = NULL;
	if (!d)
		return;
	mailbox_free(&d->m);
	free(d);
}

uint32_t
drop_count(const struct drop *d)
{
	return mailbox_count(d->m);
}

static uint32_t
op_count(void *drop)
{
	return drop_count(drop);
}

static int
op_size(void *drop, uint32_t i, uint64_t *out_r)
{
	struct drop *d = drop;

	return mailbox_size(d->m, mailbox_uid(d->m, i + 1), out_r);
}

static void
op_uidl(void *drop, uint32_t i, struct buf *out)
{
	struct drop *d = drop;
	uint32_t uid = mailbox_uid(d->m, i + 1);

	if (mailbox_pop3_uidl(d->m, uid, out) < 0)
		buf_addf(out, "%08x%08x", uid, mailbox_uidvalidity(d->m));
}

static int
op_open(void *drop, uint32_t i, void **content_r)
{
	struct drop *d = drop;
	struct content *c;
	int rc = content_open(d->m, mailbox_uid(d->m, i + 1), &c);

	*content_r = c;
	return rc;
}

static ptrdiff_t
op_read(void *content, uint64_t offset, void *out, size_t n)
{
	return content_read(content, offset, out, n);
}

static void
op_close(void *content)
{
	struct content *c = content;

	content_free(&c);
}

static int
expunge(struct drop *d, const struct uid_list *l)
{
	int rc = 0;

	for (size_t i = 0; i < l->count && rc == 0; i += BATCH) {
		size_t n = l->count - i < BATCH ? l->count - i : BATCH;
		rc = mailbox_expunge(d->m, l->uids + i, n, 0);
	}
	return rc;
}

static int
mark_seen(struct drop *d, const struct uid_list *l)
{
	struct flag_change c = { .op = FLAG_OP_ADD, .flags = FLAG_SEEN };
	int rc = 0;

	for (size_t i = 0; i < l->count && rc == 0; i += BATCH) {
		size_t n = l->count - i < BATCH ? l->count - i : BATCH;
		rc = mailbox_store_flags(d->m, l->uids + i, n, &c, NULL, NULL);
	}
	return rc;
}

static int
op_update(void *drop, const unsigned char *marks)
{
	struct drop *d = drop;
	struct uid_list gone = { 0 }, seen = { 0 };

	for (uint32_t i = 0; i < mailbox_count(d->m); i++) {
		uint32_t uid = mailbox_uid(d->m, i + 1);
		const struct message *m = mailbox_message(d->m, i + 1);
		if (marks[i] & POP3_MARK_DELETED)
			uid_list_add(&gone, uid);
		else if (marks[i] & POP3_MARK_RETRIEVED && m && !(m->flags & FLAG_SEEN))
			uid_list_add(&seen, uid);
	}
	int rc = expunge(d, &gone);
	if (mark_seen(d, &seen) < 0 && rc == 0)
		rc = 0; /* only a flag: the client's answer is about what was removed */
	uid_list_free(&gone);
	uid_list_free(&seen);
	return rc;
}

const struct pop3_drop_ops drop_ops = {
	.count = op_count,
	.size = op_size,
	.uidl = op_uidl,
	.open = op_open,
	.read = op_read,
	.close = op_close,
	.update = op_update,
};
