/*
 * Transports and next hops: the transport table, and what "transport:nexthop" of a table or of
 * main.cf makes of a route. Runs in maps (uid bh-maps); the address comes from strangers, the
 * values from the admin: one that cannot be carried out is a deferral that names it.
 */
#include "helpers/maps/resolve.h"

int
resolve_defer(struct resolve_route *out, const char *enhanced, const char *text)
{
	out->status = 2;
	out->enhanced = enhanced;
	out->text = text;
	return 0;
}

/* host, host:port, [host], [host]:port, inet:host:port. */
static void
set_nexthop(struct resolve_route *out, struct slice s, struct arena *a)
{
	if (slice_has_prefix(s, "inet:"))
		s = slice_sub(s, 5, s.n);
	out->nexthop = s;
	if (conf_nexthop_is_path(s))
		resolve_defer(out, "4.3.5",
		    arena_printf(a,
			"%.*s:%.*s is out of reach: smtp-client opens no path; let that server "
			"listen on a port of 127.0.0.1",
			SLICE_ARG(out->transport), SLICE_ARG(s)));
	else
		out->port = (uint16_t)conf_nexthop_port(s, &out->nexthop);
}

static enum route_kind
kind_of(struct slice transport)
{
	if (slice_eq_str(transport, "local") || slice_eq_str(transport, "virtual"))
		return ROUTE_LOCAL;
	if (slice_has_prefix(transport, "lmtp"))
		return ROUTE_LMTP;
	if (slice_eq_str(transport, "error") || slice_eq_str(transport, "retry"))
		return ROUTE_ERROR;
	if (slice_eq_str(transport, "discard"))
		return ROUTE_DISCARD;
	return slice_eq_str(transport, "hold") ? ROUTE_HOLD : ROUTE_SMTP;
}

/* error:[4.x.x|5.x.x] text */
static void
set_error(struct resolve_route *out, struct slice text, struct arena *a, bool temporary)
{
	struct slice rest = text, word = slice_split(&rest, ' ');

	out->status = temporary ? 2 : 1;
	out->enhanced = temporary ? "4.0.0" : "5.0.0";
	if (word.n >= 5 && word.n < 16 && (word.p[0] == '4' || word.p[0] == '5') &&
	    word.p[1] == '.') {
		out->status = word.p[0] == '4' ? 2 : 1;
		out->enhanced = arena_printf(a, "%.*s", SLICE_ARG(word));
		text = slice_trim(rest, false);
	}
	out->text = text.n ? arena_printf(a, "%.*s", SLICE_ARG(text))
			   : "mail for this destination is refused (transport_maps)";
}

void
resolve_transport(
    struct resolve_route *out, struct slice value, struct slice nexthop, struct arena *a)
{
	struct slice rest = value, name = slice_split(&rest, ':');

	if (name.n)
		out->transport = name;
	out->kind = kind_of(out->transport);
	if (!conf_transport_known(out->transport))
		resolve_defer(out, "4.3.0",
		    arena_printf(a,
			"mail transport unavailable: there is no transport \"%.*s\"; correct "
			"transport_maps",
			SLICE_ARG(out->transport)));
	else if (out->kind == ROUTE_ERROR)
		set_error(out, slice_trim(rest, true), a, slice_eq_str(out->transport, "retry"));
	else
		set_nexthop(out, rest.n ? rest : nexthop, a);
}

int
resolve_transport_lookup(const struct resolver *r, const struct resolve_address *addr,
    struct arena *a, struct slice *value_r)
{
	struct slice domain = addr->domain;
	struct buf value = { 0 };
	int err;

	if (!r->ops->defined(r->ctx, TABLE_TRANSPORT))
		return ERR_NOT_FOUND;
	err = r->ops->lookup(r->ctx, TABLE_TRANSPORT, addr->full, true, &value);
	if (err == ERR_NOT_FOUND && addr->extension.p)
		err = r->ops->lookup(r->ctx, TABLE_TRANSPORT,
		    slice_str(arena_printf(
			a, "%.*s@%.*s", SLICE_ARG(addr->user), SLICE_ARG(addr->domain))),
		    false, &value);
	if (err == ERR_NOT_FOUND)
		err = r->ops->lookup(r->ctx, TABLE_TRANSPORT, domain, false, &value);
	while (err == ERR_NOT_FOUND && domain.n && domain.p[0] != '[') {
		slice_split(&domain, '.');
		if (domain.n) /* .parent, with the dot that stands before it */
			err = r->ops->lookup(r->ctx, TABLE_TRANSPORT,
			    slice(domain.p - 1, domain.n + 1), false, &value);
	}
	if (err == ERR_NOT_FOUND)
		err = r->ops->lookup(r->ctx, TABLE_TRANSPORT, SLICE_LIT("*"), false, &value);
	if (!err)
		*value_r = arena_dup(a, slice_trim(buf_slice(&value), true));
	buf_free(&value);
	return err;
}
