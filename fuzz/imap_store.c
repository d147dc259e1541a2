/* The functions of store/store.h over a store in memory: imap_store.h. Folders of some names are in
 * trouble, and messages that begin with "!size", "!open" or "!read". */
#include "fuzz/imap_store.h"

#include <errno.h>
#include <stdlib.h>

struct slice imap_store_texts[MESSAGES];

struct mailbox {
	struct store *s;
	bool read_only;
	uint32_t seen_count;
	uint32_t uids[MESSAGES];
};
struct content {
	struct slice text;
};
struct append {
	struct store *s;
};

void
uid_list_add(struct uid_list *l, uint32_t uid)
{
	if (l->count == l->size) {
		l->size = l->size ? 2 * l->size : 8;
		l->uids = xrealloc(l->uids, l->size * sizeof(*l->uids));
	}
	l->uids[l->count++] = uid;
}

void
uid_list_free(struct uid_list *l)
{
	free(l->uids);
	*l = (struct uid_list){ 0 };
}

void
copy_result_free(struct copy_result *r)
{
	uid_list_free(&r->from);
	uid_list_free(&r->to);
}

const char *
special_use_name(enum special_use bit)
{
	return bit == SPECIAL_SENT ? "\\Sent" : "\\Other";
}

static bool
known(struct slice name)
{
	return slice_eq_str(name, "INBOX") || slice_eq_str(name, "Sent");
}

/* What comes of a folder of that name; some are in trouble. */
static int
state_of(struct slice name)
{
	static const struct {
		const char *name;
		int err;
	} troubles[] = { { "full", ERR_LIMIT }, { "disk", -ENOSPC }, { "damaged", ERR_CORRUPT },
		{ "dead", -EIO }, { "odd", ERR_SYNTAX } };

	for (size_t i = 0; i < sizeof(troubles) / sizeof(*troubles); i++)
		if (slice_eq_str(name, troubles[i].name))
			return troubles[i].err;
	return known(name) ? 0 : ERR_NOT_FOUND;
}

int
store_exists(struct store *s, struct slice name)
{
	(void)s;
	return state_of(name);
}

int
store_create(struct store *s, struct slice name, unsigned special_use)
{
	int err = state_of(name);

	(void)s, (void)special_use;
	return !err ? -EEXIST : err == ERR_NOT_FOUND ? 0 : err;
}

int
store_delete(struct store *s, struct slice name)
{
	(void)s;
	return slice_eq_str(name, "INBOX") ? ERR_DENIED : known(name) ? 0 : ERR_NOT_FOUND;
}

int
store_rename(struct store *s, struct slice from, struct slice to)
{
	(void)s;
	return !known(from) ? ERR_NOT_FOUND : known(to) ? -EEXIST : 0;
}

int
store_subscribe(struct store *s, struct slice name, bool on)
{
	(void)s, (void)on, (void)name;
	return 0;
}

int
store_list(struct store *s, struct store_list *out_r)
{
	(void)s;
	out_r->count = 2;
	out_r->folders = xcalloc(2, sizeof(*out_r->folders));
	out_r->folders[0] = (struct store_folder){ .name = xstrdup("INBOX"), .exists = true };
	out_r->folders[1] = (struct store_folder){ .name = xstrdup("Sent"),
		.exists = true,
		.special_use = SPECIAL_SENT,
		.subscribed = true };
	return 0;
}

void
store_list_free(struct store_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->folders[i].name);
	free(l->folders);
}

int
store_status(struct store *s, struct slice name, unsigned need, struct store_status *out_r)
{
	(void)need;
	*out_r = (struct store_status){ .messages = s->count, .uidnext = 4, .uidvalidity = 1 };
	return known(name) ? 0 : ERR_NOT_FOUND;
}

int
mailbox_open(struct store *s, struct slice name, unsigned flags, struct mailbox **out_r)
{
	struct mailbox *m;

	if (state_of(name))
		return state_of(name);
	m = *out_r = xcalloc(1, sizeof(*m));
	m->s = s;
	m->read_only = flags & MAILBOX_READ_ONLY;
	s->open++;
	(void)!mailbox_sync(m, 0, NULL, NULL);
	return 0;
}

void
mailbox_free(struct mailbox **mp)
{
	(*mp)->s->open--;
	free(*mp);
	*mp = NULL;
}

