/*
 * POP3 after login. Runs in pop3d-child as the user, in the mail directory, on bytes of a client
 * that logged in; messages are hostile content. Invariants: a command line is at most
 * POP3_COMMAND_MAX bytes; output stays near POP3_WATERMARK; every line of a multi-line answer ends
 * with CRLF and has its leading dot doubled, so that no message can end or forge an answer; only
 * QUIT removes.
 */
#include "pop3/engine.h"

#include <stdio.h>
#include <stdlib.h>

enum task {
	TASK_NONE,
	TASK_LIST,
	TASK_UIDL,
	TASK_MESSAGE, /* RETR, TOP */
};

enum { CHUNK = 16384 };

struct pop3_engine {
	const struct pop3_drop_ops *ops;
	void *drop;
	struct pop3_engine_limits limits;
	uint32_t count;
	unsigned char *marks;
	struct buf line, out, mechanisms;
	bool closed;
	unsigned errors;
	const char *why, *limit; /* of the end, for the log */

	enum task task;
	uint32_t at; /* LIST, UIDL: next message */
	void *content;
	uint64_t offset;
	bool top;       /* only the header and .. */
	uint64_t lines; /* .. so many lines of the body */
	bool in_body;
	unsigned char last; /* byte of the message that was written */
	unsigned column;    /* bytes on this line so far, at most 2 */
};

struct pop3_engine *
pop3_engine_new(
    const struct pop3_drop_ops *ops, void *drop, const struct pop3_engine_limits *limits)
{
	struct pop3_engine *e = xcalloc(1, sizeof(*e));

	e->ops = ops;
	e->drop = drop;
	e->limits = *limits;
	e->count = ops->count(drop);
	e->marks = xcalloc((size_t)e->count + 1, 1);
	return e;
}

static void
end_task(struct pop3_engine *e)
{
	if (e->content)
		e->ops->close(e->content);
	e->content = NULL;
	e->task = TASK_NONE;
}

void
pop3_engine_free(struct pop3_engine **ep)
{
	struct pop3_engine *e = *ep;

	*ep = NULL;
	if (!e)
		return;
	end_task(e);
	buf_free(&e->line);
	buf_free(&e->out);
	buf_free(&e->mechanisms);
	free(e->marks);
	free(e);
}

struct buf *
pop3_engine_out(struct pop3_engine *e)
{
	return &e->out;
}

bool
pop3_engine_busy(const struct pop3_engine *e)
{
	return e->task != TASK_NONE && !e->closed;
}

bool
pop3_engine_closed(const struct pop3_engine *e)
{
	return e->closed;
}

static void
put(struct pop3_engine *e, const char *text)
{
	buf_add_str(&e->out, text);
	buf_add_str(&e->out, "\r\n");
}

void
pop3_engine_start(struct pop3_engine *e, struct slice mechanisms)
{
	buf_add(&e->mechanisms, mechanisms);
	put(e, "+OK Logged in");
}

void
pop3_engine_bye(struct pop3_engine *e, const char *text)
{
	if (e->closed)
		return;
	if (e->task == TASK_NONE)
		buf_addf(&e->out, "-ERR %s\r\n", text);
	end_task(e);
	e->why = text;
	e->closed = true;
}

const char *
pop3_engine_why(const struct pop3_engine *e, const char **limit_r)
{
	*limit_r = e->limit;
	return e->why;
}

static void
bad(struct pop3_engine *e, const char *text)
{
	buf_addf(&e->out, "-ERR %s\r\n", text);
	if (++e->errors >= e->limits.max_errors) {
		e->limit = "pop3_error_limit";
		pop3_engine_bye(e, "Too many bad commands");
	}
}

/* --- message numbers --- */

/* A number of a message that is there and not deleted; says so if not. */
static bool
get_message(struct pop3_engine *e, struct slice arg, uint32_t *i_r)
{
	uint64_t n;

	if (slice_u64(arg, UINT32_MAX, &n) < 0) {
		bad(e, "A message number is needed");
		return false;
	}
	if (n == 0 || n > e->count || e->marks[n - 1] & POP3_MARK_DELETED) {
		bad(e, "No such message");
		return false;
	}
	*i_r = (uint32_t)n - 1;
	return true;
}

/* Messages that are not deleted and their octets; what vanished counts as empty. */
static void
totals(struct pop3_engine *e, uint32_t *n_r, uint64_t *octets_r)
{
	*n_r = 0;
	*octets_r = 0;
	for (uint32_t i = 0; i < e->count; i++) {
		uint64_t size;
		if (e->marks[i] & POP3_MARK_DELETED)
			continue;
		(*n_r)++;
		if (e->ops->size(e->drop, i, &size) == 0)
			*octets_r += size;
	}
}

/* --- long answers --- */

