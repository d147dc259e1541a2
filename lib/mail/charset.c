/*
 * Charset conversion. Opened in a zygote, used in the children on hostile text. Invariants: only
 * charsets of the list below are ever handed to iconv (stateful oddities such as ISO-2022-CN-EXT
 * stay out); each conversion starts from the initial state; the output is well-formed UTF-8,
 * whatever the input.
 */
#include "mail/charset.h"

#include <errno.h>
#include <iconv.h>
#include <stdlib.h>

/* Names as mail has them; to: what iconv calls it, if that differs. The first of those with one
 * "to" is opened, the others share it. */
static const struct {
	const char *name, *to;
} names[] = {
	{ "ISO-8859-1", "WINDOWS-1252" }, /* as browsers and mail programs take it */
	{ "LATIN1", "WINDOWS-1252" },
	{ "CP1252", "WINDOWS-1252" },
	{ "WINDOWS-1252", "WINDOWS-1252" },
	{ "ISO-8859-2", "ISO-8859-2" },
	{ "LATIN2", "ISO-8859-2" },
	{ "ISO-8859-3", "ISO-8859-3" },
	{ "ISO-8859-4", "ISO-8859-4" },
	{ "ISO-8859-5", "ISO-8859-5" },
	{ "ISO-8859-6", "ISO-8859-6" },
	{ "ISO-8859-6-I", "ISO-8859-6" },
	{ "ISO-8859-6-E", "ISO-8859-6" },
	{ "ISO-8859-7", "ISO-8859-7" },
	{ "ISO-8859-8", "ISO-8859-8" },
	{ "ISO-8859-8-I", "ISO-8859-8" },
	{ "ISO-8859-8-E", "ISO-8859-8" },
	{ "ISO-8859-9", "ISO-8859-9" },
	{ "ISO-8859-10", "ISO-8859-10" },
	{ "ISO-8859-11", "TIS-620" },
	{ "ISO-8859-13", "ISO-8859-13" },
	{ "ISO-8859-14", "ISO-8859-14" },
	{ "ISO-8859-15", "ISO-8859-15" },
	{ "LATIN-9", "ISO-8859-15" },
	{ "ISO-8859-16", "ISO-8859-16" },
	{ "WINDOWS-1250", "WINDOWS-1250" },
	{ "CP1250", "WINDOWS-1250" },
	{ "WINDOWS-1251", "WINDOWS-1251" },
	{ "CP1251", "WINDOWS-1251" },
	{ "WINDOWS-1253", "WINDOWS-1253" },
	{ "WINDOWS-1254", "WINDOWS-1254" },
	{ "WINDOWS-1255", "WINDOWS-1255" },
	{ "WINDOWS-1256", "WINDOWS-1256" },
	{ "WINDOWS-1257", "WINDOWS-1257" },
	{ "WINDOWS-1258", "WINDOWS-1258" },
	{ "WINDOWS-874", "CP874" },
	{ "KOI8-R", "KOI8-R" },
	{ "KOI8-U", "KOI8-U" },
	{ "IBM437", "IBM437" },
	{ "IBM850", "IBM850" },
	{ "CP850", "IBM850" },
	{ "IBM852", "IBM852" },
	{ "IBM866", "IBM866" },
	{ "CP866", "IBM866" },
	{ "MACINTOSH", "MACINTOSH" },
	{ "X-MAC-ROMAN", "MACINTOSH" },
	{ "GB2312", "GBK" }, /* GBK is what senders mean by it */
	{ "GB_2312-80", "GBK" },
	{ "GBK", "GBK" },
	{ "CP936", "GBK" },
	{ "GB18030", "GB18030" },
	{ "HZ-GB-2312", "HZ" },
	{ "BIG5", "BIG5-HKSCS" },
	{ "BIG5-HKSCS", "BIG5-HKSCS" },
	{ "CN-BIG5", "BIG5-HKSCS" },
	{ "EUC-TW", "EUC-TW" },
	{ "SHIFT_JIS", "CP932" },
	{ "SHIFT-JIS", "CP932" },
	{ "X-SJIS", "CP932" },
	{ "WINDOWS-31J", "CP932" },
	{ "CP932", "CP932" },
	{ "EUC-JP", "EUC-JP" },
	{ "ISO-2022-JP", "ISO-2022-JP-2" },
	{ "ISO-2022-JP-1", "ISO-2022-JP-2" },
	{ "ISO-2022-JP-2", "ISO-2022-JP-2" },
	{ "ISO-2022-JP-3", "ISO-2022-JP-3" },
	{ "EUC-KR", "CP949" },
	{ "KS_C_5601-1987", "CP949" },
	{ "KSC5601", "CP949" },
	{ "KS_C_5601", "CP949" },
	{ "CP949", "CP949" },
	{ "ISO-2022-KR", "ISO-2022-KR" },
	{ "TIS-620", "TIS-620" },
	{ "VISCII", "VISCII" },
	{ "ARMSCII-8", "ARMSCII-8" },
	{ "UTF-7", "UTF-7" },
	{ "UNICODE-1-1-UTF-7", "UTF-7" },
	{ "UTF-16", "UTF-16" },
	{ "UTF-16LE", "UTF-16LE" },
	{ "UTF-16BE", "UTF-16BE" },
	{ "UCS-2", "UTF-16" },
	{ "UTF-32", "UTF-32" },
};
enum { NAMES = sizeof(names) / sizeof(*names) };

