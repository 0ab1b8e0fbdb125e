/*
 * turn.c - one turn of the loop: read, execute, commit, reply, flush.
 *
 * The loop's poll has read by the time on_check() runs. What the turn then does, and
 * in which order, is turn_run(); why in this order, turn.h.
 *
 * Invariants:
 *  1. Whatever happens in a machine goes to the history before the next thing
 *     happens in it, and to nobody else before history_commit() has succeeded.
 *  2. The turn's list has each request that this turn executed or ended, once.
 *  3. The idle handle runs exactly while there is something to do that no descriptor
 *     will announce: it keeps the poll from blocking.
 *
 * Deliberately not here: how an op is executed (machine/), stored (history/) or
 * replayed (recovery.c), and what a message looks like (rpc/).
 */
#include "turn.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoint.h"
#include "log.h"
#include "past.h"
#include "recovery.h"
#include "reserve.h"

/* A turn executes at most so many ops, for at most so long, because those who come
 * meanwhile wait for its end. Committing an op costs more than executing it; a commit
 * costs about that of fifty ops beside, so a longer turn would gain little. */
enum {
	TURN_OPS = 1024,
	TURN_NS = 2000000,
	/* The WAL and the memory in use are looked after this often, until so many times
	 * nothing was committed in between. */
	UPKEEP_MS = 100,
	UPKEEP_QUIET = 20,
};

struct turn {
	struct turn_options options;
	struct machines *machines;
	struct recovery *recovery;
	struct pasts *pasts;
	struct checkpoints *checkpoints;
	uv_check_t check;
	uv_idle_t idle;
	uv_timer_t upkeep;
	unsigned handles; /* not yet closed */
	bool spinning;	  /* idle is active */
	bool woken;
	bool dirty; /* the history has something pending */
	bool stopping;
	int64_t time_ns;		      /* 0: not asked for in this turn */
	unsigned quiet;			      /* upkeeps since the last commit */
	char refused[256];		      /* why the history takes no ops */
	struct machine_request *first, *last; /* executed or ended in this turn */
	struct turn_waiter waiters;	      /* ring */
};

/* ---- what machines tell ---- */

static void hook_ready(void *user)
{
	turn_wake(user);
}

static void hook_labelled(void *user, struct machine *m, uint32_t number, const char *label)
{
	struct turn *t = user;

	history_add_owner(t->options.history, machine_id(m), number, label);
	t->dirty = true;
}

static uint64_t hook_copied(void *user, struct machine *from, uint64_t at_op, struct machine *copy)
{
	struct turn *t = user;

	t->dirty = true;
	machine_set_created_ns(copy, turn_time_ns(t));
	return history_add_machine(t->options.history, machine_name(copy), machine_backend(copy),
				   machine_config(copy), machine_id(from), at_op,
				   machine_is_snapshot(copy), turn_time_ns(t));
}

/* Puts a request at the end of the turn's list. One that went to sleep and woke in
 * the same turn stands where it woke: answers leave in the order in which they came
 * to be. */
static void list(struct turn *t, struct machine_request *r)
{
	if (t->last == r)
		return;
	if (r->listed) {
		/* It is not the last one. */
		r->turn_next->turn_prev = r->turn_prev;
		if (r->turn_prev)
			r->turn_prev->turn_next = r->turn_next;
		else
			t->first = r->turn_next;
	}
	r->listed = true;
	r->turn_next = NULL;
	r->turn_prev = t->last;
	if (t->last)
		t->last->turn_next = r;
	else
		t->first = r;
	t->last = r;
}

static void hook_executed(void *user, struct machine *m, struct machine_request *r,
			  const struct engine_event *events, uint32_t nr_events)
{
	struct turn *t = user;
	const struct engine_op *op = &r->op;
	struct history_record record = {
	    .machine = machine_id(m),
	    .op = r->result.op,
	    .client = r->client,
	    .token = r->token,
	    .sequence = r->sequence,
	    .time_ns = turn_time_ns(t),
	    .latency_ns = r->latency_ns,
	    .code = op->code,
	    .cpu = op->cpu,
	    .task = op->task,
	    .owner = op->owner,
	    .data = op->data,
	    .data_len = op->data_len,
	    .status = r->result.status,
	    .result_data = r->result.data,
	    .result_len = r->result.data_len,
	    .events = events,
	    .nr_events = nr_events,
	};

	memcpy(record.args, op->args, sizeof record.args);
	memcpy(record.values, r->result.values, sizeof record.values);
	history_append(t->options.history, &record);
	t->dirty = true;
	list(t, r);
}

