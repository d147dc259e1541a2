/*
 * The configuration that master hands to a daemon, and who still uses which. Runs in every process
 * that master or a zygote starts. The snapshot is master's, which is believed; a damaged one is
 * refused. Invariant: a snapshot is freed with its last user.
 */
#include "daemon/private.h"

#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct conf *
daemon_read_snapshot(int fd, char *why, size_t size)
{
	struct conf *conf = NULL;
	struct stat st;
	void *map;
	int err;

	if (fstat(fd, &st) || st.st_size <= 0 || st.st_size > CONF_SNAPSHOT_LIMIT) {
		snprintf(why, size, "configuration snapshot: bad size");
		return NULL;
	}
	map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (map == MAP_FAILED) {
		snprintf(why, size, "configuration snapshot: %s", err_str(err_errno()));
		return NULL;
	}
	err = conf_snapshot_decode(slice(map, (size_t)st.st_size), NULL, &conf);
	munmap(map, (size_t)st.st_size);
	if (err)
		snprintf(why, size,
		    "configuration snapshot: %s: is this program of the same build as master?",
		    err_str(err));
	return conf;
}

/* Reference counts of snapshots hang in a small table: at most a few generations live at once. */
struct conf_holder {
	struct conf *conf;
	unsigned refs;
};

#define GENERATIONS 64
static struct conf_holder holders[GENERATIONS];

struct conf *
daemon_conf_ref(struct daemon *d)
{
	struct conf_holder *spare = NULL;

	for (size_t i = 0; i < GENERATIONS; i++) {
		if (holders[i].conf == d->conf) {
			holders[i].refs++;
			return d->conf;
		}
		if (!holders[i].conf)
			spare = &holders[i];
	}
	if (!spare)
		die("more than %d configuration snapshots in use: restart instead of reloading",
		    GENERATIONS);
	*spare = (struct conf_holder){ d->conf, 2 }; /* the daemon's own and the caller's */
	return d->conf;
}

void
daemon_conf_unref(struct conf *conf)
{
	for (size_t i = 0; i < GENERATIONS; i++)
		if (holders[i].conf == conf) {
			if (!--holders[i].refs) {
				holders[i].conf = NULL;
				conf_free(&conf);
			}
			return;
		}
	conf_free(&conf);
}
