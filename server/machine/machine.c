/*
 * machine.c - one machine: its queue, the op that it executes, the ops that sleep.
 *
 * The way of a request:
 *
 *   submit -> QUEUED -> RUNNING -> ENDED          the op has its answer
 *                          \-----> PARKED -> ENDED  another op woke or withdrew it
 *   QUEUED -> ENDED                                 refused, given up, machine gone
 *
 * Invariants:
 *  1. The ops that are with the back end are `running`, oldest first, and no more than
 *     it holds. Behind an op on which the daemon has the last word there is none.
 *  2. `parked` holds exactly the ops that the engine has asleep, in order of number;
 *     an entry's request is who waits for it, if anyone still does.
 *  3. A parked op whose waiter is gone has a Withdraw in the queue, or one that is
 *     running, unless the machine takes no ops.
 *  4. Nothing here answers anyone: ended requests go to hooks->ended, and whoever
 *     has committed the turn calls done().
 *
 * Deliberately not here: what is recorded, and when it is durable (turn.c).
 */
#include "machine_priv.h"
#include "replica.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

/* ---- bytes of results, until the turn is over ---- */

enum { SCRATCH_CHUNK = 1 << 20 };

struct scratch_chunk {
	struct scratch_chunk *next;
	size_t used, size;
	uint8_t bytes[];
};

uint8_t *scratch_copy(struct machines *ms, const uint8_t *bytes, size_t length)
{
	struct scratch_chunk *c = ms->scratch;
	uint8_t *copy;

	if (!c || c->size - c->used < length) {
		size_t size = length > SCRATCH_CHUNK ? length : SCRATCH_CHUNK;

		c = malloc(sizeof *c + size);
		if (!c)
			abort();
		c->next = ms->scratch;
		c->used = 0;
		c->size = size;
		ms->scratch = c;
	}
	copy = c->bytes + c->used;
	memcpy(copy, bytes, length);
	c->used += length;
	return copy;
}

/* Keeps one chunk, so that a usual turn allocates nothing. */
void scratch_reset(struct machines *ms)
{
	struct scratch_chunk *c = ms->scratch;

	if (!c)
		return;
	while (c->next) {
		struct scratch_chunk *next = c->next->next;

		free(c->next);
		c->next = next;
	}
	c->used = 0;
}

/* ---- the back end's hooks ---- */

static void hook_events(void *user, const struct engine_event *events, u32 nr)
{
	struct machine *m = user;

	m->events = grow(m->events, &m->max_events, m->nr_events + nr, sizeof *m->events);
	memcpy(m->events + m->nr_events, events, nr * sizeof *events);
	m->nr_events += nr;
}

static void hook_complete(void *user, const struct engine_completion *c)
{
	struct machine *m = user;

	m->completions = grow(m->completions, &m->max_completions, m->nr_completions + 1,
			      sizeof *m->completions);
	m->completions[m->nr_completions++] = *c;
}

static bool hook_is_asleep(void *user, u64 op)
{
	struct machine *m = user;

	for (uint32_t i = 0; i < m->nr_completions; i++)
		if (m->completions[i].op == op)
			return false;
	return machine_is_parked(m, op);
}

static void hook_ready(void *user)
{
	struct machine *m = user;
	const char *reason = NULL;

	if (m->backend && !machine_is_looked_into(m))
		reason = m->type->lost_reason(m->backend);
	/* With ops or a look under way it is they that find out. */
	if (reason && !m->running && m->state != MACHINE_LOST)
		machine_lose(m, false, reason);
	machine_ready(m);
	m->ms->hooks.ready(m->ms->hooks.user);
}

const struct backend_hooks machine_backend_hooks = {.events = hook_events,
						    .complete = hook_complete,
						    .is_asleep = hook_is_asleep,
						    .ready = hook_ready};

/* The events of the op that is done, in one piece: usually the back end's own
 * buffer, and only for an op that overflowed it our copy. */
static const struct engine_event *gather_events(struct machine *m, uint32_t *ret_nr)
{
	const struct engine_event *events = m->type->take_events(m->backend, ret_nr);

	if (!m->nr_events)
		return events;
	hook_events(m, events, *ret_nr);
	*ret_nr = m->nr_events;
	m->nr_events = 0;
	return m->events;
}

