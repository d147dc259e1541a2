/*
 * Composes delivery status notifications. Runs in bounce (uid bh-bounce). Hostile inputs: the
 * header (or all) of the message, addresses, and the texts of remote servers. The content is
 * carried, never interpreted; everything that goes into a field of ours is made one line of
 * printable text first.
 */
#include "helpers/bounce/compose.h"

#include "mail/date.h"

#include <stdio.h>

#define LINE_MAX_TEXT 900u /* RFC 5322 2.1.1 allows 998 */

static int
hex(unsigned char c)
{
	/* RFC 3461 4: upper case only. */
	return ascii_is_digit(c) ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int
xtext_decode(struct slice s, struct buf *out)
{
	size_t from = buf_len(out);

	for (size_t i = 0; i < s.n; i++) {
		int c = s.p[i];

		if (c == '+') {
			if (i + 2 >= s.n || hex(s.p[i + 1]) < 0 || hex(s.p[i + 2]) < 0)
				goto bad;
			c = hex(s.p[i + 1]) << 4 | hex(s.p[i + 2]);
			i += 2;
		}
		if (c < 32 || c > 126)
			goto bad;
		buf_add_byte(out, (unsigned char)c);
	}
	return 0;
bad:
	buf_truncate(out, from);
	return ERR_SYNTAX;
}

static size_t
utf8_char(struct slice s, uint32_t *code_r)
{
	unsigned char c = s.p[0];
	size_t n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;

	*code_r = n == 1 ? c : c & (0xff >> (n + 1));
	for (size_t i = 1; i < n; i++) {
		if (i >= s.n || (s.p[i] & 0xc0) != 0x80) {
			*code_r = 0xfffd;
			return 1;
		}
		*code_r = *code_r << 6 | (s.p[i] & 0x3f);
	}
	return n;
}

void
utf8_addr_xtext(struct slice s, struct buf *out)
{
	while (s.n) {
		uint32_t code;
		size_t n = utf8_char(s, &code);

		if (code <= 32 || code >= 127 || code == '\\' || code == '+' || code == '=')
			buf_addf(out, "\\x{%X}", code);
		else
			buf_add_byte(out, (unsigned char)code);
		s = slice_sub(s, n, SIZE_MAX);
	}
}

static bool
has_8bit(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] & 0x80)
			return true;
	return false;
}

/* One line of a field or of the text: no control bytes, cut; non-ASCII only where it is allowed. */
static void
add_line(struct buf *out, struct slice s, bool utf8)
{
	size_t n = s.n < LINE_MAX_TEXT ? s.n : LINE_MAX_TEXT;

	for (size_t i = 0; i < n; i++)
		if (s.p[i] < 32 || s.p[i] == 127)
			buf_add_byte(out, ' ');
		else if (s.p[i] & 0x80 && !utf8)
			buf_add_byte(out, '?');
		else
			buf_add_byte(out, s.p[i]);
}

static struct slice
notice_header(struct slice content)
{
	ptrdiff_t at;

	if (slice_has_prefix(content, "\r\n"))
		return slice_sub(content, 0, 0);
	at = slice_search(content, SLICE_LIT("\r\n\r\n"));
	return at < 0 ? content : slice_sub(content, 0, (size_t)at + 2);
}

/* What is returned becomes text in CRLF lines: a header of opaque content (BINARYMIME), and what
 * was cut, may hold CR and LF by themselves, and NUL. */
static void
add_returned(struct buf *out, struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '\r' && i + 1 < s.n && s.p[i + 1] == '\n') {
			buf_add_str(out, "\r\n");
			i++;
		} else {
			buf_add_byte(out, s.p[i] && !strchr("\r\n", s.p[i]) ? s.p[i] : '?');
		}
}

static void
add_date(struct buf *out, const char *field, int64_t t)
{
	char text[DATE_BUF_SIZE];

	date_format(t, date_local_zone(t), text);
	buf_addf(out, "%s: %s\r\n", field, text);
}

/* An address as RFC 5322 wants it in a field of the notice's own header. */
static void
add_address(struct buf *out, const char *field, const char *phrase, struct slice a, bool utf8)
{
	buf_addf(out, "%s: %s%s", field, phrase, phrase[0] ? " <" : "<");
	add_line(out, a, utf8);
	buf_add_str(out, ">\r\n");
}

static const char *
subject(const struct notice *n)
{
	static const char *const words[] = { "", "Undelivered Mail Returned to Sender",
		"Delayed Mail (still being retried)", "Successful Mail Delivery Report" };

	if (n->undeliverable)
		return "Postmaster Notice: Undeliverable Notification or Mail";
	if (n->to_postmaster)
		return n->kind == NOTICE_DELAY ? "Postmaster Warning: Delayed Mail"
					       : "Postmaster Copy: Undelivered Mail";
	return words[n->kind];
}

