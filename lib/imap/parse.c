/*
 * Terminals of the IMAP grammar. Runs in login-child before login and in imapd-child; every byte is
 * hostile. Invariants: no read beyond the command, no recursion, strings copied into the arena are
 * never longer than the command itself.
 */
#include "imap/parse.h"
#include "mail/date.h"

struct imap_parse
imap_parse(struct slice in, struct arena *arena)
{
	return (struct imap_parse){ .in = in, .arena = arena };
}

bool
imap_fail(struct imap_parse *p, const char *why)
{
	if (!p->why)
		p->why = why;
	return false;
}

bool
imap_at_end(const struct imap_parse *p)
{
	return p->at >= p->in.n;
}

bool
imap_end(struct imap_parse *p)
{
	if (p->why)
		return false;
	return imap_at_end(p) || imap_fail(p, "Unexpected text after the command");
}

int
imap_peek(const struct imap_parse *p)
{
	return p->why || p->at >= p->in.n ? -1 : p->in.p[p->at];
}

bool
imap_try(struct imap_parse *p, unsigned char c)
{
	if (imap_peek(p) != c)
		return false;
	p->at++;
	return true;
}

bool
imap_try_text(struct imap_parse *p, const char *text)
{
	if (p->why || !slice_has_caseprefix(slice_sub(p->in, p->at, p->in.n), text))
		return false;
	p->at += strlen(text);
	return true;
}

static bool
is_atom_char(unsigned char c)
{
	return c > 32 && c < 127 && !strchr("(){%*\"\\]", c);
}

static bool
is_astring_char(unsigned char c)
{
	return is_atom_char(c) || c == ']';
}

bool
imap_try_word(struct imap_parse *p, const char *word)
{
	size_t before = p->at;

	if (!imap_try_text(p, word))
		return false;
	if (imap_peek(p) < 0 || !is_atom_char((unsigned char)imap_peek(p)))
		return true;
	p->at = before;
	return false;
}

bool
imap_need(struct imap_parse *p, unsigned char c)
{
	if (imap_try(p, c))
		return true;
	return imap_fail(p, c == ' '   ? "Space expected"
			    : c == '(' ? "( expected"
			    : c == ')' ? ") expected"
				       : "Syntax error");
}

bool
imap_sp(struct imap_parse *p)
{
	return imap_need(p, ' ');
}

static struct slice
take(struct imap_parse *p, bool (*is)(unsigned char))
{
	size_t from = p->at;

	while (!p->why && p->at < p->in.n && is(p->in.p[p->at]))
		p->at++;
	return slice_sub(p->in, from, p->at);
}

static bool
is_tag_char(unsigned char c)
{
	return is_astring_char(c) && c != '+';
}

bool
imap_tag(struct imap_parse *p, struct slice *out_r)
{
	*out_r = take(p, is_tag_char);
	return out_r->n ? true : imap_fail(p, "Tag expected");
}

bool
imap_atom(struct imap_parse *p, struct slice *out_r)
{
	*out_r = take(p, is_atom_char);
	return out_r->n ? true : imap_fail(p, "Atom expected");
}

static bool
imap_quoted(struct imap_parse *p, struct slice *out_r)
{
	size_t from, n = 0;
	unsigned char *copy;

	*out_r = SLICE_NULL;
	if (!imap_need(p, '"'))
		return imap_fail(p, "Quoted string expected");
	from = p->at;
	while (p->at < p->in.n && p->in.p[p->at] != '"') {
		unsigned char c = p->in.p[p->at];

		if (c == '\\') {
			p->at++;
			c = p->at < p->in.n ? p->in.p[p->at] : 0;
			if (c != '"' && c != '\\')
				return imap_fail(p, "Only \" and \\ may be quoted");
		}
		if (!c || c == '\r' || c == '\n')
			return imap_fail(p, "NUL, CR or LF in a quoted string");
		p->at++, n++;
	}
	if (p->at >= p->in.n)
		return imap_fail(p, "Quoted string without end");
	copy = arena_alloc(p->arena, n + 1);
	n = 0;
	for (size_t i = from; i < p->at; i++) {
		if (p->in.p[i] == '\\')
			i++;
		copy[n++] = p->in.p[i];
	}
	p->at++;
	*out_r = slice(copy, n);
	return true;
}

