/*
 * Message sets to UIDs. Runs in imapd-child on what the user sends. A set is resolved once, at the
 * start of its command: what comes later does not belong to it, what goes is skipped. Work is
 * bounded by the mailbox, not by the numbers written.
 */
#include "imap/command.h"

#include <stdlib.h>

struct span {
	uint32_t from, to; /* sequence numbers */
};

static int
by_from(const void *a, const void *b)
{
	const struct span *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

static void
order(uint32_t *from, uint32_t *to)
{
	if (*from > *to) {
		uint32_t swap = *from;

		*from = *to;
		*to = swap;
	}
}

/* A range as sequence numbers; empty if from > to. False: it names numbers beyond the mailbox. */
static bool
to_span(struct imap_session *s, const struct imap_range *r, bool uid, struct span *out_r)
{
	uint32_t count = mailbox_count(s->mailbox);
	uint32_t highest = uid ? (count ? mailbox_uid(s->mailbox, count) : 0) : count;
	uint32_t from = r->from ? r->from : highest, to = r->to ? r->to : highest;

	order(&from, &to);
	if (uid) {
		out_r->from = mailbox_seq_from(s->mailbox, from);
		out_r->to = to == UINT32_MAX ? count : mailbox_seq_from(s->mailbox, to + 1) - 1;
		return true;
	}
	out_r->from = from ? from : 1;
	out_r->to = to < count ? to : count;
	return from >= 1 && to <= count;
}

static void
saved(struct imap_session *s, struct uid_list *out_r)
{
	for (size_t i = 0; i < s->saved.count; i++)
		if (mailbox_seq(s->mailbox, s->saved.uids[i]))
			uid_list_add(out_r, s->saved.uids[i]);
}

/* Returns whether all numbers lie within the mailbox. */
static bool
resolve(struct imap_session *s, const struct imap_set *set, bool uid, struct uid_list *out_r)
{
	struct span *spans;
	uint32_t next = 1;
	bool within = true;

	*out_r = (struct uid_list){ 0 };
	if (set->saved) {
		saved(s, out_r);
		return true;
	}
	spans = xcalloc(set->n, sizeof(*spans));
	for (size_t i = 0; i < set->n; i++)
		within &= to_span(s, &set->ranges[i], uid, &spans[i]);
	qsort(spans, set->n, sizeof(*spans), by_from);
	for (size_t i = 0; i < set->n; i++) {
		uint32_t from = spans[i].from > next ? spans[i].from : next;

		for (uint32_t seq = from; seq <= spans[i].to; seq++)
			uid_list_add(out_r, mailbox_uid(s->mailbox, seq));
		if (spans[i].to >= next)
			next = spans[i].to + 1;
	}
	free(spans);
	return within;
}

bool
imap_resolve(struct imap_session *s, const struct imap_set *set, struct uid_list *out_r)
{
	if (resolve(s, set, s->uid, out_r))
		return true;
	uid_list_free(out_r);
	imap_bad(s, "No such message");
	return false;
}

void
imap_resolve_key(
    struct imap_session *s, const struct imap_set *set, bool uid, struct uid_list *out_r)
{
	(void)resolve(s, set, uid, out_r);
}

bool
imap_uid_listed(const struct uid_list *l, uint32_t uid)
{
	size_t low = 0, high = l->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (l->uids[middle] == uid)
			return true;
		if (l->uids[middle] < uid)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}
