/*
 * bench_engine.c - nanoseconds of an operation in the engine, on the simulation, events
 * recorded (detail all), one thread. No RPC and no journal.
 *
 * Rows of the allocator are calls of page_alloc(), as every wing makes them, and of
 * page_free_asked(), with the validation that a free from outside gets: what other
 * allocators' benches measure. Rows of ops go through engine_execute(), numbering and admission
 * included.
 *
 *   hot      allocate and free one block, again and again
 *   bulk     allocate min(128k, half the zone) blocks, then free them in order
 *   random   the same blocks freed in random order; and, with all of them live, one of them
 *            freed at random and another allocated in its place, again and again
 *
 * Medians of seven rounds, of the thread's own CPU time.
 *
 * The allocator's reference is LLFree-C (atomics; no locks here). It is in no
 * distribution: who has it built gives its figures of the same minutes on the same
 * machine, in ns, as five arguments, and each row of order 0 gets its ratio:
 *
 *   bench_engine [HOT-PAIR BULK-ALLOCATE BULK-FREE ALLOCATE-AND-RANDOM-FREE RANDOM-PAIR]
 */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "frames/page_alloc.h"
#include "sim.h"
#include "state.h"

static struct sim *sim;
static u8 data[ENGINE_MAX_DATA];

static struct engine_result execute(struct engine_op *op)
{
	struct engine_result res = {.data = data};

	engine_forget_events(sim_engine(sim));
	sim_execute(sim, op, &res, false);
	return res;
}

static struct engine_result expect(struct engine_op op)
{
	struct engine_result res = execute(&op);

	if (res.status != STATUS_OK) {
		fprintf(stderr, "op %u answered %u\n", op.code, res.status);
		exit(1);
	}
	return res;
}

/* The reference's figures; 0: not given. */
static struct {
	double hot, bulk_allocate, bulk_free, random, pair;
} llfree;

/* The first machine's figure for 8192 live frames, which bounds the others'. */
static double live_of_first;

static void row(const char *what, const char *unit, double ns)
{
	printf("  %-34s %9.1f %s\n", what, ns, unit);
}

/* A row with something to reach: so many times the speed of the reference. */
static void row_against(const char *what, const char *unit, double ns, double reference,
			const char *aim)
{
	printf("  %-34s %9.1f %-8s", what, ns, unit);
	if (reference != 0)
		printf("  LLFree-C %6.1f, ratio %.2f", reference, reference / ns);
	printf("  (to reach: %s)\n", aim);
}

static void row_live(double ns)
{
	if (live_of_first == 0)
		live_of_first = ns;
	printf("  %-34s %9.1f ns/pair   %.2f of the first machine's  (to reach: at most 1.2)\n",
	       "order 0, 8192 live, random pair", ns, ns / live_of_first);
}

static inline pfn_t allocate(struct engine *e, u32 gfp, u32 order)
{
	e->st->op_count++;
	pfn_t pfn = page_alloc(e, gfp, order);

	if (__builtin_expect(!pfn, 0)) {
		fprintf(stderr, "no block of order %u\n", order);
		exit(1);
	}
	return pfn;
}

static inline void release(struct engine *e, pfn_t pfn, u32 order)
{
	e->st->op_count++;
	if (__builtin_expect(page_free_asked(e, pfn, order) != STATUS_OK, 0)) {
		fprintf(stderr, "block %u cannot be freed\n", pfn);
		exit(1);
	}
}

static double hot(u32 gfp, u32 order, unsigned n)
{
	struct engine *e = sim_engine(sim);
	double t[BENCH_ROUNDS];

	for (unsigned r = 0; r < BENCH_ROUNDS; r++) {
		double began = bench_cpu();

		for (unsigned i = 0; i < n; i++)
			release(e, allocate(e, gfp, order), order);
		t[r] = (bench_cpu() - began) / n;
	}
	return bench_median(t, BENCH_ROUNDS);
}

/* The same pair as two ops. */
static double hot_ops(u32 gfp, unsigned n)
{
	struct engine_op alloc = {.code = OP_ALLOC_PAGES, .owner = 1, .args = {gfp, 0}};
	struct engine_op free = {.code = OP_FREE_PAGES};
	struct engine_result res = {.data = data};
	struct engine *e = sim_engine(sim);
	double t[BENCH_ROUNDS];

	for (unsigned r = 0; r < BENCH_ROUNDS; r++) {
		double began = bench_cpu();

		for (unsigned i = 0; i < n; i++) {
			engine_forget_events(e);
			engine_execute(e, &alloc, &res);
			free.args[0] = res.values[0];
			engine_execute(e, &free, &res);
		}
		t[r] = (bench_cpu() - began) / n;
	}
	return bench_median(t, BENCH_ROUNDS);
}

