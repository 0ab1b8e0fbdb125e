/*
 * bench_cost.c - instructions of an op on the kernel back end, beside Linux's own.
 *
 *   bench_cost [KERNEL]
 *
 * The guest runs under QEMU's -icount shift=0, where the TSC goes on by one with every
 * instruction; it reads it before and after engine_execute(), so that admission, numbering
 * and the records of events count, and the link does not. One CPU, PAE, 2 GiB, preset
 * linux-6.1. Medians, as Linux's figures are: of one op, or of the two of a pair.
 *
 * Linux's functions are called by a module, which asks for no number, no admission and no
 * record of a result. So there are two columns, of the same run: `as ops`, all that an op
 * costs; and `alone`, without what an op costs that finds nothing to do, for each of the row's
 * ops. Events count in both. That op (Withdraw of nobody) has a function of its own, of six
 * instructions or seven, which `alone` is short of.
 *
 * Linux's figures: 6.1 i386 (686-pae, 2 GiB, one CPU) measured the same way by a module that
 * called the kernel's own functions, page faults from ring 3. That kernel had DEBUG_LIST,
 * memory cgroups and page-table isolation on.
 *
 * An emulated CPU counts each word of a `rep stos` or `rep movs`, so that clearing or
 * copying a page is 1024 of what it counts and one instruction of a program. Rows that do
 * so say it, and have that taken off on both sides.
 *
 * The goal is half of Linux's count where a row names a goal, with all events. It is judged
 * in both columns.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/parity/guest.h"

enum {
	SAMPLES = 301, /* of which the first WARM do not count */
	WARM = 20,
	PAGE_WORDS = PAGE_SIZE / 4,
	BULK = 10000,
	PAE_SLOTS = 512,
};

static struct guest guest;
static u8 data[ENGINE_MAX_DATA];
static u64 samples[SAMPLES];
static u32 task; /* current; 0: none yet */

/* ---- ops ---- */

static struct engine_result run(u16 type, struct engine_op op)
{
	struct engine_result res = {.data = data};

	guest.nr_events = guest.nr_completions = 0;
	if (!guest_send(&guest, type, &op) || !guest_receive(&guest, &res)) {
		fprintf(stderr, "bench_cost: %s\n", guest.error);
		exit(1);
	}
	if (res.status != STATUS_OK && op.code != OP_WITHDRAW) {
		fprintf(stderr, "bench_cost: op %u answered status %u\n", op.code, res.status);
		exit(1);
	}
	return res;
}

/* Instructions of this op; its result in *ret. */
static u64 cost(struct engine_op op, struct engine_result *ret)
{
	*ret = run(WIRE_MEASURE, op);
	return guest.cost;
}

static u64 cost_of(struct engine_op op)
{
	struct engine_result ignored;

	return cost(op, &ignored);
}

static u64 value_of(struct engine_op op)
{
	return run(WIRE_OP, op).values[0];
}

static u64 allocate(u32 gfp)
{
	return value_of((struct engine_op){.code = OP_ALLOC_PAGES, .args = {gfp}});
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return (x > y) - (x < y);
}

static u64 median(void)
{
	qsort(samples + WARM, SAMPLES - WARM, sizeof *samples, compare);
	return samples[WARM + (SAMPLES - WARM) / 2];
}

/* ---- rows ---- */

/* What any op costs: of one that does nothing. */
static u64 nothing(void)
{
	for (u32 i = 0; i < SAMPLES; i++)
		samples[i] = cost_of((struct engine_op){.code = OP_WITHDRAW, .args = {1u << 30}});
	return median();
}

/* An op, and another that undoes it: given the first argument of the first (a frame), or
 * what the first answered. */
static u64 pair(struct engine_op make, u32 undo, bool by_argument, u64 second_argument)
{
	for (u32 i = 0; i < SAMPLES; i++) {
		struct engine_result made;

		samples[i] = cost(make, &made);
		samples[i] += cost_of((struct engine_op){
		    .code = undo,
		    .cpu = make.cpu,
		    .task = make.task,
		    .args = {by_argument ? make.args[0] : made.values[0], second_argument}});
	}
	return median();
}

static u64 page_pair(u32 gfp, u32 order)
{
	return pair((struct engine_op){.code = OP_ALLOC_PAGES, .args = {gfp, order}}, OP_FREE_PAGES,
		    false, order);
}

static u64 user_page_pair(u32 order)
{
	return page_pair(GFP_HIGHUSER_MOVABLE, order);
}

static u64 kernel_page_pair(u32 order)
{
	return page_pair(GFP_KERNEL, order);
}