static void hook_completed(void *user, struct machine *m, uint64_t woken_by,
			   const struct engine_completion *c)
{
	struct turn *t = user;

	history_append_completion(t->options.history, machine_id(m), woken_by, c, turn_time_ns(t));
	t->dirty = true;
}

static void hook_lost(void *user, struct machine *m)
{
	struct turn *t = user;

	history_add_loss(t->options.history, machine_id(m), machine_ops(m), machine_reason(m),
			 turn_time_ns(t));
	t->dirty = true;
	turn_wake(t);
}

static void hook_ended(void *user, struct machine_request *r)
{
	list(user, r);
	turn_wake(user);
}

/* ---- a turn ---- */

/* Below the disk reserve, at the WAL's limit or without memory in reserve, clients' ops
 * are refused before they exist. The daemon's own still run: there is one for each sleeper at most.
 */
static void execute(struct turn *t)
{
	int error = history_ready(t->options.history, t->refused, sizeof t->refused);

	recovery_tell_progress(t->recovery);
	if (!reserve_restore())
		machines_refuse_queued(t->machines, MACHINE_E_MEMORY,
				       "the host has no memory left; try again");
	if (error)
		machines_refuse_queued(t->machines, MACHINE_E_DISK, t->refused);
	machines_run(t->machines, TURN_OPS, uv_hrtime() + TURN_NS);
	if (t->dirty)
		checkpoints_touch(t->checkpoints);
	if (!error)
		t->dirty |= checkpoints_write(t->checkpoints, turn_time_ns(t));
}

static void rebuild(void *arg, struct machine *m)
{
	struct turn *t = arg;

	log_warning("a machine is made again after a failed commit",
		    LOG_S("machine", machine_name(m)));
	recovery_forget(t->recovery, m); /* it may be being revived */
	recovery_add(t->recovery, m);
}

static enum machine_error commit(struct turn *t, char *why, size_t why_size)
{
	int error = t->dirty ? history_commit(t->options.history, why, why_size) : HISTORY_OK;

	t->dirty = false;
	if (!error)
		return MACHINE_OK;
	log_error("a commit failed; nothing of the turn is acknowledged", LOG_S("why", why));
	machines_rolled_back(t->machines, rebuild, t);
	return error == HISTORY_FULL || error == HISTORY_WAL ? MACHINE_E_DISK : MACHINE_E_HISTORY;
}

/* Requests that ended get their done(); those that went to sleep are off the list,
 * unless the commit failed: then they never slept. */
static void answer_requests(struct turn *t, enum machine_error error, const char *why)
{
	struct machine_request *r = t->first, *next;

	t->first = t->last = NULL;
	for (; r; r = next) {
		next = r->turn_next;
		r->listed = false;
		if (error && !r->error) {
			r->error = error;
			r->why = why;
			r->state = REQUEST_ENDED;
		}
		if (r->state == REQUEST_ENDED) {
			r->state = REQUEST_FREE;
			r->done(r);
		} else if (r->parked) {
			r->parked(r);
		}
	}
}

static void answer_waiters(struct turn *t, enum machine_error error, const char *why)
{
	struct turn_waiter again = {.next = &again, .prev = &again}, *w;

	while ((w = t->waiters.next) != &t->waiters) {
		/* Off the list first: fn may free it, and may add others. */
		turn_unwait(t, w);
		if (w->fn(w, error, why))
			continue;
		w->prev = again.prev;
		w->next = &again;
		w->prev->next = w->next->prev = w;
	}
	if (again.next == &again)
		return;
	t->waiters.next = again.next;
	t->waiters.prev = again.prev;
	t->waiters.next->prev = t->waiters.prev->next = &t->waiters;
}

static bool has_more(struct turn *t)
{
	return t->woken || t->first || machines_have_work(t->machines);
}

static void on_upkeep(uv_timer_t *timer)
{
	struct turn *t = timer->data;

	history_idle(t->options.history);
	machines_measure(t->machines);
	if (++t->quiet == UPKEEP_QUIET)
		uv_timer_stop(&t->upkeep);
}

