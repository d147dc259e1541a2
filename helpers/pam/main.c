/*
 * pam (root): asks PAM whether a system user's password is right, for auth alone, and answers yes,
 * no or cannot tell. It runs only when auth_system_users says so. Hostile: user name and password,
 * which come from the network through auth; they meet the PAM modules of the system, which is why
 * nothing else happens here.
 *
 * Each check runs in a child of its own: modules block, keep state and are not made for threads.
 * The child's exit status is its answer. Invariants: at most CHECKS_MAX children; a child that
 * hangs is killed and counts as "cannot tell"; no password outlives its check.
 */
#include "daemon/daemon.h"

#include "helpers/pam/check.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECKS_MAX 16
#define WAITING_MAX 256
#define CHECK_MS 30000

enum { ANSWER_YES, ANSWER_NO, ANSWER_UNKNOWN };

struct check {
	TAILQ_ENTRY(check) next;
	struct pam *p;
	struct ipc_chan
	    *chan; /* who asked; NULL once it is gone: nobody else may hear the answer */
	uint32_t id;
	char service[64], user[257], client[65];
	struct buf password;
	pid_t pid;
	struct ev_timer limit;
};

struct pam {
	struct daemon *d;
	TAILQ_HEAD(checks, check) running, waiting;
	size_t nrunning, nwaiting;
	struct event *on_child;
};

static void
answer(const struct check *c, uint8_t status)
{
	struct msg m = MSG_INIT(MSG_PAM_ANSWER, c->id);

	m.pam_answer.status = status;
	if (c->chan)
		(void)ipc_send(c->chan, &m);
}

static void
check_free(struct check *c)
{
	ev_timer_free(&c->limit);
	buf_wipe(&c->password);
	free(c);
}

static void
too_long(void *ctx)
{
	struct check *c = ctx;

	log_event(LOG_pam_timeout,
	    "user=%s remedy=\"a PAM module hangs: see the service file of PAM\"",
	    log_cstr(c->user));
	kill(c->pid, SIGKILL);
}

static void
start_check(struct check *c)
{
	struct pam *p = c->p;

	log_flush();
	c->pid = fork();
	if (c->pid == 0) {
		signal(SIGTERM, SIG_DFL);
		signal(SIGCHLD, SIG_DFL);
		signal(SIGPIPE, SIG_DFL);
		signal(SIGXFSZ, SIG_DFL);
		close_range(3, ~0u, 0); /* no channel of the suite in reach of a module */
		_exit(pam_ask(c->service, c->user, buf_slice(&c->password), c->client));
	}
	buf_wipe(&c->password);
	if (c->pid < 0) {
		log_event(LOG_pam_fork, "reason=\"%s\" remedy=\"raise the limit of processes\"",
		    err_str(err_errno()));
		answer(c, ANSWER_UNKNOWN);
		check_free(c);
		return;
	}
	TAILQ_INSERT_TAIL(&p->running, c, next);
	p->nrunning++;
	ev_timer_set(p->d->base, &c->limit, CHECK_MS, too_long, c);
}

static void
ended(struct pam *p, pid_t pid, int status)
{
	struct check *c;

	TAILQ_FOREACH(c, &p->running, next)
		if (c->pid == pid)
			break;
	if (!c)
		return;
	TAILQ_REMOVE(&p->running, c, next);
	p->nrunning--;
	answer(c, !WIFEXITED(status)         ? ANSWER_UNKNOWN
		  : WEXITSTATUS(status) == 0 ? ANSWER_YES
		  : WEXITSTATUS(status) == 1 ? ANSWER_NO
					     : ANSWER_UNKNOWN);
	check_free(c);
	while (p->nrunning < CHECKS_MAX && (c = TAILQ_FIRST(&p->waiting))) {
		TAILQ_REMOVE(&p->waiting, c, next);
		p->nwaiting--;
		start_check(c);
	}
}

static void
on_child(evutil_socket_t sig, short what, void *arg)
{
	int status;
	pid_t pid;

	(void)sig;
	(void)what;
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		ended(arg, pid, status);
}

static void
message(struct daemon *d, struct ipc_chan *ch, struct msg *m)
{
	struct pam *p = d->ctx;
	struct check *c;

	if (m->type != MSG_PAM_CHECK)
		return;
	c = xcalloc(1, sizeof(*c));
	c->p = p;
	c->chan = ch;
	c->id = m->id;
	buf_add(&c->password, m->pam_check.password);
	if (slice_copy(slice_str(d->conf->auth_pam_service), c->service, sizeof(c->service)) < 0 ||
	    slice_copy(m->pam_check.user, c->user, sizeof(c->user)) < 0 || c->user[0] == 0 ||
	    slice_copy(m->pam_check.client, c->client, sizeof(c->client)) < 0) {
		answer(c, ANSWER_NO);
		check_free(c);
	} else if (p->nrunning < CHECKS_MAX) {
		start_check(c);
	} else if (p->nwaiting < WAITING_MAX) {
		TAILQ_INSERT_TAIL(&p->waiting, c, next);
		p->nwaiting++;
	} else {
		answer(c, ANSWER_UNKNOWN);
		check_free(c);
	}
}

static void
link_down(struct daemon *d, struct ipc_chan *ch)
{
	struct pam *p = d->ctx;
	struct check *c, *next;

	TAILQ_FOREACH(c, &p->running, next)
		if (c->chan == ch)
			c->chan = NULL;
	for (c = TAILQ_FIRST(&p->waiting); c; c = next) {
		next = TAILQ_NEXT(c, next);
		if (c->chan != ch)
			continue;
		TAILQ_REMOVE(&p->waiting, c, next);
		p->nwaiting--;
		check_free(c);
	}
}

static int
start(struct daemon *d)
{
	struct pam *p = xcalloc(1, sizeof(*p));

	p->d = d;
	d->ctx = p;
	TAILQ_INIT(&p->running);
	TAILQ_INIT(&p->waiting);
	p->on_child = evsignal_new(d->base, SIGCHLD, on_child, p);
	return p->on_child && event_add(p->on_child, NULL) == 0 ? 0 : ERR_TEMPORARY;
}

static void
status(struct daemon *d, struct buf *out)
{
	const struct pam *p = d->ctx;

	buf_addf(out, "checks=%zu waiting=%zu", p->nrunning, p->nwaiting);
}

int
main(int argc, char **argv)
{
	static const struct daemon_desc desc = {
		.role = ROLE_PAM,
		.start = start,
		.message = message,
		.link_down = link_down,
		.status = status,
	};

	return daemon_run(argc, argv, &desc);
}
