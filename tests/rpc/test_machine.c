/*
 * test_machine.c - machines below the services: limits, looks, and a machine whose
 * engine meets a broken invariant.
 *
 * Nothing outside can break an invariant, so the simulation's back end is compiled into
 * the test, which then reaches the RAM and spoils it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../server/machine/backend_sim.c"
#include "frames/page.h"
#include "machine_priv.h"
#include "replica.h"
#include "state.h"

enum { MIB = 1 << 20 };

struct world {
	uv_loop_t loop;
	struct machines *machines;
	unsigned ended, executed, rebuilt;
	uint32_t nr_events; /* of the op executed last */
	uint32_t status;
};

static void on_ready(void *user)
{
	(void)user;
}

static void on_labelled(void *user, struct machine *m, uint32_t number, const char *label)
{
	(void)user, (void)m, (void)number, (void)label;
}

static void on_executed(void *user, struct machine *m, struct machine_request *r,
			const struct engine_event *events, uint32_t nr_events)
{
	struct world *w = user;

	(void)m, (void)events;
	w->executed++;
	w->nr_events = nr_events;
	w->status = r->result.status;
}

static void on_completed(void *user, struct machine *m, uint64_t woken_by,
			 const struct engine_completion *c)
{
	(void)user, (void)m, (void)woken_by, (void)c;
}

static void on_ended(void *user, struct machine_request *r)
{
	struct world *w = user;

	(void)r;
	w->ended++;
}

static void rebuild(void *arg, struct machine *m)
{
	struct world *w = arg;

	assert_int_equal(machine_status(m), MACHINE_RECOVERING);
	w->rebuilt++;
}

static void on_lost(void *user, struct machine *m)
{
	(void)user;
	assert_int_equal(machine_status(m), MACHINE_LOST);
	assert_true(machine_reason(m)[0] != 0);
}

static void world_open(struct world *w, struct machines_limits limits)
{
	struct machines_hooks hooks = {.user = w,
				       .ready = on_ready,
				       .labelled = on_labelled,
				       .executed = on_executed,
				       .completed = on_completed,
				       .lost = on_lost,
				       .ended = on_ended};

	*w = (struct world){0};
	assert_int_equal(uv_loop_init(&w->loop), 0);
	limits.resident = UINT64_MAX;
	w->machines = machines_new(&limits, &hooks);
}

static void world_close(struct world *w)
{
	machines_free(w->machines);
	assert_int_equal(uv_loop_close(&w->loop), 0);
}

static struct machine *create(struct world *w, const char *name)
{
	static uint64_t id;
	struct engine_config config = {.ram = 64 * MIB};
	struct engine_error why;
	struct machine *m;
	uint32_t nr;

	assert_int_equal(
	    machines_create(w->machines, name, strlen(name), BACKEND_SIM, &config, &m, &why),
	    MACHINE_OK);
	machine_set_id(m, ++id);
	machine_boot_events(m, &nr);
	machines_committed(w->machines);
	return m;
}

static void run(struct world *w)
{
	while (machines_run(w->machines, 1000, UINT64_MAX))
		;
}

/* Executes one op; its request lives until the next one. */
static struct engine_result execute(struct world *w, struct machine *m, struct engine_op op)
{
	static struct machine_request r;

	r = (struct machine_request){.op = op, .client = 1};
	assert_int_equal(machine_submit(m, &r), MACHINE_OK);
	run(w);
	assert_int_equal(r.state, REQUEST_ENDED);
	return r.result;
}

/* A frame of an area is said to be free, though it is on no list. */
static void spoil_a_frame_of(struct machine *m, uint64_t op)
{
	struct engine *e = sim_engine(self(m->backend)->sim);

	for (pfn_t pfn = 1; pfn < e->st->layout.low_end_pfn; pfn++) {
		if (e->mem_map[pfn].op != op || page_state(&e->mem_map[pfn]) != FRAME_VMALLOC)
			continue;
		e->mem_map[pfn].flags = 0;
		return;
	}
	fail_msg("op %llu has no frame", (unsigned long long)op);
}

