/*
 * The one parser of envelope addresses. Runs in receivers, maps, qmgr, smtp-client and local, on
 * bytes from strangers. Nothing is allocated but by libidn2 for a non-ASCII domain. Invariants: a
 * parsed address holds no control character, CR, LF or NUL; the slices lie inside the input.
 */
#include "mail/address.h"

#include "mail/nfc.h"

#include <stdlib.h>

bool
address_is_atext(unsigned char c, bool utf8)
{
	if (c >= 0x80)
		return utf8;
	return ascii_is_alnum(c) || (c && strchr("!#$%&'*+-/=?^_`{|}~", c));
}

/* Dot-string = Atom *("." Atom); returns its length, 0 if there is none. A dot needs an atom on
 * both sides. */
static size_t
scan_dot_string(struct slice s)
{
	size_t i = 0;

	for (;;) {
		size_t start = i;
		while (i < s.n && address_is_atext(s.p[i], true))
			i++;
		if (i == start)
			return 0;
		if (i == s.n || s.p[i] != '.')
			return i;
		i++;
	}
}

/* Quoted-string = DQUOTE *(qtextSMTP / "\" %d32-126) DQUOTE; returns its length, 0 if broken. */
static size_t
scan_quoted_string(struct slice s)
{
	for (size_t i = 1; i < s.n; i++) {
		unsigned char c = s.p[i];
		if (c == '"')
			return i + 1;
		if (c == '\\') {
			if (++i == s.n || s.p[i] < 32 || s.p[i] > 126)
				return 0;
		} else if (c < 32 || c == 127) {
			return 0;
		}
	}
	return 0;
}

static int
check_parts(const struct address *a, unsigned flags)
{
	size_t local_max = flags & ADDRESS_RFC_LENGTHS ? 64 : ADDRESS_LOCAL_MAX;

	if (a->utf8 && !(flags & ADDRESS_UTF8))
		return ERR_DENIED;
	if (a->utf8 && (!utf8_valid(a->local) || !utf8_valid(a->domain) ||
			   utf8_has_control(a->local) || utf8_has_control(a->domain)))
		return ERR_SYNTAX;
	if (a->local.n > local_max)
		return ERR_LIMIT;
	if (flags & ADDRESS_RFC_LENGTHS && a->local.n + 1 + a->domain.n > 254)
		return ERR_LIMIT;
	if (a->literal)
		return domain_literal_check(a->domain);
	if (a->domain.n)
		return domain_check(a->domain, flags & ADDRESS_UTF8);
	return 0;
}

int
address_parse(struct slice s, unsigned flags, struct address *out_r)
{
	struct address a = { .quoted = s.n && s.p[0] == '"' };
	size_t n = a.quoted ? scan_quoted_string(s) : scan_dot_string(s);
	int err;

	*out_r = (struct address){ 0 };
	if (!n)
		return ERR_SYNTAX;
	a.local = slice_sub(s, 0, n);
	a.utf8 = !slice_is_ascii(s);
	if (n < s.n) {
		if (s.p[n] != '@' || n + 1 == s.n)
			return ERR_SYNTAX;
		a.domain = slice_sub(s, n + 1, s.n);
		a.literal = a.domain.p[0] == '[';
	} else if (!(flags & ADDRESS_NO_DOMAIN)) {
		return ERR_SYNTAX;
	}
	err = check_parts(&a, flags);
	if (!err)
		*out_r = a;
	return err;
}

/* A-d-l = "@" Domain *("," "@" Domain) ":"; moves *s behind it. */
static int
skip_source_route(struct slice *s, unsigned flags)
{
	ptrdiff_t colon = slice_find(*s, ':');
	struct slice route;

	if (colon < 0)
		return ERR_SYNTAX;
	route = slice_sub(*s, 0, (size_t)colon);
	*s = slice_sub(*s, (size_t)colon + 1, s->n);
	if (!route.n || route.p[route.n - 1] == ',')
		return ERR_SYNTAX;
	while (route.n) {
		struct slice at_domain = slice_split(&route, ',');
		if (at_domain.n < 2 || at_domain.p[0] != '@' ||
		    domain_check(slice_sub(at_domain, 1, at_domain.n), flags & ADDRESS_UTF8))
			return ERR_SYNTAX;
	}
	return 0;
}