static void keep_up(struct turn *t)
{
	t->quiet = 0;
	if (!uv_is_active((uv_handle_t *)&t->upkeep))
		uv_timer_start(&t->upkeep, on_upkeep, UPKEEP_MS, UPKEEP_MS);
}

static void turn_run(struct turn *t)
{
	char why[256] = "";
	enum machine_error error;

	t->woken = false;
	execute(t);
	if (t->stopping)
		machines_release_parked(t->machines, MACHINE_E_SHUTDOWN, NULL);
	if (t->dirty)
		keep_up(t);
	error = commit(t, why, sizeof why);
	checkpoints_committed(t->checkpoints, !error);
	answer_requests(t, error, *why ? why : NULL);
	if (!error)
		machines_committed(t->machines);
	answer_waiters(t, error, *why ? why : NULL);
	t->time_ns = 0;
	t->options.flush(t->options.user);
}

static void on_idle(uv_idle_t *idle)
{
	(void)idle; /* Being active is all that it does. */
}

static void on_check(uv_check_t *check)
{
	struct turn *t = check->data;

	if (has_more(t))
		turn_run(t);
	if (has_more(t) == t->spinning)
		return;
	t->spinning = !t->spinning;
	if (t->spinning)
		uv_idle_start(&t->idle, on_idle);
	else
		uv_idle_stop(&t->idle);
}

void turn_wake(struct turn *t)
{
	t->woken = true;
	if (!t->spinning)
		uv_idle_start(&t->idle, on_idle);
	t->spinning = true;
}

/* ---- the rest ---- */

static void on_recovered(void *user)
{
	struct turn *t = user;

	/* The limits hold from the first op on. */
	machines_measure(t->machines);
	checkpoints_touch(t->checkpoints);
	t->options.recovered(t->options.user);
}

struct turn *turn_new(const struct turn_options *options)
{
	struct turn *t = calloc(1, sizeof *t);
	struct machines_hooks hooks = {
	    .user = t,
	    .loop = options->loop,
	    .ready = hook_ready,
	    .labelled = hook_labelled,
	    .copied = hook_copied,
	    .executed = hook_executed,
	    .completed = hook_completed,
	    .lost = hook_lost,
	    .ended = hook_ended,
	};
	struct checkpoints_options keeping = {
	    .loop = options->loop,
	    .history = options->history,
	    .ops = options->checkpoint_ops,
	    .seconds = options->checkpoint_seconds,
	    .retain_seconds = options->retain_seconds,
	    .retain_bytes = options->retain_bytes,
	    .user = t,
	    .wake = hook_ready,
	};
	struct recovery_hooks recovering = {.user = t, .wake = hook_ready, .idle = on_recovered};

	if (!t)
		return NULL;
	t->options = *options;
	t->waiters.next = t->waiters.prev = &t->waiters;
	t->machines = machines_new(&options->limits, &hooks);
	if (!t->machines) {
		free(t);
		return NULL;
	}
	keeping.machines = t->machines;
	t->recovery = recovery_new(options->loop, t->machines, options->history, &recovering);
	t->pasts = pasts_new(options->loop, options->history);
	t->checkpoints = checkpoints_new(&keeping);
	uv_check_init(options->loop, &t->check);
	uv_idle_init(options->loop, &t->idle);
	uv_timer_init(options->loop, &t->upkeep);
	t->check.data = t->idle.data = t->upkeep.data = t;
	t->handles = 3;
	uv_check_start(&t->check, on_check);
	return t;
}

static void on_closed(uv_handle_t *handle)
{
	struct turn *t = handle->data;

	if (--t->handles == 0)
		free(t);
}

void turn_free(struct turn *t)
{
	if (!t)
		return;
	uv_check_stop(&t->check);
	uv_idle_stop(&t->idle);
	while (machines_looked_into(t->machines))
		uv_run(t->options.loop, UV_RUN_ONCE);
	checkpoints_free(t->checkpoints);
	pasts_free(t->pasts);
	recovery_free(t->recovery);
	machines_free(t->machines);
	uv_close((uv_handle_t *)&t->check, on_closed);
	uv_close((uv_handle_t *)&t->idle, on_closed);
	uv_close((uv_handle_t *)&t->upkeep, on_closed);
}

