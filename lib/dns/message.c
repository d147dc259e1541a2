/*
 * The DNS message parser. Runs in dns (bh-dns) on whatever arrives from the network, the resolver
 * not trusted either. Invariants: one cursor with big-endian reads and a sticky error walks the
 * message; a record's data is read from its own RDLENGTH bytes only (names inside it may point back
 * into the message); all sizes are bounded by constants of the header. The answer is copied into
 * one block, so nothing points into the packet afterwards.
 */
#include "dns/message.h"

#include <stdlib.h>

enum { HEADER_SIZE = 12, CLASS_IN = 1, OPT = 41, SECTION_MAX = 1000, DATA_MAX = 65535 };
enum { FLAG_QR = 0x8000, FLAG_TC = 0x0200, FLAG_RD = 0x0100, FLAG_AD = 0x0020, RCODE = 0x000f };

/* A walk over the message; err is sticky. */
struct walk {
	struct slice message;
	size_t at;
	int err;
};

struct rr {
	struct dns_name owner;
	uint16_t type, class;
	uint32_t ttl;
	size_t at; /* of its data in the message */
	struct slice data;
};

struct found {
	uint16_t preference;
	uint8_t usage, selector, matching;
	size_t text, n; /* in the texts; n excludes a host's NUL */
	bool is_host;
};

struct parse {
	struct walk w;
	uint16_t flags, counts[4];
	struct found found[DNS_RECORDS_MAX];
	size_t n;
	bool odd; /* a record was left out */
	struct buf texts;
	uint32_t ttl;
	struct dns_name canonical;
};

static uint16_t
read_u16(struct walk *w)
{
	if (w->err || w->message.n - w->at < 2) {
		w->err = w->err ? w->err : ERR_TRUNCATED;
		return 0;
	}
	w->at += 2;
	return (uint16_t)(w->message.p[w->at - 2] << 8 | w->message.p[w->at - 1]);
}

static uint32_t
read_u32(struct walk *w)
{
	uint32_t high = read_u16(w);

	return high << 16 | read_u16(w);
}

static void
read_name(struct walk *w, struct dns_name *out)
{
	*out = (struct dns_name){ 0 };
	if (!w->err)
		w->err = dns_name_read(w->message, &w->at, out);
}

static bool
read_rr(struct walk *w, struct rr *rr)
{
	read_name(w, &rr->owner);
	rr->type = read_u16(w);
	rr->class = read_u16(w);
	rr->ttl = read_u32(w);
	size_t n = read_u16(w);

	if (!w->err && w->message.n - w->at < n)
		w->err = ERR_TRUNCATED;
	if (w->err)
		return false;
	if (rr->ttl > INT32_MAX) /* RFC 2181 8: the top bit set means 0 */
		rr->ttl = 0;
	rr->at = w->at;
	rr->data = slice(w->message.p + w->at, n);
	w->at += n;
	return true;
}

/* A name that must fill the data from offset skip to its end. */
static bool
name_in(const struct parse *p, const struct rr *rr, size_t skip, struct dns_name *out)
{
	struct slice until = slice(p->w.message.p, rr->at + rr->data.n);
	size_t at = rr->at + skip;

	return rr->data.n > skip && !dns_name_read(until, &at, out) && at == rr->at + rr->data.n;
}

static bool
add_host(struct parse *p, const struct rr *rr, size_t skip, struct found *f)
{
	struct dns_name name;
	char host[DNS_HOST_SIZE];

	if (!name_in(p, rr, skip, &name) || dns_name_host(&name, host))
		return false;
	*f = (struct found){ .is_host = true, .text = buf_len(&p->texts), .n = strlen(host) };
	buf_add(&p->texts, slice(host, f->n + 1));
	return true;
}

static bool
add_data(struct parse *p, struct slice data, struct found *f)
{
	*f = (struct found){ .text = buf_len(&p->texts), .n = data.n };
	return buf_add(&p->texts, data) == 0;
}

/* RFC 1035 3.3.14: one or more <character-string>s; joined without a gap (RFC 7208 3.3). */
static bool
add_txt(struct parse *p, struct slice data, struct found *f)
{
	*f = (struct found){ .text = buf_len(&p->texts) };
	while (data.n) {
		size_t n = data.p[0];

		if (data.n - 1 < n) {
			buf_truncate(&p->texts, f->text);
			return false;
		}
		if (buf_add(&p->texts, slice(data.p + 1, n)))
			return false;
		f->n += n;
		data = slice_sub(data, 1 + n, data.n);
	}
	return true;
}

