/*
 * libevent glue. Runs in every process with a loop. The base has no locks: one thread owns it;
 * pools hand their completions over by an eventfd.
 */
#include "ev/ev.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A descriptor that the kernel had no room for is never heard of again: its client would wait for
 * ever, or a link of this daemon would be dead and look alive. What cannot be watched at all
 * (EPERM: a file) is what a peer passed for a connection, and ends nobody but that. */
static void
on_log(int severity, const char *text)
{
	bool no_room = errno == ENOMEM || errno == ENOSPC;

	if (severity >= EVENT_LOG_WARN && no_room && !strncmp(text, "Epoll ", 6))
		die("a descriptor cannot be watched: %s; raise the limits of memory and of "
		    "fs.epoll.max_user_watches",
		    text);
	if (severity >= EVENT_LOG_ERR)
		fprintf(stderr, "%s\n", text);
}

struct event_base *
ev_base_new(void)
{
	struct event_config *config;
	struct event_base *base;

	/* An event that was not added never comes: rather the end than a daemon that waits. */
	event_set_mem_functions(xmalloc, xrealloc, free);
	event_set_log_callback(on_log);
	config = event_config_new();
	if (!config)
		die("out of memory for the event loop");
	event_config_set_flag(
	    config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
	event_config_require_features(config, EV_FEATURE_O1);
	base = event_base_new_with_config(config);
	event_config_free(config);
	if (!base)
		die("the kernel gives no epoll instance: raise the limit of open files");
	event_base_priority_init(base, 2);
	return base;
}

static int64_t
clock_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t
ev_now_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

int64_t
ev_wall_us(void)
{
	return clock_us(CLOCK_REALTIME);
}

/* One loop per process; a thread beside it has its own, which nobody reads. */
static __thread int64_t turn_began;

void
ev_turn(void)
{
	if (!turn_began)
		turn_began = ev_now_us();
}

int64_t
ev_turn_end(void)
{
	int64_t began = turn_began;

	turn_began = 0;
	return began;
}

static void
on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct ev_timer *t = arg;

	(void)fd;
	(void)what;
	ev_turn();
	t->fire(t->ctx);
}

void
ev_timer_set(
    struct event_base *base, struct ev_timer *t, int64_t ms, void (*fire)(void *), void *ctx)
{
	struct timeval tv = ev_ms(ms < 0 ? 0 : ms);

	t->fire = fire;
	t->ctx = ctx;
	if (!t->event)
		t->event = evtimer_new(base, on_timer, t);
	if (!t->event || evtimer_add(t->event, &tv))
		die("out of memory for a timer");
}

void
ev_timer_clear(struct ev_timer *t)
{
	if (t->event)
		evtimer_del(t->event);
}

void
ev_timer_free(struct ev_timer *t)
{
	if (t->event)
		event_free(t->event);
	t->event = NULL;
}

static void
close_now(evutil_socket_t none, short what, void *arg)
{
	(void)none;
	(void)what;
	ev_turn();
	close((int)(intptr_t)arg);
}

void
ev_close_shared(struct event *e)
{
	static const struct timeval soon = { 0, 1 };
	struct event_base *base = event_get_base(e);
	int fd = event_get_fd(e);

	event_free(e);
	if (event_base_once(base, -1, EV_TIMEOUT, close_now, (void *)(intptr_t)fd, &soon))
		die("out of memory for a timer");
}

int
ev_nonblock(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return err_errno();
	return 0;
}
