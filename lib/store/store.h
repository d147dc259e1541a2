/*
 * One user's mail store: Maildir++ folders on disk, a durable journal per folder, an index that is
 * only a cache. Runs in the user's own process, chrooted into the mail directory; single-threaded;
 * calls may block on the disk (each says when it syncs). Other processes and programs may change
 * the Maildir at any time; what they did is seen at the next mailbox_sync.
 *
 * Names on this interface are UTF-8 in NFC, levels divided by '/', "INBOX" in capitals (any case is
 * accepted). Flags, UIDs and modification sequences mean what RFC 9051 and RFC 7162 say.
 */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/buf.h"
#include "base/slice.h"

#include <time.h>

#define STORE_SEPARATOR '/'
#define STORE_NAME_MAX 1000   /* bytes of a folder name in UTF-8 */
#define STORE_KEYWORDS 64     /* keywords of a folder: 26 in file names, the rest in the journal */
#define STORE_KEYWORD_MAX 200 /* bytes of a keyword */

struct store;
struct mailbox;
struct content;
struct append;

struct store_options {
	bool read_only_index; /* never write the index (tools) */
	uint64_t quota_bytes; /* 0: no limit */
	uint64_t quota_messages;
	uint64_t message_limit; /* of one appended message; 0: none */
};

/* --- the store ---------------------------------------------------------------------------------
 */

/* Opens the mail directory at path (absolute; "/" inside a chroot), creating cur, new and tmp of
 * the INBOX where missing. options may be NULL. A broken or missing index is made anew; without a
 * writable one the store works, slower. */
int store_open(const char *path, const struct store_options *options, struct store **out_r) CHECKED;
/*
 * Where a user's store lies, for the zygotes of the sessions. store_root reads a mailbox spec
 * ("maildir:/path") into path; ERR_NOT_FOUND: not a Maildir, there is no store. store_make_root
 * runs as the user before chroot: makes the directory where it is missing and the user may.
 */
int store_root(struct slice spec, char *path, size_t size) CHECKED;
int store_make_root(const char *path) CHECKED;
/* All mailboxes must be closed. */
void store_free(struct store **sp);
/* Writes what is pending in the index. Call it when the session is idle; losing it loses time
 * only. */
void store_flush(struct store *s);

/* Descriptor (inotify, non-blocking) that becomes readable when an open folder changes on disk, or
 * -1 where there is none (then sync each open mailbox by a timer). Owned by the store. On readable
 * call store_changed; the events themselves come from mailbox_sync. */
int store_watch_fd(const struct store *s);
/* An open folder has no watch, the descriptor or not: sync its mailboxes by a timer. */
bool store_unwatched(const struct store *s);
/* True when store_open found the index damaged and made it anew: for the log. */
bool store_index_renewed(const struct store *s);
/* Reads the watch descriptor; true if at least one open folder may have changed. */
bool store_changed(struct store *s);

/* --- folders ------------------------------------------------------------------------------------
 */

enum special_use {
	SPECIAL_NONE = 0,
	SPECIAL_ALL = 1 << 0,
	SPECIAL_ARCHIVE = 1 << 1,
	SPECIAL_DRAFTS = 1 << 2,
	SPECIAL_FLAGGED = 1 << 3,
	SPECIAL_JUNK = 1 << 4,
	SPECIAL_SENT = 1 << 5,
	SPECIAL_TRASH = 1 << 6,
	SPECIAL_IMPORTANT = 1 << 7,
};
/* "\\Sent" for one bit; NULL for none. */
const char *special_use_name(enum special_use bit);
/* One bit for "\\Sent" in any case; SPECIAL_NONE if unknown. */
enum special_use special_use_parse(struct slice s);

struct store_folder {
	char *name;           /* UTF-8 */
	unsigned special_use; /* bits */
	bool exists;          /* false: a parent that is only implied, or only a subscription */
	bool subscribed;
	bool has_children; /* some existing folder lies below */
	bool has_subscribed_child;
};

struct store_list {
	struct store_folder *folders; /* INBOX first, then by name, parents before children */
	size_t count;
};

/* All folders, implied parents, and subscribed names that do not exist. One directory read. */
int store_list(struct store *s, struct store_list *out_r) CHECKED;
void store_list_free(struct store_list *l);

