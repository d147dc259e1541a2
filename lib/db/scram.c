/*
 * Password verifiers. Runs in auth's workers and in bulkhead(8). Hostile: the password and the user
 * name; the verifier comes from our own store, but is read as if it were not.
 *
 * Invariants: no password and no derived key outlives its call; comparisons take the same time
 * whatever differs.
 */
#include "db/scram.h"

#include "tls/openssl.h"

#include <openssl/hmac.h>

#include <crypt.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unictype.h>
#include <uninorm.h>
#include <unistr.h>

#define PASSWORD_MAX 1024

struct verifier {
	enum scram_hash hash;
	unsigned rounds;
	unsigned char salt[64];
	size_t salt_size, key_size;
	unsigned char stored[32], server[32];
};

static const char *const names[] = { "SCRAM-SHA-1", "SCRAM-SHA-256" };

static const EVP_MD *
digest_of(enum scram_hash hash)
{
	return hash == SCRAM_SHA_1 ? EVP_sha1() : EVP_sha256();
}

/* RFC 3454, table B.1 */
static bool
maps_to_nothing(uint32_t c)
{
	return c == 0xad || c == 0x34f || c == 0x1806 || (c >= 0x180b && c <= 0x180d) ||
	       (c >= 0x200b && c <= 0x200d) || c == 0x2060 || (c >= 0xfe00 && c <= 0xfe0f) ||
	       c == 0xfeff;
}

/* RFC 3454, table C.1.2 */
static bool
maps_to_space(uint32_t c)
{
	return c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}

