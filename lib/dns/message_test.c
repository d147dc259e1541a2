/* Unit tests of names, messages, the cache and site keys. */
#include "dns/cache.h"
#include "dns/site.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* --- a small builder of answers --- */

static void
put16(struct buf *b, unsigned v)
{
	buf_add_byte(b, (unsigned char)(v >> 8));
	buf_add_byte(b, (unsigned char)v);
}

static void
put_name(struct buf *b, const char *text)
{
	struct dns_name name;

	assert_int_equal(dns_name_from_text(slice_str(text), &name), 0);
	buf_add(b, dns_name_slice(&name));
}

static void
put_head(struct buf *b, const char *name, unsigned type, unsigned flags, unsigned an, unsigned ns)
{
	buf_clear(b);
	put16(b, 0x1234);
	put16(b, flags);
	put16(b, 1);
	put16(b, an);
	put16(b, ns);
	put16(b, 0);
	put_name(b, name);
	put16(b, type);
	put16(b, 1);
}

static void
put_rr(struct buf *b, const char *owner, unsigned type, uint32_t ttl, struct slice data)
{
	put_name(b, owner);
	put16(b, type);
	put16(b, 1);
	put16(b, ttl >> 16);
	put16(b, ttl & 0xffff);
	put16(b, (unsigned)data.n);
	buf_add(b, data);
}

static void
put_rr_name(struct buf *b, const char *owner, unsigned type, uint32_t ttl, int preference,
    const char *target)
{
	struct buf data = { 0 };

	if (preference >= 0)
		put16(&data, (unsigned)preference);
	put_name(&data, target);
	put_rr(b, owner, type, ttl, buf_slice(&data));
	buf_free(&data);
}

static struct dns_answer *
parse(struct slice message, const char *name, enum dns_type type)
{
	/* an exact copy on the heap, so that a sanitizer sees the first byte read past the end */
	unsigned char *copy = malloc(message.n ? message.n : 1);
	struct dns_answer *a;
	struct dns_name n;

	if (message.n)
		memcpy(copy, message.p, message.n);
	assert_int_equal(dns_name_from_text(slice_str(name), &n), 0);
	a = dns_answer_parse(slice(copy, message.n), &n, type);
	free(copy);
	return a;
}

/* --- names --- */

static void
test_name_text(void **state)
{
	struct dns_name a, b;
	char host[DNS_HOST_SIZE], label[70], longest[300];

	(void)state;
	assert_int_equal(dns_name_from_text(SLICE_LIT("Mail.Example.COM."), &a), 0);
	assert_int_equal(dns_name_from_text(SLICE_LIT("mail.example.com"), &b), 0);
	assert_true(dns_name_eq(&a, &b));
	assert_int_equal(dns_name_host(&a, host), 0);
	assert_string_equal(host, "mail.example.com");
	assert_int_equal(dns_name_from_text(SLICE_LIT("."), &a), 0);
	assert_int_equal(a.n, 1);
	assert_int_equal(dns_name_host(&a, host), 0);
	assert_string_equal(host, "");
	assert_int_equal(dns_name_from_text(SLICE_LIT("a..b"), &a), ERR_SYNTAX);
	assert_int_equal(dns_name_from_text(SLICE_LIT(".a"), &a), ERR_SYNTAX);
	assert_int_equal(dns_name_from_text(SLICE_LIT("a.."), &a), ERR_SYNTAX);
	assert_int_equal(dns_name_from_text(SLICE_LIT("a b"), &a), ERR_SYNTAX);
	assert_int_equal(dns_name_from_text(SLICE_LIT("a\0b"), &a), ERR_SYNTAX);
	assert_int_equal(dns_name_from_text(SLICE_LIT("a/b"), &a), 0);
	assert_int_equal(dns_name_host(&a, host), ERR_SYNTAX);
	memset(label, 'x', 64);
	assert_int_equal(dns_name_from_text(slice(label, 63), &a), 0);
	assert_int_equal(dns_name_from_text(slice(label, 64), &a), ERR_LIMIT);
	memset(longest, 'y', sizeof(longest));
	for (size_t i = 1; i < sizeof(longest); i += 2)
		longest[i] = '.';
	assert_int_equal(dns_name_from_text(slice(longest, 253), &a), 0);
	assert_int_equal(a.n, 255);
	assert_int_equal(dns_name_host(&a, host), 0);
	assert_int_equal(strlen(host), 253);
	assert_int_equal(dns_name_from_text(slice(longest, 255), &a), ERR_LIMIT);
}

