/* pickup: the folder and the one message that is being taken in. */
#ifndef PICKUP_PICKUP_H
#define PICKUP_PICKUP_H

#include "receive/mail.h"
#include "smtp/maildrop.h"
#include "mail/header.h"
#include "smtp/line.h"

#define PICKUP_NAME 128 /* longest file name that is looked at */
#define PICKUP_USERS 256

/* A file that waits. */
struct waiting {
	STAILQ_ENTRY(waiting) next;
	char name[PICKUP_NAME];
};

/* A file whose message is in the queue, and that could not be removed: not to be taken again. */
struct taken {
	STAILQ_ENTRY(taken) next;
	char name[PICKUP_NAME];
	uint64_t inode;
	int64_t mtime_ns;
};

struct final_list {
	struct slice list; /* of final_addr */
	uint32_t count;
	struct slice original;
};

struct pickup {
	struct daemon *d;
	struct receiver receiver;
	int dir, inotify;
	struct event *changed;
	struct ev_timer rescan, patience;
	STAILQ_HEAD(, waiting) files;
	STAILQ_HEAD(, taken) taken;
	size_t waiting, n_taken;
	bool again; /* something came while a message was under way */
	/* users that may submit */
	bool anyone;
	struct {
		uint32_t uid;
		bool no;
	} submit[PICKUP_USERS];
	size_t n_submit;
	/* the message under way */
	bool busy;
	char name[PICKUP_NAME];
	int fd;
	uint32_t uid;
	char id[16];
	uint64_t size; /* of the file */
	uint64_t at;   /* read so far */
	struct arena arena;
	struct buf head;
	struct maildrop envelope;
	struct slice sender;
	struct final_list *finals;
	size_t next_rcpt, count; /* of the envelope's recipients, and always_bcc */
	struct rcpt_question question;
	struct mail mail;
	struct header_scan header;
	struct content_reader content;
	size_t trace_length;
	bool head_done, committing;
	int64_t began; /* wall clock, microseconds */
};

/* folder.c */
int folder_open(struct pickup *p);
void folder_scan(struct pickup *p);
/* The next file that may be taken, or false. */
bool folder_next(struct pickup *p, char name_r[PICKUP_NAME]);
/* Opens a file if it is one that a user can have left: regular, one link, not too large. */
int folder_take(struct pickup *p, const char *name, uint32_t *uid_r, uint64_t *size_r);
/* Whether a failure of folder_take says something of the file, not of the disk or of what this
 * process has. */
bool folder_is_odd(int err);
const char *folder_remedy(int err);
/* Puts a file that can never be taken out of the way; nothing is deleted. */
void folder_set_aside(struct pickup *p, const char *name, uint32_t uid, const char *why);
/* The message of this file, fd, is in the queue: removes it, now or at a later scan. */
void folder_remove(struct pickup *p, const char *name, int fd);

/* take.c */
extern const struct mail_ops take_mail_ops;
void take_next(struct pickup *p);
void take_all(void *ctx);

#endif
