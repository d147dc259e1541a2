/* What auth itself reads of SASL's mechanisms; the rest is libsasl2's. */
#ifndef AUTH_MECHANISMS_H
#define AUTH_MECHANISMS_H

#include "base/slice.h"
#include "conf/types.h"

/* Of the names that a server announces, blank separated, those that wanted allows (an empty list:
 * all) and that libsasl2 can do without a channel binding. The caller frees it. */
char *mechanisms_usable(const struct conf_list *wanted, struct slice announced);
/* Whether a response of PLAIN (RFC 4616) asks to act as somebody else than authcid. */
bool mechanisms_plain_acts_as_other(struct slice response, const char *authcid);

#endif
