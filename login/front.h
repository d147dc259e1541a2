/* The dialogue before login, IMAP's or POP3's, behind one shape: the engines of lib/imap and
 * lib/pop3 are told apart here and nowhere else. */
#ifndef LOGIN_FRONT_H
#define LOGIN_FRONT_H

#include "base/buf.h"
#include "conf/conf.h"

enum front_want {
	FRONT_MORE,
	FRONT_STARTTLS,
	FRONT_AUTH_START,
	FRONT_AUTH_STEP,
	FRONT_AUTH_ABORT,
	FRONT_DONE,
	FRONT_CLOSE,
};

enum front_failure {
	FRONT_FAIL_CREDENTIALS,
	FRONT_FAIL_TEMPORARY,
	FRONT_FAIL_MECHANISM,
	FRONT_FAIL_LIMIT,
	FRONT_FAIL_MAILBOX,
};

struct front_action {
	enum front_want want;
	const char *mechanism; /* AUTH_START */
	struct slice data;     /* AUTH_START with has_data, AUTH_STEP; valid until the next call */
	bool has_data;
};

struct front {
	const char *service; /* for auth and broker: "imap", "pop3" */
	const char *alpn;
	const char *too_many; /* what a client beyond a limit is told */
	const char *gone;     /* what a client is told when its session died, or NULL */
	size_t input;         /* bytes of input that are read ahead */
	void *(*new)(const struct conf *conf, const char *mechanisms, bool can_starttls, bool tls);
	void (*free)(void **engine);
	struct buf *(*out)(void *engine);
	void (*greet)(void *engine);
	size_t (*feed)(void *engine, struct slice in, struct front_action *a);
	void (*tls_done)(void *engine, const char *mechanisms);
	void (*challenge)(void *engine, struct slice data);
	void (*failed)(void *engine, enum front_failure why);
	void (*ok)(void *engine, struct slice final, bool has_final);
	void (*unavailable)(void *engine, enum front_failure why);
	void (*bye)(void *engine, const char *text);
	/* Why the engine ended the dialogue, and the parameter of a limit that was met, or NULL. */
	const char *(*ended)(const void *engine, const char **limit_r);
	void (*handover)(const void *engine, struct slice peer, struct slice sid, struct buf *out);
};

extern const struct front front_imap, front_pop3;

#endif
