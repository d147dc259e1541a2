/*
 * What cidr, regexp and pcre tables share: one rule a logical line, if and endif around others.
 * Runs in maps and the tools on files of the admin. One bad rule refuses the table: a rule left out
 * would change the meaning of those behind it.
 */
#include "db/lines.h"
#include "db/type.h"

enum { NESTING_LIMIT = 16 };

/* An if without its endif would swallow the rest. */
static const char *
pair(struct db_rules *rules)
{
	size_t open[NESTING_LIMIT], depth = 0;

	for (size_t i = 0; i < rules->n; i++) {
		if (rules->flow[i].kind == FLOW_IF) {
			if (depth == NESTING_LIMIT)
				return "if is nested too deeply";
			open[depth++] = i;
		} else if (rules->flow[i].kind == FLOW_ENDIF) {
			if (!depth)
				return "endif stands without if";
			rules->flow[open[--depth]].end = i;
		}
	}
	return depth ? "if stands without endif" : NULL;
}

int
db_rules_read(struct db_rules *rules, const struct db_source *src, db_rule_fn *rule, void *ctx,
    struct buf *why)
{
	const char *wrong = NULL;
	struct lines l;
	struct slice line;

	lines_init(&l, src->text);
	while (!wrong && lines_next(&l, &line)) {
		size_t i = rules->n;

		if (i == DB_RULES_LIMIT) {
			wrong = "is one rule too many";
			break;
		}
		if (!(i & (i - 1)))
			rules->flow = xrealloc(rules->flow, (i ? i * 2 : 1) * sizeof(*rules->flow));
		rules->flow[i] = (struct db_flow){ 0 };
		rules->n++;
		wrong = rule(ctx, i, &rules->flow[i], line);
	}
	lines_free(&l);
	if (wrong)
		buf_addf(why, "%s: line %u %s\n", src->spec, l.line, wrong);
	else if ((wrong = pair(rules)))
		buf_addf(why, "%s: %s\n", src->spec, wrong);
	return wrong ? ERR_SYNTAX : 0;
}
