/* Any bytes as a message: what decodes must encode to the same bytes again. */
#include "ipc/msgs.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct msg m;
	struct buf again = { 0 }, text = { 0 };

	if (msg_decode(slice(data, size), &m))
		return 0;
	msg_encode(&again, &m);
	if (!slice_eq(buf_slice(&again), slice(data, size)))
		abort();
	msg_print(&text, &m);
	buf_free(&again);
	buf_free(&text);
	return 0;
}
