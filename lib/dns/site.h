/* Sites: domains whose mail goes to the same hosts share limits and connections. */
#ifndef DNS_SITE_H
#define DNS_SITE_H

#include "base/slice.h"

#define DNS_SITE_SIZE 16

/* The key of a set of mail hosts: the same for every order, letter case and repetition, in every
 * process and on every run; no two sets are known that share one (it is cut from a SHA-256). The
 * names are C strings without a last dot. */
void dns_site_key(const char *const *hosts, size_t n, unsigned char key_r[DNS_SITE_SIZE]);

#endif
