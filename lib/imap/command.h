/* What the files of one session share; private to lib/imap. */
#ifndef IMAP_COMMAND_H
#define IMAP_COMMAND_H

#include "imap/parse.h"
#include "imap/reader.h"
#include "imap/session.h"
#include "mail/decode.h"

enum imap_step {
	STEP_DONE,  /* finished; the tagged reply was written */
	STEP_AGAIN, /* there is more to do */
};

enum {
	IMAP_TAG_MAX = 255,
	IMAP_UIDS_A_STEP = 500,
	IMAP_BYTES_A_STEP = 1 << 18,
	IMAP_HEADER_MAX = 1 << 20,
	IMAP_ADDRESSES_MAX = 10000,
};

struct imap_session {
	struct imap_session_config config;
	struct imap_reader reader;
	struct buf out;
	struct arena arena; /* of the present command */
	unsigned char tag[IMAP_TAG_MAX];
	size_t tag_len;
	bool ended, idling;
	const char *why, *limit; /* of the end, for the log */
	int trouble;             /* imap_session_trouble */
	bool rev2;               /* ENABLE IMAP4rev2 was given */
	bool uid;                /* the present command is a UID form */
	unsigned errors;         /* in a row */
	struct imap_session_counts counts;

	struct mailbox *mailbox; /* selected, or NULL */
	struct uid_list saved;   /* "$" */
	char *oldname; /* the mailbox argument as the client wrote it, where the store has it
			  otherwise; in the arena */
	unsigned keywords_told; /* how many keywords the client knows */

	/* The running command; step is NULL when there is none. task is freed by task_free. */
	enum imap_step (*step)(struct imap_session *s);
	void (*task_free)(struct imap_session *s);
	void *task;

	struct imap_append *append; /* an APPEND whose literal is being taken */

	/* The message looked at last: sections are often fetched one by one (message.c). */
	struct content *content;
	uint32_t content_uid;
	struct buf header; /* its header block, at most IMAP_HEADER_MAX bytes of it */
	uint64_t body_at;  /* where the body begins, once header_known */
	bool header_known;
	struct mime *mime;
	uint64_t mime_at;             /* bytes parsed so far */
	const struct mime_part *root; /* NULL until all is parsed */
};

/* --- replies (reply.c) --- */
void imap_put(struct imap_session *s, const char *text);
void imap_putf(struct imap_session *s, const char *fmt, ...) PRINTF(2, 3);
/* The tag of the present command, or "*" where none could be read. */
void imap_put_tag(struct imap_session *s);
/* "TAG OK text": ends the command; before it the mailbox is synchronised and changes are told,
 * expunges too when expunges is set. */
void imap_ok(struct imap_session *s, bool expunges, const char *text);
void imap_okf(struct imap_session *s, bool expunges, const char *fmt, ...) PRINTF(3, 4);
/* "TAG NO text", "TAG BAD text". */
void imap_no(struct imap_session *s, const char *text);
void imap_bad(struct imap_session *s, const char *text);
/* NO with the response code that fits an error of the store. */
void imap_store_failed(struct imap_session *s, int err);
/* Tells what changed in the selected mailbox. */
void imap_sync(struct imap_session *s, bool expunges);

/* --- the session (session.c) --- */
void imap_deselect(struct imap_session *s);
/* Forgets the message looked at last. */
void imap_drop_content(struct imap_session *s);
/* Starts a command that runs in steps; the first step is taken at once. */
void imap_start(struct imap_session *s, void *task, enum imap_step (*step)(struct imap_session *),
    void (*task_free)(struct imap_session *));

/* --- writing (write.c) --- */
/* Quoted if it may be, else a literal; NUL is written as U+FFFD would be: "?". */
void imap_put_string(struct buf *out, struct slice s);
void imap_put_nstring(struct buf *out, struct slice s, bool present);
/* "* LIST (attributes) ..." that tells under which name the store has what the client called
 * oldname (RFC 9051 section 6.3.9.7; NULL: under the same). Only after ENABLE IMAP4rev2. */
void imap_put_name(
    struct imap_session *s, const char *attributes, const char *name, const char *oldname);
