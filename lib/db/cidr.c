/*
 * cidr tables: "net/len value", "!net/len value", if/endif. Runs in maps and the tools on files of
 * the admin; keys are addresses as text. The first rule that matches counts.
 */
#include "db/lines.h"
#include "db/type.h"

#include <arpa/inet.h>
#include <stdlib.h>

struct rule {
	int family;
	unsigned bits;
	unsigned char net[16];
	struct slice value;
};

struct cidr {
	struct arena arena;
	struct db_rules order;
	struct rule *rules;
};

static int
address_parse(struct slice s, unsigned char addr[16], int *family_r)
{
	char text[INET6_ADDRSTRLEN];

	if (s.n > 2 && s.p[0] == '[' && s.p[s.n - 1] == ']')
		s = slice_sub(s, 1, s.n - 1);
	if (slice_copy(s, text, sizeof(text)))
		return ERR_SYNTAX;
	*family_r = slice_find(s, ':') >= 0 ? AF_INET6 : AF_INET;
	return inet_pton(*family_r, text, addr) == 1 ? 0 : ERR_SYNTAX;
}

static bool
net_matches(const struct rule *r, const unsigned char addr[16], int family)
{
	unsigned whole = r->bits / 8, rest = r->bits % 8;

	if (family != r->family || memcmp(addr, r->net, whole))
		return false;
	return !rest || !((addr[whole] ^ r->net[whole]) >> (8 - rest));
}

static const char *
net_parse(struct slice s, struct rule *r)
{
	bool sized = slice_find(s, '/') >= 0;
	struct slice addr = slice_split(&s, '/');
	struct rule whole;
	uint64_t bits;

	if (address_parse(addr, r->net, &r->family))
		return "is not an address or network: write it as 192.0.2.0/24 or 2001:db8::/32";
	bits = r->family == AF_INET ? 32 : 128;
	if (sized && slice_u64(s, bits, &bits))
		return "has a bad length of prefix";
	r->bits = (unsigned)bits;
	whole = *r;
	memset(whole.net, 0, sizeof(whole.net));
	for (unsigned i = 0; i < r->bits; i++)
		whole.net[i / 8] |= r->net[i / 8] & (0x80 >> i % 8);
	return memcmp(whole.net, r->net, sizeof(r->net)) ? "has bits set behind the prefix" : NULL;
}

static const char *
rule_parse(void *ctx, size_t i, struct db_flow *flow, struct slice line)
{
	struct cidr *t = ctx;
	struct rule *r;
	struct slice key;
	const char *wrong;

	if (!(i & (i - 1)))
		t->rules = xrealloc(t->rules, (i ? i * 2 : 1) * sizeof(*r));
	r = &t->rules[i];
	*r = (struct rule){ 0 };
	if (lines_key(&line, false, &key))
		return "has no network";
	if (slice_caseeq_str(key, "endif")) {
		flow->kind = FLOW_ENDIF;
		return NULL;
	}
	if (slice_caseeq_str(key, "if")) {
		flow->kind = FLOW_IF;
		if (lines_key(&line, false, &key))
			return "has no network behind if";
	}
	if (key.p[0] == '!') {
		flow->negated = true;
		key = slice_sub(key, 1, key.n);
	}
	if (!key.n && lines_key(&line, false, &key))
		return "has no network behind !";
	wrong = net_parse(key, r);
	if (!wrong && flow->kind == FLOW_VALUE && !line.n)
		wrong = "has no value";
	r->value = arena_dup(&t->arena, line);
	return wrong;
}

static void
cidr_unload(void *state)
{
	struct cidr *t = state;

	free(t->order.flow);
	free(t->rules);
	arena_free(&t->arena);
	free(t);
}

static int
cidr_load(const struct db_source *src, void **state_r, struct buf *why)
{
	struct cidr *t = xcalloc(1, sizeof(*t));
	int err = db_rules_read(&t->order, src, rule_parse, t, why);

	if (err)
		cidr_unload(t);
	else
		*state_r = t;
	return err;
}

static int
cidr_get(const void *state, struct slice key, struct buf *value)
{
	const struct cidr *t = state;
	unsigned char addr[16] = { 0 };
	int family;

	if (address_parse(key, addr, &family))
		return ERR_NOT_FOUND;
	for (size_t i = 0; i < t->order.n; i++) {
		const struct db_flow *flow = &t->order.flow[i];

		if (flow->kind == FLOW_ENDIF)
			continue;
		if (net_matches(&t->rules[i], addr, family) != flow->negated) {
			if (flow->kind == FLOW_VALUE)
				return buf_add(value, t->rules[i].value);
		} else if (flow->kind == FLOW_IF) {
			i = flow->end;
		}
	}
	return ERR_NOT_FOUND;
}

const struct db_type db_cidr = { "cidr", DB_PATTERN, "", true, cidr_load, cidr_get, cidr_unload,
	NULL };
