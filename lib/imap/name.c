/*
 * Mailbox names between client and store (RFC 3501 section 5.1.3, RFC 9051 section 5.1). Runs in
 * imapd-child on what the user sends. The store checks what may be a folder.
 */
#include "imap/command.h"

bool
imap_name_decode(struct imap_session *s, struct slice in, struct slice *out_r)
{
	struct buf utf8 = { 0 };
	bool ok;

	*out_r = in;
	if (s->rev2)
		return true;
	for (size_t i = 0; i < in.n; i++)
		if (in.p[i] > 126 || in.p[i] < 32)
			return false;
	if (slice_find(in, '&') < 0)
		return true;
	ok = mutf7_decode(in, &utf8) == 0;
	*out_r = arena_dup(&s->arena, buf_slice(&utf8));
	buf_free(&utf8);
	return ok;
}

bool
imap_mailbox(struct imap_session *s, struct imap_parse *p, char **out_r, const char **why_r)
{
	struct slice raw, utf8;
	char name[STORE_NAME_MAX + 1];

	*out_r = s->oldname = NULL;
	*why_r = NULL;
	if (!imap_astring(p, &raw))
		return false;
	if (!imap_name_decode(s, raw, &utf8)) {
		*why_r = s->rev2 ? "The mailbox name is not UTF-8"
				 : "The mailbox name is not modified UTF-7";
		return true;
	}
	if (store_name(utf8, name, why_r) < 0) {
		if (!*why_r)
			*why_r = "No possible mailbox name";
		return true;
	}
	*out_r = arena_strdup(&s->arena, name);
	if (utf8.p[utf8.n - 1] == STORE_SEPARATOR)
		utf8.n--;
	if (!slice_eq_str(utf8, name))
		s->oldname = (char *)(uintptr_t)arena_dup(&s->arena, utf8).p;
	return true;
}
