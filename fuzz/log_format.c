/*
 * Fuzz target: records of the log as any daemon may write them, and what reaches metrics: requests
 * over HTTP and the counters of a daemon that was taken over. Checked: a record is one line in each
 * format, JSON is JSON; the page of metrics ends as it must and no label breaks a line.
 */
#include "helpers/log/format.h"
#include "fuzz/must.h"
#include "helpers/metrics/metrics.h"

#include <jansson.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
one_line(struct buf *b, bool newline)
{
	struct slice s = buf_slice(b);

	must(slice_find(s, '\n') == (newline ? (ptrdiff_t)s.n - 1 : -1));
	for (size_t i = 0; i + newline < s.n; i++)
		must(s.p[i] >= ' ');
}

static void
log_record(uint8_t kind, struct slice in)
{
	struct item_log_record r = { .time = (uint64_t)kind << 56 | 1764100000000000,
		.level = kind };
	struct log_line l = {
		.record = &r, .role = kind, .pid = 7, .host = "mx", .name = "bulkhead"
	};
	struct buf b = { 0 };
	json_t *o;

	if (slice_find(in, 0) >= 0)
		return; /* the decoder of messages refuses it */
	r.event = slice_split(&in, ' ');
	r.text = in;
	format_text(&b, &l);
	one_line(&b, true);
	buf_clear(&b);
	format_syslog(&b, &l);
	one_line(&b, false);
	buf_clear(&b);
	format_json(&b, &l);
	one_line(&b, true);
	o = json_loadb((const char *)buf_slice(&b).p, buf_len(&b), 0, NULL);
	must(o && json_object_get(o, "event") &&
	     json_integer_value(json_object_get(o, "pid")) == 7 &&
	     !strcmp(json_string_value(json_object_get(o, "host")), "mx"));
	json_decref(o);
	buf_free(&b);
}

static void
counters(struct slice in)
{
	struct families f;
	struct buf out = { 0 };
	struct cursor c = cursor(in);
	struct msg_metrics_service service = { .ready = 1 };
	struct msg_metrics_stats stats = { .service = cursor_u8(&c) };

	service.program = cursor_bytes(&c, cursor_u8(&c) % 65);
	service.service = cursor_bytes(&c, cursor_u8(&c) % 129);
	stats.extra = cursor_bytes(&c, cursor_u16(&c));
	stats.values = cursor_rest(&c);
	families_init(&f);
	families_service(&f, &service);
	families_stats(&f, &stats);
	families_stats(&f, &stats);
	families_format(&f, &out);
	must(slice_has_suffix(buf_slice(&out), "# EOF\n"));
	for (struct slice rest = buf_slice(&out); rest.n;) {
		struct slice line = slice_split(&rest, '\n');
		must(slice_has_prefix(line, "# ") || slice_has_prefix(line, "bulkhead_"));
	}
	buf_free(&out);
	families_free(&f);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in;
	struct buf reply = { 0 };

	if (size < 2)
		return 0;
	in = slice(data + 2, size - 2);
	if (data[0] % 4 == 0) {
		request_reply(request_read(in), SLICE_LIT("x\n"), &reply);
		must(slice_has_prefix(buf_slice(&reply), "HTTP/1.1 "));
	} else if (data[0] % 4 == 1) {
		counters(in);
	} else {
		log_record(data[1], in);
	}
	buf_free(&reply);
	return 0;
}
