/*
 * test_boosts.c - what a trace tells beside its ops, and what it does not: when kswapd came
 * late, the replay finds out when; when something drained the CPU's lists between two ops,
 * it follows; what a steal made of a pageblock is as the trace says.
 *
 * No recording has the first two, so they are made: the trace that boosts is played with the boost
 * kept for a while, or with the lists drained at some op, and what the machine gives then is
 * taken for what Linux gave. Played as recorded, it agrees again: with the boost kept for
 * exactly as long, or with exactly those drains followed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* After the four above, as cmocka wants it. */
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "frames/pcp.h"
#include "trace.h"

static const char *const path = SOURCE_DIR "/tests/linux/traces/686-pae-1G-fill";

/* Drains all lists, and writes down after op `at` what Linux's events would tell of it. */
static void drain_after(struct trace *t, struct box *b, size_t at)
{
	struct engine *e = b->e;

	assert_false(t->ops[at].op.is_alloc);
	t->nr = at + 1;
	for (u32 i = 0; i < NR_ZONES * NR_PCP_LISTS; i++) {
		const struct pcp *pcp = &e->st->frames.zone[i / NR_PCP_LISTS].pcp[0];
		u32 list = i % NR_PCP_LISTS;

		for (pfn_t pfn = pcp->list[list].last; pfn; pfn = e->mem_map[pfn].prev) {
			struct kmem_op drain = t->ops[at].op;

			drain.pfn = pfn;
			drain.order = (u8)pcp_list_order(&e->st->layout, list);
			drain.is_drain = true;
			assert_true(trace_keep(t, &drain));
		}
	}
	assert_int_equal(box_op(b, OP_DRAIN_PCP), STATUS_OK);
}

/* Renames every frame to the one that the machine gives, with its lists drained after op
 * `drained`; returns how many changed. */
static size_t forge(struct trace *t, struct box *b, size_t drained)
{
	size_t nr = t->nr;
	u32 *now = calloc(t->layout.max_pfn, sizeof *now);
	size_t changed = 0;

	/* Linux's drains are of the frames as they were named before. */
	for (size_t i = 0; i < t->nr; i++)
		t->ops[i].first_drained = t->ops[i].last_drained = 0;
	t->nr_drained = 0;
	memset(t->last_free, 0, t->layout.max_pfn * sizeof *t->last_free);
	assert_non_null(now);
	trace_start(t);
	for (size_t i = 0; i < nr; i++) {
		struct kmem_op *op = &t->ops[i].op;
		u32 was = op->pfn;

		if (!op->is_alloc && now[was]) {
			op->pfn = now[was];
			now[was] = 0;
		}
		assert_int_equal(trace_play_op(t, b, op), STATUS_OK);
		if (op->is_alloc) {
			op->pfn = now[was] = (u32)b->res.values[0];
			changed += op->pfn != was;
		}
		trace_take_boosts_back(t, b, i);
		if (i == drained)
			drain_after(t, b, i);
	}
	t->nr = nr;
	free(now);
	return changed;
}

static void late_by(size_t ops)
{
	struct conformance_report r = {0};
	struct trace t;
	struct box *b = trace_box(path, &r);
	size_t given;

	assert_non_null(b);
	assert_true(trace_begin(&t, b));
	assert_true(trace_read(&t, path, &r));
	trace_start(&t);
	assert_int_equal(trace_play(&t, b, t.nr, &r), t.nr);
	given = t.course.last_boost;
	box_free(b);

	b = trace_box(path, &r);
	assert_non_null(b);
	t.holds[t.nr_holds++] = (struct hold){given, given + ops};
	assert_true(forge(&t, b, SIZE_MAX) > 0);
	box_free(b);

	b = trace_box(path, &r);
	assert_non_null(b);
	t.nr_holds = 0;
	trace_play_as_recorded(&t, b, path, &r);
	assert_int_equal(r.agreed, t.nr);
	assert_int_equal(t.nr_holds, 1);
	assert_int_equal(t.holds[0].given, given);
	assert_int_equal(t.holds[0].release, given + ops);
	assert_string_equal(r.difference, "");
	box_free(b);
	trace_end(&t);
}

static void kswapd_came_late(void **state)
{
	(void)state;
	late_by(2);
	late_by(20000);
}

static void drained_after(size_t at)
{
	struct conformance_report r = {0};
	struct box *b = trace_box(path, &r);
	struct trace t;

	assert_non_null(b);
	assert_true(trace_begin(&t, b));
	assert_true(trace_read(&t, path, &r));
	if (!t.ops) {
		fail_msg("a trace without ops");
		return;
	}
	while (t.ops[at].op.is_alloc || t.ops[at].op.in_irq)
		at++;
	assert_true(forge(&t, b, at) > 0);
	box_free(b);

	b = trace_box(path, &r);
	assert_non_null(b);
	trace_play_as_recorded(&t, b, path, &r);
	assert_int_equal(r.agreed, t.nr);
	assert_true(t.nr_drained > 0);
	assert_int_equal(t.course.followed, t.nr_drained);
	assert_string_equal(r.difference, "");
	box_free(b);

	/* Without the events it cannot be known. */
	r = (struct conformance_report){0};
	b = trace_box(path, &r);
	assert_non_null(b);
	t.ops[at].first_drained = 0;
	trace_start(&t);
	assert_true(trace_play(&t, b, t.nr, &r) < t.nr);
	box_free(b);
	trace_end(&t);
}

static void something_drained(void **state)
{
	(void)state;
	drained_after(30000);
	drained_after(150000);
}