static void a_broken_invariant_loses_one_machine(void **state)
{
	struct engine_op alloc = {.code = OP_VMALLOC, .args = {16 * PAGE_SIZE, GFP_KERNEL}};
	struct machine_request queued[3];
	struct engine_result area;
	struct machine *sick, *well;
	struct world w;

	(void)state;
	world_open(&w, (struct machines_limits){0});
	sick = create(&w, "sick");
	well = create(&w, "well");
	area = execute(&w, sick, alloc);
	assert_int_equal(area.status, STATUS_OK);
	spoil_a_frame_of(sick, area.op);
	/* Three ops for the sick one: the first meets it, the others never happen. */
	for (unsigned i = 0; i < 3; i++) {
		queued[i] = (struct machine_request){.op = alloc, .client = 1};
		queued[i].op.code = i ? OP_DRAIN_PCP : OP_VFREE;
		queued[i].op.args[0] = i ? 0 : area.values[0];
		assert_int_equal(machine_submit(sick, &queued[i]), MACHINE_OK);
	}
	w.ended = w.executed = 0;
	run(&w);
	assert_int_equal(machine_status(sick), MACHINE_LOST);
	assert_non_null(strstr(machine_reason(sick), "op 2"));
	assert_int_equal(w.executed, 1);
	assert_int_equal(w.status, STATUS_LOST);
	assert_true(w.nr_events > 0); /* what led there */
	assert_int_equal(w.ended, 3);
	assert_int_equal(queued[0].error, MACHINE_OK);
	assert_int_equal(queued[0].result.op, area.op + 1);
	assert_int_equal(queued[1].error, MACHINE_E_IS_LOST);
	assert_int_equal(queued[2].error, MACHINE_E_IS_LOST);
	machines_committed(w.machines);
	assert_int_equal(machine_submit(sick, &queued[0]), MACHINE_E_IS_LOST);
	assert_int_equal(machine_look(sick, &w.loop, &(struct machine_look){0}), MACHINE_E_IS_LOST);
	assert_int_equal(execute(&w, well, alloc).status, STATUS_OK);
	machines_destroy(w.machines, sick);
	machines_committed(w.machines);
	assert_int_equal(machines_count(w.machines), 1);
	world_close(&w);
}

static void limits_have_answers(void **state)
{
	struct engine_config config = {.ram = 64 * MIB};
	struct machine_request queued[4];
	struct engine_error why;
	struct machine *m, *other;
	struct world w;

	(void)state;
	world_open(&w, (struct machines_limits){.machines = 2, .queue = 3, .labels = 2});
	m = create(&w, "a");
	other = create(&w, "b");
	assert_int_equal(machines_create(w.machines, "c", 1, BACKEND_SIM, &config, &m, &why),
			 MACHINE_E_MACHINES);
	for (unsigned i = 0; i < 4; i++) {
		queued[i] = (struct machine_request){.op = {.code = OP_DRAIN_PCP}, .client = i};
		assert_int_equal(machine_submit(m, &queued[i]),
				 i < 3 ? MACHINE_OK : MACHINE_E_QUEUE);
	}
	/* It is a limit before each machine, and there is room again when they are done. */
	assert_int_equal(machine_submit(other, &queued[3]), MACHINE_OK);
	run(&w);
	assert_int_equal(w.executed, 4);
	assert_int_equal(execute(&w, m, queued[0].op).op, 4);
	assert_non_null(machine_find_label(m, "one", 3));
	assert_non_null(machine_find_label(m, "two", 3));
	assert_null(machine_find_label(m, "three", 5));
	assert_non_null(machine_find_label(m, "one", 3));
	assert_non_null(machine_find_label(other, "three", 5));
	machines_committed(w.machines);
	world_close(&w);
}

/* It is remembered, and each time the same as if it were found out anew. */
static void what_is_resident_is_known_after_every_slice(void **state)
{
	struct engine_op zeroed = {.code = OP_ALLOC_PAGES, .args = {GFP_KERNEL | __GFP_ZERO, 4}};
	struct machine *m;
	struct world w;
	struct engine_error why;
	uint64_t before, after;

	(void)state;
	world_open(&w, (struct machines_limits){0});
	m = create(&w, "m");
	for (unsigned i = 0; i < 50; i++) {
		struct machine_request r = {.op = zeroed, .client = 1};
		unsigned slices = 0, done;

		if (i == 25) /* a long one, looked at between its slices */
			r.op = (struct engine_op){.code = OP_VMALLOC,
						  .args = {20 * MIB, GFP_KERNEL | __GFP_ZERO}};
		before = machine_resident(m);
		assert_int_equal(machine_submit(m, &r), MACHINE_OK);
		while (r.state != REQUEST_ENDED) {
			machine_run(m, 1, &done);
			assert_int_equal(machine_resident(m),
					 sim_resident_bytes(self(m->backend)->sim));
			slices++;
		}
		after = machine_resident(m);
		assert_int_equal(r.result.status, STATUS_OK);
		assert_true(after >= before + 16 * PAGE_SIZE);
		assert_int_equal(slices > 1, i == 25);
		assert_int_equal(machine_resident(m), after);
		machines_committed(w.machines);
	}
	/* To look is to touch, too: what was never written is read. */
	assert_null(m->type->check(m->backend, &why));
	m->type->digest(m->backend);
	assert_int_equal(machine_resident(m), sim_resident_bytes(self(m->backend)->sim));
	world_close(&w);
}