/* A mailbox name (UTF-8) as the client wants names: modified UTF-7 before ENABLE IMAP4rev2. */
void imap_put_mailbox(struct imap_session *s, const char *name);
void imap_put_flags(struct imap_session *s, uint32_t seq);
/* The flag that a name with "\" means; 0 for \Recent, which cannot be changed, and for those that
 * are none of ours: such are left out (RFC 9051 section 2.3.2). */
uint8_t imap_system_flag(struct slice name);
/* "* FLAGS (...)" and PERMANENTFLAGS. */
void imap_put_mailbox_flags(struct imap_session *s);
/* "1:3,7" of ascending numbers. */
void imap_put_set(struct buf *out, const uint32_t *ids, size_t n);

/* --- names (name.c) --- */
/* Parses a mailbox argument and brings it to the store's form: *out_r lives in the arena, and
 * s->oldname is set. false: p->why is set (BAD), or *out_r is NULL and a NO is due with *why_r. */
bool imap_mailbox(struct imap_session *s, struct imap_parse *p, char **out_r, const char **why_r);
/* The UTF-8 of a name or pattern as the client writes it; false if it is malformed. */
bool imap_name_decode(struct imap_session *s, struct slice in, struct slice *out_r);

/* --- message sets (set.c) --- */
/* The UIDs that the set names, ascending, without doubles, in new memory that the caller frees.
 * Sequence numbers beyond the mailbox are BAD: false then, the reply is written. */
bool imap_resolve(struct imap_session *s, const struct imap_set *set, struct uid_list *out_r);
/* The same for a set within SEARCH: of UIDs or of sequence numbers, those beyond match nothing. */
void imap_resolve_key(
    struct imap_session *s, const struct imap_set *set, bool uid, struct uid_list *out_r);
bool imap_uid_listed(const struct uid_list *l, uint32_t uid);

/* --- SEARCH keys (search_key.c) and text (search_text.c) --- */
enum search_type {
	SEARCH_AND, /* of all children; without any: ALL */
	SEARCH_OR,
	SEARCH_NOT,
	SEARCH_FLAG, /* all of flags set */
	SEARCH_KEYWORD,
	SEARCH_RECENT,
	SEARCH_UIDS,
	SEARCH_BEFORE,
	SEARCH_ON,
	SEARCH_SINCE,
	SEARCH_LARGER,
	SEARCH_SMALLER,
	SEARCH_SENTBEFORE,
	SEARCH_SENTON,
	SEARCH_SENTSINCE,
	SEARCH_HEADER,
	SEARCH_BODY,
	SEARCH_TEXT,
};
struct search_key {
	enum search_type type;
	struct search_key *children, *next;
	uint8_t flags;
	int keyword;          /* -1: the folder has none such */
	struct uid_list uids; /* in the heap: freed by imap_search_keys_free */
	int64_t day;
	uint64_t size;
	const char *field;
	struct slice needle;          /* folded */
	bool hit;                     /* BODY, TEXT: found in the body of the present message */
	struct search_key *next_text; /* all BODY and TEXT keys of the search */
};
struct search_keys {
	struct search_key *root;
	struct search_key *texts;
	unsigned text_count;
	size_t longest; /* needle of a BODY or TEXT key */
};
/* search-key *(SP search-key). charset: of the strings, empty for UTF-8. */
bool imap_search_keys(
    struct imap_session *s, struct imap_parse *p, struct slice charset, struct search_keys *out_r);
void imap_search_keys_free(struct search_keys *k);

/* Whether the needle is in a field of that name of the message's header (s->header). */
bool imap_header_has(struct imap_session *s, const char *field, struct slice needle);
/* Whether it is anywhere in the header. */
bool imap_header_text_has(struct imap_session *s, struct slice needle);
/* The date of the Date field in its own zone, as days since the epoch; false if there is none. */
bool imap_sent_day(struct imap_session *s, int64_t *day_r);

