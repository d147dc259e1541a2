/*
 * Starting programs. Runs in local's zygote (uid bh-local, CAP_SETUID and others). The request
 * comes from a delivery child, which may be taken over: whatever it asks for runs as the uid that
 * the child itself has, without capabilities, under the zygote's deny-list of syscalls, with
 * no_new_privs and limits of processes and memory. argv is an array: no shell is started here.
 * Nothing blocks.
 */
#include "local/program.h"

#include "queue/mail.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/queue.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	ARG_LIMIT = 128,
	ENV_LIMIT = 64,
	PROGRAMS_PER_CHILD = 16,
	OUTPUT_LIMIT = 4096, /* of the message, whatever command_output_limit says */
};

struct program {
	TAILQ_ENTRY(program) next;
	struct programs *all;
	struct ipc_chan *chan; /* who asked; NULL: gone */
	uint32_t id;
	pid_t pid;
	int output;
	struct event *readable;
	struct ev_timer limit;
	bool timed_out;
	struct buf text;
};

struct programs {
	struct daemon *d;
	TAILQ_HEAD(, program) list;
	size_t n;
};

struct programs *
programs_new(struct daemon *d)
{
	struct programs *p = xcalloc(1, sizeof(*p));

	p->d = d;
	TAILQ_INIT(&p->list);
	return p;
}

size_t
programs_count(const struct programs *p)
{
	return p->n;
}

static void
answer(
    struct ipc_chan *ch, uint32_t id, enum program_end kind, uint32_t status, struct slice output)
{
	struct msg m = MSG_INIT(MSG_PROGRAM_EXIT, id);

	m.program_exit.kind = (uint8_t)kind;
	m.program_exit.status = status;
	m.program_exit.output = slice_sub(output, 0, OUTPUT_LIMIT);
	(void)ipc_send(ch, &m);
}

/* --- in the forked process --- */

static void
say_and_exit(const char *what, const char *path)
{
	dprintf(2, "%s %s: %s\n", what, path, err_str(err_errno()));
	_exit(127);
}

static void
set_limit(int which, int64_t value)
{
	struct rlimit limit = { (rlim_t)value, (rlim_t)value };

	if (setrlimit(which, &limit))
		say_and_exit("cannot set a limit", "");
}

static void
become(const struct daemon *d, const struct target *owner)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };

	if (!d->unprivileged && (setgroups(owner->own_groups, owner->groups) ||
				    setresgid(owner->gid, owner->gid, owner->gid) ||
				    setresuid(owner->uid, owner->uid, owner->uid)))
		say_and_exit("cannot become", owner->user);
	if (syscall(SYS_capset, &head, none) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		say_and_exit("cannot drop privileges for", owner->user);
}

static void
child(struct daemon *d, const struct target *owner, char **argv, char **env, const char *directory,
    int in, int out)
{
	static const int signals[] = { SIGPIPE, SIGHUP, SIGTERM, SIGINT, SIGCHLD, SIGXFSZ };
	sigset_t none;

	if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(127);
	(void)close_range(3, ~0u, 0);
	(void)setsid();
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		signal(signals[i], SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	set_limit(RLIMIT_CORE, 0);
	set_limit(RLIMIT_DATA, d->conf->command_memory_limit);
	become(d, owner);
	if (!d->unprivileged) /* counts all processes of the uid: an ordinary user's own would be in
				 it */
		set_limit(RLIMIT_NPROC, d->conf->command_process_limit);
	umask(077);
	if (chdir(directory) && chdir("/"))
		say_and_exit("cannot enter", directory);
	execve(argv[0], argv, env);
	say_and_exit("cannot run", argv[0]);
}

/* --- in the zygote --- */

static void
on_output(evutil_socket_t fd, short what, void *arg)
{
	struct program *p = arg;
	char piece[4096];
	ssize_t n = read(fd, piece, sizeof(piece));

	(void)what;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		event_free(p->readable);
		p->readable = NULL;
		return;
	}
	/* What is beyond the limit is read and forgotten, so that the program does not hang on it.
	 */
	if (buf_len(&p->text) < OUTPUT_LIMIT &&
	    (int64_t)buf_len(&p->text) < p->all->d->conf->command_output_limit)
		buf_add(&p->text, slice(piece, (size_t)n));
}

static void
on_time(void *arg)
{
	struct program *p = arg;

	p->timed_out = true;
	kill(-p->pid, SIGKILL);
}

static void
program_free(struct program *p)
{
	TAILQ_REMOVE(&p->all->list, p, next);
	p->all->n--;
	if (p->readable)
		event_free(p->readable);
	ev_timer_free(&p->limit);
	close(p->output);
	buf_free(&p->text);
	free(p);
}

