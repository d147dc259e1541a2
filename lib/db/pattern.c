/*
 * regexp and pcre tables, both on PCRE2: "/pattern/flags value", "!/pattern/flags value", if/endif.
 * Runs in maps and the tools on files of the admin; keys come from strangers, so each match has a
 * limit of steps and of memory, and a rule that exceeds it makes the answer ERR_LIMIT, temporary.
 * $1, ${1} and
 * $(1) in a value stand for groups, $$ for a dollar; tables that give commands may not have them.
 */
#include "db/lines.h"
#include "db/type.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

enum {
	MATCH_LIMIT = 100000,  /* steps of one match */
	HEAP_LIMIT = 4096,     /* KiB of one match */
	PATTERN_LIMIT = 65536, /* bytes of one pattern, compiled from a file of the admin */
	RESULT_LIMIT = 65536,  /* bytes of one value after expansion */
	GROUPS_LIMIT = 99,     /* of one pattern: more would leave every $1 empty */
};

struct rule {
	pcre2_code *code;
	uint32_t groups;
	struct slice value;
};

struct patterns {
	struct arena arena;
	struct db_rules order;
	struct rule *rules; /* as many as order has */
	bool pcre, no_expand;
	pcre2_match_context *limits;
	pcre2_match_data *match;
};

/* Flags of a pcre rule; each one toggles. regexp knows i, m and x, where x means what it always
 * has. */
static uint32_t
flag_bit(unsigned char c)
{
	switch (c) {
	case 'i':
		return PCRE2_CASELESS;
	case 'm':
		return PCRE2_MULTILINE;
	case 's':
		return PCRE2_DOTALL;
	case 'x':
		return PCRE2_EXTENDED;
	case 'A':
		return PCRE2_ANCHORED;
	case 'E':
		return PCRE2_DOLLAR_ENDONLY;
	case 'U':
		return PCRE2_UNGREEDY;
	default:
		return 0;
	}
}

/* The length of a $reference at the head of s and its number; 0 if it is none. All digits count:
 * $12 is group 12, as elsewhere, not group 1 and a 2. */
static size_t
reference(struct slice s, unsigned *number_r)
{
	unsigned char close = s.n < 2 ? 0 : s.p[1] == '{' ? '}' : s.p[1] == '(' ? ')' : 0;
	size_t from = close ? 2 : 1, at = from;
	unsigned n = 0;

	while (at < s.n && ascii_is_digit(s.p[at]) && at < from + 3)
		n = n * 10 + (unsigned)(s.p[at++] - '0');
	if (at == from || !n || (at < s.n && ascii_is_digit(s.p[at])))
		return 0;
	if (close && (at == s.n || s.p[at++] != close))
		return 0;
	*number_r = n;
	return at;
}

static const char *
value_check(struct slice value, uint32_t groups, bool negated, bool no_expand)
{
	for (size_t i = 0; i < value.n; i++) {
		unsigned n;
		size_t len;

		if (value.p[i] != '$')
			continue;
		if (i + 1 < value.n && value.p[i + 1] == '$') {
			i++;
			continue;
		}
		len = reference(slice_sub(value, i, value.n), &n);
		if (!len)
			return "has a $ that is neither $1, ${1} nor $$";
		if (no_expand)
			return "expands $, which this table may not: its values name commands or "
			       "files";
		if (negated || n > groups)
			return "refers to a group that the pattern does not have";
		i += len - 1;
	}
	return NULL;
}

static const char *
compile(struct rule *r, struct slice pattern, uint32_t options)
{
	pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
	int code;
	PCRE2_SIZE at;

	if (!ctx)
		die("out of memory in PCRE2");
	pcre2_set_max_pattern_length(ctx, PATTERN_LIMIT);
	r->code =
	    pcre2_compile(pattern.p, pattern.n, options | PCRE2_NEVER_BACKSLASH_C, &code, &at, ctx);
	pcre2_compile_context_free(ctx);
	if (!r->code)
		return "has a pattern that PCRE2 does not accept";
	pcre2_pattern_info(r->code, PCRE2_INFO_CAPTURECOUNT, &r->groups);
	return r->groups > GROUPS_LIMIT ? "has a pattern with more than 99 groups" : NULL;
}

