/* What the files of auth share: its state, an exchange, and the dispatch between them. */
#ifndef AUTH_AUTH_H
#define AUTH_AUTH_H

#include "daemon/daemon.h"
#include "db/db.h"
#include "db/users.h"
#include "helpers/auth/cache.h"
#include "helpers/auth/penalty.h"
#include "helpers/auth/pool.h"
#include "helpers/auth/sasl.h"
#include "helpers/auth/token.h"
#include "queue/rate.h"

#define EXCHANGES_MAX 20000u      /* of all front ends */
#define EXCHANGES_PER_PEER 10000u /* of one process: SASL costs 7 KiB each */

struct peer;

struct auth {
	struct daemon *d;
	struct users *users;
	struct pool *pool;
	struct tokens *tokens;
	struct penalties *penalties;
	struct rate_table rates;  /* smtpd_client_auth_rate_limit */
	struct sasl_shared sasl;  /* what workers read */
	struct db_list passwords; /* smtp_sasl_password_maps */
	int watch;                /* inotify on the directories of these tables */
	struct event *on_watch;
	struct ev_timer settle;
	struct hash waiting; /* requests to pam and nss, by id */
	unsigned exchanges;
	struct ev_timer sweep, leave;
	int64_t leave_at; /* ends then at the latest, to read its tables anew; 0: stays */
};

/* Monotonic milliseconds. */
static inline int64_t
auth_now_ms(void)
{
	return ev_now_us() / 1000;
}

/* main.c: ends when no login is under way; a successor reads anew what is read at the start only */
void auth_renew(struct auth *a);
/* passwords.c: before the jail */
void passwords_open(struct auth *a);
/* message.c: any message of a peer */
void auth_message(struct auth *a, struct ipc_chan *ch, struct msg *m);
/* exchange.c: what front ends ask */
void exchange_start(struct auth *a, struct ipc_chan *ch, const struct msg *m);
void exchange_response(struct auth *a, struct ipc_chan *ch, const struct msg *m);
void exchange_cancel(struct auth *a, struct ipc_chan *ch, uint32_t id);
void exchange_pam_answer(struct auth *a, const struct msg *m);
void exchange_nss_user(struct auth *a, const struct msg *m);
void exchange_helper_down(struct auth *a, const struct ipc_chan *ch);
/* client.c: logins of our own at smarthosts */
void client_start(struct auth *a, struct ipc_chan *ch, const struct msg *m);
void client_response(struct auth *a, struct ipc_chan *ch, const struct msg *m);
void client_end(struct auth *a, struct ipc_chan *ch, uint32_t id);
/* peer.c: what belongs to one channel */
void peer_down(struct auth *a, struct ipc_chan *ch);
/* account.c: whose a token is, and which users there are */
struct account *account_of_user(const struct auth *a, const struct user *user);
struct account *account_of_system(const struct auth *a, const struct msg_nss_user *m);
void account_token_check(struct auth *a, struct ipc_chan *ch, const struct msg *m);
void account_user_get(struct auth *a, struct ipc_chan *ch, const struct msg *m);
void account_changed(struct auth *a);
/* control.c: `bulkhead user` */
void control_user(
    struct auth *a, struct ipc_chan *ch, uint32_t id, const struct slice *words, size_t n);

#endif
