/*
 * Views: what one session sees of a folder. Runs in the user's session. A view's sequence numbers
 * change in mailbox_sync only; in between the folder may run ahead. Invariant: uids ascends, every
 * UID below view.uidnext that is not in it was told as expunged or never existed.
 */
#include "store/internal.h"

#include <errno.h>
#include <stdlib.h>

/* --- lists of UIDs --- */

static int
uid_order(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static void
sort_unique(struct uid_list *l)
{
	size_t n = 0;

	if (l->count == 0)
		return;
	qsort(l->uids, l->count, sizeof(*l->uids), uid_order);
	for (size_t i = 0; i < l->count; i++)
		if (n == 0 || l->uids[n - 1] != l->uids[i])
			l->uids[n++] = l->uids[i];
	l->count = n;
}

/* Takes the UIDs of gone out of l; both ascend. */
static void
subtract(struct uid_list *l, const struct uid_list *gone)
{
	size_t n = 0, g = 0;

	for (size_t i = 0; i < l->count; i++) {
		while (g < gone->count && gone->uids[g] < l->uids[i])
			g++;
		if (g == gone->count || gone->uids[g] != l->uids[i])
			l->uids[n++] = l->uids[i];
	}
	l->count = n;
}

/* --- recent messages --- */

/* Orders what the scans marked since the last time, and leaves out what is not in the view. */
static void
settle_recent(struct mailbox *m)
{
	struct uid_list *l = &m->recent;
	size_t old = m->recent_settled, n = old;

	if (l->count == old)
		return;
	for (size_t i = old; i < l->count; i++)
		if (mailbox_seq(m, l->uids[i]))
			l->uids[n++] = l->uids[i];
	l->count = n;
	struct uid_list fresh = { .uids = l->uids + old, .count = n - old };
	sort_unique(&fresh);
	l->count = old + fresh.count;
	if (old && fresh.count && fresh.uids[0] <= l->uids[old - 1])
		sort_unique(l);
	m->recent_settled = l->count;
}

/* --- the view --- */

static void
append_uid(struct mailbox *m, uint32_t uid)
{
	if (m->count == m->size) {
		m->size = m->size ? m->size * 2 : 64;
		m->uids = xrealloc(m->uids, m->size * sizeof(*m->uids));
	}
	m->uids[m->count++] = uid;
}

/* Takes in the folder's messages above what the view knows; true if there were any. */
static bool
take_messages(struct mailbox *m)
{
	struct folder *f = m->folder;
	size_t before = m->count;

	for (size_t i = folder_first_slot(f, m->uidnext); i < f->slot_count; i++)
		if (!(f->slots[i].state & SLOT_DEAD))
			append_uid(m, f->slots[i].m.uid);
	m->uidnext = f->uidnext;
	m->modseq = f->modseq;
	settle_recent(m);
	return m->count > before;
}

int
mailbox_open(struct store *s, struct slice name, unsigned flags, struct mailbox **out_r)
{
	char canonical[STORE_NAME_MAX + 1];
	struct mailbox *m;
	struct folder *f;

	*out_r = NULL;
	int rc = store_name(name, canonical, NULL);
	if (rc < 0)
		return ERR_NOT_FOUND;
	rc = folder_get(s, canonical, &f);
	if (rc < 0)
		return rc;
	m = xcalloc(1, sizeof(*m));
	m->store = s;
	m->folder = f;
	m->flags = flags;
	m->uidnext = 1;
	m->change_pos = f->change_base + f->change_count;
	TAILQ_INSERT_TAIL(&f->views, m, entry);
	rc = folder_refresh(f, false);
	if (rc == 0 && !(flags & (MAILBOX_READ_ONLY | MAILBOX_KEEP_RECENT)))
		rc = folder_take_new(f);
	if (rc < 0) {
		mailbox_free(&m);
		return rc;
	}
	take_messages(m);
	m->change_pos = f->change_base + f->change_count;
	folder_trim_changes(f);
	m->keywords_seen = f->keyword_count;
	*out_r = m;
	return 0;
}

void
mailbox_free(struct mailbox **mp)
{
	struct mailbox *m = *mp;

	*mp = NULL;
	if (!m)
		return;
	TAILQ_REMOVE(&m->folder->views, m, entry);
	folder_put(&m->folder);
	uid_list_free(&m->expunged);
	uid_list_free(&m->changed);
	uid_list_free(&m->recent);
	free(m->uids);
	free(m);
}

const char *
mailbox_name(const struct mailbox *m)
{
	return m->folder->name;
}

bool
mailbox_read_only(const struct mailbox *m)
{
	return (m->flags & MAILBOX_READ_ONLY) != 0;
}

uint32_t
mailbox_uidvalidity(const struct mailbox *m)
{
	return m->folder->head.uidvalidity;
}

uint32_t
mailbox_uidnext(const struct mailbox *m)
{
	return m->uidnext;
}

uint64_t
mailbox_highestmodseq(const struct mailbox *m)
{
	return m->modseq;
}

uint64_t
mailbox_id(const struct mailbox *m)
{
	return m->folder->head.mailboxid;
}

uint32_t
mailbox_count(const struct mailbox *m)
{
	return (uint32_t)m->count;
}

uint32_t
mailbox_uid(const struct mailbox *m, uint32_t seq)
{
	return seq >= 1 && seq <= m->count ? m->uids[seq - 1] : 0;
}

uint32_t
mailbox_seq_from(const struct mailbox *m, uint32_t uid)
{
	size_t lo = 0, hi = m->count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (m->uids[mid] < uid)
			lo = mid + 1;
		else
			hi = mid;
	}
	return (uint32_t)lo + 1;
}

