/*
 * test_tail.c - following: nothing missed, nothing twice, the writer never held up.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "place_checked.h"

enum { MACHINES = 4 };

static int setup(void **state)
{
	struct place *p = malloc(sizeof(*p));

	place_make(p);
	if (place_open(p))
		return -1;
	*state = p;
	return 0;
}

static int teardown(void **state)
{
	place_remove(*state);
	free(*state);
	return 0;
}

/* A caller that checks the order and counts. */
struct follower {
	struct place *place;
	struct history_tail *tail;
	uint64_t next[MACHINES + 1]; /* lowest op that may come now */
	uint64_t records, events, batches, behind;
	bool gaps;  /* masks leave ops out */
	bool hold;  /* continues only when told */
	bool later; /* continues after records() has returned */
	bool waits; /* has a batch that it has not continued */
	bool done;
	int error;
};

/* Each op of these tests has as many events as its number modulo 5, and each event
 * carries the op's number and its own index. */
static void append(struct place *p, uint64_t machine, uint64_t op)
{
	struct engine_event e[5] = {{0}};
	struct history_record r = {.machine = machine,
				   .op = op,
				   .code = op % 2 ? OP_ALLOC_PAGES : OP_KMAP,
				   .args = {machine, op},
				   .owner = (uint32_t)op,
				   .data = (const uint8_t *)"data",
				   .data_len = 4,
				   .events = e,
				   .nr_events = (uint32_t)(op % 5)};

	for (uint32_t i = 0; i < r.nr_events; i++)
		e[i] = (struct engine_event){.kind = i == 3 ? EVENT_OOPS : EVENT_ALLOC,
					     .w = {(uint32_t)op, i, 0xffffffff}};
	history_append(p->h, &r);
}

static void records(void *user, const struct history_record *r, unsigned nr, uint64_t behind)
{
	struct follower *f = user;

	assert_false(f->done || f->waits);
	assert_true(nr > 0);
	for (unsigned i = 0; i < nr; i++) {
		uint64_t m = r[i].machine;

		assert_true(m >= 1 && m <= MACHINES);
		if (f->gaps)
			assert_true(r[i].op >= f->next[m]);
		else
			assert_int_equal(r[i].op, f->next[m]);
		f->next[m] = r[i].op + 1;
		assert_int_equal(r[i].args[0], m);
		assert_int_equal(r[i].args[1], r[i].op);
		assert_int_equal(r[i].owner, r[i].op);
		assert_null(r[i].data);
		assert_int_equal(r[i].data_len, 0);
		if (!f->gaps)
			assert_int_equal(r[i].nr_events, r[i].op % 5);
		for (uint32_t k = 0; k < r[i].nr_events; k++) {
			assert_int_equal(r[i].events[k].w[0], r[i].op);
			assert_int_equal(r[i].events[k].w[2], 0xffffffff);
			if (!f->gaps)
				assert_int_equal(r[i].events[k].w[1], k);
		}
		f->events += r[i].nr_events;
	}
	f->records += nr;
	f->batches++;
	f->behind = behind;
	f->waits = f->hold || f->later;
	if (!f->waits)
		history_tail_continue(f->tail);
}

static void done(void *user, int error, const char *message)
{
	struct follower *f = user;

	(void)message;
	assert_false(f->done);
	f->done = true;
	f->error = error;
}

static void start(struct place *p, struct follower *f, struct history_tail_options o)
{
	f->place = p;
	o.user = f;
	o.records = records;
	o.done = done;
	assert_int_equal(history_tail_start(p->h, &o, &f->tail), HISTORY_OK);
}

static void turn(struct follower *f)
{
	uv_run(&f->place->loop, UV_RUN_ONCE);
	if (f->later && f->waits && !f->done) {
		f->waits = false;
		history_tail_continue(f->tail);
	}
}

static void run_until(struct follower *f, uint64_t nr)
{
	while (f->records < nr && !f->done)
		turn(f);
}

static void cancel(struct follower *f)
{
	history_tail_cancel(f->tail);
	assert_false(f->done); /* never from within the call */
	while (!f->done)
		uv_run(&f->place->loop, UV_RUN_ONCE);
	assert_int_equal(f->error, HISTORY_ABORTED);
}

