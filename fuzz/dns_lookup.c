/*
 * Fuzz target: look-ups of dns over whatever the servers of strangers answer. Byte 0: which look-up
 * it is (0 to 3), and whether its peer goes away meanwhile (4); byte 1: flags of mx, the type of
 * records; byte 2: the length of the name that follows; then an answer to each question in turn:
 * how many records it claims (the upper bit: it comes later), the two bytes of flags, two of
 * length, and the records. Checked: one answer per look-up, which its peer can decode and which
 * holds what msgs.def says of it; no look-up stays behind.
 */
#include "fuzz/must.h"
#include "helpers/dns/lookup.h"
#include "ipc/ignore_test_util.h"

#include <errno.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CLIENT_NAME, MX, SITE, RECORDS, LATER_MAX = 64 };

/* Stands for resolver.c. */
struct resolver {
	struct cursor script;
	struct later {
		resolver_answer *answer;
		void *ctx;
		struct dns_answer *a;
	} later[LATER_MAX];
	size_t first, n;
};

/* The records of the script behind a header and the question, as a server sends them. */
static struct dns_answer *
scripted(struct resolver *r, const struct dns_name *name, enum dns_type type, bool *later_r)
{
	struct cursor *c = &r->script;
	uint8_t n = cursor_u8(c);
	uint16_t flags = cursor_u16(c), length = cursor_u16(c);
	size_t left = c->in.n - c->at;
	struct slice records = cursor_bytes(c, length < left ? length : left);
	struct buf packet = { 0 };
	struct dns_answer *a;

	*later_r = n & 128;
	if (c->err)
		return dns_answer_empty(DNS_TEMPORARY, 5);
	dns_query_build(&packet, 0, name, type);
	buf_truncate(&packet, 12 + dns_name_slice(name).n + 4);
	packet.data[packet.head + 2] = (unsigned char)(0x80 | flags);
	packet.data[packet.head + 3] = (unsigned char)(flags >> 8);
	packet.data[packet.head + 7] = n & 127;
	packet.data[packet.head + 11] = 0;
	buf_add(&packet, records);
	a = dns_answer_parse(buf_slice(&packet), name, type);
	buf_free(&packet);
	return a;
}

void
resolver_ask(struct resolver *r, const struct dns_name *name, enum dns_type type,
    resolver_answer *answer, void *ctx)
{
	bool later;
	struct dns_answer *a = scripted(r, name, type, &later);

	if (later && r->n < LATER_MAX) {
		r->later[r->n++] = (struct later){ answer, ctx, a };
		return;
	}
	answer(ctx, a);
	free(a);
}

/* --- what the peer hears --- */

static void
check_mx(const struct msg_mx_answer *m)
{
	struct cursor c = cursor(m->hosts.raw);
	struct item_mx_host h;
	size_t n = 0;
	uint16_t last = 0;

	must(m->status <= 5 && m->site.n == 16 && m->ttl <= DNS_TTL_MAX);
	while (item_mx_host_next(&c, &h)) {
		must(h.name.n && h.addresses.n && h.addresses.n % 16 == 0);
		must(h.preference >= last && !slice_caseeq_str(h.name, "me.test"));
		last = h.preference;
		n++;
	}
	must(m->status ? !n && m->text.n : n && n <= 16);
}

static void
check_records(const struct msg_dns_records *m, unsigned type)
{
	struct cursor c = cursor(m->records.raw);
	struct item_dns_record r;
	size_t n = 0;

	must(m->status <= 3 && m->ttl <= DNS_TTL_MAX);
	while (item_dns_record_next(&c, &r)) {
		must(r.type == type && (type != DNS_A || r.data.n == 4) &&
		     (type != DNS_AAAA || r.data.n == 16));
		n++;
	}
	must(m->status ? !n : n <= DNS_RECORDS_MAX);
}

