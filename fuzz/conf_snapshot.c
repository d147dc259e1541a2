/* Fuzzes the decoder of snapshots: what it takes it must encode to the same bytes again. */
#include "conf/conf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf *conf;
	struct buf out = { 0 };
	const char *role;

	if (conf_snapshot_decode(slice(data, size), &role, &conf))
		return 0;
	if (conf_snapshot_encode(conf, role, &out) || !slice_eq(buf_slice(&out), slice(data, size)))
		abort();
	buf_free(&out);
	conf_free(&conf);
	return 0;
}