const struct engine_event *machine_boot_events(struct machine *m, uint32_t *ret_nr)
{
	return gather_events(m, ret_nr);
}

/* ---- the ready list ---- */

bool machine_has_work(const struct machine *m)
{
	if (machine_is_looked_into(m))
		return false;
	if (m->running)
		return true;
	if (m->is_paused)
		return false;
	return m->state != MACHINE_RECOVERING && m->lanes.queued != 0;
}

void machine_ready(struct machine *m)
{
	struct machines *ms = m->ms;

	if (m->is_ready || !machine_has_work(m))
		return;
	m->is_ready = true;
	if (!ms->ready) {
		ms->ready = m->ready_next = m->ready_prev = m;
		return;
	}
	m->ready_next = ms->ready;
	m->ready_prev = ms->ready->ready_prev;
	m->ready_prev->ready_next = m->ready_next->ready_prev = m;
}

void machine_unready(struct machine *m)
{
	struct machines *ms = m->ms;

	if (!m->is_ready)
		return;
	m->is_ready = false;
	if (ms->ready == m)
		ms->ready = m->ready_next == m ? NULL : m->ready_next;
	m->ready_prev->ready_next = m->ready_next;
	m->ready_next->ready_prev = m->ready_prev;
}

/* ---- the end of a request ---- */

void machine_end_request(struct machine_request *r, enum machine_error error, const char *why)
{
	struct machines_hooks *hooks = &r->machine->ms->hooks;

	r->state = REQUEST_ENDED;
	r->error = error;
	r->why = why;
	hooks->ended(hooks->user, r);
}

/* ---- parked ops ---- */