/* Of a pageblock of which most is page cache, Linux leaves the type: the trace tells, and
 * without it nobody knows. What interrupts freed in the middle of a batch is told, too. */
static void types_are_told(void **state)
{
	static const char *const movable = SOURCE_DIR "/tests/linux/traces/686-pae-900M-movable";
	struct conformance_report r = {0};
	struct box *b = trace_box(movable, &r);
	struct trace t;

	(void)state;
	assert_non_null(b);
	assert_true(trace_begin(&t, b));
	assert_true(trace_read(&t, movable, &r));
	trace_play_as_recorded(&t, b, movable, &r);
	assert_int_equal(r.agreed, t.nr);
	assert_int_equal(t.course.retyped, 2);
	assert_int_equal(t.nr_told_past_lists, 4);
	box_free(b);

	b = trace_box(movable, &r);
	assert_non_null(b);
	for (size_t i = 0; i < t.nr; i++)
		t.ops[i].first_stolen = 0;
	trace_play_as_recorded(&t, b, movable, &r);
	assert_true(r.agreed < t.nr);
	assert_non_null(strstr(r.difference, "; Linux: frame 0x"));
	box_free(b);
	trace_end(&t);
}

/* Frees 0 and 2 are a batch's, or not; an interrupt on a CPU makes free 1. Which of them went
 * past the lists is known only where the lock was surely held. */
static void locked_lists_are_told(void **state)
{
	enum { LOW = 0x2000, HIGH = 0x37800 };
	static const struct {
		struct kmem_op free[3];
		bool told;
	} cases[] = {
	    {{{.pfn = LOW}, {.pfn = LOW + 9, .in_irq = true}, {.pfn = LOW + 1, .in_batch = true}},
	     true},
	    {{{.pfn = LOW}, {.pfn = LOW + 9, .in_irq = true}, {.pfn = LOW + 1}}, false},
	    {{{.pfn = LOW}, {.pfn = LOW + 9}, {.pfn = LOW + 1, .in_batch = true}}, false},
	    {{{.pfn = LOW}, {.pfn = HIGH, .in_irq = true}, {.pfn = LOW + 1, .in_batch = true}},
	     false},
	    {{{.pfn = HIGH}, {.pfn = LOW, .in_irq = true}, {.pfn = LOW + 1, .in_batch = true}},
	     false},
	    {{{.pfn = LOW},
	      {.pfn = LOW + 9, .in_irq = true, .cpu = 1},
	      {.pfn = LOW + 1, .in_batch = true}},
	     false},
	    /* No list has blocks of this order. */
	    {{{.pfn = LOW},
	      {.pfn = LOW + 16, .in_irq = true, .order = 4},
	      {.pfn = LOW + 1, .in_batch = true}},
	     false},
	};
	struct conformance_report r = {0};
	struct box *b = trace_box(path, &r);

	(void)state;
	assert_non_null(b);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct trace t;

		assert_true(trace_begin(&t, b));
		for (u32 j = 0; j < 3; j++)
			assert_true(trace_keep(&t, &cases[i].free[j]));
		assert_int_equal(t.nr_told_past_lists, cases[i].told);
		for (u32 j = 0; j < 3; j++)
			assert_int_equal(t.ops[j].past_lists, cases[i].told && j == 1);
		trace_end(&t);
	}
	box_free(b);
}

static s64 free_pages(const struct zone *z, u32 cpus)
{
	s64 pages = z->free;

	for (u32 cpu = 0; cpu < cpus; cpu++)
		pages += z->pcp[cpu].free_diff;
	return pages;
}

/* What is shifted between a zone's count and its CPUs is never more than they may keep, and
 * the pages are the same ones. */
static void counts_are_shifted(void **state)
{
	static const char *const smp = SOURCE_DIR "/tests/linux/traces/686-pae-900M-smp2-first";
	static const struct {
		s32 pages, shifted;
	} cases[] = {{0, 0}, {1, 1}, {-3, -3}, {1000, 8}, {-1000, -8}};
	struct conformance_report r = {0};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct box *b = trace_box(smp, &r), *plain = trace_box(smp, &r);
		const struct zone *z, *before;
		struct trace t;
		size_t at = 3000;

		assert_non_null(b);
		assert_non_null(plain);
		assert_true(trace_begin(&t, b));
		assert_true(trace_read(&t, smp, &r));
		/* An op of another zone, before which, in both, nothing is with the CPUs. */
		while (t.ops[at].op.pfn >= t.zone_bound[ZONE_NORMAL])
			at++;
		t.ops[at].folds = 3;
		trace_start(&t);
		assert_int_equal(trace_play(&t, plain, at + 1, &r), at + 1);
		t.ops[at].shift = (struct shift){cases[i].pages, ZONE_HIGHMEM};
		trace_start(&t);
		assert_int_equal(trace_play(&t, b, at + 1, &r), at + 1);
		z = &b->e->st->frames.zone[ZONE_HIGHMEM];
		before = &plain->e->st->frames.zone[ZONE_HIGHMEM];
		assert_int_equal(free_pages(z, 2), free_pages(before, 2));
		assert_int_equal(z->free - before->free, cases[i].shifted);
		for (u32 cpu = 0; cpu < 2; cpu++)
			assert_true(abs(z->pcp[cpu].free_diff) <= (s32)z->stat_threshold);
		trace_end(&t);
		box_free(plain);
		box_free(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(kswapd_came_late),	  cmocka_unit_test(something_drained),
	    cmocka_unit_test(types_are_told),	  cmocka_unit_test(locked_lists_are_told),
	    cmocka_unit_test(counts_are_shifted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
