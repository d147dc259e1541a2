/*
 * The queue manager: what its files share. One process, one loop; threads see struct spool_op only.
 *
 *   receive.c   receivers: transactions, checks; receive_envelope.c what they bring; reply.c what
 *               they hear
 *   route.c     routes and sites, cached
 *   token.c     users of tokens, cached
 *   sender.c    senders that are not the login's own
 *   message.c   the state machine at work
 *   disk.c      messages and their files; spool.c the calls of the system, pool.c the threads
 *   deliver.c   the direct way and the schedule; job.c and result.c its jobs
 *   agents.c    delivery children and smtp-client processes
 *   notice.c    jobs for bounce
 *   expand.c    new messages from .forward and :include:
 *   recover.c   the walk at the start
 *   control.c   bulkhead queue ...; control_print.c what it says of messages
 *   limits.c    timers, IDs, limits of intake; main.c start, stop, links
 */
#ifndef QMGR_QMGR_H
#define QMGR_QMGR_H

#include "daemon/daemon.h"
#include "qmgr/incoming.h"
#include "queue/mail.h"
#include "queue/rate.h"
#include "queue/sched.h"

/* Questions that maps has under way, of each kind: routes, and addresses of expansions. */
#define MAPS_WINDOW 256u

struct job;
struct agent;
struct transaction;
TAILQ_HEAD(jobs, job);
TAILQ_HEAD(messages, message);
TAILQ_HEAD(questions, question);

/* --- routes --- */

struct route {
	struct hash_node node; /* by address, while cached */
	TAILQ_ENTRY(route) lru;
	unsigned int refs;
	bool cached;
	unsigned int status; /* 0 ok, 1 permanent, 2 temporary */
	enum route_kind kind;
	enum run_kind run;
	uint32_t uid, gid, flags;
	uint16_t port;
	struct msg_list groups;
	/* all in one arena of its own */
	struct arena arena;
	struct slice address, enhanced, text, transport, nexthop, user, home, mailbox, extension,
	    argument;
	struct slice agent; /* kind local: who the delivery child is */
};

/* --- messages in memory --- */

struct rcpt {
	struct route *route;
	struct job *job;
	bool dirty;               /* its slot on disk is older than its status */
	bool expanded;            /* waits for the message made of its expansion */
	bool told;                /* is in the notice under way */
	uint32_t expansion_bytes; /* of the report under way */
};

struct message {
	struct hash_node node;    /* by id text */
	TAILQ_ENTRY(message) lru; /* in q->idle while nothing happens to it */
	char name[QUEUE_ID_SIZE];
	enum msg_state state;
	struct arena arena;
	struct envelope env;
	struct rcpt *rcpts;
	unsigned int counts[RCPT_STATES];
	struct buf content; /* small, as it lies on the disk */
	bool has_content;
	int read_fd;     /* large: -1 unless open */
	int64_t born_ms; /* of the internal clock: in memory since */
	int64_t arrived; /* likewise, where env.arrival is what the wall clock said */
	/* the client */
	struct transaction *waits;
	/* direct */
	TAILQ_ENTRY(message) direct; /* in q->direct, or in q->replies while LMTP waits */
	int64_t deadline;
	struct sched_waiter waiter; /* for a slot, while it is on the direct way */
	bool on_direct, on_replies, is_idle;
	/* disk */
	struct queue_layout layout;
	bool on_disk, has_file, busy; /* busy: an operation runs */
	queue_id incoming;            /* has_file: its name in incoming/, or 0 */
	bool flush_again, set_mtime, set_mode;
	bool asked; /* an administrator waits until hold, release or removal is durable */
	mode_t mode;
	bool holding; /* mode HELD is or will be on the disk */
	/* jobs */
	struct jobs jobs;
	unsigned int routing, loading; /* answers that are not there yet */
	unsigned int noticing;         /* NOTIFY_* of the notice under way */
	TAILQ_ENTRY(message) notice;   /* in q->noticing, while a notice is under way */
	uint32_t notice_id;
	const struct ipc_chan *notice_chan; /* of the bounce process that has it */
	struct sched_site *notice_site;
	struct sched_msg *sm;
	size_t bytes;      /* what it counts in q->memory */
	unsigned int pins; /* callbacks that refer to it */
	/* jobs whose slot is taken and that wait for content and routes */
	struct start {
		struct sched_job *sj;
		struct sched_site *site;
	} * starts;
	size_t n_starts;
	bool expired, late;           /* to be told when it is loaded */
	bool want_unlink, want_aside; /* aside: into corrupt/ */
	int commit_err;
	unsigned int refuse_code; /* why it was not sealed */
	const char *refuse_enhanced, *refuse_text;
	struct expansion_job *expansions;
	/* made by an expansion: from whom, and what is copied of a large parent */
	struct expansion_job *from;
	int copy_fd;
	size_t n_copy;
	struct envelope_extent copy[ENVELOPE_EXTENTS_MAX];
	bool bare; /* only its ID is known: not loaded */
	struct control_list *show;
};

