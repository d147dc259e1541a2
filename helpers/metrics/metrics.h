/* The parts of metrics that do no I/O: requests of HTTP, and the text of OpenMetrics. */
#ifndef METRICS_METRICS_H
#define METRICS_METRICS_H

#include "base/arena.h"
#include "base/buf.h"
#include "ipc/msgs.h"

#include <sys/queue.h>

#define REQUEST_MAX 4096 /* bytes of a request with its header */

/* --- request.c --- */

enum request_kind {
	REQUEST_MORE,      /* not complete */
	REQUEST_METRICS,   /* GET /metrics or / */
	REQUEST_HEAD,      /* HEAD of the same */
	REQUEST_NOT_FOUND, /* another path */
	REQUEST_METHOD,    /* another method */
	REQUEST_BAD,
	REQUEST_TOO_LARGE,
};
/* What the bytes so far of a connection ask for. One request a connection; a body is not read. */
enum request_kind request_read(struct slice in);
/* The whole reply to it; body for REQUEST_METRICS and, its length only, REQUEST_HEAD. */
void request_reply(enum request_kind kind, struct slice body, struct buf *out);

/* --- families.c: counters summed over the processes of a service --- */

struct service_stats {
	STAILQ_ENTRY(service_stats) next;
	struct slice program, name;
	uint32_t ready; /* processes */
	uint64_t *values;
	struct slice *extra; /* key=value words of its processes' status */
	size_t extra_n;
};

struct families {
	struct arena arena;
	STAILQ_HEAD(, service_stats) services;
	uint16_t count;
};

void families_init(struct families *f);
void families_free(struct families *f);
void families_service(struct families *f, const struct msg_metrics_service *m);
/* Counts of one process; of a service that was not told they are dropped. */
void families_stats(struct families *f, const struct msg_metrics_stats *m);
void families_format(const struct families *f, struct buf *out);

#endif
