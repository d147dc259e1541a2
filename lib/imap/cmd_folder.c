/*
 * CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE, STATUS.
 *
 *	create      = "CREATE" SP mailbox
 *	delete      = "DELETE" SP mailbox
 *	rename      = "RENAME" SP mailbox SP mailbox
 *	subscribe   = "SUBSCRIBE" SP mailbox
 *	unsubscribe = "UNSUBSCRIBE" SP mailbox
 *	status      = "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"
 */
#include "imap/command.h"

/* The only argument is a mailbox; false: a reply is written or due. */
static bool
one_mailbox(struct imap_session *s, struct imap_parse *p, char **name_r)
{
	const char *why;

	if (!imap_sp(p) || !imap_mailbox(s, p, name_r, &why) || !imap_end(p))
		return false;
	if (!*name_r) {
		imap_no(s, why);
		return false;
	}
	return true;
}

static void
outcome(struct imap_session *s, int err)
{
	if (err < 0)
		imap_store_failed(s, err);
	else
		imap_ok(s, true, "Done");
}

void
imap_cmd_create(struct imap_session *s, struct imap_parse *p)
{
	char *name;
	int err;

	if (!one_mailbox(s, p, &name))
		return;
	err = store_create(s->config.store, slice_str(name), 0);
	if (err == 0 && s->oldname)
		imap_put_name(s, "", name, s->oldname);
	outcome(s, err);
}

void
imap_cmd_delete(struct imap_session *s, struct imap_parse *p)
{
	char *name;
	int err;

	if (!one_mailbox(s, p, &name))
		return;
	err = store_delete(s->config.store, slice_str(name));
	if (err == 0 && s->oldname)
		imap_put_name(s, "\\NonExistent", name, s->oldname);
	outcome(s, err);
}

void
imap_cmd_subscribe(struct imap_session *s, struct imap_parse *p)
{
	char *name;

	if (one_mailbox(s, p, &name))
		outcome(s, store_subscribe(s->config.store, slice_str(name), true));
}

void
imap_cmd_unsubscribe(struct imap_session *s, struct imap_parse *p)
{
	char *name;

	if (one_mailbox(s, p, &name))
		outcome(s, store_subscribe(s->config.store, slice_str(name), false));
}

void
imap_cmd_rename(struct imap_session *s, struct imap_parse *p)
{
	char *from, *to, *old;
	const char *why_from, *why_to;
	int err;

	if (!imap_sp(p) || !imap_mailbox(s, p, &from, &why_from))
		return;
	old = s->oldname;
	if (!imap_sp(p) || !imap_mailbox(s, p, &to, &why_to) || !imap_end(p))
		return;
	if (!from || !to) {
		imap_no(s, from ? why_to : why_from);
		return;
	}
	err = store_rename(s->config.store, slice_str(from), slice_str(to));
	if (err == 0 && (old || s->oldname))
		imap_put_name(s, "", to, old ? old : from);
	outcome(s, err);
}

bool
imap_parse_status_items(struct imap_parse *p, struct imap_status_items *i)
{
	const struct {
		const char *name;
		bool *item;
	} names[] = { { "MESSAGES", &i->messages }, { "RECENT", &i->recent },
		{ "UIDNEXT", &i->uidnext }, { "UIDVALIDITY", &i->uidvalidity },
		{ "UNSEEN", &i->unseen }, { "DELETED", &i->deleted }, { "SIZE", &i->size } };

	*i = (struct imap_status_items){ 0 };
	if (!imap_need(p, '('))
		return false;
	do {
		size_t n = 0;

		while (n < sizeof(names) / sizeof(*names) && !imap_try_word(p, names[n].name))
			n++;
		if (n == sizeof(names) / sizeof(*names))
			return imap_fail(p, "Unknown STATUS item");
		*names[n].item = true;
	} while (imap_try(p, ' '));
	return imap_need(p, ')');
}

int
imap_put_status(struct imap_session *s, const char *name, const struct imap_status_items *i)
{
	struct store_status st;
	int err =
	    store_status(s->config.store, slice_str(name), i->size ? STATUS_NEED_SIZE : 0, &st);
	const char *sep = "";

	if (err < 0)
		return err;
	const struct {
		bool wanted;
		const char *name;
		uint64_t value;
	} items[] = { { i->messages, "MESSAGES", st.messages }, { i->recent, "RECENT", st.recent },
		{ i->uidnext, "UIDNEXT", st.uidnext },
		{ i->uidvalidity, "UIDVALIDITY", st.uidvalidity },
		{ i->unseen, "UNSEEN", st.unseen }, { i->deleted, "DELETED", st.deleted },
		{ i->size, "SIZE", st.size } };

	imap_put(s, "* STATUS ");
	imap_put_mailbox(s, name);
	imap_put(s, " (");
	for (size_t n = 0; n < sizeof(items) / sizeof(*items); n++) {
		if (!items[n].wanted)
			continue;
		imap_putf(s, "%s%s %llu", sep, items[n].name, (unsigned long long)items[n].value);
		sep = " ";
	}
	imap_put(s, ")\r\n");
	return 0;
}

void
imap_cmd_status(struct imap_session *s, struct imap_parse *p)
{
	struct imap_status_items items;
	char *name;
	const char *why;
	int err;

	if (!imap_sp(p) || !imap_mailbox(s, p, &name, &why) || !imap_sp(p) ||
	    !imap_parse_status_items(p, &items) || !imap_end(p))
		return;
	if (!name) {
		imap_no(s, why);
		return;
	}
	err = imap_put_status(s, name, &items);
	outcome(s, err);
}
