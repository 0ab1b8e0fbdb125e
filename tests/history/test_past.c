/*
 * test_past.c - machines as they were: the digest after any op, of any machine, is the one
 * that it had.
 *
 * A random life (SEED gives it again) is recorded, and asked for at random ops: forwards,
 * backwards, both at once; across a fork; over ops that were lost; with sleepers. What is
 * wrong in the record is an error with the op's number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "effort.h"
#include "past.h"
#include "place_checked.h"
#include "recorded.h"

struct world {
	struct place place;
	struct recorded life;
	struct pasts *pasts;
};

static int setup(void **state)
{
	struct world *w = malloc(sizeof(*w));

	place_make(&w->place);
	assert_int_equal(place_open(&w->place), HISTORY_OK);
	recorded_make(&w->life, &w->place, "m", &recorded_config, random_seed());
	w->pasts = pasts_new(&w->place.loop, w->place.h);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;

	pasts_free(w->pasts);
	recorded_free(&w->life);
	place_remove(&w->place);
	free(w);
	return 0;
}

static void live(struct world *w, unsigned steps)
{
	for (unsigned i = 0; i < steps; i++)
		recorded_step(&w->life);
	place_commit(&w->place);
}

struct ask {
	struct past past;
	struct machine_look look;
	struct engine_digest digest;
	bool done, take;
	enum machine_error error;
	char why[REBUILD_WHY_LENGTH];
	struct replica *taken;
};

static void see(struct machine_look *l)
{
	struct ask *a = (struct ask *)((char *)l - offsetof(struct ask, look));

	a->digest = look_digest(l);
}

static void done(struct past *p)
{
	struct ask *a = (struct ask *)p;

	a->done = true;
	a->error = p->error;
	snprintf(a->why, sizeof(a->why), "%s", p->why);
	if (a->take && !p->error)
		a->taken = past_take(p);
}

static void begin(struct world *w, struct ask *a, uint64_t machine, uint64_t op)
{
	*a = (struct ask){.past = {.machine = machine, .op = op, .look = &a->look, .done = done},
			  .look = {.look = see}};
	assert_int_equal(past_start(w->pasts, &a->past), MACHINE_OK);
}

static void wait_for(struct world *w, struct ask *a)
{
	while (!a->done)
		uv_run(&w->place.loop, UV_RUN_ONCE);
}

static void assert_was(struct world *w, uint64_t machine, uint64_t op)
{
	struct ask a;

	begin(w, &a, machine, op);
	wait_for(w, &a);
	if (a.error)
		fail_msg("op %llu: %s", (unsigned long long)op, a.why);
	assert_memory_equal(&a.digest, &w->life.digests[op], sizeof(a.digest));
}

static void any_op_forwards_and_backwards(void **state)
{
	struct world *w = *state;
	uint64_t last;

	live(w, effort(2000));
	last = recorded_ops(&w->life);
	assert_was(w, w->life.id, last);
	assert_was(w, w->life.id, 0);
	assert_was(w, w->life.id, 1);
	for (unsigned i = 0; i < effort(30); i++)
		assert_was(w, w->life.id, recorded_pick(&w->life, (uint32_t)last + 1));
}

static void many_at_once(void **state)
{
	enum { MANY = 12 };
	struct world *w = *state;
	struct ask asks[MANY];
	uint64_t last;

	live(w, effort(500));
	last = recorded_ops(&w->life);
	for (unsigned i = 0; i < MANY; i++)
		begin(w, &asks[i], w->life.id, last * i / MANY);
	for (unsigned i = 0; i < MANY; i++) {
		wait_for(w, &asks[i]);
		assert_int_equal(asks[i].error, MACHINE_OK);
		assert_memory_equal(&asks[i].digest, &w->life.digests[last * i / MANY],
				    sizeof(asks[i].digest));
	}
}

static void what_is_not_there_is_an_error(void **state)
{
	struct world *w = *state;
	struct ask a;

	live(w, 50);
	begin(w, &a, w->life.id, recorded_ops(&w->life) + 1);
	wait_for(w, &a);
	assert_int_equal(a.error, MACHINE_E_NO_OP);
	begin(w, &a, w->life.id + 1, 1);
	wait_for(w, &a);
	assert_int_equal(a.error, MACHINE_E_GONE);
	begin(w, &a, w->life.id, 10);
	past_cancel(&a.past);
	wait_for(w, &a);
	assert_true(a.error == MACHINE_E_CANCELLED || a.error == MACHINE_OK);
}

static void what_was_taken_is_the_callers(void **state)
{
	struct world *w = *state;
	struct ask a;

	live(w, 100);
	begin(w, &a, w->life.id, 60);
	a.take = true;
	wait_for(w, &a);
	assert_non_null(a.taken);
	assert_int_equal(replica_op(a.taken), 60);
	assert_in_range(replica_owners(a.taken), 0, 3);
	replica_free(a.taken);
	assert_was(w, w->life.id, 61);
}

static void a_fork_was_its_parent(void **state)
{
	struct world *w = *state;
	uint64_t fork, at;

	live(w, 100);
	at = recorded_ops(&w->life);
	fork = history_add_machine(w->place.h, "f", "sim", &recorded_config, w->life.id, at, false,
				   1000);
	/* From here on the life is the fork's. */
	w->life.id = fork;
	live(w, 100);
	assert_was(w, fork, recorded_ops(&w->life));
	assert_was(w, fork, at);
	assert_was(w, fork, at / 2);
	assert_was(w, fork, at + 10);
	assert_was(w, fork - 1, at);
}

