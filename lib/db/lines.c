/*
 * The one reader of table text: logical lines and their keys. Runs in maps, in the tools and in the
 * delivery child (as the user, on the user's files). Input may be hostile; the result is never
 * longer than the input.
 */
#include "db/lines.h"

void
lines_init(struct lines *l, struct slice text)
{
	*l = (struct lines){ .text = text, .next = 1 };
}

void
lines_free(struct lines *l)
{
	buf_free(&l->joined);
}

static bool
is_blank(unsigned char c)
{
	return c == ' ' || c == '\t';
}

/* Cuts one physical line without its end. */
static struct slice
physical(struct lines *l)
{
	struct slice s = slice_split(&l->text, '\n');

	l->next++;
	if (s.n && s.p[s.n - 1] == '\r')
		s.n--;
	return s;
}

static bool
is_comment(struct slice s)
{
	s = slice_trim(s, true);
	return !s.n || s.p[0] == '#';
}

bool
lines_next(struct lines *l, struct slice *line_r)
{
	bool found = false;

	buf_clear(&l->joined);
	while (l->text.n) {
		struct lines saved = *l;
		struct slice s = physical(l);

		if (is_comment(s))
			continue;
		if (found && !is_blank(s.p[0])) {
			l->text = saved.text;
			l->next = saved.next;
			break;
		}
		if (!found)
			l->line = l->next - 1;
		else
			buf_add_byte(&l->joined, ' ');
		found = true;
		buf_add(&l->joined, slice_trim(s, true));
	}
	*line_r = buf_slice(&l->joined);
	return found;
}

int
lines_key(struct slice *line, bool colon, struct slice *key_r)
{
	bool quoted = false;
	size_t i;

	for (i = 0; i < line->n; i++) {
		unsigned char c = line->p[i];

		if (c == '\\' && quoted && i + 1 < line->n)
			i++;
		else if (c == '"')
			quoted = !quoted;
		else if (!quoted && (colon ? c == ':' : is_blank(c)))
			break;
	}
	if (quoted || (colon && i == line->n))
		return ERR_SYNTAX;
	*key_r = slice_trim(slice_sub(*line, 0, i), false);
	*line = slice_trim(slice_sub(*line, colon ? i + 1 : i, line->n), false);
	return key_r->n ? 0 : ERR_SYNTAX;
}
