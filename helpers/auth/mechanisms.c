/* Mechanisms of a server that can be used, and for whom a login asks to act. */
#include "helpers/auth/mechanisms.h"

#include "base/buf.h"

char *
mechanisms_usable(const struct conf_list *wanted, struct slice announced)
{
	struct buf b = { 0 };
	char *names;

	while (announced.n) {
		struct slice name = slice_split(&announced, ' ');
		bool allowed = !wanted->n;
		for (size_t i = 0; i < wanted->n; i++)
			if (slice_caseeq_str(name, wanted->v[i]))
				allowed = true;
		if (allowed && name.n && !slice_has_casesuffix(name, "-PLUS"))
			buf_addf(&b, "%s%.*s", buf_len(&b) ? " " : "", SLICE_ARG(name));
	}
	names = slice_dup(buf_slice(&b));
	buf_free(&b);
	return names;
}

bool
mechanisms_plain_acts_as_other(struct slice response, const char *authcid)
{
	struct slice authzid = slice_split(&response, 0);

	return authzid.n && !slice_eq_str(authzid, authcid);
}
