/*
 * What bulkhead queue list and show say of messages. Runs in the loop of qmgr. Hostile input: what
 * strangers wrote into senders, destinations and reasons: everything but the content itself, which
 * the tool makes harmless, is printed escaped. Invariant: no part is larger than an answer may be,
 * whatever the number of destinations and recipients.
 */
#include "qmgr/control.h"
#include "queue/advice.h"

#include <stdio.h>
#include <time.h>

void
control_send(struct control_list *l, bool more, int status)
{
	struct msg m = MSG_INIT(MSG_CONTROL_REPLY, l->id);

	m.control_reply.more = more;
	m.control_reply.status = (uint8_t)status;
	m.control_reply.text = buf_slice(&l->out);
	(void)ipc_send(l->chan, &m);
	buf_clear(&l->out);
}

static void
send_full(struct control_list *l)
{
	if (buf_len(&l->out) > CONTROL_CHUNK)
		control_send(l, true, 0);
}

static void
add_time(struct buf *b, int64_t ms)
{
	char text[32];
	time_t t = (time_t)(ms / 1000);
	struct tm tm;

	if (gmtime_r(&t, &tm) && strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm))
		buf_add_str(b, text);
}

static int64_t
wall(const struct qmgr *q, int64_t internal)
{
	return ev_wall_us() / 1000 + internal - qmgr_now(q);
}

static const char *
job_word(const struct sched_job *j)
{
	static const char *const words[] = { "deferred", "waiting", "active", "held" };

	return words[j->state];
}

static void
add_json(struct buf *b, const char *name, struct slice s)
{
	buf_addf(b, "\"%s\":\"", name);
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '"' || s.p[i] == '\\')
			buf_addf(b, "\\%c", s.p[i]);
		else if (s.p[i] < 32 || s.p[i] == 127)
			buf_addf(b, "\\u%04x", s.p[i]);
		else
			buf_add_byte(b, s.p[i]);
	buf_add_byte(b, '"');
}

static void
print_json(
    const struct qmgr *q, struct control_list *l, const struct sched_msg *sm, const char *name)
{
	struct buf *b = &l->out;

	buf_addf(b, "{\"id\":\"%s\",\"kbytes\":%u,", name, (unsigned int)sm->kbytes);
	add_json(b, "sender", slice(sm->sender->text, sm->sender->n));
	buf_add_str(b, ",\"arrival\":\"");
	add_time(b, wall(q, (int64_t)sm->arrived * 1000));
	buf_addf(b, "\",\"held\":%s,\"jobs\":[", sm->held ? "true" : "false");
	for (const struct sched_job *j = sm->jobs; j; j = j->sibling) {
		buf_addf(b, "%s{", j == sm->jobs ? "" : ",");
		add_json(b, "destination", slice_str(j->site->key + 1));
		buf_addf(b, ",\"state\":\"%s\",\"recipients\":%u", job_word(j), j->rcpts);
		if (j->state == JOB_WAITING) {
			buf_add_str(b, ",\"next\":\"");
			add_time(b, wall(q, j->timer.due));
			buf_add_byte(b, '"');
		}
		if (j->reason) {
			buf_add_byte(b, ',');
			add_json(b, "reason", slice(j->reason->text, j->reason->n));
		}
		buf_add_byte(b, '}');
		send_full(l);
	}
	buf_add_str(b, "]}\n");
}

static void
add_advice(struct buf *b, const char *enhanced, const char *text)
{
	const char *advice = advice_for(enhanced, text);

	if (*advice)
		buf_addf(b, "    to do: %s\n", advice);
}

/* A reason is the status code and the text of the last attempt. */
static void
add_reason_advice(struct buf *b, struct slice reason)
{
	char code[16], text[SLOT_TEXT_MAX + 32];

	if (!slice_copy(slice_split(&reason, ' '), code, sizeof(code)) &&
	    !slice_copy(slice_sub(reason, 0, sizeof(text) - 1), text, sizeof(text)))
		add_advice(b, code, text);
}

