/*
 * checkpoint.c - see checkpoint.h.
 *
 *   choose -> [thread: rebuild, digest, some pieces] -> write them, one a turn -> [thread:
 *   more pieces] -> ... -> the checkpoint's row -> thin out older ones
 *
 * Invariants:
 *  1. There is one job. It is with a thread, or has pieces to be written, never both.
 *  2. A turn whose commit failed ends the job whose pieces it may have had: the machine's
 *     turn comes again.
 *  3. Nothing is forgotten while a machine that lives needs it: every fork has a checkpoint
 *     of its own first. A fork that has ended may lose what it came from.
 *
 * What failed is not tried again before RETRY_MS: it would fail again.
 */
#include "checkpoint.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "rebuild.h"

enum {
	TICK_MS = 250,
	RETRY_MS = 60000,
	RETAIN_MS = 1000,      /* between two looks at what is to be forgotten */
	FORGET_MAX = 16,       /* machines that have ended, in one turn */
	BATCH_BYTES = 4 << 20, /* of pieces in memory */
	BATCH_MAX = 256,       /* pieces */
	OPS_DEFAULT = 1 << 20,
	SECONDS_DEFAULT = 600,
	/* When the record is too large, a machine with so many ops can help. */
	OPS_WHEN_LARGE = 1024,
};

struct piece {
	uint8_t *bytes;
	size_t length;
};

struct job {
	uv_work_t work;
	struct checkpoints *cs;
	bool in_thread, is_void;
	struct rebuild rebuild; /* its replica is what is kept */
	struct replica_save *save;
	struct history_checkpoint row;
	struct piece pieces[BATCH_MAX];
	unsigned nr, next; /* pieces of this batch, and how many are written */
	bool last;	   /* no batch follows */
	uint64_t bytes;
};

struct checkpoints {
	struct checkpoints_options options;
	uv_timer_t timer; /* active while something has been recorded */
	struct history_reader *reader;
	struct job *job;
	uint64_t not_before_ns, next_retain_ns;
	bool want_prune;
	void (*finished)(void *user);
	void *finished_user;
};

/* ---- a job: in the thread ---- */

static void fill_row(struct job *job)
{
	struct replica *r = job->rebuild.replica;

	job->row = (struct history_checkpoint){
	    .machine = job->rebuild.machine,
	    .op = replica_op(r),
	    .digest = replica_digest(r),
	    .owners = replica_owners(r),
	    .parked = replica_parked(r),
	    .nr_parked = replica_nr_parked(r),
	};
}

static void make_pieces(struct job *job)
{
	size_t bytes = 0;

	job->nr = job->next = 0;
	while (job->nr < BATCH_MAX && bytes < BATCH_BYTES) {
		struct piece *p = &job->pieces[job->nr];
		const u8 *compressed;

		p->length = replica_save_next(job->save, &compressed);
		if (!p->length) {
			job->last = true;
			break;
		}
		p->bytes = malloc(p->length);
		if (!p->bytes)
			abort();
		memcpy(p->bytes, compressed, p->length);
		bytes += p->length;
		job->nr++;
	}
	job->bytes += bytes;
}

static void run(uv_work_t *work)
{
	struct job *job = work->data;
	struct checkpoints *cs = job->cs;
	struct rebuild *b = &job->rebuild;

	if (!cs->reader &&
	    history_reader_open(cs->options.history, &cs->reader, b->why, sizeof b->why)) {
		b->error = MACHINE_E_HISTORY;
		return;
	}
	if (!job->save) {
		rebuild_run(b, cs->reader);
		if (b->error)
			return;
		fill_row(job);
		job->save = replica_save_begin(b->replica);
		if (!job->save) {
			b->error = MACHINE_E_MEMORY;
			return;
		}
	}
	make_pieces(job);
}

/* ---- a job: on the loop ---- */

static void job_end(struct checkpoints *cs)
{
	struct job *job = cs->job;

	cs->job = NULL;
	for (unsigned i = job->next; i < job->nr; i++)
		free(job->pieces[i].bytes);
	replica_save_end(job->save);
	replica_free(job->rebuild.replica);
	free(job);
}

