/* A FETCH under way, shared by its three files; private to lib/imap. */
#ifndef IMAP_FETCH_H
#define IMAP_FETCH_H

#include "imap/command.h"

struct fetch {
	struct fetch_att *atts;
	struct uid_list uids;
	size_t at;             /* the present message */
	struct fetch_att *att; /* what comes next for it */
	bool open;             /* its response has begun */
	bool sep;
	bool sets_seen, has_flags, has_uid, missing;
	int failed; /* an error that the tagged reply tells */
	bool unknown_encoding;
	size_t seen_end;      /* up to here \Seen was set */
	struct uid_list seen; /* those whose \Seen is new */
	/* A range of the content on its way out. */
	bool streaming;
	uint64_t from, to;
	/* A section that is decoded: counted first, then written. */
	enum { BINARY_IDLE, BINARY_COUNT, BINARY_WRITE } binary;
	struct transfer_decoder decoder;
	uint64_t read_at, read_end; /* encoded */
	uint64_t decoded;           /* bytes that came out so far */
	uint64_t size;              /* all of them, after counting */
	bool nul;
};

/* The next item's name, with the blank before it (cmd_fetch.c). */
void imap_fetch_item(struct imap_session *s, struct fetch *f, const char *name);

/* A range of the content. */
struct range {
	uint64_t from, to;
	bool exists;
};
/* Where the section lies (fetch_section.c): for field lists, the header block. -EAGAIN: another
 * step. */
int imap_section_range(struct imap_session *s, const struct fetch_att *a, struct range *r) CHECKED;
void imap_section_cut(const struct fetch_att *a, uint64_t *from, uint64_t *to);
/* BODY[...]: 0 when it is written, -EAGAIN when it takes another step. */
int imap_fetch_section(struct imap_session *s, struct fetch *f, const struct fetch_att *a) CHECKED;
/* BINARY[...] and BINARY.SIZE[...], in the same way (fetch_binary.c). */
int imap_fetch_binary(struct imap_session *s, struct fetch *f, const struct fetch_att *a) CHECKED;

#endif
