/*
 * `bulkhead conf`: shows and changes main.cf as postconf(1) does, and shows master.cf. Runs as the
 * caller. Invariant: an edit that would bring a problem into the configuration is refused, and the
 * file stays as it was.
 */
#include "tools/edit.h"
#include "tools/tool.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

struct options {
	bool defaults, only_set, value_only, expand, services;
	enum edit_kind edit;
	bool is_edit;
};

static void
show_value(const struct options *o, const char *name, const char *value)
{
	if (o->value_only)
		printf("%s\n", value);
	else
		printf("%s =%s%s\n", name, value[0] ? " " : "", value);
}

/* The value with its references replaced; bad references are told as they stand. */
static void
show_expanded(struct tool *t, const struct options *o, const char *name, const char *text)
{
	struct buf out = { 0 };
	char why[CONF_WHY];
	int err;

	err = o->defaults ? conf_raw_expand(t->set->raw, slice_str(text), &out, why)
			  : conf_raw_value(t->set->raw, name, &out);
	(void)buf_add_byte(&out, '\0');
	show_value(o, name, err ? text : (const char *)buf_slice(&out).p);
	buf_free(&out);
}

static void
show(struct tool *t, const struct options *o, const char *name, const char *text)
{
	if (o->expand)
		show_expanded(t, o, name, text);
	else
		show_value(o, name, text);
}

static int
show_name(struct tool *t, const struct options *o, const char *name)
{
	const struct conf_entry *entry = conf_raw_find(t->set->raw, name);
	const struct conf_param *param = conf_param_find(name);
	const struct conf_foreign *foreign = conf_foreign_find(name);
	const char *nearest = conf_nearest(name);

	if (entry && !o->defaults) {
		show(t, o, name, entry->value);
	} else if (!strcmp(name, "config_directory")) {
		show(t, o, name, t->set->conf->config_directory);
	} else if (!strcmp(name, "daemon_directory")) {
		show(t, o, name, t->set->conf->daemon_directory);
	} else if (param && !o->defaults && !param->def[0] &&
		   (!strcmp(name, "myhostname") || !strcmp(name, "mydomain"))) {
		show_expanded(t, o, name, "");
	} else if (param) {
		show(t, o, name, param->def);
	} else if (foreign) {
		tool_say("%s of %s is not supported: it would %s: %s", name, foreign->origin,
		    foreign->would, foreign->instead);
		return 1;
	} else {
		tool_say("unknown parameter %s%s%s%s", name, nearest ? ": did you mean " : "",
		    nearest ? nearest : "", nearest ? "?" : "");
		return 1;
	}
	return 0;
}

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int
show_all(struct tool *t, const struct options *o)
{
	const struct conf_entry *entry;
	const char **names = xcalloc(CONF_PARAM_COUNT + 1, sizeof(names[0]));
	size_t i, n = 0, size = CONF_PARAM_COUNT + 1;
	int status = 0;

	for (i = 0; i < CONF_PARAM_COUNT; i++)
		if (!o->only_set || conf_raw_find(t->set->raw, conf_params[i].name))
			names[n++] = conf_params[i].name;
	for (i = 0; !o->defaults && (entry = conf_raw_entry(t->set->raw, i)); i++) {
		if (conf_param_find(entry->name))
			continue;
		if (n == size)
			names = xrealloc(names, (size *= 2) * sizeof(names[0]));
		names[n++] = entry->name;
	}
	qsort(names, n, sizeof(names[0]), by_name);
	for (i = 0; i < n; i++)
		status |= show_name(t, o, names[i]);
	free(names);
	return status;
}

static void
show_flag(bool yes)
{
	printf(" %s", yes ? "y" : "n");
}

static int
show_services(struct tool *t, int argc, char **argv)
{
	const struct conf_service *s;
	static const char *const types[] = { "inet", "unix", "pass" };
	bool found = !argc;
	size_t i;

	if (argc > 1) {
		tool_say("usage: bulkhead conf -M [SERVICE]");
		return 64;
	}
	for (s = t->set->services->v; s < t->set->services->v + t->set->services->n; s++) {
		if (argc && strcmp(s->name, argv[0]))
			continue;
		found = true;
		printf("%-14s %s", s->name, types[s->type]);
		show_flag(s->is_private);
		show_flag(s->unprivileged);
		show_flag(s->chrooted);
		if (s->wakeup)
			printf(" %lld", (long long)(s->wakeup / 1000));
		else
			printf(" -");
		if (s->maxproc == CONF_MAXPROC_DEFAULT)
			printf(" - %s", s->command);
		else
			printf(" %d %s", s->maxproc, s->command);
		for (i = 0; i < s->argc; i++)
			printf(strpbrk(s->argv[i], " \t") ? " {%s}" : " %s", s->argv[i]);
		putchar('\n');
		for (i = 0; i < s->overrides_n; i++)
			printf(strpbrk(s->overrides[i].value, " \t") ? "    -o { %s = %s }\n"
								     : "    -o %s=%s\n",
			    s->overrides[i].name, s->overrides[i].value);
	}
	if (!found)
		tool_say("%s has no row for the service %s", t->set->master_cf, argv[0]);
	return found ? 0 : 1;
}