static void
test_name_read(void **state)
{
	struct dns_name a;
	size_t at;
	/* a pointer to itself, one forwards, two that point at each other, a reserved label type */
	static const unsigned char self[] = { 0xc0, 0x00 }, ahead[] = { 0xc0, 0x02, 0x00 };
	static const unsigned char loop[] = { 1, 'a', 0xc0, 0x04, 1, 'b', 0xc0, 0x00 };
	static const unsigned char reserved[] = { 0x40, 0x00 }, cut[] = { 3, 'a', 'b' };
	static const unsigned char good[] = { 1, 'B', 0, 1, 'a', 0xc0, 0x00, 9 };

	(void)state;
	at = 0;
	assert_int_equal(dns_name_read(slice(self, sizeof(self)), &at, &a), ERR_SYNTAX);
	at = 0;
	assert_int_equal(dns_name_read(slice(ahead, sizeof(ahead)), &at, &a), ERR_SYNTAX);
	at = 4;
	assert_int_equal(dns_name_read(slice(loop, sizeof(loop)), &at, &a), ERR_SYNTAX);
	at = 0;
	assert_int_equal(dns_name_read(slice(reserved, sizeof(reserved)), &at, &a), ERR_SYNTAX);
	at = 0;
	assert_int_equal(dns_name_read(slice(cut, sizeof(cut)), &at, &a), ERR_TRUNCATED);
	at = 0;
	assert_int_equal(dns_name_read(slice(cut, 0), &at, &a), ERR_TRUNCATED);
	at = 3;
	assert_int_equal(dns_name_read(slice(good, sizeof(good)), &at, &a), 0);
	assert_int_equal(at, 7);
	assert_true(slice_eq(dns_name_slice(&a), SLICE_LIT("\1a\1b\0")));
}

static void
test_name_pointer_chain(void **state)
{
	struct buf b = { 0 };
	struct dns_name a;
	size_t at;

	(void)state;
	buf_add_byte(&b, 0); /* the root, then 200 names that each point at the one before */
	size_t last = 0;
	for (int i = 0; i < 200; i++) {
		size_t here = buf_len(&b);

		buf_add(&b, SLICE_LIT("\1x"));
		put16(&b, 0xc000 | (unsigned)last);
		last = here;
	}
	at = last;
	assert_int_equal(dns_name_read(buf_slice(&b), &at, &a), ERR_LIMIT);
	buf_free(&b);
}

static void
test_name_reverse(void **state)
{
	struct dns_name a;
	char host[DNS_HOST_SIZE];
	static const unsigned char v4[4] = { 192, 0, 2, 7 }, v6[16] = { 0x20, 0x01, [15] = 0x0f };

	(void)state;
	dns_name_reverse(slice(v4, 4), &a);
	assert_int_equal(dns_name_host(&a, host), 0);
	assert_string_equal(host, "7.2.0.192.in-addr.arpa");
	dns_name_reverse(slice(v6, 16), &a);
	assert_int_equal(dns_name_host(&a, host), 0);
	assert_string_equal(
	    host, "f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.2.ip6.arpa");
}

/* --- messages --- */

