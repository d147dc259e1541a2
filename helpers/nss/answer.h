/* Telling maps and auth what the system says of a user. */
#ifndef NSS_ANSWER_H
#define NSS_ANSWER_H

#include "helpers/nss/lookup.h"
#include "ipc/chan.h"

/* ch NULL: who asked is gone. l NULL: no system has a user of such a name. */
void answer_send(struct ipc_chan *ch, uint32_t id, struct slice name, const struct lookup *l);

#endif