static int
read_whole(const char *path, struct buf *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ptrdiff_t n;

	if (fd < 0)
		return err_errno();
	while ((n = buf_read(out, fd, 65536)) > 0 && buf_len(out) <= CONF_FILE_LIMIT)
		;
	close(fd);
	return n > 0 ? ERR_LIMIT : (int)n;
}

static bool
is_name(struct slice name)
{
	for (size_t i = 0; i < name.n; i++)
		if (!ascii_is_alnum(name.p[i]) && !strchr("_-.", name.p[i]))
			return false;
	return name.n > 0;
}

static int
apply(const struct options *o, const char *word, struct buf *text)
{
	struct slice value = slice_str(word), name = SLICE_NULL;
	enum edit_kind kind = o->is_edit ? o->edit : EDIT_SET;
	bool assigns = kind == EDIT_SET, whole = slice_find(value, '=') > 0;
	struct buf out = { 0 };
	char *n, *v;
	int status = 0;

	name = slice_trim(assigns ? slice_split(&value, '=') : value, true);
	value = assigns ? slice_trim(value, true) : SLICE_NULL;
	n = slice_dup(name);
	v = slice_dup(value);
	if (whole != assigns || !is_name(name) || strpbrk(v, "\n\r")) {
		tool_say(
		    "'%s' is not %s", word, assigns ? "NAME=VALUE of one line" : "a NAME alone");
		status = 64;
	} else {
		if (!edit_text(buf_slice(text), kind, n, v, &out) && !assigns)
			tool_say("%s is not set in main.cf: nothing to change", n);
		buf_free(text);
		*text = out;
	}
	free(n);
	free(v);
	return status;
}

static bool
is_in(const struct conf_problems *list, const struct conf_problem *problem)
{
	size_t i;

	for (i = 0; i < list->n; i++)
		if (!strcmp(list->v[i].text, problem->text))
			return true;
	return false;
}

/* Problems that the edit brings are told and keep the file as it is; older ones are not its fault.
 */
static size_t
new_problems(struct tool *t, struct slice text)
{
	struct conf_problems after = { 0 };
	struct conf_set *set = conf_set_load_with(t->dir, text, &after);
	size_t i, n = 0;

	for (i = 0; i < after.n; i++) {
		struct buf line = { 0 };

		if (after.v[i].warning || is_in(&t->problems, &after.v[i]))
			continue;
		conf_problem_format(&after.v[i], &line);
		tool_say("refused: %.*s", SLICE_ARG(buf_slice(&line)));
		buf_free(&line);
		n++;
	}
	conf_set_free(&set);
	conf_problems_free(&after);
	return n;
}

static int
edit(struct tool *t, const struct options *o, int argc, char **argv)
{
	struct buf text = { 0 }, why = { 0 };
	int i, err, status = 0, folder = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	/* One edit at a time, from reading to rename: the lock ends with the descriptor. */
	err = folder < 0 || flock(folder, LOCK_EX) ? err_errno() : 0;
	if (!err)
		err = read_whole(t->set->main_cf, &text);
	if (err) {
		tool_say("%s: %s", t->set->main_cf, err_str(err));
		status = 66;
	}
	for (i = 0; i < argc && !status; i++)
		status = apply(o, argv[i], &text);
	if (!status && new_problems(t, buf_slice(&text)))
		status = 1;
	if (!status && edit_replace(t->set->main_cf, buf_slice(&text), &why)) {
		tool_say("%.*s", SLICE_ARG(buf_slice(&why)));
		status = 73;
	}
	if (folder >= 0)
		close(folder);
	buf_free(&text);
	buf_free(&why);
	return status;
}

int
cmd_conf(struct tool *t, int argc, char **argv)
{
	struct options o = { 0 };
	int c, i, assignments = 0, status = 0;

	while ((c = getopt(argc, argv, "+dnhxeMX#")) != -1) {
		o.defaults |= c == 'd';
		o.only_set |= c == 'n';
		o.value_only |= c == 'h';
		o.expand |= c == 'x';
		o.services |= c == 'M';
		if (c == 'e' || c == 'X' || c == '#') {
			o.is_edit = true;
			o.edit = c == 'e' ? EDIT_SET : c == 'X' ? EDIT_REMOVE : EDIT_COMMENT;
		}
		if (c == '?')
			return 64;
	}
	argc -= optind;
	argv += optind;
	(void)tool_conf(t);
	if (o.services)
		return show_services(t, argc, argv);
	for (i = 0; i < argc; i++)
		assignments += strchr(argv[i], '=') != NULL;
	if (argc && (o.is_edit || assignments == argc))
		return edit(t, &o, argc, argv);
	if (assignments) {
		tool_say("either ask for values or change them");
		return 64;
	}
	if (!argc)
		return show_all(t, &o);
	for (i = 0; i < argc; i++)
		status |= show_name(t, &o, argv[i]);
	return status;
}
