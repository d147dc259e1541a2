/* What the tests of the client engine share: the player of dialogues. */
#ifndef SMTP_CLIENT_TEST_UTIL_H
#define SMTP_CLIENT_TEST_UTIL_H

#include "smtp/client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define R(a)                                                                                       \
	{                                                                                          \
		.address = {(const unsigned char *)(a), sizeof(a) - 1 }                            \
	}

static const struct client_rcpt one[] = { R("a@x.test") };
static const struct client_rcpt three[] = { R("a@x.test"), R("b@x.test"), R("c@x.test") };
static const struct client_rcpt dsn[] = {
	{ .address = { (const unsigned char *)"a@x.test", 8 },
	    .orcpt = { (const unsigned char *)"rfc822;A+40x.test", 17 },
	    .notify = CLIENT_NOTIFY_SUCCESS | CLIENT_NOTIFY_DELAY },
	{ .address = { (const unsigned char *)"b@x.test", 8 },
	    .orcpt = { (const unsigned char *)"rfc822;a b", 10 },
	    .notify = CLIENT_NOTIFY_NEVER },
};
static const struct client_rcpt hostile[] = { R("a>\r\nRSET\r\n@x.test"),
	R("a@x.test> NOTIFY=NEVER"), R("\"a > b\"@x.test"), R("\"a\\\"@x.test"),
	R("\"a\nb\"@x.test"), R("") };
static const struct client_rcpt umlaut[] = { R("\xc3\xbc@x.test"), R("a@x.test") };

static const struct client_message messages[] = {
	{ .sender = { (const unsigned char *)"s@y.test", 8 }, .rcpts = one, .n = 1, .size = 12 },
	{ .sender = { (const unsigned char *)"s@y.test", 8 }, .rcpts = three, .n = 3, .size = 12 },
	{ .rcpts = dsn,
	    .n = 2,
	    .size = 12,
	    .ret = CLIENT_RET_HDRS,
	    .body = CLIENT_BODY_8BIT,
	    .envid = { (const unsigned char *)"id1", 3 } },
	{ .rcpts = hostile, .n = 6, .size = 12 },
	{ .rcpts = umlaut, .n = 2, .size = 12 },
	{ .rcpts = one, .n = 1, .size = 11, .body = CLIENT_BODY_BINARY },
	{ .rcpts = one, .n = 1, .size = 12, .utf8 = true },
	{ .sender = { (const unsigned char *)"s\r\n@y.test", 10 },
	    .rcpts = one,
	    .n = 1,
	    .size = 12 },
};
static const char content[] = "a\r\n.b\r\n..\r\n";

struct dialogue {
	struct client *c;
	struct buf events;
	size_t piece;
};

static const char *const failures[] = { [CLIENT_FAIL_NONE] = "none",
	[CLIENT_FAIL_REPLY] = "reply",
	[CLIENT_FAIL_LOST] = "lost",
	[CLIENT_FAIL_PROTOCOL] = "protocol",
	[CLIENT_FAIL_NO_TLS] = "no-tls",
	[CLIENT_FAIL_AUTH] = "auth" };

static inline void
note_reply(struct dialogue *d, const struct client_event *ev)
{
	struct slice text = ev->reply.text;

	if (ev->reply.code) {
		buf_addf(&d->events, " %u %s [", ev->reply.code, ev->reply.enhanced);
		for (size_t i = 0; i < text.n; i++)
			buf_add_byte(&d->events, text.p[i] == '\n' ? '/' : text.p[i]);
		buf_add_str(&d->events, "]");
	}
	buf_add_str(&d->events, "\n");
}

static inline void
give_content(struct dialogue *d)
{
	struct slice s = slice(content, sizeof(content) - 1);

	for (size_t i = 0; i < s.n; i += d->piece)
		client_content(d->c, slice_sub(s, i, i + d->piece));
	client_content_end(d->c);
}

static inline void
poll_events(struct dialogue *d)
{
	struct client_event ev;

	for (;;) {
		switch (client_next(d->c, &ev)) {
		case CLIENT_NOTHING:
			return;
		case CLIENT_TLS:
			buf_add_str(&d->events, "tls\n");
			break;
		case CLIENT_MECHANISMS:
			buf_addf(&d->events, "mechanisms %.*s\n", SLICE_ARG(ev.data));
			break;
		case CLIENT_CHALLENGE:
			buf_addf(&d->events, "challenge %.*s\n", SLICE_ARG(ev.data));
			break;
		case CLIENT_READY:
			buf_add_str(&d->events, "ready\n");
			break;
		case CLIENT_RESULT:
			buf_addf(&d->events, "result %zu %s%s", ev.rcpt, ev.local ? "local " : "",
			    client_command_str(ev.command));
			note_reply(d, &ev);
			break;
		case CLIENT_CONTENT:
			buf_add_str(&d->events, "content\n");
			give_content(d);
			break;
		case CLIENT_DONE:
			buf_add_str(&d->events, "done\n");
			break;
		case CLIENT_FAILED:
			buf_addf(&d->events, "failed %s%s %s", ev.at_end ? "at-end " : "",
			    failures[ev.failure], client_command_str(ev.command));
			note_reply(d, &ev);
			break;
		case CLIENT_CLOSED:
			buf_add_str(&d->events, "closed\n");
			break;
		}
	}
}

