/*
 * bulkhead queue ...: lists come from the scheduler's structures, in slices of a loop turn each, so
 * that no listing delays a delivery; `show` reads the one file. control_print.c says it. Runs in
 * the loop of qmgr. Who may ask was checked by master (root and the admin group). Hostile input:
 * the words, and what strangers wrote into senders and reasons: everything is printed escaped.
 */
#include "qmgr/control.h"

#include <stdlib.h>

#define SLICE 400u         /* messages, or rows of a table of counts, looked at in one turn */
#define QUEUED_MAX 400000u /* bytes that the asker has not read yet */

static const struct {
	const char *name;
	enum verb verb;
	bool needs_word;
} verbs[] = {
	{ "list", VERB_LIST, false },
	{ "flush", VERB_FLUSH, false },
	{ "hold", VERB_HOLD, true },
	{ "release", VERB_RELEASE, true },
	{ "delete", VERB_DELETE, true },
	{ "requeue", VERB_REQUEUE, true },
};

static void
list_free(struct qmgr *q, struct control_list *l)
{
	TAILQ_REMOVE(&q->lists, l, link);
	buf_free(&l->out);
	arena_free(&l->arena);
	free(l);
}

static bool
matches(const struct control_list *l, const struct sched_msg *sm)
{
	char name[QUEUE_ID_SIZE];

	if (l->all || !l->n)
		return true;
	queue_id_format(sm->id, name);
	for (size_t i = 0; i < l->n; i++) {
		struct slice w = l->words[i];

		if (slice_eq_str(w, name) ||
		    slice_caseeq(w, slice(sm->sender->text, sm->sender->n)))
			return true;
		for (const struct sched_job *j = sm->jobs; j; j = j->sibling)
			if (slice_caseeq_str(w, j->site->key + 1))
				return true;
	}
	return false;
}

static void
flush_message(struct qmgr *q, struct sched_msg *sm)
{
	for (struct sched_job *j = sm->jobs; j; j = j->sibling) {
		sched_site_wake(q->sched, j->site);
		sched_job_flush(q->sched, j);
	}
}

static void
apply(struct qmgr *q, struct control_list *l, struct sched_msg *sm)
{
	struct message *m;

	if (l->verb == VERB_LIST) {
		control_print(q, l, sm);
		return;
	}
	if (l->verb == VERB_FLUSH || l->verb == VERB_REQUEUE) {
		flush_message(q, sm);
		return;
	}
	m = message_bare(q, sm->id);
	message_pin(q, m);
	message_ask(q, m);
	if (l->verb == VERB_DELETE) {
		log_event(LOG_queue_deleted, "qid=%s from=<%s>", m->name,
		    sm->sender->n ? log_value(slice(sm->sender->text, sm->sender->n)) : "");
		message_event(q, m, MSG_DELETE);
	} else {
		message_hold(q, m, l->verb == VERB_HOLD);
	}
	message_unpin(q, m);
}

/* What an administrator was told holds after a power cut too. False: it is over. */
static bool
finish(struct qmgr *q, struct control_list *l)
{
	bool changes = l->verb == VERB_HOLD || l->verb == VERB_RELEASE || l->verb == VERB_DELETE;

	l->waits = changes && q->unsure;
	if (l->waits)
		return true;
	if (l->verb == VERB_LIST && !l->json && !l->matched)
		buf_add_str(&l->out, "The queue is empty.\n");
	if (l->verb != VERB_LIST)
		buf_addf(&l->out, "%zu message%s\n", l->matched, l->matched == 1 ? "" : "s");
	if (changes && q->unsure_err)
		buf_addf(&l->out, "not all of it is on the disk: %s; the log says which\n",
		    err_str(q->unsure_err));
	control_send(
	    l, false, (changes && q->unsure_err) || !(l->matched || l->all || !l->n) ? 1 : 0);
	return false;
}

/* One slice of a list. False: it is over. */
static bool
step(struct qmgr *q, struct control_list *l)
{
	struct sched_msg *sm;

	if (l->waits)
		return finish(q, l);
	if (ipc_chan_queued(l->chan) > QUEUED_MAX)
		return true;
	if (l->by != BY_NONE) {
		bool more = control_print_counts(q, l, SLICE);

		if (buf_len(&l->out) || !more)
			control_send(l, more, 0);
		return more;
	}
	for (unsigned int i = 0; i < SLICE && buf_len(&l->out) < CONTROL_CHUNK - 8192; i++) {
		sm = sched_each(q->sched, &l->cursor);
		if (!sm)
			return finish(q, l);
		if (!matches(l, sm))
			continue;
		l->matched++;
		apply(q, l, sm);
	}
	if (buf_len(&l->out) > CONTROL_CHUNK / 2)
		control_send(l, true, 0);
	return true;
}

void
control_turn(struct qmgr *q)
{
	bool open = false;

	for (struct control_list *l = TAILQ_FIRST(&q->lists), *next; l; l = next) {
		next = TAILQ_NEXT(l, link);
		if (l->show)
			continue;
		if (!step(q, l))
			list_free(q, l);
		else if (!l->waits)
			open = true;
	}
	if (open)
		qmgr_arm(q, qmgr_now(q) + 1);
	deliver_pump(q);
}

/* --- show --- */

void
control_loaded(struct qmgr *q, struct message *m)
{
	struct control_list *l = m->show;

	m->show = NULL;
	if (!l)
		return;
	control_print_whole(q, l, m);
	control_send(l, false, 0);
	list_free(q, l);
}