/* RFC 3454, tables C.2 to C.9; what NFKC leaves of them */
static bool
is_prohibited(uint32_t c)
{
	return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x06dd || c == 0x070f || c == 0x180e ||
	       (c >= 0x200e && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
	       (c >= 0x2061 && c <= 0x206f) || (c >= 0x2ff0 && c <= 0x2ffb) ||
	       (c >= 0xd800 && c <= 0xf8ff) || (c >= 0x1d173 && c <= 0x1d17a) ||
	       (c >= 0xfff9 && c <= 0xfffd) || (c & 0xfffe) == 0xfffe ||
	       (c >= 0xfdd0 && c <= 0xfdef) || (c >= 0xe0000 && c <= 0xe007f) || c >= 0xf0000;
}

static bool
is_rtl(uint32_t c)
{
	int class = uc_bidi_class(c);

	return class == UC_BIDI_R || class == UC_BIDI_AL;
}

/* RFC 3454, section 6: with a right-to-left letter the text begins and ends with one and holds no
 * left-to-right letter. */
static bool
bidi_ok(const uint32_t *points, size_t n)
{
	bool rtl = false, ltr = false;

	for (size_t i = 0; i < n; i++) {
		rtl |= is_rtl(points[i]);
		ltr |= uc_bidi_class(points[i]) == UC_BIDI_L;
	}
	return !rtl || (!ltr && is_rtl(points[0]) && is_rtl(points[n - 1]));
}

static bool
is_allowed(const uint32_t *points, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (is_prohibited(points[i]))
			return false;
	return bidi_ok(points, n);
}

/* libunistring gives NULL for what is no text, and where memory is refused. */
static int
no_text(void)
{
	return errno == ENOMEM ? ERR_TEMPORARY : ERR_SYNTAX;
}

int
scram_prepare(struct slice password, struct buf *out)
{
	uint32_t *points;
	uint8_t *text = NULL;
	size_t n = 0, m = 0, size = 0;
	int err;

	if (password.n == 0 || password.n > PASSWORD_MAX)
		return password.n ? ERR_LIMIT : ERR_SYNTAX;
	errno = 0;
	points = u8_to_u32(password.p, password.n, NULL, &n);
	if (!points)
		return no_text();
	for (size_t i = 0; i < n; i++) {
		if (maps_to_nothing(points[i]))
			continue;
		points[m++] = maps_to_space(points[i]) ? ' ' : points[i];
	}
	if (m > 0) {
		size_t k = 0;
		uint32_t *normal = u32_normalize(UNINORM_NFKC, points, m, NULL, &k);
		if (normal && is_allowed(normal, k))
			text = u32_to_u8(normal, k, NULL, &size);
		if (normal)
			OPENSSL_cleanse(normal, k * sizeof(*normal));
		free(normal);
	}
	OPENSSL_cleanse(points, n * sizeof(*points));
	free(points);
	if (!text || size == 0)
		err = no_text();
	else
		err = buf_add(out, slice(text, size));
	if (text)
		OPENSSL_cleanse(text, size);
	free(text);
	return err;
}

/* RFC 5802, section 3: the two keys that a server keeps. */
static int
derive(struct verifier *v, struct slice prepared)
{
	const EVP_MD *md = digest_of(v->hash);
	unsigned char salted[32], client[32];
	unsigned n = 0;
	int err = ERR_TEMPORARY;

	v->key_size = (size_t)EVP_MD_get_size(md);
	if (PKCS5_PBKDF2_HMAC((const char *)prepared.p, (int)prepared.n, v->salt, (int)v->salt_size,
		(int)v->rounds, md, (int)v->key_size, salted) == 1 &&
	    HMAC(md, salted, (int)v->key_size, (const unsigned char *)"Client Key", 10, client,
		&n) &&
	    HMAC(md, salted, (int)v->key_size, (const unsigned char *)"Server Key", 10, v->server,
		&n) &&
	    EVP_Digest(client, v->key_size, v->stored, NULL, md, NULL) == 1)
		err = 0;
	OPENSSL_cleanse(salted, sizeof(salted));
	OPENSSL_cleanse(client, sizeof(client));
	return err;
}

static void
format(const struct verifier *v, char out[SCRAM_VERIFIER_MAX])
{
	char salt[96], stored[48], server[48];

	EVP_EncodeBlock((unsigned char *)salt, v->salt, (int)v->salt_size);
	EVP_EncodeBlock((unsigned char *)stored, v->stored, (int)v->key_size);
	EVP_EncodeBlock((unsigned char *)server, v->server, (int)v->key_size);
	snprintf(out, SCRAM_VERIFIER_MAX, "%s$%u:%s$%s:%s", names[v->hash], v->rounds, salt, stored,
	    server);
}

/* Base64 with padding; the decoded size must lie in [min, max]. */
static int
decode(struct slice in, unsigned char *out, size_t min, size_t max, size_t *n_r)
{
	unsigned char raw[132];
	size_t pad = 0;
	int n;

	if (in.n == 0 || in.n % 4 != 0 || in.n > 128)
		return ERR_CORRUPT;
	while (pad < 2 && in.p[in.n - 1 - pad] == '=')
		pad++;
	n = EVP_DecodeBlock(raw, in.p, (int)in.n);
	if (n < 0 || (size_t)n < pad || (size_t)n - pad < min || (size_t)n - pad > max)
		return ERR_CORRUPT;
	*n_r = (size_t)n - pad;
	memcpy(out, raw, *n_r);
	OPENSSL_cleanse(raw, sizeof(raw));
	return 0;
}

static int
parse(const char *text, struct verifier *v)
{
	struct slice in = slice_str(text), name = slice_split(&in, '$'),
		     rounds = slice_split(&in, ':'), salt = slice_split(&in, '$'),
		     stored = slice_split(&in, ':');
	uint64_t n;
	size_t size;

	memset(v, 0, sizeof(*v));
	if (slice_eq_str(name, names[SCRAM_SHA_256]))
		v->hash = SCRAM_SHA_256;
	else if (slice_eq_str(name, names[SCRAM_SHA_1]))
		v->hash = SCRAM_SHA_1;
	else
		return ERR_CORRUPT;
	v->key_size = (size_t)EVP_MD_get_size(digest_of(v->hash));
	if (slice_u64(rounds, SCRAM_ROUNDS_MAX, &n) < 0 || n == 0 ||
	    decode(salt, v->salt, 1, sizeof(v->salt), &v->salt_size) < 0 ||
	    decode(stored, v->stored, v->key_size, v->key_size, &size) < 0 ||
	    decode(in, v->server, v->key_size, v->key_size, &size) < 0)
		return ERR_CORRUPT;
	v->rounds = (unsigned)n;
	return 0;
}

int
scram_make(enum scram_hash hash, struct slice password, unsigned rounds, const unsigned char *salt,
    char out[SCRAM_VERIFIER_MAX])
{
	struct verifier v = { .hash = hash, .rounds = rounds, .salt_size = SCRAM_SALT_SIZE };
	struct buf prepared = { 0 };
	int err;

	out[0] = 0;
	if (rounds < SCRAM_ROUNDS_MIN || rounds > SCRAM_ROUNDS_MAX)
		return ERR_LIMIT;
	if (salt)
		memcpy(v.salt, salt, SCRAM_SALT_SIZE);
	else if (RAND_bytes(v.salt, SCRAM_SALT_SIZE) != 1)
		return ERR_TEMPORARY;
	err = scram_prepare(password, &prepared);
	if (!err)
		err = derive(&v, buf_slice(&prepared));
	if (!err)
		format(&v, out);
	buf_wipe(&prepared);
	OPENSSL_cleanse(&v, sizeof(v));
	return err;
}

int
scram_check(const char *verifier, struct slice password)
{
	struct verifier want, have;
	struct buf prepared = { 0 };
	int err = parse(verifier, &want);

	if (err)
		return err;
	have = want;
	/* A password that cannot be prepared costs the same as a wrong one. */
	err = scram_prepare(password, &prepared);
	if (err == ERR_TEMPORARY || derive(&have, err ? SLICE_LIT("-") : buf_slice(&prepared)) < 0)
		err = ERR_TEMPORARY;
	else if (err || CRYPTO_memcmp(have.stored, want.stored, want.key_size) != 0)
		err = ERR_DENIED;
	buf_wipe(&prepared);
	OPENSSL_cleanse(&have, sizeof(have));
	OPENSSL_cleanse(&want, sizeof(want));
	return err;
}

unsigned
scram_rounds(const char *verifier)
{
	struct verifier v;
	unsigned rounds = parse(verifier, &v) < 0 ? 0 : v.rounds;

	OPENSSL_cleanse(&v, sizeof(v));
	return rounds;
}

void
scram_fake(enum scram_hash hash, struct slice name, unsigned rounds, const unsigned char secret[32],
    char out[SCRAM_VERIFIER_MAX])
{
	struct verifier v = { .hash = hash, .rounds = rounds, .salt_size = SCRAM_SALT_SIZE };
	struct buf text = { 0 };
	unsigned char digest[32];
	unsigned n = 0;

	v.key_size = (size_t)EVP_MD_get_size(digest_of(hash));
	for (int part = 0; part < 3; part++) {
		buf_clear(&text);
		buf_addf(&text, "%d %d ", (int)hash, part);
		buf_add(&text, name);
		if (!HMAC(EVP_sha256(), secret, 32, buf_slice(&text).p, buf_len(&text), digest, &n))
			die("cannot compute an HMAC: OpenSSL is not usable");
		memcpy(part == 0   ? v.salt
		       : part == 1 ? v.stored
				   : v.server,
		    digest, part == 0 ? SCRAM_SALT_SIZE : 32);
	}
	buf_free(&text);
	format(&v, out);
}

static const char *
crypt_text(const char *hash)
{
	return strncasecmp(hash, "{CRYPT}", 7) == 0 ? hash + 7 : hash;
}

/* A hash is whole if hashing anything by it gives one as long. */
int
scram_crypt_accept(const char *hash, bool *weak_r)
{
	struct crypt_data *data = xcalloc(1, sizeof(*data));
	const char *got;
	int err = 0;

	hash = crypt_text(hash);
	*weak_r = crypt_checksalt(hash) != CRYPT_SALT_OK;
	got = crypt_rn("", hash, data, sizeof(*data));
	if (!got || got[0] == '*' || strlen(got) != strlen(hash))
		err = ERR_SYNTAX;
	free(data);
	return err;
}

int
scram_crypt_check(const char *hash, struct slice password)
{
	struct crypt_data *data;
	char *phrase;
	const char *got;
	int err;

	hash = crypt_text(hash);
	if (password.n > PASSWORD_MAX || slice_cstr(password, &phrase) < 0)
		return ERR_DENIED;
	data = xcalloc(1, sizeof(*data));
	got = crypt_rn(phrase, hash, data, sizeof(*data));
	if (!got || got[0] == '*')
		err = errno == ENOMEM ? ERR_TEMPORARY : ERR_CORRUPT;
	else
		err = strlen(got) == strlen(hash) && CRYPTO_memcmp(got, hash, strlen(hash)) == 0
			  ? 0
			  : ERR_DENIED;
	OPENSSL_cleanse(data, sizeof(*data));
	OPENSSL_cleanse(phrase, password.n);
	free(data);
	free(phrase);
	return err;
}
