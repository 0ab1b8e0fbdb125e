/*
 * recorded.h - a machine whose random life is recorded: a simulation that executes ops of
 * every kind, rows of them in a history, and its digest after each.
 */
#ifndef TESTS_HISTORY_RECORDED_H
#define TESTS_HISTORY_RECORDED_H

#include "place.h"
#include "sim.h"

enum { RECORDED_OPS_MAX = 1 << 14, RECORDED_POOL = 512 };

struct recorded {
	struct place *place;
	struct sim *sim;
	uint64_t id;
	uint64_t seed;
	uint64_t frames[RECORDED_POOL]; /* allocated, order 0 */
	unsigned nr_frames;
	uint64_t maps[RECORDED_POOL]; /* vmalloc areas */
	unsigned nr_maps;
	struct engine_completion completions[64];
	unsigned nr_completions;
	uint64_t nr_parked;
	struct engine_digest digests[RECORDED_OPS_MAX]; /* by op */
	uint8_t data[ENGINE_MAX_DATA];
};

static const struct engine_config recorded_config = {.ram = UINT64_C(256) << 20,
						     .highmem = UINT64_C(64) << 20,
						     .cpus = 2,
						     .detail = DETAIL_OPS,
						     .preset = PRESET_LINUX_6_1};

static inline void recorded_complete(void *user, const struct engine_completion *c)
{
	struct recorded *r = user;

	r->completions[r->nr_completions++] = *c;
}

static inline void recorded_make(struct recorded *r, struct place *p, const char *name,
				 const struct engine_config *config, uint64_t seed)
{
	struct sim_hooks hooks = {.complete = recorded_complete, .user = r};
	struct engine_error why;

	memset(r, 0, sizeof(*r));
	r->place = p;
	r->seed = seed;
	r->sim = sim_new(config, &hooks, &why);
	if (!r->sim)
		abort();
	r->id = history_add_machine(p->h, name, "sim", config, 0, 0, false, 1000);
	r->digests[0] = sim_digest(r->sim);
}

static inline void recorded_free(struct recorded *r)
{
	sim_free(r->sim);
	r->sim = NULL;
}

/* Executes an op and appends its row; answers what it answered. */
static inline struct engine_result recorded_do(struct recorded *r, struct engine_op op)
{
	struct engine_result res = {.data = r->data};
	struct history_record row = {.machine = r->id, .time_ns = 1000};
	uint32_t ignored;

	if (sim_execute(r->sim, &op, &res, false) != SIM_DONE)
		abort();
	sim_take_events(r->sim, &ignored);
	row.op = res.op;
	row.code = op.code;
	row.cpu = op.cpu;
	row.task = op.task;
	row.owner = op.owner;
	memcpy(row.args, op.args, sizeof(row.args));
	row.data = op.data;
	row.data_len = op.data_len;
	row.status = res.status;
	memcpy(row.values, res.values, sizeof(row.values));
	row.result_data = res.data;
	row.result_len = res.data_len;
	history_append(r->place->h, &row);
	r->nr_parked += res.status == STATUS_PARKED;
	r->nr_parked -= r->nr_completions;
	for (unsigned i = 0; i < r->nr_completions; i++)
		history_append_completion(r->place->h, r->id, res.op, &r->completions[i], 1000);
	r->nr_completions = 0;
	if (res.op < RECORDED_OPS_MAX)
		r->digests[res.op] = sim_digest(r->sim);
	return res;
}

static inline uint32_t recorded_pick(struct recorded *r, uint32_t below)
{
	return (uint32_t)(random_next(&r->seed) >> 33) % below;
}

static inline void recorded_memory_op(struct recorded *r)
{
	uint32_t what = recorded_pick(r, 8);
	struct engine_result res;

	if (what < 4 && r->nr_frames < RECORDED_POOL) {
		res = recorded_do(r, (struct engine_op){.code = OP_ALLOC_PAGES,
							.owner = 1 + recorded_pick(r, 3),
							.args = {GFP_HIGHUSER, 0}});
		if (res.status == STATUS_OK)
			r->frames[r->nr_frames++] = res.values[0];
	} else if (what < 6 && r->nr_frames) {
		uint32_t i = recorded_pick(r, r->nr_frames);

		recorded_do(r,
			    (struct engine_op){.code = OP_FREE_PAGES, .args = {r->frames[i], 0}});
		r->frames[i] = r->frames[--r->nr_frames];
	} else if (what == 6 && r->nr_maps < RECORDED_POOL) {
		res = recorded_do(r, (struct engine_op){.code = OP_VMALLOC,
							.args = {1 + recorded_pick(r, 1 << 16),
								 GFP_KERNEL | __GFP_HIGHMEM}});
		if (res.status == STATUS_OK)
			r->maps[r->nr_maps++] = res.values[0];
	} else if (r->nr_maps) {
		uint32_t i = recorded_pick(r, r->nr_maps);

		recorded_do(r, (struct engine_op){.code = OP_VFREE, .args = {r->maps[i]}});
		r->maps[i] = r->maps[--r->nr_maps];
	}
}

/* A write through a vmalloc area, read back: payloads both ways. */
static inline void recorded_bytes_op(struct recorded *r)
{
	uint8_t bytes[300];
	uint32_t length = 1 + recorded_pick(r, sizeof(bytes));
	uint64_t va;

	if (!r->nr_maps)
		return;
	va = r->maps[recorded_pick(r, r->nr_maps)];
	for (uint32_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)random_next(&r->seed);
	recorded_do(r, (struct engine_op){.code = OP_ACCESS,
					  .args = {va, length, ACCESS_WRITE, 1},
					  .data = bytes,
					  .data_len = length});
	recorded_do(r, (struct engine_op){.code = OP_ACCESS, .args = {va, length, ACCESS_READ, 1}});
}

/* One op, or a few that belong together, of a random kind. */
static inline void recorded_step(struct recorded *r)
{
	uint32_t what = recorded_pick(r, 16);

	if (what < 10)
		recorded_memory_op(r);
	else if (what < 13)
		recorded_bytes_op(r);
	else if (what == 13)
		recorded_do(r, (struct engine_op){.code = OP_DRAIN_PCP});
	else if (what == 14)
		recorded_do(r, (struct engine_op){.code = OP_SET_POLICY,
						  .args = {0, 0, recorded_pick(r, 4)}});
	else
		recorded_do(r, (struct engine_op){.code = OP_FREE_PAGES, .args = {1, 0}});
}

static inline uint64_t recorded_ops(const struct recorded *r)
{
	return engine_op_count(sim_engine(r->sim));
}

#endif
