/*
 * `bulkhead check`: one run tells every problem: those of the text (lib/conf), and those that need
 * a look at the system. Runs as the caller; as root it sees all. Opens and reads, changes nothing.
 * `bulkhead reload` asks master only when there is nothing to find.
 */
#include "tools/check.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void
check_at(struct tool *t, bool warning, const char *param, const char *remedy, const char *fmt, ...)
{
	const struct conf_entry *e = conf_raw_find(t->set->raw, param);
	struct buf text = { 0 };
	va_list ap;

	va_start(ap, fmt);
	(void)buf_addv(&text, fmt, ap);
	va_end(ap);
	(void)buf_add_byte(&text, '\0');
	(warning ? conf_warning : conf_problem)(&t->problems, e ? e->file : t->set->main_cf,
	    e ? e->line : 0, remedy, "%s", (const char *)buf_slice(&text).p);
	buf_free(&text);
}

static int
order(const void *a, const void *b)
{
	const struct conf_problem *x = *(const struct conf_problem *const *)a,
				  *y = *(const struct conf_problem *const *)b;
	int c = strcmp(x->file ? x->file : "", y->file ? y->file : "");

	if (c || x->line != y->line)
		return c ? c : x->line < y->line ? -1 : 1;
	return x < y ? -1 : 1;
}

static void
print_problems(const struct conf_problems *p)
{
	const struct conf_problem **sorted = xcalloc(p->n + 1, sizeof(sorted[0]));
	size_t i;

	for (i = 0; i < p->n; i++)
		sorted[i] = &p->v[i];
	qsort(sorted, p->n, sizeof(sorted[0]), order);
	for (i = 0; i < p->n; i++) {
		struct buf line = { 0 };

		conf_problem_format(sorted[i], &line);
		printf("%.*s\n", SLICE_ARG(buf_slice(&line)));
		buf_free(&line);
	}
	free(sorted);
}

/* imapd and pop3d serve Maildirs: system users whose mail is a file in /var/mail would be turned
 * away. */
static void
check_mailboxes(struct tool *t)
{
	const struct conf_services *services = t->set->services;
	const struct conf *conf = t->set->conf;
	bool serves = false;

	for (size_t i = 0; i < services->n; i++)
		serves |= !strcmp(services->v[i].command, "login");
	if (serves && conf->auth_system_users && !conf->home_mailbox[0])
		check_at(t, true, "home_mailbox", "set home_mailbox = Maildir/",
		    "system users may log in, but their mail lies in files of %s, which IMAP and "
		    "POP3 do not serve",
		    conf->mail_spool_directory);
}

/* Everything, and prints what was found. */
static void
check_all(struct tool *t)
{
	(void)tool_conf(t);
	check_files(t);
	check_certificates(t);
	check_tables(t);
	check_transports(t);
	check_accounts(t);
	check_owners(t);
	check_ports(t);
	check_mailboxes(t);
	print_problems(&t->problems);
	fflush(stdout);
}

int
cmd_check(struct tool *t, int argc, char **argv)
{
	const struct conf_problems *p = &t->problems;

	(void)argv;
	if (argc != 1) {
		tool_say("usage: bulkhead check");
		return 64;
	}
	check_all(t);
	if (p->n)
		tool_say("%zu problem%s, %zu warning%s", p->errors, p->errors == 1 ? "" : "s",
		    p->n - p->errors, p->n - p->errors == 1 ? "" : "s");
	return p->errors ? 78 : 0;
}

/* Who is not the user of master cannot read what it reads: master alone judges the text then. */
static bool
can_look(struct tool *t)
{
	char *path = xasprintf("%s/control", tool_conf(t)->run_directory);
	struct stat st;
	bool can = !stat(path, &st) && st.st_uid == geteuid();

	free(path);
	return can;
}

int
cmd_reload(struct tool *t, int argc, char **argv)
{
	const char *words[] = { "reload" };
	bool force = false;
	int c, status;

	while ((c = getopt(argc, argv, "+f")) != -1) {
		if (c == '?')
			return 64;
		force = true;
	}
	if (optind < argc) {
		tool_say("usage: bulkhead reload [-f]");
		return 64;
	}
	if (!force && can_look(t) && control_alive(t)) {
		check_all(t);
		if (t->problems.errors) {
			puts("reload refused: the running configuration goes on");
			fflush(stdout);
			tool_say("correct the configuration; bulkhead reload -f leaves out what "
				 "only a look at the system finds");
			return 1;
		}
	}
	status = control_call(t, words, 1, false, NULL);
	return status < 0 ? 69 : status;
}
