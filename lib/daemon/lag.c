/*
 * How late the event loop is: for how long an event that was ready waited for its turn. Runs in
 * every process with a loop; takes no input. Two measures, neither of which wakes a daemon that has
 * nothing to do: what a turn took, from the first callback that says ev_turn(), for that is how
 * long others waited behind it; and by how much a probe comes late, a timer that is armed after a
 * turn unless it is armed already, which also shows a process that the kernel did not run.
 */
#include "daemon/daemon.h"
#include "daemon/private.h"

#define PROBE_MS 100
#define LATE_US 20000
#define STALL_US 1000000 /* that is told in the log, too */

static void
note(int64_t us)
{
	if (us <= 0)
		return;
	count_peak(COUNT_loop_lag_max_us, (uint64_t)us);
	if (us >= LATE_US)
		count(COUNT_loop_late, 1);
	if (us >= STALL_US)
		log_event(LOG_loop_stalled, "ms=%lld", (long long)us / 1000);
}

static void
on_probe(void *arg)
{
	struct lag *l = arg;

	/* What a long turn did to the probe was counted with the turn. */
	if (l->due_us >= l->late_us)
		note(ev_now_us() - l->due_us);
	l->due_us = 0;
	l->probed = true;
}

void
lag_turn(struct daemon *d)
{
	struct lag *l = &d->private->lag;
	int64_t began = ev_turn_end(), now;

	if (began) {
		now = ev_now_us();
		note(now - began);
		if (now - began >= LATE_US)
			l->late_us = now;
	}
	if (!l->due_us && !l->probed) {
		l->due_us = ev_now_us() + PROBE_MS * 1000;
		ev_timer_set(d->base, &l->probe, PROBE_MS, on_probe, l);
	}
	l->probed = false;
}
