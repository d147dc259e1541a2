/* Composed forms, by libunistring. Runs in every process that compares names; hostile: the text. */
#include "mail/nfc.h"

#include <errno.h>
#include <uninorm.h>

uint8_t *
mail_nfc(struct slice text, size_t *n_r)
{
	uint8_t *nfc;

	errno = 0;
	nfc = u8_normalize(UNINORM_NFC, text.p, text.n, NULL, n_r);
	if (!nfc && errno == ENOMEM)
		die("out of memory (%zu bytes of text): raise the memory limit of this service",
		    text.n);
	return nfc;
}
