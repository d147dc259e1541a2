/*
 * pickup: takes in what sendmail(1) left in maildrop/ while the suite was down. Runs as bh-pickup
 * with that folder as its root; talks to maps and qmgr only. Hostile: the files of local users. See
 * folder.c and take.c.
 */
#include "helpers/pickup/pickup.h"

#include <pwd.h>
#include <time.h>

static struct pickup pickup = { .fd = -1 };

/* authorized_submit_users: names, !names, static:anyone; looked up before the jail. */
static int
init(struct daemon *d)
{
	const struct conf_list *l = &d->conf->authorized_submit_users;

	tzset();
	for (size_t i = 0; i < l->n; i++) {
		bool no = l->v[i][0] == '!';
		const struct passwd *pw;
		if (!strcmp(l->v[i], "static:anyone")) {
			pickup.anyone = true;
			continue;
		}
		pw = getpwnam(l->v[i] + no);
		if (pw && pickup.n_submit < PICKUP_USERS) {
			pickup.submit[pickup.n_submit].uid = pw->pw_uid;
			pickup.submit[pickup.n_submit++].no = no;
		}
	}
	d->file_limit = d->conf->message_size_limit ? d->conf->message_size_limit + (2 << 20) : 0;
	return 0;
}

static int
start(struct daemon *d)
{
	struct pickup *p = &pickup;
	int err;

	p->d = d;
	d->ctx = p;
	STAILQ_INIT(&p->files);
	STAILQ_INIT(&p->taken);
	receiver_init(&p->receiver, d);
	mail_init(&p->mail, &p->receiver, &take_mail_ops, p);
	err = folder_open(p);
	ev_timer_set(d->base, &p->rescan, 1000, take_all, p);
	return err;
}

static void
message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	(void)d;
	receiver_message(&pickup.receiver, ch, m);
}

static void
link_up(struct daemon *d, struct ipc_chan *ch)
{
	(void)d;
	(void)ch;
	pickup.again = true;
	take_next(&pickup);
}

static void
link_down(struct daemon *d, struct ipc_chan *ch)
{
	(void)d;
	receiver_link_down(&pickup.receiver, ch);
}

/* Users are looked up before the jail: a successor does it, and takes what is not taken in yet. */
static void
reload(struct daemon *d, const struct conf *old)
{
	if (conf_differs(d->conf, old, "authorized_submit_users"))
		daemon_renew(d);
}

static void
stop(struct daemon *d)
{
	daemon_exit(d); /* what is not committed stays where it is */
}

static const struct daemon_desc desc = {
	.role = ROLE_PICKUP,
	.init = init,
	.start = start,
	.message = message,
	.link_up = link_up,
	.link_down = link_down,
	.reload = reload,
	.stop = stop,
};

int
main(int argc, char **argv)
{
	return daemon_run(argc, argv, &desc);
}