/* Brings a client's name into the form above: NFC, INBOX, no empty level, no trailing separator.
 * ERR_SYNTAX: not a possible folder name (says why in *why_r, a constant; may be NULL).
 * out has room for STORE_NAME_MAX + 1. */
int store_name(struct slice in, char *out, const char **why_r) CHECKED;
/* A pattern of names in the form that names have (NFC); what is not UTF-8 is taken as it is. */
void store_pattern(struct slice in, struct buf *out);
/* Modified UTF-7 (RFC 3501 section 5.1.3) from and to UTF-8; ERR_SYNTAX on what is not. */
int mutf7_decode(struct slice in, struct buf *out) CHECKED;
int mutf7_encode(struct slice utf8, struct buf *out) CHECKED;

/* The functions below take any name that store_name takes, and sync. */

/* Missing parents are not made, they are implied. -EEXIST if it exists. */
int store_create(struct store *s, struct slice name, unsigned special_use) CHECKED;
/* Messages and all; children stay. ERR_DENIED for INBOX, ERR_NOT_FOUND. */
int store_delete(struct store *s, struct slice name) CHECKED;
/* With children. INBOX: its messages move to the new folder, INBOX stays. -EEXIST,
 * ERR_NOT_FOUND; ERR_DENIED if to lies below from. */
int store_rename(struct store *s, struct slice from, struct slice to) CHECKED;
int store_subscribe(struct store *s, struct slice name, bool on) CHECKED;
/* 0 if it exists, ERR_NOT_FOUND, or another error. */
int store_exists(struct store *s, struct slice name) CHECKED;
/* Creates and subscribes these folders, with the special uses that their names tell (Drafts, Sent,
 * Archive, Junk, Spam, Trash), at the first login only: does nothing where subscriptions or special
 * uses have been written before. */
int store_create_defaults(struct store *s, const char **names, size_t n) CHECKED;

struct store_status {
	uint32_t messages, recent, unseen, deleted;
	uint32_t uidnext, uidvalidity;
	uint64_t highestmodseq;
	uint64_t size;            /* sum of RFC822.SIZE */
	uint64_t deleted_storage; /* the same over messages with \Deleted */
	uint64_t mailboxid;
};
#define STATUS_NEED_SIZE 1u /* fill in size and deleted_storage: may have to read files once */

/* Without opening a view. Cheap when nothing changed since the last time. UIDs that are made known
 * here are durable. */
int store_status(
    struct store *s, struct slice name, unsigned need, struct store_status *out_r) CHECKED;

/* Bytes and messages over all folders. */
int store_usage(struct store *s, uint64_t *bytes_r, uint64_t *messages_r) CHECKED;

/* --- an open mailbox ----------------------------------------------------------------------------
 */

enum message_flag {
	FLAG_SEEN = 1 << 0,
	FLAG_ANSWERED = 1 << 1,
	FLAG_FLAGGED = 1 << 2,
	FLAG_DELETED = 1 << 3,
	FLAG_DRAFT = 1 << 4,
	FLAG_PASSED = 1 << 5, /* Maildir's P; no IMAP flag, kept */
};
#define FLAGS_IMAP (FLAG_SEEN | FLAG_ANSWERED | FLAG_FLAGGED | FLAG_DELETED | FLAG_DRAFT)

/* Borrowed from the mailbox; valid until the next call on any mailbox of the store that is not
 * "const" or a read of content. */
struct message {
	uint32_t uid;
	uint8_t flags;     /* enum message_flag */
	uint64_t keywords; /* bit i: keyword i of the folder */
	uint64_t modseq;
	uint64_t emailid; /* RFC 8474: the same for copies */
	int64_t savedate; /* seconds; when it came into this folder */
};

#define MAILBOX_READ_ONLY 1u   /* EXAMINE: nothing is moved from new/ to cur/, no flag is written */
#define MAILBOX_KEEP_RECENT 2u /* read-write, but new/ is left alone (POP3) */

/* Opens a view: its sequence numbers change by mailbox_sync only. Several views of one folder share
 * one state. The first sync is done; UIDs are durable. ERR_NOT_FOUND. */
