/*
 * Domain names. Runs in dns on answers from the network and on names that clients gave. Invariants:
 * nothing is read past the message; a compression pointer must point before the place where the
 * name's present run of labels began, so that every chain ends; a name has at most 255 bytes.
 */
#include "dns/name.h"

#include <stdio.h>

static int
add_label(struct dns_name *name, struct slice label)
{
	size_t n = name->n;

	if (n + 1 + label.n + 1 > DNS_NAME_MAX) /* room for the root label stays */
		return ERR_LIMIT;
	name->wire[n++] = (unsigned char)label.n;
	for (size_t i = 0; i < label.n; i++)
		name->wire[n++] = ascii_lower(label.p[i]);
	name->n = (uint8_t)n;
	return 0;
}

static void
end_name(struct dns_name *name)
{
	name->wire[name->n++] = 0;
}

int
dns_name_from_text(struct slice text, struct dns_name *out_r)
{
	int err;

	*out_r = (struct dns_name){ 0 };
	if (text.n && text.p[text.n - 1] == '.')
		text.n--;
	while (text.n) {
		ptrdiff_t dot = slice_find(text, '.');
		struct slice label = slice_split(&text, '.');

		if (!label.n || (dot >= 0 && !text.n))
			return ERR_SYNTAX;
		if (label.n > DNS_LABEL_MAX)
			return ERR_LIMIT;
		for (size_t i = 0; i < label.n; i++)
			if (label.p[i] <= ' ' || label.p[i] == 0x7f)
				return ERR_SYNTAX;
		err = add_label(out_r, label);
		if (err)
			return err;
	}
	end_name(out_r);
	return 0;
}

int
dns_name_read(struct slice message, size_t *at, struct dns_name *out_r)
{
	size_t i = *at, run = *at; /* run: where the present run of labels began */
	bool jumped = false;
	int err;

	*out_r = (struct dns_name){ 0 };
	for (;;) {
		if (i >= message.n)
			return ERR_TRUNCATED;
		unsigned char c = message.p[i];

		if ((c & 0xc0) == 0xc0) {
			if (message.n - i < 2)
				return ERR_TRUNCATED;
			size_t to = (size_t)(c & 0x3f) << 8 | message.p[i + 1];

			if (!jumped)
				*at = i + 2;
			jumped = true;
			if (to >= run)
				return ERR_SYNTAX;
			i = run = to;
			continue;
		}
		if (c & 0xc0)
			return ERR_SYNTAX;
		i++;
		if (!c)
			break;
		if (message.n - i < c)
			return ERR_TRUNCATED;
		err = add_label(out_r, slice(message.p + i, c));
		if (err)
			return err;
		i += c;
	}
	if (!jumped)
		*at = i;
	end_name(out_r);
	return 0;
}

int
dns_name_host(const struct dns_name *name, char host_r[DNS_HOST_SIZE])
{
	size_t out = 0, i = 0;

	host_r[0] = '\0';
	while (i < name->n && name->wire[i]) {
		size_t n = name->wire[i++];

		if (out)
			host_r[out++] = '.';
		for (size_t end = i + n; i < end; i++) {
			unsigned char c = name->wire[i];

			if (!ascii_is_alnum(c) && c != '-' && c != '_') {
				host_r[0] = '\0';
				return ERR_SYNTAX;
			}
			host_r[out++] = (char)c;
		}
	}
	host_r[out] = '\0';
	return 0;
}

void
dns_name_reverse(struct slice address, struct dns_name *out_r)
{
	char text[80];
	size_t at = 0;

	for (size_t i = address.n; i > 0; i--)
		if (address.n == 4)
			at +=
			    (size_t)snprintf(text + at, sizeof(text) - at, "%u.", address.p[i - 1]);
		else
			at += (size_t)snprintf(text + at, sizeof(text) - at, "%x.%x.",
			    address.p[i - 1] & 15u, address.p[i - 1] >> 4);
	snprintf(text + at, sizeof(text) - at, "%s", address.n == 4 ? "in-addr.arpa" : "ip6.arpa");
	if (dns_name_from_text(slice_str(text), out_r))
		die("no reverse name for an address of %zu bytes", address.n);
}

bool
dns_name_eq(const struct dns_name *a, const struct dns_name *b)
{
	return slice_eq(dns_name_slice(a), dns_name_slice(b));
}