static u64 bulk(u32 want_frees)
{
	static u64 pfn[BULK];
	u64 allocs = 0, frees = 0;

	for (u32 i = 0; i < BULK; i++) {
		struct engine_result page;

		allocs +=
		    cost((struct engine_op){.code = OP_ALLOC_PAGES, .args = {GFP_KERNEL}}, &page);
		pfn[i] = page.values[0];
	}
	for (u32 i = 0; i < BULK; i++)
		frees += cost_of((struct engine_op){.code = OP_FREE_PAGES, .args = {pfn[i]}});
	return (want_frees ? frees : allocs) / BULK;
}

static u64 kmap_pair(u64 pfn)
{
	return pair((struct engine_op){.code = OP_KMAP, .args = {pfn}}, OP_KUNMAP, true, 0);
}

static u64 kmap_lowmem(u32 unused)
{
	(void)unused;
	return kmap_pair(allocate(GFP_KERNEL));
}

static u64 kmap_mapped(u32 unused)
{
	u64 pfn = allocate(GFP_HIGHUSER);

	(void)unused;
	run(WIRE_OP, (struct engine_op){.code = OP_KMAP, .args = {pfn}});
	return kmap_pair(pfn);
}

/* One page after another, each mapped for the first time since the last flush. */
static u64 kmap_new(u32 unused)
{
	(void)unused;
	for (u32 i = 0; i < SAMPLES; i++) {
		u64 pfn = allocate(GFP_HIGHUSER);

		samples[i] = cost_of((struct engine_op){.code = OP_KMAP, .args = {pfn}});
		samples[i] += cost_of((struct engine_op){.code = OP_KUNMAP, .args = {pfn}});
	}
	return median();
}

/* The one in a round of the window that finds it full of what nobody uses any more. */
static u64 kmap_wrap(u32 unused)
{
	u64 most = 0;

	(void)unused;
	for (u32 i = 0; i < 2 * PAE_SLOTS; i++) {
		u64 pfn = allocate(GFP_HIGHUSER);
		u64 one = cost_of((struct engine_op){.code = OP_KMAP, .args = {pfn}});

		run(WIRE_OP, (struct engine_op){.code = OP_KUNMAP, .args = {pfn}});
		most = one > most ? one : most;
	}
	return most;
}

static u64 kmap_local(u32 gfp)
{
	return pair((struct engine_op){.code = OP_KMAP_LOCAL, .args = {allocate(gfp)}},
		    OP_KUNMAP_LOCAL, false, 0);
}

static u64 kmap_atomic(u32 gfp)
{
	return pair((struct engine_op){.code = OP_KMAP_ATOMIC, .args = {allocate(gfp)}},
		    OP_KUNMAP_ATOMIC, false, 0);
}

static u64 vmalloc(u32 pages)
{
	return pair((struct engine_op){.code = OP_VMALLOC, .args = {(u64)pages * PAGE_SIZE}},
		    OP_VFREE, false, 0);
}

static u64 vmap(u32 pages)
{
	static u32 pfns[256];

	for (u32 i = 0; i < pages; i++)
		pfns[i] = (u32)allocate(GFP_HIGHUSER);
	return pair((struct engine_op){.code = OP_VMAP,
				       .args = {UPROT_READ | UPROT_WRITE},
				       .data = (const u8 *)pfns,
				       .data_len = pages * 4},
		    OP_VUNMAP, false, 0);
}

/* ---- rows of a task ---- */

static void need_task(void)
{
	if (task)
		return;
	task = (u32)value_of((struct engine_op){.code = OP_TASK_CREATE});
	run(WIRE_OP, (struct engine_op){.code = OP_SCHEDULE, .args = {task}});
}

static struct engine_op mmap_op(u64 pages)
{
	return (struct engine_op){.code = OP_MMAP,
				  .task = task,
				  .args = {0, pages * PAGE_SIZE, UPROT_READ | UPROT_WRITE,
					   UMAP_PRIVATE | UMAP_ANONYMOUS, 0, 0}};
}

static struct engine_op munmap_op(u64 at, u64 pages)
{
	return (struct engine_op){.code = OP_MUNMAP, .task = task, .args = {at, pages * PAGE_SIZE}};
}

static struct engine_op access_op(u64 va, u32 mode)
{
	static const u8 byte = 1;

	return (struct engine_op){.code = OP_ACCESS,
				  .task = task,
				  .args = {va, mode == ACCESS_WRITE ? 0 : 1, mode, PRIVILEGE_USER},
				  .data = &byte,
				  .data_len = mode == ACCESS_WRITE};
}

/* The same page touched again: no fault, the op's own cost. */
static u64 touched(u32 mode)
{
	need_task();
	u64 at = value_of(mmap_op(1));

	run(WIRE_OP, access_op(at, ACCESS_WRITE));
	for (u32 i = 0; i < SAMPLES; i++)
		samples[i] = cost_of(access_op(at, mode));
	return median();
}

