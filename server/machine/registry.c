/*
 * registry.c - all machines of the daemon: names, ids, limits, and who runs next.
 *
 * Invariants:
 *  1. A name belongs to at most one machine that has not ended. It is free again
 *     when the end is committed.
 *  2. A machine made in this turn (`fresh`) vanishes if the turn's transaction does;
 *     one ended in this turn (`ending`) comes back.
 *  3. The ready ring holds exactly the machines that have something to do now; it
 *     is walked RUN_QUANTUM ops a visit.
 */
#include "backend_kernel.h"
#include "machine_priv.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { RUN_QUANTUM = 64 };

static const struct backend_type *const backend_types[] = {&backend_sim, &backend_kernel};
enum { NR_BACKEND_TYPES = sizeof backend_types / sizeof backend_types[0] };

struct machines *machines_new(const struct machines_limits *limits,
			      const struct machines_hooks *hooks)
{
	struct machines *ms = calloc(1, sizeof *ms);

	if (!ms)
		return NULL;
	ms->hooks = *hooks;
	ms->limits = *limits;
	if (!ms->limits.machines)
		ms->limits.machines = 1024;
	if (!ms->limits.queue)
		ms->limits.queue = 65536;
	if (!ms->limits.labels)
		ms->limits.labels = 65536;
	if (!ms->limits.resident)
		ms->limits.resident = uv_get_total_memory() / 4 * 3;
	return ms;
}

void machines_free(struct machines *ms)
{
	if (!ms)
		return;
	while (ms->all) {
		struct machine *m = ms->all;

		ms->all = m->all_next;
		machine_free(m);
	}
	scratch_reset(ms);
	free(ms->scratch);
	free(ms);
}

uint64_t machines_generation(const struct machines *ms)
{
	return ms->generation;
}

unsigned machines_count(const struct machines *ms)
{
	return ms->nr;
}

void machines_measure(struct machines *ms)
{
	size_t resident;

	if (uv_resident_set_memory(&resident) == 0)
		ms->resident = resident;
	for (struct machine *m = ms->all; m && ms->limits.machine_resident; m = m->all_next)
		machine_measure(m, uv_hrtime());
}

/* ---- names and ids ---- */

bool machine_name_valid(const char *name, size_t length)
{
	if (length < 1 || length > MACHINE_NAME_LENGTH)
		return false;
	for (size_t i = 0; i < length; i++) {
		char c = name[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
		    c != '.' && c != '_' && c != '-')
			return false;
	}
	return true;
}

static struct machine **name_bucket(struct machines *ms, const char *name, size_t length)
{
	return &ms->names[hash_bytes(name, length) % NAME_BUCKETS];
}

/* Ending ones too: their name is still taken. */
static struct machine *find_name(struct machines *ms, const char *name, size_t length)
{
	struct machine *m = *name_bucket(ms, name, length);

	while (m && (strlen(m->name) != length || memcmp(m->name, name, length) != 0))
		m = m->name_chain;
	return m;
}

struct machine *machines_find(struct machines *ms, const char *name, size_t length)
{
	struct machine *m = find_name(ms, name, length);

	return m && !m->ending ? m : NULL;
}

struct machine *machines_find_id(struct machines *ms, uint64_t id)
{
	for (struct machine *m = ms->all; m; m = m->all_next)
		if (m->id == id)
			return m->ending ? NULL : m;
	return NULL;
}

void machines_each(struct machines *ms, void (*fn)(void *arg, struct machine *m), void *arg)
{
	for (struct machine *m = ms->all, *next; m; m = next) {
		next = m->all_next;
		if (!m->ending)
			fn(arg, m);
	}
}

/* ---- coming to be and ending ---- */

struct machine *machine_make(struct machines *ms, const char *name, size_t length,
			     const struct backend_type *type, const struct engine_config *config)
{
	struct machine *m = calloc(1, sizeof *m);

	if (!m)
		abort();
	m->ms = ms;
	m->type = type;
	m->config = *config;
	m->booted = !(config->flags & CONFIG_EARLY);
	lanes_init(&m->lanes);
	memcpy(m->name, name, length);
	return m;
}

/* The list is in the order of making, which is that of ids. */
static void enlist(struct machine *m)
{
	struct machines *ms = m->ms;
	struct machine **at = &ms->all, **bucket = name_bucket(ms, m->name, strlen(m->name));

	while (*at)
		at = &(*at)->all_next;
	*at = m;
	m->name_chain = *bucket;
	*bucket = m;
	ms->nr++;
}

