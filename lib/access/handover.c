/*
 * The preamble on the stream from login to the session. Written in login-child, read in
 * the session process (imapd-child, pop3d-child), which does not trust it: a login process that was
 * taken over can lie in it, and gains no more than a wrong tag or log line.
 */
#include "access/login.h"

void
handover_encode(const struct handover *h, struct buf *out)
{
	struct buf body = { 0 };

	buf_add_u8(&body, 1);
	buf_add_u8(&body, h->tls);
	buf_add_counted(&body, h->tag);
	buf_add_counted(&body, slice_sub(h->peer, 0, 255));
	buf_add_counted(&body, slice_sub(h->id, 0, 255));
	buf_add_u16(out, (uint16_t)buf_len(&body));
	buf_add(out, buf_slice(&body));
	buf_free(&body);
}

int
handover_decode(struct slice in, struct handover *h_r)
{
	struct cursor c = cursor(in);
	size_t n = cursor_u16(&c);

	*h_r = (struct handover){ 0 };
	if (c.err)
		return 0;
	if (n > HANDOVER_MAX)
		return ERR_LIMIT;
	if (in.n < n + 2)
		return 0;
	c = cursor(slice_sub(in, 2, n + 2));
	if (cursor_u8(&c) != 1)
		return ERR_SYNTAX;
	h_r->tls = cursor_u8(&c) != 0;
	h_r->tag = cursor_counted(&c, 255);
	h_r->peer = cursor_counted(&c, 255);
	h_r->id = cursor_counted(&c, 255);
	return cursor_end(&c) < 0 ? ERR_SYNTAX : (int)n + 2;
}
