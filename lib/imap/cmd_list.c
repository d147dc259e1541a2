/*
 * LIST (RFC 9051 section 6.3.9, RFC 5258, RFC 5819, RFC 6154) and LSUB (RFC 3501 section 6.3.9).
 *
 *	list = "LIST" [SP list-select-opts] SP mailbox SP mbox-or-pat [SP list-return-opts]
 *	list-select-opts = "(" [*(list-select-opt SP) list-select-base-opt
 *	                   *(SP list-select-opt)] ")"
 *	mbox-or-pat = list-mailbox / patterns
 *	patterns = "(" list-mailbox *(SP list-mailbox) ")"
 *	list-return-opts = "RETURN" SP "(" [return-option *(SP return-option)] ")"
 */
#include "imap/command.h"

#include <stdlib.h>

enum { MAX_PATTERNS = 100, FOLDERS_A_STEP = 500, STATUS_A_STEP = 20, WORK_A_STEP = 1 << 21 };

struct list {
	/* selection */
	bool subscribed, remote, recursive, special;
	/* what to return */
	bool return_subscribed, return_status;
	bool extended;
	struct imap_status_items status;
	struct slice patterns[MAX_PATTERNS];
	size_t count;
	struct store_list all;
	bool *above;     /* RECURSIVEMATCH: the folder has one below that is selected */
	size_t at, work; /* work: comparisons of this step */
};

/* --- patterns --- */

/* Iterative: a "%" or "*" is retried from its last place only, so the work is bounded by the square
 * of the name's length; add_pattern leaves no two of them side by side. */
static bool
matches(struct slice pattern, struct slice name, size_t *work)
{
	size_t p = 0, n = 0, star_p = SIZE_MAX, star_n = 0, percent_p = SIZE_MAX, percent_n = 0;

	for (; n < name.n || p < pattern.n; ++*work) {
		if (p < pattern.n && pattern.p[p] == '*') {
			star_p = ++p;
			star_n = n;
			percent_p = SIZE_MAX;
		} else if (p < pattern.n && pattern.p[p] == '%') {
			percent_p = ++p;
			percent_n = n;
		} else if (p < pattern.n && n < name.n && pattern.p[p] == name.p[n]) {
			p++, n++;
		} else if (percent_p != SIZE_MAX && percent_n < name.n &&
			   name.p[percent_n] != STORE_SEPARATOR) {
			p = percent_p;
			n = ++percent_n;
		} else if (star_p != SIZE_MAX && star_n < name.n) {
			p = star_p;
			n = ++star_n;
			percent_p = SIZE_MAX;
		} else {
			return false;
		}
	}
	return true;
}

static bool
any_matches(struct list *l, const char *name)
{
	for (size_t i = 0; i < l->count; i++)
		if (matches(l->patterns[i], slice_str(name), &l->work))
			return true;
	return false;
}

/* Of wildcards side by side one says it all: "*" if there is one among them. */
static struct slice
squeeze(struct slice pattern)
{
	unsigned char *out = (unsigned char *)(uintptr_t)pattern.p;
	size_t n = 0;

	for (size_t i = 0; i < pattern.n; i++) {
		unsigned char c = pattern.p[i];

		if ((c == '*' || c == '%') && n && (out[n - 1] == '*' || out[n - 1] == '%')) {
			if (c == '*')
				out[n - 1] = c;
			continue;
		}
		out[n++] = c;
	}
	return slice(out, n);
}

/* Reference and pattern as one UTF-8 pattern; INBOX in any case becomes capitals. */
static void
add_pattern(struct imap_session *s, struct list *l, struct slice reference, struct slice raw)
{
	unsigned char *both = arena_alloc(&s->arena, reference.n + raw.n + 1);
	struct slice utf8;
	struct buf nfc = { 0 };

	if (reference.n)
		memcpy(both, reference.p, reference.n);
	if (raw.n)
		memcpy(both + reference.n, raw.p, raw.n);
	if (!imap_name_decode(s, slice(both, reference.n + raw.n), &utf8))
		return; /* nothing can match */
	store_pattern(utf8, &nfc);
	utf8 = squeeze(arena_dup(&s->arena, buf_slice(&nfc)));
	buf_free(&nfc);
	if (slice_has_caseprefix(utf8, "INBOX") && (utf8.n == 5 || strchr("/%*", utf8.p[5]))) {
		utf8 = slice_sub(utf8, 5, utf8.n);
		utf8 = slice_str(arena_printf(&s->arena, "INBOX%.*s", SLICE_ARG(utf8)));
	}
	l->patterns[l->count++] = utf8;
}

