/*
 * A front end that speaks SMTP or LMTP: what its zygote and its children share, and the callbacks
 * that smtpd/main.c and submission/main.c give to the skeleton.
 */
#ifndef RECEIVE_SERVICE_H
#define RECEIVE_SERVICE_H

#include "daemon/acceptor.h"
#include "receive/receiver.h"
#include "smtp/server.h"
#include "tls/set.h"

struct session;

/* A policy made of one configuration; sessions keep the one that they began with. */
struct service_policy {
	unsigned refs;
	struct conf *conf; /* counted */
	struct arena arena;
	struct smtp_policy net;   /* clients of the network */
	struct smtp_policy local; /* of the local socket: sendmail(1) */
	bool wrapper;             /* TLS from the first byte */
};

struct name_entry {
	unsigned char address[16];
	int64_t until;
	uint8_t status;
	char name[256];
};
#define NAME_CACHE 64

struct service {
	enum smtp_service kind;
	struct tls_set tls;
	struct service_policy *policy;
	/* --- of a child --- */
	struct daemon *d;
	struct receiver receiver;
	TAILQ_HEAD(, session) sessions;
	TAILQ_HEAD(, session) turns; /* that wait with DATA, the oldest first */
	unsigned committing;         /* sessions between the final dot and the reply */
	struct event *turn;
	struct name_entry names[NAME_CACHE];
	unsigned char *input; /* shared read buffer */
	/* users that may use sendmail(1): uids; all when n_allowed is 0 and anyone is set */
	bool anyone;
	struct {
		uint32_t uid;
		bool no;
	} submit[256];
	size_t n_submit;
};

#define SERVICE_INPUT 65536u

/* Desc callbacks of the zygote. */
int service_init(struct daemon *d, struct service *s, enum smtp_service kind);
void service_tls(struct daemon *d, const struct msg *m);
void service_reload(struct daemon *d, const struct conf *old);
const char *service_refusal(struct daemon *d, unsigned listener);
/* Desc callbacks of the child. */
int service_child_start(struct daemon *d);
void service_child_message(struct daemon *d, struct ipc_chan *ch, struct msg *m);
void service_child_link_down(struct daemon *d, struct ipc_chan *ch);
void service_child_stop(struct daemon *d);
void service_child_orphaned(struct daemon *d);
#define SERVICE_CHILD                                                                              \
	.start = service_child_start, .message = service_child_message,                            \
	.link_down = service_child_link_down, .stop = service_child_stop,                          \
	.orphaned = service_child_orphaned

struct service_policy *service_policy_new(struct daemon *d, enum smtp_service kind);
struct service_policy *service_policy_ref(struct service_policy *p);
void service_policy_unref(struct service_policy *p);

#endif