/* Looks for all BODY and TEXT keys in the bodies of the open message, in steps. */
struct body_scan {
	bool begun;
	const struct mime_part *part;
	struct transfer_decoder decoder;
	uint64_t read_at;
	struct buf decoded; /* not yet converted: the beginning of a line */
	struct buf text;    /* folded: the end of what was looked at, and the new */
};
/* 0: done, every key's hit is set; -EAGAIN: takes another step. */
int imap_body_scan(struct imap_session *s, struct body_scan *b, struct search_keys *keys) CHECKED;
void imap_body_scan_end(struct body_scan *b);

/* --- the message at hand (message.c) --- */
/* Opens the message, or keeps it open if it was the last one. ERR_NOT_FOUND: it is gone. */
int imap_message(struct imap_session *s, uint32_t uid) CHECKED;
/* Reads the header block of the open message: s->header, s->body_at. */
int imap_message_header(struct imap_session *s) CHECKED;
/* Parses on; 0 when s->root is there, -EAGAIN when it takes another step. */
int imap_message_parse(struct imap_session *s) CHECKED;

/* ENVELOPE and BODYSTRUCTURE as text (structure.c). rev2: message/global has the form of
 * message/rfc822. */
void imap_write_envelope(struct buf *out, struct slice header, struct arena *arena);
void imap_write_structure(struct buf *out, const struct mime_part *p, bool extended, bool rev2);

/* --- FETCH attributes (fetch_att.c) --- */
enum fetch_type {
	FETCH_UID,
	FETCH_FLAGS,
	FETCH_DATE,
	FETCH_SIZE,
	FETCH_ENVELOPE,
	FETCH_BODY,      /* BODY, the structure without extensions */
	FETCH_STRUCTURE, /* BODYSTRUCTURE */
	FETCH_SECTION,   /* BODY[...], RFC822, RFC822.HEADER, RFC822.TEXT */
	FETCH_BINARY,
	FETCH_BINARY_SIZE,
};
enum section_kind {
	SECTION_ALL,
	SECTION_HEADER,
	SECTION_FIELDS,
	SECTION_FIELDS_NOT,
	SECTION_TEXT,
	SECTION_MIME,
};
struct fetch_att {
	enum fetch_type type;
	bool peek;
	uint32_t *path;
	size_t depth;
	enum section_kind kind;
	struct slice *fields;
	size_t field_count;
	bool partial;
	uint64_t origin, count;
	const char *label; /* as the reply names it */
	struct fetch_att *next;
};
bool imap_fetch_atts(struct imap_session *s, struct imap_parse *p, struct fetch_att **out_r);

/* --- commands --- */
typedef void imap_command_fn(struct imap_session *s, struct imap_parse *p);
imap_command_fn imap_cmd_capability, imap_cmd_noop, imap_cmd_logout, imap_cmd_id, imap_cmd_enable,
    imap_cmd_namespace, imap_cmd_idle, imap_cmd_check;
imap_command_fn imap_cmd_create, imap_cmd_delete, imap_cmd_rename, imap_cmd_subscribe,
    imap_cmd_unsubscribe, imap_cmd_status, imap_cmd_list, imap_cmd_lsub;
imap_command_fn imap_cmd_select, imap_cmd_examine, imap_cmd_close, imap_cmd_unselect;
imap_command_fn imap_cmd_fetch, imap_cmd_store, imap_cmd_search, imap_cmd_copy, imap_cmd_move,
    imap_cmd_expunge, imap_cmd_append;

/* One line of IDLE. */
void imap_idle_line(struct imap_session *s, struct slice line);

/* STATUS items and their reply, for STATUS and LIST. */
struct imap_status_items {
	bool messages, recent, uidnext, uidvalidity, unseen, deleted, size;
};
bool imap_parse_status_items(struct imap_parse *p, struct imap_status_items *out_r);
/* "* STATUS name (...)"; a negative error writes nothing. */
int imap_put_status(
    struct imap_session *s, const char *name, const struct imap_status_items *items) CHECKED;

/* APPEND's literal (cmd_append.c). */
enum imap_literal_plan { LITERAL_BUFFER, LITERAL_STREAM, LITERAL_REFUSED };
enum imap_literal_plan imap_append_announced(struct imap_session *s);
size_t imap_append_bytes(struct imap_session *s, struct slice in);
bool imap_append_wants_bytes(const struct imap_session *s);
void imap_append_abort(struct imap_session *s);

#endif
