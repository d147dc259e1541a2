/*
 * The few names that an admin gives in dns_hosts. Runs in dns; read at start and reload, asked with
 * names that strangers choose.
 */
#include "hosts.h"

#include <arpa/inet.h>
#include <stdlib.h>

enum { TTL = 60, ADDRESSES_MAX = 16 };

struct host {
	struct hash_node node;
	struct dns_name name;
	size_t n4, n6;
	unsigned char v4[ADDRESSES_MAX][4], v6[ADDRESSES_MAX][16];
};

static struct host *
host_get(struct hosts *h, const struct dns_name *name)
{
	struct hash_node *node = hash_find(&h->by_name, dns_name_slice(name));
	struct host *host;

	if (node)
		return HASH_ELEMENT(node, struct host, node);
	host = xcalloc(1, sizeof(*host));
	host->name = *name;
	hash_insert(&h->by_name, &host->node, dns_name_slice(&host->name));
	return host;
}

static int
add(struct hosts *h, struct slice word)
{
	struct slice name = slice_split(&word, '=');
	struct dns_name wire;
	struct host *host;
	char text[64];
	unsigned char address[16];

	if (word.n > 2 && word.p[0] == '[' && word.p[word.n - 1] == ']')
		word = slice_sub(word, 1, word.n - 1);
	if (!name.n || dns_name_from_text(name, &wire) || slice_copy(word, text, sizeof(text)))
		return ERR_SYNTAX;
	if (inet_pton(AF_INET, text, address) == 1) {
		host = host_get(h, &wire);
		if (host->n4 == ADDRESSES_MAX)
			return ERR_LIMIT;
		memcpy(host->v4[host->n4++], address, 4);
		return 0;
	}
	if (inet_pton(AF_INET6, text, address) != 1)
		return ERR_SYNTAX;
	host = host_get(h, &wire);
	if (host->n6 == ADDRESSES_MAX)
		return ERR_LIMIT;
	memcpy(host->v6[host->n6++], address, 16);
	return 0;
}

int
hosts_load(struct hosts *h, const struct conf_list *list, const char **bad_r)
{
	if (add(h, SLICE_LIT("localhost=127.0.0.1")) || add(h, SLICE_LIT("localhost=::1")))
		die("localhost has no address");
	for (size_t i = 0; i < list->n; i++) {
		int err = add(h, slice_str(list->v[i]));

		if (err) {
			*bad_r = list->v[i];
			return err;
		}
	}
	return 0;
}

struct dns_answer *
hosts_answer(const struct hosts *h, const struct dns_name *name, enum dns_type type)
{
	struct hash_node *node = hash_find(&h->by_name, dns_name_slice(name));
	const struct host *host;

	if (!node)
		return NULL;
	host = HASH_ELEMENT(node, struct host, node);
	if (type == DNS_A)
		return dns_answer_addresses(name, host->v4[0], host->n4, 4, TTL);
	if (type == DNS_AAAA)
		return dns_answer_addresses(name, host->v6[0], host->n6, 16, TTL);
	return dns_answer_empty(DNS_NODATA, TTL);
}

void
hosts_free(struct hosts *h)
{
	struct hash_node *node = hash_next(&h->by_name, NULL);

	while (node) {
		struct hash_node *next = hash_next(&h->by_name, node);

		free(HASH_ELEMENT(node, struct host, node));
		node = next;
	}
	hash_free(&h->by_name);
}
