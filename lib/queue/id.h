/*
 * Queue IDs: 12 characters that sort by time of creation. 50 bits of time in units of 2 us since
 * 2020 and 10 bits drawn at each start, five bits a character, in an alphabet without I, L, O, U.
 */
#ifndef QUEUE_ID_H
#define QUEUE_ID_H

#include "base/slice.h"

#define QUEUE_ID_LENGTH 12
#define QUEUE_ID_SIZE (QUEUE_ID_LENGTH + 1) /* with NUL */
#define QUEUE_DIRS 32u                      /* folders of the spool that files are spread over */

/* The numeric form, below 2^60; 0 is no ID. */
typedef uint64_t queue_id;

struct queue_id_source {
	uint64_t last;      /* time units of the last ID given */
	uint64_t ceiling;   /* units that the clock file covers; 0: no limit */
	unsigned int start; /* the 10 bits of this start */
};

/* floor: units below which no ID may be given (what the clock file of an earlier start reserved).
 */
void queue_id_source_init(struct queue_id_source *s, uint64_t floor, unsigned int start);
/* The next ID: later than every one before, even if now_us (since the epoch) went backwards. 0 if
 * the ceiling is reached: reserve more first. */
queue_id queue_id_next(struct queue_id_source *s, uint64_t now_us) CHECKED;

/* Writes 12 characters and a NUL. */
void queue_id_format(queue_id id, char out_r[QUEUE_ID_SIZE]);
/* ERR_SYNTAX unless s is the exact form of an ID. */
int queue_id_parse(struct slice s, queue_id *out_r) CHECKED;

/* Folder number, below QUEUE_DIRS, and its one-letter name. */
unsigned int queue_id_dir(queue_id id);
char queue_dir_name(unsigned int dir);
/* Time of creation, microseconds since the epoch, and units of the clock file. */
uint64_t queue_id_time(queue_id id);
uint64_t queue_id_units(uint64_t time_us);

#endif