struct machines *turn_machines(struct turn *t)
{
	return t->machines;
}

struct pasts *turn_pasts(struct turn *t)
{
	return t->pasts;
}

struct history *turn_history(struct turn *t)
{
	return t->options.history;
}

bool turn_start(struct turn *t, char *err, size_t err_size)
{
	if (recovery_start(t->recovery, err, err_size))
		return false;
	turn_wake(t);
	if (recovery_is_idle(t->recovery))
		on_recovered(t);
	return true;
}

int64_t turn_time_ns(struct turn *t)
{
	struct timespec now;

	if (!t->time_ns) {
		clock_gettime(CLOCK_REALTIME, &now);
		t->time_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
	}
	return t->time_ns;
}

bool turn_is_idle(const struct turn *t)
{
	return !t->first && t->waiters.next == &t->waiters && !machines_have_work(t->machines) &&
	       !machines_copying(t->machines) && recovery_is_idle(t->recovery);
}

void turn_stop(struct turn *t)
{
	t->stopping = true;
	turn_wake(t);
}

void turn_keep_machines(struct turn *t, void (*done)(void *user), void *user)
{
	checkpoints_finish(t->checkpoints, done, user);
}

bool turn_is_stopping(const struct turn *t)
{
	return t->stopping;
}

enum machine_error turn_create(struct turn *t, const char *name, size_t length, uint32_t backend,
			       const struct engine_config *config, struct machine **ret,
			       struct engine_error *why)
{
	struct history_record boot = {.time_ns = turn_time_ns(t)};
	enum machine_error error;
	struct machine *m;

	if (t->stopping)
		return MACHINE_E_SHUTDOWN;
	if (history_ready(t->options.history, why->text, sizeof why->text))
		return MACHINE_E_DISK;
	error = machines_create(t->machines, name, length, backend, config, &m, why);
	if (error)
		return error;
	machine_set_created_ns(m, boot.time_ns);
	machine_set_id(m,
		       history_add_machine(t->options.history, machine_name(m), machine_backend(m),
					   config, 0, 0, false, boot.time_ns));
	/* What boot did is the history of op 0, which nobody sent. */
	boot.machine = machine_id(m);
	boot.events = machine_boot_events(m, &boot.nr_events);
	history_append(t->options.history, &boot);
	t->dirty = true;
	*ret = m;
	turn_wake(t);
	return MACHINE_OK;
}

struct fork {
	struct turn *turn;
	const char *name;
	struct replica *replica;
	struct engine_error *why;
	uint32_t nr_owners; /* those whose label is used by then */
	struct machine *machine;
	enum machine_error error;
};

static bool take_owner(void *arg, uint32_t number, const char *label)
{
	struct fork *f = arg;

	if (number > f->nr_owners)
		return true;
	f->error = machine_set_label(f->machine, number, label);
	history_add_owner(f->turn->options.history, machine_id(f->machine), number, label);
	return !f->error;
}

static void make_fork(void *arg, const struct history_machine *from)
{
	struct fork *f = arg;
	struct turn *t = f->turn;
	uint64_t at_op = replica_op(f->replica);
	int64_t now = turn_time_ns(t);

	/* The replica may be older than the last pruning. A fork of it could not come back. */
	if (!history_reaches(t->options.history, from->id, at_op)) {
		f->error = MACHINE_E_PRUNED;
		return;
	}
	f->nr_owners = replica_owners(f->replica);
	f->error = machines_fork(t->machines, f->name, strlen(f->name), from->backend, from->config,
				 f->replica, &f->machine, f->why);
	if (f->error)
		return;
	t->dirty = true;
	machine_set_created_ns(f->machine, now);
	machine_set_id(f->machine, history_add_machine(t->options.history, f->name, from->backend,
						       from->config, from->id, at_op, false, now));
}

enum machine_error turn_fork(struct turn *t, uint64_t from, const char *name, struct replica *r,
			     struct machine **ret, struct engine_error *why)
{
	struct fork f = {t, name, r, why, 0, NULL, MACHINE_E_GONE};
	char number[32];
	int length = snprintf(number, sizeof number, "#%llu", (unsigned long long)from);

