/*
 * The channels of a daemon to its peers: standing ones, which its parent makes, and those of the
 * peers' children. Runs in every process. Hostile: the peers; a zygote is trusted with no more than
 * its own children. Invariants: a link that ends is reported once and forgotten; who still lives
 * after it tells its parent, which makes another one if the peer lives too; who only asks and does
 * not read the answers costs this process a bounded memory; the children of one zygote never have
 * more than half of the descriptors.
 */
#include "daemon/private.h"

#include <stdlib.h>
#include <sys/resource.h>

#define CHILDREN_MAX 32768 /* of one zygote, with however many descriptors */

/* ---------------------------------------------------------------- who asks whom */

/* A helper is asked by those of a higher rank. */
static int
rank(enum role role)
{
	switch (role) {
	case ROLE_DELIVERY:
	case ROLE_IMAPD_CHILD:
	case ROLE_POP3D_CHILD:
		return 0;
	case ROLE_NSS:
	case ROLE_PAM:
	case ROLE_DNS:
	case ROLE_IMAPD:
	case ROLE_POP3D:
		return 1;
	case ROLE_MAPS:
		return 2;
	case ROLE_AUTH:
		return 3;
	case ROLE_BROKER:
		return 4;
	default:
		return 5;
	}
}

/* A receiver asks qmgr, too; smtp-client and local are told what to do by it. */
static bool
asks(enum role peer, enum role self)
{
	return rank(peer) > rank(self) ||
	       (self == ROLE_QMGR && msg_allowed(MSG_MAIL_COMMIT, peer, self));
}

/* ---------------------------------------------------------------- one more */

static struct link *
add_link(struct daemon *d, int fd, enum role peer, bool standing)
{
	struct link *l = xcalloc(1, sizeof(*l));

	l->chan = ipc_chan_new(d->io, fd, peer, &daemon_link_ops, d);
	l->standing = standing;
	if (asks(peer, d->role))
		ipc_chan_asked(l->chan);
	LIST_INSERT_HEAD(&d->private->links, l, next);
	if (standing)
		d->peers[peer] = l->chan;
	if (d->desc->link_up)
		d->desc->link_up(d, l->chan);
	return l;
}

struct ipc_chan *
daemon_link(struct daemon *d, int fd, enum role peer)
{
	return add_link(d, fd, peer, true)->chan;
}

struct ipc_chan *
daemon_adopt(struct daemon *d, int fd, enum role peer)
{
	return add_link(d, fd, peer, false)->chan;
}

/* ---------------------------------------------------------------- the end of one */

static void
report_lost(struct daemon *d, uint32_t pair, enum role peer)
{
	struct msg m = MSG_INIT(MSG_LINK_LOST, 0);

	if (!d->master || d->stopping)
		return;
	if (role_table[d->role].parent == ROLE_MASTER) {
		m.link_lost.pair = pair;
	} else {
		if (!d->private->acceptor || d->peers[peer])
			return; /* other children are made for one link, or have a new one */
		m.type = MSG_CHILD_LINK_LOST;
		m.child_link_lost.role = (uint8_t)peer;
	}
	(void)ipc_send(d->master, &m);
}

static struct link *
find_link(struct daemon *d, const struct ipc_chan *ch)
{
	struct link *l;

	LIST_FOREACH(l, &d->private->links, next)
		if (l->chan == ch)
			return l;
	return NULL;
}

/* A zygote's own link, or that of one of its children, is about to go. */
static void
uncount(struct daemon *d, struct link *gone)
{
	struct link *l;

	if (gone->from) {
		gone->from->children--;
		if (gone->from->children < d->private->children_max * 3 / 4)
			gone->from->limited = false;
	}
	if (!gone->children)
		return;
	LIST_FOREACH(l, &d->private->links, next)
		if (l->from == gone)
			l->from = NULL;
}

void
links_forget(struct daemon *d, struct ipc_chan *ch)
{
	enum role peer = ipc_chan_peer(ch);
	struct link *l;

	l = find_link(d, ch);
	if (!l)
		return;
	LIST_REMOVE(l, next);
	uncount(d, l);
	if (d->peers[peer] == ch)
		d->peers[peer] = NULL;
	if (d->desc->link_down)
		d->desc->link_down(d, ch);
	if (l->standing)
		report_lost(d, l->pair, peer);
	free(l);
	daemon_link_gone(d);
}

void
daemon_drop(struct daemon *d, struct ipc_chan *ch)
{
	links_forget(d, ch);
	ipc_chan_free(&ch);
}

/* ---------------------------------------------------------------- new ones, from the parent */

static int
take_fd(struct msg *m)
{
	int fd = m->fd;

	m->fd = -1;
	return fd;
}

static void
drop_replaced(struct daemon *d, uint32_t pair)
{
	struct link *l;

	LIST_FOREACH(l, &d->private->links, next)
		if (pair && l->pair == pair) {
			l->standing = false;
			daemon_drop(d, l->chan);
			return;
		}
}

/* The former one of a peer that died goes when its end is seen: a role may have several processes,
 * with a link each. */
void
links_take(struct daemon *d, struct msg *m)
{
	enum role peer = (enum role)m->link.role;

	drop_replaced(d, m->link.replaces);
	add_link(d, take_fd(m), peer, true)->pair = m->link.pair;
	zygote_repair(d, peer);
}

static enum role
child_role(enum role zygote)
{
	for (int r = 0; r < ROLE_COUNT; r++)
		if (role_table[r].parent == (int)zygote && r != ROLE_PROGRAM)
			return (enum role)r;
	return zygote;
}

size_t
links_children_max(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur / 2 > CHILDREN_MAX)
		return CHILDREN_MAX;
	return (size_t)r.rlim_cur / 2;
}

/* One zygote's children take no more than half of the descriptors. One too many finds its channel
 * closed, as when there was no link: its clients hear of a temporary failure. */
static bool
has_room(struct daemon *d, struct link *zygote)
{
	if (zygote->children < d->private->children_max)
		return true;
	if (!zygote->limited)
		log_event(LOG_children_limited, "peer=%s children=%zu",
		    role_table[ipc_chan_peer(zygote->chan)].name, zygote->children);
	zygote->limited = true;
	return false;
}

int
links_take_child(struct daemon *d, const struct ipc_chan *from, struct msg *m)
{
	struct link *zygote = find_link(d, from);

	if (!ipc_is_channel(m->fd))
		return ERR_SYNTAX;
	if (!zygote || !has_room(d, zygote))
		return 0;
	add_link(d, take_fd(m), child_role(ipc_chan_peer(from)), false)->from = zygote;
	zygote->children++;
	return 0;
}

bool
links_ask(const struct daemon *d)
{
	const struct link *l;

	if (d->stop_how != 2 || rank(d->role) < 1 || rank(d->role) > 4)
		return false;
	LIST_FOREACH(l, &d->private->links, next)
		if (rank(ipc_chan_peer(l->chan)) > rank(d->role))
			return true;
	return false;
}
