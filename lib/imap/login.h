/*
 * IMAP before login: greeting, CAPABILITY, ID, NOOP, LOGOUT, STARTTLS, LOGIN, AUTHENTICATE (RFC
 * 9051 section 6.2, RFC 4959, RFC 2971), driven as access/login.h says. Without mechanisms
 * LOGINDISABLED is told; LOGIN comes as PLAIN. The session answers "TAG OK [CAPABILITY ...] Logged
 * in" as its first bytes.
 */
#ifndef IMAP_LOGIN_H
#define IMAP_LOGIN_H

#include "access/protocol.h"

extern const struct login_protocol imap_login;

#endif
