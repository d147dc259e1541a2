/*
 * MAIL and RCPT. Grammar of RFC 5321 4.1.1.2, 4.1.1.3:
 *   mail = "MAIL FROM:" Reverse-path [SP Mail-parameters] CRLF
 *   rcpt = "RCPT TO:" ( "<Postmaster@" Domain ">" / "<Postmaster>" / Forward-path )
 *          [SP Rcpt-parameters] CRLF
 * with the parameters of RFC 1870, 3030, 3461, 4954, 6152, 6531. Runs in smtpd and submission on
 * hostile input. Invariants: a parameter is taken only if its extension is offered and EHLO was
 * sent, and at most once; a failed MAIL leaves no transaction.
 */
#include "smtp/params.h"
#include "smtp/server_priv.h"

#define ENVELOPE_ROOM ((size_t)1 << 20)

/* Returns false after a reply. */
typedef bool param_handler(struct smtp_server *s, const struct smtp_param *p, void *into);

struct param {
	const char *keyword;
	unsigned extension; /* 0: always */
	bool needs_value;
	param_handler *take;
};

static bool
bad_value(struct smtp_server *s)
{
	SMTP_SAY(s, 501, "5.5.4", "Error: bad parameter value");
	return false;
}

static bool
take_size(struct smtp_server *s, const struct smtp_param *p, void *into)
{
	struct smtp_tx *tx = into;
	uint64_t limit = s->policy->size_limit;
	int err =
	    p->value.n <= 20 ? slice_u64(p->value, UINT64_MAX, &tx->declared_size) : ERR_SYNTAX;

	if (err == ERR_SYNTAX)
		return bad_value(s);
	if (err || (limit && tx->declared_size > limit)) {
		SMTP_SAY_LIMIT(
		    s, 552, "5.3.4", "Message size exceeds fixed limit", "message_size_limit");
		return false;
	}
	return true;
}

static bool
take_body(struct smtp_server *s, const struct smtp_param *p, void *into)
{
	struct smtp_tx *tx = into;

	if (slice_caseeq_str(p->value, "7BIT"))
		tx->body = SMTP_BODY_7BIT;
	else if (slice_caseeq_str(p->value, "8BITMIME"))
		tx->body = SMTP_BODY_8BITMIME;
	else if (slice_caseeq_str(p->value, "BINARYMIME") && smtp_offers(s, SMTP_EXT_BINARYMIME))
		tx->body = SMTP_BODY_BINARYMIME;
	else
		return bad_value(s);
	return true;
}

static bool
take_smtputf8(struct smtp_server *s, const struct smtp_param *p, void *into)
{
	struct smtp_tx *tx = into;

	(void)s;
	(void)p;
	tx->smtputf8 = true;
	return true;
}

static bool
take_ret(struct smtp_server *s, const struct smtp_param *p, void *into)
{
	struct smtp_tx *tx = into;

	if (slice_caseeq_str(p->value, "FULL"))
		tx->ret = SMTP_RET_FULL;
	else if (slice_caseeq_str(p->value, "HDRS"))
		tx->ret = SMTP_RET_HDRS;
	else
		return bad_value(s);
	return true;
}

static bool
take_envid(struct smtp_server *s, const struct smtp_param *p, void *into)
{
	struct smtp_tx *tx = into;

	if (p->value.n > 100 || !xtext_valid(p->value))
		return bad_value(s);
	tx->envid = arena_dup(&tx->arena, p->value);
	return true;
}

/* RFC 4954 5: "<>" or a mailbox as xtext. Kept for the log; nobody is believed. */
static bool
take_auth(struct smtp_server *s, const struct smtp_param *p, void *into)
{
	struct smtp_tx *tx = into;

	if (p->value.n > 500 || (!slice_eq_str(p->value, "<>") && !xtext_valid(p->value)))
		return bad_value(s);
	tx->auth = arena_dup(&tx->arena, p->value);
	return true;
}

static bool
take_notify(struct smtp_server *s, const struct smtp_param *p, void *into)
{
	struct smtp_rcpt *rcpt = into;

	return !dsn_notify_parse(p->value, &rcpt->notify) || bad_value(s);
}

static bool
take_orcpt(struct smtp_server *s, const struct smtp_param *p, void *into)
{
	struct smtp_rcpt *rcpt = into;

	if (p->value.n > 500 || !dsn_orcpt_valid(p->value))
		return bad_value(s);
	rcpt->orcpt = arena_dup(&s->tx.arena, p->value);
	return true;
}

