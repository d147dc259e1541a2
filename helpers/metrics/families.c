/*
 * The text of OpenMetrics 1.0 from what master tells of the daemons: the counters of
 * lib/daemon/counters.def by service, how many of its processes are ready, and the numbers of its
 * status. Runs in metrics; the strings come from daemons that may be taken over, so labels are
 * escaped and words that are no number are left out. Takes and gives memory only.
 */
#include "helpers/metrics/metrics.h"

#include "daemon/daemon.h"

#include <stdlib.h>

static const struct {
	const char *name, *doc;
	bool peak;
} counters[] = {
#define COUNTER(name, doc) { #name, doc, false },
#define PEAK(name, doc) { #name, doc, true },
#include "daemon/counters.def"
#undef COUNTER
};

#define SERVICES_MAX 1000
#define EXTRA_MAX 512 /* words of the status of one service */

void
families_init(struct families *f)
{
	*f = (struct families){ 0 };
	STAILQ_INIT(&f->services);
}

void
families_free(struct families *f)
{
	arena_free(&f->arena);
	families_init(f);
}

void
families_service(struct families *f, const struct msg_metrics_service *m)
{
	struct service_stats *s;

	if (f->count == SERVICES_MAX)
		return;
	s = arena_alloc(&f->arena, sizeof(*s));
	*s = (struct service_stats){ .program = arena_dup(&f->arena, m->program),
		.name = arena_dup(&f->arena, m->service),
		.ready = m->ready };
	s->values = arena_alloc(&f->arena, COUNT_MAX * sizeof(*s->values));
	memset(s->values, 0, COUNT_MAX * sizeof(*s->values));
	s->extra = arena_alloc(&f->arena, EXTRA_MAX * sizeof(*s->extra));
	STAILQ_INSERT_TAIL(&f->services, s, next);
	f->count++;
}

static bool
is_number(struct slice s)
{
	uint64_t v;

	return !slice_u64(s, UINT64_MAX, &v);
}

static bool
is_name(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!ascii_is_alnum(s.p[i]) && s.p[i] != '_' && s.p[i] != '-')
			return false;
	return s.n;
}

void
families_stats(struct families *f, const struct msg_metrics_stats *m)
{
	struct service_stats *s = STAILQ_FIRST(&f->services);
	struct cursor values = cursor(m->values);
	struct slice rest = m->extra;

	for (uint16_t i = 0; s && i < m->service; i++)
		s = STAILQ_NEXT(s, next);
	if (!s)
		return;
	for (size_t i = 0; i < COUNT_MAX; i++) {
		uint64_t v = cursor_u64(&values);
		if (!counters[i].peak)
			s->values[i] += v;
		else if (v > s->values[i])
			s->values[i] = v;
	}
	while (rest.n && s->extra_n < EXTRA_MAX) {
		struct slice word = slice_split(&rest, ' '), value = word,
			     key = slice_split(&value, '=');
		if (is_name(key) && is_number(value))
			s->extra[s->extra_n++] = arena_dup(&f->arena, word);
	}
}

static void
add_escaped(struct buf *out, struct slice s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\\' || s.p[i] == '"')
			buf_add_byte(out, '\\');
		if (s.p[i] < ' ' || s.p[i] > '~')
			buf_add_byte(out, '?');
		else
			buf_add_byte(out, s.p[i]);
	}
}

static void
add_labels(struct buf *out, const struct service_stats *s)
{
	buf_add_str(out, "{program=\"");
	add_escaped(out, s->program);
	buf_add_str(out, "\",service=\"");
	add_escaped(out, s->name);
	buf_add_str(out, "\"");
}

/* The numbers of a service's processes with one key, added up, where its first stands at at. */
static uint64_t
sum_of(const struct service_stats *s, size_t at, bool *first_r)
{
	struct slice value = s->extra[at], key = slice_split(&value, '='), other, v;
	uint64_t sum = 0, n = 0;

	*first_r = true;
	for (size_t i = 0; i < s->extra_n; i++) {
		v = s->extra[i];
		other = slice_split(&v, '=');
		if (!slice_eq(key, other))
			continue;
		if (i < at)
			*first_r = false;
		if (!slice_u64(v, UINT64_MAX, &n))
			sum += n;
	}
	return sum;
}

static void
format_state(const struct families *f, struct buf *out)
{
	const struct service_stats *s;

	buf_add_str(out, "# TYPE bulkhead_state gauge\n# HELP bulkhead_state What the daemon tells "
			 "of itself in bulkhead status.\n");
	STAILQ_FOREACH(s, &f->services, next)
		for (size_t i = 0; i < s->extra_n; i++) {
			struct slice value = s->extra[i], key = slice_split(&value, '=');
			bool first;
			uint64_t sum = sum_of(s, i, &first);
			if (!first)
				continue;
			buf_add_str(out, "bulkhead_state");
			add_labels(out, s);
			buf_addf(
			    out, ",name=\"%.*s\"} %llu\n", SLICE_ARG(key), (unsigned long long)sum);
		}
}

void
families_format(const struct families *f, struct buf *out)
{
	const struct service_stats *s;

	buf_add_str(out, "# TYPE bulkhead_processes gauge\n# HELP bulkhead_processes Processes of "
			 "a service that are ready.\n");
	STAILQ_FOREACH(s, &f->services, next) {
		buf_add_str(out, "bulkhead_processes");
		add_labels(out, s);
		buf_addf(out, "} %u\n", s->ready);
	}
	for (size_t i = 0; i < COUNT_MAX; i++) {
		buf_addf(out, "# TYPE bulkhead_%s %s\n# HELP bulkhead_%s %s\n", counters[i].name,
		    counters[i].peak ? "gauge" : "counter", counters[i].name, counters[i].doc);
		STAILQ_FOREACH(s, &f->services, next) {
			if (!s->ready)
				continue;
			buf_addf(out, "bulkhead_%s%s", counters[i].name,
			    counters[i].peak ? "" : "_total");
			add_labels(out, s);
			buf_addf(out, "} %llu\n", (unsigned long long)s->values[i]);
		}
	}
	format_state(f, out);
	buf_add_str(out, "# EOF\n");
}
