/*
 * recovery.c - see recovery.h.
 *
 * Invariants:
 *  1. A job's machine is RECOVERING from recovery_add() until the job ends, and ends
 *     RUNNING, EARLY, FROZEN or LOST. A forgotten job has none, and ends without a trace.
 *  2. As many jobs are under way as there are workers, each with a reader of its own; the
 *     rest wait in the order in which they came.
 *  3. Nothing here writes to the history.
 */
#include "recovery.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "rebuild.h"

enum {
	WORKERS_MAX = 4, /* of the pool's threads; a job keeps a core busy */
	PROGRESS_MS = 1000,
	/* A host without memory, or a disk that cannot be read, may get over it in a few
	 * PROGRESS_MS; then the machine is LOST until somebody revives it. */
	TRIES_MAX = 5,
};

struct job {
	struct job *next;
	struct machine *machine; /* NULL: forgotten */
	struct rebuild rebuild;
	uint64_t goal; /* its last op */
	unsigned tries;
	bool rests; /* before another try */
};

struct worker {
	uv_work_t work;
	struct recovery *rc;
	struct history_reader *reader; /* opened with the first job */
	struct job *job;	       /* NULL: free */
};

struct recovery {
	uv_loop_t *loop;
	struct machines *machines;
	struct history *history;
	struct recovery_hooks hooks;
	struct worker workers[WORKERS_MAX];
	unsigned nr_workers;
	struct job *waiting;
	uv_timer_t progress; /* active while there are jobs */
};

struct recovery *recovery_new(uv_loop_t *loop, struct machines *machines, struct history *history,
			      const struct recovery_hooks *hooks)
{
	struct recovery *rc = calloc(1, sizeof *rc);

	if (!rc)
		abort();
	rc->loop = loop;
	rc->machines = machines;
	rc->history = history;
	rc->hooks = *hooks;
	rc->nr_workers = uv_available_parallelism();
	if (rc->nr_workers > WORKERS_MAX)
		rc->nr_workers = WORKERS_MAX;
	uv_timer_init(loop, &rc->progress);
	rc->progress.data = rc;
	return rc;
}

static void timer_closed(uv_handle_t *timer)
{
	free(timer->data);
}

bool recovery_is_idle(const struct recovery *rc)
{
	for (unsigned i = 0; i < rc->nr_workers; i++)
		if (rc->workers[i].job)
			return false;
	return !rc->waiting;
}

static void forget_all(void *arg, struct machine *m)
{
	recovery_forget(arg, m);
}

void recovery_free(struct recovery *rc)
{
	if (!rc)
		return;
	machines_each(rc->machines, forget_all, rc);
	while (!recovery_is_idle(rc))
		uv_run(rc->loop, UV_RUN_ONCE);
	for (unsigned i = 0; i < rc->nr_workers; i++)
		history_reader_close(rc->workers[i].reader);
	uv_close((uv_handle_t *)&rc->progress, timer_closed);
}

/* ---- how far it is ---- */

static void each_running(struct recovery *rc, void (*fn)(struct job *job))
{
	for (unsigned i = 0; i < rc->nr_workers; i++)
		if (rc->workers[i].job && rc->workers[i].job->machine)
			fn(rc->workers[i].job);
}

static void tell(struct job *job)
{
	machine_set_progress(job->machine, atomic_load(&job->rebuild.progress), job->goal);
}

void recovery_tell_progress(struct recovery *rc)
{
	each_running(rc, tell);
}

static void log_progress(struct job *job)
{
	log_info("replaying", LOG_S("machine", machine_name(job->machine)),
		 LOG_N("ops", atomic_load(&job->rebuild.progress)), LOG_N("of", job->goal));
}

static void pump(struct recovery *rc);
static void end_if_idle(struct recovery *rc);

static void on_progress(uv_timer_t *timer)
{
	struct recovery *rc = timer->data;

	each_running(rc, log_progress);
	for (struct job *job = rc->waiting; job; job = job->next)
		job->rests = false;
	pump(rc);
	end_if_idle(rc); /* the last one was forgotten while it rested */
}

/* ---- the end of a job ---- */

static void lose(struct machine *m, bool sane, const char *reason)
{
	machine_lose(m, sane, reason);
	log_error("a machine is lost", LOG_S("machine", machine_name(m)),
		  LOG_N("op", machine_ops(m)), LOG_S("reason", machine_reason(m)));
}

static bool take_label(void *arg, uint32_t number, const char *label)
{
	return machine_set_label(arg, number, label) == MACHINE_OK;
}

