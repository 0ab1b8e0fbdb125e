/*
 * recovery.c - replays machines, one after the other, a batch of ops at a time.
 *
 * Invariants:
 *  1. A job's machine is RECOVERING from recovery_add() until the job ends, and ends
 *     RUNNING, EARLY, FROZEN or LOST.
 *  2. One batch at a time is with the machine; its ops and their data live here until
 *     the last of them has been executed.
 *  3. Nothing here writes to the history.
 */
#include "recovery.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract_tables.h"
#include "log.h"

enum {
	BATCH_OPS = 1024,
	BATCH_DATA = 1 << 20, /* bytes of payloads after which a batch is full */
	LINEAGE_MAX = 64,     /* a fork of a fork of ...; a deeper one is LOST */
	PROGRESS_OPS = 1 << 20,
};

struct replay_op {
	struct machine_request request;
	uint32_t status; /* as recorded */
	uint64_t values[OP_VALUES];
	size_t data_offset;
	bool filler; /* stands for an op that was lost: any answer will do */
};

/* Ops of one machine that led to this one: its own, or an ancestor's. */
struct segment {
	uint64_t machine;
	uint64_t last_op; /* 0: all that there are */
};

struct job {
	struct job *next;
	struct machine *machine;
	struct segment segments[LINEAGE_MAX]; /* oldest ancestor last */
	unsigned nr_segments;		      /* still to do, the last one first */
	uint64_t next_op;
	uint64_t reported; /* ops at the last line of progress */
	uint64_t lost;	   /* ops recorded LOST since the last other one */
	bool started;
	bool revive; /* those at the end are no end */
};

struct recovery {
	struct machines *machines;
	struct history *history;
	void (*idle)(void *user);
	void *user;
	struct job *jobs; /* the first is under way */
	struct replay_op ops[BATCH_OPS];
	unsigned nr_ops, nr_done;
	bool batch_full;
	uint64_t batch_last_op;
	uint8_t *data;
	size_t data_used, data_size;
};

struct recovery *recovery_new(struct machines *machines, struct history *history,
			      void (*idle)(void *user), void *user)
{
	struct recovery *rc = calloc(1, sizeof *rc);

	if (!rc)
		return NULL;
	rc->machines = machines;
	rc->history = history;
	rc->idle = idle;
	rc->user = user;
	return rc;
}

void recovery_free(struct recovery *rc)
{
	if (!rc)
		return;
	while (rc->jobs) {
		struct job *job = rc->jobs;

		rc->jobs = job->next;
		free(job);
	}
	free(rc->data);
	free(rc);
}

bool recovery_is_idle(const struct recovery *rc)
{
	return !rc->jobs;
}

/* ---- jobs ---- */

static void job_end(struct recovery *rc)
{
	struct job *job = rc->jobs;

	rc->jobs = job->next;
	free(job);
	rc->nr_ops = rc->nr_done = 0;
	if (!rc->jobs)
		rc->idle(rc->user);
}

static void job_lose(struct recovery *rc, bool sane, const char *reason)
{
	struct machine *m = rc->jobs->machine;

	machine_lose(m, sane, reason);
	log_error("a machine is lost", LOG_S("machine", machine_name(m)),
		  LOG_N("op", machine_ops(m)), LOG_S("reason", machine_reason(m)));
	job_end(rc);
}

void recovery_add(struct recovery *rc, struct machine *m)
{
	struct job *job = calloc(1, sizeof *job), **at = &rc->jobs;

	if (!job)
		abort();
	job->machine = m;
	while (*at)
		at = &(*at)->next;
	*at = job;
}

void recovery_revive(struct recovery *rc, struct machine *m)
{
	struct job *job;

	recovery_add(rc, m);
	for (job = rc->jobs; job->machine != m; job = job->next)
		;
	job->revive = true;
}