static bool
add_record(struct parse *p, const struct rr *rr, struct found *f)
{
	struct slice d = rr->data;

	switch (rr->type) {
	case DNS_A:
		return d.n == 4 && add_data(p, d, f);
	case DNS_AAAA:
		return d.n == 16 && add_data(p, d, f);
	case DNS_TXT:
		return add_txt(p, d, f);
	case DNS_PTR:
	case DNS_CNAME:
		return add_host(p, rr, 0, f);
	case DNS_MX:
		if (d.n < 3 || !add_host(p, rr, 2, f))
			return false;
		f->preference = (uint16_t)(d.p[0] << 8 | d.p[1]);
		return true;
	case DNS_TLSA:
		if (d.n < 4 || !add_data(p, slice_sub(d, 3, d.n), f))
			return false;
		f->usage = d.p[0], f->selector = d.p[1], f->matching = d.p[2];
		return true;
	default:
		return false;
	}
}

static void
lower_ttl(struct parse *p, uint32_t ttl)
{
	if (ttl < p->ttl)
		p->ttl = ttl;
}

/* One pass over the answer section for aliases of the present name: true if there was one. */
static bool
follow_alias(struct parse *p, struct walk answers)
{
	struct rr rr;
	struct dns_name to;

	for (unsigned i = 0; i < p->counts[1] && read_rr(&answers, &rr); i++)
		if (rr.type == DNS_CNAME && rr.class == CLASS_IN &&
		    dns_name_eq(&rr.owner, &p->canonical) && name_in(p, &rr, 0, &to)) {
			lower_ttl(p, rr.ttl);
			p->canonical = to;
			return true;
		}
	return false;
}

static int
read_answers(struct parse *p, enum dns_type type)
{
	struct walk start = p->w;
	struct rr rr;

	if (p->counts[1] > SECTION_MAX || p->counts[2] > SECTION_MAX)
		return ERR_LIMIT;
	for (int links = 0; type != DNS_CNAME && follow_alias(p, start); links++)
		if (links == DNS_CNAMES_MAX)
			return ERR_LIMIT;
	for (unsigned i = 0; i < p->counts[1]; i++) {
		if (!read_rr(&p->w, &rr))
			return p->w.err;
		if (rr.type != type || rr.class != CLASS_IN ||
		    !dns_name_eq(&rr.owner, &p->canonical) || p->n == DNS_RECORDS_MAX ||
		    buf_len(&p->texts) > DATA_MAX)
			continue;
		if (add_record(p, &rr, &p->found[p->n]))
			p->n++;
		else
			p->odd = true;
		lower_ttl(p, rr.ttl);
	}
	return 0;
}

/* RFC 2308 5: a negative answer lives for the lesser of the SOA's own TTL and its MINIMUM. */
static uint32_t
negative_ttl(struct parse *p)
{
	struct rr rr;
	struct dns_name skip;

	for (unsigned i = 0; i < p->counts[2] && read_rr(&p->w, &rr); i++) {
		struct walk w = { slice(p->w.message.p, rr.at + rr.data.n), rr.at, 0 };

		if (rr.type != DNS_SOA || rr.class != CLASS_IN)
			continue;
		read_name(&w, &skip);
		read_name(&w, &skip);
		for (int skipped = 0; skipped < 4; skipped++)
			read_u32(&w);
		uint32_t minimum = read_u32(&w);

		if (!w.err) {
			lower_ttl(p, rr.ttl < minimum ? rr.ttl : minimum);
			return p->ttl < DNS_NEGATIVE_MAX ? p->ttl : DNS_NEGATIVE_MAX;
		}
	}
	return 0;
}

/* One block: the struct, its records, then all texts. */
static struct dns_answer *
answer_pack(struct parse *p, enum dns_status status, uint32_t ttl)
{
	char canonical[DNS_HOST_SIZE] = "";
	size_t head = sizeof(struct dns_answer) + p->n * sizeof(struct dns_record);
	size_t texts = buf_len(&p->texts), name;
	unsigned char *block;
	struct dns_answer *a;

	if (p->canonical.n && dns_name_host(&p->canonical, canonical))
		canonical[0] = '\0';
	name = strlen(canonical) + 1;
	block = xcalloc(1, head + texts + name);
	a = (struct dns_answer *)(void *)block;
	*a = (struct dns_answer){ .status = status,
		.unusable = status == DNS_NODATA && p->odd,
		.secure = (p->flags & FLAG_AD) != 0,
		.ttl = ttl,
		.n = p->n,
		.size = head + texts + name,
		.canonical = (char *)block + head + texts };
	if (texts)
		memcpy(block + head, buf_slice(&p->texts).p, texts);
	memcpy(block + head + texts, canonical, name);
	for (size_t i = 0; i < p->n; i++) {
		const struct found *f = &p->found[i];
		unsigned char *at = block + head + f->text;

		a->records[i] = (struct dns_record){ .preference = f->preference,
			.usage = f->usage,
			.selector = f->selector,
			.matching = f->matching,
			.host = f->is_host ? (char *)at : NULL,
			.data = slice(at, f->n) };
	}
	return a;
}

