/*
 * Dates of message headers. Runs in receivers, bounce, smtp-client and imapd sessions; the text is
 * hostile. No locale and no time zone file is used but by date_local_zone. Invariant: arithmetic
 * stays within int64 because every number read is bounded.
 */
#include "mail/date.h"

#include <stdio.h>
#include <time.h>

const char date_months[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep",
	"Oct", "Nov", "Dec" };
static const char days[7][4] = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" };

static const struct {
	const char *name;
	int minutes;
} zones[] = {
	{ "UT", 0 },
	{ "GMT", 0 },
	{ "UTC", 0 },
	{ "Z", 0 },
	{ "EST", -300 },
	{ "EDT", -240 },
	{ "CST", -360 },
	{ "CDT", -300 },
	{ "MST", -420 },
	{ "MDT", -360 },
	{ "PST", -480 },
	{ "PDT", -420 },
	{ "CET", 60 },
	{ "CEST", 120 },
	{ "MET", 60 },
	{ "BST", 60 },
};

/* Years are counted from March, so that the leap day is the last of its year. */
int64_t
date_days(int year, int month, int day)
{
	int64_t y = month <= 2 ? year - 1 : year;
	int64_t era = (y >= 0 ? y : y - 399) / 400;
	int64_t year_of_era = y - era * 400;
	int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

	return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
	       day_of_year - 719468;
}

void
date_civil(int64_t n, int *year_r, int *month_r, int *day_r)
{
	int64_t era, doe, yoe, doy, mp;

	n += 719468;
	era = (n >= 0 ? n : n - 146096) / 146097;
	doe = n - era * 146097;
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	*day_r = (int)(doy - (153 * mp + 2) / 5 + 1);
	*month_r = (int)(mp < 10 ? mp + 3 : mp - 9);
	*year_r = (int)(yoe + era * 400 + (*month_r <= 2));
}

/* 1-12 for "Jan" ... "Dec" in any case, 0 for anything else. */
static int
date_month(struct slice s)
{
	for (int i = 0; i < 12; i++)
		if (slice_caseeq_str(s, date_months[i]))
			return i + 1;
	return 0;
}

/* Skips blanks, folds and nested comments. */
static void
skip_cfws(struct slice *s)
{
	size_t depth = 0, i = 0;

	for (; i < s->n; i++) {
		unsigned char c = s->p[i];
		if (c == '(')
			depth++;
		else if (c == ')' && depth)
			depth--;
		else if (c == '\\' && depth && i + 1 < s->n)
			i++;
		else if (!depth && c != ' ' && c != '\t' && c != '\r' && c != '\n')
			break;
	}
	*s = slice_sub(*s, i, s->n);
}

static struct slice
take_alpha(struct slice *s)
{
	struct slice word;
	size_t i = 0;

	while (i < s->n && ascii_is_alpha(s->p[i]))
		i++;
	word = slice_sub(*s, 0, i);
	*s = slice_sub(*s, i, s->n);
	skip_cfws(s);
	return word;
}

static int
take_number(struct slice *s, size_t max_digits, int *out_r, size_t *digits_r)
{
	uint64_t value;
	size_t i = 0;
	int err;

	while (i < s->n && i < max_digits && ascii_is_digit(s->p[i]))
		i++;
	err = slice_u64(slice_sub(*s, 0, i), 99999, &value);
	if (err)
		return err;
	*out_r = (int)value;
	if (digits_r)
		*digits_r = i;
	*s = slice_sub(*s, i, s->n);
	skip_cfws(s);
	return 0;
}

static bool
take_byte(struct slice *s, unsigned char c)
{
	if (!s->n || s->p[0] != c)
		return false;
	*s = slice_sub(*s, 1, s->n);
	skip_cfws(s);
	return true;
}

