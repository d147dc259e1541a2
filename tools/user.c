/*
 * `bulkhead user`: over the control socket while the suite runs (auth owns the store then), on the
 * store itself while it is down. Runs as the caller. Passwords come from the terminal or from
 * standard input, never from the command line, where ps shows them, and are wiped.
 */
#include "db/users.h"
#include "tools/tool.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#define PASSWORD_MAX 1024
#define WORDS_MAX 64

static void
wipe(char *s, size_t n)
{
	explicit_bzero(s, n);
}

static bool
read_line(char out[PASSWORD_MAX])
{
	size_t n;

	if (!fgets(out, PASSWORD_MAX, stdin))
		return false;
	n = strcspn(out, "\r\n");
	if (n == PASSWORD_MAX - 1) {
		tool_say("the password is longer than %d bytes", PASSWORD_MAX - 2);
		return false; /* cut, it would be another one */
	}
	out[n] = '\0';
	return n > 0;
}

/* Waits for a line or a signal, which stays pending. False: a signal. */
static bool
await_line(int signals)
{
	struct pollfd p[2] = { { .fd = signals, .events = POLLIN },
		{ .fd = STDIN_FILENO, .events = POLLIN } };

	while (poll(p, 2, -1) < 0 && errno == EINTR)
		;
	return !p[0].revents;
}

/* What ends or stops the program while there is no echo comes when there is one again; after a stop
 * the question is asked anew. */
