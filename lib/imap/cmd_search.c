/*
 * SEARCH in steps (RFC 9051 section 6.4.4, RFC 4731, RFC 5182). Runs in imapd-child. Each message
 * is judged by what costs least: flags first, then sizes and dates, then its header, then its
 * bodies; a step ends after a number of messages or bytes.
 *
 *	search = "SEARCH" [search-return-opts] SP search-program
 *	search-return-opts = SP "RETURN" SP "(" [search-return-opt *(SP search-return-opt)] ")"
 *	search-program = ["CHARSET" SP charset SP] search-key *(SP search-key)
 */
#include "imap/command.h"

#include <errno.h>
#include <stdlib.h>

enum truth { FALSE, TRUE, UNKNOWN };
enum level { LEVEL_INDEX, LEVEL_STAT, LEVEL_HEADER, LEVEL_BODY };
enum { COST_A_STEP = 20000, COST_INDEX = 10, COST_STAT = 40, COST_FILE = 100 };

struct search {
	struct search_keys keys;
	bool min, max, all, count, save, extended;
	struct uid_list todo, found;
	size_t at;
	enum level level;
	struct body_scan body;
};

static void
search_free(struct imap_session *s)
{
	struct search *q = s->task;

	imap_search_keys_free(&q->keys);
	uid_list_free(&q->todo);
	uid_list_free(&q->found);
	imap_body_scan_end(&q->body);
	free(q);
}

/* --- one message --- */

static enum truth
truth(bool b)
{
	return b ? TRUE : FALSE;
}

static enum truth
compare_day(enum search_type type, int64_t day, int64_t wanted)
{
	switch (type) {
	case SEARCH_BEFORE:
	case SEARCH_SENTBEFORE:
		return truth(day < wanted);
	case SEARCH_ON:
	case SEARCH_SENTON:
		return truth(day == wanted);
	default:
		return truth(day >= wanted);
	}
}

static enum truth
by_date(struct imap_session *s, const struct search_key *k, uint32_t uid)
{
	int64_t when;

	if (mailbox_date(s->mailbox, uid, &when) < 0)
		return FALSE;
	return compare_day(k->type, when >= 0 ? when / 86400 : -((86399 - when) / 86400), k->day);
}

static enum truth
by_size(struct imap_session *s, const struct search_key *k, uint32_t uid)
{
	uint64_t size;

	if (mailbox_size(s->mailbox, uid, &size) < 0)
		return FALSE;
	return truth(k->type == SEARCH_LARGER ? size > k->size : size < k->size);
}

static enum truth
by_sent(struct imap_session *s, const struct search_key *k)
{
	int64_t day;

	return imap_sent_day(s, &day) ? compare_day(k->type, day, k->day) : FALSE;
}

static enum truth judge(
    struct imap_session *s, const struct search_key *k, uint32_t uid, enum level level);

/* AND and OR: the first child that decides. */
static enum truth
combine(struct imap_session *s, const struct search_key *k, uint32_t uid, enum level level,
    enum truth decides)
{
	enum truth result = decides == FALSE ? TRUE : FALSE;

	for (const struct search_key *c = k->children; c; c = c->next) {
		enum truth t = judge(s, c, uid, level);

		if (t == decides)
			return t;
		if (t == UNKNOWN)
			result = UNKNOWN;
	}
	return result;
}

static enum truth
judge_index(struct imap_session *s, const struct search_key *k, uint32_t uid)
{
	uint32_t seq = mailbox_seq(s->mailbox, uid);
	const struct message *m = mailbox_message(s->mailbox, seq);

	if (k->type == SEARCH_UIDS)
		return truth(imap_uid_listed(&k->uids, uid));
	if (!m)
		return FALSE;
	if (k->type == SEARCH_FLAG)
		return truth((m->flags & k->flags) == k->flags);
	if (k->type == SEARCH_KEYWORD)
		return truth(k->keyword >= 0 && m->keywords >> k->keyword & 1);
	return truth(mailbox_is_recent(s->mailbox, seq));
}