/* The header and the one question, which must be ours. */
static int
read_head(struct parse *p, const struct dns_name *name, enum dns_type type)
{
	struct dns_name asked;

	read_u16(&p->w); /* the id: c-ares has compared it */
	p->flags = read_u16(&p->w);
	for (int i = 0; i < 4; i++)
		p->counts[i] = read_u16(&p->w);
	if (p->w.err)
		return p->w.err;
	if (!(p->flags & FLAG_QR) || (p->flags & FLAG_TC) || p->counts[0] != 1)
		return ERR_SYNTAX;
	read_name(&p->w, &asked);
	uint16_t qtype = read_u16(&p->w), qclass = read_u16(&p->w);

	if (p->w.err)
		return p->w.err;
	return qtype == type && qclass == CLASS_IN && dns_name_eq(&asked, name) ? 0 : ERR_SYNTAX;
}

struct dns_answer *
dns_answer_parse(struct slice message, const struct dns_name *name, enum dns_type type)
{
	struct parse *p = xcalloc(1, sizeof(*p));
	enum dns_status status = DNS_TEMPORARY;
	uint32_t ttl = 0;
	struct dns_answer *a;

	p->w.message = message;
	p->ttl = DNS_TTL_MAX;
	p->canonical = *name;
	buf_init(&p->texts, 2 * DATA_MAX);
	if (!read_head(p, name, type)) {
		unsigned rcode = p->flags & RCODE;

		if ((rcode == 0 || rcode == 3) && !read_answers(p, type)) {
			status = p->n ? DNS_OK : rcode ? DNS_NXDOMAIN : DNS_NODATA;
			ttl = p->n || p->odd ? p->ttl : negative_ttl(p);
		}
	}
	if (status == DNS_TEMPORARY) {
		p->n = 0;
		p->flags = 0;
		buf_clear(&p->texts);
	}
	a = answer_pack(p, status, ttl);
	buf_free(&p->texts);
	free(p);
	return a;
}

struct dns_answer *
dns_answer_empty(enum dns_status status, uint32_t ttl)
{
	struct parse *p = xcalloc(1, sizeof(*p));
	struct dns_answer *a = answer_pack(p, status, ttl);

	free(p);
	return a;
}

struct dns_answer *
dns_answer_addresses(const struct dns_name *name, const unsigned char *addresses, size_t n,
    size_t width, uint32_t ttl)
{
	struct parse *p = xcalloc(1, sizeof(*p));
	struct dns_answer *a;

	p->canonical = *name;
	for (; p->n < n && p->n < DNS_RECORDS_MAX; p->n++)
		if (!add_data(p, slice(addresses + p->n * width, width), &p->found[p->n]))
			break;
	a = answer_pack(p, p->n ? DNS_OK : DNS_NODATA, ttl);
	buf_free(&p->texts);
	free(p);
	return a;
}

struct dns_answer *
dns_answer_copy(const struct dns_answer *answer)
{
	unsigned char *block = xmalloc(answer->size);
	struct dns_answer *a = (struct dns_answer *)(void *)block;
	const unsigned char *from = (const unsigned char *)answer;

	memcpy(block, answer, answer->size);
#define MOVED(p) (block + ((const unsigned char *)(p)-from)) /* into the copy */
	a->canonical = (char *)MOVED(answer->canonical);
	for (size_t i = 0; i < a->n; i++) {
		a->records[i].data.p = MOVED(answer->records[i].data.p);
		if (answer->records[i].host)
			a->records[i].host = (char *)MOVED(answer->records[i].host);
	}
#undef MOVED
	return a;
}

static void
add_u16(struct buf *out, unsigned v)
{
	buf_add_byte(out, (unsigned char)(v >> 8));
	buf_add_byte(out, (unsigned char)v);
}

void
dns_query_build(struct buf *out, uint16_t id, const struct dns_name *name, enum dns_type type)
{
	add_u16(out, id);
	add_u16(out, FLAG_RD | FLAG_AD);
	add_u16(out, 1); /* questions */
	add_u16(out, 0);
	add_u16(out, 0);
	add_u16(out, 1); /* additional: the OPT record */
	buf_add(out, dns_name_slice(name));
	add_u16(out, type);
	add_u16(out, CLASS_IN);
	buf_add_byte(out, 0); /* RFC 6891 6.1.2: root, OPT, payload, no flags, no options */
	add_u16(out, OPT);
	add_u16(out, DNS_PAYLOAD);
	add_u16(out, 0);
	add_u16(out, 0);
	add_u16(out, 0);
}