/* A machine without a back end. */
static struct machine *add(struct machines *ms, const char *name, size_t length,
			   const struct backend_type *type, const struct engine_config *config)
{
	struct machine *m = machine_make(ms, name, length, type, config);

	enlist(m);
	return m;
}

static void drop(struct machine *m)
{
	struct machines *ms = m->ms;
	struct machine **at = &ms->all;

	while (*at != m)
		at = &(*at)->all_next;
	*at = m->all_next;
	at = name_bucket(ms, m->name, strlen(m->name));
	while (*at != m)
		at = &(*at)->name_chain;
	*at = m->name_chain;
	ms->nr--;
	ms->generation++;
	machine_free(m);
}

enum machine_error machines_may_add(struct machines *ms, const char *name, size_t length)
{
	if (!machine_name_valid(name, length))
		return MACHINE_E_NAME;
	if (find_name(ms, name, length))
		return MACHINE_E_EXISTS;
	if (ms->nr >= ms->limits.machines)
		return MACHINE_E_MACHINES;
	if (ms->resident >= ms->limits.resident)
		return MACHINE_E_MEMORY;
	return MACHINE_OK;
}

enum machine_error machines_create(struct machines *ms, const char *name, size_t length,
				   uint32_t backend, const struct engine_config *config,
				   struct machine **ret, struct engine_error *why)
{
	struct backend_hooks hooks = machine_backend_hooks;
	const struct backend_type *type = NULL;
	enum machine_error error = machines_may_add(ms, name, length);
	struct machine *m;

	if (error)
		return error;
	for (unsigned i = 0; i < NR_BACKEND_TYPES; i++)
		if (backend_types[i]->number == backend)
			type = backend_types[i];
	if (!type)
		return MACHINE_E_BACKEND;
	m = add(ms, name, length, type, config);
	hooks.user = m;
	if (!machine_attach_backend(m, type->create(config, &hooks, why))) {
		drop(m);
		return MACHINE_E_CONFIG;
	}
	m->state = m->booted ? MACHINE_RUNNING : MACHINE_EARLY;
	m->fresh = true;
	machine_touch(m);
	*ret = m;
	return MACHINE_OK;
}

uint32_t machines_copy(struct machine *from, const struct machine_request *r)
{
	static const uint32_t status_of[MACHINE_E_END] = {
	    [MACHINE_E_NAME] = STATUS_INVALID,
	    [MACHINE_E_EXISTS] = STATUS_EXISTS,
	    [MACHINE_E_MACHINES] = STATUS_LIMIT,
	    [MACHINE_E_MEMORY] = STATUS_LIMIT,
	};
	struct machines *ms = from->ms;
	const char *name = (const char *)r->op.data;
	enum machine_error error = machines_may_add(ms, name, r->op.data_len);
	struct backend_hooks hooks = machine_backend_hooks;
	struct machine *m;

	/* The name may have been taken while the copy was made. */
	if (error) {
		machine_forget_copy(from);
		return status_of[error];
	}
	if (from->copying) {
		m = machine_take_copy(from);
	} else {
		m = machine_make(ms, name, r->op.data_len, from->type, &from->config);
		hooks.user = m;
		if (!machine_attach_backend(m, from->type->copy(from->backend, &hooks))) {
			machine_free(m);
			m = NULL;
		}
	}
	if (!m)
		return STATUS_LIMIT;
	enlist(m);
	m->snapshot = r->op.code == OP_SNAPSHOT;
	m->booted = from->booted;
	m->state = m->snapshot ? MACHINE_FROZEN : from->state;
	m->ops = from->ops;
	m->fresh = true;
	machine_touch(m);
	m->id = ms->hooks.copied(ms->hooks.user, from, m->ops, m);
	for (uint32_t i = 0; i < from->labels.numbered; i++) {
		const struct machine_label *l = from->labels.by_number[i];

		if (!l)
			continue;
		machine_set_label(m, l->number, l->text);
		ms->hooks.labelled(ms->hooks.user, m, l->number, l->text);
	}
	/* The sleepers came along; who waits for them waits for the first machine. */
	m->parked = grow(NULL, &m->max_parked, from->nr_parked + 1, sizeof *m->parked);
	for (; m->nr_parked < from->nr_parked; m->nr_parked++)
		m->parked[m->nr_parked] = (struct parked_op){.op = from->parked[m->nr_parked].op};
	machine_recovered(m);
	return STATUS_OK;
}

