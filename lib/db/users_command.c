/*
 * The verbs of `bulkhead user` over the store. Runs in auth for the control socket and in
 * bulkhead(8) while the suite is down. The words are the admin's; they are checked by the store.
 * Passwords are never printed.
 */
#include "db/users.h"

#include "base/slice.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DONE = 0, FAILED = 1, USAGE = 64 };

struct call {
	struct users *users;
	const struct slice *words;
	size_t n;
	struct arena *arena;
	struct buf *out;
	struct user *make_r;
};

static int
complain(struct call *c, int err, struct slice name, const char *doing)
{
	const char *remedy = "";

	switch (err) {
	case ERR_NOT_FOUND:
		remedy = ": no such user; bulkhead user list shows all";
		break;
	case ERR_STATE:
		remedy = ": the user exists already; use bulkhead user passwd or change";
		break;
	case ERR_LIMIT:
		remedy = ": the uids from virtual_uid_base are used up; raise virtual_uid_count";
		break;
	case ERR_SYNTAX:
		remedy = ": a name, password, address or directory that cannot be used";
		break;
	default:
		break;
	}
	buf_addf(
	    c->out, "user %.*s: cannot %s: %s%s\n", SLICE_ARG(name), doing, err_str(err), remedy);
	return FAILED;
}

/* --- options --- */

static int
number(struct slice value, uint32_t *v_r)
{
	uint64_t v;

	if (slice_u64(value, UINT32_MAX - 1, &v) < 0 || v == 0)
		return ERR_SYNTAX;
	*v_r = (uint32_t)v;
	return 0;
}

static int
add_sender(struct user *user, struct slice value, bool *fresh)
{
	if (!*fresh)
		user->sender_count = 0;
	*fresh = true;
	if (value.n == 0)
		return 0;
	if (user->sender_count == USERS_SENDERS_MAX)
		return ERR_LIMIT;
	user->senders[user->sender_count++] = value;
	return 0;
}

static int
option(struct call *c, struct user *user, struct slice word, bool *senders_fresh)
{
	struct slice value = word, name = slice_split(&value, '=');

	if (slice_eq_str(name, "uid"))
		return number(value, &user->uid);
	if (slice_eq_str(name, "gid"))
		return number(value, &user->gid);
	if (slice_eq_str(name, "sender"))
		return add_sender(user, value, senders_fresh);
	if (slice_eq_str(name, "home")) {
		user->home = value;
	} else if (slice_eq_str(name, "mailbox")) {
		user->mailbox = value;
	} else if (slice_eq_str(name, "crypt")) {
		user->crypt = arena_dup(c->arena, value);
		user->scram256 = user->scram1 = SLICE_NULL;
	} else if (slice_eq_str(name, "disabled")) {
		user->flags &= ~(uint32_t)USER_DISABLED;
		if (slice_eq_str(value, "yes"))
			user->flags |= USER_DISABLED;
		else if (!slice_eq_str(value, "no"))
			return ERR_SYNTAX;
	} else {
		return ERR_SYNTAX;
	}
	return 0;
}

static int
options(struct call *c, struct user *user, size_t from)
{
	bool senders_fresh = false;

	for (size_t i = from; i < c->n; i++) {
		int err = option(c, user, c->words[i], &senders_fresh);
		if (err) {
			buf_addf(c->out,
			    "cannot use %.*s: expected uid=, gid=, home=, mailbox=, sender=, "
			    "crypt= or "
			    "disabled=yes|no\n",
			    SLICE_ARG(c->words[i]));
			return USAGE;
		}
	}
	return DONE;
}

/* A hash of no known method would lock the user out without a word. */
static int
check_crypt(struct call *c, const struct user *user)
{
	char hash[USERS_CRYPT_MAX + 1];
	bool weak;

	if (user->crypt.n == 0)
		return DONE;
	if (slice_copy(user->crypt, hash, sizeof(hash)) < 0 ||
	    scram_crypt_accept(hash, &weak) < 0) {
		buf_addf(c->out, "user %.*s: crypt= is no hash that crypt(3) knows\n",
		    SLICE_ARG(user->name));
		return FAILED;
	}
	if (weak)
		buf_addf(c->out,
		    "user %.*s: crypt= is a hash of a weak method; it is replaced at the next "
		    "login, or by bulkhead user passwd\n",
		    SLICE_ARG(user->name));
	return DONE;
}

/* --- verbs --- */

