/*
 * Fuzz target: the message that sendmail(1) is given. Byte 0: options; then lines: the sender, the
 * full name, and the rest is the message. Checked: what leaves has CRLF lines without a bare CR or
 * LF and a From:, no Bcc: with -t, the body that came, no field that a name brought in; recipients
 * are addresses; taken once more it stays as it is.
 */
#include "fuzz/must.h"
#include "mail/address.h"
#include "mail/header.h"
#include "submission/sendmail/sendmail.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
complain(int status, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return status;
}

static bool
in_crlf_lines(struct slice s)
{
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '\n' && (!i || s.p[i - 1] != '\r'))
			return false;
		if (s.p[i] == '\r' && (i + 1 == s.n || s.p[i + 1] != '\n'))
			return false;
	}
	return !s.n || s.p[s.n - 1] == '\n';
}

struct shape {
	unsigned fields, from, bcc, path;
	struct slice body; /* behind the empty line */
};

static struct shape
shape_of(struct slice text)
{
	struct shape shape = { 0 };
	struct header_field f;
	enum header_step step;

	while ((step = header_next(&text, &f)) == HEADER_FIELD) {
		shape.fields++;
		shape.from += slice_caseeq_str(f.name, "From");
		shape.bcc += slice_caseeq_str(f.name, "Bcc");
		shape.path += slice_caseeq_str(f.name, "Return-Path");
	}
	must(step == HEADER_END);
	shape.body = text;
	return shape;
}

static void
check(const struct job *job)
{
	struct shape shape = shape_of(buf_slice(&job->content));

	must(in_crlf_lines(buf_slice(&job->content)));
	must(shape.from && !shape.path && (!job->options.headers || !shape.bcc));
	for (size_t i = 0; i < job->envelope.count; i++) {
		char text[ADDRESS_BUF_SIZE];

		must(!address_normalise(
		    job->envelope.rcpts[i], ADDRESS_NO_DOMAIN | ADDRESS_UTF8, text));
		must(slice_eq_str(job->envelope.rcpts[i], text));
	}
}

/* What left, given as it is: nothing is added to it, and nothing taken away. */
static void
once_more(const struct job *job)
{
	struct job again = { .options = job->options, .conf = job->conf };

	again.options.dot_ends = again.options.headers = false;
	must(!message_take(&again, buf_slice(&job->content)));
	must(slice_eq(buf_slice(&again.content), buf_slice(&job->content)));
	arena_free(&again.arena);
	buf_free(&again.content);
}

/* A sender and a name of the command line add no field but From: and Resent-From:. */
static void
same_fields(const struct job *job, struct slice message)
{
	struct job plain = { .options = job->options, .conf = job->conf };
	struct shape a, b;

	plain.options.sender = "a@e.test";
	plain.options.full_name = NULL;
	must(!message_take(&plain, message));
	a = shape_of(buf_slice(&job->content));
	b = shape_of(buf_slice(&plain.content));
	must(a.fields == b.fields && slice_eq(a.body, b.body));
	arena_free(&plain.arena);
	buf_free(&plain.content);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct conf conf = { .myorigin = "o.test",
		.mydomain = "d.test",
		.append_at_myorigin = true,
		.append_dot_mydomain = true };
	struct job job = { .conf = &conf };
	struct slice rest = slice(data + 1, size - 1);
	char sender[300], name[300];

	if (!size || size > 20000 || slice_copy(slice_split(&rest, '\n'), sender, sizeof(sender)) ||
	    slice_copy(slice_split(&rest, 1), name, sizeof(name)))
		return 0;
	job.options.sender = sender;
	job.options.full_name = name;
	job.options.headers = data[0] & 1;
	job.options.dot_ends = data[0] & 2;
	job.options.envid = data[0] & 4 ? name : NULL;
	if (data[0] & 8)
		(void)message_add_recipients(&job, slice_str(name), true);
	if (!message_take(&job, rest)) {
		check(&job);
		once_more(&job);
		same_fields(&job, rest);
	}
	arena_free(&job.arena);
	buf_free(&job.content);
	return 0;
}
