/*
 * What the files of lib/store share. A struct folder is the one state of an open folder in this
 * process; struct mailbox (a view) and content handles refer to it. Every change of a folder goes
 * through folder_apply, from the journal as it is read or as it was just written.
 */
#ifndef STORE_INTERNAL_H
#define STORE_INTERNAL_H

#include "base/dir.h"
#include "store/journal.h"
#include "store/store.h"

#include <sys/queue.h>
#include <sys/stat.h>

#define JOURNAL_FILE "bh-journal"
#define INDEX_DIR "bh-index"
#define UIDVALIDITY_FILE "bh-uidvalidity"
#define SPECIAL_FILE "bh-special-use"
#define TRASH_PREFIX "..bh-deleted."
#define HIDDEN_MAX 255 /* bytes of a file name */

enum slot_state {
	SLOT_DEAD = 1,      /* expunged; the slot waits for folder_pack */
	SLOT_NEW = 2,       /* the file is in new/ */
	SLOT_MARK = 4,      /* seen by the scan under way */
	SLOT_LOOKED_UP = 8, /* the index was asked for date and size */
};

#define DATE_UNKNOWN INT64_MIN
#define SIZE_UNKNOWN UINT64_MAX

struct slot {
	struct message m;
	uint32_t name; /* offset of the file name in folder.names */
	uint8_t base_len, name_len, state;
	int64_t date;
	uint64_t size;
};

struct vanished {
	uint32_t uid;
	uint64_t modseq;
};

struct change {
	uint32_t uid;
	bool expunge;
	uint64_t modseq;
	const struct mailbox *origin; /* the view that made it, or NULL; compared only */
};

struct meta {
	struct meta *next;
	struct slice key, value; /* owned */
};

struct pop3_uidl {
	uint32_t uid;
	char *text;
};

struct dir_state {
	int64_t sec, nsec;
	bool known; /* the folder's state is at least as new as this mtime, and the mtime is old
		       enough */
};

/* A file name that inotify told about. */
struct hint {
	uint8_t dir;
	bool gone;
	char *name;
};

struct folder {
	TAILQ_ENTRY(folder) entry;
	struct store *store;
	unsigned refs;
	char *name; /* as the API has it */
	char *disk; /* directory below the root: "." or ".A.B" */
	int dirfd;
	bool gone; /* deleted under us */

	int journal;
	ino_t journal_ino;
	off_t journal_size; /* how far it has been applied */
	unsigned lock_depth;
	size_t dead_records; /* records that a compaction would drop */
	struct journal_header head;

	uint32_t uidnext;
	uint64_t modseq;    /* HIGHESTMODSEQ */
	struct slot *slots; /* ascending by UID */
	size_t slot_count, slot_size, live;
	uint32_t unseen, deleted;
	char *names;
	size_t names_len, names_size, names_waste;
	uint32_t *table; /* open addressing over base names: slot index + 1; NULL until needed */
	size_t table_size, table_used;

	char *keywords[STORE_KEYWORDS];
	unsigned keyword_count; /* highest index in use + 1 */
	struct vanished *vanished;
	size_t vanished_count, vanished_size;
	uint64_t history; /* expunges with a modseq up to this are forgotten */
	struct meta *meta;
	struct pop3_uidl *uidls; /* ascending by UID */
	size_t uidl_count, uidl_size;

	struct change *changes;
	size_t change_count, change_size;
	uint64_t change_base;         /* absolute number of changes[0] */
	const struct mailbox *origin; /* whose change is being applied */

	struct dir_state cur, new;
	int wd_cur, wd_new; /* -1: not watched */
	bool scan_due;
	struct hint *hints;
	size_t hint_count, hint_size;
	TAILQ_HEAD(, mailbox) views;
	uint64_t total_modseq; /* the sums below are as of this modseq and UIDNEXT */
	uint32_t total_uidnext;
	uint64_t total_size, total_deleted;
};

struct mailbox {
	TAILQ_ENTRY(mailbox) entry;
	struct store *store;
	struct folder *folder;
	unsigned flags;
	uint32_t *uids; /* by sequence number - 1 */
	size_t count, size;
	uint32_t uidnext;
	uint64_t modseq;
	uint64_t change_pos; /* absolute number of the next change to look at */
	unsigned keywords_seen;
	struct uid_list expunged, changed; /* not yet told */
	struct uid_list recent;
	size_t recent_settled; /* of them in order and in the view; the others come with the next
				  sync */
};

