/* Fuzz target: the conversion to 7-bit lines. What has been converted needs no conversion. */
#include "smtp/client_convert.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf once = { 0 }, twice = { 0 };

	client_convert(slice(data, size), &once);
	client_convert(buf_slice(&once), &twice);
	if (!slice_eq(buf_slice(&once), buf_slice(&twice)))
		abort();
	buf_free(&once);
	buf_free(&twice);
	return 0;
}