static void from_the_start_to_the_end(void **state)
{
	struct place *p = *state;
	struct follower f = {.next = {0, 1}};

	add_machine(p->h, "a");
	for (uint64_t op = 1; op <= 2000; op++)
		append(p, 1, op);
	place_commit(p);
	start(p, &f,
	      (struct history_tail_options){.machine = 1, .from_start = true, .no_follow = true});
	while (!f.done)
		turn(&f);
	assert_int_equal(f.error, HISTORY_OK);
	assert_int_equal(f.records, 2000);
	assert_int_equal(f.events, 4000);
	assert_true(f.batches >= 2000 / 256);
	assert_int_equal(f.behind, 0);
}

static void an_empty_history_ends_at_once(void **state)
{
	struct place *p = *state;
	struct follower f = {0};

	start(p, &f, (struct history_tail_options){.from_start = true, .no_follow = true});
	assert_false(f.done);
	while (!f.done)
		turn(&f);
	assert_int_equal(f.error, HISTORY_OK);
}

static void from_now_on(void **state)
{
	struct place *p = *state;
	struct follower f = {.next = {0, 11}};

	add_machine(p->h, "a");
	for (uint64_t op = 1; op <= 10; op++)
		append(p, 1, op);
	place_commit(p);
	start(p, &f, (struct history_tail_options){.machine = 1});
	for (uint64_t op = 11; op <= 20; op++) {
		append(p, 1, op);
		/* What is not committed is not seen. */
		uv_run(&p->loop, UV_RUN_NOWAIT);
		assert_true(f.records < op - 10);
		place_commit(p);
		run_until(&f, op - 10);
	}
	assert_int_equal(f.records, 10);
	cancel(&f);
}

static void it_resumes_by_op_number(void **state)
{
	struct place *p = *state;
	uint64_t seed = random_seed(), last = 0;

	add_machine(p->h, "a");
	for (uint64_t op = 1; op <= 3000; op++)
		append(p, 1, op);
	place_commit(p);
	while (last < 3000) {
		struct follower f = {.next = {0, last + 1}};
		uint64_t stop = 1 + random_next(&seed) % 700;

		start(p, &f,
		      (struct history_tail_options){
			  .machine = 1, .after_op = last, .from_start = last == 0});
		run_until(&f, stop < 3000 - last ? stop : 3000 - last);
		last += f.records;
		/* Batches that come until the cancel is seen count too. */
		f.hold = true;
		cancel(&f);
	}
	assert_int_equal(last, 3000);
}

static void all_machines_and_new_ones(void **state)
{
	struct place *p = *state;
	struct follower f = {.next = {0, 1, 1, 1, 1}, .later = true};
	uint64_t ops[MACHINES + 1] = {0}, seed = random_seed(), total = 0;

	add_machine(p->h, "1");
	add_machine(p->h, "2");
	for (; ops[1] < 300; total++)
		append(p, 1, ++ops[1]);
	place_commit(p);
	start(p, &f, (struct history_tail_options){.from_start = true});
	run_until(&f, 100);
	add_machine(p->h, "3");
	add_machine(p->h, "4");
	while (total < 5000) {
		uint64_t batch = 1 + random_next(&seed) % 100;

		for (uint64_t i = 0; i < batch; i++, total++) {
			uint64_t m = 1 + random_next(&seed) % MACHINES;

			append(p, m, ++ops[m]);
		}
		place_commit(p);
		uv_run(&p->loop, UV_RUN_NOWAIT);
	}
	run_until(&f, total);
	assert_int_equal(f.records, total);
	assert_int_equal(f.behind, 0);
	for (int m = 1; m <= MACHINES; m++)
		assert_int_equal(f.next[m], ops[m] + 1);
	f.later = false;
	cancel(&f);
}

static void masks_leave_out(void **state)
{
	struct place *p = *state;
	struct follower f = {.next = {0, 1}, .gaps = true}, g = f;

	add_machine(p->h, "a");
	for (uint64_t op = 1; op <= 1000; op++)
		append(p, 1, op);
	place_commit(p);
	start(p, &f,
	      (struct history_tail_options){.machine = 1,
					    .from_start = true,
					    .no_follow = true,
					    .op_mask = {1ULL << OP_KMAP, 0}});
	while (!f.done)
		turn(&f);
	assert_int_equal(f.records, 500);
	start(p, &g,
	      (struct history_tail_options){.machine = 1,
					    .from_start = true,
					    .no_follow = true,
					    .event_mask = 1ULL << EVENT_OOPS});
	while (!g.done)
		turn(&g);
	assert_int_equal(g.records, 200); /* ops of number 4 modulo 5 have one */
	assert_int_equal(g.events, 200);
}

