/*
 * POP3 after login. Runs in pop3d-child as the user, in the mail directory, on bytes of a client
 * that logged in; messages are hostile content. Invariants: a command line is at most
 * POP3_COMMAND_MAX bytes; output stays near POP3_WATERMARK; every line of a multi-line answer ends
 * with CRLF and has its leading dot doubled, so that no message can end or forge an answer; only
 * QUIT removes.
 */
#include "pop3/private.h"

#include <stdlib.h>

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

void
pop3_end_task(struct pop3_engine *e)
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
	pop3_end_task(e);
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

void
pop3_put(struct pop3_engine *e, const char *text)
{
	buf_add_str(&e->out, text);
	buf_add_str(&e->out, "\r\n");
}

void
pop3_engine_start(struct pop3_engine *e, struct slice mechanisms)
{
	buf_add(&e->mechanisms, mechanisms);
	pop3_put(e, "+OK Logged in");
}

void
pop3_engine_bye(struct pop3_engine *e, const char *text)
{
	if (e->closed)
		return;
	if (e->task == TASK_NONE)
		buf_addf(&e->out, "-ERR %s\r\n", text);
	pop3_end_task(e);
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
	pop3_step(e);
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
	uint32_t i;

	if (!args.n) {
		start_list(e, TASK_UIDL);
		return;
	}
	if (!get_message(e, args, &i))
		return;
	buf_addf(&e->out, "+OK %u ", i + 1);
	e->ops->uidl(e->drop, i, &e->out);
	pop3_put(e, "");
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
	pop3_step(e);
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
	pop3_put(e, "+OK");
	e->top = true;
	e->lines = lines;
	pop3_step(e);
}

static void
cmd_dele(struct pop3_engine *e, struct slice args)
{
	uint32_t i;

	if (!get_message(e, args, &i))
		return;
	e->marks[i] |= POP3_MARK_DELETED;
	pop3_put(e, "+OK Marked for deletion");
}

static void
cmd_noop(struct pop3_engine *e, struct slice args)
{
	(void)args;
	pop3_put(e, "+OK");
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
		pop3_put(e, "-ERR [SYS/TEMP] Some deleted messages were not removed");
	else
		pop3_put(e, "+OK Good bye");
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
	pop3_put(e, "+OK Capability list follows");
	pop3_put(e, "TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING");
	if (slice_search(sasl, SLICE_LIT("PLAIN")) >= 0)
		pop3_put(e, "USER");
	if (sasl.n)
		buf_addf(&e->out, "SASL %.*s\r\n", SLICE_ARG(sasl));
	pop3_put(e, "EXPIRE NEVER\r\nIMPLEMENTATION Bulkhead\r\n.");
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
			pop3_step(e);
		else if (taken < in.n)
			taken += feed_line(e, slice_sub(in, taken, SIZE_MAX));
		else
			break;
	}
	return taken;
}