static u64 first_touch(u32 mode)
{
	need_task();
	u64 at = value_of(mmap_op(SAMPLES));

	for (u32 i = 0; i < SAMPLES; i++)
		samples[i] = cost_of(access_op(at + (u64)i * PAGE_SIZE, mode));
	run(WIRE_OP, munmap_op(at, SAMPLES));
	return median();
}

/* The handler called as the CPU would call it: no trap, no access. */
static u64 handler(u32 error_code)
{
	need_task();
	u64 at = value_of(mmap_op(SAMPLES));

	for (u32 i = 0; i < SAMPLES; i++)
		samples[i] = cost_of(
		    (struct engine_op){.code = OP_FAULT,
				       .task = task,
				       .args = {at + (u64)i * PAGE_SIZE, error_code | FAULT_USER}});
	run(WIRE_OP, munmap_op(at, SAMPLES));
	return median();
}

static u64 write_after_read(u32 unused)
{
	(void)unused;
	need_task();
	u64 at = value_of(mmap_op(SAMPLES));

	for (u32 i = 0; i < SAMPLES; i++) {
		run(WIRE_OP, access_op(at + (u64)i * PAGE_SIZE, ACCESS_READ));
		samples[i] = cost_of(access_op(at + (u64)i * PAGE_SIZE, ACCESS_WRITE));
	}
	run(WIRE_OP, munmap_op(at, SAMPLES));
	return median();
}

/* Parent and child write in turn: the first copies, the second has it alone. */
static u64 copy_on_write(u32 want_reuse)
{
	need_task();
	u64 at = value_of(mmap_op(SAMPLES)), child;

	for (u32 i = 0; i < SAMPLES; i++)
		run(WIRE_OP, access_op(at + (u64)i * PAGE_SIZE, ACCESS_WRITE));
	child = value_of((struct engine_op){.code = OP_TASK_FORK, .args = {task}});
	for (u32 i = 0; i < SAMPLES && !want_reuse; i++)
		samples[i] = cost_of(access_op(at + (u64)i * PAGE_SIZE, ACCESS_WRITE));
	run(WIRE_OP, (struct engine_op){.code = OP_TASK_EXIT, .args = {child}});
	for (u32 i = 0; i < SAMPLES && want_reuse; i++)
		samples[i] = cost_of(access_op(at + (u64)i * PAGE_SIZE, ACCESS_WRITE));
	run(WIRE_OP, munmap_op(at, SAMPLES));
	return median();
}

static u64 mmap_munmap(u32 touch)
{
	need_task();
	for (u32 i = 0; i < SAMPLES; i++) {
		struct engine_result mapped;

		samples[i] = cost(mmap_op(1), &mapped);
		if (touch)
			samples[i] += cost_of(access_op(mapped.values[0], ACCESS_WRITE));
		samples[i] += cost_of(munmap_op(mapped.values[0], 1));
	}
	return median();
}

/* ---- the table ---- */

static const struct row {
	const char *name;
	u32 linux_cost; /* as measured, page included; 0: Linux has no such thing */
	u32 ops;	/* of ours, in that */
	bool page;	/* clears or copies a page */
	bool has_goal;
	u64 (*measure)(u32 argument);
	u32 argument;
} rows[] = {
    {"alloc + free, order 0, GFP_KERNEL", 676, 2, false, true, kernel_page_pair, 0},
    {"alloc + free, order 0, HIGHUSER_MOVABLE", 598, 2, false, true, user_page_pair, 0},
    {"alloc + free, order 1", 772, 2, false, true, kernel_page_pair, 1},
    {"alloc + free, order 2", 814, 2, false, true, kernel_page_pair, 2},
    {"alloc + free, order 3", 886, 2, false, true, kernel_page_pair, 3},
    {"alloc + free, order 4 (buddy)", 1467, 2, false, false, kernel_page_pair, 4},
    {"10,000 order-0 allocs, each", 589, 1, false, false, bulk, false},
    {"then their frees, each", 323, 1, false, false, bulk, true},
    {"kmap + kunmap, lowmem", 75, 2, false, true, kmap_lowmem, 0},
    {"kmap + kunmap, already mapped", 314, 2, false, true, kmap_mapped, 0},
    {"kmap + kunmap, new slot", 532, 2, false, true, kmap_new, 0},
    {"the kmap that wraps and flushes", 70776, 1, false, false, kmap_wrap, 0},
    {"kmap_local pair, highmem", 259, 2, false, true, kmap_local, GFP_HIGHUSER},
    {"kmap_local pair, lowmem", 72, 2, false, true, kmap_local, GFP_KERNEL},
    {"kmap_atomic pair, highmem", 273, 2, false, false, kmap_atomic, GFP_HIGHUSER},
    {"kmap_atomic pair, lowmem", 86, 2, false, false, kmap_atomic, GFP_KERNEL},
    {"vmalloc + vfree, 1 page", 3087, 2, false, true, vmalloc, 1},
    {"vmalloc + vfree, 16 pages", 9769, 2, false, true, vmalloc, 16},
    {"vmalloc + vfree, 256 pages", 119547, 2, false, false, vmalloc, 256},
    {"vmap + vunmap, 1 page", 1926, 2, false, false, vmap, 1},
    {"vmap + vunmap, 16 pages", 2978, 2, false, false, vmap, 16},
    {"vmap + vunmap, 256 pages", 19905, 2, false, false, vmap, 256},
    {"access that does not fault", 0, 1, false, false, touched, ACCESS_READ},
    {"first-touch write fault", 4033, 1, true, true, first_touch, ACCESS_WRITE},
    {"  its handler alone (Fault)", 4033, 1, true, false, handler, FAULT_WRITE},
    {"zero-page read fault", 1777, 1, false, true, first_touch, ACCESS_READ},
    {"  its handler alone (Fault)", 1777, 1, false, false, handler, 0},
    {"write fault on the zero page", 4591, 1, true, true, write_after_read, 0},
    {"copy-on-write fault, copy", 5087, 1, true, false, copy_on_write, false},
    {"copy-on-write fault, reuse", 1616, 1, false, false, copy_on_write, true},
    {"mmap + munmap of a page, untouched", 14529, 2, false, false, mmap_munmap, false},
    {"mmap + munmap of a page, touched", 22546, 3, true, false, mmap_munmap, true},
};
enum { NR_ROWS = sizeof rows / sizeof rows[0] };

