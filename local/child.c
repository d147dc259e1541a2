/*
 * The life of a delivery child: runs as the recipient, root is the home or mail directory. Jobs
 * come straight from qmgr. The threads block in recvmsg on that one socket, so that a job costs one
 * receive and one send and fsyncs overlap; the loop of the main thread only hears the zygote and
 * the clock.
 *
 * A thread is added when a job is taken and no other thread is left to take the next one. The end:
 * the socket is shut for reading, what came before is still worked off, and the last thread exits.
 * qmgr sees EPIPE for what it sends later, and starts a child anew.
 */
#include "local/child.h"

#include "local/job.h"
#include "local/program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STACK_SIZE = 256 * 1024 };

/* A program that a thread waits for. */
struct waiting {
	TAILQ_ENTRY(waiting) next;
	struct child_program *program;
	uint32_t id; /* 0: not sent yet */
	bool done;
	int err;
};

/* What main thread and workers share. One a process. */
struct workers {
	struct child child;
	int sock; /* to qmgr, blocking */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned threads, idle;
	int64_t last; /* monotonic µs: end of the last job */
	bool ending;
	struct ev_timer clock;
	/* programs */
	TAILQ_HEAD(, waiting) programs;
	int wake; /* an eventfd: programs wait to be sent */
	struct event *on_wake;
	struct ipc_chan *zygote;
};

static struct workers *workers_of(struct daemon *d);

static void *worker(void *arg);

/* Called with the lock held. */
static void
add_thread(struct workers *w)
{
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (!pthread_create(&thread, &attr, worker, w)) {
		w->threads++;
		w->idle++;
	} else if (!w->threads) {
		log_event(LOG_delivery_threads,
		    "user=%s remedy=\"raise the limit of processes of this user or of the system\"",
		    log_cstr(w->child.target->user));
		log_flush();
		_exit(1);
	}
	pthread_attr_destroy(&attr);
}

static void
take(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	if (!--w->idle && w->threads < (unsigned)w->child.conf->local_delivery_threads &&
	    !w->ending)
		add_thread(w);
	pthread_mutex_unlock(&w->lock);
}

static void
give_back(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->idle++;
	w->last = ev_now_us();
	pthread_mutex_unlock(&w->lock);
}

/* The last thread ends the process; results are out by then. */
static void
leave(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->idle--;
	if (!--w->threads) {
		log_flush();
		_exit(0);
	}
	pthread_mutex_unlock(&w->lock);
}

static void *
worker(void *arg)
{
	struct workers *w = arg;
	struct buf in;
	struct msg m;

	buf_init(&in, MSG_MAX);
	for (;;) {
		int err = ipc_recv_fd(w->sock, &in, &m);

		if (err == ERR_SYNTAX) {
			log_event(LOG_ipc_violation, "peer=qmgr remedy=\"report this as a bug\"");
			shutdown(w->sock, SHUT_RDWR);
		}
		if (err)
			break;
		take(w);
		if (m.type == MSG_DELIVER_JOB && job_run(&w->child, &m, w->sock))
			shutdown(w->sock, SHUT_RDWR);
		if (m.fd >= 0)
			close(m.fd);
		if (log_pending())
			log_flush();
		give_back(w);
	}
	buf_free(&in);
	leave(w);
	return NULL;
}

/* --- the main thread --- */

static void
end(struct workers *w)
{
	pthread_mutex_lock(&w->lock);
	w->ending = true;
	pthread_mutex_unlock(&w->lock);
	if (w->sock < 0)
		daemon_exit(w->child.d);
	else
		shutdown(w->sock, SHUT_RD);
}

static void
on_clock(void *arg)
{
	struct workers *w = arg;
	int64_t limit = w->child.conf->local_child_idle_time * 1000, idle;
	bool resting;

	pthread_mutex_lock(&w->lock);
	resting = w->idle == w->threads;
	idle = ev_now_us() - w->last;
	pthread_mutex_unlock(&w->lock);
	if (resting && idle >= limit)
		end(w);
	else
		ev_timer_set(w->child.d->base, &w->clock,
		    resting ? (limit - idle) / 1000 + 1 : limit / 1000 + 1, on_clock, w);
}

static void
send_program(struct workers *w, struct waiting *p)
{
	struct msg m = MSG_INIT(MSG_PROGRAM_START, ipc_next_id(w->zygote));
	struct buf argv = { 0 }, env = { 0 };
	uint32_t n = 0, k = 0;

	for (; p->program->argv[n]; n++)
		item_argument_add(&argv, &(struct item_argument){ slice_str(p->program->argv[n]) });
	for (; p->program->environment[k]; k++)
		item_argument_add(
		    &env, &(struct item_argument){ slice_str(p->program->environment[k]) });
	p->id = m.id;
	m.program_start.argv = msg_list(&argv, n);
	m.program_start.environment = msg_list(&env, k);
	m.program_start.directory = slice_str(p->program->directory);
	m.program_start.time_limit = (uint32_t)w->child.conf->command_time_limit;
	m.fd = p->program->input;
	p->err = ipc_send(w->zygote, &m);
	if (p->err)
		p->done = true;
	buf_free(&argv);
	buf_free(&env);
}

