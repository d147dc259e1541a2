/*
 * auth (bh-auth) gives way to a successor that reads anew what lies beyond the jail. Takes no
 * input.
 */
#include "helpers/auth/auth.h"

#include "daemon/log.h"
#include "helpers/auth/pool.h"

#define RENEW_MS 5000

/* Ends when no login is under way, or after RENEW_MS all the same. */
static void
leave(void *ctx)
{
	struct auth *a = ctx;

	if ((a->exchanges == 0 && pool_busy(a->pool) == 0) || auth_now_ms() >= a->leave_at) {
		log_event(LOG_auth_renew,
		    "reason=\"what changed is read at the start only, before the jail\"");
		daemon_renew(a->d);
		return;
	}
	ev_timer_set(a->d->base, &a->leave, 50, leave, a);
}

void
auth_renew(struct auth *a)
{
	if (a->leave_at)
		return;
	a->leave_at = auth_now_ms() + RENEW_MS;
	leave(a);
}