uint32_t
mailbox_seq(const struct mailbox *m, uint32_t uid)
{
	uint32_t seq = mailbox_seq_from(m, uid);

	return seq <= m->count && m->uids[seq - 1] == uid ? seq : 0;
}

const struct message *
mailbox_message(const struct mailbox *m, uint32_t seq)
{
	const struct slot *s;

	if (seq < 1 || seq > m->count)
		return NULL;
	/* Most often nothing was expunged and the slot stands where the view has it. */
	if (seq <= m->folder->slot_count && m->folder->slots[seq - 1].m.uid == m->uids[seq - 1])
		s = &m->folder->slots[seq - 1];
	else
		s = folder_slot(m->folder, m->uids[seq - 1]);
	return s && !(s->state & SLOT_DEAD) ? &s->m : NULL;
}

bool
mailbox_is_recent(const struct mailbox *m, uint32_t seq)
{
	uint32_t uid = mailbox_uid(m, seq);

	return m->recent_settled &&
	       bsearch(&uid, m->recent.uids, m->recent_settled, sizeof(uid), uid_order) != NULL;
}

uint32_t
mailbox_recent_count(const struct mailbox *m)
{
	return (uint32_t)m->recent_settled;
}

uint32_t
mailbox_first_unseen(const struct mailbox *m)
{
	if (m->folder->unseen == 0)
		return 0;
	for (uint32_t seq = 1; seq <= m->count; seq++) {
		const struct message *msg = mailbox_message(m, seq);
		if (msg && !(msg->flags & FLAG_SEEN))
			return seq;
	}
	return 0;
}

/* --- events --- */

void
view_collect(struct mailbox *m)
{
	struct folder *f = m->folder;
	size_t i = (size_t)(m->change_pos - f->change_base);

	for (; i < f->change_count; i++) {
		const struct change *c = &f->changes[i];
		if (c->uid >= m->uidnext)
			continue;
		if (c->expunge)
			uid_list_add(&m->expunged, c->uid);
		else if (c->origin != m)
			uid_list_add(&m->changed, c->uid);
	}
	m->change_pos = f->change_base + f->change_count;
	sort_unique(&m->changed);
	sort_unique(&m->expunged);
	folder_trim_changes(f);
}

