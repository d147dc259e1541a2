/*
 * One IMAP session after login. Runs in imapd-child as the user, chrooted into the mail directory;
 * the client's bytes are hostile. Invariants: at most one command runs; while it runs or the output
 * stands above the watermark no byte is taken; every command ends with exactly one tagged reply; a
 * task is freed by one function, whatever ends it.
 */
#include "imap/command.h"
#include "imap/capability.h"

#include <stdlib.h>

enum { ANY = 1, SELECTED = 2, WITH_UID = 4 };
enum { COMMANDS_A_FEED = 16 }; /* of one connection before the others get their turn */

static const struct {
	const char *name;
	imap_command_fn *run;
	unsigned flags;
} commands[] = {
	{ "APPEND", imap_cmd_append, ANY },
	{ "CAPABILITY", imap_cmd_capability, ANY },
	{ "CHECK", imap_cmd_check, SELECTED },
	{ "CLOSE", imap_cmd_close, SELECTED },
	{ "COPY", imap_cmd_copy, SELECTED | WITH_UID },
	{ "CREATE", imap_cmd_create, ANY },
	{ "DELETE", imap_cmd_delete, ANY },
	{ "ENABLE", imap_cmd_enable, ANY },
	{ "EXAMINE", imap_cmd_examine, ANY },
	{ "EXPUNGE", imap_cmd_expunge, SELECTED | WITH_UID },
	{ "FETCH", imap_cmd_fetch, SELECTED | WITH_UID },
	{ "ID", imap_cmd_id, ANY },
	{ "IDLE", imap_cmd_idle, ANY },
	{ "LIST", imap_cmd_list, ANY },
	{ "LOGOUT", imap_cmd_logout, ANY },
	{ "LSUB", imap_cmd_lsub, ANY },
	{ "MOVE", imap_cmd_move, SELECTED | WITH_UID },
	{ "NAMESPACE", imap_cmd_namespace, ANY },
	{ "NOOP", imap_cmd_noop, ANY },
	{ "RENAME", imap_cmd_rename, ANY },
	{ "SEARCH", imap_cmd_search, SELECTED | WITH_UID },
	{ "SELECT", imap_cmd_select, ANY },
	{ "STATUS", imap_cmd_status, ANY },
	{ "STORE", imap_cmd_store, SELECTED | WITH_UID },
	{ "SUBSCRIBE", imap_cmd_subscribe, ANY },
	{ "UNSELECT", imap_cmd_unselect, SELECTED },
	{ "UNSUBSCRIBE", imap_cmd_unsubscribe, ANY },
};

/* --- the mailbox --- */

void
imap_drop_content(struct imap_session *s)
{
	if (s->content)
		content_free(&s->content);
	mime_free(&s->mime);
	s->root = NULL;
	s->content_uid = 0;
	s->mime_at = 0;
	s->header_known = false;
	buf_free(&s->header);
}

void
imap_deselect(struct imap_session *s)
{
	imap_drop_content(s);
	if (s->mailbox)
		mailbox_free(&s->mailbox);
	uid_list_free(&s->saved);
}

/* --- life --- */

struct imap_session *
imap_session_new(const struct imap_session_config *config, struct slice tag)
{
	struct imap_session *s = xcalloc(1, sizeof(*s));

	s->config = *config;
	if (!s->config.max_literal)
		s->config.max_literal = config->max_command;
	if (!s->config.max_depth)
		s->config.max_depth = 50;
	imap_reader_init(&s->reader, config->max_command, 1 << 20);
	if (tag.n > IMAP_TAG_MAX)
		tag.n = 0;
	if (tag.n)
		memcpy(s->tag, tag.p, tag.n);
	s->tag_len = tag.n;
	imap_put_tag(s);
	imap_put(s, " OK [CAPABILITY ");
	imap_capability_session(&s->out);
	imap_put(s, "] Logged in\r\n");
	return s;
}

static void
end_task(struct imap_session *s)
{
	if (s->task_free)
		s->task_free(s);
	s->step = NULL;
	s->task_free = NULL;
	s->task = NULL;
}

void
imap_session_free(struct imap_session **sp)
{
	struct imap_session *s = *sp;

	if (!s)
		return;
	end_task(s);
	imap_append_abort(s);
	imap_deselect(s);
	imap_reader_free(&s->reader);
	buf_free(&s->out);
	arena_free(&s->arena);
	free(s);
	*sp = NULL;
}

struct buf *
imap_session_out(struct imap_session *s)
{
	return &s->out;
}

bool
imap_session_busy(const struct imap_session *s)
{
	return s->step && !s->ended;
}

bool
imap_session_ended(const struct imap_session *s)
{
	return s->ended;
}

bool
imap_session_idling(const struct imap_session *s)
{
	return s->idling && !s->ended;
}

const struct imap_session_counts *
imap_session_counts(const struct imap_session *s)
{
	return &s->counts;
}

void
imap_session_bye(struct imap_session *s, const char *text)
{
	if (s->ended)
		return;
	imap_put(s, "* BYE ");
	imap_put(s, text);
	imap_put(s, "\r\n");
	s->why = text;
	s->ended = true;
}

const char *
imap_session_why(const struct imap_session *s, const char **limit_r)
{
	*limit_r = s->limit;
	return s->why;
}

int
imap_session_trouble(struct imap_session *s)
{
	int err = s->trouble;

	s->trouble = 0;
	return err;
}

void
imap_session_changed(struct imap_session *s)
{
	if (imap_session_idling(s))
		imap_sync(s, true);
}

