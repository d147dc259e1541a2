/*
 * The list of what is wrong with a configuration. Every problem of every file is collected, so that
 * one run of `bulkhead check` tells them all; nothing here decides what is done about them.
 * Runs in master and in the tools. The texts may quote a file that an admin wrote: control bytes
 * are replaced when a problem is printed.
 */
#include "conf/conf.h"

#include <stdio.h>
#include <stdlib.h>

static void
problem_add(struct conf_problems *p, const char *file, unsigned line, bool warning,
    const char *remedy, const char *text)
{
	struct conf_problem *problem;

	if (p->n == p->size) {
		p->size = p->size ? p->size * 2 : 16;
		p->v = xrealloc(p->v, p->size * sizeof(p->v[0]));
	}
	problem = &p->v[p->n++];
	problem->file = file ? arena_strdup(&p->arena, file) : NULL;
	problem->line = line;
	problem->warning = warning;
	problem->text = arena_strdup(&p->arena, text);
	problem->remedy = remedy ? arena_strdup(&p->arena, remedy) : NULL;
	if (!warning)
		p->errors++;
}

static void
problem_addv(struct conf_problems *p, const char *file, unsigned line, bool warning,
    const char *remedy, const char *fmt, va_list ap)
{
	struct buf text = { 0 };

	(void)buf_addv(&text, fmt, ap);
	(void)buf_add_byte(&text, '\0');
	problem_add(p, file, line, warning, remedy, (const char *)buf_slice(&text).p);
	buf_free(&text);
}

void
conf_problem(struct conf_problems *p, const char *file, unsigned line, const char *remedy,
    const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	problem_addv(p, file, line, false, remedy, fmt, ap);
	va_end(ap);
}

void
conf_warning(struct conf_problems *p, const char *file, unsigned line, const char *remedy,
    const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	problem_addv(p, file, line, true, remedy, fmt, ap);
	va_end(ap);
}

static void
add_printable(struct buf *out, const char *s)
{
	for (; *s; s++)
		(void)buf_add_byte(
		    out, (unsigned char)*s < 32 || *s == 127 ? '?' : (unsigned char)*s);
}

void
conf_problem_format(const struct conf_problem *problem, struct buf *out)
{
	if (problem->file) {
		add_printable(out, problem->file);
		if (problem->line)
			(void)buf_addf(out, ":%u", problem->line);
		(void)buf_add_str(out, ": ");
	}
	if (problem->warning)
		(void)buf_add_str(out, "warning: ");
	add_printable(out, problem->text);
	if (problem->remedy) {
		(void)buf_add_str(out, ": ");
		add_printable(out, problem->remedy);
	}
}

void
conf_problems_free(struct conf_problems *p)
{
	arena_free(&p->arena);
	free(p->v);
	*p = (struct conf_problems){ 0 };
}
