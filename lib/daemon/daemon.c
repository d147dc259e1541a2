/*
 * The life of a daemon. Runs in every process that master or a zygote starts. Hostile: the peers
 * behind the links (checked by lib/ipc); master is believed. Invariants: no handler runs before the
 * jail is on; the log is flushed before the process ends.
 */
#include "daemon/daemon.h"

#include "daemon/jail.h"
#include "daemon/private.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLUSH_MS 20

static void
on_config(struct daemon *d, struct msg *m)
{
	char why[256];
	struct conf *old = d->conf, *conf = daemon_read_snapshot(m->fd, why, sizeof(why));

	if (!conf) {
		log_event(LOG_reload,
		    "reason=%s remedy=\"the old configuration goes on; restart the suite\"",
		    log_cstr(why));
		return;
	}
	d->conf = conf;
	d->conf_generation = m->config.generation;
	if (d->desc->reload)
		d->desc->reload(d, old);
	daemon_conf_unref(old);
}

/* ---------------------------------------------------------------- what the peers send */

static void
stop_now(void *arg)
{
	struct daemon *d = arg;

	d->private->lingers = false;
	ev_timer_clear(&d->private->linger);
	d->stopping = true;
	if (d->desc->stop)
		d->desc->stop(d);
	else
		daemon_exit(d);
}

void
daemon_link_gone(struct daemon *d)
{
	if (d->private->lingers && !links_ask(d))
		stop_now(d);
}

/* A daemon ends with master; a zygote's child goes on with what it has, and its end comes from
 * that. */
static void
master_gone(struct daemon *d)
{
	d->master = NULL;
	if (role_table[d->role].parent != ROLE_MASTER) {
		if (d->desc->orphaned)
			d->desc->orphaned(d);
		else if (!d->private->sessions)
			daemon_exit(d);
		return;
	}
	if (!d->private->lingers)
		stop_now(d);
}

static void
on_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	struct daemon *d = ctx;

	if (err != ERR_CLOSED) {
		count(COUNT_ipc_violations, 1);
		log_event(LOG_ipc_violation,
		    "peer=%s reason=\"%s\" remedy=\"its channel was closed; look for a crash or an "
		    "attack in it\"",
		    role_table[ipc_chan_peer(ch)].name, why);
	}
	if (ch == d->master) {
		master_gone(d);
		return;
	}
	zygote_forget_chan(d, ch);
	links_forget(d, ch);
}

static void
on_stop(struct daemon *d, struct msg *m)
{
	bool child = role_table[d->role].parent != ROLE_MASTER;

	d->stop_how = m->stop.how;
	if (links_ask(d)) {
		d->private->lingers = true;
		ev_timer_set(d->base, &d->private->linger, d->conf->upgrade_timeout, stop_now, d);
		return;
	}
	d->stopping = true;
	if (m->stop.how == 1)
		daemon_exit(d);
	else if (d->desc->stop && (!child || d->private->sessions || !d->private->acceptor))
		d->desc->stop(d);
	else if (!child || !d->private->sessions)
		daemon_exit(d);
}

static void
send_stats(struct daemon *d, struct ipc_chan *ch, uint32_t id)
{
	struct msg m = MSG_INIT(MSG_STATS, id);
	struct buf values = { 0 }, extra = { 0 };

	counters_put(&values);
	if (d->desc->status)
		d->desc->status(d, &extra);
	m.stats.pid = (uint32_t)getpid();
	m.stats.values = buf_slice(&values);
	m.stats.extra = slice_sub(buf_slice(&extra), 0, 16384);
	(void)ipc_send(ch, &m);
	buf_free(&values);
	buf_free(&extra);
}

static void
on_control(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct slice words[64];
	struct item_word w;
	struct cursor c = cursor(m->control_request.words.raw);
	size_t n = 0;

	while (n < 64 && item_word_next(&c, &w))
		words[n++] = w.word;
	if (d->desc->control && n)
		d->desc->control(d, ch, m->id, m->control_request.uid, words, n);
	else
		daemon_control_reply(ch, m->id, 64, SLICE_LIT("this daemon has no such verb\n"));
}

