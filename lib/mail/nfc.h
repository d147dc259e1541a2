/* Unicode's composed form (NFC), in which names and addresses are compared. */
#ifndef MAIL_NFC_H
#define MAIL_NFC_H

#include "base/slice.h"

/* Of a text in UTF-8 that is not empty; the caller frees it. NULL: not UTF-8, or it has no such
 * form. Memory that is refused ends the process: a name that could not be compared is not one that
 * does not exist. */
uint8_t *mail_nfc(struct slice text, size_t *n_r) CHECKED;

#endif