struct job {
	uint32_t id;
	struct message *msg;
	struct sched_job *sj;    /* NULL: direct, or deleted meanwhile */
	struct sched_site *site; /* its slot */
	struct agent *agent;
	struct route *route; /* of its first recipient: where to */
	TAILQ_ENTRY(job) of_msg, of_agent;
	struct heap_node deadline;
	int64_t started;
	bool direct, again;
	struct buf parts; /* expansions of a report that comes in several parts */
	uint32_t n_parts;
	uint32_t n;
	uint32_t rcpts[];
};

/* --- agents --- */

enum agent_kind { AGENT_DELIVERY, AGENT_CLIENT };

struct agent {
	struct hash_node node; /* DELIVERY: by route->agent */
	TAILQ_ENTRY(agent) link;
	enum agent_kind kind;
	struct ipc_chan *chan; /* NULL: DELIVERY that is being started */
	uint32_t start_id;
	struct jobs jobs; /* sent, or waiting for the start */
	unsigned int n_jobs;
	int64_t started, idle_since;
	pid_t pid;
	char *key;
	bool retired; /* DELIVERY: gets no further job, and is not in the hash */
};

/* --- clients of receivers --- */

struct transaction {
	struct hash_node node; /* by channel and id */
	unsigned char key[16];
	struct ipc_chan *chan;
	uint32_t id;
	struct message *msg;
	bool committed, opened;
};

struct expansion_job;
struct site_entry;
struct token_entry;
struct sender_question;
struct question;
struct control_list;

struct qmgr {
	struct daemon *d;
	struct sched *sched;
	size_t receivers;           /* channels of receivers that are up */
	struct ev_timer lock_timer; /* until the former qmgr lets go of the spool */
	bool lock_waited;
	struct pool *pool;
	struct spool spool;
	struct incoming incoming;
	struct queue_id_source ids;
	queue_id first_id;    /* of this start */
	int64_t clock_offset; /* internal clock - monotonic, ms */
	int64_t clock_seen;   /* wall clock - monotonic, when last looked at */
	struct hash messages, transactions, routes, questions, sites, groups, tokens, children;
	struct messages idle, direct, replies, noticing;
	TAILQ_HEAD(, expansion_job) expansions, expansion_turns;
	size_t expansion_asked; /* addresses of expansions that maps has under way */
	TAILQ_HEAD(, route) route_lru;
	struct questions asked, to_ask, bulk; /* bulk: to ask, of large messages */
	size_t n_asked;
	TAILQ_HEAD(site_lru, site_entry) site_lru;
	TAILQ_HEAD(token_lru, token_entry) token_lru;
	TAILQ_HEAD(, sender_question) senders;
	TAILQ_HEAD(, agent) agents;
	struct job **jobs; /* by the low bits of their id */
	size_t n_jobs, jobs_running;
	struct heap deadlines;               /* of jobs */
	struct rate_table rates, user_rates; /* of clients; of logins, by the hour */
	struct ev_timer timer;
	int64_t timer_at;
	size_t memory, open_files, open_limit;
	bool low_space, broken; /* broken: an fsync failed with EIO */
	bool clock_asked;
	int64_t next_space, stop_at;
	/* recovery */
	bool walking;
	unsigned int walk_dir, walk_running;
	struct {
		size_t found, removed, corrupt, recovered;
	} walked;
	uint64_t odd; /* events and reports that the tables do not know */
	uint32_t next_id;
	TAILQ_HEAD(, control_list) lists;
	size_t unsure;  /* messages of which an administrator waits until they are durable */
	int unsure_err; /* of one of them, or 0 */
	bool pumping, pump_again;
};

/* The internal clock: what the wall clock said at the start, and from then on by the monotonic one.
 * All that is waited for is reckoned in it, so a step of the wall clock moves nothing; only what
 * stands on the disk is the wall clock's. */
static inline int64_t
qmgr_now(const struct qmgr *q)
{
	return ev_now_us() / 1000 + q->clock_offset;
}

/* limits.c */
/* A time of the wall clock (ms), as it is now, in the internal clock; never after now. */
int64_t qmgr_past(const struct qmgr *q, int64_t wall_ms);
/* on_timer runs at that time at the latest. */
void qmgr_arm(struct qmgr *q, int64_t at);
/* Ends the daemon, after a stop, when nothing is under way. */
void qmgr_stop_if_idle(struct qmgr *q, int64_t now);
struct sched_limits qmgr_limits(const struct conf *conf);
/* An operation that reserves the next IDs. */
struct spool_op *qmgr_reserve(struct qmgr *q);
/* 0: none may be given now. */
queue_id qmgr_new_id(struct qmgr *q);
/* Why no content can be taken now: 0, or 451/452 with texts. size: of the message. file: it needs a
 * new one. reserve: may use what is kept back from intake (notices). */