static uint32_t parked_index(const struct machine *m, uint64_t op)
{
	uint32_t low = 0, high = m->nr_parked;

	while (low < high) {
		uint32_t middle = (low + high) / 2;

		if (m->parked[middle].op < op)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct parked_op *parked_find(const struct machine *m, uint64_t op)
{
	uint32_t i = parked_index(m, op);

	return i < m->nr_parked && m->parked[i].op == op ? &m->parked[i] : NULL;
}

bool machine_is_parked(struct machine *m, uint64_t op)
{
	return parked_find(m, op) != NULL;
}

/* An op that is asleep again finds the waiter that it had before its machine was rebuilt. */
static void park(struct machine *m, uint64_t op, struct machine_request *request)
{
	uint32_t i = parked_index(m, op);

	if (i < m->nr_parked && m->parked[i].op == op) {
		m->parked[i].stale = false;
		return;
	}
	m->parked = grow(m->parked, &m->max_parked, m->nr_parked + 1, sizeof *m->parked);
	memmove(m->parked + i + 1, m->parked + i, (m->nr_parked - i) * sizeof *m->parked);
	m->parked[i] = (struct parked_op){.op = op, .request = request};
	m->nr_parked++;
}

static struct machine_request *unpark(struct machine *m, uint64_t op)
{
	struct parked_op *p = parked_find(m, op);
	struct machine_request *r;

	if (!p)
		return NULL;
	r = p->request;
	m->nr_parked--;
	memmove(p, p + 1, (size_t)(m->parked + m->nr_parked - p) * sizeof *p);
	return r;
}

static void withdrawn(struct machine_request *r)
{
	free(r);
}

/* The daemon's own op for a sleeper that nobody waits for. */
static void withdraw(struct machine *m, uint64_t op)
{
	struct machine_request *r = calloc(1, sizeof *r);

	if (!r)
		abort();
	r->op.code = OP_WITHDRAW;
	r->op.args[0] = op;
	r->arrived_ns = uv_hrtime();
	r->done = withdrawn;
	r->machine = m;
	r->state = REQUEST_QUEUED;
	lanes_put(&m->lanes, r);
	machine_ready(m);
}

void machine_release_parked(struct machine *m, enum machine_error error, const char *why)
{
	for (uint32_t i = 0; i < m->nr_parked; i++) {
		struct machine_request *r = m->parked[i].request;

		m->parked[i].request = NULL;
		if (r)
			machine_end_request(r, error, why);
	}
}

/* ---- executing ---- */

static struct machine_request *take_running(struct machine *m)
{
	struct machine_request *r = m->running;

	m->running = r->next;
	m->nr_running--;
	return r;
}

static void fill_result(struct machine_request *r, const struct engine_completion *c)
{
	r->result.status = c->status;
	memcpy(r->result.values, c->values, sizeof r->result.values);
	r->result.data = NULL;
	r->result.data_len = 0;
}

/* What the op did to sleepers. Its own parking comes first: an op may put itself to
 * sleep and end another's in one go. */
static void settle_sleepers(struct machine *m, struct machine_request *r)
{
	struct machines_hooks *hooks = &m->ms->hooks;

	if (r->result.status == STATUS_PARKED)
		park(m, r->result.op, r);
	for (uint32_t i = 0; i < m->nr_completions; i++) {
		const struct engine_completion *c = &m->completions[i];
		struct machine_request *sleeper = unpark(m, c->op);

		hooks->completed(hooks->user, m, r->result.op, c);
		if (sleeper) {
			fill_result(sleeper, c);
			machine_end_request(sleeper, MACHINE_OK, NULL);
		}
	}
	m->nr_completions = 0;
}

bool machine_decides(uint32_t code)
{
	return code == OP_SNAPSHOT || code == OP_FORK;
}

static void op_done(struct machine *m)
{
	struct machines_hooks *hooks = &m->ms->hooks;
	struct machine_request *r = take_running(m);
	const struct engine_event *events;
	uint32_t nr_events;

	m->ops = r->result.op;
	if (r->op.code == OP_BOOT && r->result.status == STATUS_OK)
		m->booted = true;
	events = gather_events(m, &nr_events);
	if (m->state == MACHINE_EARLY && m->booted)
		m->state = MACHINE_RUNNING;
	if (machine_decides(r->op.code) && r->result.status == STATUS_OK)
		r->result.status = machines_copy(m, r);
	if (r->result.data_len)
		r->result.data = scratch_copy(m->ms, r->result.data, r->result.data_len);
	machine_touch(m);
	r->state = r->result.status == STATUS_PARKED ? REQUEST_PARKED : REQUEST_ENDED;
	hooks->executed(hooks->user, m, r, events, nr_events);
	if (r->state == REQUEST_ENDED)
		machine_end_request(r, MACHINE_OK, NULL);
	settle_sleepers(m, r);
	if (r->state == REQUEST_PARKED && r->abandoned)
		withdraw(m, r->result.op);
}

/* One op that was with a back end when that was lost, under the number that it would
 * have had. Nothing of it is in effect, and replay skips it. */
static void record_lost(struct machine *m, struct machine_request *r,
			const struct engine_event *events, uint32_t nr_events)
{
	struct machines_hooks *hooks = &m->ms->hooks;

	r->result.op = m->ops + 1;
	r->result.status = STATUS_LOST;
	r->result.data_len = 0;
	memset(r->result.values, 0, sizeof r->result.values);
	m->ops = r->result.op;
	machine_touch(m);
	hooks->executed(hooks->user, m, r, events, nr_events);
	machine_end_request(r, MACHINE_OK, NULL);
}

/* The back end met a broken invariant or is gone. The oldest op has the events that led
 * there. */
static void ops_lost(struct machine *m)
{
	struct machine_request *r = m->running, *next;
	const struct engine_event *events;
	uint32_t nr_events;

	m->running = m->running_last = NULL;
	m->nr_running = 0;
	m->nr_completions = 0;
	events = gather_events(m, &nr_events);
	machine_lose(m, false, m->type->lost_reason(m->backend));
	for (; r; r = next) {
		next = r->next;
		record_lost(m, r, events, nr_events);
		nr_events = 0;
	}
}

static bool is_fenced(const struct machine *m, const struct machine_request *r)
{
	const struct fence *f = &m->ms->fences[r->token % FENCES];

	return r->token && f->machine == m->id && f->token == r->token &&
	       r->sequence <= f->sequence && r->call < f->call;
}

/* The next op, numbered labels and all; NULL when there is none. */
static struct machine_request *take_up(struct machine *m, uint64_t now_ns)
{
	struct machines_hooks *hooks = &m->ms->hooks;
	struct machine_label *label;
	struct machine_request *r;

	for (;;) {
		r = lanes_take(&m->lanes);
		if (!r || !is_fenced(m, r))
			break;
		machine_end_request(r, MACHINE_E_FENCED, NULL);
	}
	if (!r)
		return NULL;
	r->latency_ns = now_ns - r->arrived_ns;
	label = r->label;
	if (label && !label->number) {
		labels_number(&m->labels, label, m->labels.numbered + 1);
		machine_touch(m);
		hooks->labelled(hooks->user, m, label->number, label->text);
	}
	if (label)
		r->op.owner = label->number;
	return r;
}

/* Hands over as many ops as the back end holds, none behind one that the daemon
 * decides, and none while somebody waits to look into the machine. */
static void submit_ops(struct machine *m, uint64_t now_ns)
{
	struct machine_request *r;

	while (m->nr_running < m->type->window && !m->is_paused &&
	       !(m->running && machine_decides(m->running_last->op.code)) &&
	       (r = take_up(m, now_ns))) {
		r->state = REQUEST_RUNNING;
		r->result.data = m->data;
		r->next = NULL;
		if (m->running)
			m->running_last->next = r;
		else
			m->running = r;
		m->running_last = r;
		m->nr_running++;
		m->type->submit(m->backend, &r->op, &r->result);
	}
}

/* Has the engine done its part of a Snapshot or a Fork? */
static bool wants_copy(const struct machine *m)
{
	const struct machine_request *r = m->running;

	return machine_decides(r->op.code) && r->result.status == STATUS_OK;
}

bool machine_run(struct machine *m, unsigned max_ops, unsigned *ret_ops)
{
	uint64_t now_ns = uv_hrtime();
	bool more = true;

	*ret_ops = 0;
	while (*ret_ops < max_ops) {
		enum backend_status status;

		if (machine_copied(m)) {
			++*ret_ops;
			op_done(m);
			continue;
		}
		submit_ops(m, now_ns);
		if (!m->running) {
			more = false;
			break;
		}
		status = m->type->collect(m->backend);
		if (status == BACKEND_MORE)
			break;
		if (status == BACKEND_WAITING) {
			more = false;
			break;
		}
		++*ret_ops;
		if (status == BACKEND_LOST) {
			ops_lost(m);
			more = false;
			break;
		}
		if (wants_copy(m) && machine_begin_copy(m)) {
			more = false;
			break;
		}
		op_done(m);
	}
	return more;
}

/* ---- the queue from outside ---- */

/* Does a machine in this state take ops? */
static const enum machine_error state_error[] = {
    [MACHINE_EARLY] = MACHINE_OK,
    [MACHINE_RUNNING] = MACHINE_OK,
    [MACHINE_RECOVERING] = MACHINE_E_RECOVERING,
    [MACHINE_LOST] = MACHINE_E_IS_LOST,
    [MACHINE_FROZEN] = MACHINE_E_FROZEN,
};

bool machine_has_room(const struct machine *m)
{
	return m->ending || state_error[m->state] || m->lanes.queued < m->ms->limits.queue / 2;
}

enum machine_error machine_submit(struct machine *m, struct machine_request *r)
{
	const struct machines *ms = m->ms;

	if (m->ending)
		return MACHINE_E_GONE;
	if (state_error[m->state])
		return state_error[m->state];
	if (m->lanes.queued >= ms->limits.queue)
		return MACHINE_E_QUEUE;
	if (ms->resident >= ms->limits.resident ||
	    (ms->limits.machine_resident && m->resident >= ms->limits.machine_resident))
		return MACHINE_E_MEMORY;
	r->machine = m;
	r->state = REQUEST_QUEUED;
	r->abandoned = r->listed = false;
	lanes_put(&m->lanes, r);
	machine_ready(m);
	return MACHINE_OK;
}

void machine_abandon(struct machine_request *r)
{
	struct machine *m = r->machine;

	if (r->state == REQUEST_QUEUED) {
		lanes_remove(&m->lanes, r);
		machine_end_request(r, MACHINE_E_CANCELLED, NULL);
	} else if (r->state == REQUEST_PARKED && !r->abandoned && !state_error[m->state]) {
		withdraw(m, r->result.op);
	}
	r->abandoned = true;
}

struct refusal {
	struct machine *m;
	enum machine_error error;
	const char *why;
	bool own_too;
};

static void refuse_one(void *arg, struct machine_request *r)
{
	struct refusal *refusal = arg;

	if (!r->client && !refusal->own_too)
		return;
	lanes_remove(&refusal->m->lanes, r);
	machine_end_request(r, refusal->error, refusal->why);
}

void machine_refuse_queued(struct machine *m, enum machine_error error, const char *why,
			   bool own_too)
{
	struct refusal refusal = {m, error, why, own_too};

	lanes_each(&m->lanes, refuse_one, &refusal);
}

struct token_search {
	uint64_t token, sequence;
	bool found;
};

static void match_token(void *arg, struct machine_request *r)
{
	struct token_search *s = arg;

	s->found |= r->token == s->token && r->sequence == s->sequence;
}

bool machine_fence(struct machine *m, uint64_t token, uint64_t sequence, uint64_t call)
{
	struct token_search s = {token, sequence, false};
	struct fence *f = &m->ms->fences[token % FENCES];

	for (struct machine_request *r = m->running; r; r = r->next)
		match_token(&s, r);
	lanes_each(&m->lanes, match_token, &s);
	if (s.found)
		return true;
	if (f->machine != m->id || f->token != token)
		*f = (struct fence){m->id, token, sequence, call};
	f->sequence = sequence > f->sequence ? sequence : f->sequence;
	f->call = call > f->call ? call : f->call;
	return false;
}

/* ---- losing and bringing back ---- */

void machine_lose(struct machine *m, bool sane, const char *reason)
{
	snprintf(m->reason, sizeof m->reason, "%s", reason);
	m->state = MACHINE_LOST;
	m->sane = sane;
	m->ms->hooks.lost(m->ms->hooks.user, m);
	machine_drop_running(m, MACHINE_E_IS_LOST);
	machine_refuse_queued(m, MACHINE_E_IS_LOST, m->reason, true);
	machine_release_parked(m, MACHINE_E_ABORTED, m->reason);
	machine_unready(m);
}

void machine_drop_running(struct machine *m, enum machine_error error)
{
	machine_forget_copy(m);
	while (m->running)
		machine_end_request(take_running(m), error, NULL);
}

static void drop_backend(struct machine *m)
{
	if (machine_is_looked_into(m))
		m->look->owns_backend = true;
	else if (m->backend)
		m->type->free(m->backend);
	m->backend = NULL;
}

/* Everything of this turn is void, so everything goes, but for those who sleep since
 * an earlier turn: their ops are in the history and will be parked again. */
void machine_roll_back(struct machine *m)
{
	uint32_t kept = 0;

	machine_drop_running(m, MACHINE_E_HISTORY);
	m->nr_events = m->nr_completions = 0;
	for (uint32_t i = 0; i < m->nr_parked; i++) {
		struct parked_op p = m->parked[i];

		if (!p.request || p.request->listed)
			continue;
		p.stale = true;
		m->parked[kept++] = p;
	}
	m->nr_parked = kept;
	drop_backend(m);
	m->state = MACHINE_RECOVERING;
	m->sane = false;
	m->reason[0] = 0;
	m->replayed = 0;
	m->booted = !(m->config.flags & CONFIG_EARLY);
	m->ending = false;
	labels_forget_numbers(&m->labels);
	machine_unready(m);
}

void machine_revive(struct machine *m)
{
	machine_roll_back(m);
}

enum machine_error machine_adopt(struct machine *m, struct replica *r, struct engine_error *why)
{
	struct backend_hooks hooks = machine_backend_hooks;
	uint64_t ops = replica_op(r);

	hooks.user = m;
	m->booted = !replica_is_early(r);
	/* Whoever waited before the machine was made again waits still. */
	for (uint32_t i = 0; i < replica_nr_parked(r); i++)
		park(m, replica_parked(r)[i], NULL);
	if (!machine_attach_backend(m, m->type->adopt(replica_take_sim(r), &hooks, why)))
		return MACHINE_E_CONFIG;
	m->ops = ops;
	return MACHINE_OK;
}

bool machine_attach_backend(struct machine *m, struct backend *b)
{
	if (!b)
		return false;
	if (!m->data && !(m->data = malloc(ENGINE_MAX_DATA)))
		abort();
	m->backend = b;
	return true;
}

void machine_recovered(struct machine *m)
{
	uint32_t kept = 0;

	m->state = m->snapshot ? MACHINE_FROZEN : m->booted ? MACHINE_RUNNING : MACHINE_EARLY;
	for (uint32_t i = 0; i < m->nr_parked; i++) {
		struct parked_op p = m->parked[i];

		if (p.stale)
			machine_end_request(p.request, MACHINE_E_ABORTED, NULL);
		else
			m->parked[kept++] = p;
	}
	m->nr_parked = kept;
	for (uint32_t i = 0; i < kept && !m->snapshot; i++)
		if (!m->parked[i].request || m->parked[i].request->abandoned)
			withdraw(m, m->parked[i].op);
	machine_ready(m);
}

void machine_free(struct machine *m)
{
	machine_unready(m);
	m->ms->nr_paused -= m->is_paused;
	drop_backend(m);
	lanes_clear(&m->lanes);
	labels_clear(&m->labels);
	free(m->data);
	free(m->events);
	free(m->completions);
	free(m->parked);
	/* A back end that is looked into still calls us by our name. */
	if (m->look)
		m->look->owns_machine = true;
	else
		free(m);
}

/* ---- what can be known of it ---- */

struct machine_label *machine_find_label(struct machine *m, const char *text, size_t length)
{
	return length ? labels_find(&m->labels, text, length, m->ms->limits.labels) : NULL;
}

const char *machine_label_text(struct machine *m, uint32_t number)
{
	const struct labels *l = &m->labels;

	if (!number || number > l->numbered || !l->by_number[number - 1])
		return "";
	return l->by_number[number - 1]->text;
}

enum machine_error machine_set_label(struct machine *m, uint32_t number, const char *text)
{
	struct machine_label *label;

	if (!number || number > m->ms->limits.labels)
		return MACHINE_E_LABELS;
	label = labels_find(&m->labels, text, strlen(text), m->ms->limits.labels);
	if (!label)
		return MACHINE_E_LABELS;
	labels_number(&m->labels, label, number);
	return MACHINE_OK;
}

uint64_t machine_id(const struct machine *m)
{
	return m->id;
}

void machine_set_id(struct machine *m, uint64_t id)
{
	m->id = id;
}

const char *machine_name(const struct machine *m)
{
	return m->name;
}

enum machine_status machine_status(const struct machine *m)
{
	return m->state;
}

const char *machine_backend(const struct machine *m)
{
	return m->type->name;
}

uint32_t machine_backend_number(const struct machine *m)
{
	return m->type->number;
}

const struct engine_config *machine_config(const struct machine *m)
{
	return &m->config;
}

bool machine_is_snapshot(const struct machine *m)
{
	return m->snapshot;
}

uint64_t machine_ops(const struct machine *m)
{
	return m->ops;
}

void machine_set_progress(struct machine *m, uint64_t replayed, uint64_t ops)
{
	m->replayed = replayed;
	m->ops = ops;
}

uint64_t machine_replayed(const struct machine *m)
{
	return m->state == MACHINE_RECOVERING ? m->replayed : 0;
}

uint32_t machine_parked(const struct machine *m)
{
	return m->nr_parked;
}

/* Measuring walks the page tables of the machine's RAM, in proportion to its size. It
 * may take a hundredth of the time. */
void machine_measure(struct machine *m, uint64_t now_ns)
{
	if (now_ns < m->measure_after_ns)
		return;
	m->resident = machine_resident(m);
	m->measure_after_ns = now_ns + 100 * (uv_hrtime() - now_ns);
}

const char *machine_reason(const struct machine *m)
{
	return m->reason;
}

int64_t machine_created_ns(const struct machine *m)
{
	return m->created_ns;
}

void machine_set_created_ns(struct machine *m, int64_t time_ns)
{
	m->created_ns = time_ns;
}
