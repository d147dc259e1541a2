/*
 * The way while the suite is down: a file in maildrop/, which pickup takes in later. Runs as the
 * caller, who may create files in that folder and see none. Order: written and synced under a name
 * that pickup does not look at, renamed, the folder synced; so a name that pickup sees is a whole
 * message, and exit status 0 means that it survives a power cut.
 */
#include "submission/sendmail/sendmail.h"

#include "base/io.h"
#include "ev/ev.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

/* What was not synced is taken back; where pickup was faster it is in the queue, which is as good.
 */
static int
take_back(const char *folder, const char *name, int err)
{
	if (unlink(name))
		return EX_OK;
	return complain(EX_TEMPFAIL, "%s: %s", folder, err_str(err));
}

/* The folder may not be readable for us: then its sync is left to the file system, which orders the
 * rename behind the file. */
static void
sync_folder(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return;
	(void)!fsync(fd);
	close(fd);
}

static int
fill(int fd, struct job *job)
{
	struct buf head = { 0 };
	int err = maildrop_format(&head, &job->envelope);

	if (!err)
		err = io_write_all(fd, buf_slice(&head));
	if (!err)
		err = io_write_all(fd, buf_slice(&job->content));
	if (!err && fchmod(fd, 0640))
		err = err_errno();
	if (!err && fsync(fd))
		err = err_errno();
	buf_free(&head);
	return err;
}

int
drop_write(struct job *job)
{
	char folder[PATH_MAX], tmp[PATH_MAX + 64], name[PATH_MAX + 64];
	size_t limit = (size_t)job->conf->maildrop_file_limit;
	unsigned nonce = 0;
	int fd, err;

	if (limit && buf_len(&job->content) > limit)
		return complain(EX_TEMPFAIL,
		    "the mail system is down, and maildrop takes no message larger than "
		    "maildrop_file_limit (%zu bytes)",
		    limit);
	(void)!getrandom(&nonce, sizeof(nonce), 0);
	snprintf(folder, sizeof(folder), "%.3900s/maildrop", job->conf->queue_directory);
	snprintf(name, sizeof(name), "%s/%llX.%X.%08X", folder, (unsigned long long)ev_wall_us(),
	    (unsigned)getpid(), nonce);
	snprintf(tmp, sizeof(tmp), "%s/.%llX.%X.%08X", folder, (unsigned long long)ev_wall_us(),
	    (unsigned)getpid(), nonce);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return complain(EX_TEMPFAIL, "the mail system is down and %s cannot be written: %s",
		    folder, strerrordesc_np(errno));
	err = fill(fd, job);
	if (close(fd) && !err)
		err = err_errno();
	if (!err && rename(tmp, name))
		err = err_errno();
	if (err) {
		(void)unlink(tmp);
		return complain(EX_TEMPFAIL, "%s: %s", folder, err_str(err));
	}
	/* fsync after the rename makes the name durable too (ext4, XFS) */
	fd = open(name, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	err = fd < 0 || fsync(fd) ? err_errno() : 0;
	if (fd >= 0)
		close(fd);
	if (err && err != -ENOENT)
		return take_back(folder, name, err);
	sync_folder(folder);
	if (job->options.verbose)
		printf("the mail system is down: the message waits in maildrop\n");
	return EX_OK;
}