static void
test_query(void **state)
{
	struct buf b = { 0 };
	struct dns_name name;
	static const unsigned char want[] = { 0xab, 0xcd, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1, 1, 'a',
		0, 0, 52, 0, 1, 0, 0, 41, 1232 >> 8, 1232 & 255, 0, 0, 0, 0, 0, 0 };

	(void)state;
	assert_int_equal(dns_name_from_text(SLICE_LIT("A"), &name), 0);
	dns_query_build(&b, 0xabcd, &name, DNS_TLSA);
	assert_true(slice_eq(buf_slice(&b), slice(want, sizeof(want))));
	buf_free(&b);
}

static void
test_mx(void **state)
{
	struct buf b = { 0 };
	struct dns_answer *a;

	(void)state;
	put_head(&b, "example.com", DNS_MX, 0x81a0, 5, 0);
	put_rr_name(&b, "EXAMPLE.com", DNS_MX, 300, 20, "b.example.com");
	put_rr_name(&b, "example.com", DNS_MX, 200, 10, "A.example.com");
	put_rr_name(&b, "other.com", DNS_MX, 1, 10, "evil.example.com");
	put_rr_name(&b, "example.com", DNS_MX, 5, 10, "x/y");
	put_rr(&b, "example.com", DNS_MX, 5, SLICE_LIT("\0\1"));
	a = parse(buf_slice(&b), "example.com", DNS_MX);
	assert_int_equal(a->status, DNS_OK);
	assert_true(a->secure);
	assert_int_equal(a->n, 2);
	assert_int_equal(a->ttl, 5);
	assert_string_equal(a->records[0].host, "b.example.com");
	assert_int_equal(a->records[0].preference, 20);
	assert_string_equal(a->records[1].host, "a.example.com");
	assert_string_equal(a->canonical, "example.com");
	free(a);

	put_head(&b, "odd.example", DNS_MX, 0x8180, 1, 0);
	put_rr_name(&b, "odd.example", DNS_MX, 70, 0, "x/y");
	a = parse(buf_slice(&b), "odd.example", DNS_MX);
	assert_int_equal(a->status, DNS_NODATA);
	assert_true(a->unusable);
	assert_int_equal(a->ttl, 70);
	free(a);

	put_head(&b, "null.example", DNS_MX, 0x8180, 1, 0);
	put_rr_name(&b, "null.example", DNS_MX, 0x80000001, 0, ".");
	a = parse(buf_slice(&b), "null.example", DNS_MX);
	assert_int_equal(a->n, 1);
	assert_string_equal(a->records[0].host, "");
	assert_int_equal(a->ttl, 0);
	assert_false(a->secure);
	free(a);
	buf_free(&b);
}

static void
test_types(void **state)
{
	struct buf b = { 0 };
	struct dns_answer *a;

	(void)state;
	put_head(&b, "h.example", DNS_AAAA, 0x8180, 2, 0);
	put_rr(&b, "h.example", DNS_AAAA, 9, SLICE_LIT("0123456789abcdef"));
	put_rr(&b, "h.example", DNS_AAAA, 9, SLICE_LIT("0123456789abcde"));
	a = parse(buf_slice(&b), "h.example", DNS_AAAA);
	assert_int_equal(a->n, 1);
	assert_true(slice_eq_str(a->records[0].data, "0123456789abcdef"));
	free(a);

	put_head(&b, "h.example", DNS_TXT, 0x8180, 2, 0);
	put_rr(&b, "h.example", DNS_TXT, 9, SLICE_LIT("\3v=s\0\4pf1 "));
	put_rr(&b, "h.example", DNS_TXT, 9, SLICE_LIT("\3v=s\4pf1"));
	a = parse(buf_slice(&b), "h.example", DNS_TXT);
	assert_int_equal(a->n, 1);
	assert_true(slice_eq_str(a->records[0].data, "v=spf1 "));
	free(a);

	put_head(&b, "_25._tcp.h.example", DNS_TLSA, 0x8180, 2, 0);
	put_rr(&b, "_25._tcp.h.example", DNS_TLSA, 9, SLICE_LIT("\3\1\1digest"));
	put_rr(&b, "_25._tcp.h.example", DNS_TLSA, 9, SLICE_LIT("\3\1\1"));
	a = parse(buf_slice(&b), "_25._tcp.h.example", DNS_TLSA);
	assert_int_equal(a->n, 1);
	assert_int_equal(a->records[0].usage, 3);
	assert_true(slice_eq_str(a->records[0].data, "digest"));
	free(a);

	put_head(&b, "7.2.0.192.in-addr.arpa", DNS_PTR, 0x8180, 2, 0);
	put_rr_name(&b, "7.2.0.192.in-addr.arpa", DNS_CNAME, 9, -1, "7.0/25.2.0.192.in-addr.arpa");
	put_rr_name(&b, "7.0/25.2.0.192.in-addr.arpa", DNS_PTR, 8, -1, "mail.example");
	a = parse(buf_slice(&b), "7.2.0.192.in-addr.arpa", DNS_PTR);
	assert_int_equal(a->n, 1);
	assert_string_equal(a->records[0].host, "mail.example");
	assert_string_equal(a->canonical, "");
	assert_int_equal(a->ttl, 8);
	free(a);
	buf_free(&b);
}

