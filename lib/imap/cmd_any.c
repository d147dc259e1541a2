/*
 * CAPABILITY, NOOP, LOGOUT, ID, ENABLE, NAMESPACE, CHECK, IDLE: commands without a mailbox
 * argument.
 *
 *	command-any  = "CAPABILITY" / "LOGOUT" / "NOOP"
 *	enable       = "ENABLE" 1*(SP capability)
 *	id           = "ID" SP id-params-list
 *	idle         = "IDLE" CRLF "DONE"
 */
#include "imap/command.h"
#include "imap/capability.h"

void
imap_cmd_capability(struct imap_session *s, struct imap_parse *p)
{
	if (!imap_end(p))
		return;
	imap_put(s, "* CAPABILITY ");
	imap_capability_session(&s->out);
	imap_put(s, "\r\n");
	imap_ok(s, true, "Done");
}

void
imap_cmd_noop(struct imap_session *s, struct imap_parse *p)
{
	if (imap_end(p))
		imap_ok(s, true, "Done");
}

void
imap_cmd_check(struct imap_session *s, struct imap_parse *p)
{
	imap_cmd_noop(s, p);
}

void
imap_cmd_logout(struct imap_session *s, struct imap_parse *p)
{
	if (!imap_end(p))
		return;
	imap_deselect(s);
	imap_put(s, "* BYE Good bye\r\n");
	imap_ok(s, false, "Logged out");
	s->ended = true;
}

void
imap_cmd_id(struct imap_session *s, struct imap_parse *p)
{
	if (!imap_sp(p) || !imap_id_params(p) || !imap_end(p))
		return;
	imap_put(s, "* ID (\"name\" \"Bulkhead\")\r\n");
	imap_ok(s, true, "Done");
}

void
imap_cmd_enable(struct imap_session *s, struct imap_parse *p)
{
	bool rev2 = false;
	struct slice name;

	do {
		if (!imap_sp(p) || !imap_atom(p, &name))
			return;
		rev2 |= slice_caseeq_str(name, "IMAP4rev2");
	} while (!imap_at_end(p));
	s->rev2 |= rev2;
	imap_put(s, rev2 ? "* ENABLED IMAP4rev2\r\n" : "* ENABLED\r\n");
	imap_ok(s, true, "Done");
}

void
imap_cmd_namespace(struct imap_session *s, struct imap_parse *p)
{
	if (!imap_end(p))
		return;
	imap_put(s, "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
	imap_ok(s, true, "Done");
}

void
imap_cmd_idle(struct imap_session *s, struct imap_parse *p)
{
	if (!imap_end(p))
		return;
	/* It may last for hours: nothing is kept open for it. */
	imap_drop_content(s);
	s->idling = true;
	imap_put(s, "+ Idling\r\n");
	imap_sync(s, true);
}

void
imap_idle_line(struct imap_session *s, struct slice line)
{
	s->idling = false;
	if (slice_caseeq_str(line, "DONE"))
		imap_ok(s, true, "Done");
	else
		imap_bad(s, "DONE expected");
}