/* Events of every kind, in each zone that its fields could name. */
static uint64_t append_events_of_all_kinds(struct place *p, uint64_t machine)
{
	uint64_t op = 0;

	for (unsigned kind = 1; kind < EVENT_KIND_END; kind++) {
		for (uint32_t zone = 0; zone < 4; zone++) {
			/* A fault has the zone of its frame. */
			uint32_t w3 = kind == EVENT_PAGE_FAULT ? 5 : zone;
			struct engine_event e = {.kind = (uint16_t)kind,
						 .w = {zone, zone, zone, w3, zone, zone}};
			struct history_record r = {.machine = machine,
						   .op = ++op,
						   .code = OP_ALLOC_PAGES,
						   .events = &e,
						   .nr_events = 1};

			history_append(p->h, &r);
		}
	}
	return op;
}

struct in_zone {
	struct history_tail *tail;
	uint64_t kinds, ops;
	uint32_t zone; /* whose events are wanted */
	bool done;
};

static void in_zone_records(void *user, const struct history_record *r, unsigned nr,
			    uint64_t behind)
{
	struct in_zone *z = user;

	(void)behind;
	for (unsigned i = 0; i < nr; i++) {
		assert_int_equal(r[i].nr_events, 1);
		assert_int_equal(r[i].events[0].w[0], z->zone);
		z->kinds |= UINT64_C(1) << r[i].events[0].kind;
		z->ops++;
	}
	history_tail_continue(z->tail);
}

static void in_zone_done(void *user, int error, const char *message)
{
	assert_int_equal(error, HISTORY_OK);
	assert_non_null(message);
	((struct in_zone *)user)->done = true;
}

/* What the contract says, said again: of these kinds the views have a column of a zone. */
static const char kinds_sql[] =
    "SELECT sum(1 << kind) FROM event_kinds WHERE kind IN (SELECT k.kind FROM event_kinds k JOIN"
    " view_columns c ON c.view = 'event_' || k.name WHERE c.name IN ('zone', 'wanted', 'got'))";

static void a_zone_is_found_in_every_kind_that_names_one(void **state)
{
	struct place *p = *state;
	uint64_t nr, kinds = history_kinds_with_zone();

	add_machine(p->h, "a");
	nr = append_events_of_all_kinds(p, 1);
	place_commit(p);
	assert_int_equal(kinds, place_ask(p, kinds_sql));
	for (uint32_t zone = 0; zone < 4; zone++) {
		struct in_zone z = {.zone = zone};
		struct history_tail_options o = {.machine = 1,
						 .from_start = true,
						 .no_follow = true,
						 .zone_mask = 1U << zone,
						 .user = &z,
						 .records = in_zone_records,
						 .done = in_zone_done};

		assert_int_equal(history_tail_start(p->h, &o, &z.tail), HISTORY_OK);
		while (!z.done)
			uv_run(&p->loop, UV_RUN_ONCE);
		assert_int_equal(z.kinds, kinds);
		assert_int_equal(z.ops, __builtin_popcountll(kinds));
		assert_true(z.ops < nr / 4);
	}
}

struct count {
	struct history_tail *tail;
	uint64_t records;
	bool done;
};

static void count_records(void *user, const struct history_record *r, unsigned nr, uint64_t behind)
{
	struct count *c = user;

	(void)r, (void)behind;
	c->records += nr;
	history_tail_continue(c->tail);
}

static void count_done(void *user, int error, const char *message)
{
	(void)message;
	assert_int_equal(error, HISTORY_OK);
	((struct count *)user)->done = true;
}

