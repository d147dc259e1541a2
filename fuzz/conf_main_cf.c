/* Fuzzes main.cf as a whole: lines, names, expansion, every type, and the snapshot of what results.
 */
#include "conf/conf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf_problems p = { 0 };
	struct conf_raw *raw = conf_raw_new("mx.example.org");
	struct conf *conf, *copy;
	struct buf out = { 0 };
	int err;

	conf_raw_read_files(raw, false);
	conf_raw_parse(raw, "main.cf", slice(data, size), &p);
	conf_raw_check_names(raw, &p);
	conf = conf_eval(raw, NULL, 0, &p);
	/* whatever the text was, the result is complete and its snapshot is valid */
	if (conf_snapshot_encode(conf, "smtpd", &out) ||
	    ((err = conf_snapshot_decode(buf_slice(&out), NULL, &copy)) && err != ERR_LIMIT))
		abort();
	conf_free(&copy);
	buf_clear(&out);
	for (size_t i = 0; i < p.n; i++) {
		conf_problem_format(&p.v[i], &out);
		if (slice_find(buf_slice(&out), '\n') >= 0)
			abort();
	}
	buf_free(&out);
	conf_free(&conf);
	conf_raw_free(&raw);
	conf_problems_free(&p);
	return 0;
}