int mailbox_open(
    struct store *s, struct slice name, unsigned flags, struct mailbox **out_r) CHECKED;
void mailbox_free(struct mailbox **mp);

const char *mailbox_name(const struct mailbox *m);
bool mailbox_read_only(const struct mailbox *m);
uint32_t mailbox_uidvalidity(const struct mailbox *m);
uint32_t mailbox_uidnext(const struct mailbox *m);       /* of this view: last synced */
uint64_t mailbox_highestmodseq(const struct mailbox *m); /* of this view: last synced */
uint64_t mailbox_id(const struct mailbox *m);            /* MAILBOXID, stable over rename */

/* Sequence numbers run from 1 to mailbox_count. */
uint32_t mailbox_count(const struct mailbox *m);
uint32_t mailbox_uid(const struct mailbox *m, uint32_t seq);
/* The sequence number of uid, or 0. */
uint32_t mailbox_seq(const struct mailbox *m, uint32_t uid);
/* The lowest sequence number whose UID is >= uid; mailbox_count + 1 if none. */
uint32_t mailbox_seq_from(const struct mailbox *m, uint32_t uid);
/* NULL if it was expunged by somebody since the last sync with expunges. */
const struct message *mailbox_message(const struct mailbox *m, uint32_t seq);
bool mailbox_is_recent(const struct mailbox *m, uint32_t seq);
uint32_t mailbox_recent_count(const struct mailbox *m);
/* Sequence number of the first message without \Seen, or 0. */
uint32_t mailbox_first_unseen(const struct mailbox *m);

/* Keywords: names by index; the set only grows while the mailbox is open. */
unsigned mailbox_keyword_count(const struct mailbox *m);
const char *mailbox_keyword(const struct mailbox *m, unsigned index); /* NULL: unused index */
/* The index of a keyword in any case, or -1; with create it is made (durable with the change that
 * first uses it); ERR_LIMIT when the folder has STORE_KEYWORDS, ERR_SYNTAX for a bad name. */
int mailbox_keyword_index(struct mailbox *m, struct slice name, bool create);

struct store_event {
	enum {
		EVENT_EXPUNGED, /* highest first: each seq is right when applied one after the other
				 */
		EVENT_FLAGS,    /* seq is the number after the expunges */
		EVENT_KEYWORDS, /* the folder has got a new keyword */
		EVENT_EXISTS,   /* last: seq is the new count; sent if messages came */
	} type;
	uint32_t seq, uid;
	uint64_t modseq;
};
typedef void store_event_fn(void *ctx, const struct store_event *e);

#define SYNC_NO_EXPUNGE 1u /* keep expunges for later (FETCH, STORE and SEARCH without UID) */
#define SYNC_FORCE 2u      /* look at the directories even if nothing seems to have changed */

/* Brings the view up to date with the disk and with the other views. Changes that this view made
 * by mailbox_store_flags are not reported to it; its expunges are. Costs two system calls when
 * nothing changed. */
int mailbox_sync(struct mailbox *m, unsigned flags, store_event_fn *fn, void *ctx) CHECKED;

/* --- attributes and content ---------------------------------------------------------------------
 */

/* INTERNALDATE in seconds (UTC). May stat the file once; cached. ERR_NOT_FOUND: expunged. */
int mailbox_date(struct mailbox *m, uint32_t uid, int64_t *out_r) CHECKED;
/* RFC822.SIZE: of the CRLF view. May read the file once; cached. */
int mailbox_size(struct mailbox *m, uint32_t uid, uint64_t *out_r) CHECKED;

/* Opaque bytes kept per message in the index (envelope, structure, ...); kind is the caller's.
 * get: ERR_NOT_FOUND if there is none; appends to out. put: replaces; may be dropped. Bump the kind
 * when its format changes. */
int mailbox_cache_get(struct mailbox *m, uint32_t uid, unsigned char kind, struct buf *out) CHECKED;
void mailbox_cache_put(struct mailbox *m, uint32_t uid, unsigned char kind, struct slice value);

/* The message's bytes with every line ended by CRLF (bare LF is shown as CRLF; everything else as
 * it is). It stays readable when the message is expunged meanwhile. ERR_NOT_FOUND: it is gone. */
