/*
 * Runs the transcripts of lib/imap/transcripts against sessions on a store in a temporary
 * directory. A transcript reads like the wire:
 *
 *	C: text      the client sends a line (C+: without a line end)
 *	S: pattern   the server's next line; {*} stands for any text
 *	S: ...       any lines, up to the one that the next pattern fits
 *	2C: 2S:      the same for a second connection of the user (up to 4)
 *	MAIL folder  a message comes into the folder's new/; its lines follow, each behind "| "
 *	CHANGED      the store noticed a change: idling sessions are told
 *	FILES n      the process may have n open files from now on
 *	#            comment
 *
 * Each is run with the input in one piece and byte by byte.
 */
#include "imap/session.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

enum { CONNECTIONS = 4, FOLDER = 4096 };

struct run {
	const char *file;
	unsigned line;
	char dir[64];
	struct store *store;
	struct charsets *charsets;
	struct imap_session *session[CONNECTIONS];
	struct buf in[CONNECTIONS], out[CONNECTIONS];
	size_t step, watermark;
	unsigned mails;
	FILE *mail; /* being written */
	char mail_to[FOLDER];
};

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void
complain(const struct run *r, const char *what, const char *text)
{
	fail_msg("%s:%u (step %zu): %s: %s", r->file, r->line, r->step, what, text);
}

static struct imap_session *
connection(struct run *r, unsigned n)
{
	struct imap_session_config config = { .store = r->store,
		.charsets = r->charsets,
		.max_command = 65536,
		.watermark = r->watermark,
		.max_append = 100000,
		.max_errors = 20 };

	if (!r->session[n])
		r->session[n] = imap_session_new(&config, SLICE_LIT("login"));
	return r->session[n];
}

/* Gives the session its input, step bytes a turn, and takes its output, until nothing moves. */
static void
pump(struct run *r, unsigned n)
{
	struct imap_session *s = connection(r, n);
	struct buf *out = imap_session_out(s);
	size_t window = 0;

	for (;;) {
		struct slice in = buf_slice(&r->in[n]);
		size_t taken = imap_session_feed(s, slice_sub(in, 0, window));

		buf_consume(&r->in[n], taken);
		window -= taken;
		while (imap_session_busy(s)) {
			imap_session_run(s);
			buf_add(&r->out[n], buf_slice(out));
			buf_clear(out);
		}
		buf_add(&r->out[n], buf_slice(out));
		buf_clear(out);
		if (window >= buf_len(&r->in[n])) {
			if (!taken)
				return;
			continue;
		}
		window += r->step;
		if (window > buf_len(&r->in[n]))
			window = buf_len(&r->in[n]);
	}
}

/* {*} stands for any text. */
static bool
fits(const char *pattern, const char *text)
{
	const char *star = strstr(pattern, "{*}");
	size_t n;

	if (!star)
		return !strcmp(pattern, text);
	n = (size_t)(star - pattern);
	if (strncmp(pattern, text, n))
		return false;
	for (text += n, star += 3;; text++) {
		if (fits(star, text))
			return true;
		if (!*text)
			return false;
	}
}

/* The next line of output, without CRLF; the caller frees. NULL: there is none. */
static char *
next_line(struct run *r, unsigned n)
{
	struct slice out = buf_slice(&r->out[n]);
	ptrdiff_t lf = slice_find(out, '\n');
	char *line;

	if (lf < 0)
		return NULL;
	line = slice_dup(slice_sub(out, 0, (size_t)lf - (lf > 0 && out.p[lf - 1] == '\r')));
	buf_consume(&r->out[n], (size_t)lf + 1);
	return line;
}

static void
expect(struct run *r, unsigned n, const char *pattern, bool *any)
{
	pump(r, n);
	if (!strcmp(pattern, "...")) {
		*any = true;
		return;
	}
	for (;;) {
		char *line = next_line(r, n);
		bool ok;

		if (!line)
			complain(r, "the server says nothing more; expected", pattern);
		ok = fits(pattern, line);
		if (!ok && !*any)
			complain(r, "the server says", line);
		free(line);
		if (ok)
			break;
	}
	*any = false;
}

static void
quiet(struct run *r)
{
	for (unsigned n = 0; n < CONNECTIONS; n++) {
		char *line;

		if (!r->session[n])
			continue;
		pump(r, n);
		line = next_line(r, n);
		if (line)
			complain(r, "unexpected", line);
	}
}

