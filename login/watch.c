/*
 * A descriptor on the loop of login-child (bh-login). The event for writing is made when it is
 * first needed: most clients never fill a socket. Takes no input.
 */
#include "login/login.h"

#include <unistd.h>

void
watch_open(struct watch *w, struct event_base *base, int fd,
    void (*ready)(evutil_socket_t, short, void *), void *ctx)
{
	*w = (struct watch){ .fd = fd };
	w->readable = event_new(base, fd, EV_READ | EV_PERSIST, ready, ctx);
	if (!w->readable)
		die("out of memory for an event");
}

void
watch_want(struct watch *w, bool read, bool write)
{
	if (!w->readable)
		return;
	if (read != w->reading) {
		w->reading = read;
		(void)(read ? event_add(w->readable, NULL) : event_del(w->readable));
	}
	if (write == w->writing)
		return;
	if (!w->writable) {
		w->writable = event_new(event_get_base(w->readable), w->fd, EV_WRITE | EV_PERSIST,
		    event_get_callback(w->readable), event_get_callback_arg(w->readable));
		if (!w->writable)
			die("out of memory for an event");
	}
	w->writing = write;
	(void)(write ? event_add(w->writable, NULL) : event_del(w->writable));
}

void
watch_close(struct watch *w)
{
	if (!w->readable)
		return;
	event_free(w->readable);
	if (w->writable)
		event_free(w->writable);
	close(w->fd);
	*w = (struct watch){ .fd = -1 };
}
