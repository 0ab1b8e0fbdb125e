/*
 * test_recordings.c - what the readers make of traces as people have them: ftrace and
 * perf script, old and new spellings, and the rules of kmem_ops.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* After the four above, as cmocka wants it. */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "contract.h"
#include "kmem_ops.h"

static const struct spelling {
	const char *line;
	struct kmem_event want;
} spellings[] = {
    {"          <idle>-0       [001] d..1.    12.000001: mm_page_alloc: page=(ptrval) pfn=0x23d8 "
     "order=1 migratetype=0 gfp_flags=GFP_KERNEL_ACCOUNT|__GFP_ZERO",
     {KMEM_ALLOC, 12000001, 1, 0, 0x23d8, 1, GFP_KERNEL | __GFP_ACCOUNT | __GFP_ZERO, false,
      "<idle>", false, 1, 0, false, false}},
    {"kworker/10:1-440     [010] .....   355.369905: mm_page_free: page=00000000dc8c03bd "
     "pfn=0x182190 order=2",
     {KMEM_FREE, 355369905, 10, 440, 0x182190, 2, 0, false, "kworker/10:1", false, 0, 0, false,
      false}},
    /* An older kernel: decimal pfn, no 0x, a pointer. */
    {"netperf-3887  [032] ....   393.246420: mm_page_alloc: page=ffffea0021272200 pfn=8690824 "
     "order=3 migratetype=0 gfp_flags=GFP_KERNEL|__GFP_NOWARN|__GFP_COMP",
     {KMEM_ALLOC, 393246420, 32, 3887, 8690824, 3, GFP_KERNEL | __GFP_NOWARN | __GFP_COMP, false,
      "netperf", false, 0, 0, false, false}},
    /* No flags column at all; old names of single flags. */
    {"a b-c-77 [000] 1.5: mm_page_alloc: page=f4 pfn=9 order=0 migratetype=2 "
     "gfp_flags=GFP_ATOMIC|GFP_NOWARN|GFP_COLD",
     {KMEM_ALLOC, 1500000, 0, 77, 9, 0, GFP_ATOMIC | __GFP_NOWARN, false, "a b-c", false, 0, 0,
      false, false}},
    /* With a thread group; of perf, PID/TID: the thread, as ftrace has it. */
    {"  bash-12 (  9) [000] .... 2.000000: mm_page_free_batched: page=1 pfn=0x10 order=0 cold=1",
     {KMEM_FREE_BATCHED, 2000000, 0, 12, 0x10, 0, 0, false, "bash", false, 0, 0, false, false}},
    {"perf  6429 [000]    22.498450:             kmem:mm_page_alloc: page=0x176a17 pfn=1534487 "
     "order=0 migratetype=0 gfp_flags=GFP_KERNEL",
     {KMEM_ALLOC, 22498450, 0, 6429, 1534487, 0, GFP_KERNEL, false, "perf", false, 0, 0, false,
      false}},
    {"my prog  10/11 [003] 7.000123: kmem:mm_page_free_direct: page=0x1 pfn=17 order=4",
     {KMEM_FREE, 7000123, 3, 11, 17, 4, 0, false, "my prog", false, 0, 0, false, false}},
    /* Old kernels print no order of what a batch frees. */
    {"x-1 [000] .... 3.25: mm_pagevec_free: page=f pfn=18 cold=0",
     {KMEM_FREE_BATCHED, 3250000, 0, 1, 18, 0, 0, false, "x", false, 0, 0, false, false}},
    /* A vendor's keys between, and a flag in numbers. */
    {"x-1 [000] .... 3.000000: mm_page_alloc: page=f nr_free=3650 pfn=0x12 zone=1 order=0 "
     "migratetype=1 gfp_flags=GFP_HIGHUSER_MOVABLE|0x100",
     {KMEM_ALLOC, 3000000, 0, 1, 0x12, 0, GFP_HIGHUSER_MOVABLE | __GFP_ZERO, false, "x", false, 0,
      0, false, false}},
    {"x-1 [000] .... 3.000000: mm_page_alloc: page=00000000 pfn=0 order=9 migratetype=1 "
     "gfp_flags=__GFP_ATOMIC|__GFP_FANCY",
     {KMEM_ALLOC, 3000000, 0, 1, 0, 9, __GFP_ATOMIC, true, "x", false, 0, 0, false, false}},
    {"x-1 [000] .... 3.000000: mm_page_alloc_extfrag: page=f pfn=0x400 alloc_order=3 "
     "fallback_order=9 pageblock_order=9 alloc_migratetype=0 fallback_migratetype=1 "
     "fragmenting=0 change_ownership=1",
     {KMEM_EXTFRAG, 3000000, 0, 1, 0x400, 3, 0, false, "x", false, 0, 0, true, true}},
    {"x-1 [000] d..3. 3.000000: mm_page_alloc_extfrag: page=f pfn=0x400 alloc_order=0 "
     "fallback_order=6 pageblock_order=9 alloc_migratetype=2 fallback_migratetype=1 "
     "fragmenting=1 change_ownership=0",
     {KMEM_EXTFRAG, 3000000, 0, 1, 0x400, 0, 0, false, "x", false, 3, 2, false, true}},
    /* Without who asked it says nothing. */
    {"x-1 [000] .... 3.000000: mm_page_alloc_extfrag: page=f pfn=0x400 alloc_order=3 "
     "fragmenting=0 change_ownership=1",
     {KMEM_EXTFRAG, 3000000, 0, 1, 0x400, 3, 0, false, "x", false, 0, 0, true, false}},
    {"x-1 [000] .... 3.000000: mm_page_pcpu_drain: page=f pfn=0x400 order=2 migratetype=1",
     {KMEM_DRAIN, 3000000, 0, 1, 0x400, 2, 0, false, "x", false, 0, 0, false, false}},
    {"x-1 [000] .... 3.000000: mm_page_alloc_zone_locked: page=f pfn=0x400 order=0 "
     "migratetype=1 percpu_refill=1",
     {KMEM_TAKE, 3000000, 0, 1, 0x400, 0, 0, false, "x", false, 0, 0, false, false}},
    {"x-1 [000] .... 3.000000: mm_page_unheard_of: page=f pfn=0x400 order=0",
     {KMEM_OTHER, 3000000, 0, 1, 0, 0, 0, false, "x", false, 0, 0, false, false}},
};

