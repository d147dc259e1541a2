/*
 * Fuzz target: lines of the log as `bulkhead trace` reads them. The first byte: a record that is
 * written in each format and read back (even), or any line (odd). Checked: what was read back names
 * the same event and the same queue ID, whatever the other values are.
 */
#include "daemon/log.h"
#include "fuzz/must.h"
#include "helpers/log/format.h"
#include "tools/trace_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
read_back(struct buf *line)
{
	struct arena arena = { 0 };
	struct slice out[4];

	must(trace_parse(slice_trim(buf_slice(line), true), &arena, out));
	must(slice_eq_str(out[2], "delivery"));
	must(slice_eq_str(trace_value(out[3], "qid"), "4ABCDEF"));
	arena_free(&arena);
	buf_clear(line);
}

static void
written(struct slice value)
{
	struct item_log_record r = { .time = 1764100000000000, .level = LOG_INFO_ };
	struct log_line l = {
		.record = &r, .role = ROLE_QMGR, .pid = 7, .host = "mx", .name = "bulkhead"
	};
	struct buf text = { 0 }, line = { 0 };

	buf_addf(&text, "from=<%s> text=%s qid=4ABCDEF", log_value(value), log_value(value));
	r.event = SLICE_LIT("delivery");
	r.text = buf_slice(&text);
	format_text(&line, &l);
	read_back(&line);
	format_json(&line, &l);
	read_back(&line);
	buf_free(&text);
	buf_free(&line);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice in = slice(data + 1, size - 1), out[4];
	struct arena arena = { 0 };

	if (!size)
		return 0;
	if (data[0] % 2 == 0) {
		written(in);
		return 0;
	}
	if (trace_parse(in, &arena, out)) {
		(void)trace_value(out[3], "qid");
		(void)trace_value(out[3], "sid");
	}
	arena_free(&arena);
	return 0;
}
