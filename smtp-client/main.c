/*
 * smtp-client: sends mail over SMTP and LMTP (uid bh-client, an empty root; Landlock lets it
 * connect to the ports that next hops name, and to nothing where the kernel is older than that).
 * One process holds many connections on one loop. Hostile: what servers say, and DNS behind the dns
 * daemon; qmgr is believed about what to send where. Holds the content of the messages in its
 * hands, and a smarthost's password for the length of one AUTH PLAIN.
 */
#include "sender.h"

int
main(int argc, char **argv)
{
	return daemon_run(argc, argv, &sender_desc);
}