/* False: there is nothing to hear. */
static bool
hear(int fd, unsigned kind, unsigned type)
{
	static unsigned char bytes[65536];
	ssize_t n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
	struct msg m;

	if (n < 0)
		return false;
	must(!msg_decode(slice(bytes, (size_t)n), &m) && m.id == 7);
	if (kind == CLIENT_NAME) {
		must(m.type == MSG_CLIENT_NAME_ANSWER && m.client_name_answer.status <= 3);
		must(m.client_name_answer.status || m.client_name_answer.name.n);
	} else if (kind == MX) {
		must(m.type == MSG_MX_ANSWER);
		check_mx(&m.mx_answer);
	} else if (kind == SITE) {
		must(m.type == MSG_SITE_ANSWER && m.site_answer.site.n == 16);
	} else {
		must(m.type == MSG_DNS_RECORDS);
		check_records(&m.dns_records, type);
	}
	return true;
}

/* --- the daemon --- */

static struct world {
	struct daemon d;
	struct dnsd dnsd;
	struct resolver resolver;
	struct ipc_chan *chans[4];
	int fds[4]; /* the peers' ends */
} world;

static void
begin(struct world *w)
{
	static const enum role peers[4] = { ROLE_SMTPD_CHILD, ROLE_SMTP_CLIENT, ROLE_QMGR,
		ROLE_SMTP_CLIENT };
	static struct conf_raw *raw; /* kept: the configuration refers to it */
	struct conf_problems problems = { 0 };
	int fds[2];

	raw = conf_raw_new("me.test");
	conf_raw_read_files(raw, false);
	w->d.conf = conf_eval(raw, NULL, 0, &problems);
	conf_problems_free(&problems);
	w->d.base = ev_base_new();
	w->d.io = ipc_io_new(w->d.base, ROLE_DNS);
	for (int i = 0; i < 4; i++) {
		must(!ipc_pair(fds));
		w->chans[i] = ipc_chan_new(w->d.io, fds[0], peers[i], &ignore_ops, NULL);
		w->fds[i] = fds[1];
	}
	w->dnsd.d = &w->d;
	w->dnsd.resolver = &w->resolver;
}

static void
ask(struct world *w, unsigned kind, unsigned how, struct slice name)
{
	switch (kind) {
	case CLIENT_NAME:
		lookup_client_name(&w->dnsd, w->chans[kind], 7, name);
		break;
	case MX:
		lookup_mx(&w->dnsd, w->chans[kind], 7, name, how);
		break;
	case SITE:
		lookup_site(&w->dnsd, w->chans[kind], 7, name);
		break;
	default:
		lookup_records(&w->dnsd, w->chans[kind], 7, name, how);
		break;
	}
}

/* As the decoder of messages lets it through. */
static bool
is_text(struct slice s)
{
	return slice_find(s, 0) < 0 && slice_find(s, '\r') < 0 && slice_find(s, '\n') < 0;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct world *w = &world;
	struct cursor c = cursor(slice(data, size));
	unsigned first = cursor_u8(&c), how = cursor_u8(&c), kind = first % 4;
	struct slice name = cursor_bytes(&c, cursor_u8(&c));
	bool waits;

	if (c.err || (kind != CLIENT_NAME && !is_text(name)))
		return 0;
	if (!w->d.base)
		begin(w);
	w->resolver = (struct resolver){ .script = cursor(cursor_rest(&c)) };
	ask(w, kind, how, name);
	waits = w->dnsd.under_way;
	if (first & 4)
		lookup_forget(&w->dnsd, w->chans[kind]);
	for (size_t i = 0; i < w->resolver.n; i++) {
		struct later l = w->resolver.later[i];

		l.answer(l.ctx, l.a);
		free(l.a);
	}
	must(!w->dnsd.under_way);
	must(hear(w->fds[kind], kind, how) == !(waits && first & 4));
	must(!hear(w->fds[kind], kind, how));
	return 0;
}
