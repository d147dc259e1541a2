/*
 * Whose a token is and which users there are, in auth (bh-auth), for broker, qmgr and maps.
 * Hostile: tokens, names. Invariants: broker learns only what mailbox services issued, qmgr only
 * what submission services did; no verifier leaves this process.
 */
#include "helpers/auth/auth.h"

#include "db/mailbox.h"

#include <stdlib.h>

static void
add_sender(struct account *account, struct slice address)
{
	for (size_t i = 0; i < account->sender_count; i++)
		if (slice_caseeq(account->senders[i], address))
			return;
	if (account->sender_count < TOKEN_SENDERS_MAX && address.n && address.n <= 1024)
		account->senders[account->sender_count++] = arena_dup(&account->arena, address);
}

static void
add_sender_at(struct account *account, const char *domain)
{
	if (domain && *domain)
		add_sender(account, slice_str(arena_printf(&account->arena, "%.*s@%s",
					SLICE_ARG(account->user), domain)));
}

/* The addresses that a login owns: its name, at every domain of this machine where the name has
 * none of its own. */
static void
own_addresses(const struct auth *a, struct account *account)
{
	const struct conf *conf = a->d->conf;

	if (slice_find(account->user, '@') >= 0) {
		add_sender(account, account->user);
		return;
	}
	add_sender_at(account, conf->myorigin);
	add_sender_at(account, conf->myhostname);
	for (size_t i = 0; i < conf->mydestination.n; i++)
		if (conf->mydestination.v[i][0] != '/' && !strchr(conf->mydestination.v[i], ':'))
			add_sender_at(account, conf->mydestination.v[i]);
}

static struct account *
account_new(struct slice user, uint32_t uid, uint32_t gid, struct slice home, struct slice mailbox)
{
	struct account *account = xcalloc(1, sizeof(*account));

	account->user = arena_dup(&account->arena, user);
	account->home = arena_dup(&account->arena, home);
	account->mailbox = arena_dup(&account->arena, mailbox);
	account->uid = uid;
	account->gid = gid;
	account->groups[account->group_count++] = gid;
	account->senders =
	    arena_alloc(&account->arena, TOKEN_SENDERS_MAX * sizeof(*account->senders));
	return account;
}

struct account *
account_of_user(const struct auth *a, const struct user *user)
{
	struct account *account =
	    account_new(user->name, user->uid, user->gid, user->home, user->mailbox);

	own_addresses(a, account);
	for (size_t i = 0; i < user->sender_count; i++)
		add_sender(account, user->senders[i]);
	return account;
}

struct account *
account_of_system(const struct auth *a, const struct msg_nss_user *m)
{
	const struct conf *conf = a->d->conf;
	struct buf mailbox = { 0 };
	struct account *account = NULL;
	struct cursor c = cursor(m->groups.raw);
	struct item_gid gid;

	if (mailbox_of_user(slice_str(conf->home_mailbox), slice_str(conf->mail_spool_directory),
		m->name, m->home, &mailbox) == 0) {
		account = account_new(m->name, m->uid, m->gid, m->home, buf_slice(&mailbox));
		while (account->group_count < TOKEN_GROUPS_MAX && item_gid_next(&c, &gid))
			if (gid.gid != m->gid)
				account->groups[account->group_count++] = gid.gid;
		own_addresses(a, account);
	}
	buf_free(&mailbox);
	return account;
}

/* What a user's entry holds is more than a message takes: the store's own limits are wider. */
static void
cannot_say(struct slice user, int err)
{
	log_event(LOG_account_unusable,
	    "user=%s reason=\"home, mailbox or senders: %s\" remedy=\"correct the user's entry\"",
	    log_value(user), err_str(err));
}

