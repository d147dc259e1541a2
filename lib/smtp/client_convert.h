/* A message for a server that takes 7-bit lines only. */
#ifndef SMTP_CLIENT_CONVERT_H
#define SMTP_CLIENT_CONVERT_H

#include "base/buf.h"

/*
 * Appends the message with every body part that is 8-bit or binary encoded instead (RFC 6152 3, RFC
 * 3030 3): text in quoted-printable where that is the shorter, all else in base64; the
 * Content-Transfer-Encoding fields are changed accordingly. Header fields stay as they are,
 * whatever they hold. A signature over such a part does not survive. Never fails on any input.
 */
void client_convert(struct slice message, struct buf *out);

#endif
