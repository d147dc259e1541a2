/*
 * Queue IDs. Runs in qmgr (which makes them) and in whatever reads one from a file name or from an
 * administrator: names in the spool and words of the control socket are hostile input.
 * Invariant: IDs of one source grow strictly; IDs of two starts differ because the clock file
 * reserves time ahead of use, and should that file be lost, by 10 random bits.
 */
#include "queue/id.h"

#define EPOCH_US (1577836800ull * 1000000) /* 2020-01-01 */
#define UNIT_US 2
#define UNIT_MAX ((1ull << 50) - 1)

static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

uint64_t
queue_id_units(uint64_t time_us)
{
	uint64_t units = time_us > EPOCH_US ? (time_us - EPOCH_US) / UNIT_US : 0;

	return units < UNIT_MAX ? units : UNIT_MAX;
}

uint64_t
queue_id_time(queue_id id)
{
	return (id >> 10) * UNIT_US + EPOCH_US;
}

void
queue_id_source_init(struct queue_id_source *s, uint64_t floor, unsigned int start)
{
	*s = (struct queue_id_source){ .last = floor, .start = start & 1023 };
}

queue_id
queue_id_next(struct queue_id_source *s, uint64_t now_us)
{
	uint64_t units = queue_id_units(now_us);

	if (units <= s->last)
		units = s->last + 1;
	/* After a rest the clock is beyond what is reserved: rather an ID behind the clock than
	 * none. */
	if (s->ceiling && units >= s->ceiling)
		units = s->last + 1;
	if (s->ceiling && units >= s->ceiling)
		return 0;
	s->last = units;
	return (units & UNIT_MAX) << 10 | s->start;
}

void
queue_id_format(queue_id id, char out_r[QUEUE_ID_SIZE])
{
	for (int i = QUEUE_ID_LENGTH - 1; i >= 0; i--, id >>= 5)
		out_r[i] = alphabet[id & 31];
	out_r[QUEUE_ID_LENGTH] = '\0';
}

int
queue_id_parse(struct slice s, queue_id *out_r)
{
	queue_id id = 0;

	if (s.n != QUEUE_ID_LENGTH)
		return ERR_SYNTAX;
	for (size_t i = 0; i < s.n; i++) {
		const char *at = s.p[i] ? strchr(alphabet, s.p[i]) : NULL;

		if (!at)
			return ERR_SYNTAX;
		id = id << 5 | (queue_id)(at - alphabet);
	}
	if (!id)
		return ERR_SYNTAX;
	*out_r = id;
	return 0;
}

unsigned int
queue_id_dir(queue_id id)
{
	return (unsigned int)(id >> 10) & (QUEUE_DIRS - 1);
}

char
queue_dir_name(unsigned int dir)
{
	return alphabet[dir & (QUEUE_DIRS - 1)];
}