static bool
ask(const char *prompt, char out[PASSWORD_MAX])
{
	static const int held[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP };
	struct termios old, quiet;
	sigset_t hold, usual;
	bool ok = false, there;
	int signals;

	if (tcgetattr(STDIN_FILENO, &old))
		return read_line(out);
	sigemptyset(&hold);
	for (size_t i = 0; i < sizeof(held) / sizeof(held[0]); i++)
		sigaddset(&hold, held[i]);
	signals = signalfd(-1, &hold, SFD_CLOEXEC);
	if (signals < 0) {
		tool_say("no descriptor: %s", err_str(err_errno()));
		return false;
	}
	quiet = old;
	quiet.c_lflag &= ~(tcflag_t)ECHO;
	do {
		sigprocmask(SIG_BLOCK, &hold, &usual);
		fprintf(stderr, "%s: ", prompt);
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
		there = await_line(signals);
		if (there)
			ok = read_line(out);
		(void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
		fputc('\n', stderr);
		sigprocmask(SIG_SETMASK, &usual, NULL);
	} while (!there);
	close(signals);
	return ok;
}

static bool
read_password(char out[PASSWORD_MAX], bool twice)
{
	char again[PASSWORD_MAX];
	bool ok;

	if (!ask("password", out)) {
		tool_say("no password: type one, or give it as the first line of standard input");
		return false;
	}
	if (!twice || !isatty(STDIN_FILENO))
		return true;
	ok = ask("once more", again) && !strcmp(out, again);
	if (!ok)
		tool_say("the two differ");
	wipe(again, sizeof(again));
	return ok;
}

static const char *
text_in(struct arena *arena, struct slice s)
{
	return (const char *)arena_dup(arena, s).p;
}

/* The value behind "name: " in the answer of `user show`. */
static struct slice
field(struct slice text, const char *name)
{
	struct slice line;

	while (text.n) {
		line = slice_split(&text, '\n');
		if (slice_has_prefix(line, name))
			return slice_sub(line, strlen(name), line.n);
	}
	return SLICE_NULL;
}

/* Asks master, which may. */
static int
ask_for_home(struct tool *t, const char *home, const struct user *user)
{
	char uid[16], gid[16];
	const char *words[] = { "make-home", home, uid, gid };
	struct buf out = { 0 };
	int status;

	snprintf(uid, sizeof(uid), "%u", user->uid);
	snprintf(gid, sizeof(gid), "%u", user->gid);
	status = control_call(t, words, 4, true, &out);
	buf_free(&out);
	return status;
}

static void
make_home(struct tool *t, const struct user *user)
{
	struct arena arena = { 0 };
	int err = users_make_home(user);

	if ((err == -EACCES || err == -EPERM) && control_alive(t) &&
	    ask_for_home(t, text_in(&arena, user->home), user) == 0)
		err = 0;
	if (err)
		tool_say("%s: cannot be made: %s: create it, owned by uid %u, mode 0700",
		    text_in(&arena, user->home), err_str(err), user->uid);
	arena_free(&arena);
}

/* auth has no right to make a home: whoever called us makes it, if it may; else master does. */
static void
make_home_of(struct tool *t, const char *name)
{
	const char *words[] = { "user", "show", name };
	struct buf out = { 0 };
	struct user user = { 0 };
	uint64_t uid, gid;

	if (control_call(t, words, 3, true, &out) == 0 &&
	    !slice_u64(field(buf_slice(&out), "uid: "), UINT32_MAX - 1, &uid) &&
	    !slice_u64(field(buf_slice(&out), "gid: "), UINT32_MAX - 1, &gid)) {
		user.uid = (uint32_t)uid;
		user.gid = (uint32_t)gid;
		user.home = field(buf_slice(&out), "home: ");
		if (user.home.n)
			make_home(t, &user);
	}
	buf_free(&out);
}

static int
on_store(struct tool *t, const char **words, size_t n)
{
	const struct conf *conf = tool_conf(t);
	struct users_opts opts = { (unsigned)conf->auth_scram_rounds,
		conf_list_has_domain(&conf->auth_mechanisms, SLICE_LIT("SCRAM-SHA-1")),
		(uint32_t)conf->virtual_uid_base, (uint32_t)conf->virtual_uid_count,
		conf->virtual_mailbox_base };
	struct slice list[WORDS_MAX];
	struct arena arena = { 0 };
	struct buf out = { 0 };
	struct users *users;
	struct user make;
	char why[512];
	int status;
	size_t i;

	/* before the first start, master has not made it yet */
	if (!strcmp(words[1], "add"))
		(void)mkdir(conf->data_directory, 0755);
	if (users_open(
		conf->auth_user_store, !strcmp(words[1], "add"), &opts, &users, why, sizeof(why))) {
		tool_say("%s", why);
		return 1;
	}
	for (i = 0; i + 1 < n; i++)
		list[i] = slice_str(words[i + 1]);
	status = users_command(users, list, n - 1, &arena, &out, &make);
	(status ? fprintf(stderr, "%.*s", SLICE_ARG(buf_slice(&out)))
		: printf("%.*s", SLICE_ARG(buf_slice(&out))));
	if (!status && make.home.n)
		make_home(t, &make);
	buf_wipe(&out);
	arena_free(&arena);
	users_close(&users);
	return status;
}

/* Puts the password behind the name; an add with crypt= has none. */
static int
collect(int argc, char **argv, const char **words, size_t *n_r, char password[PASSWORD_MAX])
{
	bool add = argc > 1 && !strcmp(argv[1], "add"), needs, crypt = false;
	size_t n = 0;
	int i;

	needs = add || (argc > 1 && (!strcmp(argv[1], "passwd") || !strcmp(argv[1], "check")));
	if (argc < 2 || argc >= WORDS_MAX - 1 || (needs && argc < 3)) {
		tool_say("usage: bulkhead user add|passwd|change|del|list|show|check [NAME] "
			 "[OPTION=VALUE]...");
		return 64;
	}
	for (i = 3; i < argc; i++)
		crypt |= !strncmp(argv[i], "crypt=", 6);
	password[0] = '\0';
	if (needs && !(add && crypt) && !read_password(password, strcmp(argv[1], "check") != 0))
		return 64;
	for (i = 0; i < argc; i++) {
		words[n++] = argv[i];
		if (i == 2 && needs)
			words[n++] = password;
	}
	*n_r = n;
	return 0;
}

int
cmd_user(struct tool *t, int argc, char **argv)
{
	const char *words[WORDS_MAX];
	char password[PASSWORD_MAX];
	size_t n = 0;
	int status = collect(argc, argv, words, &n, password);

	if (!status) {
		if (!control_alive(t)) {
			status = on_store(t, words, n);
		} else {
			status = control_call(t, words, n, false, NULL);
			if (!status && (!strcmp(words[1], "add") || !strcmp(words[1], "change")))
				make_home_of(t, words[2]);
			if (status < 0)
				status = 69;
		}
	}
	wipe(password, sizeof(password));
	return status;
}