/* --- options --- */

static bool
select_options(struct imap_parse *p, struct list *l)
{
	l->extended = true;
	while (!imap_try(p, ')')) {
		if (imap_try_word(p, "SUBSCRIBED"))
			l->subscribed = l->return_subscribed = true;
		else if (imap_try_word(p, "REMOTE"))
			l->remote = true;
		else if (imap_try_word(p, "RECURSIVEMATCH"))
			l->recursive = true;
		else if (imap_try_word(p, "SPECIAL-USE"))
			l->special = true;
		else
			return imap_fail(p, "Unknown selection option");
		if (imap_peek(p) != ')' && !imap_sp(p))
			return false;
	}
	if (l->recursive && !l->subscribed && !l->special)
		return imap_fail(p, "RECURSIVEMATCH needs a selection option beside it");
	return true;
}

static bool
return_options(struct imap_parse *p, struct list *l)
{
	l->extended = true;
	if (!imap_try_word(p, "RETURN") || !imap_sp(p) || !imap_need(p, '('))
		return imap_fail(p, "RETURN (...) expected");
	while (!imap_try(p, ')')) {
		if (imap_try_word(p, "SUBSCRIBED")) {
			l->return_subscribed = true;
		} else if (imap_try_word(p, "CHILDREN") || imap_try_word(p, "SPECIAL-USE")) {
			/* told in any case */
		} else if (imap_try_word(p, "STATUS")) {
			l->return_status = true;
			if (!imap_sp(p) || !imap_parse_status_items(p, &l->status))
				return false;
		} else {
			return imap_fail(p, "Unknown return option");
		}
		if (imap_peek(p) != ')' && !imap_sp(p))
			return false;
	}
	return true;
}

static bool
patterns(struct imap_session *s, struct imap_parse *p, struct list *l, struct slice reference,
    bool *empty_r)
{
	struct slice raw;

	*empty_r = false;
	if (!imap_try(p, '(')) {
		if (!imap_list_mailbox(p, &raw))
			return false;
		*empty_r = !raw.n;
		add_pattern(s, l, reference, raw);
		return true;
	}
	l->extended = true;
	do {
		if (l->count == MAX_PATTERNS)
			return imap_fail(p, "Too many patterns");
		if (!imap_list_mailbox(p, &raw))
			return false;
		add_pattern(s, l, reference, raw);
	} while (imap_try(p, ' '));
	return imap_need(p, ')');
}

/* --- replies --- */

static void
attribute(struct imap_session *s, const char **sep, const char *name)
{
	imap_put(s, *sep);
	imap_put(s, name);
	*sep = " ";
}

static void
put_attributes(
    struct imap_session *s, const struct list *l, const struct store_folder *f, bool readable)
{
	const char *sep = "";

	if (!readable)
		attribute(s, &sep, "\\Noselect");
	else if (!f->exists) {
		if (l->extended || s->rev2)
			attribute(s, &sep, "\\NonExistent");
		else
			attribute(s, &sep, "\\Noselect");
	}
	if (l->return_subscribed && f->subscribed)
		attribute(s, &sep, "\\Subscribed");
	attribute(s, &sep, f->has_children ? "\\HasChildren" : "\\HasNoChildren");
	for (unsigned bit = 1; bit <= SPECIAL_IMPORTANT; bit <<= 1)
		if (f->special_use & bit)
			attribute(s, &sep, special_use_name((enum special_use)bit));
}

/* By the options alone. */
static bool
selected(const struct list *l, const struct store_folder *f)
{
	if (l->subscribed ? !f->subscribed : !f->exists && !f->has_children)
		return false; /* without SUBSCRIBED what is only a subscription is not listed */
	return !l->special || f->special_use;
}

static bool
is_below(const char *name, const char *parent)
{
	size_t n = strlen(parent);

	return strncmp(name, parent, n) == 0 && name[n] == STORE_SEPARATOR;
}

/* A folder's names above stand before it, with nothing but what is below them between. */
static void
mark_above(struct imap_session *s, struct list *l)
{
	size_t *open = arena_alloc(&s->arena, (l->all.count + 1) * sizeof(*open)), depth = 0;

	l->above = arena_alloc(&s->arena, l->all.count + 1);
	for (size_t i = 0; i < l->all.count; i++) {
		const struct store_folder *f = &l->all.folders[i];

		while (depth && !is_below(f->name, l->all.folders[open[depth - 1]].name))
			depth--;
		/* Whoever is marked already has all above it marked. */
		for (size_t d = depth; selected(l, f) && d-- && !l->above[open[d]];)
			l->above[open[d]] = true;
		open[depth++] = i;
	}
}

