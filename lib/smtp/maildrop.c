/*
 * The format of maildrop files. Written by sendmail(1) as the user who calls it, read by pickup as
 * bh-pickup: every byte is hostile there. Invariant: a value that maildrop_parse returns holds no
 * NUL, CR or LF.
 */
#include "smtp/maildrop.h"

#include "smtp/params.h"

#define MAGIC "bulkhead-maildrop 1"

static int
add_line(struct buf *out, const char *keyword, struct slice value)
{
	if (slice_find(value, '\n') >= 0 || slice_find(value, '\0') >= 0 ||
	    slice_find(value, '\r') >= 0)
		return ERR_SYNTAX;
	buf_add_str(out, keyword);
	buf_add_byte(out, ' ');
	buf_add(out, value);
	buf_add_byte(out, '\n');
	return 0;
}

int
maildrop_format(struct buf *out, const struct maildrop *m)
{
	struct buf notify = { 0 };
	int err;

	buf_add_str(out, MAGIC "\n");
	err = add_line(out, "sender", m->sender);
	for (size_t i = 0; !err && i < m->count; i++)
		err = add_line(out, "recipient", m->rcpts[i]);
	if (!err && m->body_8bit)
		err = add_line(out, "body", SLICE_LIT("8BITMIME"));
	if (!err && m->smtputf8)
		err = add_line(out, "smtputf8", SLICE_LIT("yes"));
	if (!err && m->ret)
		err = add_line(out, "ret", m->ret == 1 ? SLICE_LIT("FULL") : SLICE_LIT("HDRS"));
	if (!err && m->envid.n)
		err = add_line(out, "envid", m->envid);
	dsn_notify_format(&notify, m->notify);
	if (!err && m->notify)
		err = add_line(out, "notify", buf_slice(&notify));
	buf_free(&notify);
	buf_add_byte(out, '\n');
	return err;
}

static int
take_line(struct slice *in, struct slice *line_r)
{
	ptrdiff_t lf = slice_find(*in, '\n');

	if (lf < 0)
		return ERR_TRUNCATED;
	*line_r = slice_sub(*in, 0, (size_t)lf);
	*in = slice_sub(*in, (size_t)lf + 1, in->n);
	if (slice_find(*line_r, '\0') >= 0 || slice_find(*line_r, '\r') >= 0)
		return ERR_SYNTAX;
	return 0;
}

static int
take_value(struct maildrop *m, struct slice keyword, struct slice value, bool *sender_seen)
{
	if (slice_eq_str(keyword, "sender")) {
		if (*sender_seen)
			return ERR_SYNTAX;
		*sender_seen = true;
		m->sender = value;
	} else if (slice_eq_str(keyword, "recipient")) {
		if (!value.n)
			return ERR_SYNTAX;
		m->rcpts[m->count++] = value;
	} else if (slice_eq_str(keyword, "body")) {
		m->body_8bit = slice_eq_str(value, "8BITMIME");
	} else if (slice_eq_str(keyword, "smtputf8")) {
		m->smtputf8 = slice_eq_str(value, "yes");
	} else if (slice_eq_str(keyword, "ret")) {
		m->ret = slice_eq_str(value, "FULL") ? 1 : 2;
	} else if (slice_eq_str(keyword, "envid")) {
		if (!xtext_valid(value) || value.n > 100)
			return ERR_SYNTAX;
		m->envid = value;
	} else if (slice_eq_str(keyword, "notify")) {
		return dsn_notify_parse(value, &m->notify);
	} else {
		return ERR_SYNTAX;
	}
	return 0;
}

/* The recipients, counted before the array is made. */
static int
count_rcpts(struct slice in, size_t max, size_t *count_r)
{
	struct slice line;
	int err;

	*count_r = 0;
	while (!(err = take_line(&in, &line)) && line.n) /* as maildrop_parse takes them apart */
		if (slice_eq_str(slice_split(&line, ' '), "recipient") && ++*count_r > max)
			return ERR_LIMIT;
	return err;
}

int
maildrop_parse(struct slice in, struct arena *arena, size_t max, struct maildrop *out_r)
{
	struct slice rest = in, line;
	bool sender_seen = false;
	size_t count;
	int err = take_line(&rest, &line);

	*out_r = (struct maildrop){ 0 };
	if (err)
		return err;
	if (!slice_eq_str(line, MAGIC))
		return ERR_SYNTAX;
	err = count_rcpts(rest, max, &count);
	if (err)
		return err;
	out_r->rcpts = arena_alloc(arena, (count + 1) * sizeof(*out_r->rcpts));
	while (!(err = take_line(&rest, &line)) && line.n) {
		struct slice value = line, keyword = slice_split(&value, ' ');
		err = take_value(out_r, keyword, value, &sender_seen);
		if (err)
			return err;
	}
	if (err)
		return err;
	out_r->content = in.n - rest.n;
	return sender_seen && out_r->count ? 0 : ERR_SYNTAX;
}
