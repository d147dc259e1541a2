/*
 * The small files of a store: subscriptions, special uses, the next UIDVALIDITY. Runs in the user's
 * session; they are the user's, and may hold anything: lines that make no sense are left out. The
 * readers and writers of the formats are pure.
 *
 *	subscriptions    as Dovecot writes it: "V\t2", an empty line, then levels divided by tabs in
 *	                 modified UTF-7; its older form (one name a line) is read
 *	bh-special-use   "\Sent name" lines
 *	bh-uidvalidity   the last one given out, so that no folder ever gets one that was in use
 */
#include "store/internal.h"

#include <stdlib.h>
#include <time.h>

/* --- subscriptions --- */

static void
add_name(struct slice raw, struct buf *names)
{
	char name[STORE_NAME_MAX + 1];

	if (store_name(raw, name, NULL) == 0)
		buf_add(names, slice(name, strlen(name) + 1));
}

/* One level of version 2: tabs and the like are escaped by \001. */
static void
unescape(struct slice in, struct buf *out)
{
	for (size_t i = 0; i < in.n; i++) {
		unsigned char c = in.p[i];
		if (c == 1 && i + 1 < in.n) {
			c = in.p[++i];
			c = c == '1' ? 1 : c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : 0;
		}
		buf_add_byte(out, c);
	}
}

static void
subscription_line(struct slice line, unsigned char divider, struct buf *names)
{
	struct buf raw = { 0 }, level = { 0 };
	bool good = line.n > 0;

	while (line.n && good) {
		struct slice part = slice_split(&line, divider);
		size_t before = buf_len(&raw) + (buf_len(&raw) ? 1 : 0);
		buf_clear(&level);
		unescape(part, &level);
		if (buf_len(&raw))
			buf_add_byte(&raw, STORE_SEPARATOR);
		if (mutf7_decode(buf_slice(&level), &raw) < 0) {
			buf_truncate(&raw, before);
			buf_add(&raw, buf_slice(&level));
		}
		good = part.n > 0;
	}
	if (good)
		add_name(buf_slice(&raw), names);
	buf_free(&raw);
	buf_free(&level);
}

void
subscriptions_parse(struct slice in, struct buf *names)
{
	bool v2 = slice_has_prefix(in, "V\t2\n");

	if (v2)
		slice_split(&in, '\n');
	while (in.n)
		subscription_line(slice_split(&in, '\n'), v2 ? '\t' : '.', names);
}

int
subscriptions_load(struct store *s, struct buf *names)
{
	struct buf b = { 0 };
	int rc = read_file(s->rootfd, "subscriptions", SMALL_FILE_MAX, &b);

	if (rc == 0)
		subscriptions_parse(buf_slice(&b), names);
	buf_free(&b);
	return rc;
}

int
subscriptions_format(struct slice names, struct buf *out)
{
	int rc = 0;

	buf_add_str(out, "V\t2\n\n");
	while (names.n && rc == 0) {
		struct slice name = slice_split(&names, '\0');
		bool first = true;
		while (name.n && rc == 0) {
			if (!first)
				buf_add_byte(out, '\t');
			first = false;
			rc = mutf7_encode(slice_split(&name, STORE_SEPARATOR), out);
		}
		buf_add_byte(out, '\n');
	}
	return rc;
}

static int
subscriptions_save(struct store *s, struct slice names)
{
	struct buf b = { 0 };
	int rc = subscriptions_format(names, &b);

	if (rc == 0 && buf_len(&b) > SMALL_FILE_MAX)
		rc = ERR_LIMIT; /* it could not be read again */
	if (rc == 0)
		rc = replace_file(s, s->rootfd, "subscriptions", buf_slice(&b));
	buf_free(&b);
	return rc;
}