static void sleepers_sleep_again(void **state)
{
	struct world *w = *state;
	struct recorded *r = &w->life;
	uint64_t task, pfn = 0, parked;
	uint32_t status;
	struct ask a;

	task = recorded_do(r, (struct engine_op){.code = OP_TASK_CREATE}).values[0];
	recorded_do(r, (struct engine_op){.code = OP_SCHEDULE, .args = {task}});
	do {
		pfn = recorded_do(
			  r, (struct engine_op){.code = OP_ALLOC_PAGES, .args = {GFP_HIGHUSER, 0}})
			  .values[0];
		status = recorded_do(r, (struct engine_op){.code = OP_KMAP, .args = {pfn}}).status;
	} while (status == STATUS_OK);
	assert_int_equal(status, STATUS_NO_SPACE);
	status = recorded_do(
		     r, (struct engine_op){.code = OP_KMAP, .task = (uint32_t)task, .args = {pfn}})
		     .status;
	assert_int_equal(status, STATUS_PARKED);
	parked = recorded_ops(r);
	live(w, 20);
	begin(w, &a, r->id, recorded_ops(r));
	a.take = true;
	wait_for(w, &a);
	assert_memory_equal(&a.digest, &r->digests[recorded_ops(r)], sizeof(a.digest));
	assert_int_equal(replica_nr_parked(a.taken), 1);
	assert_int_equal(replica_parked(a.taken)[0], parked);
	replica_free(a.taken);
	recorded_do(r, (struct engine_op){.code = OP_WITHDRAW, .args = {parked}});
	assert_int_equal(r->nr_parked, 0);
	place_commit(&w->place);
	begin(w, &a, r->id, recorded_ops(r));
	a.take = true;
	wait_for(w, &a);
	assert_int_equal(replica_nr_parked(a.taken), 0);
	replica_free(a.taken);
}

/* A row of an op that never was: as an op that was lost, or as one that answered. */
static void append_false(struct world *w, uint64_t op, uint32_t status)
{
	struct history_record row = {.machine = w->life.id,
				     .op = op,
				     .code = OP_ALLOC_PAGES,
				     .args = {GFP_KERNEL, 0},
				     .status = status};

	history_append(w->place.h, &row);
	place_commit(&w->place);
}

static void lost_ops_are_numbers_alone(void **state)
{
	struct world *w = *state;
	uint64_t last;
	struct ask a;

	live(w, 50);
	last = recorded_ops(&w->life);
	append_false(w, last + 1, STATUS_LOST);
	append_false(w, last + 2, STATUS_LOST);
	/* What a machine does that goes on behind them. */
	sim_execute(w->life.sim, &(struct engine_op){.code = OP_WITHDRAW},
		    &(struct engine_result){.data = w->life.data}, false);
	sim_execute(w->life.sim, &(struct engine_op){.code = OP_WITHDRAW},
		    &(struct engine_result){.data = w->life.data}, false);
	live(w, 50);
	assert_was(w, w->life.id, recorded_ops(&w->life));
	assert_was(w, w->life.id, last);
	begin(w, &a, w->life.id, last + 1);
	wait_for(w, &a);
	assert_int_equal(a.error, MACHINE_OK);
}

static void a_false_record_is_named(void **state)
{
	struct world *w = *state;
	char number[32];
	uint64_t last;
	struct ask a;

	live(w, 50);
	last = recorded_ops(&w->life);
	append_false(w, last + 1, STATUS_NO_MEMORY);
	begin(w, &a, w->life.id, last + 1);
	wait_for(w, &a);
	assert_int_equal(a.error, MACHINE_E_IS_LOST);
	snprintf(number, sizeof(number), "op %llu", (unsigned long long)last + 1);
	assert_non_null(strstr(a.why, number));
	assert_was(w, w->life.id, last);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
	    TEST(any_op_forwards_and_backwards), TEST(many_at_once),
	    TEST(what_is_not_there_is_an_error), TEST(what_was_taken_is_the_callers),
	    TEST(a_fork_was_its_parent),	 TEST(sleepers_sleep_again),
	    TEST(lost_ops_are_numbers_alone),	 TEST(a_false_record_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