struct store {
	char *path;
	int rootfd;
	struct store_options options;
	struct index *index; /* NULL: none */
	int inotify;
	bool sync_names; /* a file's fsync does not make its name durable here */
	char host[64];
	unsigned counter;
	unsigned char hash_key[16];
	TAILQ_HEAD(, folder) folders;
};

/* name.c */
/* API name (as store_name gives it) to the directory below the root. ERR_SYNTAX if it is too long.
 */
int name_to_disk(const char *name, struct buf *out) CHECKED;
/* ".A.B" to the API name; ERR_SYNTAX for what is no folder. */
int name_from_disk(const char *disk, struct buf *out) CHECKED;
bool keyword_valid(struct slice s);

/* maildir.c */
struct file_name {
	size_t base_len;
	uint8_t flags;
	uint64_t keywords;    /* letters a-z */
	uint64_t size, vsize; /* ,S= and ,W=; SIZE_UNKNOWN */
};
void maildir_parse(const char *name, size_t len, struct file_name *out);
/* ":2," and the letters; keeps unknown letters of the old info. out has 96 bytes. */
size_t maildir_info(struct slice old_info, uint8_t flags, uint64_t keywords, char *out);
/* A new unique base name, with sizes unless SIZE_UNKNOWN. out has 256 bytes. */
void maildir_unique(struct store *s, uint64_t size, uint64_t vsize, char *out);
/* Gives a file another name, but not one that is there: -EEXIST. */
int maildir_rename(int from_dir, const char *from, int to_dir, const char *to) CHECKED;
int maildir_make(int rootfd, const char *disk) CHECKED;
/* cur, new and tmp of a directory that is there, where they are missing. */
int maildir_complete(int rootfd, const char *disk) CHECKED;
/* fsync of a directory below dirfd; forced, or only where names need it. */
int sync_dir(struct store *s, int dirfd, const char *path, bool force) CHECKED;
/* Reads a whole small file below dirfd; ERR_NOT_FOUND, ERR_LIMIT above max. */
int read_file(int dirfd, const char *path, size_t max, struct buf *out) CHECKED;
/* Writes it anew: temporary name, fsync, rename, fsync of the directory. */
int replace_file(struct store *s, int dirfd, const char *path, struct slice content) CHECKED;

/* folder.c, open.c: the state of one folder */
int folder_get(struct store *s, const char *name, struct folder **out_r) CHECKED;
void folder_put(struct folder **fp);
struct slot *folder_slot(struct folder *f, uint32_t uid); /* alive, or NULL */
struct slot *folder_find_base(struct folder *f, const char *base, size_t len);
void folder_apply(void *folder, const struct record *r);
const char *slot_name(const struct folder *f, const struct slot *s); /* not NUL-terminated */
/* "cur/name" with a NUL; out has 272 bytes. */
void slot_path(const struct folder *f, const struct slot *s, char *out);
void folder_add_slot(struct folder *f, const struct record *r);
size_t folder_first_slot(const struct folder *f, uint32_t uid); /* index of first uid >= */
void folder_pack(struct folder *f);
void folder_note_change(struct folder *f, uint32_t uid, bool expunge, uint64_t modseq);
void folder_trim_changes(struct folder *f);
void folder_clear(struct folder *f);

/* mailbox.c: takes over what the folder noted for this view. */
void view_collect(struct mailbox *m);

/* log.c, snapshot.c: the journal as a file */
/* Exclusive lock with the tail applied; nests. */
int folder_lock(struct folder *f) CHECKED;
void folder_unlock(struct folder *f);
/* Applies what others appended; takes a shared lock only if there is something. */
int folder_tail(struct folder *f) CHECKED;
/* Under the lock: writes the frame of records, syncs, applies them with origin. Empties records. */
int folder_commit(
    struct folder *f, struct buf *records, bool sync, const struct mailbox *origin) CHECKED;
