/* A store in memory with two folders and three messages, in place of lib/store's, for whole
 * sessions. */
#ifndef FUZZ_IMAP_STORE_H
#define FUZZ_IMAP_STORE_H

#include "store/store.h"

enum { MESSAGES = 3 };

struct store {
	struct message messages[MESSAGES];
	uint32_t count, appended;
	char keywords[4][32];
	unsigned keyword_count;
	int open;
	bool news; /* others changed a folder meanwhile */
};

extern struct slice imap_store_texts[MESSAGES]; /* by UID - 1 */

#endif
