/*
 * What SEARCH looks for. Runs in imapd-child on what the user sends. Bounded: nesting and the
 * number of keys.
 *
 *	search-key = "ALL" / "ANSWERED" / "BCC" SP astring / "BEFORE" SP date / ... / sequence-set /
 *	             "(" search-key *(SP search-key) ")"
 */
#include "imap/command.h"

enum {
	MAX_KEYS = 1000,
	MAX_STRINGS = 200,    /* keys that look for text */
	MAX_LISTED = 4 << 20, /* UIDs that the sets of all keys stand for */
};

struct reader {
	struct imap_session *s;
	struct imap_parse *p;
	struct slice charset;
	struct search_keys *keys;
	unsigned count, strings;
	size_t listed;
};

static struct search_key *
new_key(struct reader *r, enum search_type type)
{
	struct search_key *k = arena_alloc(&r->s->arena, sizeof(*k));

	k->type = type;
	return k;
}

/* Words without an argument: flags, and their negations. */
static const struct {
	const char *name;
	uint8_t flags;
	bool negated;
} flag_words[] = {
	{ "ANSWERED", FLAG_ANSWERED, false },
	{ "DELETED", FLAG_DELETED, false },
	{ "DRAFT", FLAG_DRAFT, false },
	{ "FLAGGED", FLAG_FLAGGED, false },
	{ "SEEN", FLAG_SEEN, false },
	{ "UNANSWERED", FLAG_ANSWERED, true },
	{ "UNDELETED", FLAG_DELETED, true },
	{ "UNDRAFT", FLAG_DRAFT, true },
	{ "UNFLAGGED", FLAG_FLAGGED, true },
	{ "UNSEEN", FLAG_SEEN, true },
	{ "ALL", 0, false },
};

static const struct {
	const char *name;
	enum search_type type;
} date_words[] = {
	{ "BEFORE", SEARCH_BEFORE },
	{ "ON", SEARCH_ON },
	{ "SINCE", SEARCH_SINCE },
	{ "SENTBEFORE", SEARCH_SENTBEFORE },
	{ "SENTON", SEARCH_SENTON },
	{ "SENTSINCE", SEARCH_SENTSINCE },
};

static const struct {
	const char *name, *field;
} field_words[] = {
	{ "BCC", "Bcc" },
	{ "CC", "Cc" },
	{ "FROM", "From" },
	{ "SUBJECT", "Subject" },
	{ "TO", "To" },
};

static struct search_key *
negate(struct reader *r, struct search_key *k)
{
	struct search_key *not = new_key(r, SEARCH_NOT);

	not ->children = k;
	return not ;
}

/* A string of the client as folded UTF-8. */
static bool
needle(struct reader *r, struct slice *out_r)
{
	struct buf utf8 = { 0 }, folded = { 0 };
	struct slice raw;

	if (!imap_sp(r->p) || !imap_astring(r->p, &raw))
		return false;
	if (++r->strings > MAX_STRINGS)
		return imap_fail(r->p, "[LIMIT] Search for too many strings");
	(void)charset_decode(
	    r->s->config.charsets, r->charset.n ? r->charset : SLICE_LIT("UTF-8"), raw, &utf8);
	casemap_fold(buf_slice(&utf8), &folded);
	*out_r = arena_dup(&r->s->arena, buf_slice(&folded));
	buf_free(&utf8);
	buf_free(&folded);
	return true;
}

static struct search_key *
text_key(struct reader *r, enum search_type type)
{
	struct search_key *k = new_key(r, type);

	if (!needle(r, &k->needle))
		return NULL;
	r->keys->text_count++;
	k->next_text = r->keys->texts;
	r->keys->texts = k;
	if (k->needle.n > r->keys->longest)
		r->keys->longest = k->needle.n;
	return k;
}

static struct search_key *
field_key(struct reader *r, const char *field)
{
	struct search_key *k = new_key(r, SEARCH_HEADER);

	k->field = field;
	return needle(r, &k->needle) ? k : NULL;
}

/* "HEADER" SP header-fld-name SP astring */
static struct search_key *
header_key(struct reader *r)
{
	struct slice name;

	if (!imap_sp(r->p) || !imap_astring(r->p, &name))
		return NULL;
	return field_key(r, arena_printf(&r->s->arena, "%.*s", SLICE_ARG(name)));
}

static struct search_key *
keyword_key(struct reader *r)
{
	struct search_key *k = new_key(r, SEARCH_KEYWORD);
	struct slice name;

	if (!imap_sp(r->p) || !imap_atom(r->p, &name))
		return NULL;
	k->keyword = mailbox_keyword_index(r->s->mailbox, name, false);
	return k;
}

static struct search_key *
size_key(struct reader *r, enum search_type type)
{
	struct search_key *k = new_key(r, type);

	return imap_sp(r->p) && imap_number64(r->p, &k->size) ? k : NULL;
}

static struct search_key *
date_key(struct reader *r, enum search_type type)
{
	struct search_key *k = new_key(r, type);

	return imap_sp(r->p) && imap_date(r->p, &k->day) ? k : NULL;
}