void
control_not_loaded(struct qmgr *q, struct message *m, int err)
{
	struct control_list *l = m->show;

	m->show = NULL;
	if (!l)
		return;
	buf_addf(&l->out, "%s cannot be read: %s\n", m->name, err_str(err));
	control_send(l, false, 1);
	list_free(q, l);
}

static void
show(struct qmgr *q, struct control_list *l)
{
	queue_id id;
	struct message *m;

	m = l->n == 1 && !queue_id_parse(l->words[0], &id) ? message_find(q, id) : NULL;
	/* One that is done may still wait for its removal. */
	if (m ? m->state == MSG_DONE
	      : l->n != 1 || queue_id_parse(l->words[0], &id) || !sched_find(q->sched, id)) {
		buf_add_str(&l->out, "no such message in the queue\n");
		control_send(l, false, 1);
		list_free(q, l);
		return;
	}
	l->show = true;
	m = message_need(q, id);
	message_pin(q, m);
	if (m->show) {
		buf_add_str(&l->out, "somebody else asks for it just now: try again\n");
		control_send(l, false, 75);
		list_free(q, l);
	} else {
		m->show = l;
		if (!m->loading)
			control_loaded(q, m);
	}
	message_unpin(q, m);
}

/* --- what is asked --- */

static void
trust(struct qmgr *q, struct control_list *l, uint32_t uid)
{
	log_event(LOG_queue_trusted, "uid=%u was_broken=%d", uid, q->broken);
	q->broken = false;
	buf_add_str(&l->out, "the queue accepts messages\n");
	control_send(l, false, 0);
	list_free(q, l);
}

static bool
option(struct control_list *l, struct slice w)
{
	if (slice_eq_str(w, "-a") || slice_eq_str(w, "ALL"))
		l->all = true;
	else if (slice_eq_str(w, "-j"))
		l->json = true;
	else if (slice_eq_str(w, "-d"))
		l->by = BY_DESTINATION;
	else if (slice_eq_str(w, "-s"))
		l->by = BY_SENDER;
	else if (slice_eq_str(w, "-r"))
		l->by = BY_REASON;
	else
		return false;
	return true;
}

static void
usage(struct qmgr *q, struct control_list *l)
{
	buf_add_str(&l->out,
	    "usage: queue list [-j] [-d | -s | -r] [ID | SENDER | DESTINATION]...\n"
	    "       queue show ID\n"
	    "       queue flush [ID | SENDER | DESTINATION]...\n"
	    "       queue hold | release | delete | requeue -a | ID | SENDER | DESTINATION...\n"
	    "       queue trust\n");
	control_send(l, false, 64);
	list_free(q, l);
}

void
control_request(struct daemon *d, struct ipc_chan *ch, uint32_t id, uint32_t uid,
    const struct slice *words, size_t n)
{
	struct qmgr *q = d->ctx;
	struct control_list *l = xcalloc(1, sizeof(*l));
	struct slice verb = n > 1 ? words[1] : SLICE_NULL;

	l->chan = ch;
	l->id = id;
	TAILQ_INSERT_TAIL(&q->lists, l, link);
	for (size_t i = 2; i < n; i++)
		if (!option(l, words[i]))
			l->words[l->n++] = arena_dup(&l->arena, words[i]);
	if (slice_eq_str(verb, "show")) {
		show(q, l);
		return;
	}
	if (slice_eq_str(verb, "trust")) {
		trust(q, l, uid);
		return;
	}
	for (size_t i = 0; i < sizeof(verbs) / sizeof(*verbs); i++)
		if (slice_eq_str(verb, verbs[i].name) && (!verbs[i].needs_word || l->n || l->all) &&
		    (l->by == BY_NONE || verbs[i].verb == VERB_LIST)) {
			l->verb = verbs[i].verb;
			if (l->verb == VERB_REQUEUE)
				route_changed(q);
			control_turn(q);
			return;
		}
	usage(q, l);
}

void
control_link_down(struct qmgr *q, struct ipc_chan *ch)
{
	for (struct control_list *l = TAILQ_FIRST(&q->lists), *next; l; l = next) {
		next = TAILQ_NEXT(l, link);
		if (l->chan != ch)
			continue;
		for (struct hash_node *n = NULL; l->show && (n = hash_next(&q->messages, n));) {
			struct message *m = HASH_ELEMENT(n, struct message, node);

			if (m->show == l)
				m->show = NULL;
		}
		list_free(q, l);
	}
}

void
control_status(struct daemon *d, struct buf *out)
{
	struct qmgr *q = d->ctx;
	struct sched_counts c;

	sched_count(q->sched, &c);
	buf_addf(out,
	    "messages=%zu jobs_waiting=%zu jobs_ready=%zu held=%zu running_local=%zu "
	    "running_remote=%zu "
	    "direct=%zu destinations=%zu senders=%zu reasons=%zu schedule_bytes=%zu in_memory=%zu "
	    "memory_bytes=%zu "
	    "open_files=%zu children=%zu walking=%d low_space=%d broken=%d odd=%llu",
	    c.messages, c.waiting, c.ready, c.held, c.running[SCHED_LOCAL], c.running[SCHED_REMOTE],
	    c.direct, c.sites, c.senders, c.reasons, c.bytes, q->messages.count, q->memory,
	    q->open_files, q->children.count, q->walking, q->low_space, q->broken,
	    (unsigned long long)q->odd);
}