void
control_print(const struct qmgr *q, struct control_list *l, const struct sched_msg *sm)
{
	char name[QUEUE_ID_SIZE];
	struct buf *b = &l->out;

	queue_id_format(sm->id, name);
	if (l->json) {
		print_json(q, l, sm, name);
		return;
	}
	buf_addf(b, "%s %6u KiB ", name, (unsigned int)sm->kbytes);
	add_time(b, wall(q, (int64_t)sm->arrived * 1000));
	buf_addf(b, " <%s>%s\n",
	    sm->sender->n ? log_value(slice(sm->sender->text, sm->sender->n)) : "",
	    sm->held ? " held" : "");
	for (const struct sched_job *j = sm->jobs; j; j = j->sibling) {
		buf_addf(b, "    to %s", log_cstr(j->site->key + 1));
		if (j->rcpts)
			buf_addf(b, " (%u recipient%s)", j->rcpts, j->rcpts == 1 ? "" : "s");
		buf_addf(b, " %s", job_word(j));
		if (j->state == JOB_WAITING) {
			buf_add_str(b, " until ");
			add_time(b, wall(q, j->timer.due));
		}
		if (j->state == JOB_READY && j->site->resting)
			buf_add_str(b, " (the destination does not answer)");
		if (j->reason)
			buf_addf(b, ": %s", log_value(slice(j->reason->text, j->reason->n)));
		buf_add_byte(b, '\n');
		if (j->reason)
			add_reason_advice(b, slice(j->reason->text, j->reason->n));
		send_full(l);
	}
}

static void
count_site(void *ctx, const struct sched_site *x)
{
	struct control_list *l = ctx;

	if (!x->jobs && !x->running)
		return;
	buf_addf(&l->out,
	    "%7zu %s: waiting=%zu ready=%zu running=%u window=%u average_ms=%lld sent=%llu "
	    "failed=%llu%s\n",
	    x->jobs, log_cstr(x->key + 1), x->waiting, x->ready, x->running,
	    (unsigned int)x->window, (long long)x->average_ms, (unsigned long long)x->done,
	    (unsigned long long)x->failed, x->resting ? " resting" : "");
	send_full(l);
}

static void
count_text(void *ctx, const struct sched_text *t)
{
	struct control_list *l = ctx;

	buf_addf(&l->out, "%7u %s\n", t->refs, log_value(slice(t->text, t->n)));
	send_full(l);
}

bool
control_print_counts(const struct qmgr *q, struct control_list *l, unsigned int steps)
{
	do {
		if (l->by == BY_DESTINATION)
			sched_scan_sites(q->sched, &l->scan, count_site, l);
		else if (l->by == BY_SENDER)
			sched_scan_senders(q->sched, &l->scan, count_text, l);
		else
			sched_scan_reasons(q->sched, &l->scan, count_text, l);
	} while (l->scan && --steps && buf_len(&l->out) < CONTROL_CHUNK / 2);
	return l->scan;
}

static void
print_rcpt(struct buf *b, const struct envelope_rcpt *r)
{
	char code[16];

	buf_addf(b, "to: <%s>", log_value(r->address));
	if (r->original.n && !slice_eq(r->original, r->address))
		buf_addf(b, " original <%s>", log_value(r->original));
	buf_addf(b, " %s", rcpt_state_name(r->status->state));
	if (r->status->attempts) {
		buf_addf(b, ", %u attempt%s, last ", r->status->attempts,
		    r->status->attempts == 1 ? "" : "s");
		add_time(b, (int64_t)r->status->last_attempt * 1000);
	}
	rcpt_status_enhanced(r->status, code);
	if (r->status->text[0])
		buf_addf(b, ": %s %s", code, log_cstr(r->status->text));
	if (r->status->remote[0])
		buf_addf(b, " (%s)", log_cstr(r->status->remote));
	buf_add_byte(b, '\n');
	add_advice(b, code, r->status->text);
}

void
control_print_whole(const struct qmgr *q, struct control_list *l, const struct message *m)
{
	const struct envelope *e = &m->env;

	buf_addf(&l->out, "id: %s\nstate: %s\narrival: ", m->name, msg_state_name(m->state));
	add_time(&l->out, (int64_t)(e->arrival / 1000));
	buf_addf(&l->out, "\nsize: %llu\nsender: <%s>\n", (unsigned long long)e->size,
	    e->sender.n ? log_value(e->sender) : "");
	if (e->client.n)
		buf_addf(&l->out, "client: %s\n", log_value(e->client));
	if (e->user.n)
		buf_addf(&l->out, "user: %s\n", log_value(e->user));
	if (e->session.n)
		buf_addf(&l->out, "session: %s\n", log_value(e->session));
	if (e->envid.n)
		buf_addf(&l->out, "envid: %s\n", log_value(e->envid));
	if (m->sm) {
		buf_add_str(&l->out, "expires: ");
		add_time(&l->out, wall(q, m->sm->expires));
		buf_add_byte(&l->out, '\n');
	}
	for (size_t i = 0; i < e->n_rcpts; i++) {
		print_rcpt(&l->out, &e->rcpts[i]);
		send_full(l);
	}
	if (m->has_content) {
		buf_add_byte(&l->out, '\n');
		if (buf_len(&l->out) + buf_len(&m->content) > CONTROL_CHUNK)
			control_send(l, true, 0);
		buf_add(&l->out, buf_slice(&m->content));
	}
}