static bool
literal(struct imap_parse *p, struct slice *out_r, bool binary)
{
	uint64_t size;
	size_t from;

	if (!imap_need(p, '{'))
		return imap_fail(p, "String expected");
	if (!imap_number64(p, &size))
		return false;
	(void)imap_try(p, '+');
	if (!imap_need(p, '}'))
		return false;
	(void)imap_try(p, '\r');
	if (!imap_need(p, '\n'))
		return imap_fail(p, "Line end expected after a literal's size");
	from = p->at;
	if (size > p->in.n - from)
		return imap_fail(p, "Literal is cut short");
	*out_r = slice_sub(p->in, from, from + (size_t)size);
	p->at += (size_t)size;
	if (!binary && slice_find(*out_r, 0) >= 0)
		return imap_fail(p, "NUL in a string");
	return true;
}

static bool
imap_string(struct imap_parse *p, struct slice *out_r)
{
	*out_r = SLICE_NULL;
	if (imap_peek(p) == '"')
		return imap_quoted(p, out_r);
	return literal(p, out_r, false);
}

bool
imap_astring(struct imap_parse *p, struct slice *out_r)
{
	int c = imap_peek(p);

	if (c == '"' || c == '{')
		return imap_string(p, out_r);
	*out_r = take(p, is_astring_char);
	return out_r->n ? true : imap_fail(p, "String or atom expected");
}

static bool
nstring(struct imap_parse *p, struct slice *out_r)
{
	*out_r = SLICE_NULL;
	return imap_try_word(p, "NIL") || imap_string(p, out_r);
}

static bool
is_list_char(unsigned char c)
{
	return is_astring_char(c) || c == '%' || c == '*';
}

bool
imap_list_mailbox(struct imap_parse *p, struct slice *out_r)
{
	int c = imap_peek(p);

	if (c == '"' || c == '{')
		return imap_string(p, out_r);
	*out_r = take(p, is_list_char);
	return out_r->n ? true : imap_fail(p, "Mailbox pattern expected");
}

static bool
number(struct imap_parse *p, uint64_t max, uint64_t *out_r)
{
	struct slice digits = take(p, ascii_is_digit);

	*out_r = 0;
	if (p->why)
		return false;
	if (slice_u64(digits, max, out_r) < 0)
		return imap_fail(p, digits.n ? "Number too large" : "Number expected");
	return true;
}

static bool
imap_number(struct imap_parse *p, uint32_t *out_r)
{
	uint64_t v;
	bool ok = number(p, UINT32_MAX, &v);

	*out_r = (uint32_t)v;
	return ok;
}

bool
imap_nz_number(struct imap_parse *p, uint32_t *out_r)
{
	if (imap_peek(p) == '0')
		return imap_fail(p, "Number must not begin with 0");
	return imap_number(p, out_r);
}

bool
imap_number64(struct imap_parse *p, uint64_t *out_r)
{
	return number(p, INT64_MAX, out_r);
}

static bool
seq_number(struct imap_parse *p, uint32_t *out_r)
{
	*out_r = 0;
	return imap_try(p, '*') || imap_nz_number(p, out_r);
}

bool
imap_set(struct imap_parse *p, struct imap_set *out_r)
{
	size_t size = 0;

	*out_r = (struct imap_set){ 0 };
	if (imap_try(p, '$')) {
		out_r->saved = true;
		return true;
	}
	do {
		struct imap_range r;

		if (!seq_number(p, &r.from))
			return imap_fail(p, "Message set expected");
		r.to = r.from;
		if (imap_try(p, ':') && !seq_number(p, &r.to))
			return false;
		if (out_r->n == size) {
			struct imap_range *bigger;

			size = size ? 2 * size : 4;
			bigger = arena_alloc(p->arena, size * sizeof(*bigger));
			if (out_r->n)
				memcpy(bigger, out_r->ranges, out_r->n * sizeof(*bigger));
			out_r->ranges = bigger;
		}
		out_r->ranges[out_r->n++] = r;
	} while (imap_try(p, ','));
	return !p->why;
}

