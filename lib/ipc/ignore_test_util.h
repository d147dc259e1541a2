/* The handlers of a channel whose owner hears nothing, for tests that look at its far end. */
#ifndef IPC_IGNORE_TEST_UTIL_H
#define IPC_IGNORE_TEST_UTIL_H

#include "ipc/chan.h"

static inline void
ignore_message(void *ctx, struct ipc_chan *ch, struct msg *m)
{
	(void)ctx, (void)ch, (void)m;
}

static inline void
ignore_closed(void *ctx, struct ipc_chan *ch, int err, const char *why)
{
	(void)ctx, (void)ch, (void)err, (void)why;
}

static const struct ipc_ops ignore_ops = { ignore_message, ignore_closed };

#endif
