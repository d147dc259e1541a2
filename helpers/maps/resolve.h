/*
 * Address resolution: which addresses a recipient stands for, whether it is taken, and where its
 * mail goes. Pure: tables and users are asked through struct resolve_ops. A look-up that has no
 * answer yet makes the whole call return -EAGAIN; it is called again, with the same arguments, when
 * the answer is there. All text that is returned lives in the arena of the call.
 */
#ifndef MAPS_RESOLVE_H
#define MAPS_RESOLVE_H

#include "base/arena.h"
#include "base/buf.h"
#include "conf/conf.h"
#include "db/alias.h"
#include "queue/mail.h"

#include <sys/types.h>

enum resolve_table {
	TABLE_CANONICAL,
	TABLE_SENDER_CANONICAL,
	TABLE_RECIPIENT_CANONICAL,
	TABLE_VIRTUAL_ALIAS,
	TABLE_ALIAS,
	TABLE_LOCAL_RECIPIENT,
	TABLE_VIRTUAL_MAILBOX,
	TABLE_VIRTUAL_UID,
	TABLE_VIRTUAL_GID,
	TABLE_RELAY_RECIPIENT,
	TABLE_TRANSPORT,
	TABLE_RELOCATED,
	TABLE_RECIPIENT_BCC,
	TABLE_COUNT
};

#define RESOLVE_GROUPS 64

/* A system user, or an account made by `bulkhead user`; strings in the arena of the call. */
struct resolve_user {
	const char *name;
	uint32_t uid, gid;
	uint32_t groups[RESOLVE_GROUPS];
	size_t ngroups;
	const char *home;
	const char *mailbox; /* of an account: the spec of db/mailbox.h; else NULL */
};

struct resolve_ops {
	/* 0 and the value appended; ERR_NOT_FOUND; -EAGAIN; else temporary. whole: key is no part
	 * of an address. */
	int (*lookup)(
	    void *ctx, enum resolve_table table, struct slice key, bool whole, struct buf *value);
	/* Whether the parameter names a table at all. */
	bool (*defined)(void *ctx, enum resolve_table table);
	/* A "type:name" word of a list of domains. */
	int (*named)(void *ctx, struct slice spec, struct slice key, struct buf *value);
	/* The same results; *user_r is filled in on 0. */
	int (*passwd)(void *ctx, struct slice name, struct arena *a, struct resolve_user *user_r);
	int (*account)(
	    void *ctx, struct slice address, struct arena *a, struct resolve_user *user_r);
	/* Whether an interface of this machine has that address. */
	bool (*own)(void *ctx, struct slice literal);
};

struct resolver {
	const struct conf *conf;
	const struct resolve_ops *ops;
	void *ctx;
};

/* Flags of rcpt_check. */
enum resolve_flag {
	RESOLVE_MAY_RELAY = 1, /* the client may send anywhere */
	RESOLVE_LOCAL = 2,     /* local submission */
	RESOLVE_FINAL = 4,     /* no expansion, check only */
	RESOLVE_SENDER = 8,    /* the address is a sender: rewrite it, nothing else */
	RESOLVE_MAILBOX = 16,  /* \name of an alias or .forward: no alias of it; if it is a final
				  address here, it comes back with the \ */
};

/* An address taken apart. Empty domain: there is none. */
struct resolve_address {
	struct slice full;  /* local-part with least quoting, lower-case domain */
	struct slice local; /* as in full */
	struct slice domain;
	struct slice user;      /* local-part without quotes and extension, lower case */
	struct slice extension; /* without the delimiter, case kept */
	struct slice plain;     /* local-part without quotes, extension kept, lower case */
};

enum resolve_class {
	CLASS_LOCAL,
	CLASS_VIRTUAL_ALIAS,
	CLASS_VIRTUAL_MAILBOX,
	CLASS_RELAY,
	CLASS_DEFAULT
};

struct resolve_verdict {
	unsigned code;
	const char *enhanced, *text;
	struct slice *finals; /* with a code of 2xx: at least one */
	size_t nfinals;
	bool cacheable; /* holds until a table changes: no user of the system was asked */
};

/* The answer to rcpt_check. 0 or -EAGAIN. */
int resolve_rcpt(const struct resolver *r, struct slice address, uint32_t flags, struct arena *a,
    struct resolve_verdict *out_r) CHECKED;

struct resolve_route {
	unsigned status; /* 0 ok, 1 permanent, 2 temporary */
	const char *enhanced, *text;
	enum route_kind kind;
	struct slice transport, nexthop;
	unsigned port; /* 0: that of the transport */
	struct resolve_user user;
	struct slice mailbox, extension;
	enum run_kind run;
	uint32_t flags; /* enum route_flag */
	struct slice argument;
};

/* The answer to route; "\address" is the mailbox itself, without alias and
 * .forward. 0 or -EAGAIN. */
int resolve_route(const struct resolver *r, struct slice address, struct arena *a,
    struct resolve_route *out_r) CHECKED;

/* --- shared by the files of this engine --- */

/* A deferral; 0. */
int resolve_defer(struct resolve_route *out, const char *enhanced, const char *text);
/* Takes "transport:nexthop" over; nexthop is used where the value names none. */
void resolve_transport(
    struct resolve_route *out, struct slice value, struct slice nexthop, struct arena *a);
/* The transport table: the address, its domain, the parents of that, and "*". */
int resolve_transport_lookup(const struct resolver *r, const struct resolve_address *addr,
    struct arena *a, struct slice *value_r) CHECKED;

/* Parses and completes an address ($myorigin, $mydomain). ERR_SYNTAX. */
int resolve_parse(const struct resolver *r, struct slice text, struct arena *a,
    struct resolve_address *out_r) CHECKED;
/* The class of a domain. */
int resolve_class(const struct resolver *r, struct slice domain, struct arena *a,
    enum resolve_class *out_r) CHECKED;
/* Looks an address up in its forms: user+ext@domain, user@domain, user+ext and user (local
 * domains),
 * @domain. The value is a text in the arena; *form_r says which form matched. */
enum resolve_form { FORM_ADDRESS, FORM_USER_DOMAIN, FORM_LOCAL, FORM_USER, FORM_DOMAIN };
int resolve_lookup(const struct resolver *r, enum resolve_table table,
    const struct resolve_address *addr, struct arena *a, struct slice *value_r,
    enum resolve_form *form_r) CHECKED;
/* The value of an alias: local-part with, then without extension; postmaster, abuse and
 * mailer-daemon fall back on root where neither alias nor user exists. */
int resolve_alias(const struct resolver *r, const struct resolve_address *addr, struct arena *a,
    struct slice *value_r) CHECKED;
/* Whether an item of the alias of addr is addr itself: 1, 0 or the error of a table. */
int resolve_is_itself(const struct resolver *r, const struct resolve_address *addr,
    const struct alias_item *item, struct arena *a) CHECKED;
/* Whether it is \name of another user here, whose mailbox delivery alone can ask for: the same. */
int resolve_is_mailbox(const struct resolver *r, const struct resolve_address *addr,
    const struct alias_item *item, struct arena *a) CHECKED;
/* Rewrites *addr by a canonical table until it changes no more. */
int resolve_rewrite(const struct resolver *r, enum resolve_table table, struct arena *a,
    struct resolve_address *addr) CHECKED;
/* Cuts subdomains of masquerade_domains off; a word !NAME leaves a domain alone. */
int resolve_masquerade(
    const struct resolver *r, struct arena *a, struct resolve_address *addr) CHECKED;

#endif