/* ---- lanes ---- */

/* A request of this client at the end of its lane, `sequence` on. */
static void enqueue(struct lanes *l, uint64_t client, uint64_t sequence)
{
	struct machine_request *r = calloc(1, sizeof *r);

	assert_non_null(r);
	r->client = client;
	r->sequence = sequence;
	lanes_put(l, r);
}

/* The client whose request is next; its requests come in their order. */
static uint64_t dequeue(struct lanes *l, uint64_t sequence[])
{
	struct machine_request *r = lanes_take(l);
	uint64_t client;

	assert_non_null(r);
	client = r->client;
	assert_int_equal(r->sequence, sequence[client]++);
	free(r);
	return client;
}

static void drain(struct lanes *l, uint64_t sequence[])
{
	while (l->queued)
		dequeue(l, sequence);
	assert_null(lanes_take(l));
	lanes_clear(l);
}

/* Who comes with one op waits for no more than a visit of one other client, however many
 * there are with however much. */
static void a_new_lane_does_not_wait_for_the_round(void **state)
{
	enum { CLIENTS = 50, EACH = 1000, VISIT = 200 };
	uint64_t sequence[CLIENTS + 1] = {0};
	struct lanes lanes = {0};

	(void)state;
	lanes_init(&lanes);
	for (uint64_t i = 0; i < EACH; i++)
		for (uint64_t client = 1; client <= CLIENTS; client++)
			enqueue(&lanes, client, i);
	for (unsigned round = 0; round < 40; round++) {
		unsigned waited = 0;

		for (unsigned i = 0; i < 100 * round; i++)
			assert_int_not_equal(dequeue(&lanes, sequence), 0);
		/* Once the others are old. */
		enqueue(&lanes, 0, round);
		while (dequeue(&lanes, sequence) != 0)
			waited++;
		assert_true(round < 10 || waited < VISIT);
		if (lanes.queued < 5000)
			break;
	}
	drain(&lanes, sequence);
}

/* Clients that come anew all the time do not keep one from its visits, nor does one with
 * much to do keep those with little. */
static void no_lane_starves(void **state)
{
	enum { OTHERS = 20, STEPS = 20000, BETWEEN = 400 };
	uint64_t sequence[OTHERS + 1] = {0}, sent[OTHERS + 1] = {0};
	unsigned since[OTHERS + 1] = {0};
	struct lanes lanes = {0};

	(void)state;
	lanes_init(&lanes);
	for (uint64_t i = 0; i < STEPS; i++)
		enqueue(&lanes, 0, i);
	for (unsigned step = 0; step < STEPS; step++) {
		uint64_t client;

		/* Whoever has nothing left comes again with a little. */
		for (client = 1; client <= OTHERS; client++)
			if (sent[client] == sequence[client])
				for (unsigned i = 0; i < 10; i++)
					enqueue(&lanes, client, sent[client]++);
		client = dequeue(&lanes, sequence);
		for (uint64_t i = 0; i <= OTHERS; i++)
			since[i]++;
		assert_true(since[client] < (client ? BETWEEN * OTHERS / 2 : BETWEEN));
		since[client] = 0;
	}
	assert_true(sequence[0] > STEPS / 4);
	drain(&lanes, sequence);
}

/* ---- looks ---- */

struct look {
	struct machine_look base;
	uv_sem_t may_go; /* holds the thread until the test is where it wants to be */
	unsigned done;
	struct machine *machine;
	struct engine_digest digest;
	const char *lie;
	struct engine_error why;
};

static void see(struct machine_look *l)
{
	struct look *look = (struct look *)l;

	uv_sem_wait(&look->may_go);
	look->lie = look_check(l, &look->why);
	look->digest = look_digest(l);
}

static void seen(struct machine_look *l, struct machine *m)
{
	struct look *look = (struct look *)l;

	look->done++;
	look->machine = m;
}

static enum machine_error begin(struct world *w, struct machine *m, struct look *look)
{
	*look = (struct look){.base = {.look = see, .done = seen}};
	uv_sem_init(&look->may_go, 0);
	return machine_look(m, &w->loop, &look->base);
}

static void finish(struct world *w, struct look *look)
{
	uv_sem_post(&look->may_go);
	while (!look->done)
		uv_run(&w->loop, UV_RUN_ONCE);
	uv_sem_destroy(&look->may_go);
	assert_null(look->lie);
	assert_int_equal(look->done, 1);
}

