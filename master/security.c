/*
 * `bulkhead security`: every process of the suite as the kernel shows it in /proc, and what each
 * daemon found itself by trying at its start.
 */
#include "master/master.h"

#include "daemon/jail.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct seen {
	pid_t pid, parent;
	uid_t uid;
	int seccomp, nnp;
	unsigned long long caps;
	char root[256], name[32];
};

static const char *
field(const char *status, const char *name)
{
	const char *at = strstr(status, name);

	return at ? at + strlen(name) : "0";
}

static bool
look(pid_t pid, struct seen *out)
{
	char path[64], status[4096];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, status, sizeof(status) - 1);
	close(fd);
	if (n <= 0)
		return false;
	status[n] = '\0';
	*out = (struct seen){ .pid = pid };
	out->parent = (pid_t)strtol(field(status, "\nPPid:\t"), NULL, 10);
	out->uid = (uid_t)strtoul(field(status, "\nUid:\t"), NULL, 10);
	out->nnp = (int)strtol(field(status, "\nNoNewPrivs:\t"), NULL, 10);
	out->seccomp = (int)strtol(field(status, "\nSeccomp:\t"), NULL, 10);
	out->caps = strtoull(field(status, "\nCapEff:\t"), NULL, 16);
	(void)sscanf(field(status, "Name:\t"), "%31s", out->name);
	snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
	n = readlink(path, out->root, sizeof(out->root) - 1);
	if (n < 0)
		snprintf(out->root, sizeof(out->root), "?");
	return true;
}

static const struct process *
daemon_of(const struct master *m, pid_t pid)
{
	const struct service *s;
	const struct process *p;

	TAILQ_FOREACH(s, &m->services, next)
		TAILQ_FOREACH(p, &s->processes, next)
			if (p->pid == pid)
				return p;
	return NULL;
}

static void
row(const struct seen *s, const char *role, struct buf *out)
{
	buf_addf(out, "%8d %-17s %10u %-7s %-3s %-16llx %s\n", (int)s->pid, role, (unsigned)s->uid,
	    s->seccomp == 2 ? "filter" : "none", s->nnp ? "yes" : "no", s->caps, s->root);
}

void
security_report(struct master *m, struct buf *out)
{
	DIR *dir = opendir("/proc");
	struct buf reports = { 0 };
	struct dirent *e;
	struct seen s;

	/* The kernel hides the root of processes that are not dumpable from an ordinary user. */
	if (m->unprivileged)
		buf_add_str(out, "This instance is run by an ordinary user: one uid for all, no "
				 "chroot; the rest of the jail as ever.\n");
	buf_addf(out, "%8s %-17s %10s %-7s %-3s %-16s %s\n", "PID", "ROLE", "UID", "SECCOMP", "NNP",
	    "CAPABILITIES", "ROOT");
	while (dir && (e = readdir(dir))) {
		pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
		const struct process *p, *zygote;
		char role[64];
		if (pid <= 0 || !look(pid, &s))
			continue;
		if (m->unprivileged)
			snprintf(s.root, sizeof(s.root), "/");
		p = daemon_of(m, pid);
		zygote = daemon_of(m, s.parent);
		if (pid == getpid())
			row(&s, "master", out);
		else if (p) {
			row(&s, role_table[p->service->role].name, out);
			buf_addf(&reports, "%s[%s] %s\n", p->service->program, p->service->name,
			    p->report ? p->report : "not ready");
		} else if (zygote) {
			snprintf(
			    role, sizeof(role), "%s child", role_table[zygote->service->role].name);
			row(&s, role, out);
		}
	}
	if (dir)
		closedir(dir);
	buf_add_str(out, "\nWhat each daemon found by trying at its start:\n");
	buf_add(out, buf_slice(&reports));
	buf_free(&reports);
}

void
security_tell_missing(void)
{
	int abi = jail_landlock_abi();

	if (abi >= 6 || abi < 2) /* without the least of it no daemon starts, and says so */
		return;
	log_event(LOG_landlock_partial, "abi=%d missing=\"%ssignals, abstract sockets\"", abi,
	    abi < 4 ? "TCP ports, " : "");
}
