/* One record with its descriptor, to and from a socket: for lib/ipc only. */
#ifndef IPC_WIRE_H
#define IPC_WIRE_H

#include <stddef.h>

struct msghdr;

/* One record to the socket, with a descriptor unless fd is -1: 0, -EAGAIN, or another error. */
int ipc_transmit(int sock, const void *data, size_t n, int fd);
/* The descriptor of a record that was received: -1 none, -2 more than one (all are closed). */
int ipc_take_fd(struct msghdr *head);

#endif