void recovery_forget(struct recovery *rc, struct machine *m)
{
	struct job **at = &rc->jobs;

	if (rc->jobs && rc->jobs->machine == m) {
		job_end(rc);
		return;
	}
	while (*at && (*at)->machine != m)
		at = &(*at)->next;
	if (*at) {
		struct job *job = *at;

		*at = job->next;
		free(job);
	}
}

static bool take_machine(void *arg, const struct history_machine *hm)
{
	struct recovery *rc = arg;
	struct machine *m;
	enum machine_error error = machines_restore(rc->machines, hm->id, hm->name, hm->backend,
						    hm->config, hm->frozen, hm->created_ns, &m);

	if (error)
		log_error("a machine of the history cannot be taken up", LOG_S("machine", hm->name),
			  LOG_S("backend", hm->backend));
	else
		recovery_add(rc, m);
	return true;
}

int recovery_start(struct recovery *rc, char *err, size_t err_size)
{
	int error = history_machines(rc->history, take_machine, rc);

	if (error)
		snprintf(err, err_size, "the machines of the history cannot be read (error %d)",
			 error);
	return error;
}

/* ---- one job ---- */

static bool take_label(void *arg, uint32_t number, const char *label)
{
	return machine_set_label(arg, number, label) == MACHINE_OK;
}

static bool find_lineage(struct recovery *rc, struct job *job)
{
	uint64_t machine = machine_id(job->machine), last_op = 0;

	while (machine && job->nr_segments < LINEAGE_MAX) {
		job->segments[job->nr_segments++] = (struct segment){machine, last_op};
		if (history_lineage(rc->history, machine, &machine, &last_op))
			return false;
	}
	return !machine;
}

static void job_start(struct recovery *rc)
{
	struct job *job = rc->jobs;
	struct engine_error why;

	job->started = true;
	job->next_op = 1;
	if (!find_lineage(rc, job))
		job_lose(rc, false, "the history does not say where it was forked from");
	else if (history_owners(rc->history, machine_id(job->machine), take_label, job->machine))
		job_lose(rc, false, "its owner labels cannot be read from the history");
	else if (machine_restart(job->machine, &why))
		job_lose(rc, false, why.text);
}

static void job_finish(struct recovery *rc)
{
	struct machine *m = rc->jobs->machine;

	machine_recovered(m);
	log_info("a machine is back", LOG_S("machine", machine_name(m)),
		 LOG_N("ops", machine_ops(m)), LOG_N("parked", machine_parked(m)));
	job_end(rc);
}

static size_t keep_data(struct recovery *rc, const uint8_t *bytes, uint32_t length)
{
	size_t at = rc->data_used;

	if (rc->data_size - at < length) {
		rc->data_size = (at + length) * 2;
		rc->data = realloc(rc->data, rc->data_size);
		if (!rc->data)
			abort();
	}
	if (length)
		memcpy(rc->data + at, bytes, length);
	rc->data_used += length;
	return at;
}

/* A lost op had no effect, but its number is taken. Withdraw of an op that never was is
 * an op without an effect. False: they do not all fit this batch. */
static bool skip_lost(struct recovery *rc)
{
	for (; rc->jobs->lost; rc->jobs->lost--) {
		struct replay_op *o = &rc->ops[rc->nr_ops];

		if (rc->nr_ops == BATCH_OPS)
			return false;
		memset(o, 0, sizeof *o);
		o->request.op.code = OP_WITHDRAW;
		o->filler = true;
		rc->nr_ops++;
	}
	return true;
}

static bool take_op(void *arg, const struct history_record *h)
{
	struct recovery *rc = arg;
	struct replay_op *o;
	struct engine_op *op;

	if (h->status == STATUS_LOST) {
		rc->jobs->lost++;
		rc->batch_last_op = h->op;
		return true;
	}
	if (!skip_lost(rc) || rc->nr_ops == BATCH_OPS || rc->data_used > BATCH_DATA) {
		rc->batch_full = true;
		return false;
	}
	o = &rc->ops[rc->nr_ops++];
	rc->batch_last_op = h->op;
	memset(o, 0, sizeof *o);
	op = &o->request.op;
	op->code = h->code;
	op->cpu = h->cpu;
	op->task = h->task;
	op->owner = h->owner;
	memcpy(op->args, h->args, sizeof op->args);
	op->data_len = h->data_len;
	o->data_offset = keep_data(rc, h->data, h->data_len);
	o->status = h->status;
	memcpy(o->values, h->values, sizeof o->values);
	return true;
}

