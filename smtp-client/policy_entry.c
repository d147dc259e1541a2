/* Entries of smtp_tls_policy_maps. */
#include "sender.h"

static const char *const level_names[] = {
	[CONF_TLS_LEVEL_NONE] = "none",
	[CONF_TLS_LEVEL_MAY] = "may",
	[CONF_TLS_LEVEL_ENCRYPT] = "encrypt",
	[CONF_TLS_LEVEL_DANE] = "dane",
	[CONF_TLS_LEVEL_DANE_ONLY] = "dane-only",
	[CONF_TLS_LEVEL_FINGERPRINT] = "fingerprint",
	[CONF_TLS_LEVEL_VERIFY] = "verify",
	[CONF_TLS_LEVEL_SECURE] = "secure",
};
enum { LEVEL_COUNT = sizeof(level_names) / sizeof(*level_names) };

const char *
policy_entry(struct policy *p, struct slice value, struct arena *a)
{
	struct slice word = slice_split(&value, ' ');
	int level = 0;

	while (level < LEVEL_COUNT && !slice_caseeq_str(word, level_names[level]))
		level++;
	if (level == LEVEL_COUNT)
		return "does not begin with a TLS level";
	if (level == CONF_TLS_LEVEL_DANE || level == CONF_TLS_LEVEL_DANE_ONLY)
		return "wants DANE, which is not there yet; use encrypt, verify or secure";
	p->level = level;
	p->match = SLICE_NULL;
	p->separator = level == CONF_TLS_LEVEL_FINGERPRINT ? '|' : ':';
	while (value.n) {
		word = slice_split(&value, ' ');
		if (!word.n)
			continue;
		if (!slice_has_caseprefix(word, "match="))
			return "has an attribute other than match=";
		word = slice_sub(word, 6, word.n);
		p->match = slice_str(arena_printf(a, "%.*s%s%.*s", SLICE_ARG(p->match),
		    p->match.n ? (char[]){ p->separator, 0 } : "", SLICE_ARG(word)));
	}
	if (level == CONF_TLS_LEVEL_FINGERPRINT && !p->match.n)
		return "names no fingerprint; add match= and the SHA-256 of the certificate";
	return NULL;
}
