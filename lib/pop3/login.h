/*
 * POP3 before login: greeting, CAPA, STLS, USER, PASS, AUTH, NOOP, QUIT (RFC 1939 section 4, RFC
 * 2449, 2595, 3206, 5034), driven as access/login.h says. Without PLAIN among the mechanisms USER
 * is refused; USER and PASS come as PLAIN. The session answers the login itself ("+OK Logged in."
 * or
 * "-ERR [SYS/TEMP] ..." and the end of the stream) as its first bytes.
 */
#ifndef POP3_LOGIN_H
#define POP3_LOGIN_H

#include "access/protocol.h"

enum { POP3_LINE_MAX = 255 }; /* bytes of a command with its CRLF: RFC 2449 section 4 */

extern const struct login_protocol pop3_login;

#endif
