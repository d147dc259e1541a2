/* sd_notify(3)'s protocol: one datagram to the socket that NOTIFY_SOCKET names, where it is set. */
#include "master/master.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void
notify(const char *state)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd;

	if (!path || slice_copy(slice_str(path), addr.sun_path, sizeof(addr.sun_path)))
		return;
	if (addr.sun_path[0] == '@')
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&addr,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) < 0)
		log_event(LOG_notify_failed, "socket=%s reason=\"%s\"", log_cstr(path),
		    err_str(err_errno()));
	close(fd);
}
