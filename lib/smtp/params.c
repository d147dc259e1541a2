/*
 * ESMTP parameters. Runs in the receivers on bytes from strangers and in smtp-client and bounce on
 * what a receiver accepted. Invariant: what xtext_valid and dsn_orcpt_valid accept decodes to
 * printable ASCII, so it can never break a command, a header field or a log line.
 */
#include "smtp/params.h"

#include "mail/domain.h"

static bool
is_value_byte(unsigned char c, bool utf8)
{
	return (c >= 33 && c <= 126 && c != '=') || (utf8 && c >= 0x80);
}

/* esmtp-param = esmtp-keyword ["=" esmtp-value]. An "=" inside the value is not in the grammar, but
 * is let through for AUTH= and ORCPT= of clients that forget to encode it. */
int
smtp_param_next(struct slice *s, bool utf8, struct smtp_param *out_r)
{
	size_t i = 0, start;

	*out_r = (struct smtp_param){ 0 };
	while (s->n && s->p[0] == ' ')
		*s = slice_sub(*s, 1, s->n);
	if (!s->n)
		return ERR_NOT_FOUND;
	while (i < s->n && (ascii_is_alnum(s->p[i]) || (i && s->p[i] == '-')))
		i++;
	out_r->keyword = slice_sub(*s, 0, i);
	if (!i)
		return ERR_SYNTAX;
	if (i < s->n && s->p[i] == '=') {
		start = ++i;
		while (i < s->n && (is_value_byte(s->p[i], utf8) || s->p[i] == '='))
			i++;
		out_r->value = slice_sub(*s, start, i);
		out_r->has_value = true;
		if (i == start)
			return ERR_SYNTAX;
	}
	if (i < s->n && s->p[i] != ' ')
		return ERR_SYNTAX;
	*s = slice_sub(*s, i, s->n);
	return 0;
}

static int
hex_digit(unsigned char c)
{
	if (ascii_is_digit(c))
		return c - '0';
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One octet of xtext at *i, which moves behind it; -1 if broken. */
static int
xtext_octet(struct slice s, size_t *i)
{
	unsigned char c = s.p[(*i)++];
	int high, low;

	if (c != '+')
		return c >= 33 && c <= 126 && c != '=' ? c : -1;
	if (*i + 2 > s.n)
		return -1;
	high = hex_digit(s.p[*i]);
	low = hex_digit(s.p[*i + 1]);
	*i += 2;
	return high < 0 || low < 0 ? -1 : high * 16 + low;
}

bool
xtext_valid(struct slice s)
{
	for (size_t i = 0; i < s.n;) {
		int c = xtext_octet(s, &i);
		if (c < 32 || c > 126)
			return false;
	}
	return true;
}

int
xtext_decode(struct buf *out, struct slice s)
{
	size_t before = buf_len(out);

	for (size_t i = 0; i < s.n;) {
		int c = xtext_octet(s, &i);
		if (c < 0) {
			buf_truncate(out, before);
			return ERR_SYNTAX;
		}
		buf_add_byte(out, (unsigned char)c);
	}
	return 0;
}

void
xtext_encode(struct buf *out, struct slice s)
{
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = s.p[i];
		if (c >= 33 && c <= 126 && c != '+' && c != '=') {
			buf_add_byte(out, c);
		} else {
			buf_add_byte(out, '+');
			buf_add_byte(out, (unsigned char)hex[c >> 4]);
			buf_add_byte(out, (unsigned char)hex[c & 15]);
		}
	}
}

static const struct {
	const char *name;
	unsigned bit;
} notify_names[] = {
	{ "NEVER", DSN_NOTIFY_NEVER },
	{ "SUCCESS", DSN_NOTIFY_SUCCESS },
	{ "FAILURE", DSN_NOTIFY_FAILURE },
	{ "DELAY", DSN_NOTIFY_DELAY },
};

/* notify-esmtp-value = "NEVER" / 1#("SUCCESS" / "FAILURE" / "DELAY") */
int
dsn_notify_parse(struct slice s, unsigned *out_r)
{
	unsigned notify = 0;

	*out_r = 0;
	if (s.n && s.p[s.n - 1] == ',')
		return ERR_SYNTAX;
	while (s.n) {
		struct slice word = slice_split(&s, ',');
		unsigned bit = 0;
		for (size_t i = 0; i < 4; i++)
			if (slice_caseeq_str(word, notify_names[i].name))
				bit = notify_names[i].bit;
		if (!bit)
			return ERR_SYNTAX;
		notify |= bit;
	}
	if (!notify || (notify & DSN_NOTIFY_NEVER && notify != DSN_NOTIFY_NEVER))
		return ERR_SYNTAX;
	*out_r = notify;
	return 0;
}

void
dsn_notify_format(struct buf *out, unsigned notify)
{
	bool first = true;

	for (size_t i = 0; i < 4; i++) {
		if (!(notify & notify_names[i].bit))
			continue;
		if (!first)
			buf_add_byte(out, ',');
		buf_add_str(out, notify_names[i].name);
		first = false;
	}
}

bool
dsn_orcpt_valid(struct slice s)
{
	struct slice type = slice_split(&s, ';');

	if (!type.n || !s.n)
		return false;
	for (size_t i = 0; i < type.n; i++)
		if (!ascii_is_alnum(type.p[i]) && type.p[i] != '-')
			return false;
	/* RFC 6533: utf-8-addr-xtext also may hold UTF-8 as it is and "\x{...}" */
	if (slice_caseeq_str(type, "utf-8"))
		return slice_find(s, ' ') < 0 && utf8_valid(s) && !utf8_has_control(s);
	return xtext_valid(s);
}