static void a_look_pauses_its_own_machine_only(void **state)
{
	struct machine_request a = {.op = {.code = OP_DRAIN_PCP}, .client = 1}, b = a;
	struct machine *m, *other;
	struct look look, second;
	struct world w;

	(void)state;
	world_open(&w, (struct machines_limits){0});
	m = create(&w, "m");
	other = create(&w, "other");
	assert_int_equal(begin(&w, m, &look), MACHINE_OK);
	assert_int_equal(begin(&w, m, &second), MACHINE_E_BUSY);
	uv_sem_destroy(&second.may_go);
	assert_int_equal(machine_submit(m, &a), MACHINE_OK);
	assert_int_equal(machine_submit(other, &b), MACHINE_OK);
	run(&w);
	assert_int_equal(b.state, REQUEST_ENDED);
	assert_int_equal(a.state, REQUEST_QUEUED);
	assert_false(machines_have_work(w.machines)); /* the loop may sleep */
	finish(&w, &look);
	assert_ptr_equal(look.machine, m);
	assert_true(machines_have_work(w.machines));
	run(&w);
	assert_int_equal(a.state, REQUEST_ENDED);
	machines_committed(w.machines);
	world_close(&w);
}

static void a_machine_may_end_while_it_is_looked_into(void **state)
{
	struct machine_request r = {.op = {.code = OP_DRAIN_PCP}, .client = 1};
	struct machine *m;
	struct look look;
	struct world w;

	(void)state;
	world_open(&w, (struct machines_limits){0});
	m = create(&w, "m");
	assert_int_equal(begin(&w, m, &look), MACHINE_OK);
	assert_int_equal(machine_submit(m, &r), MACHINE_OK);
	machines_destroy(w.machines, m);
	assert_int_equal(r.error, MACHINE_E_GONE);
	machines_committed(w.machines);
	assert_int_equal(machines_count(w.machines), 0);
	create(&w, "m"); /* the name is free at once */
	finish(&w, &look);
	assert_null(look.machine);
	world_close(&w);
}

static void a_commit_may_fail_while_a_machine_is_looked_into(void **state)
{
	struct engine_error why;
	struct replica *replica;
	struct look look, again;
	struct machine *m;
	struct world w;

	(void)state;
	world_open(&w, (struct machines_limits){0});
	m = create(&w, "m");
	assert_int_equal(begin(&w, m, &look), MACHINE_OK);
	machines_destroy(w.machines, m);
	machines_rolled_back(w.machines, rebuild, &w);
	assert_int_equal(w.rebuilt, 1);
	/* It comes back while the old RAM is still being read. */
	replica = replica_new(machine_config(m), &why);
	assert_non_null(replica);
	assert_int_equal(machine_adopt(m, replica, &why), MACHINE_OK);
	replica_free(replica);
	machine_recovered(m);
	assert_int_equal(execute(&w, m, (struct engine_op){.code = OP_DRAIN_PCP}).op, 1);
	assert_int_equal(begin(&w, m, &again), MACHINE_E_BUSY);
	uv_sem_destroy(&again.may_go);
	finish(&w, &look);
	assert_null(look.machine);
	machines_committed(w.machines);
	assert_int_equal(begin(&w, m, &again), MACHINE_OK);
	finish(&w, &again);
	assert_ptr_equal(again.machine, m);
	world_close(&w);
}

static void looks_leave_threads_for_others(void **state)
{
	enum { MANY = 8 };
	struct look looks[MANY];
	unsigned begun = 0;
	struct world w;

	(void)state;
	world_open(&w, (struct machines_limits){0});
	for (unsigned i = 0; i < MANY; i++) {
		char name[] = {'m', (char)('0' + i), 0};

		if (begin(&w, create(&w, name), &looks[i]) == MACHINE_OK)
			begun++;
		else
			uv_sem_destroy(&looks[i].may_go);
	}
	assert_in_range(begun, 1, MANY - 1);
	assert_int_equal(machines_looked_into(w.machines), begun);
	for (unsigned i = 0; i < begun; i++)
		finish(&w, &looks[i]);
	assert_int_equal(machines_looked_into(w.machines), 0);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(a_broken_invariant_loses_one_machine),
	    cmocka_unit_test(limits_have_answers),
	    cmocka_unit_test(what_is_resident_is_known_after_every_slice),
	    cmocka_unit_test(a_new_lane_does_not_wait_for_the_round),
	    cmocka_unit_test(no_lane_starves),
	    cmocka_unit_test(a_look_pauses_its_own_machine_only),
	    cmocka_unit_test(a_machine_may_end_while_it_is_looked_into),
	    cmocka_unit_test(a_commit_may_fail_while_a_machine_is_looked_into),
	    cmocka_unit_test(looks_leave_threads_for_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