int
store_subscribe(struct store *s, struct slice name, bool on)
{
	char canonical[STORE_NAME_MAX + 1];
	struct buf names = { 0 }, kept = { 0 };
	bool had = false;

	int rc = store_name(name, canonical, NULL);
	if (rc < 0)
		return rc;
	rc = subscriptions_load(s, &names);
	if (rc == ERR_NOT_FOUND)
		rc = 0;
	struct slice rest = buf_slice(&names);
	while (rest.n) {
		struct slice one = slice_split(&rest, '\0');
		bool this = slice_eq_str(one, canonical);
		had |= this;
		if (!this || on) {
			buf_add(&kept, one);
			buf_add_byte(&kept, 0);
		}
	}
	if (on && !had)
		buf_add(&kept, slice(canonical, strlen(canonical) + 1));
	if (rc == 0 && on != had)
		rc = subscriptions_save(s, buf_slice(&kept));
	buf_free(&names);
	buf_free(&kept);
	return rc;
}

/* --- special uses --- */

/* Gives "\Use name" lines; the usual names until something was written. */
int
special_load(struct store *s, struct buf *lines, bool *written_r)
{
	int rc = read_file(s->rootfd, SPECIAL_FILE, SMALL_FILE_MAX, lines);

	*written_r = rc == 0;
	if (rc != ERR_NOT_FOUND)
		return rc;
	return buf_add_str(
	    lines, "\\Drafts Drafts\n\\Sent Sent\n\\Archive Archive\n\\Junk Junk\n\\Trash Trash\n");
}

unsigned
special_of(struct slice lines, const char *name)
{
	unsigned bits = 0;

	while (lines.n) {
		struct slice line = slice_split(&lines, '\n');
		struct slice use = slice_split(&line, ' ');
		if (slice_eq_str(line, name))
			bits |= special_use_parse(use);
	}
	return bits;
}

void
special_edit(struct slice lines, const char *name, unsigned bits, struct buf *out)
{
	while (lines.n) {
		struct slice line = slice_split(&lines, '\n'), rest = line;
		slice_split(&rest, ' ');
		if (slice_eq_str(rest, name) || line.n == 0)
			continue;
		buf_add(out, line);
		buf_add_byte(out, '\n');
	}
	for (unsigned bit = 1; bit <= SPECIAL_IMPORTANT; bit <<= 1)
		if (bits & bit)
			buf_addf(out, "%s %s\n", special_use_name(bit), name);
}

int
special_set(struct store *s, const char *name, unsigned bits)
{
	struct buf old = { 0 }, out = { 0 };
	bool written;
	int rc = special_load(s, &old, &written);

	if (rc == 0 && (special_of(buf_slice(&old), name) != bits || (!written && !bits))) {
		special_edit(buf_slice(&old), name, bits, &out);
		rc = replace_file(s, s->rootfd, SPECIAL_FILE, buf_slice(&out));
	}
	buf_free(&old);
	buf_free(&out);
	return rc;
}

/* --- UIDVALIDITY --- */

uint32_t
uidvalidity_after(struct slice file, uint32_t above, uint32_t now)
{
	uint64_t last;

	if (slice_u64(slice_trim(file, true), UINT32_MAX - 1, &last) < 0)
		last = 0;
	if (above > last)
		last = above;
	if (last == UINT32_MAX)
		last = 0; /* there is none above */
	return now > last ? now : (uint32_t)last + 1;
}

int
next_uidvalidity(struct store *s, uint32_t above, uint32_t *out_r)
{
	struct buf b = { 0 };

	if (read_file(s->rootfd, UIDVALIDITY_FILE, 64, &b) < 0)
		buf_clear(&b);
	*out_r = uidvalidity_after(buf_slice(&b), above, (uint32_t)time(NULL));
	buf_clear(&b);
	buf_addf(&b, "%u\n", *out_r);
	int rc = replace_file(s, s->rootfd, UIDVALIDITY_FILE, buf_slice(&b));
	buf_free(&b);
	return rc;
}