static void test_spellings(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof spellings / sizeof spellings[0]; i++) {
		const struct kmem_event *want = &spellings[i].want;
		struct kmem_event got;

		print_message("%s\n", spellings[i].line);
		assert_int_equal(kmem_parse(spellings[i].line, &got), KMEM_LINE_EVENT);
		assert_int_equal(got.kind, want->kind);
		assert_int_equal(got.time_us, want->time_us);
		assert_int_equal(got.cpu, want->cpu);
		assert_int_equal(got.pid, want->pid);
		assert_int_equal(got.pfn, want->pfn);
		assert_int_equal(got.order, want->order);
		assert_int_equal(got.gfp, want->gfp);
		assert_int_equal(got.gfp_unknown, want->gfp_unknown);
		assert_string_equal(got.comm, want->comm);
		assert_int_equal(got.depth, want->depth);
		assert_int_equal(got.migratetype, want->migratetype);
		assert_int_equal(got.owned, want->owned);
		assert_int_equal(got.told, want->told);
	}
}

static void test_contexts(void **state)
{
	static const struct {
		const char *line;
		bool in_irq;
		uint8_t depth;
	} cases[] = {
	    {"x-1 [000] ..... 1.0: mm_page_free: pfn=1 order=0", false, 0},
	    {"x-1 [000] .Ns.. 1.0: mm_page_free: pfn=1 order=0", true, 0},
	    {"x-1 [000] .Ns21 1.0: mm_page_free: pfn=1 order=0", true, 2},
	    {"x-1 [000] d.h1 1.0: mm_page_free: pfn=1 order=0", true, 1},
	    {"x-1 [000] dNhc. 1.0: mm_page_free: pfn=1 order=0", true, 12},
	    {"x-1 [000] 1.0: mm_page_free: pfn=1 order=0", false, 0},
	    {"x 1 [000] 1111.0: kmem:mm_page_free: pfn=1 order=0", false, 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct kmem_event ev;

		assert_int_equal(kmem_parse(cases[i].line, &ev), KMEM_LINE_EVENT);
		assert_int_equal(ev.in_irq, cases[i].in_irq);
		assert_int_equal(ev.depth, cases[i].depth);
	}
}

static void test_noise(void **state)
{
	static const char *const noise[] = {
	    "",
	    "# tracer: nop",
	    "#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION mm_page_alloc: pfn=1",
	    "\tc0123456 __alloc_pages+0x10 (/boot/vmlinux)",
	    "x-1 [000] .... 3.000000: sched_switch: prev_comm=mm_page_alloc",
	    "init-1 [000] ..... 48.982807: tracing_mark_write: trace-begin",
	};
	static const char *const wrong[] = {
	    "x-1 [000] .... 3.000000: mm_page_alloc: page=f order=0",
	    "x-1 [000] .... 3.000000: mm_page_free: page=f order=0",
	    "x-1 [000] .... 3.000000: mm_page_alloc: ",
	};
	struct kmem_event ev;

	(void)state;
	for (size_t i = 0; i < sizeof noise / sizeof noise[0]; i++)
		assert_int_equal(kmem_parse(noise[i], &ev), KMEM_LINE_NOISE);
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_int_equal(kmem_parse(wrong[i], &ev), KMEM_LINE_WRONG);
}

/* ---- the rules ---- */

/* "a5 f5 b5 d5 t5 s5": an allocation, a free, a batched free, a drain, a taking, a stealing of
 * frame 5, in a text; of an interrupt with '!' behind. */
static void play(struct kmem_ops *k, const char *story, char *told, size_t size)
{
	static const char *const names[] = {"mm_page_alloc",
					    "mm_page_free",
					    "mm_page_free_batched",
					    "mm_page_pcpu_drain",
					    "mm_page_alloc_zone_locked",
					    "mm_page_alloc_extfrag"};
	size_t at = 0;
	struct kmem_op op;
	char line[160];

	*told = 0;
	for (; *story; story += strcspn(story, " "), story += *story == ' ') {
		const char *name = names[strchr("afbdts", *story) - "afbdts"];

		snprintf(line, sizeof line,
			 "x-1 [000] ..%c. 1.000000: %s: pfn=%.1s order=0 alloc_migratetype=1 "
			 "change_ownership=1 gfp_flags=GFP_KERNEL",
			 story[2] == '!' ? 's' : '.', name, story + 1);
		assert_true(kmem_ops_line(k, line));
	}
	kmem_ops_end(k);
	while (kmem_ops_next(k, &op))
		at += (size_t)snprintf(told + at, size - at, "%s%c%u%s", at ? " " : "",
				       op.is_alloc   ? 'a'
				       : op.is_drain ? 'd'
				       : op.is_take  ? 't'
				       : op.is_steal ? 's'
						     : 'f',
				       op.pfn, op.in_batch ? "+" : "");
}

static void test_announcements(void **state)
{
	static const struct {
		const char *events, *ops;
		uint64_t announcements;
	} cases[] = {
	    {"a1 f1 a1 f1", "a1 f1 a1 f1", 0},
	    {"a1 a2 f1 f2 b1 b2", "a1 a2 f1 f2+", 2},
	    /* An interrupt's allocation, and its free in the middle of the batch. */
	    {"a1 a2 f1 f2 a3! b1 f3! b2", "a1 a2 a3 f1 f3 f2+", 2},
	    /* Two batches. */
	    {"f1 f2 b1 b2 f3 b3 f4!", "f1 f2+ f3 f4", 3},
	    {"f1 b1 a5 b2", "f1 a5 f2", 1},
	    /* Allocated again: the first one was a free, and only the second is announced. */
	    {"a1 f1 a1 f1 b1", "a1 f1 a1 f1", 1},
	    {"b7", "f7", 0},
	};
	char told[128];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct kmem_ops *k = kmem_ops_new(NULL);

		assert_non_null(k);
		play(k, cases[i].events, told, sizeof told);
		assert_string_equal(told, cases[i].ops);
		assert_int_equal(kmem_ops_counts(k)->announcements, cases[i].announcements);
		kmem_ops_free(k);
	}
}

