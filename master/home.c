/*
 * The homes of new accounts, for those who may not make them: `bulkhead user add` by the admin
 * group. Runs in master, as root. Hostile: the words of the request. Only a directory below
 * virtual_mailbox_base is made, in directories that are ours, for a uid that users may have, and
 * what is there already stays as it is.
 */
#include "db/users.h"
#include "master/master.h"

int
home_make(const struct master *m, const struct slice words[3], struct buf *out)
{
	const struct conf *conf = m->set->conf;
	struct user user = { .home = words[0] };
	uint64_t uid, gid;
	int err = ERR_DENIED;

	if (!slice_u64(words[1], (uint64_t)conf->last_valid_uid, &uid) &&
	    !slice_u64(words[2], UINT32_MAX - 1, &gid) && uid >= (uint64_t)conf->first_valid_uid &&
	    gid > 0) {
		user.uid = (uint32_t)uid;
		user.gid = (uint32_t)gid;
		err = users_make_home_below(conf->virtual_mailbox_base, &user);
	}
	if (err)
		buf_addf(out, "%.*s: cannot be made: %s\n", SLICE_ARG(words[0]), err_str(err));
	else
		log_event(LOG_home_made, "directory=%s uid=%u", log_value(words[0]), user.uid);
	return err ? 77 : 0;
}
