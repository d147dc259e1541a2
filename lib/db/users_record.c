/*
 * A record of the user store as bytes. Pure. Runs in auth and in bulkhead(8). The file is auth's
 * own, or what an admin put back: a record that does not decode is one that is damaged.
 */
#include "db/users_private.h"

enum { PATH_LIMIT = 4096, SENDER_LIMIT = 1024 };

int
users_record_decode(struct slice in, struct user *user)
{
	struct cursor c = cursor(in);
	uint8_t format = cursor_u8(&c);

	user->uid = cursor_u32(&c);
	user->gid = cursor_u32(&c);
	user->flags = cursor_u32(&c);
	user->created = cursor_u64(&c);
	user->changed = cursor_u64(&c);
	user->home = cursor_counted(&c, PATH_LIMIT);
	user->mailbox = cursor_counted(&c, PATH_LIMIT);
	user->scram256 = cursor_counted(&c, SCRAM_VERIFIER_MAX);
	user->scram1 = cursor_counted(&c, SCRAM_VERIFIER_MAX);
	user->crypt = cursor_counted(&c, USERS_CRYPT_MAX);
	user->sender_count = cursor_u16(&c);
	if (user->sender_count > USERS_SENDERS_MAX)
		return ERR_CORRUPT;
	for (size_t i = 0; i < user->sender_count; i++)
		user->senders[i] = cursor_counted(&c, SENDER_LIMIT);
	if (cursor_end(&c) < 0 || format != USERS_FORMAT || user->uid == 0 || user->gid == 0)
		return ERR_CORRUPT;
	return 0;
}

void
users_record_encode(const struct user *user, struct buf *out)
{
	buf_add_u8(out, USERS_FORMAT);
	buf_add_u32(out, user->uid);
	buf_add_u32(out, user->gid);
	buf_add_u32(out, user->flags);
	buf_add_u64(out, user->created);
	buf_add_u64(out, user->changed);
	buf_add_counted(out, user->home);
	buf_add_counted(out, user->mailbox);
	buf_add_counted(out, user->scram256);
	buf_add_counted(out, user->scram1);
	buf_add_counted(out, user->crypt);
	buf_add_u16(out, (uint16_t)user->sender_count);
	for (size_t i = 0; i < user->sender_count; i++)
		buf_add_counted(out, user->senders[i]);
}