static int
verb_add(struct call *c)
{
	struct user user = { .name = c->words[1] };
	struct slice password = c->words[2];
	int status = options(c, &user, 3), err = 0;

	if (status || (status = check_crypt(c, &user)) != DONE)
		return status;
	if (password.n == 0 && user.crypt.n == 0) {
		buf_addf(c->out, "user %.*s: the password is empty\n", SLICE_ARG(user.name));
		return FAILED;
	}
	/* The verifier is in the first record, so that there never is a user without one. */
	if (password.n) {
		err = users_make_verifiers(c->users, password, c->arena, &user);
		if (err)
			return complain(c, err, user.name, "use the password");
	}
	err = users_add(c->users, c->arena, &user);
	if (err)
		return complain(c, err, c->words[1], "add");
	buf_addf(c->out, "user %.*s added: uid %u, home %.*s\n", SLICE_ARG(user.name), user.uid,
	    SLICE_ARG(user.home));
	if (c->make_r)
		*c->make_r = user;
	return DONE;
}

static int
verb_passwd(struct call *c)
{
	int err = users_set_password(c->users, c->words[1], c->words[2]);

	if (err)
		return complain(c, err, c->words[1], "set the password");
	buf_addf(c->out, "user %.*s: password changed\n", SLICE_ARG(c->words[1]));
	return DONE;
}

static int
verb_change(struct call *c)
{
	struct user seen, user;
	int err, status;

	do {
		err = users_get(c->users, c->words[1], c->arena, &seen);
		if (err)
			break;
		user = seen;
		if ((status = options(c, &user, 2)) != DONE)
			return status;
		if (!slice_eq(user.crypt, seen.crypt) && (status = check_crypt(c, &user)) != DONE)
			return status;
		err = users_replace(c->users, c->arena, &seen, &user);
	} while (err == ERR_STATE); /* changed meanwhile, by a login or another call */
	if (err)
		return complain(c, err, c->words[1], "change");
	buf_addf(c->out, "user %.*s changed\n", SLICE_ARG(user.name));
	if (c->make_r)
		*c->make_r = user;
	return DONE;
}

static int
verb_del(struct call *c)
{
	int err = users_remove(c->users, c->words[1]);

	if (err)
		return complain(c, err, c->words[1], "delete");
	buf_addf(c->out, "user %.*s deleted; the mail stays where it is\n", SLICE_ARG(c->words[1]));
	return DONE;
}

static const char *
credential(const struct user *user)
{
	return user->scram256.n ? "scram" : user->crypt.n ? "crypt" : "none";
}

struct listing {
	struct buf *out;
	const char *pattern;
};

static int
list_one(void *ctx, const struct user *user)
{
	struct listing *l = ctx;
	char name[USERS_NAME_MAX + 1];

	if (slice_copy(user->name, name, sizeof(name)) < 0)
		return 0;
	if (l->pattern && fnmatch(l->pattern, name, 0) != 0)
		return 0;
	buf_addf(l->out, "%s uid=%u gid=%u login=%s credential=%s home=%.*s mailbox=%.*s\n", name,
	    user->uid, user->gid, user->flags & USER_DISABLED ? "no" : "yes", credential(user),
	    SLICE_ARG(user->home), SLICE_ARG(user->mailbox));
	return 0;
}

static int
verb_list(struct call *c)
{
	struct listing l = { c->out,
		c->n > 1 ? arena_printf(c->arena, "%.*s", SLICE_ARG(c->words[1])) : NULL };
	int err = users_each(c->users, list_one, &l);

	if (err) {
		buf_addf(c->out, "cannot list the users: %s\n", err_str(err));
		return FAILED;
	}
	return DONE;
}

static void
show_time(struct buf *out, const char *label, uint64_t seconds)
{
	time_t t = (time_t)seconds;
	struct tm tm;
	char text[32] = "";

	if (gmtime_r(&t, &tm))
		strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
	buf_addf(out, "%s: %s\n", label, text);
}

static int
verb_show(struct call *c)
{
	struct user user;
	int err = users_get(c->users, c->words[1], c->arena, &user);

	if (err)
		return complain(c, err, c->words[1], "show");
	buf_addf(c->out,
	    "name: %.*s\nuid: %u\ngid: %u\nhome: %.*s\nmailbox: %.*s\nlogin: %s\ncredential: %s\n",
	    SLICE_ARG(user.name), user.uid, user.gid, SLICE_ARG(user.home), SLICE_ARG(user.mailbox),
	    user.flags & USER_DISABLED ? "no" : "yes", credential(&user));
	for (size_t i = 0; i < user.sender_count; i++)
		buf_addf(c->out, "sender: %.*s\n", SLICE_ARG(user.senders[i]));
	show_time(c->out, "created", user.created);
	show_time(c->out, "password changed", user.changed);
	return DONE;
}

