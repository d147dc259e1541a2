/* Names that are answered without DNS: localhost (RFC 6761 6.3) and those of dns_hosts. */
#ifndef DNS_HOSTS_H
#define DNS_HOSTS_H

#include "base/hash.h"
#include "conf/conf.h"
#include "dns/message.h"

struct hosts {
	struct hash by_name;
};

/* "name=address" each; an address may be IPv4, or IPv6 with or without brackets. ERR_SYNTAX with
 * the word in *bad_r. */
int hosts_load(struct hosts *h, const struct conf_list *list, const char **bad_r) CHECKED;
/* A new answer if the name is known (without data for other types than addresses), else NULL. */
struct dns_answer *hosts_answer(
    const struct hosts *h, const struct dns_name *name, enum dns_type type);
void hosts_free(struct hosts *h);

#endif
