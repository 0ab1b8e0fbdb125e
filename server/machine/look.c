/*
 * look.c - looking into machines in the threads of libuv's pool.
 *
 * An audit of a large machine takes seconds. So it runs beside the loop: the machine
 * that is looked into takes up no op until it is over, and nobody else notices.
 *
 * Invariants:
 *  1. While a look is under way its back end is used by nobody else, but for
 *     resident_bytes(), which reads the host's page tables and no engine state.
 *  2. There is one look into a machine at a time, and LOOKS_MAX in all, so that they
 *     leave threads for queries. Whoever comes too soon is told BUSY.
 *  3. What is looked into outlives the look: a back end that its machine no longer
 *     has, and a machine that is gone, are freed when the look is over.
 *
 * Deliberately not here: cancelling. A look has an end of its own, and one that nobody
 * waits for any more harms nobody.
 */
#include "machine_priv.h"

#include <stdlib.h>

enum { LOOKS_MAX = 4 };

bool machine_is_looked_into(const struct machine *m)
{
	return m->look && !m->look->owns_backend;
}

static bool is_out_of_reach(const struct machine *m)
{
	return !m->backend || (m->state == MACHINE_LOST && !m->sane);
}

uint64_t machine_resident(const struct machine *m)
{
	return is_out_of_reach(m) ? 0 : m->type->resident_bytes(m->backend);
}

static enum machine_error may_look(struct machine *m)
{
	if (m->ending)
		return MACHINE_E_GONE;
	if (m->state == MACHINE_RECOVERING)
		return MACHINE_E_RECOVERING;
	if (is_out_of_reach(m))
		return MACHINE_E_IS_LOST;
	if (m->look || m->ms->nr_looks == LOOKS_MAX)
		return MACHINE_E_BUSY;
	if (m->type->is_busy && m->type->is_busy(m->backend))
		return MACHINE_E_BUSY;
	if (!m->running)
		return MACHINE_OK;
	/* A back end that holds many ops would never be found without one. */
	if (!m->is_paused)
		m->ms->nr_paused++;
	m->is_paused = true;
	return MACHINE_E_BUSY;
}

static void run_look(uv_work_t *work)
{
	struct machine_look *l = work->data;

	l->look(l);
}

static void look_over(uv_work_t *work, int status)
{
	struct machine_look *l = work->data;
	struct machine *m = l->machine;
	struct machines *ms = m->ms;

	(void)status; /* Nobody cancels it. */
	ms->nr_looks--;
	m->look = NULL;
	if (l->owns_backend) {
		m->type->free(l->backend);
	} else {
		const char *reason = m->type->lost_reason(l->backend);

		/* Looking can find what an op would have run into. */
		if (reason && m->state != MACHINE_LOST)
			machine_lose(m, false, reason);
		l->found_lost = reason != NULL;
	}
	if (l->owns_machine)
		free(m);
	else
		machine_ready(m);
	l->done(l, l->owns_backend ? NULL : m);
	ms->hooks.ready(ms->hooks.user);
}

enum machine_error machine_look(struct machine *m, uv_loop_t *loop, struct machine_look *l)
{
	enum machine_error error = may_look(m);

	if (error)
		return error;
	machine_begin_look(m, loop, l);
	return MACHINE_OK;
}

void machine_begin_look(struct machine *m, uv_loop_t *loop, struct machine_look *l)
{
	l->machine = m;
	l->backend = m->backend;
	l->owns_backend = l->owns_machine = l->found_lost = false;
	l->work.data = l;
	/* It refuses nothing but a missing function. */
	if (uv_queue_work(loop, &l->work, run_look, look_over))
		abort();
	m->look = l;
	m->ms->nr_looks++;
	machine_unready(m);
}

unsigned machines_looked_into(const struct machines *ms)
{
	return ms->nr_looks;
}

const char *look_check(struct machine_look *l, struct engine_error *why)
{
	return l->backend->type->check(l->backend, why);
}

uint32_t look_inspect(struct machine_look *l, uint32_t question, const u64 args[OP_ARGS],
		      struct inspect_sink *sink)
{
	return l->backend->type->inspect(l->backend, question, args, sink);
}

struct engine_digest look_digest(struct machine_look *l)
{
	return l->backend->type->digest(l->backend);
}