/* What the lists and the buddy did is between the ops for who asks; all others get its count.
 * A block that leaves a list was freed: it is no announcement's any more. */
static void test_lists(void **state)
{
	const struct kmem_span with = {0, 0, NULL, true};
	static const struct {
		const char *events, *ops, *all;
		uint64_t drains;
	} cases[] = {
	    {"f1 d1 d2 t1 a1", "f1 a1", "f1 d1 d2 t1 a1", 2},
	    {"f1 f2 b1 d1 b2", "f1 f2+", "f1 d1 f2+", 1},
	    {"f1 s1 t2 a2 b1", "a2 f1", "s1 t2 a2 f1", 0},
	};
	char told[128];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		for (int all = 0; all < 2; all++) {
			struct kmem_ops *k = kmem_ops_new(all ? &with : NULL);

			assert_non_null(k);
			play(k, cases[i].events, told, sizeof told);
			assert_string_equal(told, all ? cases[i].all : cases[i].ops);
			assert_int_equal(kmem_ops_counts(k)->drains, cases[i].drains);
			kmem_ops_free(k);
		}
}

/* A free is decided when 4096 events have come behind it, and not before: what is held
 * back is bounded, so that a pipe flows. */
static void test_window(void **state)
{
	struct kmem_ops *k = kmem_ops_new(NULL);
	struct kmem_op op;
	char line[128];
	uint32_t decided = 0;

	(void)state;
	for (uint32_t i = 1; i <= 10000; i++) {
		snprintf(line, sizeof line, "x-1 [000] .... 1.000000: mm_page_free: pfn=%u order=0",
			 i);
		assert_true(kmem_ops_line(k, line));
		while (kmem_ops_next(k, &op)) {
			decided++;
			assert_int_equal(op.pfn, decided);
		}
		assert_true(i - decided < 4096);
	}
	kmem_ops_end(k);
	while (kmem_ops_next(k, &op))
		decided++;
	assert_int_equal(decided, 10000);
	kmem_ops_free(k);
}

