/*
 * From text to struct conf: every row of the table is looked up, expanded and parsed; a bad value
 * is reported with its place and replaced by the default. Runs in master and in the tools.
 * Invariant: what conf_eval returns is complete and within all bounds, whatever the text was.
 */
#include "conf/raw.h"

#include <stdio.h>
#include <stdlib.h>

/* A default of params.def is valid, or is an expansion of valid ones: the generator and a test see
 * to it. If it refers to a value that is bad, the row's own minimum or first word stands in. */
static void
set_default(struct conf *conf, const struct conf_param *param, struct raw_lookup *l)
{
	struct buf value = { .limit = CONF_VALUE_LIMIT };
	char why[CONF_WHY];
	struct slice text = slice_str(param->def);

	if (param->type == CONF_RAW ||
	    conf_expand(text, true, raw_lookup, l, &value, l->why) == 0) {
		if (param->type != CONF_RAW)
			text = buf_slice(&value);
		if (value_parse(conf, param, text, why) == 0)
			goto out;
	}
	switch (param->type) {
	case CONF_STRING:
	case CONF_RAW:
		*(const char **)((char *)conf + param->offset) = "";
		break;
	case CONF_INT:
	case CONF_SIZE:
	case CONF_TIME:
		*(int64_t *)((char *)conf + param->offset) = param->min;
		break;
	default:
		break; /* zero: no, the first word, an empty list */
	}
out:
	buf_free(&value);
}

static void
eval_param(struct conf *conf, const struct conf_param *param, struct raw_lookup *l,
    struct conf_problems *p)
{
	struct buf value = { .limit = CONF_VALUE_LIMIT };
	const char *file, *text;
	unsigned line;
	int err;

	text = raw_text(l, slice_str(param->name), &file, &line);
	l->chain = NULL;
	l->steps = 0;
	l->why[0] = '\0';
	if (param->type == CONF_RAW)
		err = buf_add_str(&value, text);
	else
		err = raw_lookup(l, slice_str(param->name), &value);
	if (!err)
		err = value_parse(conf, param, buf_slice(&value), l->why);
	if (err) {
		/* a default that refers to a bad value is not reported again */
		if (file)
			conf_problem(p, file, line, NULL, "%s = %.60s: %s", param->name, text,
			    l->why[0] ? l->why : err_str(err));
		l->chain = NULL;
		l->steps = 0;
		set_default(conf, param, l);
	}
	buf_free(&value);
}

struct conf *
conf_eval(const struct conf_raw *raw, const struct conf_override *overrides, size_t n,
    struct conf_problems *p)
{
	struct conf *conf = xcalloc(1, sizeof(*conf));
	char why[CONF_WHY];
	struct raw_lookup l = { .raw = raw, .overrides = overrides, .overrides_n = n, .why = why };
	size_t i;

	conf->mem = xcalloc(1, sizeof(*conf->mem));
	for (i = 0; i < CONF_PARAM_COUNT; i++)
		eval_param(conf, &conf_params[i], &l, p);
	conf_check_values(conf, &l, p);
	return conf;
}

void
conf_free(struct conf **conf)
{
	if (!*conf)
		return;
	arena_free(&(*conf)->mem->arena);
	free((*conf)->mem);
	free(*conf);
	*conf = NULL;
}

bool
conf_list_has(const struct conf_list *list, struct slice value)
{
	size_t i;

	for (i = 0; i < list->n; i++)
		if (slice_eq_str(value, list->v[i]))
			return true;
	return false;
}

bool
conf_list_has_domain(const struct conf_list *list, struct slice domain)
{
	size_t i;

	for (i = 0; i < list->n; i++)
		if (slice_caseeq_str(domain, list->v[i]))
			return true;
	return false;
}
