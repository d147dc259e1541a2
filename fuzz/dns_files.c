/*
 * Fuzz target: resolv.conf(5) (first byte even), and the words of dns_hosts, asked for themselves
 * (odd). Checked: there is a resolver whatever the file says, what is handed to c-ares is one line
 * of addresses, and each name that was given has the addresses that were given.
 */
#include "fuzz/must.h"
#include "helpers/dns/hosts.h"
#include "helpers/dns/servers.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
resolv_conf(struct slice in)
{
	struct servers s = { 0 };
	struct slice csv;

	servers_parse_resolv_conf(&s, in);
	csv = buf_slice(&s.csv);
	must(s.n && s.n <= SERVERS_MAX && csv.n > 1 && !csv.p[csv.n - 1]);
	for (size_t i = 0; i + 1 < csv.n; i++)
		must(slice_find(SLICE_LIT("0123456789abcdefABCDEF.:[],"), (char)csv.p[i]) >= 0);
	for (size_t i = 0; i < s.n; i++)
		must(s.ports[i]);
	servers_free(&s);
}

static void
names(struct slice in)
{
	struct hosts h = { 0 };
	const char *words[8], *bad;
	char text[8][300];
	struct conf_list list = { .v = words };

	while (in.n && list.n < 8) {
		struct slice word = slice_split(&in, '\n');

		if (slice_copy(word, text[list.n], sizeof(text[0])))
			continue;
		words[list.n] = text[list.n];
		list.n++;
	}
	if (!hosts_load(&h, &list, &bad))
		for (size_t i = 0; i < list.n; i++) {
			struct slice rest = slice_str(words[i]), name = slice_split(&rest, '=');
			struct dns_answer *a[2];
			struct dns_name wire;

			must(!dns_name_from_text(name, &wire));
			a[0] = hosts_answer(&h, &wire, DNS_A);
			a[1] = hosts_answer(&h, &wire, DNS_AAAA);
			must(a[0] && a[1] && (a[0]->n || a[1]->n));
			free(a[0]);
			free(a[1]);
		}
	hosts_free(&h);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size)
		(data[0] % 2 ? names : resolv_conf)(slice(data + 1, size - 1));
	return 0;
}