struct costs {
	u64 nothing;	  /* of an op that does nothing */
	u64 row[NR_ROWS]; /* a page's words taken off */
};

static void measure_all(const char *kernel, u32 detail, struct costs *ret)
{
	struct engine_config config = {.preset = PRESET_LINUX_6_1,
				       .flags = CONFIG_PAE,
				       .ram = 2048ull << 20,
				       .detail = detail};

	task = 0;
	if (!guest_start_counting(&guest, kernel, &config, config.ram)) {
		fprintf(stderr, "bench_cost: %s\n", guest.error);
		exit(1);
	}
	ret->nothing = nothing();
	for (u32 i = 0; i < NR_ROWS; i++)
		ret->row[i] = rows[i].measure(rows[i].argument) - (rows[i].page ? PAGE_WORDS : 0);
	guest_stop(&guest);
}

static bool meets_goal(u64 ours, u64 theirs)
{
	return ours * 2 <= theirs;
}

static void print_ratio(u64 ours, u64 theirs)
{
	printf(" %8llu", (unsigned long long)ours);
	if (theirs)
		printf(" %5.2f", (double)ours / (double)theirs);
	else
		printf(" %5s", "");
}

static void print_row(const struct row *r, u64 all, u64 alone, u64 few)
{
	u64 theirs = r->linux_cost - (r->page ? PAGE_WORDS : 0);

	printf("  %-40s %-4s", r->name, r->page ? "page" : "");
	if (r->linux_cost)
		printf(" %9llu", (unsigned long long)theirs);
	else
		printf(" %9s", "-");
	print_ratio(all, r->linux_cost ? theirs : 0);
	print_ratio(alone, r->linux_cost ? theirs : 0);
	printf(" %14llu", (unsigned long long)few);
	if (r->has_goal)
		printf("  %s", meets_goal(all, theirs)	   ? "goal"
			       : meets_goal(alone, theirs) ? "goal alone"
							   : "over half");
	printf("\n");
}

int main(int argc, char **argv)
{
	static struct costs all, few;
	const char *kernel = argc > 1 ? argv[1] : KERNEL_IMAGE;
	u32 met = 0, met_alone = 0, goals = 0;

	measure_all(kernel, DETAIL_ALL, &all);
	measure_all(kernel, DETAIL_OPS, &few);
	printf("instructions; page: without its 1024 words    Linux 6.1   as ops       "
	       "    alone        without events\n");
	for (u32 i = 0; i < NR_ROWS; i++) {
		const struct row *r = &rows[i];
		u64 theirs = r->linux_cost - (r->page ? PAGE_WORDS : 0);
		u64 alone = all.row[i] - r->ops * all.nothing;

		print_row(r, all.row[i], alone, few.row[i]);
		goals += r->has_goal;
		met += r->has_goal && meets_goal(all.row[i], theirs);
		met_alone += r->has_goal && meets_goal(alone, theirs);
	}
	printf("an op that does nothing: %llu\n"
	       "at most half of Linux's, with all events: as ops %u of %u goals, alone %u of %u\n",
	       (unsigned long long)all.nothing, met, goals, met_alone, goals);
	return 0;
}
