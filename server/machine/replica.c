/*
 * replica.c - see replica.h.
 *
 * Invariants:
 *  1. The ops that the engine has asleep are `parked`, in order of number.
 *  2. After a false answer nothing but replica_free() is called.
 */
#include "replica_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "contract_tables.h"
#include "machine_priv.h"
#include "sim.h"
#include "state.h"

static void unpark(void *user, const struct engine_completion *c)
{
	struct replica *r = user;

	for (u32 i = 0; i < r->nr_parked; i++) {
		if (r->parked[i] != c->op)
			continue;
		r->nr_parked--;
		memmove(r->parked + i, r->parked + i + 1, (r->nr_parked - i) * sizeof r->parked[0]);
		return;
	}
}

/* Each op counts as asleep while it is executed: one may go to sleep and be woken in one
 * go. */
static void park(struct replica *r, u64 op)
{
	r->parked = grow(r->parked, &r->max_parked, r->nr_parked + 1, sizeof r->parked[0]);
	r->parked[r->nr_parked++] = op;
}

static struct replica *make(const struct engine_config *config, struct engine_error *why,
			    struct sim *(*make_sim)(const struct engine_config *config,
						    const struct sim_hooks *hooks,
						    struct engine_error *why))
{
	struct replica *r = calloc(1, sizeof *r);
	struct sim_hooks hooks = {.complete = unpark, .user = r};

	if (!r) {
		snprintf(why->text, sizeof why->text, "no memory");
		return NULL;
	}
	r->sim = make_sim(config, &hooks, why);
	r->backend = backend_sim_wrap(r->sim);
	if (!r->backend) {
		free(r);
		return NULL;
	}
	return r;
}

struct replica *replica_new(const struct engine_config *config, struct engine_error *why)
{
	struct replica *r = make(config, why, sim_new);

	if (r)
		sim_set_quiet(r->sim, true);
	return r;
}

struct replica *replica_load_begin(const struct engine_config *config, struct engine_error *why)
{
	return make(config, why, sim_new_empty);
}

bool replica_load_end(struct replica *r, const u64 *parked, u32 nr_parked, u32 owners,
		      struct engine_error *why)
{
	if (!sim_take_up(r->sim)) {
		snprintf(why->text, sizeof why->text, "there is no machine in it");
		return false;
	}
	sim_set_quiet(r->sim, true);
	for (u32 i = 0; i < nr_parked; i++)
		park(r, parked[i]);
	r->owners = owners;
	return true;
}

void replica_free(struct replica *r)
{
	if (!r)
		return;
	if (r->backend)
		r->backend->type->free(r->backend);
	free(r->parked);
	free(r);
}

static bool execute(struct replica *r, const struct engine_op *op, struct engine_result *res,
		    struct engine_error *why)
{
	u32 ignored;

	res->data = r->data;
	park(r, replica_op(r) + 1);
	if (sim_execute(r->sim, op, res, false) == SIM_LOST) {
		snprintf(why->text, sizeof why->text, "%s", sim_lost_reason(r->sim));
		return false;
	}
	sim_take_events(r->sim, &ignored);
	if (res->status != STATUS_PARKED)
		unpark(r, &(struct engine_completion){.op = res->op});
	return true;
}

/* What the daemon decides itself is not the engine's to answer again: whether a
 * snapshot's name was free, for one. The engine's part of such an op always succeeds. */
static bool is_same(const struct engine_op *op, const struct engine_result *res,
		    const struct replica_answer *recorded)
{
	if (machine_decides(op->code))
		return res->status == STATUS_OK;
	return res->status == recorded->status && res->data_len == recorded->data_len &&
	       memcmp(res->values, recorded->values, sizeof res->values) == 0 &&
	       (!res->data_len || hash_bytes(res->data, res->data_len) == recorded->data_hash);
}

bool replica_apply(struct replica *r, const struct engine_op *op,
		   const struct replica_answer *recorded, struct engine_error *why)
{
	struct engine_result res;

	if (!execute(r, op, &res, why))
		return false;
	if (!is_same(op, &res, recorded)) {
		snprintf(why->text, sizeof why->text,
			 "replay of op %" PRIu64 " (%s) answered status %u, the history has %u%s",
			 res.op, op->code < OP_CODE_END ? contract_ops[op->code].name : "?",
			 res.status, recorded->status,
			 res.status == recorded->status ? " with other values" : "");
		return false;
	}
	if (op->owner > r->owners)
		r->owners = op->owner;
	return true;
}

/* Withdraw of an op that never was is an op without an effect. */
bool replica_skip(struct replica *r, struct engine_error *why)
{
	struct engine_result res;

	return execute(r, &(struct engine_op){.code = OP_WITHDRAW}, &res, why);
}

struct engine_digest replica_digest(struct replica *r)
{
	return sim_digest(r->sim);
}

u64 replica_op(const struct replica *r)
{
	return engine_op_count(sim_engine(r->sim));
}

u32 replica_owners(const struct replica *r)
{
	return r->owners;
}

bool replica_is_early(const struct replica *r)
{
	return sim_engine(r->sim)->st->phase == PHASE_EARLY;
}

u32 replica_nr_parked(const struct replica *r)
{
	return r->nr_parked;
}

const u64 *replica_parked(const struct replica *r)
{
	return r->parked;
}

u64 replica_resident(const struct replica *r)
{
	return sim_resident_bytes(r->sim);
}

const char *replica_lost_reason(const struct replica *r)
{
	return sim_lost_reason(r->sim);
}

struct sim *replica_take_sim(struct replica *r)
{
	struct sim *sim = backend_sim_unwrap(r->backend);

	r->backend = NULL;
	r->sim = NULL;
	return sim;
}

struct backend *replica_backend(struct replica *r)
{
	return r->backend;
}