const char *
mailbox_name(const struct mailbox *m)
{
	(void)m;
	return "INBOX";
}

bool
mailbox_read_only(const struct mailbox *m)
{
	return m->read_only;
}

uint32_t
mailbox_uidvalidity(const struct mailbox *m)
{
	(void)m;
	return 1;
}

uint32_t
mailbox_uidnext(const struct mailbox *m)
{
	(void)m;
	return 4;
}

uint32_t
mailbox_count(const struct mailbox *m)
{
	return m->seen_count;
}

uint32_t
mailbox_uid(const struct mailbox *m, uint32_t seq)
{
	if (!seq || seq > m->seen_count)
		abort();
	return m->uids[seq - 1];
}

uint32_t
mailbox_seq(const struct mailbox *m, uint32_t uid)
{
	for (uint32_t i = 0; i < m->seen_count; i++)
		if (m->uids[i] == uid)
			return i + 1;
	return 0;
}

uint32_t
mailbox_seq_from(const struct mailbox *m, uint32_t uid)
{
	uint32_t i = 0;

	while (i < m->seen_count && m->uids[i] < uid)
		i++;
	return i + 1;
}

static struct message *
message(const struct mailbox *m, uint32_t uid)
{
	for (uint32_t i = 0; i < m->s->count; i++)
		if (m->s->messages[i].uid == uid)
			return &m->s->messages[i];
	return NULL;
}

const struct message *
mailbox_message(const struct mailbox *m, uint32_t seq)
{
	return seq && seq <= m->seen_count ? message(m, m->uids[seq - 1]) : NULL;
}

bool
mailbox_is_recent(const struct mailbox *m, uint32_t seq)
{
	(void)m;
	return seq == 2;
}

uint32_t
mailbox_recent_count(const struct mailbox *m)
{
	(void)m;
	return 1;
}

uint32_t
mailbox_first_unseen(const struct mailbox *m)
{
	return m->seen_count ? 1 : 0;
}

unsigned
mailbox_keyword_count(const struct mailbox *m)
{
	return m->s->keyword_count;
}

const char *
mailbox_keyword(const struct mailbox *m, unsigned index)
{
	return index < m->s->keyword_count ? m->s->keywords[index] : NULL;
}

int
mailbox_keyword_index(struct mailbox *m, struct slice name, bool create)
{
	for (unsigned i = 0; i < m->s->keyword_count; i++)
		if (slice_caseeq_str(name, m->s->keywords[i]))
			return (int)i;
	if (!create)
		return -1;
	if (m->s->keyword_count == 4)
		return ERR_LIMIT;
	if (slice_copy(name, m->s->keywords[m->s->keyword_count], 32) < 0)
		return ERR_SYNTAX;
	return (int)m->s->keyword_count++;
}

int
mailbox_sync(struct mailbox *m, unsigned flags, store_event_fn *fn, void *ctx)
{
	for (uint32_t i = m->seen_count; i-- > 0 && !(flags & SYNC_NO_EXPUNGE);)
		if (!message(m, m->uids[i])) {
			struct store_event e = {
				.type = EVENT_EXPUNGED, .seq = i + 1, .uid = m->uids[i]
			};

			memmove(&m->uids[i], &m->uids[i + 1],
			    (m->seen_count - i - 1) * sizeof(*m->uids));
			m->seen_count--;
			if (fn)
				fn(ctx, &e);
		}
	if (fn && m->s->news && m->seen_count) {
		struct store_event events[] = {
			{ .type = EVENT_KEYWORDS },
			{ .type = EVENT_FLAGS, .seq = 1, .uid = m->uids[0] },
			{ .type = EVENT_EXISTS, .seq = m->seen_count },
		};

		m->s->news = false;
		for (size_t i = 0; i < 3; i++)
			fn(ctx, &events[i]);
	}
	if (!fn)
		for (uint32_t i = 0; i < m->s->count; i++)
			m->uids[m->seen_count++] = m->s->messages[i].uid;
	return 0;
}

int
mailbox_date(struct mailbox *m, uint32_t uid, int64_t *out_r)
{
	*out_r = 760000000 + (int64_t)uid * 86400;
	return message(m, uid) ? 0 : ERR_NOT_FOUND;
}

