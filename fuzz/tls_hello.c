/*
 * Fuzz target: what a server's TLS context takes from a hello before OpenSSL has looked at it: the
 * server name and the list of application protocols. Byte 0: whether the service has a name of its
 * own for ALPN, and which extensions there are; byte 1: the length of the first; then both, as the
 * client sent them. Checked: what is kept of a name is the name, in lower case, or nothing; the
 * protocol is found where it is an entry of the list; a connection that has failed stays so.
 */
#include "fuzz/must.h"
#include "tls/internal.h"

#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { NAME = 2, PROTOCOLS = 4, TICKET = 8 };

static struct tls_ctx *
make_context(const char *alpn)
{
	static const char *const names[] = { "mx.example.test", "*.wild.test" };
	struct tls_identity ids[3] = { 0 };
	struct tls_server_opts opts = { .service = "imap",
		.alpn = alpn,
		.identities = ids,
		.identity_count = 3,
		.tickets = tls_tickets_new() };
	static const unsigned char keys[TLS_TICKET_KEY_SIZE];
	struct buf pem[2] = { 0 };
	struct tls_ctx *ctx;
	char why[200];

	must(!tls_tickets_set(opts.tickets, slice(keys, sizeof(keys))));
	for (int i = 0; i < 2; i++) {
		must(!tls_selfsigned(&names[i], 1, 30, &pem[i]));
		ids[i].chain = buf_slice(&pem[i]);
	}
	ids[2] = ids[0];
	ids[2].name = SLICE_LIT(".below.test");
	must(!tls_server_new(&opts, &ctx, why, sizeof(why)));
	tls_tickets_free(&opts.tickets);
	buf_free(&pem[0]);
	buf_free(&pem[1]);
	return ctx;
}

static void
extension(struct buf *out, unsigned type, struct slice body)
{
	buf_add_u8(out, (uint8_t)(type >> 8));
	buf_add_u8(out, (uint8_t)type);
	buf_add_u8(out, (uint8_t)(body.n >> 8));
	buf_add_u8(out, (uint8_t)body.n);
	buf_add(out, body);
}

/* A hello of TLS 1.2 in one record (RFC 5246 7.4.1.2). */
static void
hello(unsigned which, struct slice name, struct slice protocols, struct buf *out)
{
	static const unsigned char begin[2 + 32 + 1 + 2 + 4 + 2] = { 3, 3, [34] = 0, 0, 4, 0xc0,
		0x2b, 0xc0, 0x2f, 1, 0 };
	struct buf extensions = { 0 };
	size_t n;

	if (which & NAME)
		extension(&extensions, TLSEXT_TYPE_server_name, name);
	if (which & PROTOCOLS)
		extension(
		    &extensions, TLSEXT_TYPE_application_layer_protocol_negotiation, protocols);
	if (which & TICKET)
		extension(&extensions, TLSEXT_TYPE_session_ticket, protocols);
	n = sizeof(begin) + 2 + buf_len(&extensions);
	buf_add(out, SLICE_LIT("\x16\x03\x01"));
	buf_add_u8(out, (uint8_t)((n + 4) >> 8));
	buf_add_u8(out, (uint8_t)(n + 4));
	buf_add(out, SLICE_LIT("\x01\x00"));
	buf_add_u8(out, (uint8_t)(n >> 8));
	buf_add_u8(out, (uint8_t)n);
	buf_add(out, slice(begin, sizeof(begin)));
	buf_add_u8(out, (uint8_t)(buf_len(&extensions) >> 8));
	buf_add_u8(out, (uint8_t)buf_len(&extensions));
	buf_add(out, buf_slice(&extensions));
	buf_free(&extensions);
}

/* RFC 6066 3: the list's length, then type and length of the one name that counts here. */
static void
check_name(const struct tls_conn *conn, struct slice body)
{
	struct slice kept = conn->sni ? slice_str(conn->sni) : SLICE_NULL;
	size_t n = body.n < 5 ? 0 : (size_t)(body.p[3] << 8 | body.p[4]);

	if (!n || n > 255 || body.p[2] || body.n < 5 + n ||
	    slice_find(slice_sub(body, 5, 5 + n), 0) >= 0) {
		must(!kept.p);
		return;
	}
	must(slice_caseeq(kept, slice_sub(body, 5, 5 + n)));
	for (size_t i = 0; i < kept.n; i++)
		must(kept.p[i] < 'A' || kept.p[i] > 'Z');
}

static bool
offers(struct slice body, const char *protocol)
{
	struct cursor c = cursor(slice_sub(body, 2, body.n));
	bool found = false;

	while (!found && !c.err && c.at < c.in.n)
		found = slice_eq_str(cursor_bytes(&c, cursor_u8(&c)), protocol) && !c.err;
	return found;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tls_ctx *contexts[2];
	struct slice in = slice_sub(slice(data, size), 2, size), name, protocols;
	struct buf out = { 0 };
	struct tls_conn *conn;
	int fds[2], err;

	if (size < 2 || size > 8192)
		return 0;
	if (!contexts[0]) {
		contexts[0] = make_context(NULL);
		contexts[1] = make_context("imap");
	}
	name = slice_sub(in, 0, data[1]);
	protocols = slice_sub(in, data[1], in.n);
	hello(data[0], name, protocols, &out);
	must(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds));
	must(write(fds[0], buf_slice(&out).p, buf_len(&out)) == (ssize_t)buf_len(&out));
	conn = tls_conn_new(contexts[data[0] & 1], fds[1], TLS_SERVER);
	err = tls_handshake(conn);
	must(err && (err == TLS_WANT_READ || tls_handshake(conn) == ERR_STATE));
	check_name(conn, data[0] & NAME ? name : SLICE_NULL);
	must(
	    conn->offers_alpn == (data[0] & 1 && data[0] & PROTOCOLS && offers(protocols, "imap")));
	tls_conn_free(&conn);
	close(fds[0]);
	close(fds[1]);
	buf_free(&out);
	return 0;
}