static void
test_alias_chains(void **state)
{
	struct buf b = { 0 };
	struct dns_answer *a;
	char from[16], to[16];

	(void)state;
	put_head(&b, "c.x", DNS_A, 0x8180, 3, 0); /* out of order */
	put_rr(&b, "a.x", DNS_A, 50, SLICE_LIT("1234"));
	put_rr_name(&b, "b.x", DNS_CNAME, 40, -1, "a.x");
	put_rr_name(&b, "c.x", DNS_CNAME, 60, -1, "b.x");
	a = parse(buf_slice(&b), "c.x", DNS_A);
	assert_int_equal(a->n, 1);
	assert_int_equal(a->ttl, 40);
	assert_string_equal(a->canonical, "a.x");
	free(a);

	put_head(&b, "a.x", DNS_A, 0x8180, 2, 0);
	put_rr_name(&b, "a.x", DNS_CNAME, 60, -1, "b.x");
	put_rr_name(&b, "b.x", DNS_CNAME, 60, -1, "a.x");
	a = parse(buf_slice(&b), "a.x", DNS_A);
	assert_int_equal(a->status, DNS_TEMPORARY);
	free(a);

	for (int links = 8; links <= 9; links++) {
		put_head(&b, "n0.x", DNS_A, 0x8180, (unsigned)links + 1, 0);
		for (int i = 0; i < links; i++) {
			snprintf(from, sizeof(from), "n%d.x", i);
			snprintf(to, sizeof(to), "n%d.x", i + 1);
			put_rr_name(&b, from, DNS_CNAME, 60, -1, to);
		}
		snprintf(to, sizeof(to), "n%d.x", links);
		put_rr(&b, to, DNS_A, 50, SLICE_LIT("1234"));
		a = parse(buf_slice(&b), "n0.x", DNS_A);
		assert_int_equal(a->status, links == 8 ? DNS_OK : DNS_TEMPORARY);
		free(a);
	}
	buf_free(&b);
}

