/*
 * The journal of a folder (file bh-journal): what a file name cannot hold, and the UID map. Format,
 * little-endian:
 *
 *	header  "BHJRNL1\n", u64 mailbox id, u32 UIDVALIDITY, u32 generation, u32 0,
 *	        u32 CRC-32 of these
 *	frame   u32 length of the payload, u32 CRC-32 of length and payload, payload: records
 *
 * A frame is one change: all of it counts, or nothing. Frames are appended under an exclusive lock
 * (flock) and synced before anybody is told; only the last can be torn.
 */
#ifndef STORE_JOURNAL_H
#define STORE_JOURNAL_H

#include "base/buf.h"

enum { JOURNAL_HEADER = 32, JOURNAL_FRAME_HEAD = 8, JOURNAL_FRAME_MAX = 256 << 20 };

enum record_type {
	RECORD_ASSIGN =
	    1, /* uid, modseq, savedate, emailid, flags, keywords, dir, name (base), info */
	RECORD_FLAGS = 2,    /* uid, modseq, flags, keywords, dir, info */
	RECORD_EXPUNGE = 3,  /* uid, modseq */
	RECORD_LOCATION = 4, /* uid, dir, info: renamed without a change that a client can see */
	RECORD_KEYWORD = 5,  /* index (uid), name */
	RECORD_FLOOR =
	    6, /* uid: UIDNEXT is at least this; modseq: HIGHESTMODSEQ is at least this */
	RECORD_HISTORY = 7,   /* modseq: expunges up to it are not told any more */
	RECORD_META = 8,      /* name: key, info: value; empty: removed */
	RECORD_POP3_UIDL = 9, /* uid, name */
};

enum { DIR_CUR = 0, DIR_NEW = 1 };

struct record {
	enum record_type type;
	uint32_t uid;
	uint64_t modseq, keywords, emailid;
	int64_t savedate;
	uint8_t flags, dir;
	struct slice name; /* borrowed */
	struct slice info; /* the file name from the ':' on; may be empty */
};

struct journal_header {
	uint64_t mailboxid;
	uint32_t uidvalidity, generation;
};

void journal_put_header(struct buf *out, const struct journal_header *h);
int journal_get_header(struct slice in, struct journal_header *h_r) CHECKED;

/* Starts a frame at the end of out, to be closed by journal_end_frame with the value returned. */
size_t journal_begin_frame(struct buf *out);
void journal_put(struct buf *out, const struct record *r);
void journal_end_frame(struct buf *out, size_t mark);

/* Calls fn for each record of each whole, sound frame. Returns the number of bytes of sound frames;
 * what stands behind them is torn, or damaged if *damaged_r (then a sound frame follows it).
 * A frame that is sound but holds a malformed record counts as damaged; the records before that one
 * have been given to fn. */
typedef void journal_fn(void *ctx, const struct record *r);
size_t journal_parse(struct slice in, journal_fn *fn, void *ctx, bool *damaged_r);

/* --- what Dovecot left --- */
struct uidlist_entry {
	uint32_t uid;
	struct slice base;      /* of the file name */
	struct slice pop3_uidl; /* P field, or empty */
};
typedef void uidlist_fn(void *ctx, const struct uidlist_entry *e);
/* dovecot-uidlist, versions 1 and 3. UIDs are ascending, below *uidnext_r. ERR_SYNTAX: not one;
 * bad lines are left out. */
int uidlist_parse(struct slice in, uint32_t *uidvalidity_r, uint32_t *uidnext_r, uidlist_fn *fn,
    void *ctx) CHECKED;
/* dovecot-keywords: "index name" lines; fn gets index 0 to 25. */
void dovecot_keywords_parse(
    struct slice in, void (*fn)(void *ctx, unsigned index, struct slice name), void *ctx);

#endif
