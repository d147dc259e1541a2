/*
 * What an admin can do about a delivery that did not succeed. One table, by status code: the log,
 * `bulkhead queue` and `bulkhead log --explain CODE` read it. Runs in qmgr and the tools; texts of
 * next hops are hostile and only looked at for who said them. A row without a class digit is for
 * both. Where a local text already says what to do (a directory, an alias) its code has no row.
 */
#include "queue/advice.h"

#include <string.h>

static const struct {
	const char *code, *advice;
} rows[] = {
	{ ".1.1", "add the user (bulkhead user add) or an alias, or correct the address" },
	{ ".1.2", "correct the domain of the address, or its MX records" },
	{ ".1.10", "the domain takes no mail (null MX): correct the address" },
	{ ".2.2", "let the user delete mail, or raise mailbox_size_limit" },
	{ "5.2.4", "split the list into several, or let a list manager send to its members" },
	{ ".3.1", "free space or inodes where the mailboxes and the queue lie" },
	{ ".3.4", "raise message_size_limit here, or let the sender send less" },
	{ "5.3.0", "mend the program, or the alias or .forward that names it" },
	{ ".4.1", "see whether the host is up and lets this machine reach the port; the message is "
		  "tried again by itself" },
	{ ".4.2", "see the network and the log of the next hop; the message is tried again by "
		  "itself" },
	{ ".4.3", "see whether the resolver answers (dns-failure in the log); dns_resolvers names "
		  "others" },
	{ "4.4.4",
	    "correct relayhost, or what DNS says of it; the message is tried again by itself" },
	{ ".4.4", "correct the domain of the address, or its MX records" },
	{ ".4.6", "look for aliases, .forward files or MX records that lead back here" },
	{ ".4.7",
	    "see why the attempts before failed; maximal_queue_lifetime says how long they go "
	    "on" },
	{ ".7.4",
	    "ask for TLS there, or allow plaintext for this next hop in smtp_tls_policy_maps" },
	{ ".7.5", "mend the certificate there, or set a laxer level for this next hop in "
		  "smtp_tls_policy_maps" },
	{ ".7.8", "correct user and password in smtp_sasl_password_maps" },
};

int
advice_row(unsigned n, const char **code_r, const char **advice_r)
{
	if (n >= sizeof(rows) / sizeof(rows[0]))
		return 0;
	*code_r = rows[n].code;
	*advice_r = rows[n].advice;
	return 1;
}

const char *
advice_for(const char *enhanced, const char *text)
{
	if (enhanced[0] != '4' && enhanced[0] != '5')
		return "";
	if (strstr(text, "(in reply to "))
		return enhanced[0] == '4'
			   ? "the next hop put it off: it is tried again by itself; ask its "
			     "postmaster if that lasts"
			   : "the next hop refused it for good: correct the address or the "
			     "message, or ask its postmaster";
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (!strcmp(enhanced, rows[i].code) ||
		    (rows[i].code[0] == '.' && !strcmp(enhanced + 1, rows[i].code)))
			return rows[i].advice;
	return "";
}