static void
step_list(struct pop3_engine *e)
{
	uint64_t size;

	while (e->at < e->count && buf_len(&e->out) < POP3_WATERMARK) {
		uint32_t i = e->at++;
		if (e->marks[i] & POP3_MARK_DELETED)
			continue;
		if (e->task == TASK_UIDL) {
			buf_addf(&e->out, "%u ", i + 1);
			if (e->ops->uidl(e->drop, i, &e->out) < 0)
				buf_add_str(&e->out, "gone");
			buf_add_str(&e->out, "\r\n");
		} else {
			if (e->ops->size(e->drop, i, &size) < 0)
				size = 0;
			buf_addf(&e->out, "%u %llu\r\n", i + 1, (unsigned long long)size);
		}
	}
	if (e->at >= e->count) {
		put(e, ".");
		end_task(e);
	}
}

/* Writes a piece of the message: bare LF becomes CRLF, a dot that begins a line is doubled. False:
 * TOP has enough. */
static bool
put_piece(struct pop3_engine *e, struct slice s)
{
	while (s.n) {
		if (e->column == 0 && s.p[0] == '.')
			buf_add_byte(&e->out, '.');
		ptrdiff_t lf = slice_find(s, '\n');
		size_t n = lf < 0 ? s.n : (size_t)lf;
		if (n) {
			buf_add(&e->out, slice_sub(s, 0, n));
			e->last = s.p[n - 1];
			e->column = n > 1 || e->column ? 2 : 1;
		}
		if (lf < 0)
			return true;
		bool empty = e->column == 0 || (e->column == 1 && e->last == '\r');
		if (e->last != '\r')
			buf_add_byte(&e->out, '\r');
		buf_add_byte(&e->out, '\n');
		e->last = '\n';
		e->column = 0;
		s = slice_sub(s, n + 1, SIZE_MAX);
		if (!e->top)
			continue;
		if (e->in_body)
			e->lines--;
		e->in_body |= empty;
		if (e->in_body && e->lines == 0)
			return false;
	}
	return true;
}

static void
end_message(struct pop3_engine *e)
{
	if (e->last == '\r')
		buf_add_byte(&e->out, '\n');
	else if (e->last != '\n')
		buf_add_str(&e->out, "\r\n");
	put(e, ".");
	end_task(e);
}

static void
step_message(struct pop3_engine *e)
{
	unsigned char chunk[CHUNK];

	while (buf_len(&e->out) < POP3_WATERMARK) {
		ptrdiff_t n = e->ops->read(e->content, e->offset, chunk, sizeof(chunk));
		if (n <
		    0) { /* the answer cannot be taken back: the client must not take it as whole */
			end_task(e);
			e->closed = true;
			return;
		}
		e->offset += (uint64_t)n;
		if (n == 0 || !put_piece(e, slice(chunk, (size_t)n))) {
			end_message(e);
			return;
		}
	}
}

static void
step(struct pop3_engine *e)
{
	if (e->task == TASK_MESSAGE)
		step_message(e);
	else if (e->task != TASK_NONE)
		step_list(e);
}

/* --- commands; args is what stands behind the keyword and one space --- */

static void
cmd_stat(struct pop3_engine *e, struct slice args)
{
	uint32_t n;
	uint64_t octets;

	(void)args;
	totals(e, &n, &octets);
	buf_addf(&e->out, "+OK %u %llu\r\n", n, (unsigned long long)octets);
}

static void
start_list(struct pop3_engine *e, enum task task)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < e->count; i++)
		n += !(e->marks[i] & POP3_MARK_DELETED);
	buf_addf(&e->out, "+OK %u messages\r\n", n);
	e->task = task;
	e->at = 0;
	step(e);
}

static void
cmd_list(struct pop3_engine *e, struct slice args)
{
	uint32_t i;
	uint64_t size;

	if (!args.n) {
		start_list(e, TASK_LIST);
		return;
	}
	if (!get_message(e, args, &i))
		return;
	if (e->ops->size(e->drop, i, &size) < 0)
		bad(e, "The message is gone");
	else
		buf_addf(&e->out, "+OK %u %llu\r\n", i + 1, (unsigned long long)size);
}

static void
cmd_uidl(struct pop3_engine *e, struct slice args)
{
	struct buf id = { 0 };
	uint32_t i;

	if (!args.n) {
		start_list(e, TASK_UIDL);
		return;
	}
	if (!get_message(e, args, &i))
		return;
	if (e->ops->uidl(e->drop, i, &id) < 0)
		bad(e, "The message is gone");
	else
		buf_addf(&e->out, "+OK %u %.*s\r\n", i + 1, SLICE_ARG(buf_slice(&id)));
	buf_free(&id);
}

static bool
start_message(struct pop3_engine *e, uint32_t i)
{
	if (e->ops->open(e->drop, i, &e->content) < 0) {
		e->content = NULL;
		bad(e, "[SYS/TEMP] The message is gone or cannot be read");
		return false;
	}
	e->task = TASK_MESSAGE;
	e->offset = 0;
	e->top = e->in_body = false;
	e->column = 0;
	e->last = '\n';
	return true;
}