static void job_fail(struct checkpoints *cs, const char *why)
{
	struct machine *m = machines_find_id(cs->options.machines, cs->job->rebuild.machine);

	if (m && cs->job->rebuild.error != MACHINE_E_CANCELLED)
		log_warning("a machine could not be kept; its ops are in the history all the same",
			    LOG_S("machine", machine_name(m)), LOG_N("op", cs->job->rebuild.op),
			    LOG_S("why", why));
	cs->not_before_ns = uv_hrtime() + RETRY_MS * UINT64_C(1000000);
	history_forget_pieces(cs->options.history);
	job_end(cs);
}

static void over(uv_work_t *work, int status)
{
	struct job *job = work->data;
	struct checkpoints *cs = job->cs;

	(void)status; /* Nobody cancels it in the pool. */
	job->in_thread = false;
	if (job->rebuild.note[0])
		log_warning("a checkpoint is no good; replayed from before it",
			    LOG_N("machine", job->rebuild.machine),
			    LOG_S("why", job->rebuild.note));
	if (job->is_void)
		job_fail(cs, "a commit failed meanwhile");
	else if (job->rebuild.error)
		job_fail(cs, job->rebuild.why);
	cs->options.wake(cs->options.user);
}

static void to_thread(struct checkpoints *cs)
{
	struct job *job = cs->job;

	job->in_thread = true;
	/* It refuses nothing but a missing function. */
	if (uv_queue_work(cs->options.loop, &job->work, run, over))
		abort();
}

static void job_begin(struct checkpoints *cs, struct machine *m)
{
	struct job *job = calloc(1, sizeof *job);

	if (!job)
		abort();
	job->cs = cs;
	job->work.data = job;
	job->rebuild.machine = machine_id(m);
	job->rebuild.op = machine_ops(m);
	cs->job = job;
	to_thread(cs);
}

/* ---- which machine ---- */

struct choice {
	struct checkpoints *cs;
	uint64_t
	    ops; /* that it must have had since its last, and, as it goes on, those of `best` */
	int64_t before_ns; /* or that last one must be no younger */
	struct machine *best;
	bool any;   /* some machine has ops that no checkpoint has */
	bool forks; /* a fork without a checkpoint of its own is due */
};

/* One whose row is of this turn cannot be told from a fork yet, and may be one. */
static bool is_bare_fork(struct checkpoints *cs, struct machine *m)
{
	uint64_t from = 0, at_op, op;
	int64_t time_ns;

	return !history_saved(cs->options.history, machine_id(m), &op, &time_ns) &&
	       (history_lineage(cs->options.history, machine_id(m), &from, &at_op) || from);
}

static void consider(void *arg, struct machine *m)
{
	struct choice *c = arg;
	uint64_t op = 0, since;
	int64_t time_ns = machine_created_ns(m);
	enum machine_status status = machine_status(m);

	if (status == MACHINE_RECOVERING || status == MACHINE_LOST)
		return;
	history_saved(c->cs->options.history, machine_id(m), &op, &time_ns);
	since = machine_ops(m) - op;
	c->any |= since > 0;
	if (c->forks && is_bare_fork(c->cs, m)) {
		c->best = m;
		c->ops = UINT64_MAX;
	} else if (since > 0 && (since >= c->ops || (!c->best && time_ns <= c->before_ns))) {
		c->best = m;
		if (since > c->ops)
			c->ops = since;
	}
}

static bool is_too_large(struct checkpoints *cs)
{
	return cs->options.retain_bytes &&
	       history_used_bytes(cs->options.history) > cs->options.retain_bytes;
}

static struct machine *choose(struct checkpoints *cs, int64_t now_ns, bool *ret_any)
{
	const struct checkpoints_options *o = &cs->options;
	uint64_t seconds = o->seconds;
	struct choice c = {.cs = cs, .ops = o->ops};

	if (o->retain_seconds && o->retain_seconds / 4 < seconds)
		seconds = o->retain_seconds / 4;
	c.before_ns = now_ns - (int64_t)seconds * 1000000000;
	c.forks = o->retain_seconds || o->retain_bytes;
	if (cs->finished)
		c.ops = 1;
	else if (is_too_large(cs) && OPS_WHEN_LARGE < c.ops)
		c.ops = OPS_WHEN_LARGE;
	machines_each(o->machines, consider, &c);
	*ret_any = c.any;
	return c.best;
}