/* The end of the bracket expression that begins at i. */
static size_t
bracket_end(struct slice s, size_t i)
{
	i++;
	i += i < s.n && s.p[i] == '^';
	i += i < s.n && s.p[i] == ']';
	for (; i < s.n && s.p[i] != ']'; i++)
		if (s.p[i] == '[' && i + 1 < s.n && s.p[i + 1] == ':') {
			ptrdiff_t close = slice_find(slice_sub(s, i, s.n), ']');

			i += close > 0 ? (size_t)close : 0;
		}
	return i < s.n ? i + 1 : s.n;
}

/* The ends of words, \< and \> of regexp(3), as PCRE2 spells them. */
static void
spell_words(struct slice s, struct buf *out)
{
	for (size_t i = 0; i < s.n;) {
		size_t end = s.p[i] == '[' ? bracket_end(s, i) : i + 1 + (s.p[i] == '\\');
		struct slice part = slice_sub(s, i, end);

		if (slice_eq_str(part, "\\<") || slice_eq_str(part, "\\>"))
			buf_addf(out, "[[:%c:]]", part.p[1]);
		else
			buf_add(out, part);
		i = end;
	}
}

/* Reads [!]/pattern/flags off the line. */
static const char *
pattern_parse(struct rule *r, struct db_flow *flow, struct slice *line, bool pcre)
{
	uint32_t options = PCRE2_CASELESS | (pcre ? PCRE2_DOTALL : 0), bit;
	struct slice s = *line, pattern;
	struct buf spelt = { 0 };
	const char *wrong;
	unsigned char delimiter;
	size_t i, end;

	while (s.n && s.p[0] == '!') {
		flow->negated = !flow->negated;
		s = slice_trim(slice_sub(s, 1, s.n), false);
	}
	if (!s.n || ascii_is_alnum(s.p[0]) || s.p[0] == '\\')
		return "has no /pattern/";
	delimiter = s.p[0];
	for (end = 1; end < s.n && s.p[end] != delimiter; end++)
		if (s.p[end] == '\\')
			end++;
	if (end >= s.n)
		return "has no end of the pattern";
	for (i = end + 1; i < s.n && s.p[i] != ' ' && s.p[i] != '\t'; i++) {
		bit = flag_bit(s.p[i]);
		if (!bit || (!pcre && bit != PCRE2_CASELESS && bit != PCRE2_MULTILINE &&
				bit != PCRE2_EXTENDED))
			return "has an unknown flag behind the pattern";
		if (!pcre && bit == PCRE2_EXTENDED)
			continue; /* extended syntax is what regexp has anyway */
		options ^= bit;
	}
	*line = slice_trim(slice_sub(s, i, s.n), false);
	pattern = slice_sub(s, 1, end);
	if (!pcre && pattern.n) {
		spell_words(pattern, &spelt);
		pattern = buf_slice(&spelt);
	}
	wrong = compile(r, pattern, options);
	buf_free(&spelt);
	return wrong;
}

static const char *
rule_parse(void *ctx, size_t i, struct db_flow *flow, struct slice line)
{
	struct patterns *t = ctx;
	struct rule *r;
	const char *wrong;

	if (!(i & (i - 1)))
		t->rules = xrealloc(t->rules, (i ? i * 2 : 1) * sizeof(*r));
	r = &t->rules[i];
	*r = (struct rule){ 0 };
	if (slice_caseeq_str(line, "endif")) {
		flow->kind = FLOW_ENDIF;
		return NULL;
	}
	if (slice_has_caseprefix(line, "if") && line.n > 2 && !ascii_is_alnum(line.p[2])) {
		flow->kind = FLOW_IF;
		line = slice_trim(slice_sub(line, 2, line.n), false);
	}
	wrong = pattern_parse(r, flow, &line, t->pcre);
	if (!wrong && flow->kind == FLOW_VALUE && !line.n)
		wrong = "has no value";
	if (!wrong)
		wrong = value_check(line, r->groups, flow->negated, t->no_expand);
	r->value = arena_dup(&t->arena, line);
	return wrong;
}

