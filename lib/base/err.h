/* Error codes of the suite: 0 is success, every failure is a negative enum err. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#define CHECKED __attribute__((warn_unused_result))
/* A large array that a call fills before anybody reads it: not zeroed first, as the compiler is
 * told to do with all others. */
#define FILLED_LATER __attribute__((uninitialized))
#define NORETURN __attribute__((noreturn))
#define FALLTHROUGH __attribute__((fallthrough))
#define PRINTF(a, b) __attribute__((format(printf, a, b)))

/* An errno value e is carried as -e; the values below lie beyond every errno of Linux. */
enum err {
	ERR_NONE = 0,
	ERR_TRUNCATED = -4096, /* input ends before the item does */
	ERR_SYNTAX = -4097,    /* input breaks the grammar */
	ERR_LIMIT = -4098,     /* a documented limit is exceeded */
	ERR_CLOSED = -4099,    /* the peer is gone */
	ERR_DENIED = -4100,    /* not permitted for this sender, role or state */
	ERR_NOT_FOUND = -4101, /* authoritative: there is no such thing */
	ERR_TEMPORARY = -4102, /* no answer now; the same request may succeed later */
	ERR_STATE = -4103,     /* not valid in the present state */
	ERR_CORRUPT = -4104,   /* stored data fails its own check */
};

/* The negative code of the present errno; never 0. */
int err_errno(void);

/* A constant, lower-case text for a code of either range. */
const char *err_str(int err);

/* Prints "program: text" to stderr and exits with status 1. For start-up, out of memory and broken
 * invariants only. */
void die(const char *fmt, ...) NORETURN PRINTF(1, 2);

/* From here on die() hands its text to tell too, once, before the process ends. */
void die_tell(void (*tell)(const char *text));

/* Allocators that die when memory is refused; the caller owns the result and frees it with free().
 */
void *xmalloc(unsigned long n);
void *xcalloc(unsigned long n, unsigned long size);
void *xrealloc(void *p, unsigned long n);
char *xstrdup(const char *s);
char *xasprintf(const char *fmt, ...) PRINTF(1, 2);

#endif
