/*
 * The process of one user: imapd-child, as that user, with the mail directory as its root. It
 * serves all IMAP connections of the user over one store, so that a change by one is seen by the
 * others at once. Its clients have logged in; what they send is hostile all the same, and so are
 * the messages. Invariant: it ends when the broker lets it go, or when the broker is gone and the
 * last connection ends.
 */
#include "imapd/imapd.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FLUSH_MS = 2000, POLL_MS = 10000 };

int
imapd_make_root(struct daemon *child, void *arg)
{
	struct imapd_start *s = arg;
	int err;

	(void)child;
	umask(077);
	err = store_make_root(s->root);
	if (err < 0)
		log_event(LOG_imap_mailbox,
		    "user=%s directory=%s reason=\"%s\" remedy=\"make this directory, owned by uid "
		    "%u\"",
		    log_cstr(s->user), log_cstr(s->root), err_str(err), (unsigned)geteuid());
	return err;
}

/* --- the store --- */

static void poll_if_unwatched(struct user *u);

/* Folders without a watch that idling clients look at are looked at from time to time. */
static void
poll(void *arg)
{
	struct user *u = arg;

	u->polling = false;
	connections_changed(u, NULL);
	poll_if_unwatched(u);
}

static void
poll_if_unwatched(struct user *u)
{
	if (u->polling || !store_unwatched(u->store))
		return;
	u->polling = true;
	ev_timer_set(u->d->base, &u->poll, POLL_MS, poll, u);
	if (u->told_unwatched)
		return;
	u->told_unwatched = true;
	log_event(LOG_imap_watch, "user=%s reason=\"%s\" remedy=\"%s\"", log_cstr(u->start->user),
	    store_watch_fd(u->store) < 0 ? "no inotify descriptor" : "no watch for a folder",
	    store_watch_fd(u->store) < 0 ? "raise fs.inotify.max_user_instances"
					 : "raise fs.inotify.max_user_watches");
}

static void
on_watch(evutil_socket_t fd, short what, void *arg)
{
	struct user *u = arg;

	(void)fd, (void)what;
	ev_turn();
	if (store_changed(u->store))
		connections_changed(u, NULL);
	poll_if_unwatched(u); /* a directory that is gone takes its watch along */
}

static void
flush(void *arg)
{
	struct user *u = arg;

	store_flush(u->store);
}

void
user_active(struct user *u)
{
	ev_timer_set(u->d->base, &u->flush, FLUSH_MS, flush, u);
	poll_if_unwatched(u);
}

static int
open_store(struct user *u)
{
	const struct conf *conf = u->d->conf;
	struct store_options options = { .quota_bytes = (uint64_t)conf->mailbox_size_limit,
		.message_limit = (uint64_t)conf->imap_append_limit };
	const char *path = u->d->unprivileged ? u->start->root : "/";
	int err = store_open(path, &options, &u->store);

	if (err < 0) {
		log_event(LOG_imap_store,
		    "user=%s directory=%s reason=\"%s\" remedy=\"look at its owner, mode and free "
		    "space\"",
		    log_cstr(u->start->user), log_cstr(u->start->root), err_str(err));
		return err;
	}
	if (store_index_renewed(u->store))
		log_event(LOG_index_renewed,
		    "user=%s directory=%s reason=\"the index was damaged\"",
		    log_cstr(u->start->user), log_cstr(u->start->root));
	if (conf->imap_special_folders.n) {
		err = store_create_defaults(
		    u->store, conf->imap_special_folders.v, conf->imap_special_folders.n);
		if (err < 0)
			log_event(LOG_imap_special_folders, "user=%s reason=\"%s\"",
			    log_cstr(u->start->user), err_str(err));
	}
	return 0;
}

/* --- the daemon --- */

static int
user_start(struct daemon *d)
{
	struct user *u = xcalloc(1, sizeof(*u));
	int err;

	u->d = d;
	u->start = d->ctx;
	d->ctx = u;
	LIST_INIT(&u->all);
	umask(077);
	err = open_store(u);
	if (err < 0)
		return err;
	if (store_watch_fd(u->store) < 0)
		return 0;
	u->watch = event_new(d->base, store_watch_fd(u->store), EV_READ | EV_PERSIST, on_watch, u);
	if (!u->watch || event_add(u->watch, NULL) < 0)
		die("out of memory for an event");
	return 0;
}

static void
leave(struct user *u)
{
	store_flush(u->store);
	daemon_exit(u->d);
}

static void
tell_count(struct user *u)
{
	struct msg m = MSG_INIT(MSG_SESSION_COUNT, 0);

	m.session_count.connections = u->count;
	(void)daemon_send(u->d, ROLE_BROKER, &m);
}

void
user_left(struct user *u)
{
	u->count--;
	if (!u->count && (u->broker_gone || u->d->stopping))
		leave(u);
	else
		tell_count(u);
}

static void
user_message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct user *u = d->ctx;

	(void)ch;
	if (m->type != MSG_SESSION_ATTACH)
		return;
	u->count++;
	connection_new(u, m->fd, &m->session_attach);
	m->fd = -1;
	tell_count(u);
}

static void
user_link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct user *u = d->ctx;

	if (ipc_chan_peer(ch) != ROLE_BROKER)
		return;
	u->broker_gone = true;
	if (!u->count)
		leave(u);
}

static void
user_stop(struct daemon *d)
{
	struct user *u = d->ctx;

	if (!u->count)
		leave(u);
	else
		connections_bye(u, "[UNAVAILABLE] The server is being stopped; connect again");
}

/* The zygote is gone: what is connected goes on, the broker starts nothing new here. */
static void
user_orphaned(struct daemon *d)
{
	struct user *u = d->ctx;

	u->broker_gone = true;
	if (!u->count)
		leave(u);
}

static void
user_status(struct daemon *d, struct buf *out)
{
	const struct user *u = d->ctx;

	buf_addf(out, "user=%s connections=%u", log_cstr(u->start->user), u->count);
}

const struct daemon_desc imapd_user_desc = {
	.role = ROLE_IMAPD_CHILD,
	.start = user_start,
	.message = user_message,
	.link_down = user_link_down,
	.stop = user_stop,
	.orphaned = user_orphaned,
	.status = user_status,
};