static const struct param mail_params[] = {
	{ "SIZE", SMTP_EXT_SIZE, true, take_size },
	{ "BODY", SMTP_EXT_8BITMIME, true, take_body },
	{ "SMTPUTF8", SMTP_EXT_SMTPUTF8, false, take_smtputf8 },
	{ "RET", SMTP_EXT_DSN, true, take_ret },
	{ "ENVID", SMTP_EXT_DSN, true, take_envid },
	{ "AUTH", SMTP_EXT_AUTH, true, take_auth },
	{ NULL, 0, false, NULL },
};

static const struct param rcpt_params[] = {
	{ "NOTIFY", SMTP_EXT_DSN, true, take_notify },
	{ "ORCPT", SMTP_EXT_DSN, true, take_orcpt },
	{ NULL, 0, false, NULL },
};

/* AUTH= stays good after AUTH, when the keyword is no longer offered. */
static const struct param *
find_param(const struct smtp_server *s, const struct param *table, struct slice keyword)
{
	for (; table->keyword; table++)
		if (slice_caseeq_str(keyword, table->keyword))
			return table->extension & s->policy->extensions ? table : NULL;
	return NULL;
}

static bool
take_params(struct smtp_server *s, struct slice args, const struct param *table, void *into)
{
	struct smtp_param p;
	unsigned seen = 0;
	int err;

	while (!(err = smtp_param_next(&args, s->tx.smtputf8, &p))) {
		const struct param *known = s->esmtp ? find_param(s, table, p.keyword) : NULL;
		if (!known) {
			SMTP_SAY(s, 555, "5.5.4", "Error: parameter not recognized");
			return false;
		}
		if (seen & 1u << (known - table) || known->needs_value != p.has_value) {
			SMTP_SAY(s, 501, "5.5.4", "Error: bad parameter syntax");
			return false;
		}
		seen |= 1u << (known - table);
		if (!known->take(s, &p, into))
			return false;
	}
	if (err == ERR_NOT_FOUND)
		return true;
	SMTP_SAY(s, 501, "5.5.4", "Error: bad parameter syntax");
	return false;
}

/* "FROM:" or "TO:", and blanks that are not in the grammar but common. */
static bool
skip_word(struct slice *args, const char *word)
{
	if (!slice_has_caseprefix(*args, word))
		return false;
	*args = slice_sub(*args, strlen(word), args->n);
	while (args->n && args->p[0] == ' ')
		*args = slice_sub(*args, 1, args->n);
	return true;
}

/* The canonical text of a parsed address, with the origin where it has no domain. */
static int
keep_address(struct smtp_server *s, const struct address *a, struct slice *out_r)
{
	struct buf text;
	int err;

	*out_r = SLICE_NULL;
	buf_init(&text, 0);
	err = address_canonical(a, &text);
	if (!err && a->local.n && !a->domain.n)
		buf_addf(&text, "@%s", s->policy->origin ? s->policy->origin : s->policy->hostname);
	if (!err)
		*out_r = arena_dup(&s->tx.arena, buf_slice(&text));
	buf_free(&text);
	return err;
}

/* Whether SMTPUTF8 stands among the parameters: the path in front of it depends on it. */
static bool
asks_for_utf8(struct slice args)
{
	struct smtp_param p;

	while (!smtp_param_next(&args, true, &p))
		if (slice_caseeq_str(p.keyword, "SMTPUTF8"))
			return true;
	return false;
}

static void
refuse_sender(struct smtp_server *s, int err)
{
	if (err == ERR_DENIED)
		SMTP_SAY(s, 550, "5.6.7", "Error: non-ASCII address needs SMTPUTF8");
	else if (err == ERR_LIMIT)
		SMTP_SAY(s, 501, "5.1.7", "Error: sender address too long");
	else
		SMTP_SAY(s, 501, "5.1.7", "Bad sender address syntax");
}

static bool
parse_mail(struct smtp_server *s, struct slice args)
{
	struct address a;
	int err;

	if (!skip_word(&args, "FROM:")) {
		SMTP_SAY(s, 501, "5.5.4", "Syntax: MAIL FROM:<address> [parameters]");
		return false;
	}
	err = address_parse_path(&args, ADDRESS_NO_DOMAIN | ADDRESS_UTF8, &a);
	if (!err && args.n && args.p[0] != ' ')
		err = ERR_SYNTAX;
	s->tx.smtputf8 = !err && asks_for_utf8(args);
	if (!err && a.utf8 && !(s->tx.smtputf8 && smtp_offers(s, SMTP_EXT_SMTPUTF8)))
		err = ERR_DENIED;
	if (!err && a.local.n && !a.domain.n && !s->policy->origin &&
	    !slice_caseeq_str(a.local, "postmaster"))
		err = ERR_SYNTAX;
	if (!err)
		err = keep_address(s, &a, &s->tx.sender);
	if (err) {
		refuse_sender(s, err);
		return false;
	}
	return take_params(s, args, mail_params, &s->tx);
}

