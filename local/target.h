/*
 * For whom and where a delivery child delivers: made by the zygote from deliver_start, opened by
 * the child as the user before it enters its root, read by its threads afterwards.
 */
#ifndef LOCAL_TARGET_H
#define LOCAL_TARGET_H

#include "base/arena.h"
#include "db/alias.h"
#include "db/mailbox.h"
#include "daemon/daemon.h"

#include <sys/types.h>

#define TARGET_GROUPS 65
#define TARGET_FILES 64

enum target_kind { TARGET_MAILDIR, TARGET_MBOX, TARGET_ALIAS };

/* A file that an alias names, opened before the root was entered. */
struct target_file {
	struct slice path;
	int fd;    /* -1: could not be opened */
	int error; /* then why */
};

struct target {
	struct arena arena;
	const char *user;
	uid_t uid;
	gid_t gid;
	gid_t groups[TARGET_GROUPS];
	size_t ngroups;
	/* The user's own, which come first; what follows is the group of the spool, which serves
	 * the mailbox and nothing that the user says. */
	size_t own_groups;
	const char *home, *spec;
	uint32_t flags; /* enum route_flag */
	enum target_kind kind;
	struct mailbox mailbox;
	/* Set by target_open. */
	const char *root;   /* as seen from outside: what paths are relative to */
	const char *path;   /* of the mailbox below root, relative */
	bool home_is_root;  /* .forward and files below home can be opened at any time */
	struct buf forward; /* else ~/.forward as it was at the start */
	bool has_forward;
	const char *trouble;      /* not NULL: nothing can be delivered here, and why */
	struct alias_items items; /* of an alias, :include: files in place */
	struct target_file files[TARGET_FILES];
	size_t nfiles;
};

/* Checks a request and copies it. ERR_SYNTAX or ERR_DENIED with *why_r for the deferral. */
int target_new(struct daemon *d, const struct msg_deliver_start *m, struct target **target_r,
    const char **why_r) CHECKED;
void target_free(struct target **t);

/*
 * In the child, as the user, before the jail is closed: opens what lies outside of the root and
 * enters it. Never fails: what is wrong is kept in t->trouble, and such a child enters the empty
 * directory.
 */
int target_open(struct daemon *child, void *target);
/* The file of an alias, opened at the start; NULL if the path is not one of them. */
const struct target_file *target_file(const struct target *t, struct slice path);
/* Reads a .forward: ERR_NOT_FOUND; ERR_DENIED with why: owner or mode are not to be trusted;
 * ERR_LIMIT with why. Another error: *why_r is NULL. */
int target_read_forward(const struct target *t, const char *path, const struct conf *conf,
    struct buf *text, const char **why_r) CHECKED;

#endif
