/*
 * The event loop: libevent, configured once. Daemons use libevent's own calls (event_new,
 * event_add, evtimer_new) on the base that the skeleton gives them; here is what it lacks.
 */
#ifndef EV_EV_H
#define EV_EV_H

#include "base/err.h"

#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/time.h>

/* An epoll base without locks, for one thread. Dies where the kernel refuses one. */
struct event_base *ev_base_new(void);

/* Milliseconds as libevent wants them. */
static inline struct timeval
ev_ms(int64_t ms)
{
	return (struct timeval){ ms / 1000, ms % 1000 * 1000 };
}

/* Monotonic clock, and the wall clock, in microseconds. */
int64_t ev_now_us(void);
int64_t ev_wall_us(void);

/*
 * A turn of the loop are the callbacks between two waits. Who has a callback that may come first
 * calls ev_turn() in it; the timers here do. ev_turn_end, for who runs the loop: when the first of
 * them was in the turn that is over, by ev_now_us(), or 0.
 */
void ev_turn(void);
int64_t ev_turn_end(void);

/*
 * A one-shot or repeated timer; the struct belongs to the caller and is zeroed before its first
 * use. ev_timer_set arms or re-arms, ev_timer_clear disarms; both cost no allocation after the
 * first call.
 */
struct ev_timer {
	struct event *event;
	void (*fire)(void *ctx);
	void *ctx;
};
void ev_timer_set(
    struct event_base *base, struct ev_timer *t, int64_t ms, void (*fire)(void *), void *ctx);
void ev_timer_clear(struct ev_timer *t);
/* Disarms and frees what ev_timer_set allocated. */
void ev_timer_free(struct ev_timer *t);

/* Frees the event and closes its descriptor, whose socket another process has too. The kernel would
 * go on telling of that: the loop has to have forgotten the descriptor before it goes, and does so
 * at its next wait. */
void ev_close_shared(struct event *e);

/* Sets O_NONBLOCK and FD_CLOEXEC. */
int ev_nonblock(int fd) CHECKED;

#endif
