/*
 * Turns of DATA. A message between its final dot and the reply is one that a lost connection
 * doubles (RFC 1047), and many of them before one disk only make each other wait. So while a
 * process has commit_turn_limit of them, a session that comes to DATA waits for its 354 instead.
 * Runs in the children of smtpd and submission. Invariant: nobody waits longer than
 * commit_turn_time, whatever the commits of others do: a stalled mailbox stops no intake.
 */
#include "receive/session.h"

#include <limits.h>

static unsigned
limit_of(const struct session *s)
{
	int64_t limit = session_conf(s)->commit_turn_limit;

	return limit ? (unsigned)limit : UINT_MAX;
}

static void
on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct service *service = arg;
	unsigned given = service->committing;
	struct session *s;

	(void)fd;
	(void)what;
	ev_turn();
	while ((s = TAILQ_FIRST(&service->turns)) && limit_of(s) > given++) {
		session_enter(s);
		turn_leave(s);
		session_content_begin(s);
		session_leave(s);
	}
}

void
turn_init(struct service *service)
{
	TAILQ_INIT(&service->turns);
	service->turn = event_new(service->d->base, -1, 0, on_turn, service);
}

bool
turn_waits(struct session *s)
{
	struct service *service = s->service;

	if (TAILQ_EMPTY(&service->turns) && service->committing < limit_of(s))
		return false;
	TAILQ_INSERT_TAIL(&service->turns, s, turn);
	session_waits(s, WAIT_FOR_TURN);
	return true;
}

void
turn_commits(struct session *s)
{
	s->committing = true;
	s->service->committing++;
}

void
turn_leave(struct session *s)
{
	struct service *service = s->service;

	if (s->wait == WAIT_FOR_TURN) {
		TAILQ_REMOVE(&service->turns, s, turn);
		s->wait = WAIT_FOR_NOTHING;
	}
	if (s->committing) {
		s->committing = false;
		service->committing--;
		/* not from in here: another session would run in the middle of this one */
		if (!TAILQ_EMPTY(&service->turns) &&
		    service->committing <= limit_of(TAILQ_FIRST(&service->turns)) / 2)
			event_active(service->turn, EV_TIMEOUT, 0);
	}
}