/* date = day month year; obs-year of two or three digits (RFC 5322 4.3). */
static int
take_date(struct slice *s, int64_t *days_r)
{
	static const unsigned char month_days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30,
		31 };
	int day, month, year;
	size_t digits;

	if (take_number(s, 2, &day, NULL))
		return ERR_SYNTAX;
	take_byte(s, '-');
	month = date_month(take_alpha(s));
	take_byte(s, '-');
	if (!month || take_number(s, 5, &year, &digits) || digits < 2)
		return ERR_SYNTAX;
	if (digits == 2)
		year += year < 50 ? 2000 : 1900;
	else if (digits == 3)
		year += 1900;
	if (day < 1 || day > month_days[month - 1] || year < 1583)
		return ERR_SYNTAX;
	*days_r = date_days(year, month, day);
	return 0;
}

static int
take_time(struct slice *s, int64_t *seconds_r)
{
	int hour, minute, second = 0;

	if (take_number(s, 2, &hour, NULL))
		return ERR_SYNTAX;
	if (!take_byte(s, ':') && !take_byte(s, '.'))
		return ERR_SYNTAX;
	if (take_number(s, 2, &minute, NULL))
		return ERR_SYNTAX;
	if ((take_byte(s, ':') || take_byte(s, '.')) && take_number(s, 2, &second, NULL))
		return ERR_SYNTAX;
	if (hour > 23 || minute > 59 || second > 60)
		return ERR_SYNTAX;
	*seconds_r = hour * 3600 + minute * 60 + second;
	return 0;
}

/* zone = ("+" / "-") 4DIGIT / name; single letters other than Z and unknown names are UTC, as
 * RFC 5322 4.3 says. */
static int
take_zone(struct slice *s)
{
	struct slice name;
	int value, sign;

	if (s->n && (s->p[0] == '+' || s->p[0] == '-')) {
		sign = s->p[0] == '-' ? -1 : 1;
		*s = slice_sub(*s, 1, s->n);
		if (take_number(s, 4, &value, NULL) || value % 100 > 59 || value > 2400)
			return 0;
		return sign * (value / 100 * 60 + value % 100);
	}
	name = take_alpha(s);
	for (size_t i = 0; i < sizeof(zones) / sizeof(zones[0]); i++)
		if (slice_caseeq_str(name, zones[i].name))
			return zones[i].minutes;
	return 0;
}

int
date_parse(struct slice s, int64_t *unix_r, int *zone_r)
{
	int64_t day_count, seconds;
	int zone;

	*unix_r = 0;
	skip_cfws(&s);
	if (s.n && ascii_is_alpha(s.p[0])) {
		take_alpha(&s);
		take_byte(&s, ',');
	}
	if (take_date(&s, &day_count) || take_time(&s, &seconds))
		return ERR_SYNTAX;
	zone = take_zone(&s);
	*unix_r = day_count * 86400 + seconds - (int64_t)zone * 60;
	if (zone_r)
		*zone_r = zone;
	return 0;
}

void
date_format(int64_t unix_time, int zone, char out_r[DATE_BUF_SIZE])
{
	int64_t local = unix_time + (int64_t)zone * 60, day_count, second;
	int year, month, day, offset = zone < 0 ? -zone : zone;

	day_count = local / 86400;
	second = local % 86400;
	if (second < 0) {
		second += 86400;
		day_count--;
	}
	date_civil(day_count, &year, &month, &day);
	snprintf(out_r, DATE_BUF_SIZE, "%s, %d %s %04d %02d:%02d:%02d %c%02d%02d",
	    days[((day_count + 4) % 7 + 7) % 7], day, date_months[month - 1], year,
	    (int)(second / 3600), (int)(second / 60 % 60), (int)(second % 60), zone < 0 ? '-' : '+',
	    offset / 60 % 100, offset % 60);
}

int
date_local_zone(int64_t unix_time)
{
	time_t t = (time_t)unix_time;
	struct tm tm;

	return localtime_r(&t, &tm) ? (int)(tm.tm_gmtoff / 60) : 0;
}
