/*
 * Programs and files as destinations. Runs on a thread of the delivery child, as the recipient. A
 * command line is cut into words and run as they are: no shell, so nothing of a message can become
 * a command. The program runs from the zygote, outside of this root, as the same user, with the
 * message on its standard input and facts about it in its environment.
 */
#include "local/exits.h"
#include "local/job.h"
#include "local/program.h"

#include "base/io.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { WORDS_LIMIT = 127 };

static void
judge(struct job *j, const struct child_program *p, struct outcome *o)
{
	const char *what = "command failed", *enhanced = "5.3.0", *output = p->output, *printed;
	enum result_status status = RESULT_FAILED;
	const struct exit_meaning *known;

	if (p->kind == PROGRAM_EXITED && !p->status) {
		outcome_set(o, RESULT_DONE, "2.0.0",
		    arena_printf(&j->arena, "delivered to command: %s", p->argv[0]));
		return;
	}
	if (p->kind == PROGRAM_SIGNALED) {
		status = RESULT_DEFERRED;
		enhanced = "4.3.0";
		what = arena_printf(&j->arena, "command died by signal %u", p->status);
	} else if (p->kind == PROGRAM_TIMEOUT) {
		what = "command ran longer than command_time_limit: raise it, or mend the program";
	} else if (p->kind == PROGRAM_REFUSED) {
		status = RESULT_DEFERRED;
		enhanced = "4.3.0";
		what = "command was not started";
	} else {
		what = arena_printf(&j->arena, "command ended with status %u", p->status);
		known = exit_meaning(p->status);
		if (known) {
			status = known->status;
			enhanced = known->enhanced;
			what = known->text;
		}
		printed = exit_printed(&output, &status, &j->arena);
		if (printed)
			enhanced = printed;
	}
	outcome_set(o, status, enhanced,
	    arena_printf(&j->arena, "%s: %s%s%s", p->argv[0], what,
		output[0] ? ". Command output: " : "", output));
}

/* --- what a program gets --- */

/* The message in a memory file, read only for the program: its own copy, so that it can do no harm.
 */
static int
make_input(struct job *j, const struct item_job_rcpt *rcpt, int *fd_r)
{
	struct slice from = job_from_line(j);
	struct content_sizes sizes;
	int fd = memfd_create("message", MFD_CLOEXEC), err;

	if (fd < 0)
		return err_errno();
	err = io_write_all(fd, from);
	if (!err)
		err = content_write(&j->content, job_prelude(j, rcpt), CONTENT_LF, fd, &sizes);
	if (!err && lseek(fd, 0, SEEK_SET) < 0)
		err = err_errno();
	if (err)
		close(fd);
	else
		*fd_r = fd;
	return err;
}

/* Letters that a script may use in a shell without being careful; all else becomes an underscore.
 */
static const char *
harmless(struct job *j, struct slice s)
{
	unsigned char *out = arena_alloc(&j->arena, s.n + 1);

	for (size_t i = 0; i < s.n; i++)
		out[i] = ascii_is_alnum(s.p[i]) || s.p[i] >= 0x80 || strchr("!@%-_=+:,./~", s.p[i])
			     ? s.p[i]
			     : '_';
	return (const char *)out;
}

struct variable {
	const char *name, *value;
};

enum { VARIABLES = 14 };

static void
variables(struct job *j, const struct item_job_rcpt *rcpt, struct variable v[VARIABLES])
{
	const struct target *t = j->child->target;
	ptrdiff_t at = slice_rfind(rcpt->address, '@');
	struct slice local = at < 0 ? rcpt->address : slice_sub(rcpt->address, 0, (size_t)at);
	struct slice domain =
	    at < 0 ? SLICE_NULL : slice_sub(rcpt->address, (size_t)at + 1, rcpt->address.n);
	const struct variable all[VARIABLES] = {
		{ "PATH", "/usr/local/bin:/usr/bin:/bin" },
		{ "HOME", t->home },
		{ "USER", t->user },
		{ "LOGNAME", t->user },
		{ "SHELL", "/bin/sh" },
		{ "LOCAL", harmless(j, local) },
		{ "DOMAIN", harmless(j, domain) },
		{ "EXTENSION", harmless(j, rcpt->extension) },
		{ "RECIPIENT", harmless(j, rcpt->address) },
		{ "ORIGINAL_RECIPIENT",
		    harmless(j, rcpt->original.n ? rcpt->original : rcpt->address) },
		{ "SENDER", harmless(j, j->m->sender) },
		{ "QUEUE_ID", harmless(j, j->m->queue_id) },
		{ "ENVID", harmless(j, j->m->envid) },
		{ "LANG", "C" },
	};

	memcpy(v, all, sizeof(all));
}

/* $NAME and ${NAME} in a word of the configuration, after it was cut into words: a value stays one
 * word. */
