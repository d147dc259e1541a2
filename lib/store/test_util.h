/* What the tests of lib/store share: a mail root in a temporary directory, files made by hand. */
#ifndef STORE_TEST_UTIL_H
#define STORE_TEST_UTIL_H

#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
	char root[64];
	struct store *s;
};

__attribute__((unused)) static void
run(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	assert_int_equal(system(cmd), 0);
}

__attribute__((unused)) static void
fixture_open(struct fixture *fx)
{
	assert_int_equal(store_open(fx->root, NULL, &fx->s), 0);
}

__attribute__((unused)) static void
fixture_reopen(struct fixture *fx)
{
	store_free(&fx->s);
	fixture_open(fx);
}

__attribute__((unused)) static int
setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	strcpy(fx->root, "/tmp/bh-store-XXXXXX");
	assert_non_null(mkdtemp(fx->root));
	fixture_open(fx);
	*state = fx;
	return 0;
}

__attribute__((unused)) static int
teardown(void **state)
{
	struct fixture *fx = *state;

	store_free(&fx->s);
	run("rm -rf %s", fx->root);
	free(fx);
	return 0;
}

__attribute__((unused)) static void
put_file(struct fixture *fx, const char *path, const char *content)
{
	char full[512];
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", fx->root, path);
	f = fopen(full, "w");
	assert_non_null(f);
	fputs(content, f);
	fclose(f);
}

__attribute__((unused)) static bool
has_file(struct fixture *fx, const char *path)
{
	char full[512];

	snprintf(full, sizeof(full), "%s/%s", fx->root, path);
	return access(full, F_OK) == 0;
}

__attribute__((unused)) static void
move_file(struct fixture *fx, const char *from, const char *to)
{
	char a[512], b[512];

	snprintf(a, sizeof(a), "%s/%s", fx->root, from);
	snprintf(b, sizeof(b), "%s/%s", fx->root, to);
	assert_int_equal(rename(a, b), 0);
}

__attribute__((unused)) static struct mailbox *
box(struct fixture *fx, const char *name, unsigned flags)
{
	struct mailbox *m;

	assert_int_equal(mailbox_open(fx->s, slice_str(name), flags, &m), 0);
	return m;
}

/* What came of a sync, as text: "-3 +5 *2" for expunged 3, exists 5, flags of 2. */
struct events {
	char text[512];
};

__attribute__((unused)) static void
note_event(void *ctx, const struct store_event *e)
{
	struct events *ev = ctx;
	size_t n = strlen(ev->text);
	static const char mark[] = { '-', '*', 'k', '+' };

	snprintf(ev->text + n, sizeof(ev->text) - n, "%s%c%u", n ? " " : "", mark[e->type], e->seq);
}

__attribute__((unused)) static const char *
sync_text(struct mailbox *m, unsigned flags)
{
	static struct events ev;

	ev.text[0] = '\0';
	assert_int_equal(mailbox_sync(m, flags, note_event, &ev), 0);
	return ev.text;
}

__attribute__((unused)) static uint32_t
append_text(struct fixture *fx, const char *folder, const char *text, uint8_t flags)
{
	struct append *a;
	struct append_info info = { .flags = flags };
	struct copy_result r;

	assert_int_equal(append_begin(fx->s, slice_str(folder), &info, strlen(text), &a), 0);
	assert_int_equal(append_write(a, slice_str(text)), 0);
	assert_int_equal(append_finish(&a, 1, &r), 0);
	assert_int_equal(r.to.count, 1);
	uint32_t uid = r.to.uids[0];
	copy_result_free(&r);
	return uid;
}

__attribute__((unused)) static char *
content_text(struct mailbox *m, uint32_t uid)
{
	static char text[4096];
	struct content *c;
	ptrdiff_t n;
	size_t at = 0;

	assert_int_equal(content_open(m, uid, &c), 0);
	while ((n = content_read(c, at, text + at, sizeof(text) - 1 - at)) > 0)
		at += (size_t)n;
	assert_int_equal(n, 0);
	assert_int_equal(at, content_size(c));
	text[at] = '\0';
	content_free(&c);
	return text;
}

#endif