	if (t->stopping)
		return MACHINE_E_SHUTDOWN;
	if (history_ready(t->options.history, why->text, sizeof why->text))
		return MACHINE_E_DISK;
	if (history_machine_ever(t->options.history, number, (size_t)length, make_fork, &f))
		return MACHINE_E_HISTORY;
	if (f.error)
		return f.error;
	/* Without its labels it would not be that machine: it goes with this turn. */
	if (history_owners(t->options.history, from, take_owner, &f) || f.error) {
		turn_destroy(t, f.machine);
		return f.error ? f.error : MACHINE_E_HISTORY;
	}
	machine_recovered(f.machine);
	*ret = f.machine;
	turn_wake(t);
	return MACHINE_OK;
}

void turn_destroy(struct turn *t, struct machine *m)
{
	recovery_forget(t->recovery, m);
	history_end_machine(t->options.history, machine_id(m), turn_time_ns(t));
	t->dirty = true;
	machines_destroy(t->machines, m);
	turn_wake(t);
}

enum machine_error turn_revive(struct turn *t, struct machine *m)
{
	if (t->stopping)
		return MACHINE_E_SHUTDOWN;
	if (machine_status(m) != MACHINE_LOST)
		return MACHINE_E_NOT_LOST;
	machine_revive(m);
	recovery_revive(t->recovery, m);
	turn_wake(t);
	return MACHINE_OK;
}

enum machine_error turn_submit(struct turn *t, struct machine *m, struct machine_request *r)
{
	enum machine_error error = t->stopping ? MACHINE_E_SHUTDOWN : machine_submit(m, r);

	if (!error && !t->woken)
		turn_wake(t);
	return error;
}

enum machine_error turn_look(struct turn *t, struct machine *m, struct machine_look *l)
{
	return machine_look(m, t->options.loop, l);
}

uint64_t turn_add_client(struct turn *t, const char *address)
{
	t->dirty = true;
	return history_add_client(t->options.history, address, turn_time_ns(t));
}

void turn_wait(struct turn *t, struct turn_waiter *w)
{
	w->next = &t->waiters;
	w->prev = t->waiters.prev;
	w->prev->next = w->next->prev = w;
	turn_wake(t);
}

void turn_unwait(struct turn *t, struct turn_waiter *w)
{
	(void)t;
	w->prev->next = w->next;
	w->next->prev = w->prev;
	w->next = w->prev = w;
}

const char *turn_error_text(enum machine_error error, const char *why)
{
	static const char *const text[MACHINE_E_END] = {
	    [MACHINE_E_NAME] = "a machine's name is 1 to 63 of the characters A-Z a-z 0-9 . _ -",
	    [MACHINE_E_EXISTS] = "there is a machine of this name",
	    [MACHINE_E_GONE] = "the machine was destroyed before the op was taken up",
	    [MACHINE_E_ABORTED] = "the machine ended while the op was asleep; the op is recorded",
	    [MACHINE_E_CANCELLED] = "given up before it was taken up",
	    [MACHINE_E_CONFIG] = "the configuration contradicts itself",
	    [MACHINE_E_BACKEND] = "this daemon has no such back end",
	    [MACHINE_E_MACHINES] = "the daemon hosts as many machines as it may",
	    [MACHINE_E_MEMORY] = "the memory for machines is used up; destroy one",
	    [MACHINE_E_QUEUE] = "too many ops wait for this machine; send them again later",
	    [MACHINE_E_LABELS] = "the machine has as many owner labels as it keeps",
	    [MACHINE_E_BUSY] = "an op is under way",
	    [MACHINE_E_RECOVERING] = "the machine is being replayed from the history; try again",
	    [MACHINE_E_FROZEN] = "the machine is a snapshot: it answers inspections alone",
	    [MACHINE_E_IS_LOST] = "the machine is lost",
	    [MACHINE_E_NOT_LOST] = "the machine is not lost: there is nothing to revive",
	    [MACHINE_E_FENCED] = "Status has answered since that this op was not taken up",
	    [MACHINE_E_NO_OP] = "the machine has not come to that op yet",
	    [MACHINE_E_PRUNED] = "the history no longer has what led to that op",
	    [MACHINE_E_DISK] = "the history is out of room",
	    [MACHINE_E_HISTORY] = "the history could not record it; it did not happen",
	    [MACHINE_E_SHUTDOWN] = "the daemon is going down",
	};

	return why ? why : text[error];
}
