/* One question to PAM. Blocks; runs in a child of the PAM helper. */
#ifndef PAM_CHECK_H
#define PAM_CHECK_H

#include "base/slice.h"

/* 0: the password is right and the account may log in; 1: no; 2: PAM cannot tell. client: the
 * peer's address for the modules' logs. The password is wiped by the caller. */
int pam_ask(const char *service, const char *user, struct slice password, const char *client);

#endif