static void give(struct recovery *rc, struct job *job)
{
	struct machine *m = job->machine;
	struct rebuild *b = &job->rebuild;
	struct engine_error why;

	if (b->note[0])
		log_warning("a checkpoint is no good; replayed from before it",
			    LOG_S("machine", machine_name(m)), LOG_S("why", b->note));
	if (b->error) {
		lose(m, false, b->why);
	} else if (history_owners(rc->history, machine_id(m), take_label, m)) {
		lose(m, false, "its owner labels cannot be read from the history");
	} else if (machine_adopt(m, b->replica, &why)) {
		lose(m, false, why.text);
	} else if (b->lost) {
		lose(m, true, "its last ops were lost; the machine is as before them, revive it");
	} else {
		machine_recovered(m);
		log_info("a machine is back", LOG_S("machine", machine_name(m)),
			 LOG_N("ops", machine_ops(m)), LOG_N("parked", machine_parked(m)));
	}
}

static void wait_behind(struct recovery *rc, struct job *job)
{
	struct job **at = &rc->waiting;

	while (*at)
		at = &(*at)->next;
	job->next = NULL;
	*at = job;
}

/* Puts a job off that another try may bring to a good end. */
static bool try_again(struct recovery *rc, struct job *job)
{
	struct rebuild *b = &job->rebuild;

	if (!job->machine || !b->error || !b->may_pass || ++job->tries == TRIES_MAX)
		return false;
	log_warning("a replay failed and is tried again",
		    LOG_S("machine", machine_name(job->machine)), LOG_S("why", b->why));
	*b = (struct rebuild){.machine = b->machine, .op = b->op, .stop_at_lost = b->stop_at_lost};
	job->rests = true;
	wait_behind(rc, job);
	return true;
}

static void end_if_idle(struct recovery *rc)
{
	if (!recovery_is_idle(rc))
		return;
	uv_timer_stop(&rc->progress);
	rc->hooks.idle(rc->hooks.user);
}

static void over(uv_work_t *work, int status)
{
	struct worker *w = work->data;
	struct recovery *rc = w->rc;
	struct job *job = w->job;

	(void)status; /* Nobody cancels it in the pool. */
	w->job = NULL;
	if (!try_again(rc, job)) {
		if (job->machine)
			give(rc, job);
		replica_free(job->rebuild.replica);
		free(job);
	}
	pump(rc);
	rc->hooks.wake(rc->hooks.user);
	end_if_idle(rc);
}

/* ---- the beginning ---- */

static void run(uv_work_t *work)
{
	struct worker *w = work->data;
	struct rebuild *b = &w->job->rebuild;

	if (!w->reader && history_reader_open(w->rc->history, &w->reader, b->why, sizeof b->why)) {
		b->error = MACHINE_E_HISTORY;
		b->may_pass = true;
	} else {
		rebuild_run(b, w->reader);
	}
}

/* The first that does not rest; NULL: there is none. */
static struct job *take_waiting(struct recovery *rc)
{
	struct job **at = &rc->waiting, *job;

	while (*at && (*at)->rests)
		at = &(*at)->next;
	job = *at;
	if (job)
		*at = job->next;
	return job;
}

static void pump(struct recovery *rc)
{
	for (unsigned i = 0; i < rc->nr_workers; i++) {
		struct worker *w = &rc->workers[i];

		if (w->job)
			continue;
		w->job = take_waiting(rc);
		if (!w->job)
			return;
		w->rc = rc;
		w->work.data = w;
		/* It refuses nothing but a missing function. */
		if (uv_queue_work(rc->loop, &w->work, run, over))
			abort();
	}
}

static void add(struct recovery *rc, struct machine *m, bool revive)
{
	struct job *job = calloc(1, sizeof *job);
	uint64_t last = history_last_op(rc->history, machine_id(m));

	if (!job)
		abort();
	job->machine = m;
	job->goal = last ? last : machine_ops(m); /* a fork without an op has its parent's */
	job->rebuild.machine = machine_id(m);
	job->rebuild.op = REBUILD_LAST;
	job->rebuild.stop_at_lost = !revive;
	machine_set_progress(m, 0, job->goal);
	wait_behind(rc, job);
	if (!uv_is_active((uv_handle_t *)&rc->progress))
		uv_timer_start(&rc->progress, on_progress, PROGRESS_MS, PROGRESS_MS);
	pump(rc);
}

void recovery_add(struct recovery *rc, struct machine *m)
{
	add(rc, m, false);
}

void recovery_revive(struct recovery *rc, struct machine *m)
{
	add(rc, m, true);
}

void recovery_forget(struct recovery *rc, struct machine *m)
{
	struct job **at = &rc->waiting;

	for (unsigned i = 0; i < rc->nr_workers; i++) {
		struct job *job = rc->workers[i].job;

		if (!job || job->machine != m)
			continue;
		job->machine = NULL;
		atomic_store(&job->rebuild.cancelled, true);
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

	if (error) {
		log_error("a machine of the history cannot be taken up", LOG_S("machine", hm->name),
			  LOG_S("backend", hm->backend));
		return true;
	}
	machine_set_progress(m, 0, hm->forked_at_op);
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