static void
patterns_unload(void *state)
{
	struct patterns *t = state;

	for (size_t i = 0; i < t->order.n; i++)
		pcre2_code_free(t->rules[i].code);
	pcre2_match_data_free(t->match);
	pcre2_match_context_free(t->limits);
	free(t->order.flow);
	free(t->rules);
	arena_free(&t->arena);
	free(t);
}

static int
patterns_load(const struct db_source *src, void **state_r, struct buf *why, bool pcre)
{
	struct patterns *t = xcalloc(1, sizeof(*t));
	int err;

	t->pcre = pcre;
	t->no_expand = src->flags & DB_NO_EXPAND;
	t->limits = pcre2_match_context_create(NULL);
	t->match = pcre2_match_data_create(GROUPS_LIMIT + 1, NULL);
	if (!t->limits || !t->match)
		die("out of memory in PCRE2");
	pcre2_set_match_limit(t->limits, MATCH_LIMIT);
	pcre2_set_heap_limit(t->limits, HEAP_LIMIT);
	err = db_rules_read(&t->order, src, rule_parse, t, why);
	if (err)
		patterns_unload(t);
	else
		*state_r = t;
	return err;
}

static int
regexp_load(const struct db_source *src, void **state_r, struct buf *why)
{
	return patterns_load(src, state_r, why, false);
}

static int
pcre_load(const struct db_source *src, void **state_r, struct buf *why)
{
	return patterns_load(src, state_r, why, true);
}

/* Writes the value with its references replaced; value_check has seen them all. */
static int
expand(
    const struct rule *r, struct slice key, const PCRE2_SIZE *at, uint32_t pairs, struct buf *value)
{
	size_t start = buf_len(value);

	for (size_t i = 0; i < r->value.n; i++) {
		unsigned n = 0;

		if (r->value.p[i] != '$') {
			buf_add_byte(value, r->value.p[i]);
			continue;
		}
		if (i + 1 < r->value.n && r->value.p[i + 1] == '$') {
			buf_add_byte(value, '$');
			i++;
			continue;
		}
		i += reference(slice_sub(r->value, i, r->value.n), &n) - 1;
		if (n < pairs && at[2 * n] != PCRE2_UNSET)
			buf_add(value, slice_sub(key, at[2 * n], at[2 * n + 1]));
		if (buf_len(value) - start > RESULT_LIMIT)
			return ERR_LIMIT;
	}
	return value->err;
}

static int
patterns_get(const void *state, struct slice key, struct buf *value)
{
	const struct patterns *t = state;

	for (size_t i = 0; i < t->order.n; i++) {
		const struct db_flow *flow = &t->order.flow[i];
		const struct rule *r = &t->rules[i];
		int pairs;

		if (flow->kind == FLOW_ENDIF)
			continue;
		pairs = pcre2_match(
		    r->code, key.p ? key.p : (PCRE2_SPTR) "", key.n, 0, 0, t->match, t->limits);
		if (pairs < 0 && pairs != PCRE2_ERROR_NOMATCH)
			return ERR_LIMIT;
		if ((pairs >= 0) != flow->negated) {
			if (flow->kind == FLOW_VALUE)
				return expand(r, key, pcre2_get_ovector_pointer(t->match),
				    pairs > 0 ? (uint32_t)pairs : 0, value);
		} else if (flow->kind == FLOW_IF) {
			i = flow->end;
		}
	}
	return ERR_NOT_FOUND;
}

const struct db_type db_regexp = { "regexp", DB_PATTERN, "", true, regexp_load, patterns_get,
	patterns_unload, NULL };
const struct db_type db_pcre = { "pcre", DB_PATTERN, "", true, pcre_load, patterns_get,
	patterns_unload, NULL };