static void
end_mail(struct run *r)
{
	char tmp[FOLDER + 200], path[FOLDER + 200];

	if (!r->mail)
		return;
	fclose(r->mail);
	r->mail = NULL;
	(void)snprintf(tmp, sizeof(tmp), "%s/tmp/mail", r->dir);
	(void)snprintf(
	    path, sizeof(path), "%s/new/17640000%02u.M1P%u.test", r->mail_to, r->mails, r->mails);
	assert_int_equal(rename(tmp, path), 0);
}

static void
start_mail(struct run *r, const char *folder)
{
	char tmp[FOLDER];

	r->mails++;
	if (!strcmp(folder, "INBOX"))
		(void)snprintf(r->mail_to, sizeof(r->mail_to), "%s", r->dir);
	else
		(void)snprintf(r->mail_to, sizeof(r->mail_to), "%s/.%s", r->dir, folder);
	(void)snprintf(tmp, sizeof(tmp), "%s/tmp/mail", r->dir);
	r->mail = fopen(tmp, "w");
	assert_non_null(r->mail);
}

/* One line of the transcript. */
static void
obey(struct run *r, char *text, bool *any)
{
	unsigned n = 0;

	if (*text == '|') {
		fprintf(r->mail, "%s\n", text[1] ? text + 2 : "");
		return;
	}
	end_mail(r);
	if (!*text || *text == '#')
		return;
	if (*text >= '2' && *text <= '0' + CONNECTIONS)
		n = (unsigned)(*text++ - '1');
	if (!strncmp(text, "C: ", 3) || !strcmp(text, "C:")) {
		quiet(r);
		buf_add_str(&r->in[n], text[2] ? text + 3 : "");
		buf_add_str(&r->in[n], "\r\n");
	} else if (!strncmp(text, "C+: ", 4)) {
		buf_add_str(&r->in[n], text + 4);
	} else if (!strncmp(text, "S: ", 3)) {
		expect(r, n, text + 3, any);
	} else if (!strncmp(text, "MAIL ", 5)) {
		start_mail(r, text + 5);
	} else if (!strncmp(text, "FILES ", 6)) {
		struct rlimit files;

		quiet(r);
		assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
		files.rlim_cur = (rlim_t)strtoul(text + 6, NULL, 10);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
	} else if (!strcmp(text, "CHANGED")) {
		(void)store_changed(r->store);
		for (n = 0; n < CONNECTIONS; n++)
			if (r->session[n])
				imap_session_changed(r->session[n]);
	} else {
		complain(r, "no such line", text);
	}
}

static void
run_file(const char *path, size_t step, size_t watermark)
{
	struct run r = { .file = path, .step = step, .watermark = watermark };
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t size = 0;
	ssize_t len;
	bool any = false;

	assert_non_null(f);
	(void)snprintf(r.dir, sizeof(r.dir), "/tmp/bulkhead-imap-XXXXXX");
	assert_non_null(mkdtemp(r.dir));
	r.charsets = charsets_open();
	assert_int_equal(store_open(r.dir, NULL, &r.store), 0);
	while ((len = getline(&line, &size, f)) >= 0) {
		r.line++;
		if (len && line[len - 1] == '\n')
			line[len - 1] = '\0';
		obey(&r, line, &any);
	}
	quiet(&r);
	for (unsigned n = 0; n < CONNECTIONS; n++) {
		imap_session_free(&r.session[n]);
		buf_free(&r.in[n]);
		buf_free(&r.out[n]);
	}
	store_free(&r.store);
	charsets_free(&r.charsets);
	free(line);
	fclose(f);
	(void)nftw(r.dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void
test_transcript(void **state)
{
	run_file(*state, 100000, 65536);
	run_file(*state, 1, 65536);
	run_file(*state, 7, 1);
}

int
main(int argc, char **argv)
{
	static struct CMUnitTest tests[200];
	const char *dir = "lib/imap/transcripts";
	struct dirent **names;
	int count = scandir(dir, &names, NULL, alphasort), failed;
	size_t n = 0;

	for (int i = 0; i < count; i++) {
		if (strstr(names[i]->d_name, ".imap") &&
		    (argc < 2 || strstr(names[i]->d_name, argv[1])) && n < 200) {
			char *path = xasprintf("%s/%s", dir, names[i]->d_name);

			tests[n++] = (struct CMUnitTest){
				.name = path, .test_func = test_transcript, .initial_state = path
			};
		}
		free(names[i]);
	}
	if (count >= 0)
		free(names);
	failed = _cmocka_run_group_tests("transcripts", tests, n, NULL, NULL);
	for (size_t i = 0; i < n; i++)
		free((void *)(uintptr_t)tests[i].name);
	return failed || !n;
}
