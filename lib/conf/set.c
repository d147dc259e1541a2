/*
 * A whole configuration: both files of a folder, read and checked together, so that one run tells
 * every problem. Runs in master (root) and in the tools; the only file of lib/conf that opens
 * main.cf and master.cf. Invariant: always gives a complete set; p->errors says whether to use it.
 */
#include "conf/conf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void
read_file(const char *path, struct buf *out, struct conf_problems *p)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	ptrdiff_t n;

	out->limit = CONF_FILE_LIMIT + 65536;
	if (fd < 0) {
		conf_problem(p, path, 0, "create it, or name its folder with -c",
		    "cannot be opened: %s", err_str(err_errno()));
		return;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		conf_problem(p, path, 0, "replace it by one", "is not a regular file");
		close(fd);
		return;
	}
	while ((n = buf_read(out, fd, 65536)) > 0 && buf_len(out) <= CONF_FILE_LIMIT)
		;
	if (n < 0)
		conf_problem(
		    p, path, 0, "mend its file system", "cannot be read: %s", err_str((int)n));
	close(fd);
}

/* Overrides are checked by name, and each service gets a struct conf of its own. */
static void
eval_services(struct conf_set *set, struct conf_problems *p)
{
	struct conf_service *s;
	size_t i, j;

	for (i = 0; i < set->services->n; i++) {
		s = &set->services->v[i];
		for (j = 0; j < s->overrides_n; j++)
			(void)conf_check_name(set->raw, s->overrides[j].name, s->file, s->line, p);
		if (s->overrides_n)
			s->conf = conf_eval(set->raw, s->overrides, s->overrides_n, p);
	}
}

/* What every instance needs a row for; the front ends are a matter of choice. */
static const char *const needed[] = { "auth", "dns", "maps", "nss", "qmgr", "smtp-client", "bounce",
	"local", "log", NULL };
static const char *const needed_by_login[] = { "broker", "imapd", "pop3d", NULL };
static const char *const needed_by_pam[] = { "pam", NULL };
/* Commands that may have several rows, each with its own sockets. */
static const char *const front_ends[] = { "smtpd", "submission", "login", NULL };

static bool
among(const char *const *words, const char *word)
{
	for (; *words; words++)
		if (!strcmp(*words, word))
			return true;
	return false;
}

static const struct conf_service *
row_of(const struct conf_services *s, const char *command)
{
	for (size_t i = 0; i < s->n; i++)
		if (!strcmp(s->v[i].command, command))
			return &s->v[i];
	return NULL;
}

static void
check_needed(const struct conf_set *set, const char *const *roles, struct conf_problems *p)
{
	char *remedy;

	for (; *roles; roles++) {
		if (row_of(set->services, *roles))
			continue;
		remedy = xasprintf("add the row: %s unix n - y - 1 %s", *roles, *roles);
		conf_problem(p, set->master_cf, 0, remedy, "no row starts %s", *roles);
		free(remedy);
	}
}

static void
check_commands(const struct conf_set *set, struct conf_problems *p)
{
	const struct conf_service *s, *first;

	for (s = set->services->v; s < set->services->v + set->services->n; s++) {
		if (!among(conf_programs, s->command)) {
			conf_problem(p, s->file, s->line,
			    "use one of smtpd, submission, login, qmgr, maps and the other daemons",
			    "service %s: %s is not a daemon of the suite", s->name, s->command);
			continue;
		}
		first = row_of(set->services, s->command);
		if (!among(front_ends, s->command) && first != s)
			conf_problem(p, s->file, s->line, "remove one of the two",
			    "%s is started by line %u already", s->command, first->line);
		if (!among(front_ends, s->command) && s->type == CONF_SERVICE_INET)
			conf_problem(p, s->file, s->line, "write unix",
			    "service %s: %s does not listen on a port", s->name, s->command);
	}
	check_needed(set, needed, p);
	if (row_of(set->services, "login"))
		check_needed(set, needed_by_login, p);
	if (set->conf->auth_system_users)
		check_needed(set, needed_by_pam, p);
}

static int
order(const void *a, const void *b)
{
	const struct conf_problem *x = a, *y = b;
	int c = strcmp(x->file ? x->file : "", y->file ? y->file : "");

	if (c || x->line != y->line)
		return c ? c : x->line < y->line ? -1 : 1;
	return strcmp(x->text, y->text);
}

/* By file and line; and the same complaint about main.cf, which comes up once for each service with
 * overrides, once. */
static void
sort_problems(struct conf_problems *p)
{
	size_t i, n = 0;

	if (p->n)
		qsort(p->v, p->n, sizeof(p->v[0]), order);
	for (i = 0; i < p->n; i++) {
		if (!n || order(&p->v[i], &p->v[n - 1]))
			p->v[n++] = p->v[i];
		else if (!p->v[i].warning)
			p->errors--;
	}
	p->n = n;
}

#ifndef LIBEXECDIR
#define LIBEXECDIR "/usr/libexec/bulkhead"
#endif

/* Where the daemons are unless main.cf says it: where they were installed, or beside this program,
 * which is then one that was built and not installed. */
static void
default_programs(struct conf_raw *raw)
{
	char path[4096], *slash;
	ssize_t n;

	conf_raw_default(raw, "daemon_directory", LIBEXECDIR);
	if (!access(LIBEXECDIR "/master", X_OK))
		return;
	n = readlink("/proc/self/exe", path, sizeof(path) - sizeof("master"));
	if (n <= 0)
		return;
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return;
	memcpy(slash + 1, "master", sizeof("master"));
	if (access(path, X_OK))
		return;
	*slash = '\0';
	conf_raw_default(raw, "daemon_directory", path);
}

static struct conf_set *
load(const char *dir, const struct slice *main_text, struct conf_problems *p)
{
	struct conf_set *set = xcalloc(1, sizeof(*set));
	struct buf main_cf = { 0 }, master_cf = { 0 };
	char *full = realpath(dir, NULL);

	dir = full ? full : dir;
	set->main_cf = xasprintf("%s/main.cf", dir);
	set->master_cf = xasprintf("%s/master.cf", dir);
	set->raw = conf_raw_new(NULL);
	conf_raw_default(set->raw, "config_directory", dir);
	default_programs(set->raw);
	if (!main_text)
		read_file(set->main_cf, &main_cf, p);
	conf_raw_parse(set->raw, set->main_cf, main_text ? *main_text : buf_slice(&main_cf), p);
	read_file(set->master_cf, &master_cf, p);
	set->services = conf_services_parse(set->raw, set->master_cf, buf_slice(&master_cf), p);
	conf_raw_check_names(set->raw, p);
	set->conf = conf_eval(set->raw, NULL, 0, p);
	eval_services(set, p);
	check_commands(set, p);
	sort_problems(p);
	buf_free(&main_cf);
	buf_free(&master_cf);
	free(full);
	return set;
}

struct conf_set *
conf_set_load(const char *dir, struct conf_problems *p)
{
	return load(dir, NULL, p);
}

struct conf_set *
conf_set_load_with(const char *dir, struct slice main_cf, struct conf_problems *p)
{
	return load(dir, &main_cf, p);
}

void
conf_set_free(struct conf_set **set)
{
	if (!*set)
		return;
	conf_raw_free(&(*set)->raw);
	conf_free(&(*set)->conf);
	conf_services_free(&(*set)->services);
	free((*set)->main_cf);
	free((*set)->master_cf);
	free(*set);
	*set = NULL;
}
