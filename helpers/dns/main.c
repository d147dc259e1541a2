/*
 * dns: the only process that speaks DNS (uid bh-dns, an empty root, UDP and TCP sockets and nothing
 * else). Peers ask for the name of a client, the mail hosts or the site of a domain, and plain
 * records. Hostile: answers from the network, and the names in requests, which strangers chose.
 * Invariants: every request gets one answer unless its channel dies; nothing blocks; requests under
 * way are bounded.
 */
#include "lookup.h"

int
main(int argc, char **argv)
{
	return daemon_run(argc, argv, &dnsd_desc);
}
