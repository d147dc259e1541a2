/*
 * What the server tells it can do. Every name here is served by the engine: a capability is added
 * in the commit that makes it work.
 */
#include "imap/capability.h"

static const char before_login[] = "IMAP4rev1 IMAP4rev2 LITERAL- SASL-IR ID ENABLE";
static const char after_login[] =
    "IMAP4rev1 IMAP4rev2 LITERAL- ID ENABLE IDLE NAMESPACE UNSELECT UIDPLUS CHILDREN LIST-EXTENDED "
    "LIST-STATUS SPECIAL-USE STATUS=SIZE ESEARCH SEARCHRES MOVE BINARY";

void
imap_capability_login(struct buf *out, const char *mechanisms, bool can_starttls)
{
	struct slice rest = slice_str(mechanisms);
	bool plain = false;

	buf_add_str(out, before_login);
	if (can_starttls)
		buf_add_str(out, " STARTTLS");
	while (rest.n)
		plain |= slice_caseeq_str(slice_split(&rest, ' '), "PLAIN");
	if (!plain)
		buf_add_str(out, " LOGINDISABLED");
	rest = slice_str(mechanisms);
	while (rest.n) {
		struct slice name = slice_split(&rest, ' ');

		if (name.n) {
			buf_add_str(out, " AUTH=");
			buf_add(out, name);
		}
	}
}

void
imap_capability_session(struct buf *out)
{
	buf_add_str(out, after_login);
}
