/*
 * Password verifiers as text: "SCRAM-SHA-256$ROUNDS:SALT$STOREDKEY:SERVERKEY" (RFC 5803), and the
 * hashes of crypt(3) that imported users bring. All calls are pure CPU work and may take
 * milliseconds: workers and tools only. Passwords are prepared (RFC 4013, by Unicode's NFKC) before
 * they are hashed.
 */
#ifndef DB_SCRAM_H
#define DB_SCRAM_H

#include "base/buf.h"

#define SCRAM_ROUNDS_MIN 4096u
#define SCRAM_ROUNDS_MAX 10000000u
#define SCRAM_SALT_SIZE 16
#define SCRAM_VERIFIER_MAX 256

enum scram_hash {
	SCRAM_SHA_1,
	SCRAM_SHA_256,
};

/* SASLprep: appends the prepared password. ERR_SYNTAX: not UTF-8, a prohibited character, both
 * directions of writing, or nothing left. ERR_TEMPORARY: no memory, here and below. */
int scram_prepare(struct slice password, struct buf *out) CHECKED;
/* A verifier with a fresh salt (salt NULL), or with the SCRAM_SALT_SIZE bytes given. */
int scram_make(enum scram_hash hash, struct slice password, unsigned rounds,
    const unsigned char *salt, char out[SCRAM_VERIFIER_MAX]) CHECKED;
/* 0 if the password fits; ERR_DENIED if not; ERR_CORRUPT if the verifier cannot be read. */
int scram_check(const char *verifier, struct slice password) CHECKED;
/* Rounds of a verifier, or 0 if it cannot be read. */
unsigned scram_rounds(const char *verifier);
/*
 * The verifier of a user that does not exist: salt and keys derive from secret and name, so the
 * same name always shows the same salt, and no password fits.
 */
void scram_fake(enum scram_hash hash, struct slice name, unsigned rounds,
    const unsigned char secret[32], char out[SCRAM_VERIFIER_MAX]);
/* Whether the text is a whole hash of a method that crypt(3) knows (ERR_SYNTAX: not), and whether
 * that is one that it would no longer choose: DES, MD5, too few rounds. As slow as a check. */
int scram_crypt_accept(const char *hash, bool *weak_r) CHECKED;
/* 0 if the password fits a hash of crypt(3), optionally with a prefix {CRYPT}; ERR_DENIED;
 * ERR_CORRUPT: no such method. */
int scram_crypt_check(const char *hash, struct slice password) CHECKED;

#endif