struct bulk {
	double alloc, free;
	unsigned blocks;
};

static struct bulk bulk(u32 gfp, u32 order, unsigned blocks, bool shuffle)
{
	static pfn_t pfns[1 << 17];
	struct engine *e = sim_engine(sim);
	double ta[BENCH_ROUNDS], tf[BENCH_ROUNDS];
	uint32_t seed = 1;

	for (unsigned r = 0; r < BENCH_ROUNDS; r++) {
		double began = bench_cpu();

		for (unsigned i = 0; i < blocks; i++)
			pfns[i] = allocate(e, gfp, order);
		ta[r] = (bench_cpu() - began) / blocks;
		for (unsigned i = blocks - 1; shuffle && i > 0; i--) {
			unsigned j = bench_random(&seed) % (i + 1);
			pfn_t p = pfns[i];

			pfns[i] = pfns[j];
			pfns[j] = p;
		}
		began = bench_cpu();
		for (unsigned i = 0; i < blocks; i++)
			release(e, pfns[i], order);
		tf[r] = (bench_cpu() - began) / blocks;
	}
	return (struct bulk){bench_median(ta, BENCH_ROUNDS), bench_median(tf, BENCH_ROUNDS),
			     blocks};
}

/* Free and allocate at random over a fixed set of live blocks. */
static double live_set(u32 gfp, unsigned live, unsigned n)
{
	static pfn_t pfns[1 << 17];
	struct engine *e = sim_engine(sim);
	double t[BENCH_ROUNDS];
	uint32_t seed = 7;

	for (unsigned i = 0; i < live; i++)
		pfns[i] = allocate(e, gfp, 0);
	for (unsigned r = 0; r < BENCH_ROUNDS; r++) {
		double began = bench_cpu();

		for (unsigned i = 0; i < n; i++) {
			pfn_t *p = &pfns[bench_random(&seed) % live];

			release(e, *p, 0);
			*p = allocate(e, gfp, 0);
		}
		t[r] = (bench_cpu() - began) / n;
	}
	for (unsigned i = 0; i < live; i++)
		release(e, pfns[i], 0);
	return bench_median(t, BENCH_ROUNDS);
}

static double pairs(struct engine_op map, u32 unmap_code, u32 unmap_value, bool by_pfn, unsigned n)
{
	double t[BENCH_ROUNDS];

	for (unsigned r = 0; r < BENCH_ROUNDS; r++) {
		double began = bench_cpu();

		for (unsigned i = 0; i < n; i++) {
			u64 v = expect(map).values[unmap_value];

			expect((struct engine_op){.code = unmap_code,
						  .args = {by_pfn ? map.args[0] : v}});
		}
		t[r] = (bench_cpu() - began) / n;
	}
	return bench_median(t, BENCH_ROUNDS);
}

static double user_faults(unsigned pages)
{
	double t[BENCH_ROUNDS];
	u64 task = expect((struct engine_op){.code = OP_TASK_CREATE}).values[0];

	expect((struct engine_op){.code = OP_SCHEDULE, .args = {task}});
	for (unsigned r = 0; r < BENCH_ROUNDS; r++) {
		u64 at = expect((struct engine_op){.code = OP_MMAP,
						   .task = (u32)task,
						   .args = {0, (u64)pages * PAGE_SIZE,
							    UPROT_READ | UPROT_WRITE, 0, 0, 0}})
			     .values[0];
		double began = bench_cpu();

		for (unsigned i = 0; i < pages; i++)
			expect((struct engine_op){
			    .code = OP_FAULT,
			    .task = (u32)task,
			    .args = {at + (u64)i * PAGE_SIZE, FAULT_WRITE | FAULT_USER}});
		t[r] = (bench_cpu() - began) / pages;
		expect((struct engine_op){
		    .code = OP_MUNMAP, .task = (u32)task, .args = {at, (u64)pages * PAGE_SIZE}});
	}
	return bench_median(t, BENCH_ROUNDS);
}

static void start_cost(const char *name, const struct engine_config *config, const char *aim)
{
	struct engine_error why;
	double t[BENCH_ROUNDS];
	u64 resident = 0;

	for (unsigned r = 0; r < BENCH_ROUNDS; r++) {
		double began = bench_cpu();
		struct sim *s = sim_new(config, &(struct sim_hooks){0}, &why);

		if (!s) {
			fprintf(stderr, "%s\n", why.text);
			exit(1);
		}
		t[r] = (bench_cpu() - began) / 1e6;
		resident = sim_resident_bytes(s);
		sim_free(s);
	}
	printf("  %-34s %9.2f ms, then %llu KiB resident%s\n", name, bench_median(t, BENCH_ROUNDS),
	       (unsigned long long)resident >> 10, aim);
}

