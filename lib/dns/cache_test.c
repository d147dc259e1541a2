/* Unit tests of the cache of answers, and of what makes the key of a site. */
#include "dns/cache.h"
#include "dns/site.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct dns_name
name_of(int i)
{
	struct dns_name name;
	char text[32];

	snprintf(text, sizeof(text), "n%d.example", i);
	assert_int_equal(dns_name_from_text(slice_str(text), &name), 0);
	return name;
}

static void
test_cache(void **state)
{
	struct dns_cache *c = dns_cache_new(10, 1 << 20);
	struct dns_name n1 = name_of(1);
	const struct dns_answer *a;

	(void)state;
	assert_null(dns_cache_get(c, &n1, DNS_A, 0));
	dns_cache_put(c, &n1, DNS_A, dns_answer_empty(DNS_NXDOMAIN, 10), 100);
	assert_null(dns_cache_get(c, &n1, DNS_MX, 100));
	a = dns_cache_get(c, &n1, DNS_A, 109);
	assert_non_null(a);
	assert_int_equal(a->status, DNS_NXDOMAIN);
	assert_null(dns_cache_get(c, &n1, DNS_A, 110));
	assert_int_equal(dns_cache_count(c), 0);
	dns_cache_put(c, &n1, DNS_A, dns_answer_empty(DNS_NXDOMAIN, 10), 100);
	dns_cache_put(c, &n1, DNS_A, dns_answer_empty(DNS_NODATA, 10), 100);
	assert_int_equal(dns_cache_get(c, &n1, DNS_A, 100)->status, DNS_NODATA);
	dns_cache_put(c, &n1, DNS_A, dns_answer_empty(DNS_TEMPORARY, 0), 100);
	assert_int_equal(dns_cache_count(c), 0);
	for (int i = 0; i < 30; i++) {
		struct dns_name n = name_of(i);

		dns_cache_put(c, &n, DNS_A, dns_answer_empty(DNS_NODATA, 60), 0);
		if (i >= 1)
			assert_non_null(dns_cache_get(c, &n1, DNS_A, 0)); /* in use: stays */
		assert_true(dns_cache_count(c) <= 10);
	}
	dns_cache_free(&c);
	assert_null(c);
	c = dns_cache_new(1000, 2000);
	for (int i = 0; i < 30; i++) {
		struct dns_name n = name_of(i);

		dns_cache_put(c, &n, DNS_A, dns_answer_empty(DNS_NODATA, 60), 0);
	}
	assert_in_range(dns_cache_count(c), 1, 6);
	dns_cache_free(&c);
}

static void
test_site(void **state)
{
	const char *a[] = { "mx1.example", "mx2.example" },
		   *b[] = { "MX2.example", "mx1.example", "mx2.EXAMPLE" };
	const char *joined[] = { "mx1.examplemx2.example" }, *other[] = { "mx1.example" };

	(void)state;
	unsigned char ka[DNS_SITE_SIZE], kb[DNS_SITE_SIZE];
	/* the first 16 bytes of SHA-256("mx1.example\n"): stable over runs and versions */
	static const unsigned char one[] = { 0x0d, 0x69, 0x86, 0xac, 0x38, 0x95, 0x95, 0x86, 0x33,
		0xf3, 0x47, 0xb4, 0x50, 0xd8, 0x6d, 0xdc };

	dns_site_key(a, 2, ka);
	dns_site_key(b, 3, kb);
	assert_memory_equal(ka, kb, DNS_SITE_SIZE);
	dns_site_key(joined, 1, kb);
	assert_memory_not_equal(ka, kb, DNS_SITE_SIZE);
	dns_site_key(other, 1, kb);
	assert_memory_equal(kb, one, DNS_SITE_SIZE);
	dns_site_key(a, 0, kb);
	assert_memory_not_equal(ka, kb, DNS_SITE_SIZE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cache),
		cmocka_unit_test(test_site),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
