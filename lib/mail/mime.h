/*
 * Streaming MIME parser (RFC 2045, 2046): bytes are pushed in any portions, a tree of parts with
 * offsets and line counts comes out. It keeps headers, never bodies. What is malformed is read as
 * well as can be: parsing never fails.
 */
#ifndef MAIL_MIME_H
#define MAIL_MIME_H

#include "mail/mime_param.h"

struct mime_limits {
	unsigned depth;  /* nested parts; deeper ones are leaves. Default 100 */
	unsigned parts;  /* of one message; later ones belong to the last leaf. Default 10000 */
	unsigned params; /* of one field. Default 128 */
	size_t header;   /* bytes kept of one header block; the rest is counted, not read. 102400 */
	size_t headers;  /* bytes kept of all header blocks. 10485760 */
	size_t boundary; /* bytes of a boundary; a longer one is as none. 2048 */
};
extern const struct mime_limits mime_default_limits;

enum mime_kind {
	MIME_LEAF,
	MIME_MULTIPART,
	MIME_MESSAGE /* its only child is the message's root */
};

enum mime_encoding {
	MIME_7BIT,
	MIME_8BIT,
	MIME_BINARY,
	MIME_QP,
	MIME_BASE64,
	MIME_UNKNOWN,
};

struct mime_part {
	struct mime_part *parent, *next, *children, *last_child;
	enum mime_kind kind;
	bool root;       /* the header is a message's, not only a part's */
	unsigned number; /* among its parent's children, from 1 */
	/* Offsets from the message's first byte: header [header_at, body_at), body [body_at, end).
	 */
	uint64_t header_at, body_at, end;
	uint64_t lines; /* line ends within the body */

	/* From the header; defaults filled in for type and subtype ("text", "plain"), else empty.
	 */
	struct slice type, subtype;
	struct mime_param *params;
	struct slice encoding_name, id, description, md5, disposition, language, location;
	struct mime_param *disposition_params;
	enum mime_encoding encoding;
	bool typed; /* Content-Type was there and readable */
	struct slice
	    header; /* roots only, and all parts when keep_headers: the kept bytes of the block */
};

struct mime;

struct mime *mime_new(const struct mime_limits *limits);
void mime_free(struct mime **m);
void mime_feed(struct mime *m, struct slice bytes);
/* No more bytes: closes what is open. The tree lives as long as the parser. */
const struct mime_part *mime_finish(struct mime *m);
/* Whether a limit was hit. */
bool mime_limited(const struct mime *m);
unsigned mime_part_count(const struct mime *m);

/* The part that an IMAP section path names (RFC 9051 section 6.4.5); n 0: the root. NULL: there is
 * none. */
const struct mime_part *mime_find(const struct mime_part *root, const uint32_t *path, size_t n);

#endif