void machines_destroy(struct machines *ms, struct machine *m)
{
	m->ending = true;
	machine_touch(m);
	ms->generation++;
	/* An op half done has no number yet: no row of it will ever be. */
	machine_drop_running(m, MACHINE_E_GONE);
	machine_refuse_queued(m, MACHINE_E_GONE, NULL, true);
	machine_release_parked(m, MACHINE_E_ABORTED, NULL);
	machine_unready(m);
}

/* The next of those in the turn's transaction, taken off the list. */
static struct machine *take_touched(struct machines *ms)
{
	struct machine *m = ms->touched;

	if (m) {
		ms->touched = m->touched_next;
		m->touched = false;
	}
	return m;
}

void machines_committed(struct machines *ms)
{
	struct machine *m;

	while ((m = take_touched(ms))) {
		m->fresh = false;
		if (m->ending)
			drop(m);
	}
	scratch_reset(ms);
}

void machines_rolled_back(struct machines *ms, void (*fn)(void *arg, struct machine *m), void *arg)
{
	struct machine *m;

	while ((m = take_touched(ms))) {
		machine_roll_back(m);
		if (m->fresh) {
			machine_refuse_queued(m, MACHINE_E_HISTORY, NULL, true);
			drop(m);
		} else {
			fn(arg, m);
		}
	}
	scratch_reset(ms);
}

enum machine_error machines_restore(struct machines *ms, uint64_t id, const char *name,
				    const char *backend, const struct engine_config *config,
				    bool snapshot, int64_t created_ns, struct machine **ret)
{
	const struct backend_type *type = NULL;
	struct machine *m;

	for (unsigned i = 0; i < NR_BACKEND_TYPES; i++)
		if (strcmp(backend_types[i]->name, backend) == 0)
			type = backend_types[i];
	if (!type)
		return MACHINE_E_BACKEND;
	if (find_name(ms, name, strlen(name)))
		return MACHINE_E_EXISTS;
	if (!machine_name_valid(name, strlen(name)))
		return MACHINE_E_NAME;
	m = add(ms, name, strlen(name), type, config);
	m->id = id;
	m->snapshot = snapshot;
	m->created_ns = created_ns;
	m->state = MACHINE_RECOVERING;
	*ret = m;
	return MACHINE_OK;
}

enum machine_error machines_fork(struct machines *ms, const char *name, size_t length,
				 const char *backend, const struct engine_config *config,
				 struct replica *r, struct machine **ret, struct engine_error *why)
{
	const struct backend_type *type = NULL;
	enum machine_error error = machines_may_add(ms, name, length);
	struct machine *m;

	if (error)
		return error;
	for (unsigned i = 0; i < NR_BACKEND_TYPES; i++)
		if (strcmp(backend_types[i]->name, backend) == 0)
			type = backend_types[i];
	if (!type)
		return MACHINE_E_BACKEND;
	m = add(ms, name, length, type, config);
	error = machine_adopt(m, r, why);
	if (error) {
		drop(m);
		return error;
	}
	m->state = MACHINE_RECOVERING;
	m->fresh = true;
	machine_touch(m);
	*ret = m;
	return MACHINE_OK;
}

/* ---- running ---- */

/* A machine that was paused and had no op half done when the last turn ended has been
 * looked into by those who waited for that. */
static void end_pauses(struct machines *ms)
{
	for (struct machine *m = ms->all; m && ms->nr_paused; m = m->all_next) {
		if (!m->is_paused || m->running)
			continue;
		m->is_paused = false;
		ms->nr_paused--;
		machine_ready(m);
	}
}

bool machines_run(struct machines *ms, unsigned max_ops, uint64_t deadline_ns)
{
	end_pauses(ms);
	while (ms->ready && max_ops && uv_hrtime() < deadline_ns) {
		struct machine *m = ms->ready;
		unsigned quantum = max_ops < RUN_QUANTUM ? max_ops : RUN_QUANTUM, done;
		bool more;

		ms->ready = m->ready_next;
		more = machine_run(m, quantum, &done);
		if (!more)
			machine_unready(m);
		max_ops -= done;
	}
	return ms->ready != NULL;
}

bool machines_have_work(const struct machines *ms)
{
	return ms->ready || ms->nr_paused;
}

void machines_refuse_queued(struct machines *ms, enum machine_error error, const char *why)
{
	for (struct machine *m = ms->all; m; m = m->all_next) {
		machine_refuse_queued(m, error, why, false);
		if (!machine_has_work(m))
			machine_unready(m);
	}
}

void machines_release_parked(struct machines *ms, enum machine_error error, const char *why)
{
	for (struct machine *m = ms->all; m; m = m->all_next)
		machine_release_parked(m, error, why);
}