static void machine(const char *name, struct engine_config config)
{
	struct engine_error why;
	bool has_high;

	sim = sim_new(&config, &(struct sim_hooks){0}, &why);
	if (!sim) {
		fprintf(stderr, "%s: %s\n", name, why.text);
		exit(1);
	}
	struct engine_op high = {.code = OP_ALLOC_PAGES, .args = {GFP_HIGHUSER, 0}};
	struct engine_result page = execute(&high);

	has_high = page.values[1] == ZONE_HIGHMEM;
	u32 gfp = has_high ? GFP_HIGHUSER_MOVABLE : GFP_KERNEL;
	unsigned half = has_high ? 1u << 17 : 4096;

	if (config.ram == 1024ull << 20)
		half = 16384; /* half of its HIGHMEM */
	printf("\n%s: %u frames for bulk and random, from %s\n", name, half,
	       has_high ? "HIGHMEM" : "NORMAL");
	row_against("order 0, hot pair", "ns/pair", hot(gfp, 0, 1000000), llfree.hot,
		    "5 x LLFree-C");
	row("order 0, hot pair, as two ops", "ns/pair", hot_ops(gfp, 1000000));
	struct bulk b = bulk(gfp, 0, half, false);

	row_against("order 0, bulk allocate", "ns/op", b.alloc, llfree.bulk_allocate, "2.5 x");
	row_against("order 0, bulk free", "ns/op", b.free, llfree.bulk_free, "2.5 x");
	b = bulk(gfp, 0, half, true);
	row_against("order 0, allocate + random free", "ns/pair", b.alloc + b.free, llfree.random,
		    "2 x, stretch 2.5 x");
	row_against("order 0, random pair, all live", "ns/pair", live_set(gfp, half, 500000),
		    llfree.pair, "2 x, stretch 2.5 x");
	row_live(live_set(gfp, 8192, 500000));
	for (u32 order = 3; order <= 9; order += 3) {
		char what[40];
		unsigned blocks = half >> order < 16 ? 16 : half >> order;

		if (config.ram == 64ull << 20 && order == 9)
			blocks = 8;
		snprintf(what, sizeof what, "order %u, hot pair", order);
		row(what, "ns/pair", hot(gfp, order, 200000));
		b = bulk(gfp, order, blocks, false);
		snprintf(what, sizeof what, "order %u, bulk allocate", order);
		row(what, "ns/op", b.alloc);
		snprintf(what, sizeof what, "order %u, bulk free", order);
		row(what, "ns/op", b.free);
	}
	struct engine_op local = {.code = OP_KMAP_LOCAL, .args = {page.values[0]}};
	struct engine_op kmap = {.code = OP_KMAP, .args = {page.values[0]}};
	struct engine_op vmalloc = {.code = OP_VMALLOC, .args = {16 * PAGE_SIZE, 0}};

	row("kmap_local pair", "ns/pair", pairs(local, OP_KUNMAP_LOCAL, 0, false, 200000));
	row("kmap pair, already mapped", "ns/pair", pairs(kmap, OP_KUNMAP, 0, true, 200000));
	row("vmalloc 16 pages + vfree", "ns/pair", pairs(vmalloc, OP_VFREE, 0, false, 5000));
	row("user write fault", "ns/op", user_faults(2000));
	sim_free(sim);
}

int main(int argc, char **argv)
{
	struct engine_config whole = {.preset = PRESET_CLASSIC,
				      .flags = CONFIG_PAE,
				      .page_offset = 0x40000000,
				      .nr_e820 = 1,
				      .e820 = {{0, 64ull << 30, 1, 0}}};

	if (argc == 6) {
		llfree.hot = atof(argv[1]);
		llfree.bulk_allocate = atof(argv[2]);
		llfree.bulk_free = atof(argv[3]);
		llfree.random = atof(argv[4]);
		llfree.pair = atof(argv[5]);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("engine, detail all, one thread, medians of %d rounds\n", BENCH_ROUNDS);
	machine("64 MiB", (struct engine_config){.ram = 64ull << 20});
	machine("1 GiB", (struct engine_config){.ram = 1024ull << 20});
	machine("64 GiB, PAE, 1:3 split", whole);
	printf("\nstarting a machine\n");
	start_cost("64 GiB, PAE, no hole", &whole, "  (to reach: 5 ms)");
	start_cost("4 GiB, PAE", &(struct engine_config){.flags = CONFIG_PAE, .ram = 4096ull << 20},
		   "  (to reach: 2048)");
	start_cost("64 MiB", &(struct engine_config){.ram = 64ull << 20}, "");
	return 0;
}