static int
verb_check(struct call *c)
{
	struct user user;
	int err = users_get(c->users, c->words[1], c->arena, &user);

	if (err)
		return complain(c, err, c->words[1], "check");
	err = users_check(&user, c->words[2]);
	buf_addf(c->out, "user %.*s: the password %s%s\n", SLICE_ARG(user.name),
	    err == 0               ? "fits"
	    : err == ERR_DENIED    ? "does not fit"
	    : err == ERR_TEMPORARY ? "cannot be checked now: no memory"
				   : "cannot be checked: the stored hash is of no known method",
	    !err && user.flags & USER_DISABLED ? ", but the login is disabled" : "");
	return err ? FAILED : DONE;
}

static const struct {
	const char *name;
	size_t min, max;
	int (*run)(struct call *c);
	const char *usage;
} verbs[] = {
	{ "add", 3, 64, verb_add,
	    "add NAME PASSWORD [uid=N] [gid=N] [home=DIR] [mailbox=SPEC] [sender=ADDRESS]... "
	    "[crypt=HASH]" },
	{ "passwd", 3, 3, verb_passwd, "passwd NAME PASSWORD" },
	{ "change", 2, 64, verb_change, "change NAME [OPTION=VALUE]..." },
	{ "del", 2, 2, verb_del, "del NAME" },
	{ "list", 1, 2, verb_list, "list [PATTERN]" },
	{ "show", 2, 2, verb_show, "show NAME" },
	{ "check", 3, 3, verb_check, "check NAME PASSWORD" },
};

int
users_command(struct users *users, const struct slice *words, size_t n, struct arena *arena,
    struct buf *out, struct user *make_r)
{
	struct call c = { users, words, n, arena, out, make_r };

	if (make_r)
		memset(make_r, 0, sizeof(*make_r));
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
		if (n == 0 || !slice_eq_str(words[0], verbs[i].name))
			continue;
		if (n < verbs[i].min || n > verbs[i].max) {
			buf_addf(out, "usage: bulkhead user %s\n", verbs[i].usage);
			return USAGE;
		}
		return verbs[i].run(&c);
	}
	buf_add_str(out, "usage: bulkhead user add|passwd|change|del|list|show|check\n");
	return USAGE;
}

/* --- homes --- */

/* Opens or makes one directory below parent without following a link; the last is the user's. */
static int
enter(int parent, const char *name, const struct user *user, bool last)
{
	bool made = mkdirat(parent, name, last ? 0700 : 0755) == 0;
	int fd;

	if (!made && errno != EEXIST)
		return err_errno();
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (last ? O_NOFOLLOW : 0));
	if (fd < 0)
		return err_errno();
	if (made && (fchmod(fd, last ? 0700 : 0755) < 0 ||
			(last && fchown(fd, user->uid, user->gid) < 0))) {
		int err = err_errno();
		close(fd);
		return err;
	}
	return fd;
}

/* A directory between base and a home: ours, so that no user can put a link in the way. */
static int
enter_between(int parent, const char *name)
{
	struct stat st;
	int err = 0, fd;

	if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
		return err_errno();
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return err_errno();
	if (fstat(fd, &st) < 0)
		err = err_errno();
	else if (st.st_uid != geteuid())
		err = ERR_DENIED;
	if (err)
		close(fd);
	return err ? err : fd;
}

int
users_make_home_below(const char *base, const struct user *user)
{
	struct slice rest = user->home, part;
	char name[256];
	int fd, next;

	if (!slice_has_prefix(rest, base) || rest.n < strlen(base) + 2 ||
	    rest.p[strlen(base)] != '/')
		return ERR_DENIED;
	rest = slice_sub(rest, strlen(base) + 1, rest.n);
	fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	while (fd >= 0 && rest.n > 0) {
		part = slice_split(&rest, '/');
		next =
		    !part.n || part.p[0] == '.' ? ERR_SYNTAX : slice_copy(part, name, sizeof(name));
		if (!next)
			next = rest.n ? enter_between(fd, name) : enter(fd, name, user, true);
		close(fd);
		fd = next;
	}
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

int
users_make_home(const struct user *user)
{
	struct slice rest = user->home;
	int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return err_errno();
	slice_split(&rest, '/');
	while (rest.n > 0) {
		struct slice part = slice_split(&rest, '/');
		char name[256];
		int next;
		if (part.n == 0)
			continue;
		next = slice_eq_str(part, "..") ? ERR_SYNTAX : slice_copy(part, name, sizeof(name));
		if (!next)
			next = enter(fd, name, user, rest.n == 0);
		close(fd);
		if (next < 0)
			return next;
		fd = next;
	}
	close(fd);
	return 0;
}
