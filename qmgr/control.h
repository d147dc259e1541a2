/* An answer to bulkhead queue that is under way: for control.c and control_print.c only. */
#ifndef QMGR_CONTROL_H
#define QMGR_CONTROL_H

#include "qmgr/qmgr.h"

/* An answer has 60,000 bytes at most; what is printed at once (a recipient, a destination of a
 * message) has less than the rest. */
#define CONTROL_CHUNK 45000u

enum group { BY_NONE, BY_DESTINATION, BY_SENDER, BY_REASON };
enum verb { VERB_LIST, VERB_FLUSH, VERB_HOLD, VERB_RELEASE, VERB_DELETE, VERB_REQUEUE };

struct control_list {
	TAILQ_ENTRY(control_list) link;
	struct ipc_chan *chan;
	uint32_t id;
	enum verb verb;
	enum group by; /* counts instead of messages */
	uint64_t scan;
	bool all, json, show;
	bool waits; /* all is said, not all of it is durable */
	size_t cursor, n, matched;
	struct buf out;
	struct arena arena;
	struct slice words[64];
};

/* What is in l->out goes to the asker. */
void control_send(struct control_list *l, bool more, int status);
/* Of a list; in parts, if it has many destinations. */
void control_print(const struct qmgr *q, struct control_list *l, const struct sched_msg *sm);
/* The next counts of l->by, less than a part. False: those were the last. */
bool control_print_counts(const struct qmgr *q, struct control_list *l, unsigned int steps);
/* All of a message that was loaded; the last part stays in l->out. */
void control_print_whole(const struct qmgr *q, struct control_list *l, const struct message *m);

#endif
