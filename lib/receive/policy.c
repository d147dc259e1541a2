/*
 * The policy tables of smtpd, LMTP and submission, made of the configuration. Runs in the children
 * (and once in the zygote); takes no hostile input.
 */
#include "receive/service.h"

#include <stdlib.h>

/* header_size_limit is what others look at; a header section is refused only far beyond it. */
#define HEADER_SECTION_FACTOR 16

static const struct slice forbidden[] = { { (const unsigned char *)"CONNECT", 7 },
	{ (const unsigned char *)"GET", 3 }, { (const unsigned char *)"POST", 4 } };

/* "PLAIN LOGIN"; the -PLUS forms need a channel to bind to. */
static const char *
join_mechanisms(struct arena *a, const struct conf_list *list, bool external)
{
	struct buf text = { 0 };
	const char *out;

	for (size_t i = 0; i < list->n; i++)
		buf_addf(&text, "%s%s", i ? " " : "", list->v[i]);
	if (external)
		buf_addf(&text, "%sEXTERNAL", buf_len(&text) ? " " : "");
	out = arena_printf(a, "%.*s", (int)buf_len(&text), (const char *)buf_slice(&text).p);
	buf_free(&text);
	return out;
}

static unsigned
offered(const struct conf *c, enum smtp_service kind)
{
	unsigned out = SMTP_EXT_ALL;

	if (kind != SMTP_SUBMISSION && !c->smtpd_sasl_auth_enable)
		out &= ~(unsigned)SMTP_EXT_AUTH;
	if (kind == SMTP_LMTP)
		out &= ~(unsigned)SMTP_EXT_AUTH;
	if (!c->smtputf8_enable)
		out &= ~(unsigned)SMTP_EXT_SMTPUTF8;
	if (kind != SMTP_SUBMISSION && c->smtpd_tls_security_level == CONF_SERVER_TLS_NONE)
		out &= ~(unsigned)SMTP_EXT_STARTTLS;
	for (size_t i = 0; kind != SMTP_SUBMISSION && i < c->smtpd_discard_ehlo_keywords.n; i++)
		out &= ~smtp_extension_bit(slice_str(c->smtpd_discard_ehlo_keywords.v[i]));
	return out;
}

static unsigned
limit(int64_t v)
{
	return v < 0 ? 0 : v > UINT32_MAX ? UINT32_MAX : (unsigned)v;
}

static void
set_limits(struct smtp_policy *p, const struct conf *c)
{
	p->size_limit = (uint64_t)c->message_size_limit;
	p->discard_limit = (uint64_t)c->smtpd_discard_limit;
	p->recipient_limit = limit(c->smtpd_recipient_limit);
	p->recipient_overshoot = limit(c->smtpd_recipient_overshoot_limit);
	p->soft_error_limit = limit(c->smtpd_soft_error_limit);
	p->hard_error_limit = limit(c->smtpd_hard_error_limit);
	p->junk_command_limit = limit(c->smtpd_junk_command_limit);
	p->error_delay_ms = limit(c->smtpd_error_sleep_time);
	p->line_limit = limit(c->line_length_limit);
	p->auth_line_limit = limit(c->smtpd_sasl_response_limit) + 2;
	if (p->auth_line_limit < p->line_limit)
		p->auth_line_limit = p->line_limit;
	p->hop_limit = limit(c->hopcount_limit);
	p->header_size_limit = 0;
	p->header_section_limit = (size_t)c->header_size_limit * HEADER_SECTION_FACTOR;
	p->header_count_limit = limit(c->header_count_limit);
	p->chunk_limit = limit(c->smtpd_bdat_chunk_limit);
}

/* Clients of the local socket are users of this machine: no TLS, no AUTH, the same limits. */
static void
make_local(struct service_policy *p)
{
	p->local = p->net;
	p->local.extensions &= ~(unsigned)(SMTP_EXT_STARTTLS | SMTP_EXT_AUTH);
	p->local.tls_required = p->local.auth_required = false;
	p->local.strict_pipelining = false;
	p->local.error_delay_ms = 0;
	p->local.hard_error_limit = 0;
	p->local.junk_command_limit = 0;
}

struct service_policy *
service_policy_new(struct daemon *d, enum smtp_service kind)
{
	const struct conf *c = d->conf;
	struct service_policy *sp = xcalloc(1, sizeof(*sp));
	struct smtp_policy *p = &sp->net;
	int level = kind == SMTP_SUBMISSION ? c->submission_tls_security_level
					    : c->smtpd_tls_security_level;

	sp->refs = 1;
	sp->conf = daemon_conf_ref(d);
	sp->wrapper = c->smtpd_tls_wrappermode;
	p->service = kind;
	p->hostname = c->myhostname;
	p->banner = c->smtpd_banner;
	p->origin = c->append_at_myorigin && *c->myorigin ? c->myorigin : NULL;
	p->extensions = offered(c, kind);
	p->tls_required = level == CONF_SERVER_TLS_ENCRYPT;
	p->auth_required = kind == SMTP_SUBMISSION && c->submission_require_auth;
	p->auth_needs_tls = true;
	p->hello_required = kind != SMTP_SMTPD || c->smtpd_helo_required;
	p->vrfy_disabled = c->disable_vrfy_command;
	p->strict_pipelining = c->smtpd_forbid_unauth_pipelining;
	p->mend_bare_lf = c->smtpd_forbid_bare_newline == CONF_BARE_NEWLINE_NO;
	p->auth_mechanisms = "";
	p->auth_mechanisms_tls = join_mechanisms(
	    &sp->arena, &c->auth_mechanisms, kind == SMTP_SUBMISSION && c->auth_external);
	p->forbidden = forbidden;
	p->forbidden_n = sizeof(forbidden) / sizeof(forbidden[0]);
	set_limits(p, c);
	make_local(sp);
	return sp;
}

struct service_policy *
service_policy_ref(struct service_policy *p)
{
	p->refs++;
	return p;
}

void
service_policy_unref(struct service_policy *p)
{
	if (!p || --p->refs)
		return;
	daemon_conf_unref(p->conf);
	arena_free(&p->arena);
	free(p);
}