/* Two zones in one event; a fault without a frame is in none; a kind and a zone. */
static void a_zone_is_any_of_an_events(void **state)
{
	struct place *p = *state;
	const struct engine_event events[] = {
	    {.kind = EVENT_ZONE_FALLBACK, .w = {ZONE_HIGHMEM, ZONE_DMA, 0, 7, 0}},
	    {.kind = EVENT_PAGE_FAULT, .w = {0x1000, 0, 6, 0, ZONE_DMA}},
	    {.kind = EVENT_PAGE_FAULT, .w = {0x1000, 0, 6, 9, ZONE_DMA}},
	    {.kind = EVENT_ALLOC, .w = {ZONE_DMA, 0, 0, ZONE_NORMAL, ZONE_DMA}},
	};
	struct {
		uint32_t zones;
		uint64_t kinds;
		uint64_t records;
	} cases[] = {
	    {1U << ZONE_DMA, 0, 2},
	    {1U << ZONE_HIGHMEM, 0, 1},
	    {1U << ZONE_NORMAL, 0, 1},
	    {1U << ZONE_MOVABLE, 0, 0},
	    {1U << ZONE_NORMAL | 1U << ZONE_HIGHMEM, 0, 2},
	    {1U << ZONE_DMA, UINT64_C(1) << EVENT_PAGE_FAULT, 1},
	    {1U << ZONE_DMA, UINT64_C(1) << EVENT_OOPS, 0},
	};

	add_machine(p->h, "a");
	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++) {
		struct history_record r = {.machine = 1,
					   .op = i + 1,
					   .args = {1, i + 1},
					   .owner = (uint32_t)i + 1,
					   .code = OP_ACCESS,
					   .events = &events[i],
					   .nr_events = 1};

		history_append(p->h, &r);
	}
	place_commit(p);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct count c = {0};
		struct history_tail_options o = {.machine = 1,
						 .from_start = true,
						 .no_follow = true,
						 .zone_mask = cases[i].zones,
						 .event_mask = cases[i].kinds,
						 .user = &c,
						 .records = count_records,
						 .done = count_done};

		assert_int_equal(history_tail_start(p->h, &o, &c.tail), HISTORY_OK);
		while (!c.done)
			uv_run(&p->loop, UV_RUN_ONCE);
		assert_int_equal(c.records, cases[i].records);
	}
}

/* Ops that no mask wants are passed over, however many, without a batch. */
static void what_no_mask_wants_is_passed_over(void **state)
{
	struct place *p = *state;
	struct follower f = {.next = {0, 1}, .gaps = true};
	struct history_record r = {.machine = 1, .code = OP_MMAP, .args = {1}};

	add_machine(p->h, "a");
	for (r.op = 1; r.op <= 150000; r.op++)
		history_append(p->h, &r);
	append(p, 1, 150001);
	place_commit(p);
	start(p, &f,
	      (struct history_tail_options){.machine = 1,
					    .from_start = true,
					    .no_follow = true,
					    .op_mask = {1ULL << OP_ALLOC_PAGES, 0}});
	while (!f.done)
		turn(&f);
	assert_int_equal(f.records, 1);
	assert_int_equal(f.batches, 1);
}

static void a_slow_caller_is_told_how_far_behind_it_is(void **state)
{
	struct place *p = *state;
	struct follower f = {.next = {0, 1}, .hold = true};
	uint64_t first;

	add_machine(p->h, "a");
	for (uint64_t op = 1; op <= 1000; op++)
		append(p, 1, op);
	place_commit(p);
	start(p, &f, (struct history_tail_options){.machine = 1, .from_start = true});
	run_until(&f, 1);
	first = f.records;
	assert_int_equal(f.behind, 1000 - first);
	/* It holds a batch; commits and checkpoints go on. */
	for (uint64_t op = 1001; op <= 3000; op++) {
		append(p, 1, op);
		place_commit(p);
	}
	uv_run(&p->loop, UV_RUN_NOWAIT);
	assert_int_equal(f.records, first);
	f.waits = false;
	history_tail_continue(f.tail);
	run_until(&f, first + 1);
	assert_int_equal(f.behind, 3000 - f.records);
	f.hold = false;
	f.waits = false;
	history_tail_continue(f.tail);
	run_until(&f, 3000);
	assert_int_equal(f.behind, 0);
	cancel(&f);
}

static void an_op_with_many_events_comes_whole(void **state)
{
	enum { MANY = 100000 };
	struct place *p = *state;
	struct engine_event *e = calloc(MANY, sizeof(*e));
	struct history_record r = {.machine = 1,
				   .op = 1,
				   .args = {1, 1},
				   .owner = 1,
				   .code = OP_VMALLOC,
				   .events = e,
				   .nr_events = MANY};
	struct follower f = {.next = {0, 1}, .gaps = true};

	for (uint32_t i = 0; i < MANY; i++)
		e[i] = (struct engine_event){.kind = EVENT_ALLOC, .w = {1, i, 0xffffffff}};
	add_machine(p->h, "a");
	history_append(p->h, &r);
	append(p, 1, 2);
	place_commit(p);
	start(p, &f,
	      (struct history_tail_options){.machine = 1, .from_start = true, .no_follow = true});
	while (!f.done)
		turn(&f);
	assert_int_equal(f.records, 2);
	assert_int_equal(f.events, MANY + 2);
	free(e);
}

