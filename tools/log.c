/*
 * `bulkhead log`: what the events of the log mean, and what to do about them, as bulkhead-log(5)
 * has it; and the word to the log daemon that its file was rotated. Runs as the caller.
 */
#include "daemon/log.h"
#include "queue/advice.h"
#include "tools/tool.h"

#include <getopt.h>
#include <stdio.h>

static const char *const levels[] = { "debug", "info", "warning", "error" };

/* A status code, as dsn= has it. */
static int
explain_code(const char *code)
{
	const char *advice = advice_for(code, "");

	if (!*advice) {
		tool_say("%s: the text beside it says all there is to say", code);
		return 1;
	}
	printf("%s (%s)\n  to do: %s\n", code, code[0] == '4' ? "tried again" : "failed for good",
	    advice);
	return 0;
}

static int
explain(const char *name)
{
	const struct log_event_row *row = log_event_find(slice_str(name));
	const struct log_event_text *text;

	if (name[0] == '4' || name[0] == '5')
		return explain_code(name);
	if (!row) {
		tool_say("no such event: %s: bulkhead log --list tells all", name);
		return 1;
	}
	text = &log_event_texts[row - log_events];
	printf("%s (%s), of %s\n  %s\n", row->name, levels[row->level], text->daemons, text->means);
	if (row->remedy[0])
		printf("  to do: %s\n", row->remedy);
	return 0;
}

int
cmd_log(struct tool *t, int argc, char **argv)
{
	static const struct option options[] = { { "explain", no_argument, NULL, 'e' },
		{ "list", no_argument, NULL, 'l' }, { "reopen", no_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 } };
	static const char *const rotated[] = { "log", "reopen" };
	bool list = false, ask = false, reopen = false;
	int c, status = 0;

	while ((c = getopt_long(argc, argv, "+elr", options, NULL)) != -1) {
		if (c == '?')
			return 64;
		list = list || c == 'l';
		ask = ask || c == 'e';
		reopen = reopen || c == 'r';
	}
	if (list + ask + reopen != 1 || ask != (optind < argc)) {
		tool_say("usage: bulkhead log --list | --explain EVENT|CODE... | --reopen");
		return 64;
	}
	if (reopen) {
		status = control_call(t, rotated, 2, false, NULL);
		return status < 0 ? 69 : status;
	}
	if (list)
		for (size_t i = 0; i < LOG_EVENT_COUNT; i++)
			printf("%-24s %s\n", log_events[i].name, levels[log_events[i].level]);
	for (; optind < argc; optind++)
		status |= explain(argv[optind]);
	return status;
}