static void
put_folder(struct imap_session *s, struct list *l, size_t at)
{
	const struct store_folder *f = &l->all.folders[at];
	bool above = l->above && l->above[at], readable = true;
	size_t before = buf_len(&s->out);

	if (!any_matches(l, f->name) || !(selected(l, f) || above))
		return;
	for (;;) {
		imap_put(s, "* LIST (");
		put_attributes(s, l, f, readable);
		imap_put(s, ") \"/\" ");
		imap_put_mailbox(s, f->name);
		if (above)
			imap_putf(s, " (\"CHILDINFO\" (%s%s%s))",
			    l->subscribed ? "\"SUBSCRIBED\"" : "",
			    l->subscribed && l->special ? " " : "",
			    l->special ? "\"SPECIAL-USE\"" : "");
		imap_put(s, "\r\n");
		if (!readable || !l->return_status || !f->exists ||
		    imap_put_status(s, f->name, &l->status) == 0)
			return;
		/* A folder that cannot be read gives no STATUS, and says so (RFC 5819 section 2).
		 */
		readable = false;
		buf_truncate(&s->out, before);
	}
}

static void
list_free(struct imap_session *s)
{
	struct list *l = s->task;

	store_list_free(&l->all);
}

static enum imap_step
list_step(struct imap_session *s)
{
	struct list *l = s->task;
	size_t end = l->at + (l->return_status ? STATUS_A_STEP : FOLDERS_A_STEP);

	l->work = 0;
	for (; l->at < l->all.count; l->at++) {
		if (l->at == end || l->work >= WORK_A_STEP ||
		    buf_len(&s->out) >= s->config.watermark)
			return STEP_AGAIN;
		put_folder(s, l, l->at);
	}
	imap_ok(s, true, "Done");
	return STEP_DONE;
}

void
imap_cmd_list(struct imap_session *s, struct imap_parse *p)
{
	struct list *l = arena_alloc(&s->arena, sizeof(*l));
	struct slice reference;
	bool empty;
	int err;

	if (!imap_sp(p) || (imap_try(p, '(') && (!select_options(p, l) || !imap_sp(p))) ||
	    !imap_astring(p, &reference) || !imap_sp(p) || !patterns(s, p, l, reference, &empty) ||
	    (imap_try(p, ' ') && !return_options(p, l)) || !imap_end(p))
		return;
	if (empty && !l->extended) {
		imap_put(s, "* LIST (\\Noselect) \"/\" \"\"\r\n");
		imap_ok(s, true, "Done");
		return;
	}
	err = store_list(s->config.store, &l->all);
	if (err < 0) {
		imap_store_failed(s, err);
		return;
	}
	if (l->recursive)
		mark_above(s, l);
	imap_start(s, l, list_step, list_free);
}

/* lsub = "LSUB" SP mailbox SP list-mailbox */
void
imap_cmd_lsub(struct imap_session *s, struct imap_parse *p)
{
	struct list *l = arena_alloc(&s->arena, sizeof(*l));
	struct store_list all;
	struct slice reference, raw;
	bool percent;
	int err;

	if (!imap_sp(p) || !imap_astring(p, &reference) || !imap_sp(p) ||
	    !imap_list_mailbox(p, &raw) || !imap_end(p))
		return;
	add_pattern(s, l, reference, raw);
	err = store_list(s->config.store, &all);
	if (err < 0) {
		imap_store_failed(s, err);
		return;
	}
	/* "%" shows an unsubscribed parent of something subscribed, as \Noselect. */
	percent = raw.n && raw.p[raw.n - 1] == '%';
	for (size_t i = 0; i < all.count; i++) {
		const struct store_folder *f = &all.folders[i];

		if (!any_matches(l, f->name) ||
		    (!f->subscribed && !(percent && f->has_subscribed_child)))
			continue;
		imap_put(s, f->subscribed ? "* LSUB () \"/\" " : "* LSUB (\\Noselect) \"/\" ");
		imap_put_mailbox(s, f->name);
		imap_put(s, "\r\n");
	}
	store_list_free(&all);
	imap_ok(s, true, "Done");
}