static struct search_key *
set_key(struct reader *r, bool uid)
{
	struct search_key *k = new_key(r, SEARCH_UIDS);
	struct imap_set set;

	if ((uid && !imap_sp(r->p)) || !imap_set(r->p, &set))
		return NULL;
	imap_resolve_key(r->s, &set, uid, &k->uids);
	r->listed += k->uids.count;
	if (r->listed > MAX_LISTED)
		imap_fail(r->p, "[LIMIT] Search of too many messages");
	return k;
}

static struct search_key *read_key(struct reader *r, unsigned depth);

static struct search_key *
read_list(struct reader *r, unsigned depth)
{
	struct search_key *list = new_key(r, SEARCH_AND), **tail = &list->children;

	do {
		*tail = read_key(r, depth);
		if (!*tail)
			return list; /* what has memory must be found again */
		tail = &(*tail)->next;
	} while (imap_try(r->p, ' '));
	return list;
}

static struct search_key *
or_key(struct reader *r, unsigned depth)
{
	struct search_key *k = new_key(r, SEARCH_OR);

	if (!imap_sp(r->p))
		return k;
	k->children = read_key(r, depth + 1);
	if (k->children && imap_sp(r->p))
		k->children->next = read_key(r, depth + 1);
	return k;
}

static struct search_key *
not_key(struct reader *r, unsigned depth)
{
	struct search_key *k = new_key(r, SEARCH_NOT);

	if (imap_sp(r->p))
		k->children = read_key(r, depth + 1);
	return k;
}

static struct search_key *
recent_key(struct reader *r, bool is_new)
{
	struct search_key *both = new_key(r, SEARCH_AND), *unseen = new_key(r, SEARCH_FLAG);

	both->children = new_key(r, SEARCH_RECENT);
	if (is_new) {
		unseen->flags = FLAG_SEEN;
		both->children->next = negate(r, unseen);
	}
	return both;
}

static struct search_key *
read_word(struct reader *r, unsigned depth)
{
	struct imap_parse *p = r->p;

	for (size_t i = 0; i < sizeof(flag_words) / sizeof(*flag_words); i++)
		if (imap_try_word(p, flag_words[i].name)) {
			struct search_key *k = new_key(r, SEARCH_FLAG);

			k->flags = flag_words[i].flags;
			return flag_words[i].negated ? negate(r, k) : k;
		}
	for (size_t i = 0; i < sizeof(date_words) / sizeof(*date_words); i++)
		if (imap_try_word(p, date_words[i].name))
			return date_key(r, date_words[i].type);
	for (size_t i = 0; i < sizeof(field_words) / sizeof(*field_words); i++)
		if (imap_try_word(p, field_words[i].name))
			return field_key(r, field_words[i].field);
	if (imap_try_word(p, "HEADER"))
		return header_key(r);
	if (imap_try_word(p, "BODY"))
		return text_key(r, SEARCH_BODY);
	if (imap_try_word(p, "TEXT"))
		return text_key(r, SEARCH_TEXT);
	if (imap_try_word(p, "KEYWORD"))
		return keyword_key(r);
	if (imap_try_word(p, "UNKEYWORD")) {
		struct search_key *k = keyword_key(r);

		return k ? negate(r, k) : NULL;
	}
	if (imap_try_word(p, "LARGER"))
		return size_key(r, SEARCH_LARGER);
	if (imap_try_word(p, "SMALLER"))
		return size_key(r, SEARCH_SMALLER);
	if (imap_try_word(p, "UID"))
		return set_key(r, true);
	if (imap_try_word(p, "OR"))
		return or_key(r, depth);
	if (imap_try_word(p, "NOT"))
		return not_key(r, depth);
	if (imap_try_word(p, "NEW"))
		return recent_key(r, true);
	if (imap_try_word(p, "RECENT"))
		return recent_key(r, false);
	if (imap_try_word(p, "OLD"))
		return negate(r, recent_key(r, false));
	imap_fail(p, "Unknown search key");
	return NULL;
}

static struct search_key *
read_key(struct reader *r, unsigned depth)
{
	int c = imap_peek(r->p);

	if (depth > r->s->config.max_depth || ++r->count > MAX_KEYS) {
		imap_fail(r->p, "[LIMIT] Search is too complex");
		return NULL;
	}
	if (imap_try(r->p, '(')) {
		struct search_key *list = read_list(r, depth + 1);

		(void)imap_need(r->p, ')');
		return list;
	}
	if (c == '$' || c == '*' || (c >= '0' && c <= '9'))
		return set_key(r, false);
	return read_word(r, depth);
}

bool
imap_search_keys(
    struct imap_session *s, struct imap_parse *p, struct slice charset, struct search_keys *out_r)
{
	struct reader r = { .s = s, .p = p, .charset = charset, .keys = out_r };

	*out_r = (struct search_keys){ 0 };
	out_r->root = read_list(&r, 0);
	return !p->why;
}

static void
free_key(struct search_key *k)
{
	for (; k; k = k->next) {
		uid_list_free(&k->uids);
		free_key(k->children);
	}
}

void
imap_search_keys_free(struct search_keys *k)
{
	free_key(k->root);
	k->root = NULL;
}
