/*
 * Error codes, their texts, and the allocators that end the process instead of returning NULL.
 * Runs in every process; takes no hostile input. A request that a stranger can make arbitrarily
 * large must be bounded before it gets here: out of memory ends the process.
 */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	int err;
	const char *text;
} texts[] = {
	{ ERR_NONE, "success" },
	{ ERR_TRUNCATED, "input is truncated" },
	{ ERR_SYNTAX, "syntax error" },
	{ ERR_LIMIT, "limit exceeded" },
	{ ERR_CLOSED, "peer closed the connection" },
	{ ERR_DENIED, "not permitted" },
	{ ERR_NOT_FOUND, "not found" },
	{ ERR_TEMPORARY, "temporary failure" },
	{ ERR_STATE, "not valid in this state" },
	{ ERR_CORRUPT, "stored data is damaged" },
};

static void (*teller)(const char *text); /* one log per process */

int
err_errno(void)
{
	return errno > 0 ? -errno : -EIO;
}

const char *
err_str(int err)
{
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		if (texts[i].err == err)
			return texts[i].text;
	if (err < 0 && err > ERR_TRUNCATED) {
		const char *text = strerrordesc_np(-err);
		if (text)
			return text;
	}
	return "unknown error";
}

void
die(const char *fmt, ...)
{
	void (*tell)(const char *) = teller;
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, text);
	if (!tell)
		exit(1);
	teller = NULL; /* it may need memory too */
	tell(text);
	_exit(1); /* no destructors: other threads go on meanwhile */
}

void
die_tell(void (*tell)(const char *text))
{
	teller = tell;
}

void *
xmalloc(unsigned long n)
{
	void *p = malloc(n ? n : 1);

	if (!p)
		die("out of memory (%lu bytes): raise the memory limit of this service", n);
	return p;
}

void *
xcalloc(unsigned long n, unsigned long size)
{
	void *p = calloc(n ? n : 1, size ? size : 1);

	if (!p)
		die("out of memory (%lu x %lu bytes): raise the memory limit of this service", n,
		    size);
	return p;
}

void *
xrealloc(void *old, unsigned long n)
{
	void *p = realloc(old, n ? n : 1);

	if (!p)
		die("out of memory (%lu bytes): raise the memory limit of this service", n);
	return p;
}

char *
xstrdup(const char *s)
{
	size_t n = strlen(s) + 1;

	return memcpy(xmalloc(n), s, n);
}

char *
xasprintf(const char *fmt, ...)
{
	va_list ap;
	char *s = NULL;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&s, fmt, ap);
	va_end(ap);
	if (n < 0)
		die("out of memory: raise the memory limit of this service");
	return s;
}