static void
add_text(const struct notice *n, struct buf *out, bool utf8)
{
	static const char *const what[] = { "",
		"I am sorry to tell you that your message could not be delivered to one\r\n"
		"or more recipients. It is attached below.\r\n",
		"Your message could not be delivered yet to one or more recipients.\r\n"
		"It will be tried again. YOU DO NOT NEED TO SEND IT ONCE MORE.\r\n",
		"Your message was delivered, or handed to a system that does not report\r\n"
		"deliveries, for the recipients below.\r\n" };

	buf_addf(out, "This is the mail system at host %s.\r\n\r\n%s\r\n", n->hostname,
	    n->to_postmaster ? "A message is in trouble; its header is attached.\r\n"
			     : what[n->kind]);
	if (n->kind != NOTICE_SUCCESS)
		buf_add_str(out, "For help, write to postmaster, and include this report.\r\n\r\n");
	for (size_t i = 0; i < n->n_rcpts; i++) {
		const struct notice_rcpt *r = &n->rcpts[i];

		buf_add_byte(out, '<');
		add_line(out, r->address, utf8);
		buf_add_byte(out, '>');
		if (r->original.n && !slice_eq(r->original, r->address)) {
			buf_add_str(out, " (given as <");
			add_line(out, r->original, utf8);
			buf_add_str(out, ">)");
		}
		buf_add_str(out, ": ");
		if (r->remote.n) {
			buf_add_str(out, "host ");
			add_line(out, r->remote, false);
			buf_add_str(out, " said: ");
		}
		/* the path of a mailbox is for the log only */
		add_line(out,
		    n->kind == NOTICE_SUCCESS && slice_has_prefix(r->text, "delivered to ")
			? SLICE_LIT("delivered")
			: r->text,
		    utf8);
		buf_add_str(out, "\r\n\r\n");
	}
}

static bool
is_ascii_type(struct slice type)
{
	for (size_t i = 0; i < type.n; i++)
		if (!ascii_is_alnum(type.p[i]) && type.p[i] != '-')
			return false;
	return type.n > 0;
}

/* "type;xtext" of ORCPT becomes "type; address"; what does not decode is left out. */
static void
add_orcpt(struct buf *out, struct slice orcpt, bool utf8)
{
	struct slice rest = orcpt, type = slice_split(&rest, ';');
	struct buf plain = { 0 };

	if (!is_ascii_type(type))
		return;
	if (slice_caseeq_str(type, "utf-8")) {
		/* RFC 6533 3: the address may stand there in any of its three forms; they are
		 * carried. */
		if (!utf8 && has_8bit(rest))
			utf8_addr_xtext(rest, &plain);
		else
			buf_add(&plain, rest);
	} else if (xtext_decode(rest, &plain)) {
		buf_free(&plain);
		return;
	}
	buf_addf(out, "Original-Recipient: %.*s; ", SLICE_ARG(type));
	add_line(out, buf_slice(&plain), utf8);
	buf_add_str(out, "\r\n");
	buf_free(&plain);
}

static void
add_final(struct buf *out, struct slice address, bool utf8)
{
	struct buf plain = { 0 };

	if (!has_8bit(address)) {
		buf_add_str(out, "Final-Recipient: rfc822; ");
		add_line(out, address, false);
	} else if (utf8) {
		buf_add_str(out, "Final-Recipient: utf-8; ");
		add_line(out, address, true);
	} else {
		utf8_addr_xtext(address, &plain);
		buf_add_str(out, "Final-Recipient: utf-8; ");
		add_line(out, buf_slice(&plain), false);
	}
	buf_add_str(out, "\r\n");
	buf_free(&plain);
}

static const char *
action(const struct notice *n, const struct notice_rcpt *r)
{
	switch (n->kind) {
	case NOTICE_FAILURE:
		return "failed";
	case NOTICE_DELAY:
		return "delayed";
	default:
		/* A next hop took it that will not report: RFC 3461 5.2.2. */
		return r->remote.n                             ? "relayed"
		       : slice_has_prefix(r->text, "expanded") ? "expanded"
							       : "delivered";
	}
}

static bool
is_status(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (!ascii_is_digit(s.p[i]) && s.p[i] != '.')
			return false;
	return s.n >= 5 && (s.p[0] == '2' || s.p[0] == '4' || s.p[0] == '5') && s.p[1] == '.';
}