/* Hands the next ops to the machine. If those at the very end were lost, it stays as it
 * was before them, unless it is to be revived. */
static void read_batch(struct recovery *rc)
{
	struct job *job = rc->jobs;
	struct segment *s = &job->segments[job->nr_segments - 1];
	int error;

	rc->nr_ops = rc->nr_done = 0;
	rc->data_used = 0;
	rc->batch_full = false;
	rc->batch_last_op = job->next_op - 1;
	error = history_replay(rc->history, s->machine, job->next_op, s->last_op, take_op, rc);
	if (error && error != HISTORY_ABORTED) {
		job_lose(rc, true, "its ops cannot be read from the history");
		return;
	}
	job->next_op = rc->batch_last_op + 1;
	if (!rc->batch_full)
		job->nr_segments--;
	for (unsigned i = 0; i < rc->nr_ops; i++) {
		struct replay_op *o = &rc->ops[i];

		/* Without any payload in the batch there may be no buffer at all. */
		o->request.op.data = o->request.op.data_len ? rc->data + o->data_offset : NULL;
		machine_replay(job->machine, &o->request);
	}
}

static void replay_lost(struct recovery *rc)
{
	rc->nr_ops = rc->nr_done = 0;
	skip_lost(rc);
	for (unsigned i = 0; i < rc->nr_ops; i++)
		machine_replay(rc->jobs->machine, &rc->ops[i].request);
}

bool recovery_step(struct recovery *rc)
{
	struct job *job = rc->jobs;

	if (!job || rc->nr_done < rc->nr_ops)
		return false;
	if (!job->started) {
		job_start(rc);
		return true;
	}
	if (machine_status(job->machine) == MACHINE_LOST) {
		/* Its back end ended between two ops. */
		job_end(rc);
		return true;
	}
	if (machine_ops(job->machine) - job->reported >= PROGRESS_OPS) {
		job->reported = machine_ops(job->machine);
		log_info("replaying", LOG_S("machine", machine_name(job->machine)),
			 LOG_N("ops", job->reported));
	}
	if (job->nr_segments)
		read_batch(rc);
	else if (!job->lost)
		job_finish(rc);
	else if (job->revive)
		replay_lost(rc);
	else
		job_lose(rc, true,
			 "its last ops were lost; the machine is as before them, revive it");
	return true;
}

/* What the daemon decides itself is not the engine's to answer again: whether a
 * snapshot's name was free, for one. The engine's part of such an op always succeeds. */
static bool answers_match(const struct replay_op *o)
{
	const struct machine_request *r = &o->request;

	if (o->filler)
		return true;
	if (r->result.status == o->status)
		return memcmp(r->result.values, o->values, sizeof o->values) == 0;
	return r->result.status == STATUS_OK && machine_decides(r->op.code);
}

void recovery_replayed(struct recovery *rc, struct machine *m, struct machine_request *r)
{
	struct replay_op *o = (struct replay_op *)((char *)r - offsetof(struct replay_op, request));
	char reason[MACHINE_REASON_LENGTH];

	if (machine_status(m) == MACHINE_LOST) {
		log_error("a machine is lost", LOG_S("machine", machine_name(m)),
			  LOG_S("reason", machine_reason(m)));
		job_end(rc);
		return;
	}
	if (!answers_match(o)) {
		snprintf(reason, sizeof reason,
			 "replay of op %" PRIu64 " (%s) answered status %u, the history has %u%s",
			 r->result.op, contract_ops[r->op.code].name, r->result.status, o->status,
			 r->result.status == o->status ? " with other values" : "");
		job_lose(rc, true, reason);
		return;
	}
	rc->nr_done++;
}