struct charsets {
	iconv_t open[NAMES]; /* (iconv_t)-1: not there */
	unsigned count;
};

struct charsets *
charsets_open(void)
{
	struct charsets *c = xcalloc(1, sizeof(*c));

	for (unsigned i = 0; i < NAMES; i++) {
		unsigned same = 0;

		while (same < i && strcmp(names[same].to, names[i].to) != 0)
			same++;
		if (same < i) {
			c->open[i] = c->open[same];
			continue;
		}
		c->open[i] = iconv_open("UTF-8", names[i].to);
		if (c->open[i] == (iconv_t)-1)
			continue;
		c->count++;
	}
	return c;
}

void
charsets_free(struct charsets **cp)
{
	struct charsets *c = *cp;

	if (!c)
		return;
	for (unsigned i = 0; i < NAMES; i++) {
		bool shared = false;

		for (unsigned k = 0; k < i; k++)
			shared |= c->open[k] == c->open[i];
		if (!shared && c->open[i] != (iconv_t)-1)
			(void)iconv_close(c->open[i]);
	}
	free(c);
	*cp = NULL;
}

unsigned
charsets_count(const struct charsets *c)
{
	return c ? c->count : 0;
}

static bool
is_builtin(struct slice name)
{
	return slice_caseeq_str(name, "UTF-8") || slice_caseeq_str(name, "UTF8") ||
	       slice_caseeq_str(name, "US-ASCII") || slice_caseeq_str(name, "ASCII");
}

static iconv_t
find(const struct charsets *c, struct slice name)
{
	if (!c)
		return (iconv_t)-1;
	for (unsigned i = 0; i < NAMES; i++)
		if (slice_caseeq_str(name, names[i].name))
			return c->open[i];
	return (iconv_t)-1;
}

bool
charset_known(const struct charsets *c, struct slice name)
{
	return is_builtin(name) || find(c, name) != (iconv_t)-1;
}

unsigned
utf8_next(struct slice in, uint32_t *code_r)
{
	static const uint32_t lowest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned n;
	uint32_t c;

	*code_r = 0xfffd;
	if (!in.n)
		return 0;
	c = in.p[0];
	if (c < 0x80) {
		*code_r = c;
		return 1;
	}
	n = c >= 0xf0 && c < 0xf8 ? 4 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xc2 && c < 0xe0 ? 2 : 0;
	if (!n || in.n < n)
		return 0;
	c &= 0x7fu >> n;
	for (unsigned i = 1; i < n; i++) {
		if ((in.p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (in.p[i] & 0x3f);
	}
	if (c < lowest[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	*code_r = c;
	return n;
}

void
utf8_put(struct buf *out, uint32_t c)
{
	unsigned char b[4];
	size_t n;

	if (c < 0x80) {
		b[0] = (unsigned char)c, n = 1;
	} else if (c < 0x800) {
		b[0] = (unsigned char)(0xc0 | c >> 6), n = 2;
	} else if (c < 0x10000) {
		b[0] = (unsigned char)(0xe0 | c >> 12), n = 3;
	} else {
		b[0] = (unsigned char)(0xf0 | c >> 18), n = 4;
	}
	for (size_t i = 1; i < n; i++)
		b[i] = (unsigned char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
	buf_add(out, slice(b, n));
}

void
utf8_repair(struct slice in, struct buf *out)
{
	size_t from = 0, i = 0;

	while (i < in.n) {
		uint32_t code;
		unsigned n = in.p[i] < 0x80 ? 1 : utf8_next(slice_sub(in, i, in.n), &code);

		if (!n) {
			buf_add(out, slice_sub(in, from, i));
			buf_add_str(out, "\xef\xbf\xbd");
			from = i + 1;
		}
		i += n ? n : 1;
	}
	buf_add(out, slice_sub(in, from, in.n));
}

/* Some decoders (WINDOWS-1255, WINDOWS-1258, BIG5-HKSCS) hold a letter back, because a mark to
 * combine with it may follow. */
static void
flush(iconv_t cd, struct buf *out)
{
	char last[64];
	char *to = last;
	size_t room = sizeof(last);

	(void)iconv(cd, NULL, NULL, &to, &room);
	buf_add(out, slice(last, sizeof(last) - room));
}

static void
convert(iconv_t cd, struct slice in, struct buf *out)
{
	char *from = (char *)(uintptr_t)in.p;
	size_t left = in.n;

	(void)iconv(cd, NULL, NULL, NULL, NULL);
	while (left) {
		char chunk[4096];
		char *to = chunk;
		size_t room = sizeof(chunk);
		size_t r = iconv(cd, &from, &left, &to, &room);
		int e = errno;

		buf_add(out, slice(chunk, sizeof(chunk) - room));
		if (r != (size_t)-1 || out->err)
			break;
		if (e == E2BIG)
			continue;
		/* EILSEQ: skip one byte; EINVAL: the text is cut within a character. */
		buf_add_str(out, "\xef\xbf\xbd");
		if (e != EILSEQ || !left)
			break;
		from++, left--;
	}
	flush(cd, out);
}

int
charset_decode(struct charsets *c, struct slice name, struct slice in, struct buf *out)
{
	iconv_t cd;

	if (is_builtin(name)) {
		utf8_repair(in, out);
		return 0;
	}
	cd = find(c, name);
	if (cd == (iconv_t)-1) {
		utf8_repair(in, out);
		return ERR_NOT_FOUND;
	}
	convert(cd, in, out);
	return 0;
}
