/*
 * What a master leaves to its successor (upgrade.c): a memfd with a line for the log's sockets, for
 * each listening socket and for the ticket keys of each service. Who reads it passes over lines
 * that it does not know and does without those that it misses, so that either side may be the newer
 * one.
 */
#include "master/master.h"

#include "base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void
handover_close(int fd)
{
	static const unsigned char zeros[4096];
	struct stat st;

	if (!fstat(fd, &st))
		for (off_t at = 0; at < st.st_size; at += (off_t)sizeof(zeros))
			if (pwrite(fd, zeros, sizeof(zeros), at) < 0)
				break;
	close(fd);
}

static int
write_keys(int fd, const struct service *s)
{
	struct buf line = { 0 };
	int err;

	/* In one piece: growth would leave copies behind. */
	(void)buf_reserve(
	    &line, 2 * sizeof(s->ticket_keys) + strlen(s->program) + strlen(s->name) + 16);
	buf_addf(&line, "tickets %s ", s->program);
	for (size_t i = 0; i < s->nkeys * TICKET_KEY; i++)
		buf_addf(&line, "%02x", s->ticket_keys[i]);
	buf_addf(&line, " %s\n", s->name);
	err = io_write_all(fd, buf_slice(&line));
	buf_wipe(&line);
	return err;
}

int
handover_write(const struct master *m)
{
	struct buf state = { 0 };
	struct listener *l;
	struct service *s;
	int fd = memfd_create("upgrade", 0), err;

	if (fd < 0)
		return err_errno();
	buf_addf(&state, "log %d %d\n", m->log_pair[0], m->log_pair[1]);
	LIST_FOREACH(l, &m->listeners, next)
		if (!l->until)
			buf_addf(&state, "listener %d %d %s\n", l->fd, l->local, l->name);
	err = io_write_all(fd, buf_slice(&state));
	buf_free(&state);
	TAILQ_FOREACH(s, &m->services, next)
		if (!err && s->nkeys && !s->obsolete)
			err = write_keys(fd, s);
	if (!err)
		return fd;
	handover_close(fd); /* half of it would lose listeners */
	return err;
}

static void
take_line(struct master *m, const char *line)
{
	int a, b, at = 0;

	if (sscanf(line, "log %d %d", &a, &b) == 2) {
		m->log_pair[0] = a;
		m->log_pair[1] = b;
	} else if (sscanf(line, "listener %d %d %n", &a, &b, &at) == 2 && at) {
		struct listener *l = xcalloc(1, sizeof(*l));
		l->fd = a;
		l->local = b;
		snprintf(l->name, sizeof(l->name), "%s", line + at);
		LIST_INSERT_HEAD(&m->listeners, l, next);
	} else {
		return;
	}
	(void)fcntl(a, F_SETFD, FD_CLOEXEC);
	if (!at)
		(void)fcntl(b, F_SETFD, FD_CLOEXEC);
}

static int
hex_digit(unsigned char c)
{
	return ascii_is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* All of them or, of a line that is not as it should be, none. Keys beyond what is kept are the
 * oldest. */
static size_t
hex_keys(struct slice hex, unsigned char out[TICKET_KEYS * TICKET_KEY])
{
	size_t n = hex.n / 2 < TICKET_KEYS * TICKET_KEY ? hex.n / 2 : TICKET_KEYS * TICKET_KEY;

	if (hex.n % (2 * TICKET_KEY))
		return 0;
	for (size_t i = 0; i < n; i++) {
		int high = hex_digit(hex.p[2 * i]), low = hex_digit(hex.p[2 * i + 1]);
		if (high < 0 || low < 0)
			return 0;
		out[i] = (unsigned char)(high << 4 | low);
	}
	return n / TICKET_KEY;
}

static void
take_keys(struct master *m, struct slice line)
{
	struct slice what = slice_split(&line, ' '), program = slice_split(&line, ' ');
	struct slice hex = slice_split(&line, ' ');
	struct service *s;

	if (!slice_eq_str(what, "tickets"))
		return;
	TAILQ_FOREACH(s, &m->services, next)
		if (slice_eq_str(program, s->program) && slice_eq_str(line, s->name))
			s->nkeys = hex_keys(hex, s->ticket_keys);
}

void
handover_take_sockets(struct master *m, struct slice state)
{
	while (state.n) {
		struct slice line = slice_split(&state, '\n');
		if (!slice_has_prefix(line, "tickets ")) {
			char *text = slice_dup(line);
			take_line(m, text);
			free(text);
		}
	}
}

void
handover_take_keys(struct master *m, struct slice state)
{
	while (state.n)
		take_keys(m, slice_split(&state, '\n'));
}
