/*
 * What auth (uid bh-auth, root with urandom alone) is asked: the one place where messages of its
 * peers come in. Which role may send which is checked by lib/ipc before; whose exchange, token or
 * account it is, by the handlers. Hostile: every peer's data.
 */
#include "helpers/auth/auth.h"

void
auth_message(struct auth *a, struct ipc_chan *ch, struct msg *m)
{
	switch (m->type) {
	case MSG_AUTH_START:
		exchange_start(a, ch, m);
		break;
	case MSG_AUTH_RESPONSE:
		exchange_response(a, ch, m);
		break;
	case MSG_AUTH_CANCEL:
		exchange_cancel(a, ch, m->id);
		break;
	case MSG_TOKEN_CHECK:
		account_token_check(a, ch, m);
		break;
	case MSG_USER_GET:
		account_user_get(a, ch, m);
		break;
	case MSG_SASL_CLIENT_START:
		client_start(a, ch, m);
		break;
	case MSG_SASL_CLIENT_RESPONSE:
		client_response(a, ch, m);
		break;
	case MSG_SASL_CLIENT_END:
		client_end(a, ch, m->id);
		break;
	case MSG_PAM_ANSWER:
		exchange_pam_answer(a, m);
		break;
	case MSG_NSS_USER:
		exchange_nss_user(a, m);
		break;
	default:
		break;
	}
}