/* n digits, or fewer when the first is a blank and blank is allowed. */
static bool
digits(struct imap_parse *p, int n, int *out_r)
{
	*out_r = 0;
	for (int i = 0; i < n; i++) {
		int c = imap_peek(p);

		if (c < '0' || c > '9')
			return imap_fail(p, "Bad date");
		*out_r = *out_r * 10 + (c - '0');
		p->at++;
	}
	return true;
}

/* "-" date-month "-" date-year, and the day checked against them. */
static bool
month_year(struct imap_parse *p, int day, int64_t *days_r)
{
	static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	static const int lengths[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int month = 0, year, length;

	if (!imap_need(p, '-'))
		return imap_fail(p, "Bad date");
	for (int i = 0; i < 12 && !month; i++) {
		char name[4] = { months[i * 3], months[i * 3 + 1], months[i * 3 + 2], 0 };

		if (imap_try_text(p, name))
			month = i + 1;
	}
	if (!month || !imap_need(p, '-') || !digits(p, 4, &year))
		return imap_fail(p, "Bad date");
	length = lengths[month - 1];
	if (month == 2 && ((year % 4 == 0 && year % 100) || year % 400 == 0))
		length = 29;
	if (day < 1 || day > length)
		return imap_fail(p, "No such day");
	*days_r = date_days(year, month, day);
	return true;
}

bool
imap_date(struct imap_parse *p, int64_t *days_r)
{
	bool quoted = imap_try(p, '"');
	int day, second;

	*days_r = 0;
	if (!digits(p, 1, &day))
		return false;
	if (imap_peek(p) != '-') {
		if (!digits(p, 1, &second))
			return false;
		day = day * 10 + second;
	}
	return month_year(p, day, days_r) && (!quoted || imap_need(p, '"'));
}

bool
imap_date_time(struct imap_parse *p, int64_t *time_r, int *zone_r)
{
	int day, hour, minute, second, zh, zm;
	int64_t days;
	bool minus;

	*time_r = *zone_r = 0;
	if (!imap_need(p, '"'))
		return imap_fail(p, "Date and time expected");
	if (!(imap_try(p, ' ') ? digits(p, 1, &day) : digits(p, 2, &day)) ||
	    !month_year(p, day, &days) || !imap_sp(p) || !digits(p, 2, &hour) ||
	    !imap_need(p, ':') || !digits(p, 2, &minute) || !imap_need(p, ':') ||
	    !digits(p, 2, &second) || !imap_sp(p))
		return imap_fail(p, "Bad date");
	minus = imap_peek(p) == '-';
	if ((!minus && imap_peek(p) != '+') || hour > 23 || minute > 59 || second > 60)
		return imap_fail(p, "Bad time");
	p->at++;
	if (!digits(p, 2, &zh) || !digits(p, 2, &zm) || zm > 59 || !imap_need(p, '"'))
		return imap_fail(p, "Bad zone");
	*zone_r = (zh * 60 + zm) * (minus ? -1 : 1);
	*time_r = days * 86400 + hour * 3600 + minute * 60 + second - (int64_t)*zone_r * 60;
	return true;
}

bool
imap_flag(struct imap_parse *p, struct slice *out_r)
{
	size_t from = p->at;
	struct slice name;

	(void)imap_try(p, '\\');
	if (!imap_atom(p, &name))
		return imap_fail(p, "Flag expected");
	*out_r = slice_sub(p->in, from, p->at);
	return true;
}

bool
imap_id_params(struct imap_parse *p)
{
	struct slice name, value;

	if (imap_try_word(p, "NIL"))
		return true;
	if (!imap_need(p, '('))
		return false;
	if (imap_try(p, ')'))
		return true;
	for (int i = 0; i < 30; i++) {
		if (!imap_string(p, &name) || !imap_sp(p) || !nstring(p, &value))
			return false;
		if (imap_try(p, ')'))
			return true;
		if (!imap_sp(p))
			return false;
	}
	return imap_fail(p, "More than 30 ID fields");
}
