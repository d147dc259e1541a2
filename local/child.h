/* The delivery child: the process that has become the recipient. */
#ifndef LOCAL_CHILD_H
#define LOCAL_CHILD_H

#include "daemon/daemon.h"
#include "local/maildir.h"
#include "local/mbox.h"
#include "local/target.h"

extern const struct daemon_desc child_desc;

/* One delivery child; its threads share it. */
struct child {
	struct daemon *d;
	const struct conf *conf;
	const struct target *target;
	struct maildir maildir;
	struct mbox_options mbox;
	pthread_mutex_t files; /* one append at a time to a file that was opened beforehand */
};

/* A program to run, and what became of it. */
struct child_program {
	char **argv;        /* NULL-terminated, argv[0] absolute */
	char **environment; /* NULL-terminated NAME=value */
	const char *directory;
	int input; /* its standard input */
	/* Filled in: */
	unsigned kind; /* enum program_end */
	unsigned status;
	char output[1024]; /* printable, one line */
};

/* Asks the zygote and waits for the end. Called by threads. ERR_CLOSED: the zygote is gone. */
int child_run_program(struct child *c, struct child_program *p) CHECKED;

#endif