static char *
fill_in(struct job *j, const char *word, const struct variable *v)
{
	struct buf out = { 0 };
	struct slice s = slice_str(word), copy;

	for (size_t i = 0; i < s.n; i++) {
		bool braces = i + 1 < s.n && s.p[i + 1] == '{';
		size_t from = i + 1 + braces, to = from;
		const char *value = NULL;

		while (to < s.n && (ascii_is_alnum(s.p[to]) || s.p[to] == '_'))
			to++;
		for (size_t k = 0; s.p[i] == '$' && k < VARIABLES; k++)
			if (slice_caseeq_str(slice_sub(s, from, to), v[k].name))
				value = v[k].value;
		if (!value || (braces && (to == s.n || s.p[to] != '}'))) {
			buf_add_byte(&out, s.p[i]);
			continue;
		}
		buf_add_str(&out, value);
		i = braces ? to : to - 1;
	}
	copy = arena_dup(&j->arena, buf_slice(&out));
	buf_free(&out);
	return (char *)(uintptr_t)copy.p;
}

static int
prepare(struct job *j, const struct item_job_rcpt *rcpt, struct slice line, bool admin,
    struct child_program *p)
{
	struct variable v[VARIABLES];
	size_t argc;
	int err = alias_words(&j->arena, line, WORDS_LIMIT, &p->argv, &argc);

	if (err)
		return err;
	variables(j, rcpt, v);
	for (size_t i = 0; admin && i < argc; i++)
		p->argv[i] = fill_in(j, p->argv[i], v);
	p->environment = arena_alloc(&j->arena, (VARIABLES + 1) * sizeof(char *));
	for (size_t i = 0; i < VARIABLES; i++)
		p->environment[i] = arena_printf(&j->arena, "%s=%s", v[i].name, v[i].value);
	p->directory = j->child->target->home;
	return p->argv[0][0] == '/' ? 0 : ERR_NOT_FOUND;
}

void
deliver_command(struct job *j, const struct item_job_rcpt *rcpt, struct slice line, bool admin,
    struct outcome *o)
{
	struct child_program p = { .input = -1 };
	int err = prepare(j, rcpt, line, admin, &p);

	if (err) {
		outcome_set(o, RESULT_DEFERRED, "4.3.5",
		    arena_printf(&j->arena, "command %.*s: %s", SLICE_ARG(line),
			err == ERR_NOT_FOUND ? "write the absolute path of the program"
					     : "it cannot be cut into words"));
		return;
	}
	err = make_input(j, rcpt, &p.input);
	if (!err) {
		err = child_run_program(j->child, &p);
		close(p.input);
	}
	if (err)
		outcome_set(o, RESULT_DEFERRED, "4.3.0",
		    arena_printf(&j->arena, "%s was not run: %s", p.argv[0], err_str(err)));
	else
		judge(j, &p, o);
}

/* --- files --- */

void
deliver_file(struct job *j, const struct item_job_rcpt *rcpt, struct slice path, struct outcome *o)
{
	struct child *c = j->child;
	const struct target *t = c->target;
	const struct target_file *f = target_file(t, path);
	struct mbox_options options = c->mbox;
	struct slice rest;
	const char *what = arena_printf(&j->arena, "file %.*s", SLICE_ARG(path)), *name;
	int err;

	options.owned = false; /* the user may have files of others that he can write */
	if (f) {
		pthread_mutex_lock(&c->files);
		err = f->fd < 0 ? f->error
				: mbox_append(NULL, f->fd, &j->content, job_from_line(j),
				      job_prelude(j, rcpt), &options);
		pthread_mutex_unlock(&c->files);
	} else if (slice_eq(path, t->mailbox.path)) {
		deliver_mailbox(j, rcpt, o);
		return;
	} else if (t->ngroups > t->own_groups) {
		/* what this process may do there it may for the user's own mailbox */
		outcome_set(o, RESULT_FAILED, "5.2.0",
		    arena_printf(&j->arena, "%s is not the mailbox of %s", what, t->user));
		return;
	} else if (!mailbox_below(path, slice_str(t->root ? t->root : "/nonexistent"), &rest) &&
		   rest.n && slice_search(rest, SLICE_LIT("..")) < 0) {
		name = arena_printf(&j->arena, "%.*s", SLICE_ARG(rest));
		if (slice_has_suffix(rest, "/")) {
			outcome_set(o, RESULT_DEFERRED, "4.3.5",
			    arena_printf(&j->arena, "%s: a Maildir is set by home_mailbox", what));
			return;
		}
		err = mbox_append(
		    name, -1, &j->content, job_from_line(j), job_prelude(j, rcpt), &options);
	} else {
		outcome_set(o, RESULT_FAILED, "5.2.0",
		    arena_printf(&j->arena, "%s does not lie below %s", what,
			t->root ? t->root : "the home"));
		return;
	}
	if (!err)
		outcome_set(o, RESULT_DONE, "2.0.0",
		    arena_printf(&j->arena, "delivered to file: %.*s", SLICE_ARG(path)));
	else
		outcome_error(j, o, err, what);
}