/* ---- the clock ---- */

static int64_t wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void finish(struct checkpoints *cs)
{
	void (*finished)(void *user) = cs->finished;

	uv_timer_stop(&cs->timer);
	cs->finished = NULL;
	finished(cs->finished_user);
}

static void on_tick(uv_timer_t *timer)
{
	struct checkpoints *cs = timer->data;
	const struct checkpoints_options *o = &cs->options;
	uint64_t now = uv_hrtime();
	bool any = true, may_write;
	char why[HISTORY_WHY_LENGTH];
	struct machine *m = NULL;

	may_write = !history_ready(o->history, why, sizeof why);
	if (!cs->job && now >= cs->not_before_ns && may_write && (m = choose(cs, wall_ns(), &any)))
		job_begin(cs, m);
	if (now >= cs->next_retain_ns && (o->retain_seconds || o->retain_bytes)) {
		cs->next_retain_ns = now + RETAIN_MS * UINT64_C(1000000);
		cs->want_prune = true;
	}
	if (cs->job || cs->want_prune || history_has_rubbish(o->history))
		o->wake(o->user);
	else if (cs->finished)
		finish(cs);
	else if (!any && !o->retain_seconds && !o->retain_bytes)
		uv_timer_stop(&cs->timer);
}

void checkpoints_touch(struct checkpoints *cs)
{
	if (!uv_is_active((uv_handle_t *)&cs->timer))
		uv_timer_start(&cs->timer, on_tick, TICK_MS, TICK_MS);
}

/* ---- forgetting ---- */

struct pruning {
	struct checkpoints *cs;
	int64_t before_ns;
	int64_t oldest_ns; /* the oldest checkpoint for which a machine can forget something */
	uint64_t oldest;   /* whose */
	bool bare_fork;
};

static void prune_one(void *arg, struct machine *m)
{
	struct pruning *p = arg;
	struct history *h = p->cs->options.history;
	uint64_t first = history_prune(h, machine_id(m), p->before_ns);

	if (first)
		log_info("a machine's oldest ops are forgotten", LOG_S("machine", machine_name(m)),
			 LOG_N("first_op", first));
}

static void find_bare_fork(void *arg, struct machine *m)
{
	struct pruning *p = arg;

	p->bare_fork |= is_bare_fork(p->cs, m);
}

static void find_oldest(void *arg, struct machine *m)
{
	struct pruning *p = arg;
	int64_t time_ns;

	if (history_prunable(p->cs->options.history, machine_id(m), &time_ns) &&
	    time_ns < p->oldest_ns) {
		p->oldest_ns = time_ns;
		p->oldest = machine_id(m);
	}
}

static void forget(struct checkpoints *cs, uint64_t machine)
{
	history_forget(cs->options.history, machine);
	log_info("a machine that has ended is forgotten", LOG_N("machine", machine));
}

/* Machines that ended before then, as many as a turn takes. */
static void forget_ended(struct checkpoints *cs, int64_t before_ns)
{
	int64_t ended_ns;
	uint64_t machine;

	for (unsigned i = 0; i < FORGET_MAX; i++) {
		machine = history_oldest_ended(cs->options.history, &ended_ns);
		if (!machine || ended_ns > before_ns)
			return;
		forget(cs, machine);
	}
	cs->want_prune = true;
}

/* What is oldest goes: a machine that has ended, or a step of one that lives. */
static void forget_oldest(struct checkpoints *cs)
{
	const struct checkpoints_options *o = &cs->options;
	struct pruning p = {.cs = cs, .oldest_ns = INT64_MAX};
	int64_t ended_ns;
	uint64_t ended = history_oldest_ended(o->history, &ended_ns);
	struct machine *m;

	machines_each(o->machines, find_oldest, &p);
	if (ended && ended_ns <= p.oldest_ns) {
		forget(cs, ended);
		return;
	}
	m = p.oldest ? machines_find_id(o->machines, p.oldest) : NULL;
	p.before_ns = p.oldest_ns;
	if (m)
		prune_one(&p, m);
}

