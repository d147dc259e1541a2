/* The addresses of this machine's interfaces. */
#ifndef MAPS_OWN_H
#define MAPS_OWN_H

#include "base/slice.h"

struct own;

/* As they are now. Before the jail, which lets no socket be made. */
struct own *own_new(void);
/* literal: what stands in the brackets, without "IPv6:". */
bool own_has(const struct own *own, struct slice literal);

#endif
