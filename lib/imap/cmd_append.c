/*
 * APPEND (RFC 9051 section 6.3.12). Runs in imapd-child. The message never stands in memory: when
 * its literal is announced, the arguments before it are read, the store's file is begun, and the
 * bytes go there as they come. Nothing is visible before append_finish, which is durable when it
 * returns.
 *
 *	append = "APPEND" SP mailbox [SP flag-list] [SP date-time] SP literal / literal8
 */
#include "imap/command.h"

#include <stdlib.h>

struct imap_append {
	struct append *file;
	uint64_t left;
	size_t args; /* bytes of the command up to the literal's bytes */
	int failed;  /* the first error of the store */
	bool nul;    /* a NUL came */
	bool binary;
	char *name, *oldname; /* where the store has another name than the client, else NULL */
};

static bool
append_flag(struct imap_parse *p, struct append_info *info)
{
	struct slice name;

	if (!imap_flag(p, &name))
		return false;
	if (name.p[0] == '\\') {
		info->flags |= imap_system_flag(name);
		return true;
	}
	if (info->keyword_count == STORE_KEYWORDS)
		return imap_fail(p, "Too many keywords");
	info->keywords[info->keyword_count++] = name;
	return true;
}

static bool
append_flags(struct imap_parse *p, struct append_info *info)
{
	if (imap_try(p, ')'))
		return true;
	do {
		if (!append_flag(p, info))
			return false;
	} while (imap_try(p, ' '));
	return imap_need(p, ')');
}

/* The arguments up to the message; false with p->why, or with *name_r NULL and *no_r set. */
static bool
arguments(struct imap_session *s, struct imap_parse *p, char **name_r, const char **no_r,
    struct append_info *info)
{
	int zone;

	if (!imap_sp(p) || !imap_mailbox(s, p, name_r, no_r) || !imap_sp(p))
		return false;
	if (imap_try(p, '(') && (!append_flags(p, info) || !imap_sp(p)))
		return false;
	info->dated = imap_peek(p) == '"';
	if (info->dated && (!imap_date_time(p, &info->date, &zone) || !imap_sp(p)))
		return false;
	return true;
}

void
imap_append_abort(struct imap_session *s)
{
	if (!s->append)
		return;
	if (s->append->file)
		append_free(&s->append->file);
	free(s->append->name);
	free(s->append->oldname);
	free(s->append);
	s->append = NULL;
}

bool
imap_append_wants_bytes(const struct imap_session *s)
{
	return s->append && s->append->left;
}

/* Bytes are taken to the end of the literal whatever happens: the client sends them. */
size_t
imap_append_bytes(struct imap_session *s, struct slice in)
{
	struct imap_append *a = s->append;

	if (in.n > a->left)
		in.n = (size_t)a->left;
	a->left -= in.n;
	a->nul |= slice_find(in, 0) >= 0;
	if (!a->failed && a->file)
		a->failed = append_write(a->file, in);
	return in.n;
}

static void
failed(struct imap_session *s, int err)
{
	if (err == ERR_NOT_FOUND)
		imap_no(s, "[TRYCREATE] There is no such mailbox");
	else
		imap_store_failed(s, err);
}

/* Tag and word are there; s->tag is set when this is an APPEND. */
static bool
is_append(struct imap_session *s, struct imap_parse *p)
{
	struct slice tag, word;

	if (!imap_tag(p, &tag) || tag.n > IMAP_TAG_MAX || !imap_sp(p) || !imap_atom(p, &word) ||
	    !slice_caseeq_str(word, "APPEND"))
		return false;
	memcpy(s->tag, tag.p, tag.n);
	s->tag_len = tag.n;
	return true;
}

static enum imap_literal_plan
begin(struct imap_session *s, const char *name, const struct append_info *info)
{
	struct imap_reader *r = &s->reader;
	struct append *file;
	int err;

	if (s->config.max_append && r->literal_size > s->config.max_append) {
		imap_no(s, "[TOOBIG] The message is too large");
		return LITERAL_REFUSED;
	}
	if (!r->literal_size) {
		imap_no(s, "[CANNOT] The message is empty");
		return LITERAL_REFUSED;
	}
	err = append_begin(s->config.store, slice_str(name), info, r->literal_size, &file);
	if (err < 0) {
		failed(s, err);
		return LITERAL_REFUSED;
	}
	s->append = xcalloc(1, sizeof(*s->append));
	s->append->file = file;
	s->append->left = r->literal_size;
	s->append->args = buf_len(&r->cmd);
	s->append->binary = r->literal_binary;
	if (s->oldname) {
		s->append->name = xstrdup(name);
		s->append->oldname = xstrdup(s->oldname);
	}
	return LITERAL_STREAM;
}

enum imap_literal_plan
imap_append_announced(struct imap_session *s)
{
	struct imap_parse p = imap_parse(buf_slice(&s->reader.cmd), &s->arena);
	struct append_info info = { 0 };
	char *name;
	const char *no;

	if (!is_append(s, &p))
		return LITERAL_BUFFER;
	if (s->append) {
		imap_append_abort(s);
		imap_bad(s, "Only one message a command");
		return LITERAL_REFUSED;
	}
	if (!arguments(s, &p, &name, &no, &info)) {
		/* Not there yet: this literal is the mailbox's name. */
		if (p.at >= p.in.n)
			return LITERAL_BUFFER;
		imap_bad(s, p.why);
		return LITERAL_REFUSED;
	}
	(void)imap_try(&p, '~');
	if (imap_peek(&p) != '{') {
		imap_bad(s, "Literal expected");
		return LITERAL_REFUSED;
	}
	if (!name) {
		imap_no(s, no);
		return LITERAL_REFUSED;
	}
	return begin(s, name, &info);
}

static void
finish(struct imap_session *s, struct imap_append *a)
{
	struct copy_result result = { 0 };
	int err = append_finish(&a->file, 1, &result);

	a->file = NULL;
	if (err < 0) {
		failed(s, err);
	} else {
		s->counts.appended++;
		if (a->name)
			imap_put_name(s, "", a->name, a->oldname);
		imap_okf(s, true, "[APPENDUID %u %u] Stored", result.uidvalidity,
		    result.to.count ? result.to.uids[0] : 0);
	}
	copy_result_free(&result);
}

/* The whole command, the literal's bytes left out. */
void
imap_cmd_append(struct imap_session *s, struct imap_parse *p)
{
	struct imap_append *a = s->append;

	if (!a) {
		struct append_info info = { 0 };
		const char *no;
		char *name;

		if (arguments(s, p, &name, &no, &info))
			imap_fail(p, "Literal expected");
		return;
	}
	if (p->in.n != a->args) {
		p->at = a->args;
		imap_fail(p, "Unexpected text after the message");
	} else if (a->nul && !a->binary) {
		imap_fail(p, "NUL in the message");
	} else if (a->nul) {
		imap_no(s, "[UNKNOWN-CTE] Messages with NUL are not stored");
	} else if (a->failed) {
		failed(s, a->failed);
	} else {
		finish(s, a);
	}
	imap_append_abort(s);
}
