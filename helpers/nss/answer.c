/*
 * The answer to who asked for a user. Runs in nss (uid bh-nss). Hostile: what a directory service
 * says of a user. What no message can carry (a home of over 4,096 bytes, a line end in it) is an
 * error, for which mail waits: never silence, and never an entry cut short.
 */
#include "helpers/nss/answer.h"

#include "daemon/log.h"

void
answer_send(struct ipc_chan *ch, uint32_t id, struct slice name, const struct lookup *l)
{
	struct msg m = MSG_INIT(MSG_NSS_USER, id), instead = MSG_INIT(MSG_NSS_USER, id);
	struct buf groups = { 0 };
	int err;

	if (!ch)
		return;
	instead.nss_user.status = LOOKUP_TROUBLE;
	instead.nss_user.name = name;
	m.nss_user.status = l ? (uint8_t)l->status : LOOKUP_UNKNOWN;
	m.nss_user.name = name;
	if (l && l->status == LOOKUP_FOUND) {
		m.nss_user.name = slice_str(l->pw.pw_name);
		m.nss_user.uid = l->pw.pw_uid;
		m.nss_user.gid = l->pw.pw_gid;
		m.nss_user.home = slice_str(l->pw.pw_dir);
		for (size_t i = 0; i < l->ngroups; i++)
			item_gid_add(&groups, &(struct item_gid){ l->groups[i] });
		m.nss_user.groups = msg_list(&groups, (uint32_t)l->ngroups);
	}
	err = ipc_answer(ch, &m, &instead);
	if (err == ERR_LIMIT || err == ERR_SYNTAX)
		log_event(LOG_nss_entry,
		    "user=%s reason=\"name or home: %s\" remedy=\"correct the user's entry; mail "
		    "for "
		    "this user waits\"",
		    log_value(name), err_str(err));
	buf_free(&groups);
}
