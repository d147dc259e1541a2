/* Shared by deliver.c, job.c, result.c and expand.c only. */
#ifndef QMGR_DELIVER_H
#define QMGR_DELIVER_H

#include "qmgr/qmgr.h"

#define EXPAND_TOO_MANY "expands to too many addresses"

/* job.c */
/* A living job, or NULL. */
struct job *job_find(const struct qmgr *q, uint32_t id);
/* A job of as many open recipients of that hop as fit, the first of them at i; no slot is taken. */
struct job *job_make(struct qmgr *q, struct message *m, size_t i, struct sched_site *site);
/* To its agent, which may have to be started first; a job that finds none ends here. */
void job_dispatch(struct qmgr *q, struct job *j);
/* Its agent has said that it is at work: its deadline begins anew. */
void job_extend(struct qmgr *q, struct job *j);
/* Until the next attempt by the message's age, or soon where nobody was asked. */
void job_wait(
    struct qmgr *q, struct message *m, struct sched_job *sj, bool soon, const char *reason);
/* Decides what the place of a site waits for, by the recipients that are its. */
void job_settle(struct qmgr *q, struct message *m, struct sched_job *sj, bool soon);

/* result.c */
void result_set(
    struct message *m, size_t i, struct slice enhanced, struct slice text, struct slice remote);
void result_log(const struct qmgr *q, const struct message *m, size_t i, const char *status,
    const struct job *j, uint32_t connect_ms, uint32_t transfer_ms);

#endif