static void it_can_be_cancelled_in_every_state(void **state)
{
	struct place *p = *state;
	struct follower idle = {.next = {0, 1}}, held = {.next = {0, 1}, .hold = true},
			fresh = {.next = {0, 1}, .hold = true};

	add_machine(p->h, "a");
	start(p, &idle, (struct history_tail_options){.machine = 1});
	cancel(&idle);
	append(p, 1, 1);
	place_commit(p);
	start(p, &held, (struct history_tail_options){.machine = 1, .from_start = true});
	run_until(&held, 1);
	cancel(&held);
	start(p, &fresh, (struct history_tail_options){.machine = 1, .from_start = true});
	cancel(&fresh);
	assert_int_equal(fresh.records, 0);
}

static void closing_ends_it(void **state)
{
	struct place *p = *state;
	struct follower idle = {.next = {0, 1}};

	add_machine(p->h, "a");
	place_commit(p);
	start(p, &idle, (struct history_tail_options){0});
	place_close(p);
	assert_true(idle.done);
	assert_int_equal(idle.error, HISTORY_ABORTED);
}

static void there_is_a_limit_of_tails(void **state)
{
	enum { LIMIT = 64 };
	struct place *p = *state;
	struct follower *f = calloc(LIMIT, sizeof(*f));
	struct history_tail_options o = {.records = records, .done = done};
	struct history_tail *more;

	for (int i = 0; i < LIMIT; i++)
		start(p, &f[i], o);
	assert_int_equal(history_tail_start(p->h, &o, &more), HISTORY_BUSY);
	for (int i = 0; i < LIMIT; i++)
		cancel(&f[i]);
	free(f);
}

/* Neither one that waits for more, nor the connection of one that has ended, keeps the log from
 * beginning anew: however much is written, it stays below its limit. */
static void it_does_not_hold_the_wal(void **state)
{
	struct place *p = *state;
	struct follower waiting = {.next = {0, 1}};

	place_close(p);
	p->options.wal_limit_bytes = 1 << 20;
	assert_int_equal(place_open(p), HISTORY_OK);
	add_machine(p->h, "a");
	place_commit(p);
	start(p, &waiting, (struct history_tail_options){.machine = 1, .from_start = true});
	for (uint64_t op = 1; op <= 60000; op++) {
		append(p, 1, op);
		if (op % 500)
			continue;
		place_commit(p);
		run_until(&waiting, op);
		/* The thread that syncs the log needs its moment; a reader would need for ever. */
		while (history_ready(p->h, p->err, sizeof(p->err)) == HISTORY_WAL)
			uv_run(&p->loop, UV_RUN_NOWAIT);
		if (op % 5000 == 0) {
			struct follower f = {.next = {0, op - 99}};

			start(p, &f,
			      (struct history_tail_options){
				  .machine = 1, .after_op = op - 100, .no_follow = true});
			while (!f.done)
				turn(&f);
			assert_int_equal(f.error, HISTORY_OK);
			assert_int_equal(f.records, 100);
		}
	}
	cancel(&waiting);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	    T(from_the_start_to_the_end),
	    T(an_empty_history_ends_at_once),
	    T(from_now_on),
	    T(it_resumes_by_op_number),
	    T(all_machines_and_new_ones),
	    T(masks_leave_out),
	    T(a_zone_is_found_in_every_kind_that_names_one),
	    T(a_zone_is_any_of_an_events),
	    T(what_no_mask_wants_is_passed_over),
	    T(a_slow_caller_is_told_how_far_behind_it_is),
	    T(an_op_with_many_events_comes_whole),
	    T(it_can_be_cancelled_in_every_state),
	    T(closing_ends_it),
	    T(there_is_a_limit_of_tails),
	    T(it_does_not_hold_the_wal),
	};

	return cmocka_run_group_tests_name("history: following", tests, NULL, NULL);
}