static void
on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct workers *w = arg;
	struct waiting *p;
	uint64_t n;

	(void)what;
	ev_turn();
	if (read(fd, &n, sizeof(n)) < 0)
		return;
	pthread_mutex_lock(&w->lock);
	TAILQ_FOREACH(p, &w->programs, next) {
		if (p->id || p->done)
			continue;
		if (w->zygote) {
			send_program(w, p);
		} else {
			p->err = ERR_CLOSED;
			p->done = true;
		}
	}
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

/* Keeps what can be printed, as one line. */
static void
keep_output(struct child_program *p, struct slice output)
{
	size_t n = 0;

	output = slice_trim(output, true);
	for (size_t i = 0; i < output.n && n + 1 < sizeof(p->output); i++) {
		unsigned char c = output.p[i];
		p->output[n++] = c == '\n' || c == '\t' ? ' ' : c < ' ' || c == 127 ? '?' : (char)c;
	}
	p->output[n] = 0;
}

static void
child_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct workers *w = workers_of(d);
	struct waiting *p;

	(void)ch;
	if (m->type != MSG_PROGRAM_EXIT)
		return;
	pthread_mutex_lock(&w->lock);
	TAILQ_FOREACH(p, &w->programs, next)
		if (p->id == m->id && !p->done) {
			p->program->kind = m->program_exit.kind;
			p->program->status = m->program_exit.status;
			keep_output(p->program, m->program_exit.output);
			p->done = true;
		}
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
}

int
child_run_program(struct child *c, struct child_program *program)
{
	struct workers *w = (struct workers *)(void *)c; /* child is its first member */
	struct waiting p = { .program = program };
	uint64_t one = 1;

	pthread_mutex_lock(&w->lock);
	TAILQ_INSERT_TAIL(&w->programs, &p, next);
	if (write(w->wake, &one, sizeof(one)) < 0) {
		p.done = true;
		p.err = err_errno();
	}
	while (!p.done)
		pthread_cond_wait(&w->changed, &w->lock);
	TAILQ_REMOVE(&w->programs, &p, next);
	pthread_mutex_unlock(&w->lock);
	return p.err;
}

/* --- start and end --- */

static void
set_up(struct workers *w, struct daemon *d, const struct target *t)
{
	const struct conf *conf = d->conf;

	w->child = (struct child){ .d = d, .conf = conf, .target = t };
	w->child.mbox = (struct mbox_options){
		.fcntl_lock = conf_list_has(&conf->mailbox_delivery_lock, SLICE_LIT("fcntl")),
		.dotlock = conf_list_has(&conf->mailbox_delivery_lock, SLICE_LIT("dotlock")),
		.lock_ms = conf->mailbox_lock_timeout,
		.stale_ms = conf->stale_lock_time,
		.size_limit = conf->mailbox_size_limit,
		.owned = true,
	};
	maildir_init(
	    &w->child.maildir, t->path, slice_str(conf->myhostname), conf->mailbox_size_limit);
	pthread_mutex_init(&w->child.files, NULL);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->changed, NULL);
	TAILQ_INIT(&w->programs);
	w->sock = -1;
	w->last = ev_now_us();
	w->zygote = d->master;
	w->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (w->wake < 0)
		die("eventfd: %s", err_str(err_errno()));
	w->on_wake = event_new(d->base, w->wake, EV_READ | EV_PERSIST, on_wake, w);
	event_add(w->on_wake, NULL);
}

static int
child_start(struct daemon *d)
{
	const struct target *t = d->ctx;
	struct workers *w = xcalloc(1, sizeof(*w));

	set_up(w, d, t);
	d->ctx = w;
	ev_timer_set(d->base, &w->clock, d->conf->local_child_idle_time + 1, on_clock, w);
	return 0;
}

static struct workers *
workers_of(struct daemon *d)
{
	return d->ctx;
}

/* The channel to qmgr: the loop lets go of it, the threads take it. */
static void
child_link_up(struct daemon *d, struct ipc_chan *ch)
{
	struct workers *w = workers_of(d);
	int flags;

	if (ipc_chan_peer(ch) != ROLE_QMGR || w->sock >= 0)
		return;
	ipc_chan_hold(ch, true);
	w->sock = ipc_chan_fd(ch);
	flags = fcntl(w->sock, F_GETFL);
	if (flags < 0 || fcntl(w->sock, F_SETFL, flags & ~O_NONBLOCK))
		die("channel to qmgr: %s", err_str(err_errno()));
	pthread_mutex_lock(&w->lock);
	add_thread(w);
	pthread_mutex_unlock(&w->lock);
}

static void
child_stop(struct daemon *d)
{
	end(workers_of(d));
}

/* Without its zygote no program can be started; what is under way ends, and that is all. */
static void
child_orphaned(struct daemon *d)
{
	struct workers *w = workers_of(d);
	struct waiting *p;

	pthread_mutex_lock(&w->lock);
	w->zygote = NULL;
	TAILQ_FOREACH(p, &w->programs, next) {
		p->err = ERR_CLOSED;
		p->done = true;
	}
	pthread_cond_broadcast(&w->changed);
	pthread_mutex_unlock(&w->lock);
	end(w);
}

const struct daemon_desc child_desc = {
	.role = ROLE_DELIVERY,
	.start = child_start,
	.message = child_message,
	.link_up = child_link_up,
	.stop = child_stop,
	.orphaned = child_orphaned,
};
