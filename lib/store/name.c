/*
 * Folder names: what a client says, what the API holds (UTF-8 in NFC, '/'), what stands on disk
 * (Maildir++: ".A.B", modified UTF-7, as Dovecot writes it by default; UTF-8 is read too).
 * Runs in the user's session; names come from the client and from the user's directory, both
 * hostile. Invariant: no name leaves this file that holds a control character, an empty level, '/'
 * or '.' within a level, or more bytes than a directory entry takes.
 */
#include "store/internal.h"

#include "mail/nfc.h"

#include <stdlib.h>
#include <unistr.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/* --- modified UTF-7 --- */

struct bits {
	uint32_t value;
	unsigned n;
};

static void
put_unit(struct buf *out, struct bits *b, uint16_t unit)
{
	b->value = b->value << 16 | unit;
	b->n += 16;
	while (b->n >= 6) {
		b->n -= 6;
		buf_add_byte(out, (unsigned char)alphabet[b->value >> b->n & 63]);
	}
	b->value &= (1u << b->n) - 1;
}

static void
put_char(struct buf *out, struct bits *b, ucs4_t u)
{
	if (u >= 0x10000) {
		put_unit(out, b, (uint16_t)(0xd800 + ((u - 0x10000) >> 10)));
		put_unit(out, b, (uint16_t)(0xdc00 + ((u - 0x10000) & 0x3ff)));
	} else {
		put_unit(out, b, (uint16_t)u);
	}
}

static void
end_shift(struct buf *out, struct bits *b)
{
	if (b->n)
		buf_add_byte(out, (unsigned char)alphabet[b->value << (6 - b->n) & 63]);
	buf_add_byte(out, '-');
	*b = (struct bits){ 0, 0 };
}

int
mutf7_encode(struct slice utf8, struct buf *out)
{
	bool shifted = false;
	struct bits b = { 0, 0 };
	size_t at = 0;

	if (utf8.n && u8_check(utf8.p, utf8.n))
		return ERR_SYNTAX;
	while (at < utf8.n) {
		ucs4_t u;
		at += (size_t)u8_mbtouc(&u, utf8.p + at, utf8.n - at);
		bool plain = u >= 0x20 && u < 0x7f;
		if (plain && shifted)
			end_shift(out, &b);
		if (!plain && !shifted)
			buf_add_byte(out, '&');
		shifted = !plain;
		if (!plain)
			put_char(out, &b, u);
		else if (u == '&')
			buf_add(out, SLICE_LIT("&-"));
		else
			buf_add_byte(out, (unsigned char)u);
	}
	if (shifted)
		end_shift(out, &b);
	return out->err;
}

static int
add_utf8(struct buf *out, ucs4_t u)
{
	uint8_t tmp[6];
	int n = u8_uctomb(tmp, u, sizeof(tmp));

	return n > 0 ? buf_add(out, slice(tmp, (size_t)n)) : ERR_SYNTAX;
}

/* One unit of UTF-16; a surrogate pair is one character. What base64 must not hide is refused. */
static int
take_unit(struct buf *out, uint16_t unit, uint16_t *high)
{
	if (*high) {
		if (unit < 0xdc00 || unit > 0xdfff)
			return ERR_SYNTAX;
		ucs4_t u = 0x10000 + ((ucs4_t)(*high - 0xd800) << 10) + (ucs4_t)(unit - 0xdc00);
		*high = 0;
		return add_utf8(out, u);
	}
	if (unit >= 0xd800 && unit <= 0xdbff) {
		*high = unit;
		return 0;
	}
	if ((unit >= 0xdc00 && unit <= 0xdfff) || (unit >= 0x20 && unit < 0x7f))
		return ERR_SYNTAX;
	return add_utf8(out, unit);
}

static int
decode_shift(struct slice in, struct buf *out)
{
	struct bits b = { 0, 0 };
	uint16_t high = 0;

	for (size_t i = 0; i < in.n; i++) {
		const char *at = memchr(alphabet, in.p[i], 64);
		if (!at)
			return ERR_SYNTAX;
		b.value = b.value << 6 | (uint32_t)(at - alphabet);
		b.n += 6;
		if (b.n < 16)
			continue;
		b.n -= 16;
		int rc = take_unit(out, (uint16_t)(b.value >> b.n), &high);
		if (rc < 0)
			return rc;
		b.value &= (1u << b.n) - 1;
	}
	return high || b.value || b.n >= 6 ? ERR_SYNTAX : 0;
}

int
mutf7_decode(struct slice in, struct buf *out)
{
	size_t shift_end = SIZE_MAX; /* where a shift ended: two in a row had to be one */

	for (size_t i = 0; i < in.n; i++) {
		if (in.p[i] < 0x20 || in.p[i] >= 0x7f)
			return ERR_SYNTAX;
		if (in.p[i] != '&') {
			buf_add_byte(out, in.p[i]);
			continue;
		}
		ptrdiff_t end = slice_find(slice_sub(in, i + 1, SIZE_MAX), '-');
		if (end < 0)
			return ERR_SYNTAX;
		int rc = 0;
		if (end == 0)
			buf_add_byte(out, '&');
		else if (i == shift_end)
			rc = ERR_SYNTAX;
		else
			rc = decode_shift(slice_sub(in, i + 1, i + 1 + (size_t)end), out);
		if (rc < 0)
			return rc;
		i += 1 + (size_t)end;
		if (end > 0)
			shift_end = i + 1;
	}
	return out->err;
}