static void
cmd_retr(struct pop3_engine *e, struct slice args)
{
	uint32_t i;
	uint64_t size;

	if (!get_message(e, args, &i) || !start_message(e, i))
		return;
	if (e->ops->size(e->drop, i, &size) < 0)
		size = 0;
	buf_addf(&e->out, "+OK %llu octets\r\n", (unsigned long long)size);
	e->marks[i] |= POP3_MARK_RETRIEVED;
	step(e);
}

static void
cmd_top(struct pop3_engine *e, struct slice args)
{
	struct slice number = slice_split(&args, ' ');
	uint64_t lines;
	uint32_t i;

	if (slice_u64(args, UINT32_MAX, &lines) < 0) {
		bad(e, "TOP needs a message number and a number of lines");
		return;
	}
	if (!get_message(e, number, &i) || !start_message(e, i))
		return;
	put(e, "+OK");
	e->top = true;
	e->lines = lines;
	step(e);
}

static void
cmd_dele(struct pop3_engine *e, struct slice args)
{
	uint32_t i;

	if (!get_message(e, args, &i))
		return;
	e->marks[i] |= POP3_MARK_DELETED;
	put(e, "+OK Marked for deletion");
}

static void
cmd_noop(struct pop3_engine *e, struct slice args)
{
	(void)args;
	put(e, "+OK");
}

static void
cmd_rset(struct pop3_engine *e, struct slice args)
{
	uint32_t n;
	uint64_t octets;

	(void)args;
	for (uint32_t i = 0; i < e->count; i++)
		e->marks[i] &= (unsigned char)~POP3_MARK_DELETED;
	totals(e, &n, &octets);
	buf_addf(&e->out, "+OK maildrop has %u messages (%llu octets)\r\n", n,
	    (unsigned long long)octets);
}

static void
cmd_quit(struct pop3_engine *e, struct slice args)
{
	(void)args;
	if (e->ops->update(e->drop, e->marks) < 0)
		put(e, "-ERR [SYS/TEMP] Some deleted messages were not removed");
	else
		put(e, "+OK Good bye");
	e->closed = true;
}

/* The same in both states (RFC 2449), but for STLS. */
static void
cmd_capa(struct pop3_engine *e, struct slice args)
{
	struct slice sasl = buf_slice(&e->mechanisms);

	if (args.n) {
		bad(e, "CAPA takes no argument");
		return;
	}
	put(e, "+OK Capability list follows");
	put(e, "TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING");
	if (slice_search(sasl, SLICE_LIT("PLAIN")) >= 0)
		put(e, "USER");
	if (sasl.n)
		buf_addf(&e->out, "SASL %.*s\r\n", SLICE_ARG(sasl));
	put(e, "EXPIRE NEVER\r\nIMPLEMENTATION Bulkhead\r\n.");
}

static const struct command {
	const char *name;
	void (*run)(struct pop3_engine *, struct slice args);
} commands[] = {
	{ "STAT", cmd_stat },
	{ "LIST", cmd_list },
	{ "UIDL", cmd_uidl },
	{ "RETR", cmd_retr },
	{ "TOP", cmd_top },
	{ "DELE", cmd_dele },
	{ "NOOP", cmd_noop },
	{ "RSET", cmd_rset },
	{ "QUIT", cmd_quit },
	{ "CAPA", cmd_capa },
};

static void
run_command(struct pop3_engine *e, struct slice line)
{
	struct slice args = line;
	struct slice name = slice_split(&args, ' ');

	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
		if (slice_caseeq_str(name, commands[i].name)) {
			commands[i].run(e, args);
			return;
		}
	}
	bad(e, "Unknown command, or not after login");
}

/* --- input --- */

static size_t
feed_line(struct pop3_engine *e, struct slice in)
{
	ptrdiff_t end = slice_find(in, '\n');
	size_t n = end < 0 ? in.n : (size_t)end + 1;

	if (buf_len(&e->line) + n > POP3_COMMAND_MAX) {
		pop3_engine_bye(e, "Line is too long");
		return n;
	}
	buf_add(&e->line, slice_sub(in, 0, n));
	if (end < 0)
		return n;
	struct slice line = buf_slice(&e->line);
	line.n--;
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	run_command(e, line);
	buf_clear(&e->line);
	return n;
}

size_t
pop3_engine_feed(struct pop3_engine *e, struct slice in)
{
	size_t taken = 0;

	while (!e->closed && buf_len(&e->out) < POP3_WATERMARK) {
		if (e->task != TASK_NONE)
			step(e);
		else if (taken < in.n)
			taken += feed_line(e, slice_sub(in, taken, SIZE_MAX));
		else
			break;
	}
	return taken;
}