void
imap_session_keepalive(struct imap_session *s)
{
	if (imap_session_idling(s) && !buf_len(&s->out))
		imap_put(s, "* OK Still here\r\n");
}

/* --- commands --- */

void
imap_start(struct imap_session *s, void *task, enum imap_step (*step)(struct imap_session *),
    void (*task_free)(struct imap_session *))
{
	s->task = task;
	s->step = step;
	s->task_free = task_free;
	imap_session_run(s);
}

void
imap_session_run(struct imap_session *s)
{
	if (!imap_session_busy(s) || s->step(s) == STEP_AGAIN)
		return;
	end_task(s);
	arena_reset(&s->arena);
}

static void
dispatch(struct imap_session *s, struct imap_parse *p, struct slice name)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (!slice_caseeq_str(name, commands[i].name))
			continue;
		if (s->uid && !(commands[i].flags & WITH_UID)) {
			imap_bad(s, "This command has no UID form");
		} else if (commands[i].flags & SELECTED && !s->mailbox) {
			imap_bad(s, "No mailbox is selected");
		} else {
			commands[i].run(s, p);
			if (p->why)
				imap_bad(s, p->why);
		}
		return;
	}
	imap_bad(s, "Unknown command");
}

static void
run_command(struct imap_session *s)
{
	struct imap_parse p = imap_parse(buf_slice(&s->reader.cmd), &s->arena);
	struct slice tag, name;

	s->counts.commands++;
	s->tag_len = 0;
	s->uid = false;
	if (!imap_tag(&p, &tag) || tag.n > IMAP_TAG_MAX) {
		imap_bad(s, "Tag expected");
		return;
	}
	memcpy(s->tag, tag.p, tag.n);
	s->tag_len = tag.n;
	if (!imap_sp(&p) || !imap_atom(&p, &name)) {
		imap_bad(s, "Command expected");
		return;
	}
	if (slice_caseeq_str(name, "UID")) {
		s->uid = true;
		if (!imap_sp(&p) || !imap_atom(&p, &name)) {
			imap_bad(s, "Command expected after UID");
			return;
		}
	}
	dispatch(s, &p, name);
}

/* --- input --- */

static void
whole_command(struct imap_session *s)
{
	if (s->idling)
		imap_idle_line(s, buf_slice(&s->reader.cmd));
	else
		run_command(s);
	imap_reader_next(&s->reader);
	if (!s->step)
		arena_reset(&s->arena);
}

/* The tag of the command that is being read, for a refusal before its end. */
static void
take_tag(struct imap_session *s)
{
	struct imap_parse p = imap_parse(buf_slice(&s->reader.cmd), &s->arena);
	struct slice tag;

	s->tag_len = 0;
	if (!s->idling && imap_tag(&p, &tag) && tag.n <= IMAP_TAG_MAX && imap_peek(&p) == ' ') {
		memcpy(s->tag, tag.p, tag.n);
		s->tag_len = tag.n;
	}
}

/* RFC 7888 section 4: without LITERAL+ a non-synchronising literal has at most 4096 bytes. */
static void
announced(struct imap_session *s)
{
	struct imap_reader *r = &s->reader;
	enum imap_literal_plan plan = LITERAL_BUFFER;

	if (s->idling) {
		s->idling = false;
		imap_bad(s, "DONE expected");
		imap_reader_reject(r);
		return;
	}
	if (!r->literal_sync && r->literal_size > 4096) {
		take_tag(s);
		imap_bad(s, "[TOOBIG] A non-synchronising literal may have 4096 bytes");
		imap_append_abort(s);
		imap_reader_reject(r);
		return;
	}
	plan = imap_append_announced(s);
	if (plan == LITERAL_BUFFER &&
	    (r->literal_size > s->config.max_literal || imap_reader_accept(r) < 0)) {
		take_tag(s);
		imap_bad(s, "[TOOBIG] The command is too long");
		plan = LITERAL_REFUSED;
	}
	if (plan == LITERAL_REFUSED) {
		imap_reader_reject(r);
		arena_reset(&s->arena);
		return;
	}
	if (plan == LITERAL_STREAM)
		imap_reader_stream(r);
	if (r->literal_sync)
		imap_put(s, "+ Ready\r\n");
}

static size_t
feed_some(struct imap_session *s, struct slice in)
{
	enum imap_read event;
	size_t n;

	if (imap_append_wants_bytes(s))
		return imap_append_bytes(s, in);
	n = imap_reader_feed(&s->reader, in, &event);
	switch (event) {
	case IMAP_READ_COMMAND:
		whole_command(s);
		break;
	case IMAP_READ_LITERAL:
		announced(s);
		break;
	case IMAP_READ_TOO_LONG:
		if (s->idling) {
			s->idling = false;
			imap_bad(s, "DONE expected");
		} else {
			take_tag(s);
			imap_append_abort(s);
			imap_bad(s, "[TOOBIG] The command is too long");
		}
		imap_reader_reject(&s->reader);
		break;
	case IMAP_READ_FLOOD:
		imap_session_bye(s, "The command is too long");
		break;
	default:
		break;
	}
	return n;
}

size_t
imap_session_feed(struct imap_session *s, struct slice in)
{
	uint64_t last = s->counts.commands + COMMANDS_A_FEED;
	size_t taken = 0;

	while (taken < in.n && !s->ended && !s->step && s->counts.commands < last &&
	       buf_len(&s->out) < s->config.watermark)
		taken += feed_some(s, slice_sub(in, taken, in.n));
	return s->ended ? in.n : taken;
}
