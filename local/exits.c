/* What the end of a program means: exit codes, and status codes in what it printed. */
#include "local/exits.h"

#define CANNOT_RUN                                                                                 \
	"the program cannot be run: install it, or correct the alias or .forward that names it"

static const struct exit_meaning exits[] = {
	{ 64, RESULT_FAILED, "5.3.0", "command line usage error" },
	{ 65, RESULT_FAILED, "5.6.0", "data format error" },
	{ 66, RESULT_FAILED, "5.3.0", "cannot open input" },
	{ 67, RESULT_FAILED, "5.1.1", "user unknown" },
	{ 68, RESULT_FAILED, "5.1.2", "host name unknown" },
	{ 69, RESULT_FAILED, "5.3.0", "service unavailable" },
	{ 70, RESULT_FAILED, "5.3.0", "internal software error" },
	{ 71, RESULT_DEFERRED, "4.3.0", "system resource problem" },
	{ 72, RESULT_FAILED, "5.3.0", "critical file of the system is missing" },
	{ 73, RESULT_FAILED, "5.2.0", "cannot create the output file" },
	{ 74, RESULT_FAILED, "5.3.0", "input/output error" },
	{ 75, RESULT_DEFERRED, "4.3.0", "temporary failure" },
	{ 76, RESULT_FAILED, "5.5.0", "remote error in protocol" },
	{ 77, RESULT_FAILED, "5.7.0", "permission denied" },
	{ 78, RESULT_FAILED, "5.3.5", "local configuration error" },
	{ 126, RESULT_DEFERRED, "4.3.0", CANNOT_RUN },
	{ 127, RESULT_DEFERRED, "4.3.0", CANNOT_RUN },
};

const struct exit_meaning *
exit_meaning(unsigned code)
{
	for (size_t i = 0; i < sizeof(exits) / sizeof(*exits); i++)
		if (exits[i].code == code)
			return &exits[i];
	return NULL;
}

const char *
exit_printed(const char **output, enum result_status *status, struct arena *a)
{
	struct slice s = slice_str(*output), word = slice_split(&s, ' ');
	unsigned dots = 0;

	for (size_t i = 0; i < word.n; i++) {
		dots += word.p[i] == '.';
		if (word.p[i] != '.' && !ascii_is_digit(word.p[i]))
			return NULL;
	}
	if (dots != 2 || word.n < 5 || word.n > 11 || (word.p[0] != '4' && word.p[0] != '5') ||
	    word.p[1] != '.')
		return NULL;
	*status = word.p[0] == '4' ? RESULT_DEFERRED : RESULT_FAILED;
	*output += word.n;
	return arena_printf(a, "%.*s", SLICE_ARG(word));
}
