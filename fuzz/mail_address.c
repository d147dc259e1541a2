/* Fuzz target: envelope addresses, header address lists, dates, header fields, parameters. Checked:
 * what is accepted holds no control character and reads the same again in its canonical form. */
#include "mail/address.h"
#include "mail/address_list.h"
#include "mail/date.h"
#include "mail/header.h"
#include "smtp/params.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
try_address(struct slice s, unsigned flags)
{
	char once[ADDRESS_BUF_SIZE], twice[ADDRESS_BUF_SIZE];

	if (address_normalise(s, flags, once))
		return;
	for (const char *p = once; *p; p++)
		if ((unsigned char)*p < 32 || *p == 127)
			abort();
	if (address_normalise(slice_str(once), flags, twice) || strcmp(once, twice))
		abort();
}

static void
try_list(struct slice s)
{
	struct arena arena = { 0 };
	struct address_list list;
	struct address_entry *e;
	struct buf out;

	buf_init(&out, 0);
	if (address_list_parse(s, &arena, 50, &list) && list.count != 50)
		abort();
	STAILQ_FOREACH(e, &list.entries, next)
		address_entry_mailbox(e, &out);
	buf_free(&out);
	arena_free(&arena);
}

static void
try_header(struct slice s)
{
	struct header_scan scan = { .field_limit = 100, .count_limit = 10 };
	struct header_field f;
	struct slice rest = s;
	struct buf out;
	size_t before;

	buf_init(&out, 0);
	do {
		before = rest.n;
		if (header_next(&rest, &f) == HEADER_FIELD) {
			header_unfold(f.body, &out);
			header_add(&out, "X", f.body);
			header_add_phrase(&out, f.body);
		}
	} while (rest.n && rest.n < before);
	header_scan_feed(&scan, s);
	header_scan_end(&scan);
	buf_free(&out);
}

static void
try_date(struct slice s)
{
	char text[DATE_BUF_SIZE];
	int64_t t, again;
	int zone, same;

	if (date_parse(s, &t, &zone) || t > (int64_t)9000 * 366 * 86400)
		return;
	date_format(t, zone, text);
	if (date_parse(slice_str(text), &again, &same) || again != t || same != zone)
		abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice s = slice(data, size), path = s;
	struct address a;
	struct smtp_param p;
	struct buf out;

	try_address(s, 0);
	try_address(s, ADDRESS_UTF8 | ADDRESS_NO_DOMAIN);
	(void)!address_parse_path(&path, ADDRESS_UTF8, &a);
	try_list(s);
	try_header(s);
	try_date(s);
	while (!smtp_param_next(&s, true, &p))
		(void)dsn_orcpt_valid(p.value);
	buf_init(&out, 0);
	(void)!xtext_decode(&out, slice(data, size));
	buf_free(&out);
	return 0;
}
