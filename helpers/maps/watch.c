/*
 * inotify on the directories of tables and of /etc/passwd. Runs in maps (uid bh-maps). Events only
 * say "look again": names in them are not used. Many changes in a row (an editor, a package
 * upgrade) become one call.
 */
#include "helpers/maps/watch.h"

#include "ev/ev.h"

#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { SETTLE_MS = 50 };

struct watch {
	struct event_base *base;
	int fd;
	struct event *on_event;
	struct ev_timer settle;
	void (*changed)(void *ctx);
	void *ctx;
};

static void
on_event(evutil_socket_t fd, short what, void *arg)
{
	struct watch *w = arg;
	char events[16384] __attribute__((aligned(8)));

	(void)what;
	while (read(fd, events, sizeof(events)) > 0)
		;
	ev_timer_set(w->base, &w->settle, SETTLE_MS, w->changed, w->ctx);
}

struct watch *
watch_new(struct event_base *base, void (*changed)(void *ctx), void *ctx)
{
	struct watch *w = xcalloc(1, sizeof(*w));

	w->base = base;
	w->changed = changed;
	w->ctx = ctx;
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (w->fd < 0)
		die("inotify: %s: raise fs.inotify.max_user_instances", err_str(err_errno()));
	w->on_event = event_new(base, w->fd, EV_READ | EV_PERSIST, on_event, w);
	event_add(w->on_event, NULL);
	return w;
}

int
watch_add(struct watch *w, const char *directory)
{
	uint32_t mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_MOVE_SELF |
			IN_DELETE_SELF | IN_ONLYDIR;

	return inotify_add_watch(w->fd, directory, mask) < 0 ? err_errno() : 0;
}

void
watch_free(struct watch **wp)
{
	struct watch *w = *wp;

	if (!w)
		return;
	event_free(w->on_event);
	ev_timer_free(&w->settle);
	close(w->fd);
	free(w);
	*wp = NULL;
}