static void
send_account(struct ipc_chan *ch, uint32_t id, const struct account *account)
{
	struct msg m = MSG_INIT(MSG_TOKEN_USER, id), instead = m;
	struct buf groups = { 0 }, senders = { 0 };
	int err;

	instead.token_user.status = 1;

	/* A token of submission may be of a former auth: its client is to come again, not to be
	 * turned away. */
	m.token_user.status = account ? 0 : ipc_chan_peer(ch) == ROLE_QMGR ? 2 : 1;
	if (account) {
		m.token_user.user = account->user;
		m.token_user.uid = account->uid;
		m.token_user.gid = account->gid;
		m.token_user.home = account->home;
		m.token_user.mailbox = account->mailbox;
		for (size_t i = 0; i < account->group_count; i++)
			item_gid_add(&groups, &(struct item_gid){ account->groups[i] });
		m.token_user.groups = msg_list(&groups, (uint32_t)account->group_count);
		if (ipc_chan_peer(ch) == ROLE_QMGR) {
			for (size_t i = 0; i < account->sender_count; i++)
				item_sender_add(
				    &senders, &(struct item_sender){ account->senders[i] });
			m.token_user.senders = msg_list(&senders, (uint32_t)account->sender_count);
		}
	}
	err = ipc_answer(ch, &m, &instead);
	if (err == ERR_LIMIT || err == ERR_SYNTAX)
		cannot_say(account->user, err);
	buf_free(&groups);
	buf_free(&senders);
}

void
account_token_check(struct auth *a, struct ipc_chan *ch, const struct msg *m)
{
	const struct msg_token_check *c = &m->token_check;
	bool mailbox = slice_eq_str(c->service, "imap") || slice_eq_str(c->service, "pop3"),
	     taken = false;
	struct account *account = NULL;

	if (mailbox == (ipc_chan_peer(ch) == ROLE_BROKER))
		account = tokens_check(a->tokens, c->token, c->service, auth_now_ms(), &taken);
	if (!account)
		log_event(LOG_token_refused,
		    "peer=%s service=%s reason=\"unknown, used, expired or of another service\"",
		    role_table[ipc_chan_peer(ch)].name, log_value(c->service));
	send_account(ch, m->id, account);
	if (taken)
		account_free(&account);
}

/* By address or login; for a domain of this machine also by what stands before the @. */
static int
find(const struct auth *a, struct slice name, struct arena *arena, struct user *user_r)
{
	const struct conf *conf = a->d->conf;
	struct slice local = name, domain = slice_split_last(&local, '@');
	int err = users_find_address(a->users, name, arena, user_r);

	if (err == ERR_NOT_FOUND && domain.n &&
	    (conf_list_has_domain(&conf->mydestination, domain) ||
		slice_caseeq_str(domain, conf->myhostname)))
		err = users_find_address(a->users, local, arena, user_r);
	return err;
}

void
account_user_get(struct auth *a, struct ipc_chan *ch, const struct msg *m)
{
	struct msg answer = MSG_INIT(MSG_USER_ENTRY, m->id), instead = answer;
	struct arena arena = { 0 };
	struct user user;
	int err = find(a, m->user_get.name, &arena, &user);

	answer.user_entry.status = err == 0 ? 0 : err == ERR_NOT_FOUND ? 1 : 2;
	if (!err) {
		answer.user_entry.user = user.name;
		answer.user_entry.uid = user.uid;
		answer.user_entry.gid = user.gid;
		answer.user_entry.home = user.home;
		answer.user_entry.mailbox = user.mailbox;
	} else if (err != ERR_NOT_FOUND) {
		log_event(LOG_user_store,
		    "user=%s reason=\"%s\" remedy=\"restore %s from a backup\"",
		    log_value(m->user_get.name), err_str(err),
		    log_cstr(a->d->conf->auth_user_store));
	}
	instead.user_entry.status = 2;
	err = ipc_answer(ch, &answer, &instead);
	if (err == ERR_LIMIT || err == ERR_SYNTAX)
		cannot_say(m->user_get.name, err);
	arena_free(&arena);
}

void
account_changed(struct auth *a)
{
	struct msg m = MSG_INIT(MSG_USERS_CHANGED, 0);

	m.users_changed.generation = (uint32_t)users_generation(a->users);
	(void)daemon_send(a->d, ROLE_MAPS, &m);
}