/* --- the API's form --- */

/* Controls, separators of lines and paragraphs: RFC 9051 section 5.1. */
static const char *
check_characters(struct slice s)
{
	size_t at = 0;

	while (at < s.n) {
		ucs4_t u;
		at += (size_t)u8_mbtouc(&u, s.p + at, s.n - at);
		if (u < 0x20 || (u >= 0x7f && u < 0xa0) || u == 0x2028 || u == 0x2029)
			return "control character in the folder name";
		if (u == '.')
			return "a folder name cannot hold '.'";
	}
	return NULL;
}

static const char *
check_levels(struct slice s)
{
	if (s.n == 0)
		return "empty folder name";
	while (s.n) {
		bool more = slice_find(s, STORE_SEPARATOR) >= 0;
		struct slice level = slice_split(&s, STORE_SEPARATOR);
		if (level.n == 0 || (more && s.n == 0))
			return "empty level in the folder name";
		if (level.p[0] == '~')
			return "a level of a folder name cannot begin with '~'";
	}
	return NULL;
}

static void
canonical_inbox(char *name)
{
	struct slice s = slice_str(name);

	if (slice_has_caseprefix(s, "INBOX") && (s.n == 5 || name[5] == STORE_SEPARATOR))
		memcpy(name, "INBOX", 5);
}

int
store_name(struct slice in, char *out, const char **why_r)
{
	const char *why = NULL;
	struct buf disk = { 0 };
	uint8_t *nfc = NULL;
	size_t n = 0;
	int rc = ERR_SYNTAX;

	if (in.n && in.p[in.n - 1] == STORE_SEPARATOR)
		in.n--;
	if (in.n > STORE_NAME_MAX)
		why = "folder name too long";
	else if (in.n && (u8_check(in.p, in.n) || memchr(in.p, 0, in.n)))
		why = "folder name is not UTF-8";
	else if (in.n == 0)
		why = "empty folder name";
	if (!why) {
		nfc = mail_nfc(in, &n);
		if (!nfc || n > STORE_NAME_MAX)
			why = "folder name too long";
	}
	if (!why)
		why = check_characters(slice(nfc, n));
	if (!why)
		why = check_levels(slice(nfc, n));
	if (!why) {
		memcpy(out, nfc, n);
		out[n] = '\0';
		canonical_inbox(out);
		rc = name_to_disk(out, &disk);
		if (rc < 0)
			why = "folder name too long";
	}
	free(nfc);
	buf_free(&disk);
	if (why_r)
		*why_r = why;
	return rc;
}

void
store_pattern(struct slice in, struct buf *out)
{
	size_t n = 0;
	uint8_t *nfc = in.n && !u8_check(in.p, in.n) ? mail_nfc(in, &n) : NULL;

	buf_add(out, nfc ? slice(nfc, n) : in);
	free(nfc);
}

int
name_to_disk(const char *name, struct buf *out)
{
	struct slice rest = slice_str(name);
	size_t start = buf_len(out);

	if (slice_eq_str(rest, "INBOX"))
		return buf_add_str(out, ".");
	while (rest.n) {
		struct slice level = slice_split(&rest, STORE_SEPARATOR);
		buf_add_byte(out, '.');
		int rc = mutf7_encode(level, out);
		if (rc < 0)
			return rc;
	}
	return buf_len(out) - start > HIDDEN_MAX ? ERR_SYNTAX : out->err;
}

static int
decode_level(struct slice level, struct buf *out)
{
	size_t start = buf_len(out);

	if (mutf7_decode(level, out) == 0)
		return 0;
	buf_truncate(out, start);
	out->err = 0;
	for (size_t i = 0; i < level.n; i++) /* ASCII that is no mUTF-7 is shown as it is */
		if (level.p[i] < 0x20 || level.p[i] == 0x7f)
			return ERR_SYNTAX;
	return u8_check(level.p, level.n) ? ERR_SYNTAX : buf_add(out, level);
}

int
name_from_disk(const char *disk, struct buf *out)
{
	struct slice rest = slice_str(disk);
	struct buf raw = { 0 };
	char name[STORE_NAME_MAX + 1];
	int rc = 0;

	if (slice_eq_str(rest, "."))
		return buf_add_str(out, "INBOX");
	if (rest.n < 2 || rest.p[0] != '.' || rest.p[1] == '.' || rest.p[rest.n - 1] == '.')
		return ERR_SYNTAX;
	rest = slice_sub(rest, 1, SIZE_MAX);
	while (rest.n && rc == 0) {
		struct slice level = slice_split(&rest, '.');
		if (buf_len(&raw))
			buf_add_byte(&raw, STORE_SEPARATOR);
		rc = level.n ? decode_level(level, &raw) : ERR_SYNTAX;
	}
	if (rc == 0)
		rc = store_name(buf_slice(&raw), name, NULL);
	if (rc == 0)
		rc = buf_add_str(out, name);
	buf_free(&raw);
	return rc;
}

/* An atom (RFC 9051 flag-keyword): no specials, no backslash. */
bool
keyword_valid(struct slice s)
{
	if (s.n == 0 || s.n > STORE_KEYWORD_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] <= 0x20 || s.p[i] >= 0x7f || strchr("(){%*\"\\]", s.p[i]))
			return false;
	return true;
}
