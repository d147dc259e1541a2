/* The INBOX of a user as a POP3 maildrop (struct pop3_drop_ops of pop3/engine.h over lib/store). */
#ifndef POP3D_DROP_H
#define POP3D_DROP_H

#include "pop3/engine.h"
#include "store/store.h"

struct drop;

/* Opens the INBOX of store; the messages that are there now make up the session. */
int drop_open(struct store *store, struct drop **out_r) CHECKED;
void drop_free(struct drop **dp);
uint32_t drop_count(const struct drop *d);
extern const struct pop3_drop_ops drop_ops;

#endif
