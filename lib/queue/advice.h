/* What an admin can do about a delivery that did not succeed, by its status code (RFC 3463). */
#ifndef QUEUE_ADVICE_H
#define QUEUE_ADVICE_H

/* text is that of the attempt: what a next hop said is for its postmaster, whatever its code. "" if
 * the text itself says all there is to say. */
const char *advice_for(const char *enhanced, const char *text);
/* The nth row of the table, for the tools: false behind its end. */
int advice_row(unsigned n, const char **code_r, const char **advice_r);

#endif
