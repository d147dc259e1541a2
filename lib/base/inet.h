/* IP addresses as 16 bytes (IPv4 mapped into ::ffff:0:0/96), networks, and their texts. */
#ifndef BASE_INET_H
#define BASE_INET_H

#include "base/slice.h"

#include <sys/socket.h>

#define INET_TEXT 48 /* room for any address as text, with NUL */

struct inet_addr {
	unsigned char b[16];
};

/* "192.0.2.1", "2001:db8::1", either in brackets. ERR_SYNTAX. */
int inet_parse(struct slice text, struct inet_addr *out_r) CHECKED;
/* Dotted quad for mapped addresses, else RFC 5952. */
void inet_format(const struct inet_addr *a, char out_r[INET_TEXT]);
bool inet_is_v4(const struct inet_addr *a);
/* From a socket address of either family; port_r may be NULL. ERR_SYNTAX for other families. */
int inet_from_sockaddr(
    const struct sockaddr_storage *ss, struct inet_addr *out_r, uint16_t *port_r) CHECKED;
/* The first bits bits are kept, the rest is zero (bits counts from the top of the 16 bytes). */
struct inet_addr inet_mask(const struct inet_addr *a, unsigned bits);
/*
 * Whether a lies in the networks of a list of words as mynetworks has it: "ADDRESS",
 * "ADDRESS/BITS",
 * "[v6]/BITS"; "!" in front leaves out; the first word that matches decides. Words that are no
 * network never match: the configuration check refuses them.
 */
bool inet_in_list(const struct inet_addr *a, const char *const *words, size_t n);

#endif
