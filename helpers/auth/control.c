/*
 * `bulkhead user` while the suite runs, in auth (bh-auth): the verbs run in a worker, because they
 * derive keys and sync the store. The words come from the admin through master and hold passwords:
 * they are wiped.
 */
#include "helpers/auth/peer.h"

#include "tls/openssl.h"

#include <stdlib.h>

#define WORDS_MAX 64

struct order {
	struct job job;
	struct auth *a;
	uint32_t id;
	struct slice words[WORDS_MAX];
	size_t n;
	struct arena arena;
	struct buf text; /* the words' bytes */
	struct buf out;
	int status;
};

static void
run(struct job *job)
{
	struct order *o = CONTAINER(job, struct order, job);

	o->status = users_command(o->a->users, o->words, o->n, &o->arena, &o->out, NULL);
}

static void
done(struct job *job)
{
	struct order *o = CONTAINER(job, struct order, job);
	struct auth *a = o->a;
	bool changes = !slice_eq_str(o->words[0], "list") && !slice_eq_str(o->words[0], "show") &&
		       !slice_eq_str(o->words[0], "check");

	if (o->status == 0 && changes) {
		if (!slice_eq_str(o->words[0], "add"))
			tokens_drop_user(a->tokens, o->words[1]);
		account_changed(a);
		log_event(LOG_user_changed, "verb=%s user=%s", log_value(o->words[0]),
		    log_value(o->words[1]));
	}
	if (a->d->master)
		daemon_control_reply(a->d->master, o->id, o->status, buf_slice(&o->out));
	buf_wipe(&o->text);
	buf_free(&o->out);
	arena_free(&o->arena);
	free(o);
}

void
control_user(struct auth *a, struct ipc_chan *ch, uint32_t id, const struct slice *words, size_t n)
{
	struct order *o;
	size_t at = 0;

	if (n == 0 || n > WORDS_MAX) {
		daemon_control_reply(ch, id, 2,
		    SLICE_LIT("usage: bulkhead user add|passwd|change|del|list|show|check\n"));
		return;
	}
	o = xcalloc(1, sizeof(*o));
	o->a = a;
	o->id = id;
	for (size_t i = 0; i < n; i++)
		buf_add(&o->text, words[i]);
	for (size_t i = 0; i < n; at += words[i++].n)
		o->words[i] = slice_sub(buf_slice(&o->text), at, at + words[i].n);
	o->n = n;
	o->job.run = run;
	o->job.done = done;
	pool_submit(a->pool, &o->job);
}