static enum truth
judge(struct imap_session *s, const struct search_key *k, uint32_t uid, enum level level)
{
	enum truth t;

	switch (k->type) {
	case SEARCH_AND:
		return combine(s, k, uid, level, FALSE);
	case SEARCH_OR:
		return combine(s, k, uid, level, TRUE);
	case SEARCH_NOT:
		t = judge(s, k->children, uid, level);
		return t == UNKNOWN ? UNKNOWN : t == TRUE ? FALSE : TRUE;
	case SEARCH_FLAG:
	case SEARCH_KEYWORD:
	case SEARCH_RECENT:
	case SEARCH_UIDS:
		return judge_index(s, k, uid);
	case SEARCH_BEFORE:
	case SEARCH_ON:
	case SEARCH_SINCE:
		return level < LEVEL_STAT ? UNKNOWN : by_date(s, k, uid);
	case SEARCH_LARGER:
	case SEARCH_SMALLER:
		return level < LEVEL_STAT ? UNKNOWN : by_size(s, k, uid);
	case SEARCH_SENTBEFORE:
	case SEARCH_SENTON:
	case SEARCH_SENTSINCE:
		return level < LEVEL_HEADER ? UNKNOWN : by_sent(s, k);
	case SEARCH_HEADER:
		return level < LEVEL_HEADER ? UNKNOWN
					    : truth(imap_header_has(s, k->field, k->needle));
	case SEARCH_TEXT:
		if (level < LEVEL_HEADER)
			return UNKNOWN;
		if ((level == LEVEL_BODY && k->hit) || imap_header_text_has(s, k->needle))
			return TRUE;
		return level == LEVEL_BODY ? FALSE : UNKNOWN;
	case SEARCH_BODY:
		return level < LEVEL_BODY ? UNKNOWN : truth(k->hit);
	}
	return FALSE;
}

/* Makes ready what the next level looks at: 0, -EAGAIN, or an error (the message cannot be read: no
 * match). */
static int
prepare(struct imap_session *s, struct search *q, uint32_t uid)
{
	int err;

	if (q->level < LEVEL_HEADER - 1)
		return 0;
	err = imap_message(s, uid);
	if (err == 0)
		err = imap_message_header(s);
	if (err == 0 && q->level == LEVEL_HEADER)
		err = imap_body_scan(s, &q->body, &q->keys);
	return err;
}

/* Judges the present message as far as one step goes; returns the cost, 0 when the step is over. */
static unsigned
one_message(struct imap_session *s, struct search *q)
{
	static const unsigned costs[] = { COST_INDEX, COST_STAT, COST_FILE, 3 * COST_FILE };
	uint32_t uid = q->todo.uids[q->at];
	enum truth t = judge(s, q->keys.root, uid, q->level);
	unsigned cost = costs[q->level];

	if (t == UNKNOWN) {
		int err = prepare(s, q, uid);

		if (err == -EAGAIN)
			return 0;
		if (err == 0) {
			q->level++;
			return cost;
		}
		t = FALSE;
		imap_body_scan_end(&q->body);
	}
	if (t == TRUE)
		uid_list_add(&q->found, uid);
	q->level = LEVEL_INDEX;
	q->at++;
	return cost;
}

/* --- the answer --- */

static void
put_number(struct imap_session *s, const char *name, uint32_t uid)
{
	imap_putf(s, "%s %u", name, s->uid ? uid : mailbox_seq(s->mailbox, uid));
}

static void
put_all(struct imap_session *s, const struct search *q)
{
	uint32_t *ids = q->found.uids;

	if (!s->uid) {
		ids = xcalloc(q->found.count, sizeof(*ids));
		for (size_t i = 0; i < q->found.count; i++)
			ids[i] = mailbox_seq(s->mailbox, q->found.uids[i]);
	}
	imap_put(s, " ALL ");
	imap_put_set(&s->out, ids, q->found.count);
	if (!s->uid)
		free(ids);
}

static void
put_extended(struct imap_session *s, const struct search *q)
{
	size_t n = q->found.count;

	imap_put(s, "* ESEARCH (TAG ");
	imap_put_string(&s->out, slice(s->tag, s->tag_len));
	imap_put(s, s->uid ? ") UID" : ")");
	if (q->min && n)
		put_number(s, " MIN", q->found.uids[0]);
	if (q->max && n)
		put_number(s, " MAX", q->found.uids[n - 1]);
	if (q->all && n)
		put_all(s, q);
	if (q->count)
		imap_putf(s, " COUNT %zu", n);
	imap_put(s, "\r\n");
}

static void
put_plain(struct imap_session *s, const struct search *q)
{
	imap_put(s, "* SEARCH");
	for (size_t i = 0; i < q->found.count; i++)
		put_number(s, "", q->found.uids[i]);
	imap_put(s, "\r\n");
}