/* Opens the journal or makes one (from dovecot-uidlist, or afresh). */
int folder_open_journal(struct folder *f) CHECKED;
/* Makes the first journal; -EEXIST if another process was first. */
int folder_make_journal(struct folder *f, bool use_uidlist) CHECKED;
void folder_compact_if_due(struct folder *f);
/* The state as a journal that gives it again. */
void folder_snapshot(struct folder *f, struct buf *out);

/* scan.c, refresh.c: the state of the directories */
/* Under the lock: compares with the directories, gives UIDs, commits. */
int folder_scan(struct folder *f) CHECKED;
/* What is cheap if nothing changed: hints, mtimes, then a scan if one is due. */
int folder_refresh(struct folder *f, bool force) CHECKED;
/* A file was not where the slot says: takes the lock and scans now. */
int folder_rescan(struct folder *f) CHECKED;
int folder_take_new(struct folder *f) CHECKED;
void folder_note_dirs(struct folder *f);
void dir_state_read(int dirfd, const char *sub, struct dir_state *out);
bool dir_state_same(const struct dir_state *a, const struct dir_state *b);

/* watch.c */
void watch_open(struct store *s);
void watch_folder(struct folder *f);
void watch_drop(struct folder *f);
bool watch_read(struct store *s);
void hints_clear(struct folder *f);

/* index.c: LMDB; every function bears a NULL index */
struct index *index_open(const char *root, int rootfd, bool read_only);
/* True when the one that was there could not be used and was made anew. */
bool index_renewed(const struct index *i);
void index_free(struct index **ip);
int index_get(struct index *i, struct slice key, struct buf *out) CHECKED;
void index_put(struct index *i, struct slice key, struct slice value);
/* Removes every key that begins with prefix, at the next flush (ids are not used again). */
void index_remove_prefix(struct index *i, struct slice prefix);
void index_flush(struct index *i);

/* row.c: what is in it */
struct folder_row {
	uint64_t ino, journal_size;
	struct dir_state cur, new;
	struct store_status status;
	bool sizes;
};
void row_encode(const struct folder_row *r, struct buf *out);
int row_decode(struct slice in, struct folder_row *out) CHECKED;
int row_load(struct store *s, const char *disk, struct folder_row *out) CHECKED;
void row_save(struct folder *f);
void row_drop(struct store *s, const char *disk);
/* Message keys: 'A' attributes, 'B' blob. Returns the key in out (32 bytes). */
struct slice message_key(const struct folder *f, char type, uint32_t uid, int kind, char *out);
void attr_encode(int64_t date, uint64_t size, struct buf *out);
int attr_decode(struct slice in, int64_t *date_r, uint64_t *size_r) CHECKED;
void folder_load_attr(struct folder *f, struct slot *s);
void folder_save_attr(struct folder *f, const struct slot *s);

/* attr.c */
int folder_slot_size(struct folder *f, uint32_t uid, uint64_t *out_r) CHECKED;
int folder_totals(struct folder *f) CHECKED;

/* flags.c */
int folder_keyword(struct folder *f, struct slice name, bool create);

/* manage.c */
int quota_check(struct store *s, uint64_t bytes, uint64_t messages) CHECKED;
uint64_t email_id(struct slice base);
/* small_files.c: the formats of the small files, and these files themselves */
enum { SMALL_FILE_MAX = 4 << 20 };
/* NUL-terminated UTF-8 names; what is none is left out. */
void subscriptions_parse(struct slice in, struct buf *names);
int subscriptions_format(struct slice names, struct buf *out) CHECKED;
int subscriptions_load(struct store *s, struct buf *names) CHECKED;
/* The uses of a folder in "\Use name" lines, and the lines with others for it. */
unsigned special_of(struct slice lines, const char *name);
void special_edit(struct slice lines, const char *name, unsigned bits, struct buf *out);
/* The next of what the file says; above (or 0) is one that a folder has. Never 0. */
uint32_t uidvalidity_after(struct slice file, uint32_t above, uint32_t now);
/* One that no folder had, and above that one. */
int next_uidvalidity(struct store *s, uint32_t above, uint32_t *out_r) CHECKED;
int special_load(struct store *s, struct buf *lines, bool *written_r) CHECKED;
int special_set(struct store *s, const char *name, unsigned bits) CHECKED;
/* list.c */
int store_find_disk(struct store *s, const char *name, struct buf *disk) CHECKED;

#endif
