/*
 * bounce: composes delivery status notifications and submits them as any receiver does. Runs as
 * bh-bounce in an empty root. Hostile: the content of failed messages, which it carries and does
 * not interpret.
 */
#include "helpers/bounce/bounce.h"

int
main(int argc, char **argv)
{
	return daemon_run(argc, argv, &bounce_desc);
}
