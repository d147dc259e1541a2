/*
 * Domain syntax and IDNA. Runs in receivers, maps, qmgr, smtp-client, imapd: every input is
 * hostile. libidn2 and libunistring work in memory only (no file, no locale: the _8z and u8_ calls
 * take UTF-8). Invariant: what domain_to_ascii returns passes domain_check without utf8.
 */
#include "mail/domain.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unictype.h>
#include <unistr.h>

bool
slice_is_ascii(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] >= 0x80)
			return false;
	return true;
}

bool
utf8_valid(struct slice s)
{
	return !s.n || (slice_find(s, '\0') < 0 && !u8_check(s.p, s.n));
}

bool
utf8_has_control(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 32 || s.p[i] == 127 ||
		    (s.p[i] == 0xc2 && i + 1 < s.n && s.p[i + 1] < 0xa0))
			return true;
	return false;
}

static bool
is_label_byte(unsigned char c)
{
	return ascii_is_alnum(c) || c == '-' || c == '_';
}

static int
check_label(struct slice label)
{
	if (!label.n)
		return ERR_SYNTAX;
	if (label.n > 63)
		return ERR_LIMIT;
	if (label.p[0] == '-' || label.p[label.n - 1] == '-')
		return ERR_SYNTAX;
	for (size_t i = 0; i < label.n; i++)
		if (!is_label_byte(label.p[i]))
			return ERR_SYNTAX;
	return 0;
}

static int
check_ascii(struct slice s)
{
	if (!s.n || s.p[s.n - 1] == '.')
		return ERR_SYNTAX;
	if (s.n > DOMAIN_MAX)
		return ERR_LIMIT;
	while (s.n) {
		int err = check_label(slice_split(&s, '.'));
		if (err)
			return err;
	}
	return 0;
}

int
domain_check(struct slice s, bool utf8)
{
	char ascii[DOMAIN_BUF_SIZE];

	if (slice_is_ascii(s))
		return check_ascii(s);
	return utf8 ? domain_to_ascii(s, ascii) : ERR_SYNTAX;
}

int
domain_literal_address(struct slice s, int *family_r, unsigned char out_r[16])
{
	char text[64];
	int err;

	if (s.n < 2 || s.p[0] != '[' || s.p[s.n - 1] != ']')
		return ERR_SYNTAX;
	s = slice_sub(s, 1, s.n - 1);
	*family_r = AF_INET;
	if (slice_has_caseprefix(s, "IPv6:")) {
		*family_r = AF_INET6;
		s = slice_sub(s, 5, s.n);
	}
	err = slice_copy(s, text, sizeof(text));
	if (err)
		return ERR_SYNTAX;
	return inet_pton(*family_r, text, out_r) == 1 ? 0 : ERR_SYNTAX;
}

int
domain_literal_check(struct slice s)
{
	unsigned char address[16];
	int family;

	return domain_literal_address(s, &family, address);
}

static int
lower_copy(struct slice s, char out_r[DOMAIN_BUF_SIZE])
{
	for (size_t i = 0; i < s.n; i++)
		out_r[i] = (char)ascii_lower(s.p[i]);
	out_r[s.n] = '\0';
	return 0;
}

static bool
has_ace_label(struct slice s)
{
	while (s.n)
		if (slice_has_caseprefix(slice_split(&s, '.'), "xn--"))
			return true;
	return false;
}

/* RFC 5893 section 2, rules 1 to 6, for one label of a name that holds a right-to-left label.
 * libidn2 2.3 applies them only within a label that has such a character itself. */
static bool
bidi_label_ok(struct slice label)
{
	bool first = true, rtl = false, en = false, an = false, end_ok = false;
	ucs4_t c;
	int n;

	for (; label.n; label = slice_sub(label, (size_t)n, label.n)) {
		int class;
		n = u8_mbtouc(&c, label.p, label.n);
		class = uc_bidi_class(c);
		if (first) {
			rtl = class == UC_BIDI_R || class == UC_BIDI_AL;
			if (!rtl && class != UC_BIDI_L)
				return false;
			first = false;
		}
		switch (class) {
		case UC_BIDI_L:
			if (rtl)
				return false;
			end_ok = true;
			break;
		case UC_BIDI_R:
		case UC_BIDI_AL:
			if (!rtl)
				return false;
			end_ok = true;
			break;
		case UC_BIDI_AN:
			if (!rtl)
				return false;
			an = end_ok = true;
			break;
		case UC_BIDI_EN:
			en = end_ok = true;
			break;
		case UC_BIDI_NSM:
			break;
		case UC_BIDI_ES:
		case UC_BIDI_CS:
		case UC_BIDI_ET:
		case UC_BIDI_ON:
		case UC_BIDI_BN:
			end_ok = false;
			break;
		default:
			return false;
		}
	}
	return end_ok && !(en && an);
}

static bool
bidi_name_ok(struct slice name)
{
	bool bidi = false;
	ucs4_t c;

	for (size_t i = 0; i < name.n && !bidi;) {
		int class;
		i += (size_t)u8_mbtouc(&c, name.p + i, name.n - i);
		class = uc_bidi_class(c);
		bidi = class == UC_BIDI_R || class == UC_BIDI_AL || class == UC_BIDI_AN;
	}
	while (bidi && name.n)
		if (!bidi_label_ok(slice_split(&name, '.')))
			return false;
	return true;
}

/* A name that could not be looked at is not a wrong one. */
static void
need_memory(int rc)
{
	if (rc == IDN2_MALLOC)
		die("out of memory for a domain name: raise the memory limit of this service");
}

static int
check_bidi(const char *ascii)
{
	char *unicode = NULL;
	int err = ERR_SYNTAX, rc = idn2_to_unicode_8z8z(ascii, &unicode, 0);

	need_memory(rc);
	if (rc == IDN2_OK && bidi_name_ok(slice_str(unicode)))
		err = 0;
	idn2_free(unicode);
	return err;
}

/* libidn2's own length check counts its output; the input is bounded here: 255 octets of A-labels
 * never need more than 4 octets of UTF-8 for each. */
int
domain_to_ascii(struct slice s, char out_r[DOMAIN_BUF_SIZE])
{
	char *in = NULL, *out = NULL;
	int err = ERR_SYNTAX, rc;

	out_r[0] = '\0';
	if (slice_is_ascii(s) && !has_ace_label(s)) {
		err = check_ascii(s);
		return err ? err : lower_copy(s, out_r);
	}
	if (s.n > 4 * DOMAIN_MAX)
		return ERR_LIMIT;
	if (!utf8_valid(s) || slice_cstr(s, &in))
		return ERR_SYNTAX;
	rc = idn2_to_ascii_8z(in, &out, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
	need_memory(rc);
	if (rc == IDN2_OK) {
		err = check_ascii(slice_str(out));
		if (!err)
			err = check_bidi(out);
		if (!err)
			lower_copy(slice_str(out), out_r);
	} else if (rc == IDN2_TOO_BIG_DOMAIN || rc == IDN2_TOO_BIG_LABEL) {
		err = ERR_LIMIT;
	}
	idn2_free(out);
	free(in);
	return err;
}