void
smtp_do_mail(struct smtp_server *s, struct slice args)
{
	if (s->state == SMTP_HELLO && s->policy->hello_required) {
		SMTP_SAY(s, 503, "5.5.1", "Error: send EHLO first");
		return;
	}
	smtp_tx_end(s);
	if (!parse_mail(s, args)) {
		smtp_tx_end(s);
		return;
	}
	s->tx.active = true;
	s->wait = WAIT_MAIL;
	if (s->ops->check_mail)
		s->ops->check_mail(s->ctx, s);
	else
		smtp_server_answer_mail(s, NULL);
}

void
smtp_server_answer_mail(struct smtp_server *s, const struct reply *r)
{
	if (s->wait != WAIT_MAIL)
		return;
	s->wait = WAIT_NONE;
	if (!r || reply_is_good(r)) {
		smtp_set_state(s, SMTP_MAIL);
		SMTP_SAY(s, 250, "2.1.0", "Ok");
	} else {
		smtp_send(s, r);
		smtp_tx_end(s);
	}
	smtp_server_resume(s);
}

static bool
parse_rcpt(struct smtp_server *s, struct slice args, struct smtp_rcpt *rcpt)
{
	struct address a;
	int err;

	if (!skip_word(&args, "TO:")) {
		SMTP_SAY(s, 501, "5.5.4", "Syntax: RCPT TO:<address> [parameters]");
		return false;
	}
	err = address_parse_path(&args, ADDRESS_NO_DOMAIN | ADDRESS_UTF8, &a);
	if (!err && (address_is_null(&a) || (args.n && args.p[0] != ' ')))
		err = ERR_SYNTAX;
	if (!err && a.utf8 && !s->tx.smtputf8)
		err = ERR_DENIED;
	if (!err && !a.domain.n && !s->policy->origin && !slice_caseeq_str(a.local, "postmaster"))
		err = ERR_SYNTAX;
	if (!err)
		err = keep_address(s, &a, &rcpt->address);
	if (err == ERR_DENIED)
		SMTP_SAY(s, 553, "5.6.7", "Error: non-ASCII address needs SMTPUTF8");
	else if (err)
		SMTP_SAY(s, 501, "5.1.3", "Bad recipient address syntax");
	return !err && take_params(s, args, rcpt_params, rcpt);
}

/* Many clients send more than the limit and take the 452 as "the rest in a second transaction":
 * that is no error until it goes too far. */
static void
too_many_recipients(struct smtp_server *s)
{
	SMTP_SAY_LIMIT(s, 452, "4.5.3", "Error: too many recipients", "smtpd_recipient_limit");
	if (s->tx.rcpt_overshoot++ < s->policy->recipient_overshoot && s->errors)
		s->errors--;
}

/* Refused recipients take room too, and a client of the local socket may make any number of errors:
 * an envelope has 4 KiB for each that it may have. */
static bool
is_crammed(const struct smtp_server *s)
{
	size_t room = (size_t)s->policy->recipient_limit * 4096;

	return s->policy->recipient_limit &&
	       s->tx.arena.used > (room < ENVELOPE_ROOM ? ENVELOPE_ROOM : room);
}

void
smtp_do_rcpt(struct smtp_server *s, struct slice args)
{
	struct smtp_rcpt *rcpt;

	if (is_crammed(s) ||
	    (s->policy->recipient_limit && s->tx.rcpt_count >= s->policy->recipient_limit)) {
		too_many_recipients(s);
		return;
	}
	rcpt = arena_alloc(&s->tx.arena, sizeof(*rcpt));
	if (!parse_rcpt(s, args, rcpt))
		return;
	s->candidate = rcpt;
	s->wait = WAIT_RCPT;
	s->ops->check_rcpt(s->ctx, s, rcpt);
}

void
smtp_server_answer_rcpt(struct smtp_server *s, const struct reply *r)
{
	struct smtp_rcpt *rcpt = s->candidate;

	if (s->wait != WAIT_RCPT)
		return;
	s->wait = WAIT_NONE;
	s->candidate = NULL;
	if (!r || reply_is_good(r)) {
		STAILQ_INSERT_TAIL(&s->tx.rcpts, rcpt, next);
		s->tx.rcpt_count++;
		smtp_set_state(s, SMTP_RCPT);
	}
	if (r)
		smtp_send(s, r);
	else
		SMTP_SAY(s, 250, "2.1.5", "Ok");
	smtp_server_resume(s);
}
