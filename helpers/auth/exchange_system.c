/*
 * Logins of system users, in auth (bh-auth): the PAM helper judges the password, nss knows who it
 * is. Hostile: what either says, if it was taken over. Invariant: an exchange that waits for one of
 * them is in the table by the role and the number of the question, and leaves it with the answer,
 * with the end of that helper, or with the exchange.
 */
#include "helpers/auth/exchange.h"
#include "helpers/auth/mechanisms.h"

static int
wait_for(struct exchange *e, enum role role, struct msg *m)
{
	struct ipc_chan *ch = e->a->d->peers[role];
	int err;

	if (!ch)
		return ERR_CLOSED;
	m->id = ipc_next_id(ch);
	err = ipc_send(ch, m);
	if (err)
		return err;
	e->waiting_key = (uint64_t)role << 32 | m->id;
	e->asked = ch;
	hash_insert(&e->a->waiting, &e->waiting, slice(&e->waiting_key, sizeof(e->waiting_key)));
	return 0;
}

static struct exchange *
waiting_for(struct auth *a, enum role role, uint32_t id)
{
	uint64_t key = (uint64_t)role << 32 | id;
	struct hash_node *node = hash_find(&a->waiting, slice(&key, sizeof(key)));
	struct exchange *e = node ? HASH_ELEMENT(node, struct exchange, waiting) : NULL;

	if (e) {
		hash_remove(&a->waiting, &e->waiting);
		e->waiting_key = 0;
	}
	return e;
}

void
exchange_ask_pam(struct exchange *e)
{
	struct msg m = MSG_INIT(MSG_PAM_CHECK, 0);

	/* PAM's answer is about the name that authenticates; libsasl2 did not get to compare the
	 * other one. */
	if (strcmp(e->x.mechanism, "PLAIN") == 0 &&
	    mechanisms_plain_acts_as_other(buf_slice(&e->in), e->x.claimed)) {
		exchange_refuse(e, "asks to act as another user");
		return;
	}
	m.pam_check.service = slice_str(e->x.service);
	m.pam_check.user = slice_str(e->x.claimed);
	m.pam_check.password = buf_slice(&e->x.password);
	m.pam_check.client = slice_str(e->client);
	e->phase = PHASE_PAM;
	if (m.pam_check.password.n > 1024)
		exchange_refuse(e, "password too long");
	else if (wait_for(e, ROLE_PAM, &m) < 0)
		exchange_temporary(e, "the PAM helper is not there");
	buf_wipe(&e->x.password);
}

void
exchange_pam_answer(struct auth *a, const struct msg *m)
{
	struct exchange *e = waiting_for(a, ROLE_PAM, m->id);
	struct msg ask = MSG_INIT(MSG_NSS_GET, 0);

	if (!e)
		return;
	if (m->pam_answer.status == 1) {
		exchange_refuse(e, "PAM refuses");
	} else if (m->pam_answer.status) {
		exchange_temporary(e, "PAM cannot tell");
	} else {
		ask.nss_get.name = slice_str(e->x.claimed);
		e->phase = PHASE_NSS;
		if (wait_for(e, ROLE_NSS, &ask) < 0)
			exchange_temporary(e, "the nss helper is not there");
	}
}

void
exchange_nss_user(struct auth *a, const struct msg *m)
{
	struct exchange *e = waiting_for(a, ROLE_NSS, m->id);
	const struct conf *conf = a->d->conf;
	struct account *account;

	if (!e)
		return;
	if (m->nss_user.status == 1) {
		exchange_refuse(e, "no such system user");
	} else if (m->nss_user.status) {
		exchange_temporary(e, "the system's user database cannot tell");
	} else if ((int64_t)m->nss_user.uid < conf->first_valid_uid ||
		   (int64_t)m->nss_user.uid > conf->last_valid_uid) {
		exchange_refuse(e, "uid not between first_valid_uid and last_valid_uid");
	} else {
		account = account_of_system(a, &m->nss_user);
		if (account)
			exchange_succeed(e, account);
		else
			exchange_temporary(e, "home or mailbox of the user not usable");
	}
}

void
exchange_helper_down(struct auth *a, const struct ipc_chan *ch)
{
	struct hash_node *node = hash_next(&a->waiting, NULL);

	while (node) {
		struct exchange *e = HASH_ELEMENT(node, struct exchange, waiting);
		node = hash_next(&a->waiting, node);
		if (e->asked != ch)
			continue;
		hash_remove(&a->waiting, &e->waiting);
		e->waiting_key = 0;
		exchange_temporary(e, "a helper died");
	}
}