/* True: something is in the turn's transaction. */
static bool prune(struct checkpoints *cs)
{
	const struct checkpoints_options *o = &cs->options;
	struct pruning p = {.cs = cs};

	cs->want_prune = false;
	machines_each(o->machines, find_bare_fork, &p);
	if (p.bare_fork)
		return false;
	if (o->retain_seconds) {
		p.before_ns = wall_ns() - (int64_t)o->retain_seconds * 1000000000;
		machines_each(o->machines, prune_one, &p);
		forget_ended(cs, p.before_ns);
	}
	/* One step at a time: what it frees is known when it has been swept. */
	if (!is_too_large(cs) || history_has_rubbish(o->history))
		return o->retain_seconds != 0;
	forget_oldest(cs);
	return true;
}

/* ---- in a turn ---- */

static void write_row(struct checkpoints *cs, int64_t time_ns)
{
	struct job *job = cs->job;
	struct machine *m = machines_find_id(cs->options.machines, job->row.machine);

	job->row.time_ns = time_ns;
	job->row.frames = replica_save_frames(job->save);
	history_add_checkpoint(cs->options.history, &job->row);
	history_thin_checkpoints(cs->options.history, job->row.machine);
	log_debug("a machine is kept", LOG_S("machine", m ? machine_name(m) : ""),
		  LOG_N("op", job->row.op), LOG_N("frames", job->row.frames),
		  LOG_N("bytes", job->bytes));
	job_end(cs);
}

bool checkpoints_write(struct checkpoints *cs, int64_t time_ns)
{
	struct job *job = cs->job;
	struct history *h = cs->options.history;

	if (job && !job->in_thread) {
		if (job->next < job->nr) {
			struct piece *p = &job->pieces[job->next++];

			history_add_piece(h, p->bytes, p->length);
			free(p->bytes);
		} else if (job->last) {
			write_row(cs, time_ns);
		} else {
			to_thread(cs);
			return false;
		}
		cs->options.wake(cs->options.user);
		return true;
	}
	if (cs->want_prune)
		return prune(cs);
	if (!history_sweep(h))
		return false;
	cs->options.wake(cs->options.user);
	return true;
}

void checkpoints_committed(struct checkpoints *cs, bool ok)
{
	if (ok || !cs->job)
		return;
	if (cs->job->in_thread)
		cs->job->is_void = true;
	else
		job_fail(cs, "a commit failed meanwhile");
}

/* ---- made and ended ---- */

struct checkpoints *checkpoints_new(const struct checkpoints_options *options)
{
	struct checkpoints *cs = calloc(1, sizeof *cs);

	if (!cs)
		abort();
	cs->options = *options;
	if (!cs->options.ops)
		cs->options.ops = OPS_DEFAULT;
	if (!cs->options.seconds)
		cs->options.seconds = SECONDS_DEFAULT;
	uv_timer_init(options->loop, &cs->timer);
	cs->timer.data = cs;
	if ((options->retain_seconds || options->retain_bytes) &&
	    !history_gives_back(options->history))
		log_info("the history's file will not become smaller: what is free in it is used "
			 "again; `zonectl history compact` changes that");
	return cs;
}

void checkpoints_finish(struct checkpoints *cs, void (*done)(void *user), void *user)
{
	cs->finished = done;
	cs->finished_user = user;
	cs->not_before_ns = 0;
	uv_timer_start(&cs->timer, on_tick, 0, 1);
}

static void timer_closed(uv_handle_t *timer)
{
	free(timer->data);
}

void checkpoints_free(struct checkpoints *cs)
{
	if (!cs)
		return;
	if (cs->job) {
		atomic_store(&cs->job->rebuild.cancelled, true);
		while (cs->job->in_thread)
			uv_run(cs->options.loop, UV_RUN_ONCE);
		if (cs->job)
			job_end(cs);
	}
	history_reader_close(cs->reader);
	uv_close((uv_handle_t *)&cs->timer, timer_closed);
}
