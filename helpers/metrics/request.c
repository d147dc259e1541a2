/*
 * As much of HTTP/1.1 (RFC 9112) as a scraper needs: the request line decides, header fields are
 * read over, the connection ends with the reply. Runs in metrics (bh-metrics, empty root); hostile:
 * whoever reaches the address of metrics_listen. Invariant: no reply before the end of the header.
 */
#include "helpers/metrics/metrics.h"

static bool
ends_header(struct slice in)
{
	return slice_search(in, SLICE_LIT("\r\n\r\n")) >= 0 ||
	       slice_search(in, SLICE_LIT("\n\n")) >= 0;
}

static bool
is_printable(struct slice s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < ' ' || s.p[i] > '~')
			return false;
	return true;
}

enum request_kind
request_read(struct slice in)
{
	struct slice line = in, method, path;
	bool head;

	if (!ends_header(in))
		return in.n >= REQUEST_MAX ? REQUEST_TOO_LARGE : REQUEST_MORE;
	line = slice_split(&in, '\n');
	if (line.n && line.p[line.n - 1] == '\r')
		line.n--;
	if (!is_printable(line))
		return REQUEST_BAD;
	method = slice_split(&line, ' ');
	path = slice_split(&line, ' ');
	if (!method.n || !path.n || path.p[0] != '/' || !slice_has_prefix(line, "HTTP/1."))
		return REQUEST_BAD;
	head = slice_eq_str(method, "HEAD");
	if (!head && !slice_eq_str(method, "GET"))
		return REQUEST_METHOD;
	path = slice_split(&path, '?');
	if (!slice_eq_str(path, "/metrics") && !slice_eq_str(path, "/"))
		return REQUEST_NOT_FOUND;
	return head ? REQUEST_HEAD : REQUEST_METRICS;
}

void
request_reply(enum request_kind kind, struct slice body, struct buf *out)
{
	static const char *const status[] = { [REQUEST_MORE] = "408 Request Timeout",
		[REQUEST_METRICS] = "200 OK",
		[REQUEST_HEAD] = "200 OK",
		[REQUEST_NOT_FOUND] = "404 Not Found",
		[REQUEST_METHOD] = "405 Method Not Allowed",
		[REQUEST_BAD] = "400 Bad Request",
		[REQUEST_TOO_LARGE] = "431 Request Header Fields Too Large" };
	bool good = kind == REQUEST_METRICS || kind == REQUEST_HEAD;

	if (!good)
		body = SLICE_NULL;
	buf_addf(out, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n", status[kind],
	    body.n);
	if (good)
		buf_add_str(out, "Content-Type: application/openmetrics-text; version=1.0.0; "
				 "charset=utf-8\r\n");
	if (kind == REQUEST_METHOD)
		buf_add_str(out, "Allow: GET, HEAD\r\n");
	buf_add_str(out, "\r\n");
	if (kind == REQUEST_METRICS)
		buf_add(out, body);
}
