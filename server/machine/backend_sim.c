/*
 * backend_sim.c - the simulation behind the back end's seam.
 *
 * The op is executed inside collect(), on the simulation's fiber, so that a long one
 * gives way to other machines between two slices. Deliberately not here: anything
 * about RAM, TLBs and fibers; that is the sim room's.
 */
#include "backend.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim.h"

struct sim_backend {
	struct backend base;
	struct sim *sim;
	const struct engine_op *op; /* submitted and not yet begun */
	struct engine_result *res;
	/* Bytes of its RAM in use: to find that out is a walk through the page tables of all of
	 * it. What touches RAM says after it that this is no longer known; looks do so in other
	 * threads. */
	u64 resident;
	atomic_bool resident_known;
};

static struct sim_backend *self(const struct backend *b)
{
	return (struct sim_backend *)(uintptr_t)b;
}

static void touched(struct sim_backend *s)
{
	atomic_store_explicit(&s->resident_known, false, memory_order_release);
}

static struct sim_hooks sim_hooks_of(const struct backend_hooks *hooks)
{
	return (struct sim_hooks){
	    .events = hooks->events, .complete = hooks->complete, .user = hooks->user};
}

struct backend *backend_sim_wrap(struct sim *sim)
{
	struct sim_backend *b = sim ? calloc(1, sizeof *b) : NULL;

	if (!b) {
		if (sim)
			sim_free(sim);
		return NULL;
	}
	b->base.type = &backend_sim;
	b->sim = sim;
	return &b->base;
}

static struct backend *sim_backend_create(const struct engine_config *config,
					  const struct backend_hooks *hooks,
					  struct engine_error *why)
{
	struct sim_hooks sh = sim_hooks_of(hooks);

	return backend_sim_wrap(sim_new(config, &sh, why));
}

static struct backend *sim_backend_copy(struct backend *b, const struct backend_hooks *hooks)
{
	struct sim_hooks sh = sim_hooks_of(hooks);

	return backend_sim_wrap(sim_copy(self(b)->sim, &sh));
}

struct sim *backend_sim_unwrap(struct backend *b)
{
	struct sim *sim = self(b)->sim;

	free(b);
	return sim;
}

static struct backend *sim_backend_adopt(struct sim *sim, const struct backend_hooks *hooks,
					 struct engine_error *why)
{
	struct sim_hooks sh = sim_hooks_of(hooks);
	struct backend *b = backend_sim_wrap(sim);

	if (!b) {
		snprintf(why->text, sizeof why->text, "no memory");
		return NULL;
	}
	sim_set_hooks(sim, &sh);
	sim_set_quiet(sim, false);
	return b;
}

static void sim_backend_free(struct backend *b)
{
	sim_free(self(b)->sim);
	free(b);
}

static void sim_backend_submit(struct backend *b, const struct engine_op *op,
			       struct engine_result *res)
{
	self(b)->op = op;
	self(b)->res = res;
}

static enum backend_status sim_backend_collect(struct backend *b)
{
	struct sim_backend *s = self(b);
	const struct engine_op *op = s->op;
	enum sim_status status;

	s->op = NULL;
	status = op ? sim_execute(s->sim, op, s->res, true) : sim_continue(s->sim);
	touched(s);
	switch (status) {
	case SIM_DONE: return BACKEND_DONE;
	case SIM_MORE: return BACKEND_MORE;
	case SIM_LOST: break;
	}
	return BACKEND_LOST;
}

static const struct engine_event *sim_backend_take_events(struct backend *b, u32 *ret_nr)
{
	return sim_take_events(self(b)->sim, ret_nr);
}

static const char *sim_backend_check(struct backend *b, struct engine_error *why)
{
	const char *lie = sim_check(self(b)->sim, why);

	touched(self(b));
	return lie;
}

static u32 sim_backend_inspect(struct backend *b, u32 question, const u64 args[OP_ARGS],
			       struct inspect_sink *sink)
{
	u32 status = sim_inspect(self(b)->sim, question, args, sink);

	touched(self(b));
	return status;
}

static struct engine_digest sim_backend_digest(struct backend *b)
{
	struct engine_digest digest = sim_digest(self(b)->sim);

	touched(self(b));
	return digest;
}

static u64 sim_backend_resident_bytes(const struct backend *b)
{
	struct sim_backend *s = self(b);

	/* In this order: what is touched meanwhile makes it unknown again. */
	if (!atomic_exchange(&s->resident_known, true))
		s->resident = sim_resident_bytes(s->sim);
	return s->resident;
}

static const char *sim_backend_lost_reason(const struct backend *b)
{
	return sim_lost_reason(self(b)->sim);
}

const struct backend_type backend_sim = {
    .number = BACKEND_SIM,
    .name = "sim",
    .window = 1,
    .create = sim_backend_create,
    .copy = sim_backend_copy,
    .free = sim_backend_free,
    .adopt = sim_backend_adopt,
    .submit = sim_backend_submit,
    .collect = sim_backend_collect,
    .take_events = sim_backend_take_events,
    .check = sim_backend_check,
    .inspect = sim_backend_inspect,
    .digest = sim_backend_digest,
    .resident_bytes = sim_backend_resident_bytes,
    .lost_reason = sim_backend_lost_reason,
};