static void
test_negative(void **state)
{
	struct buf b = { 0 }, soa = { 0 };
	struct dns_answer *a;

	(void)state;
	put_name(&soa, "ns.x");
	put_name(&soa, "hostmaster.x");
	buf_add(&soa, SLICE_LIT("\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\x1e"));
	put_head(&b, "no.x", DNS_A, 0x81a3, 0, 1);
	put_rr(&b, "x", DNS_SOA, 900, buf_slice(&soa));
	a = parse(buf_slice(&b), "no.x", DNS_A);
	assert_int_equal(a->status, DNS_NXDOMAIN);
	assert_int_equal(a->ttl, 30);
	assert_true(a->secure);
	free(a);

	put_head(&b, "no.x", DNS_A, 0x8180, 0, 1);
	put_rr(&b, "x", DNS_SOA, 7, buf_slice(&soa));
	a = parse(buf_slice(&b), "no.x", DNS_A);
	assert_int_equal(a->status, DNS_NODATA);
	assert_int_equal(a->ttl, 7);
	free(a);

	put_head(&b, "no.x", DNS_A, 0x8180, 0, 0);
	a = parse(buf_slice(&b), "no.x", DNS_A);
	assert_int_equal(a->status, DNS_NODATA);
	assert_int_equal(a->ttl, 0);
	free(a);
	for (unsigned rcode = 1; rcode < 16; rcode++) {
		if (rcode == 3)
			continue;
		put_head(&b, "no.x", DNS_A, 0x8180 | rcode, 0, 0);
		a = parse(buf_slice(&b), "no.x", DNS_A);
		assert_int_equal(a->status, DNS_TEMPORARY);
		free(a);
	}
	buf_free(&soa);
	buf_free(&b);
}

static void
test_refused_messages(void **state)
{
	struct buf b = { 0 };
	struct dns_answer *a;
	static const unsigned flags[] = { 0x0180, 0x8380 }; /* a query; a truncated answer */

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		put_head(&b, "h.x", DNS_A, flags[i], 1, 0);
		put_rr(&b, "h.x", DNS_A, 9, SLICE_LIT("1234"));
		a = parse(buf_slice(&b), "h.x", DNS_A);
		assert_int_equal(a->status, DNS_TEMPORARY);
		free(a);
	}
	put_head(&b, "h.x", DNS_A, 0x8180, 1, 0);
	put_rr(&b, "h.x", DNS_A, 9, SLICE_LIT("1234"));
	a = parse(buf_slice(&b), "g.x", DNS_A);
	assert_int_equal(a->status, DNS_TEMPORARY);
	free(a);
	a = parse(buf_slice(&b), "h.x", DNS_AAAA);
	assert_int_equal(a->status, DNS_TEMPORARY);
	free(a);
	/* cut at every byte: never more than it has, and only the whole is an answer */
	for (size_t n = 0; n <= buf_len(&b); n++) {
		a = parse(slice_sub(buf_slice(&b), 0, n), "h.x", DNS_A);
		assert_int_equal(a->status, n == buf_len(&b) ? DNS_OK : DNS_TEMPORARY);
		free(a);
	}
	buf_free(&b);
}

static void
test_many_records(void **state)
{
	struct buf b = { 0 };
	struct dns_answer *a;

	(void)state;
	for (unsigned n = DNS_RECORDS_MAX; n <= DNS_RECORDS_MAX + 1; n++) {
		put_head(&b, "h.x", DNS_A, 0x8180, n, 0);
		for (unsigned i = 0; i < n; i++)
			put_rr(&b, "h.x", DNS_A, 9, SLICE_LIT("1234"));
		a = parse(buf_slice(&b), "h.x", DNS_A);
		assert_int_equal(a->n, DNS_RECORDS_MAX);
		free(a);
	}
	put_head(&b, "h.x", DNS_A, 0x8180, 1001, 0);
	a = parse(buf_slice(&b), "h.x", DNS_A);
	assert_int_equal(a->status, DNS_TEMPORARY);
	free(a);
	buf_free(&b);
}

/* --- the cache and the site key --- */

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_name_text),
		cmocka_unit_test(test_name_read),
		cmocka_unit_test(test_name_pointer_chain),
		cmocka_unit_test(test_name_reverse),
		cmocka_unit_test(test_query),
		cmocka_unit_test(test_mx),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_alias_chains),
		cmocka_unit_test(test_negative),
		cmocka_unit_test(test_refused_messages),
		cmocka_unit_test(test_many_records),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
