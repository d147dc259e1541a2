/* The parts of sendmail(1). It runs as the user who calls it, with no privilege at all. */
#ifndef SENDMAIL_SENDMAIL_H
#define SENDMAIL_SENDMAIL_H

#include "base/arena.h"
#include "base/buf.h"
#include "conf/conf.h"
#include "smtp/maildrop.h"

#include <sysexits.h>

struct options {
	const char *dir;       /* of main.cf */
	const char *sender;    /* -f; NULL: the caller; "": the null path */
	const char *full_name; /* -F */
	bool dot_ends;         /* no -i: a line with a dot ends the message */
	bool headers;          /* -t */
	bool verify;           /* -bv */
	bool verbose;          /* -v */
	enum { MODE_MAIL, MODE_SMTP, MODE_MAILQ, MODE_FLUSH, MODE_ALIASES } mode;
	unsigned notify, ret;
	const char *envid;
	int body; /* 0 unknown, 7, 8 */
};

struct job {
	struct options options;
	const struct conf *conf;
	struct arena arena;
	struct maildrop envelope;
	size_t rcpt_size;
	struct buf content; /* CRLF lines */
};

/* "sendmail: TEXT" on stderr; returns status. */
int complain(int status, const char *fmt, ...) PRINTF(2, 3);

/* message.c: the message from standard input into job->content, its recipients with -t, and what it
 * lacks. An exit status. */
int message_read(struct job *job);
/* The same for a message that was read. Pure, but for what it complains of. */
int message_take(struct job *job, struct slice raw);
/* Adds one recipient list, as on the command line. EX_USAGE or EX_DATAERR on a bad address. */
int message_add_recipients(struct job *job, struct slice list, bool strict);

/* client.c: hands the message over the local socket. EX_TEMPFAIL: nobody took it, try maildrop. */
int client_send(struct job *job);
/* -bv: asks about the recipients. */
int client_verify(struct job *job);
/* -bs: standard input and output speak to the socket. */
int client_pass_through(struct job *job);

/* drop.c: leaves the message in maildrop/. */
int drop_write(struct job *job);

#endif