/* What the tracer says that it has lost. */
static void test_lost(void **state)
{
	static const struct {
		const char *line;
		uint64_t lost;
	} cases[] = {
	    {"# entries-in-buffer/entries-written: 257460/257460   #P:1", 0},
	    {"# entries-in-buffer/entries-written: 1000/3500   #P:1", 2500},
	    {"CPU:1 [LOST 77 EVENTS]", 77},
	    {"CPU:1 [LOST EVENTS]", 0},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct kmem_ops *k = kmem_ops_new(NULL);

		assert_non_null(k);
		assert_true(kmem_ops_line(k, cases[i].line));
		assert_int_equal(kmem_ops_counts(k)->lost, cases[i].lost);
		assert_int_equal(kmem_ops_counts(k)->events, 0);
		kmem_ops_free(k);
	}
}

static void test_span(void **state)
{
	static const char *const lines[] = {
	    "insmod-5 [000] .... 1.000000: mm_page_alloc: pfn=1 order=0 gfp_flags=GFP_KERNEL",
	    "insmod-5 [000] .... 2.000000: mm_page_alloc: pfn=2 order=0 gfp_flags=GFP_KERNEL",
	    "sh-6 [000] .... 3.000000: mm_page_alloc: pfn=3 order=0 gfp_flags=GFP_KERNEL",
	    "insmod-7 [000] .... 4.000000: mm_page_alloc: pfn=4 order=0 gfp_flags=GFP_KERNEL",
	    "sh-6 [000] .... 4.500000: mm_page_alloc: pfn=5 order=0 gfp_flags=GFP_KERNEL",
	};
	const struct kmem_span span = {1500000, 9000000, "insmod", false};
	struct kmem_ops *k = kmem_ops_new(&span);
	struct kmem_op op;
	uint32_t sum = 0;

	(void)state;
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
		assert_int_equal(kmem_ops_line(k, lines[i]), i < 3);
	kmem_ops_end(k);
	while (kmem_ops_next(k, &op))
		sum = sum * 10 + op.pfn;
	assert_int_equal(sum, 23);
	kmem_ops_free(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_spellings), cmocka_unit_test(test_noise),
	    cmocka_unit_test(test_contexts),  cmocka_unit_test(test_announcements),
	    cmocka_unit_test(test_window),    cmocka_unit_test(test_lists),
	    cmocka_unit_test(test_lost),      cmocka_unit_test(test_span),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