unsigned int qmgr_refuses(struct qmgr *q, uint64_t size, bool file, bool reserve,
    const char **enhanced_r, const char **text_r);

/* The same for an error of the disk or for want of descriptors. */
unsigned int qmgr_disk_reply(int err, const char **enhanced_r, const char **text_r);
/* What an admin can do about it. */
const char *qmgr_disk_remedy(int err);

/* message.c */
struct message *message_new(struct qmgr *q);
struct message *message_find(struct qmgr *q, queue_id id);
void message_set_id(struct qmgr *q, struct message *m, queue_id id);
/* Runs the cell of the table; the message may be freed afterwards unless it is pinned. */
void message_event(struct qmgr *q, struct message *m, enum msg_event event);
void message_pin(struct qmgr *q, struct message *m);
/* May free it. */
void message_unpin(struct qmgr *q, struct message *m);
void message_account(struct qmgr *q, struct message *m);
/* One recipient; counts and the dirty mark follow. False: odd, nothing changed. */
bool message_rcpt(struct qmgr *q, struct message *m, size_t i, enum rcpt_event event);
/* Looks at all recipients and runs the event that is due. */
void message_judge(struct qmgr *q, struct message *m);
/* The direct way is over for it, if it was on it; jobs under way go on. */
void message_leave_direct(struct qmgr *q, struct message *m);
/* Lets go of what nobody needs: all of it, or what the disk has as well. */
void message_settle(struct qmgr *q, struct message *m);
/* Out of the schedule; slots that were taken for it are given back. */
void message_unschedule(struct qmgr *q, struct message *m);
/* disk.c: gives it to the pool, what is known of its recipients with it. */
void message_commit(struct qmgr *q, struct message *m);
void message_unlink(struct qmgr *q, struct message *m);
bool message_needs_flush(const struct message *m);
/* Writes what is dirty, if the file is there and no operation runs. */
void message_flush(struct qmgr *q, struct message *m);
/* A message in state DONE whose file came to be only now. */
void message_drop(struct qmgr *q, struct message *m);
void message_hold(struct qmgr *q, struct message *m, bool hold);
/* What is done to the message next (hold, release, removal) is synced, and counts in q->unsure
 * until it is. */
void message_ask(struct qmgr *q, struct message *m);
void message_answered(struct qmgr *q, struct message *m, int err);
/* Notices that are due for recipient i: NOTIFY_* bits. */
unsigned int message_due_notices(const struct qmgr *q, const struct message *m, size_t i);
int64_t message_expires(
    const struct qmgr *q, int64_t arrived, unsigned int flags, bool null_sender);
/* It has expired or is late, and is loaded. */
void message_overdue(struct qmgr *q, struct message *m);
void message_evict(struct qmgr *q);
/* The in-memory form of a waiting message; loads it if need be and then goes on with what waits. */
struct message *message_need(struct qmgr *q, queue_id id);
/* The same without loading: enough to hold, release or delete it. */
struct message *message_bare(struct qmgr *q, queue_id id);
/* The recipients' array for an envelope that is complete. */
void message_rcpts(struct message *m);

/* receive.c */
void receive_message(struct qmgr *q, struct ipc_chan *ch, struct msg *m);
void receive_link_down(struct qmgr *q, struct ipc_chan *ch);
/* Nobody waits for it any more. */
void receive_forget(struct qmgr *q, struct message *m);
/* receive_envelope.c: false if it does not hold together. */
bool receive_rcpts(struct message *m, struct msg_list list);
bool receive_envelope(
    struct qmgr *q, struct message *m, struct transaction *t, const struct msg_mail_commit *c);
/* What lies behind it in the file is no part of the message. */
uint64_t receive_content_end(const struct envelope *e);

/* reply.c */
/* 250, if somebody still waits; with LMTP it may come later (q->replies), when more is known. */
void reply_ok(struct qmgr *q, struct message *m, enum msg_state was);
/* The failures: the first, or each where reply_tells_all. */
void reply_failed(struct qmgr *q, struct message *m);
void reply_later(struct qmgr *q, struct message *m);
/* The client can be told what became of each recipient, so that nobody needs a notice. */
bool reply_tells_all(const struct message *m);

/* route.c */
/* Asks for the routes of all open recipients; calls message_routed when all are there (maybe at
 * once). */
