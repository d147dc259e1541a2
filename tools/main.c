/*
 * bulkhead(8), and under other names mailq(1) and newaliases(1): the admin's program. Runs as
 * whoever calls it, with no privilege of its own; what changes the suite goes over the control
 * socket, where master looks who asks. Hostile inputs: log files and replies are printed with
 * control bytes replaced.
 */
#include "ipc/msgs.h"
#include "tools/tool.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef SYSCONFDIR
#define SYSCONFDIR "/etc/bulkhead"
#endif

#define VERSION "0.1.0"

static const struct {
	const char *name;
	int (*run)(struct tool *t, int argc, char **argv);
	const char *usage;
} commands[] = {
	{ "check", cmd_check, "find everything that is wrong with the configuration" },
	{ "conf", cmd_conf,
	    "[-dhnx] [-M] [NAME | NAME=VALUE | -X NAME]...  show or change parameters" },
	{ "start", cmd_start, "[-f]  start the suite; -f: in the foreground" },
	{ "stop", cmd_stop, "finish what is under way and stop" },
	{ "reload", cmd_reload, "[-f]  take the configuration anew; a bad one is refused" },
	{ "status", cmd_control, "what runs, since when, and the counters" },
	{ "upgrade", cmd_control,
	    "replace the running programs by those on disk, without a pause" },
	{ "queue", cmd_queue, "list|show|flush|hold|release|delete|requeue [ID | ADDRESS]..." },
	{ "user", cmd_user, "add|passwd|change|del|list|show|check [NAME [OPTION=VALUE]...]" },
	{ "map", cmd_map, "build FILE... | aliases FILE... | query TABLE KEY | check TABLE..." },
	{ "aliases", cmd_newaliases, "check and build the tables of alias_database" },
	{ "trace", cmd_trace, "[-f FILE] QUEUEID  the way of one message" },
	{ "log", cmd_log,
	    "--list | --explain EVENT|CODE... | --reopen  what the log means, and what to do" },
	{ "security", cmd_control, "each process, its jail, and what it found by trying" },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void
usage(FILE *out)
{
	size_t i;

	fputs("usage: bulkhead [-c FOLDER] COMMAND [ARGUMENT]...\n", out);
	for (i = 0; i < COMMANDS; i++)
		fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].usage);
	fputs("see bulkhead(8)\n", out);
}

static int
run(struct tool *t, const char *name, int argc, char **argv)
{
	size_t i;

	for (i = 0; i < COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return commands[i].run(t, argc, argv);
	if (!strcmp(name, "help")) {
		usage(stdout);
		return 0;
	}
	tool_say("no such command: %s: bulkhead help lists them", name);
	return 64;
}

static int
dispatch(struct tool *t, const char *name, int argc, char **argv)
{
	static char *list[] = { (char *)"queue", (char *)"list", NULL };
	static const struct option options[] = { { "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 } };
	int c;

	if (!strcmp(name, "mailq") || !strcmp(name, "newaliases")) {
		while ((c = getopt(argc, argv, "c:C:v")) != -1) /* -C and -v as Postfix has them */
			if (c == 'c' || c == 'C')
				t->dir = optarg;
			else if (c != 'v')
				return 64;
		return name[0] == 'm' ? cmd_queue(t, 2, list) : cmd_newaliases(t, argc, argv);
	}
	/* glibc permutes arguments unless told not to: options behind the command are the command's
	 */
	while ((c = getopt_long(argc, argv, "+c:hV", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			t->dir = optarg;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V': /* daemons of another layout do not talk to each other */
			puts("bulkhead " VERSION " layout " MSG_LAYOUT);
			return 0;
		default:
			usage(stderr);
			return 64;
		}
	}
	if (optind == argc) {
		usage(stderr);
		return 64;
	}
	argc -= optind;
	argv += optind;
	optind = 0;
	return run(t, argv[0], argc, argv);
}

int
main(int argc, char **argv)
{
	struct tool t = { 0 };
	const char *env = getenv("MAIL_CONFIG"), *slash;
	int status;

	t.dir = env && env[0] ? env : SYSCONFDIR;
	slash = argc ? strrchr(argv[0], '/') : NULL;
	status = dispatch(&t, slash ? slash + 1 : argc ? argv[0] : "bulkhead", argc, argv);
	conf_set_free(&t.set);
	conf_problems_free(&t.problems);
	if (fflush(stdout) || ferror(stdout)) {
		fputs("bulkhead: cannot write the output\n", stderr);
		return 74;
	}
	return status;
}