static void
add_status(const struct notice *n, const struct notice_rcpt *r, struct buf *out, bool utf8)
{
	static const char *const fallback[] = { "", "5.0.0", "4.0.0", "2.0.0" };
	static const char class[] = " 542";

	add_orcpt(out, r->orcpt, utf8);
	add_final(out, r->address, utf8);
	buf_addf(out, "Action: %s\r\n", action(n, r));
	/* The class has to agree with the action: a reply 4.x that lasted until the end is a 5.x
	 * now. */
	if (is_status(r->enhanced))
		buf_addf(out, "Status: %c%.*s\r\n", class[n->kind], (int)(r->enhanced.n - 1),
		    (const char *)r -> enhanced.p + 1);
	else
		buf_addf(out, "Status: %s\r\n", fallback[n->kind]);
	if (r->remote.n) {
		struct slice host = r->remote;

		/* "mx.example[192.0.2.1]:25" */
		host = slice_split(&host, '[');
		buf_add_str(out, "Remote-MTA: dns; ");
		add_line(out, host.n ? host : r->remote, false);
		buf_add_str(out, "\r\n");
	}
	if (r->text.n && n->kind != NOTICE_SUCCESS) {
		buf_addf(out, "Diagnostic-Code: %s; ", r->remote.n ? "smtp" : "X-Bulkhead");
		add_line(out, r->text, utf8);
		buf_add_str(out, "\r\n");
	}
	if (r->last_attempt)
		add_date(out, "Last-Attempt-Date", r->last_attempt);
	if (n->kind == NOTICE_DELAY)
		add_date(out, "Will-Retry-Until", n->expires);
}

static void
add_report(const struct notice *n, struct buf *out, bool utf8)
{
	struct buf envid = { 0 };

	buf_addf(out, "Reporting-MTA: dns; %s\r\n", n->hostname);
	if (n->envid.n && !xtext_decode(n->envid, &envid)) {
		buf_add_str(out, "Original-Envelope-Id: ");
		add_line(out, buf_slice(&envid), false);
		buf_add_str(out, "\r\n");
	}
	buf_free(&envid);
	if (n->queue_id.n)
		buf_addf(out, "X-Bulkhead-Queue-ID: %.*s\r\n", SLICE_ARG(n->queue_id));
	if (n->sender.n) {
		buf_addf(out, "X-Bulkhead-Sender: %s; ", has_8bit(n->sender) ? "utf-8" : "rfc822");
		add_line(out, n->sender, utf8);
		buf_add_str(out, "\r\n");
	}
	add_date(out, "Arrival-Date", n->arrival);
	for (size_t i = 0; i < n->n_rcpts; i++) {
		buf_add_str(out, "\r\n");
		add_status(n, &n->rcpts[i], out, utf8);
	}
}

static void
part(const struct notice *n, struct buf *out, const char *description, const char *type, bool eight)
{
	buf_addf(out, "\r\n--%s\r\nContent-Description: %s\r\nContent-Type: %s\r\n%s\r\n",
	    n->boundary, description, type, eight ? "Content-Transfer-Encoding: 8bit\r\n" : "");
}

static void
add_header(const struct notice *n, struct buf *out, bool utf8)
{
	add_date(out, "Date", n->now);
	add_address(out, "From", "Mail Delivery System", n->from, utf8);
	buf_addf(out, "Subject: %s\r\n", subject(n));
	add_address(out, "To", "", n->to, utf8);
	/* RFC 3834: so that nobody answers it. */
	buf_add_str(out, "Auto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n");
	buf_addf(out, "Content-Type: multipart/report; report-type=%s;\r\n\tboundary=\"%s\"\r\n",
	    utf8 ? "global-delivery-status" : "delivery-status", n->boundary);
	buf_addf(out, "Message-ID: <%s@%s>\r\n", n->boundary, n->hostname);
}

unsigned int
notice_compose(const struct notice *n, struct buf *out)
{
	struct slice returned = n->full ? n->content : notice_header(n->content);
	bool eight = has_8bit(returned), utf8 = n->utf8;
	const char *type;

	add_header(n, out, utf8);
	if (utf8 || eight)
		buf_add_str(out, "Content-Transfer-Encoding: 8bit\r\n");
	buf_add_str(out, "\r\nThis is a MIME-encapsulated message.\r\n");
	part(n, out, "Notification",
	    utf8 ? "text/plain; charset=utf-8" : "text/plain; charset=us-ascii", utf8);
	add_text(n, out, utf8);
	part(n, out, "Delivery report",
	    utf8 ? "message/global-delivery-status" : "message/delivery-status", utf8);
	add_report(n, out, utf8);
	/* RFC 6533 4: the types for content whose header is UTF-8. */
	if (n->full)
		type = utf8 ? "message/global" : "message/rfc822";
	else
		type = utf8 ? "message/global-headers" : "text/rfc822-headers";
	part(n, out, n->full ? "Undelivered Message" : "Message Headers", type, eight);
	add_returned(out, returned);
	buf_addf(out, "\r\n--%s--\r\n", n->boundary);
	return (eight || utf8 ? MAIL_8BIT : 0) | (utf8 ? MAIL_UTF8 : 0);
}