static inline void
act(struct dialogue *d, const char *action)
{
	if (!strncmp(action, "send ", 5))
		assert_int_equal(client_send(d->c, &messages[action[5] - '0']), 0);
	else if (!strcmp(action, "tls"))
		client_tls_up(d->c);
	else if (!strcmp(action, "plain"))
		client_auth(d->c, "PLAIN", true, SLICE_LIT("\0u\0p"));
	else if (!strcmp(action, "login"))
		client_auth(d->c, "LOGIN", false, SLICE_NULL);
	else if (!strcmp(action, "empty"))
		client_auth(d->c, "EXTERNAL", true, SLICE_NULL);
	else if (!strcmp(action, "long")) {
		static char secret[400];

		memset(secret, 'x', sizeof(secret));
		client_auth(d->c, "PLAIN", true, slice(secret, sizeof(secret)));
	} else if (!strcmp(action, "answer"))
		client_auth(d->c, NULL, true, SLICE_LIT("answer"));
	else if (!strcmp(action, "skip"))
		client_auth_skip(d->c);
	else if (!strcmp(action, "cancel"))
		client_auth_cancel(d->c);
	else if (!strcmp(action, "quit"))
		assert_true(client_quit(d->c));
	else if (!strcmp(action, "no-quit"))
		assert_false(client_quit(d->c));
	else if (!strcmp(action, "eof"))
		client_eof(d->c);
	else
		fail_msg("unknown action %s", action);
	poll_events(d);
}

/* The next line of b must be want. */
static inline void
want_line(struct buf *b, const char *want, const char *crlf)
{
	struct slice s = buf_slice(b), line = slice_split(&s, '\n');
	size_t n = line.n;

	if (crlf[0] == '\r') {
		assert_true(n && line.p[n - 1] == '\r');
		line.n--;
	}
	if (!slice_eq_str(line, want))
		fail_msg("got %.*s, want %s", SLICE_ARG(line), want);
	buf_consume(b, n + 1);
}

/* cut: feed the server's groups in two pieces, the first of that many bytes; 0: byte by byte.
 * Returns the length of the longest group. */
static inline size_t
play(const struct client_opts *opts, const char *const *steps, size_t cut)
{
	struct dialogue d = { .c = client_new(opts), .piece = cut ? cut : 1 };
	size_t longest = 0;

	for (size_t i = 0; steps[i]; i++) {
		struct buf group = { 0 };

		for (; steps[i] && !strncmp(steps[i], "S:", 2); i++)
			buf_addf(&group, "%s\r\n", steps[i] + 2);
		if (buf_len(&group)) {
			struct slice s = buf_slice(&group);
			size_t at = 0;

			longest = s.n > longest ? s.n : longest;
			while (at < s.n) {
				size_t n = cut ? (at ? s.n : cut) : at + 1;

				client_feed(d.c, slice_sub(s, at, n));
				poll_events(&d);
				at = n;
			}
			i--;
		} else if (!strncmp(steps[i], "C:", 2)) {
			want_line(client_output(d.c), steps[i] + 2, "\r\n");
		} else if (!strncmp(steps[i], "E:", 2)) {
			want_line(&d.events, steps[i] + 2, "\n");
		} else {
			act(&d, steps[i] + 1);
		}
		buf_free(&group);
	}
	if (buf_len(&d.events))
		fail_msg("left over events: %.*s", SLICE_ARG(buf_slice(&d.events)));
	if (buf_len(client_output(d.c)))
		fail_msg("left over output: %.*s", SLICE_ARG(buf_slice(client_output(d.c))));
	buf_free(&d.events);
	client_free(&d.c);
	return longest;
}

static inline void
run(struct client_opts opts, const char *const *steps)
{
	size_t longest;

	opts.helo = "me.test";
	longest = play(&opts, steps, 0);
	for (size_t cut = 1; cut <= longest; cut++)
		play(&opts, steps, cut);
}
#define RUN(opts, ...) run((struct client_opts)opts, (const char *const[]){ __VA_ARGS__, NULL })
#define AUTH_AND_TLS                                                                               \
	{                                                                                          \
		.auth = true, .tls_required = true                                                 \
	}
#define NONE                                                                                       \
	{                                                                                          \
		0                                                                                  \
	}

#define GREETED "S:220 x.test ESMTP", "C:EHLO me.test"
#define PIPELINED                                                                                  \
	GREETED, "S:250-x.test hi", "S:250-SIZE 1000", "S:250-8BITMIME", "S:250-DSN",              \
	    "S:250 PIPELINING", "E:ready"

#endif