static void
on_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	struct daemon *d = ctx;

	switch (m->type) {
	case MSG_LINK:
		if (m->link.role < ROLE_COUNT)
			links_take(d, m);
		return;
	case MSG_CHILD:
		if (links_take_child(d, ch, m)) {
			on_closed(d, ch, ERR_SYNTAX, "descriptor of a child is no channel");
			ipc_chan_free(&ch);
		}
		return;
	case MSG_CHILD_LINK_LOST:
		zygote_link_lost(d, ch, m->child_link_lost.role);
		return;
	case MSG_CONFIG:
		on_config(d, m);
		return;
	case MSG_STOP:
		on_stop(d, m);
		return;
	case MSG_STATS_REQUEST:
		send_stats(d, ch, m->id);
		return;
	case MSG_CONTROL_REQUEST:
		on_control(d, ch, m);
		return;
	case MSG_CONNECTION:
		d->private->sessions++;
		FALLTHROUGH;
	default:
		if (d->desc->message)
			d->desc->message(d, ch, m);
	}
}

const struct ipc_ops daemon_link_ops = { on_message, on_closed };

int
daemon_send(struct daemon *d, enum role peer, const struct msg *m)
{
	return d->peers[peer] ? ipc_send(d->peers[peer], m) : ERR_CLOSED;
}

void
daemon_control_reply(struct ipc_chan *ch, uint32_t id, int status, struct slice text)
{
	struct msg m = MSG_INIT(MSG_CONTROL_REPLY, id);

	do {
		struct slice part = slice_sub(text, 0, 60000);
		text = slice_sub(text, part.n, text.n);
		m.control_reply.more = text.n > 0;
		m.control_reply.status = (uint8_t)status;
		m.control_reply.text = part;
		if (ipc_send(ch, &m))
			return;
	} while (text.n);
}

/* ---------------------------------------------------------------- loop */

void
daemon_exit(struct daemon *d)
{
	d->private->leave = true;
	event_base_loopbreak(d->base);
}

void
daemon_renew(struct daemon *d)
{
	d->private->status = EXIT_RENEW;
	daemon_exit(d);
}

static void
flush_now(void *arg)
{
	struct daemon *d = arg;

	d->private->flush_armed = false;
	log_flush();
}

static void
on_signal(evutil_socket_t sig, short what, void *arg)
{
	(void)sig;
	(void)what;
	stop_now(arg);
}

void
daemon_setup(struct daemon *d, int control_fd, enum role control_peer)
{
	struct daemon_private *p = d->private;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* a write past ulimit -f is EFBIG, not a death */
	LIST_INIT(&p->links);
	d->base = ev_base_new();
	d->io = ipc_io_new(d->base, d->role);
	if (control_peer == ROLE_MASTER) {
		p->on_term = evsignal_new(d->base, SIGTERM, on_signal, d);
		evsignal_add(p->on_term, NULL);
		signal(SIGINT,
		    SIG_IGN); /* of a terminal: master hears it and stops everyone in order */
	}
	d->master = ipc_chan_new(d->io, control_fd, control_peer, &daemon_link_ops, d);
}

int
daemon_loop(struct daemon *d)
{
	struct daemon_private *p = d->private;

	(void)ev_turn_end(); /* in a zygote's child: of the turn that forked it */
	while (!p->leave) {
		if (event_base_loop(d->base, EVLOOP_ONCE) < 0)
			die("event loop: %s", err_str(err_errno()));
		lag_turn(d);
		if (log_pending() && !p->flush_armed) {
			p->flush_armed = true;
			ev_timer_set(d->base, &p->flush, FLUSH_MS, flush_now, d);
		}
	}
	log_flush();
	return p->status;
}

/* ---------------------------------------------------------------- start */

static const struct option options[] = {
	{ "service", required_argument, NULL, 's' },
	{ "uid", required_argument, NULL, 'u' },
	{ "gid", required_argument, NULL, 'g' },
	{ "root", required_argument, NULL, 'd' },
	{ "unprivileged", no_argument, NULL, 'n' },
	{ NULL, 0, NULL, 0 },
};

static uint64_t
number_arg(const char *text)
{
	uint64_t v;

	if (slice_u64(slice_str(text), UINT32_MAX, &v))
		die("bad number '%s' in the arguments that master gives", text);
	return v;
}

static void
parse_args(struct daemon *d, int argc, char **argv)
{
	int c;

	while ((c = getopt_long(argc, argv, "t", options, NULL)) >= 0)
		switch (c) {
		case 's':
			d->service = optarg;
			break;
		case 'u':
			d->uid = (uid_t)number_arg(optarg);
			break;
		case 'g':
			d->gid = (gid_t)number_arg(optarg);
			break;
		case 'd':
			if (slice_copy(slice_str(optarg), d->root, sizeof(d->root)))
				die("root directory is too long");
			break;
		case 'n':
			d->unprivileged = true;
			break;
		case 't': /* upgrade: can this binary be loaded at all? */
			exit(0);
		default:
			exit(64);
		}
	if (!d->service || fcntl(FD_CONTROL, F_GETFD) < 0 || fcntl(FD_CONFIG, F_GETFD) < 0)
		die("this daemon is started by master; run `bulkhead start`");
}

