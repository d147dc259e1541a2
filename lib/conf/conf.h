/*
 * The parameters of an instance: main.cf and master.cf are read and evaluated by master and the
 * tools (as text, below), and every other process gets a snapshot: bytes that hold what its role
 * needs, decoded without parsing any text. `struct conf` has one member per row of params.def.
 *
 * Nothing here blocks but the functions that say that they read a file. Nothing is shared between
 * threads; a decoded struct conf is read only and may be read by all.
 */
#ifndef CONF_CONF_H
#define CONF_CONF_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/slice.h"
#include "conf/params.h"

/* Bounds of what is read: a file, one value after expansion, the services of master.cf, words of a
 * list, a snapshot. */
#define CONF_FILE_LIMIT (4u << 20)
#define CONF_VALUE_LIMIT (256u << 10)
#define CONF_SERVICE_LIMIT 1000u
#define CONF_SERVICE_NAME_LIMIT 128u /* bytes, as msgs.def has it */
#define CONF_LIST_LIMIT 20000u
#define CONF_SNAPSHOT_LIMIT (8u << 20)
#define CONF_RESOLVERS_MAX 16u /* of dns_resolvers */

/* --- every process: snapshots --- */

/* Appends the snapshot for a role of roles.def ("smtpd"): the parameters whose row names it or
 * "all". ERR_NOT_FOUND for a role that roles.def lacks, ERR_LIMIT if out is limited and full. */
int conf_snapshot_encode(const struct conf *conf, const char *role, struct buf *out) CHECKED;
/* Decodes and checks every value against its row; ERR_CORRUPT, ERR_LIMIT. Members that the role
 * does not get are zero, NULL or empty; strings that it gets are never NULL. Free with conf_free.
 * role_r, if not NULL, is the role that the snapshot was made for (static memory). */
int conf_snapshot_decode(struct slice in, const char **role_r, struct conf **conf_r) CHECKED;
void conf_free(struct conf **conf);

/* Whether value is one of the words, bytewise, or ASCII case-insensitively for domain names. */
bool conf_list_has(const struct conf_list *list, struct slice value);
bool conf_list_has_domain(const struct conf_list *list, struct slice domain);

/* --- transport:nexthop, where it stands in main.cf or in a table --- */

/* Whether there is a transport of that name: those of main.cf(5), and smtp-NAME and lmtp-NAME. */
bool conf_transport_known(struct slice name);
/* A domain, [host] or [address], with or without a port: what a next hop must be to be found. */
bool conf_nexthop_ok(struct slice nexthop);
/* unix:PATH or PATH: no process of ours connects to it. */
bool conf_nexthop_is_path(struct slice nexthop);
#define CONF_PORT_TEXT 8
/* A port by number, or of a mail protocol by the name that services(5) has for it, which not every
 * machine has; 0: neither. */
unsigned conf_service_port(struct slice name);
/* The same as digits in text, or what was given: for getaddrinfo. */
const char *conf_port_text(const char *name, char text[CONF_PORT_TEXT]);
/* The port of host:port, [host]:port, by number or name; 0: it has none. host_r: what stands before
 * it. */
unsigned conf_nexthop_port(struct slice nexthop, struct slice *host_r);
/* The ports that the jail of smtp-client lets through; how many. */
size_t conf_client_ports(const struct conf *conf, uint16_t *ports, size_t max);

/* Expands $name, ${name?{x}:{y}} and so on, as main.cf does, with names that lookup answers: the
 * value is appended to out and is not expanded again; ERR_NOT_FOUND means not defined (the empty
 * text, which is an error of conf_expand only for a plain $name when strict). Any other error ends
 * the expansion. On ERR_SYNTAX, ERR_NOT_FOUND or ERR_LIMIT *why_r (at least 200 bytes) says why.
 * For parameters of type raw, whose names only the daemon knows ($home, $user). */
typedef int conf_lookup(void *ctx, struct slice name, struct buf *out);
#define CONF_WHY 200
int conf_expand(struct slice text, bool strict, conf_lookup *lookup, void *ctx, struct buf *out,
    char why_r[CONF_WHY]) CHECKED;

/* --- master and the tools: problems --- */

struct conf_problem {
	const char *file;   /* NULL: of the system, not of a file */
	unsigned line;      /* 0: of the whole file */
	bool warning;       /* does not keep the configuration from being used */
	const char *text;   /* the thing and the reason */
	const char *remedy; /* what to do; NULL if the text says it */
};

/* A zeroed struct is an empty list. Problems of all files are collected, in the order found. */
struct conf_problems {
	struct arena arena;
	struct conf_problem *v;
	size_t n, size;
	size_t errors; /* those that are no warnings */
};

/* remedy may be NULL. All texts are copied. */
void conf_problem(struct conf_problems *p, const char *file, unsigned line, const char *remedy,
    const char *fmt, ...) PRINTF(5, 6);
void conf_warning(struct conf_problems *p, const char *file, unsigned line, const char *remedy,
    const char *fmt, ...) PRINTF(5, 6);
/* "FILE:LINE: [warning: ]TEXT: REMEDY", without a newline. */
void conf_problem_format(const struct conf_problem *problem, struct buf *out);
void conf_problems_free(struct conf_problems *p);

/* --- master and the tools: main.cf as text --- */

/* An -o of master.cf, or an assignment given to a tool. */
struct conf_override {
	const char *name, *value; /* value not yet expanded */
	const char *file;
	unsigned line;
};

struct conf_raw; /* names and unexpanded values, each with its place */

struct conf_entry {
	const char *name, *value, *file;
	unsigned line;
	bool used; /* some value refers to it by $name */
};

/* An empty main.cf. host: what stands for myhostname where none is set; NULL: what the kernel
 * tells. */
