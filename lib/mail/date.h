/* RFC 5322 date-time, both ways. */
#ifndef MAIL_DATE_H
#define MAIL_DATE_H

#include "base/slice.h"

#define DATE_BUF_SIZE 40

/*
 * Reads a Date field body, obsolete forms, comments and missing day name, seconds or zone included
 * (a missing or unknown zone is UTC). *zone_r (may be NULL) gets the offset in minutes east.
 * ERR_SYNTAX if there is no date in it.
 */
int date_parse(struct slice s, int64_t *unix_r, int *zone_r) CHECKED;

/* "Wed, 25 Nov 2026 19:38:00 +0100", for an offset of zone minutes east of UTC. */
void date_format(int64_t unix_time, int zone, char out_r[DATE_BUF_SIZE]);

/* The local zone's offset at that time in minutes east. Needs the time zone read before the jail
 * (tzset). */
int date_local_zone(int64_t unix_time);

/* Days since 1970-01-01 of a proleptic Gregorian date, and back. month 1-12. */
int64_t date_days(int year, int month, int day);
void date_civil(int64_t days, int *year_r, int *month_r, int *day_r);

/* "Jan" ... "Dec" */
extern const char date_months[12][4];

#endif