static int
level_of(const struct conf *conf)
{
	switch (conf->log_level) {
	case CONF_LOG_LEVEL_DEBUG:
		return LOG_DEBUG_;
	case CONF_LOG_LEVEL_WARNING:
		return LOG_WARN_;
	case CONF_LOG_LEVEL_ERROR:
		return LOG_ERROR_;
	default:
		return LOG_INFO_;
	}
}

static void
send_ready(struct daemon *d)
{
	struct msg m = MSG_INIT(MSG_READY, 0);
	struct buf report = { 0 };

	jail_probe(d->role, &report);
	if (d->desc->probe)
		d->desc->probe(d, &report);
	m.ready.pid = (uint32_t)getpid();
	m.ready.build = slice_str(MSG_LAYOUT);
	m.ready.report = buf_slice(&report);
	if (d->master)
		(void)ipc_send(d->master, &m);
	buf_free(&report);
}

static int
start_failed(struct daemon *d, const char *step, const char *why)
{
	if (d->role == ROLE_LOG) /* nobody reads its own socket now */
		log_init(-1, d->role, LOG_INFO_);
	log_event(LOG_start_failed, "service=%s step=%s reason=%s", log_cstr(d->service), step,
	    log_cstr(why));
	log_flush();
	return 1;
}

static int
enter_jail(struct daemon *d, char *why, size_t size)
{
	struct jail_args a = { .role = d->role,
		.unprivileged = d->unprivileged,
		.uid = d->uid,
		.gid = d->gid,
		.groups = &d->gid,
		.ngroups = 1,
		.root = d->root[0] ? d->root : NULL,
		.root_fd = -1,
		.first_valid_uid = (uid_t)d->conf->first_valid_uid,
		.file_limit = d->file_limit,
		.ports = d->ports,
		.nports = d->nports,
		.read_paths = d->read_paths,
		.nread_paths = d->nread_paths };

	return jail_enter(&a, why, size);
}

int
daemon_run(int argc, char **argv, const struct daemon_desc *desc)
{
	return daemon_run_with(argc, argv, desc, NULL);
}

/* Work comes in streams: who is woken by a message does not push its sender aside at once, and so
 * takes more at a time (a sixth less CPU under load, bench/RESULTS.md). Not being allowed to is no
 * harm. */
static void
be_patient(int add)
{
	(void)sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){ 0 });
	if (add)
		(void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + add);
}

/* Buffers come and go with each message: what was used once is kept, up to that much, in place of
 * going back to the kernel, which would have to clear it anew each time. */
static void
keep_memory(void)
{
	(void)mallopt(M_MMAP_THRESHOLD, 1 << 20);
	(void)mallopt(M_TRIM_THRESHOLD, 2 << 20);
}

int
daemon_run_with(int argc, char **argv, const struct daemon_desc *desc, const void *acceptor)
{
	struct daemon_private p = {
		.log_fd = FD_LOG, .acceptor = acceptor, .children_max = links_children_max()
	};
	struct daemon d = { .role = desc->role, .desc = desc, .private = &p };
	char why[512] = "see the lines before";
	int status;

	parse_args(&d, argc, argv);
	log_init(FD_LOG, desc->role, LOG_INFO_);
	be_patient(desc->nice);
	keep_memory();
	if (acceptor)
		counters_share();
	for (int fd = FD_CONTROL; fd <= FD_LOG; fd++)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
	d.conf = daemon_read_snapshot(FD_CONFIG, why, sizeof(why));
	if (!d.conf)
		return start_failed(&d, "configuration", why);
	close(FD_CONFIG);
	log_init(FD_LOG, desc->role, (enum log_level)level_of(d.conf));
	daemon_setup(&d, FD_CONTROL, ROLE_MASTER);
	if (desc->init && desc->init(&d))
		return start_failed(&d, "init", why);
	if (enter_jail(&d, why, sizeof(why)))
		return start_failed(&d, "jail", why);
	if (desc->start && desc->start(&d))
		return start_failed(&d, "start", why);
	send_ready(&d);
	status = daemon_loop(&d);
#ifdef SANITIZED
	fflush(stderr);
#endif
	_exit(status); /* no destructors: children of a zygote share what they would flush */
}