void route_message(struct qmgr *q, struct message *m);
void message_routed(struct qmgr *q, struct message *m); /* deliver.c */
void route_answer(struct qmgr *q, struct ipc_chan *ch, const struct msg *m);
void site_answer(struct qmgr *q, const struct msg *m);
void route_changed(struct qmgr *q);
void route_link_up(struct qmgr *q, enum role peer);
void route_drop(struct qmgr *q, struct route **r);
struct sched_site *route_site(struct qmgr *q, const struct route *r);
/* token.c: who it is; receive_checked, or sender_judge, goes on. */
void token_ask(struct qmgr *q, struct message *m, struct slice token);
void token_answer(struct qmgr *q, const struct msg *m);
void token_link_up(struct qmgr *q);
/* sender.c: the sender is none of the login's own addresses: asks smtpd_sender_login_maps. */
void sender_judge(struct qmgr *q, struct message *m, struct slice user);
void sender_answer(struct qmgr *q, const struct msg *m);
void sender_link_up(struct qmgr *q);
/* receive.c: the user of a token, or why there is none (code 0: ok). */
void receive_checked(struct qmgr *q, struct message *m, struct slice user, unsigned int code,
    const char *enhanced, const char *text);

/* deliver.c */
void deliver_pump(struct qmgr *q);
void deliver_offer(struct qmgr *q, struct message *m);
/* Recipients that became open without a job: back into the schedule. */
void deliver_resettle(struct qmgr *q, struct message *m);
/* Which way a message with its routes goes; DIRECT_SOON: it waits for a slot from now on. */
enum direct_way { DIRECT_NO, DIRECT_NOW, DIRECT_SOON };
enum direct_way deliver_direct(struct qmgr *q, struct message *m);
void deliver_schedule(struct qmgr *q, struct message *m);
void deliver_result(struct qmgr *q, struct ipc_chan *ch, const struct msg *m);
/* The agent will not report: died, or never started. reached: it had the job. */
void deliver_lost(struct qmgr *q, struct job *j, bool reached, const char *why);
/* Sends to the job's agent again, which has died: once, and only where a repeat does no harm. */
bool deliver_again(struct qmgr *q, struct job *j);
void deliver_timeouts(struct qmgr *q, int64_t now);
/* Jobs that no agent has seen are taken back; the message is given up. */
void deliver_stop_new(struct qmgr *q, struct message *m);
int deliver_send(struct qmgr *q, struct job *j); /* to its agent, which is there */

/* agents.c */
struct agent *agent_for(struct qmgr *q, const struct route *r);
bool agents_ready(const struct qmgr *q, const struct route *r);
void agent_add(struct agent *a, struct job *j);
void agent_remove(struct qmgr *q, struct agent *a, struct job *j);
void agents_link_up(struct qmgr *q, struct ipc_chan *ch);
void agents_link_down(struct qmgr *q, struct ipc_chan *ch);
void agents_started(struct qmgr *q, struct msg *m);
void agents_idle(struct qmgr *q, int64_t now);
struct agent *agent_of(struct qmgr *q, const struct ipc_chan *ch);
void agents_kill(struct qmgr *q, struct agent *a);

/* notice.c */
void notice_schedule(struct qmgr *q, struct message *m);
void notice_start(struct qmgr *q, struct message *m, struct sched_job *sj);
void notice_done(struct qmgr *q, const struct ipc_chan *ch, const struct msg *m);
/* Only what was given to that one comes back: with a successor there are two for a while. */
void notice_link_down(struct qmgr *q, const struct ipc_chan *ch);

/* expand.c */
void expand_result(struct qmgr *q, struct message *m, uint32_t slot, struct msg_list addresses);
void expand_continue(struct qmgr *q, struct message *m);
/* The parent is given up or deleted: its expansions with it. */
void expand_drop(struct qmgr *q, struct message *m);
void expand_committed(struct qmgr *q, struct message *child);
void expand_verdict(struct qmgr *q, const struct ipc_chan *ch, const struct msg *m);
void expand_link_down(struct qmgr *q, const struct ipc_chan *ch);
void expand_link_up(struct qmgr *q);

/* recover.c */
void recover_start(struct qmgr *q);
/* An upgrade is under way: a successor runs, this process commits what its receivers still bring.
 */
bool qmgr_hands_over(const struct qmgr *q);

/* control.c */
void control_request(struct daemon *d, struct ipc_chan *ch, uint32_t id, uint32_t uid,
    const struct slice *words, size_t n);
void control_loaded(struct qmgr *q, struct message *m); /* a message that a verb waits for */
void control_not_loaded(struct qmgr *q, struct message *m, int err);
void control_turn(struct qmgr *q);
void control_link_down(struct qmgr *q, struct ipc_chan *ch);
void control_status(struct daemon *d, struct buf *out);

#endif