/* RFC 5182 section 2.1: with MIN or MAX alone only these are kept. */
static void
save(struct imap_session *s, const struct search *q)
{
	size_t n = q->found.count;

	uid_list_free(&s->saved);
	if ((q->min || q->max) && !q->all && !q->count) {
		if (n && q->min)
			uid_list_add(&s->saved, q->found.uids[0]);
		if (n && q->max && !(q->min && n == 1))
			uid_list_add(&s->saved, q->found.uids[n - 1]);
		return;
	}
	for (size_t i = 0; i < n; i++)
		uid_list_add(&s->saved, q->found.uids[i]);
}

static enum imap_step
search_step(struct imap_session *s)
{
	struct search *q = s->task;
	unsigned cost = 0;

	while (q->at < q->todo.count) {
		unsigned c = one_message(s, q);

		cost += c;
		if (!c || cost >= COST_A_STEP)
			return STEP_AGAIN;
	}
	if (q->save)
		save(s, q);
	if (!q->extended)
		put_plain(s, q);
	else if (q->min || q->max || q->all || q->count)
		put_extended(s, q);
	imap_ok(s, s->uid, "Done");
	return STEP_DONE;
}

/* --- the command --- */

static bool
return_options(struct imap_parse *p, struct search *q)
{
	q->extended = true;
	if (!imap_sp(p) || !imap_need(p, '('))
		return false;
	if (imap_try(p, ')')) {
		q->all = true;
		return true;
	}
	do {
		if (imap_try_word(p, "MIN"))
			q->min = true;
		else if (imap_try_word(p, "MAX"))
			q->max = true;
		else if (imap_try_word(p, "ALL"))
			q->all = true;
		else if (imap_try_word(p, "COUNT"))
			q->count = true;
		else if (imap_try_word(p, "SAVE"))
			q->save = true;
		else
			return imap_fail(p, "Unknown search return option");
	} while (imap_try(p, ' '));
	return imap_need(p, ')');
}

/* Everything up to the keys. known_r: the charset is one that can be converted. */
static bool
program(struct imap_session *s, struct imap_parse *p, struct search *q, struct slice *charset_r,
    bool *known_r)
{
	*charset_r = SLICE_NULL;
	*known_r = true;
	if (!imap_sp(p))
		return false;
	if (imap_try_word(p, "RETURN") && (!return_options(p, q) || !imap_sp(p)))
		return false;
	if (imap_try_word(p, "CHARSET")) {
		if (!imap_sp(p) || !imap_astring(p, charset_r) || !imap_sp(p))
			return false;
		*known_r = charset_known(s->config.charsets, *charset_r);
	}
	return true;
}

/* A set that every match has to be in, the shortest of them; NULL: there is none. */
static const struct uid_list *
narrowest(const struct search_keys *keys)
{
	const struct uid_list *best = NULL;

	for (const struct search_key *k = keys->root->children; k; k = k->next)
		if (k->type == SEARCH_UIDS && (!best || k->uids.count < best->count))
			best = &k->uids;
	return best;
}

static void
fill_todo(struct imap_session *s, struct search *q)
{
	const struct uid_list *within = narrowest(&q->keys);

	for (size_t i = 0; within && i < within->count; i++)
		uid_list_add(&q->todo, within->uids[i]);
	for (uint32_t seq = 1; !within && seq <= mailbox_count(s->mailbox); seq++)
		uid_list_add(&q->todo, mailbox_uid(s->mailbox, seq));
}

void
imap_cmd_search(struct imap_session *s, struct imap_parse *p)
{
	struct search *q = xcalloc(1, sizeof(*q));
	struct slice charset;
	bool known = true;

	if (program(s, p, q, &charset, &known) && known &&
	    imap_search_keys(s, p, charset, &q->keys) && imap_end(p)) {
		if (s->rev2 && !q->extended)
			q->extended = q->all = true;
		fill_todo(s, q);
		imap_start(s, q, search_step, search_free);
		return;
	}
	if (q->save && !p->why)
		uid_list_free(&s->saved);
	if (!p->why && !known)
		imap_no(s, "[BADCHARSET (UTF-8 US-ASCII)] Unknown charset");
	imap_search_keys_free(&q->keys);
	free(q);
}