static void
tell_expunges(struct mailbox *m, store_event_fn *fn, void *ctx)
{
	struct uid_list tail;

	if (m->expunged.count == 0)
		return;
	for (size_t i = m->expunged.count; i-- > 0;) {
		uint32_t seq = mailbox_seq(m, m->expunged.uids[i]);
		struct store_event e = { EVENT_EXPUNGED, seq, m->expunged.uids[i],
			m->folder->modseq };
		if (seq && fn)
			fn(ctx, &e);
	}
	uint32_t first = mailbox_seq_from(m, m->expunged.uids[0]) - 1;
	tail = (struct uid_list){ .uids = m->uids + first, .count = m->count - first };
	subtract(&tail, &m->expunged);
	m->count = first + tail.count;
	settle_recent(m);
	subtract(&m->recent, &m->expunged);
	m->recent_settled = m->recent.count;
	m->expunged.count = 0;
}

static void
tell_flags(struct mailbox *m, store_event_fn *fn, void *ctx)
{
	for (size_t i = 0; i < m->changed.count && fn; i++) {
		uint32_t seq = mailbox_seq(m, m->changed.uids[i]);
		const struct message *msg = mailbox_message(m, seq);
		if (!msg)
			continue;
		struct store_event e = { EVENT_FLAGS, seq, msg->uid, msg->modseq };
		fn(ctx, &e);
	}
	uid_list_free(&m->changed);
}

int
mailbox_sync(struct mailbox *m, unsigned flags, store_event_fn *fn, void *ctx)
{
	struct folder *f = m->folder;
	int rc = folder_refresh(f, (flags & SYNC_FORCE) != 0);

	if (rc < 0)
		return rc;
	view_collect(m);
	if (!(flags & SYNC_NO_EXPUNGE))
		tell_expunges(m, fn, ctx);
	if (f->keyword_count != m->keywords_seen) {
		m->keywords_seen = f->keyword_count;
		if (fn)
			fn(ctx, &(struct store_event){ .type = EVENT_KEYWORDS });
	}
	tell_flags(m, fn, ctx);
	if (take_messages(m) && fn)
		fn(ctx, &(struct store_event){ .type = EVENT_EXISTS, .seq = (uint32_t)m->count });
	return 0;
}

int
mailbox_vanished(struct mailbox *m, uint64_t since, struct uid_list *out_r)
{
	struct folder *f = m->folder;

	*out_r = (struct uid_list){ 0 };
	if (since >= f->history) {
		for (size_t i = 0; i < f->vanished_count; i++)
			if (f->vanished[i].modseq > since)
				uid_list_add(out_r, f->vanished[i].uid);
		sort_unique(out_r);
		return 0;
	}
	size_t i = 0;
	for (uint32_t uid = 1; uid < m->uidnext; uid++) {
		while (i < f->slot_count && f->slots[i].m.uid < uid)
			i++;
		bool alive = i < f->slot_count && f->slots[i].m.uid == uid &&
			     !(f->slots[i].state & SLOT_DEAD);
		if (!alive)
			uid_list_add(out_r, uid);
	}
	return 0;
}

int
mailbox_meta_get(struct mailbox *m, struct slice key, struct buf *out)
{
	for (const struct meta *e = m->folder->meta; e; e = e->next)
		if (slice_eq(e->key, key))
			return buf_add(out, e->value);
	return ERR_NOT_FOUND;
}

int
mailbox_meta_set(struct mailbox *m, struct slice key, struct slice value)
{
	struct record r = { .type = RECORD_META, .name = key, .info = value };
	struct buf records = { 0 };

	if (key.n == 0 || key.n > 255 || value.n > 1 << 20)
		return ERR_LIMIT;
	int rc = folder_lock(m->folder);
	if (rc < 0)
		return rc;
	journal_put(&records, &r);
	rc = folder_commit(m->folder, &records, true, m);
	folder_unlock(m->folder);
	buf_free(&records);
	return rc;
}

int
mailbox_pop3_uidl(struct mailbox *m, uint32_t uid, struct buf *out)
{
	const struct folder *f = m->folder;
	size_t lo = 0, hi = f->uidl_count;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		if (f->uidls[mid].uid < uid)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == f->uidl_count || f->uidls[lo].uid != uid)
		return ERR_NOT_FOUND;
	return buf_add_str(out, f->uidls[lo].text);
}