struct conf_raw *conf_raw_new(const char *host);
void conf_raw_free(struct conf_raw **raw);
/* With false, a path in myorigin is not read (tests, fuzzers). */
void conf_raw_read_files(struct conf_raw *raw, bool yes);
/* Replaces the default of a name: config_directory by the folder that is read, for example. */
void conf_raw_default(struct conf_raw *raw, const char *name, const char *value);
/* Adds the text of a file in main.cf's syntax. */
void conf_raw_parse(
    struct conf_raw *raw, const char *file, struct slice text, struct conf_problems *p);
/* The entries in the order of the file; NULL when i is past the last. Valid until the next parse.
 */
const struct conf_entry *conf_raw_entry(const struct conf_raw *raw, size_t i);
const struct conf_entry *conf_raw_find(const struct conf_raw *raw, const char *name);
/* Marks the user-defined names that text refers to as used: for the values of master.cf. */
void conf_raw_refer(struct conf_raw *raw, const char *text);
/* Names that are neither parameters nor used: the nearest known name, or what to use instead of a
 * parameter of Postfix or Dovecot. Call after all files have been read and referred to. */
void conf_raw_check_names(const struct conf_raw *raw, struct conf_problems *p);
/* The same check of one name that stands elsewhere (an -o, an argument of a tool). */
bool conf_check_name(const struct conf_raw *raw, const char *name, const char *file, unsigned line,
    struct conf_problems *p);

/* All parameters with their final values; bad ones are added to p and have their default then.
 * Reads the file that myorigin names. Free with conf_free. */
struct conf *conf_eval(const struct conf_raw *raw, const struct conf_override *overrides, size_t n,
    struct conf_problems *p);
/* The expanded text of one name, appended to out. ERR_NOT_FOUND for a name that does not exist. */
int conf_raw_value(const struct conf_raw *raw, const char *name, struct buf *out) CHECKED;
/* Expands text by the names of main.cf. */
int conf_raw_expand(
    const struct conf_raw *raw, struct slice text, struct buf *out, char why_r[CONF_WHY]) CHECKED;

/* The row of a name, or NULL. */
const struct conf_param *conf_param_find(const char *name);
/* A member as the text that main.cf would hold, appended to out. */
void conf_value_text(const struct conf *conf, const struct conf_param *param, struct buf *out);

/* Whether a parameter has another value in the two: what a reload cannot take needs a new process.
 */
bool conf_differs(const struct conf *a, const struct conf *b, const char *name);

/* --- master and the tools: master.cf --- */

enum conf_service_type { CONF_SERVICE_INET, CONF_SERVICE_UNIX, CONF_SERVICE_PASS };

#define CONF_MAXPROC_DEFAULT (-1) /* "-": default_process_limit */

/* One row of master.cf. */
struct conf_service {
	const char *name; /* "smtp", "2525", "127.0.0.1:2525", "[::1]:imap", or a path */
	enum conf_service_type type;
	bool is_private, unprivileged,
	    chrooted;        /* read for the sake of the syntax: jails do not depend on them */
	int64_t wakeup;      /* ms; 0: never */
	int maxproc;         /* 0: no limit, or CONF_MAXPROC_DEFAULT */
	const char *command; /* the program: a role of roles.def */
	size_t argc;
	const char *
	    *argv; /* its words but the -o, expanded; argv[0] is the first after the command */
	size_t overrides_n;
	struct conf_override *overrides;
	const char *file;
	unsigned line;
	struct conf
	    *conf; /* main.cf with the overrides; NULL without overrides: use that of main.cf */
};

struct conf_services {
	struct arena arena;
	size_t n;
	struct conf_service *v; /* in the order of the file */
};

/* The rows of one file; raw is only marked (conf_raw_refer) and asked for expansion of arguments,
 * and may be NULL (arguments then stay as they are). ->conf is not filled in. */
struct conf_services *conf_services_parse(
    struct conf_raw *raw, const char *file, struct slice text, struct conf_problems *p);
void conf_services_free(struct conf_services **services);

/* --- master and the tools: a whole configuration --- */

struct conf_set {
	struct conf_raw *raw;
	struct conf *conf;              /* main.cf alone */
	struct conf_services *services; /* ->conf filled in */
	char *main_cf, *master_cf;      /* paths */
};

/* Reads DIR/main.cf and DIR/master.cf and finds every problem of both. Always gives a set (with
 * defaults in place of what is wrong); it is to be used only if p->errors is 0. Reads files. */
struct conf_set *conf_set_load(const char *dir, struct conf_problems *p);
/* The same with other text in place of that of main.cf: what an edit would lead to. */
struct conf_set *conf_set_load_with(const char *dir, struct slice main_cf, struct conf_problems *p);
void conf_set_free(struct conf_set **set);

/* --- logical lines: shared by both files and by the editor in tools/ --- */

struct conf_line {
	struct slice text; /* the line with its continuations, comments between them left out; in
			      the arena */
	unsigned line;     /* number of its first line, from 1 */
	size_t start, end; /* its bytes in the file, up to and with the last newline */
};

struct conf_lines {
	struct slice in;
	size_t at;
	unsigned line;
};

/* The next line that is not a comment or empty; false at the end. A zeroed struct with .in set
 * starts. orphan_r: the line is a continuation of nothing. */
bool conf_lines_next(
    struct conf_lines *lines, struct arena *arena, struct conf_line *line_r, bool *orphan_r);
/* An empty line or a comment. */
bool conf_line_ignored(struct slice line);

/* The known name (of params.def) that is nearest to name, or NULL if none is near. */
const char *conf_nearest(const char *name);

const struct conf_foreign *conf_foreign_find(const char *name);

#endif