int
mailbox_size(struct mailbox *m, uint32_t uid, uint64_t *out_r)
{
	if (!message(m, uid))
		return ERR_NOT_FOUND;
	if (slice_has_prefix(imap_store_texts[uid - 1], "!size"))
		return -EIO;
	*out_r = imap_store_texts[uid - 1].n;
	return 0;
}

int
mailbox_cache_get(struct mailbox *m, uint32_t uid, unsigned char kind, struct buf *out)
{
	(void)m, (void)uid, (void)kind, (void)out;
	return ERR_NOT_FOUND;
}

void
mailbox_cache_put(struct mailbox *m, uint32_t uid, unsigned char kind, struct slice value)
{
	(void)m, (void)uid, (void)kind, (void)value;
}

int
content_open(struct mailbox *m, uint32_t uid, struct content **out_r)
{
	if (!message(m, uid))
		return ERR_NOT_FOUND;
	if (slice_has_prefix(imap_store_texts[uid - 1], "!open"))
		return -EIO;
	*out_r = xcalloc(1, sizeof(**out_r));
	(*out_r)->text = imap_store_texts[uid - 1];
	return 0;
}

uint64_t
content_size(const struct content *c)
{
	return c->text.n;
}

ptrdiff_t
content_read(struct content *c, uint64_t offset, void *out, size_t n)
{
	struct slice s = slice_sub(c->text, (size_t)offset, c->text.n);

	if (offset > 5 && slice_has_prefix(c->text, "!read"))
		return ERR_CORRUPT;
	n = n > 29 ? 29 : n;
	n = n > s.n ? s.n : n;
	if (n)
		memcpy(out, s.p, n);
	return (ptrdiff_t)n;
}

void
content_free(struct content **cp)
{
	free(*cp);
	*cp = NULL;
}

int
mailbox_store_flags(struct mailbox *m, const uint32_t *uids, size_t n, const struct flag_change *c,
    struct uid_list *changed_r, struct uid_list *modified_r)
{
	(void)modified_r;
	if (m->read_only)
		abort();
	for (size_t i = 0; i < n; i++) {
		struct message *msg = message(m, uids[i]);

		if (!msg)
			continue;
		if (c->op == FLAG_OP_REMOVE)
			msg->flags &= (uint8_t)~c->flags;
		else
			msg->flags = c->op == FLAG_OP_SET ? c->flags : msg->flags | c->flags;
		if (changed_r)
			uid_list_add(changed_r, uids[i]);
	}
	return 0;
}

int
mailbox_expunge(struct mailbox *m, const uint32_t *uids, size_t n, uint8_t flags)
{
	struct store *s = m->s;

	if (m->read_only)
		abort();
	for (size_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < s->count; k++)
			if (s->messages[k].uid == uids[i] &&
			    (s->messages[k].flags & flags) == flags) {
				memmove(&s->messages[k], &s->messages[k + 1],
				    (s->count - k - 1) * sizeof(*s->messages));
				s->count--;
			}
	return 0;
}

int
mailbox_copy(struct mailbox *m, const uint32_t *uids, size_t n, struct slice to, bool move,
    struct copy_result *out_r)
{
	if (!known(to))
		return ERR_NOT_FOUND;
	out_r->uidvalidity = 1;
	for (size_t i = 0; i < n; i++) {
		uid_list_add(&out_r->from, uids[i]);
		uid_list_add(&out_r->to, (uint32_t)i + 10);
	}
	return move ? mailbox_expunge(m, uids, n, 0) : 0;
}

int
append_begin(struct store *s, struct slice folder, const struct append_info *info,
    uint64_t size_hint, struct append **out_r)
{
	(void)info, (void)size_hint;
	if (state_of(folder))
		return state_of(folder);
	*out_r = xcalloc(1, sizeof(**out_r));
	(*out_r)->s = s;
	s->open++;
	return 0;
}

int
append_write(struct append *a, struct slice bytes)
{
	(void)a;
	return bytes.n && bytes.p[0] == '!' ? ERR_LIMIT : 0;
}

int
append_finish(struct append **list, size_t n, struct copy_result *out_r)
{
	list[0]->s->news = true;
	for (size_t i = 0; i < n; i++)
		append_free(&list[i]);
	out_r->uidvalidity = 1;
	uid_list_add(&out_r->to, 4);
	return 0;
}

void
append_free(struct append **ap)
{
	if (*ap)
		(*ap)->s->open--;
	free(*ap);
	*ap = NULL;
}