int content_open(struct mailbox *m, uint32_t uid, struct content **out_r) CHECKED;
uint64_t content_size(const struct content *c);
/* Up to n bytes from offset of the view: the number read, 0 at the end, or a negative error
 * (ERR_CORRUPT: the file is shorter than its size said). Forward reading is linear; going back in a
 * converted file starts from the nearest of its checkpoints. */
ptrdiff_t content_read(struct content *c, uint64_t offset, void *out, size_t n);
void content_free(struct content **cp);

/* --- changes ------------------------------------------------------------------------------------
 */

enum flag_op { FLAG_OP_SET, FLAG_OP_ADD, FLAG_OP_REMOVE };

struct flag_change {
	enum flag_op op;
	uint8_t flags; /* FLAGS_IMAP only; SET keeps FLAG_PASSED */
	uint64_t keywords;
	bool conditional;        /* UNCHANGEDSINCE */
	uint64_t unchangedsince; /* messages with a higher modseq are left alone and reported */
};

struct uid_list {
	uint32_t *uids;
	size_t count, size;
};
void uid_list_add(struct uid_list *l, uint32_t uid);
void uid_list_free(struct uid_list *l);

/* Changes flags of the messages (UIDs ascending; those that are gone are skipped). One sync at the
 * end: durable when it returns 0. changed_r and modified_r (failed UNCHANGEDSINCE) may be NULL.
 * Give at most about 1,000 a call, so that other sessions of the user get their turn. */
int mailbox_store_flags(struct mailbox *m, const uint32_t *uids, size_t n,
    const struct flag_change *change, struct uid_list *changed_r,
    struct uid_list *modified_r) CHECKED;

/* Removes those of the messages that have all these flags (0: all of them) when their file goes;
 * durable when it returns 0. The views learn it by mailbox_sync. */
int mailbox_expunge(struct mailbox *m, const uint32_t *uids, size_t n, uint8_t flags) CHECKED;

/* What COPYUID and APPENDUID say. from and to run in parallel. */
struct copy_result {
	uint32_t uidvalidity;
	struct uid_list from, to;
};
void copy_result_free(struct copy_result *r);

/* Copies (or moves) messages to another folder (or the same), all or none for a copy; flags,
 * keywords, date, save date (new), emailid go along. Durable when it returns 0. ERR_NOT_FOUND: no
 * such folder; ERR_LIMIT: over quota. Messages that are gone are skipped. */
int mailbox_copy(struct mailbox *m, const uint32_t *uids, size_t n, struct slice to, bool move,
    struct copy_result *out_r) CHECKED;

/* UIDs expunged after modseq (RFC 7162 VANISHED EARLIER), ascending. Where the history does not
 * reach back, every UID below UIDNEXT that does not exist. */
int mailbox_vanished(struct mailbox *m, uint64_t since, struct uid_list *out_r) CHECKED;

/* APPEND: append_begin for each message, append_write its bytes as they come, append_finish makes
 * all messages of the list visible and durable at once, or none. append_free aborts. */
struct append_info {
	uint8_t flags;
	struct slice keywords[STORE_KEYWORDS];
	size_t keyword_count;
	bool dated;   /* else now */
	int64_t date; /* INTERNALDATE */
};
/* ERR_NOT_FOUND: no such folder (TRYCREATE); ERR_LIMIT: too big or over quota. */
int append_begin(struct store *s, struct slice folder, const struct append_info *info,
    uint64_t size_hint, struct append **out_r) CHECKED;
int append_write(struct append *a, struct slice bytes) CHECKED;
/* Frees all of list, whatever it returns. All must be for one folder. */
int append_finish(struct append **list, size_t n, struct copy_result *out_r) CHECKED;
void append_free(struct append **ap);

/* Per-folder metadata (RFC 5464 entries, our own marks): durable. An empty value removes. */
int mailbox_meta_get(struct mailbox *m, struct slice key, struct buf *out) CHECKED;
int mailbox_meta_set(struct mailbox *m, struct slice key, struct slice value) CHECKED;

/* POP3: the unique id for UIDL that another server gave (Dovecot's P field), or ERR_NOT_FOUND. */
int mailbox_pop3_uidl(struct mailbox *m, uint32_t uid, struct buf *out) CHECKED;

#endif