/* The index of the ">" that ends the path: one inside quotes does not. */
static ptrdiff_t
find_path_end(struct slice s)
{
	bool quoted = false;

	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] == '"')
			quoted = !quoted;
		else if (s.p[i] == '\\' && quoted)
			i++;
		else if (s.p[i] == '>' && !quoted)
			return (ptrdiff_t)i;
	}
	return -1;
}

int
address_parse_path(struct slice *s, unsigned flags, struct address *out_r)
{
	struct slice inside;
	ptrdiff_t end;

	*out_r = (struct address){ 0 };
	if (!s->n)
		return ERR_SYNTAX;
	if (s->p[0] != '<') {
		end = s->p[0] == '"' ? (ptrdiff_t)scan_quoted_string(*s) : 0;
		while ((size_t)end < s->n && s->p[end] != ' ')
			end++;
		inside = slice_sub(*s, 0, (size_t)end);
		*s = slice_sub(*s, (size_t)end, s->n);
		return address_parse(inside, flags, out_r);
	}
	end = find_path_end(*s);
	if (end < 0)
		return ERR_SYNTAX;
	inside = slice_sub(*s, 1, (size_t)end);
	*s = slice_sub(*s, (size_t)end + 1, s->n);
	if (!inside.n)
		return 0;
	if (inside.p[0] == '@') {
		int err = skip_source_route(&inside, flags);
		if (err)
			return err;
	}
	return address_parse(inside, flags, out_r);
}

void
address_local(const struct address *a, struct buf *out)
{
	struct slice s = a->local;

	if (!a->quoted) {
		buf_add(out, s);
		return;
	}
	for (size_t i = 1; i + 1 < s.n; i++) {
		if (s.p[i] == '\\')
			i++;
		buf_add_byte(out, s.p[i]);
	}
}

void
address_quote_local(struct slice local, struct buf *out)
{
	if (local.n && scan_dot_string(local) == local.n) {
		buf_add(out, local);
		return;
	}
	buf_add_byte(out, '"');
	for (size_t i = 0; i < local.n; i++) {
		if (local.p[i] == '"' || local.p[i] == '\\')
			buf_add_byte(out, '\\');
		buf_add_byte(out, local.p[i]);
	}
	buf_add_byte(out, '"');
}

/* NFC may give more octets than there were, and what is taken must still be an address then. */
static int
canonical_local(const struct address *a, struct buf *out)
{
	struct buf plain;
	size_t n;
	uint8_t *nfc = NULL;

	if (!a->quoted && !a->utf8)
		return buf_add(out, a->local);
	buf_init(&plain, 0);
	address_local(a, &plain);
	if (a->utf8)
		nfc = mail_nfc(buf_slice(&plain), &n);
	address_quote_local(nfc ? slice(nfc, n) : buf_slice(&plain), out);
	free(nfc);
	buf_free(&plain);
	return buf_len(out) > ADDRESS_LOCAL_MAX ? ERR_LIMIT : 0;
}

int
address_canonical(const struct address *a, struct buf *out)
{
	char domain[DOMAIN_BUF_SIZE] = "";
	struct buf local = { 0 };
	int err;

	if (a->literal) {
		for (size_t i = 0; i < a->domain.n; i++)
			domain[i] = (char)ascii_lower(a->domain.p[i]);
	} else if (a->domain.n) {
		err = domain_to_ascii(a->domain, domain);
		if (err)
			return err;
	}
	err = canonical_local(a, &local);
	if (!err)
		err = buf_add(out, buf_slice(&local));
	if (!err && a->domain.n)
		err = buf_addf(out, "@%s", domain);
	buf_free(&local);
	return err;
}

int
address_normalise(struct slice s, unsigned flags, char out_r[ADDRESS_BUF_SIZE])
{
	struct address a;
	struct buf text;
	int err = address_parse(s, flags, &a);

	out_r[0] = '\0';
	if (err)
		return err;
	buf_init(&text, 0);
	err = address_canonical(&a, &text);
	if (!err)
		err = slice_copy(buf_slice(&text), out_r, ADDRESS_BUF_SIZE);
	buf_free(&text);
	return err;
}