static char **
strings(struct arena *a, struct msg_list list, size_t max)
{
	char **v = arena_alloc(a, (max + 1) * sizeof(*v));
	struct cursor c = cursor(list.raw);
	struct item_argument arg;
	size_t n = 0;

	while (n < max && item_argument_next(&c, &arg)) {
		if (slice_find(arg.argument, 0) >= 0)
			return NULL;
		v[n++] = (char *)(uintptr_t)arena_dup(a, arg.argument).p;
	}
	return v;
}

static const char *
refusal(const struct programs *p, const struct ipc_chan *ch, const struct target *owner,
    char **argv, char **env)
{
	const struct program *other;
	size_t n = 0;

	if (!owner)
		return "the delivery process is not known";
	if (owner->flags & ROUTE_VIRTUAL)
		return "virtual users run no programs";
	if (!argv || !env || !argv[0] || argv[0][0] != '/')
		return "a program is named by its absolute path";
	TAILQ_FOREACH(other, &p->list, next)
		n += other->chan == ch;
	return n >= PROGRAMS_PER_CHILD ? "too many programs run for this user" : NULL;
}

static struct program *
program_new(
    struct programs *all, struct ipc_chan *ch, uint32_t id, pid_t pid, int output, int64_t ms)
{
	struct program *p = xcalloc(1, sizeof(*p));

	*p = (struct program){ .all = all, .chan = ch, .id = id, .pid = pid, .output = output };
	TAILQ_INSERT_TAIL(&all->list, p, next);
	all->n++;
	p->readable = event_new(all->d->base, output, EV_READ | EV_PERSIST, on_output, p);
	event_add(p->readable, NULL);
	ev_timer_set(all->d->base, &p->limit, ms, on_time, p);
	return p;
}

static void
start(struct programs *all, struct ipc_chan *ch, const struct target *owner, struct msg *m,
    char **argv, char **env, const char *directory)
{
	int64_t ms = (int64_t)m->program_start.time_limit;
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC)) {
		answer(ch, m->id, PROGRAM_REFUSED, 0, slice_str(err_str(err_errno())));
		return;
	}
	log_flush();
	pid = fork();
	if (!pid)
		child(all->d, owner, argv, env, directory, m->fd, fds[1]);
	close(fds[1]);
	if (pid < 0 || ev_nonblock(fds[0])) {
		answer(ch, m->id, PROGRAM_REFUSED, 0, slice_str(err_str(err_errno())));
		close(fds[0]);
		return;
	}
	if (ms <= 0 || ms > all->d->conf->command_time_limit)
		ms = all->d->conf->command_time_limit;
	program_new(all, ch, m->id, pid, fds[0], ms);
}

void
program_start(struct programs *all, struct ipc_chan *ch, const struct target *owner, struct msg *m)
{
	struct arena a = { 0 };
	char **argv = strings(&a, m->program_start.argv, ARG_LIMIT);
	char **env = strings(&a, m->program_start.environment, ENV_LIMIT);
	const char *directory = (const char *)arena_dup(&a, m->program_start.directory).p;
	const char *why = refusal(all, ch, owner, argv, env);

	if (why)
		answer(ch, m->id, PROGRAM_REFUSED, 0, slice_str(why));
	else
		start(all, ch, owner, m, argv, env, directory);
	arena_free(&a);
}

bool
program_ended(struct programs *all, pid_t pid, int status)
{
	struct program *p;

	TAILQ_FOREACH(p, &all->list, next)
		if (p->pid == pid)
			break;
	if (!p)
		return false;
	while (p->readable && buf_len(&p->text) < OUTPUT_LIMIT) {
		size_t before = buf_len(&p->text);
		on_output(p->output, EV_READ, p);
		if (p->readable && buf_len(&p->text) == before)
			break; /* held open by a process that it left behind */
	}
	if (p->chan && p->timed_out)
		answer(p->chan, p->id, PROGRAM_TIMEOUT, 0, buf_slice(&p->text));
	else if (p->chan && WIFSIGNALED(status))
		answer(p->chan, p->id, PROGRAM_SIGNALED, (uint32_t)WTERMSIG(status),
		    buf_slice(&p->text));
	else if (p->chan)
		answer(p->chan, p->id, PROGRAM_EXITED, (uint32_t)WEXITSTATUS(status),
		    buf_slice(&p->text));
	program_free(p);
	return true;
}

void
programs_forget(struct programs *all, const struct ipc_chan *ch)
{
	struct program *p;

	TAILQ_FOREACH(p, &all->list, next)
		if (p->chan == ch) {
			p->chan = NULL;
			kill(-p->pid, SIGKILL);
		}
}
