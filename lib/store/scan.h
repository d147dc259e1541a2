/* One comparison of a folder's state with its directories; shared by scan.c and refresh.c. */
#ifndef STORE_SCAN_H
#define STORE_SCAN_H

#include "store/internal.h"

struct found {
	char *name;
	uint8_t dir;
	int64_t stamp; /* the number in front of the name */
};

struct scan {
	struct folder *f;
	struct buf records;
	struct found *fresh;
	size_t fresh_count, fresh_size;
	uint64_t modseq; /* for all changes of this scan */
	bool take_new, moved;
	bool second; /* reading once more: only what the first did not show */
};

/* Under the folder's lock, in this order: init, see for each file, then assign and flush. */
void scan_init(struct scan *s, struct folder *f);
/* The file dir/name is there. */
void scan_see(struct scan *s, uint8_t dir, const char *name);
/* The same for a message that is known by its base name. */
void scan_update(struct scan *s, struct slot *sl, uint8_t dir, const char *name);
/* Gives UIDs to what is new, in the order of the names. */
int scan_assign(struct scan *s) CHECKED;
/* Commits the records gathered, always or if there are many. */
int scan_flush(struct scan *s, bool always) CHECKED;
void scan_free(struct scan *s);
void scan_clear_marks(struct folder *f);

bool names_same_base(const char *a, const char *b);
bool folder_file_exists(struct folder *f, const char *path, struct stat *st);

#endif
