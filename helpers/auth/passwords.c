/*
 * The tables of smtp_sasl_password_maps: read before the jail, which keeps their files out of
 * reach. A change is seen by an inotify descriptor that was made before it too, and auth then gives
 * way to a successor that reads them anew. Runs in auth (bh-auth). Hostile: nobody; a name in an
 * event is compared, and nothing else is done with it.
 */
#include "helpers/auth/auth.h"

#include "daemon/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define SETTLE_MS 50 /* an editor makes several changes in a row */

static const char *
file_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* The file of a table, or what its type makes of it ("passwords.lmdb"). */
static bool
is_table(const struct conf_tables *tables, const char *name)
{
	for (size_t i = 0; i < tables->n; i++) {
		const char *own = file_name(tables->v[i].name);
		size_t n = strlen(own);

		if (n && !strncmp(name, own, n) && (!name[n] || name[n] == '.'))
			return true;
	}
	return false;
}

static void
settled(void *ctx)
{
	auth_renew(ctx);
}

static void
on_change(evutil_socket_t fd, short what, void *arg)
{
	struct auth *a = arg;
	char events[4096] __attribute__((aligned(8)));
	ssize_t n;

	(void)what;
	ev_turn();
	while ((n = read(fd, events, sizeof(events))) > 0)
		for (ssize_t at = 0; at < n;) {
			const struct inotify_event *e = (const void *)(events + at);

			at += (ssize_t)(sizeof(*e) + e->len);
			if (e->len && is_table(&a->d->conf->smtp_sasl_password_maps, e->name))
				ev_timer_set(a->d->base, &a->settle, SETTLE_MS, settled, a);
		}
}

static void
watch(struct auth *a, const char *path)
{
	char *directory = xstrdup(path), *slash = strrchr(directory, '/');
	uint32_t mask = IN_CLOSE_WRITE | IN_MOVED_TO | IN_ONLYDIR;

	if (slash == directory)
		slash++;
	if (slash) {
		*slash = '\0';
		if (a->watch < 0 || inotify_add_watch(a->watch, directory, mask) < 0)
			log_event(LOG_table_watch,
			    "directory=%s reason=\"%s\" remedy=\"changes there are seen at a "
			    "reload only\"",
			    log_cstr(directory), err_str(err_errno()));
	}
	free(directory);
}

void
passwords_open(struct auth *a)
{
	const struct conf_tables *tables = &a->d->conf->smtp_sasl_password_maps;
	struct buf spec = { 0 }, why = { 0 };

	a->watch = tables->n ? inotify_init1(IN_NONBLOCK | IN_CLOEXEC) : -1;
	for (size_t i = 0; i < tables->n; i++) {
		buf_addf(&spec, "%s%s:%s", i ? "," : "", tables->v[i].type, tables->v[i].name);
		if (tables->v[i].name[0] == '/')
			watch(a, tables->v[i].name);
	}
	if (a->watch >= 0) {
		a->on_watch = event_new(a->d->base, a->watch, EV_READ | EV_PERSIST, on_change, a);
		event_add(a->on_watch, NULL);
	}
	if (db_list_open(&a->passwords, buf_slice(&spec), DB_NO_EXPAND, &why) < 0)
		log_event(LOG_password_table, "parameter=smtp_sasl_password_maps reason=%s",
		    log_value(buf_slice(&why)));
	buf_free(&spec);
	buf_free(&why);
}
