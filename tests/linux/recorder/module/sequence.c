// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * sequence.c - requests and frees at random, with the state after each; and a state alone.
 *
 * All CPUs are stopped but for the one whose turn it is, so that nothing else touches the
 * allocator. With one CPU the same seed makes the same requests as ever.
 */
#include "recorder.h"

#include <linux/delay.h>
#include <linux/smp.h>
#include <linux/stop_machine.h>
#include <linux/vmalloc.h>

static const gfp_t all[] = {0, __GFP_HIGHMEM, __GFP_HIGHMEM | __GFP_MOVABLE, __GFP_RECLAIMABLE,
			    __GFP_DMA};
static const gfp_t norm[] = {0, 0, __GFP_RECLAIMABLE};
static const gfp_t mix[] = {0, __GFP_MOVABLE, __GFP_RECLAIMABLE};
static const gfp_t high[] = {__GFP_HIGHMEM, __GFP_HIGHMEM | __GFP_MOVABLE};
static const gfp_t dma[] = {__GFP_DMA, __GFP_DMA | __GFP_RECLAIMABLE, __GFP_DMA | __GFP_MOVABLE};
static const gfp_t kswapd[] = {__GFP_KSWAPD_RECLAIM, __GFP_KSWAPD_RECLAIM | __GFP_RECLAIMABLE,
			       __GFP_KSWAPD_RECLAIM | __GFP_HIGHMEM | __GFP_MOVABLE,
			       __GFP_KSWAPD_RECLAIM | __GFP_HIGH | __GFP_ATOMIC};

static const struct {
	const char *name;
	const gfp_t *gfps;
	u32 nr;
} sets[] = {
    {"all", all, ARRAY_SIZE(all)}, {"norm", norm, ARRAY_SIZE(norm)},
    {"mix", mix, ARRAY_SIZE(mix)}, {"high", high, ARRAY_SIZE(high)},
    {"dma", dma, ARRAY_SIZE(dma)}, {"kswapd", kswapd, ARRAY_SIZE(kswapd)},
};

struct block {
	struct page *page;
	int order;
};

struct sequence {
	struct block *held;
	u32 nr_held, failed;
	u32 op, nr_ops, dump_every;
	const gfp_t *gfps;
	u32 nr_gfps;
	int orders[MAX_ORDER];
	u32 nr_orders;
	int turn; /* the CPU whose turn it is; -1: it is over */
};

/* Which of the operations that follow is an allocation, by four phases of pressure. */
static bool allocates(const struct sequence *s)
{
	static const u32 percent[] = {78, 38, 82, 30};

	return !s->nr_held || random_next() % 100 < percent[s->op * 4 / s->nr_ops & 3];
}

static void out_op(const struct sequence *s, const char *what)
{
	out("{\"t\":\"op\",\"i\":%u,\"op\":\"%s\",", s->op, what);
	if (num_online_cpus() > 1)
		out("\"cpu\":%d,", raw_smp_processor_id());
}

static void allocate(struct sequence *s)
{
	int order = s->orders[random_next() % s->nr_orders];
	gfp_t gfp = s->gfps[random_next() % s->nr_gfps] | __GFP_NOWARN | __GFP_NORETRY;
	struct page *page;

	/* Small ones more often. */
	if (random_next() & 1)
		order = s->orders[random_next() % ((s->nr_orders + 1) / 2)];
	page = alloc_pages(gfp, order);
	if (page)
		s->held[s->nr_held++] = (struct block){page, order};
	else
		s->failed++;
	out_op(s, "alloc");
	out("\"gfp\":\"0x%x\",\"order\":%d,\"pfn\":%ld,\"z\":%d,", (u32)gfp, order,
	    page ? (long)page_to_pfn(page) : -1L, page ? page_zonenum(page) : -1);
}

static void free_one(struct sequence *s)
{
	u32 which = random_next() % s->nr_held;
	struct block block = s->held[which];

	s->held[which] = s->held[--s->nr_held];
	out_op(s, "free");
	out("\"order\":%d,\"pfn\":%lu,\"z\":%d,", block.order, page_to_pfn(block.page),
	    page_zonenum(block.page));
	__free_pages(block.page, block.order);
}

/* The next operation; false: all is done and given back. */
static bool step(struct sequence *s)
{
	bool over = s->op >= s->nr_ops;

	if (s->op == s->nr_ops)
		out("{\"t\":\"freeall\",\"live\":%u,\"nomem\":%u}\n", s->nr_held, s->failed);
	if (over && !s->nr_held) {
		dump_zones("end", s->op);
		return false;
	}
	if (!over && allocates(s))
		allocate(s);
	else
		free_one(s);
	out_changes();
	out("}\n");
	s->op++;
	if (s->op <= s->nr_ops && s->dump_every && s->op % s->dump_every == 0)
		dump_zones("dump", s->op - 1);
	return true;
}

static int next_turn(void)
{
	u32 nr = num_online_cpus();

	return nr > 1 ? random_next() % nr : 0;
}

/* On every CPU, with interrupts off. */
static int take_turns(void *data)
{
	struct sequence *s = data;
	int self = raw_smp_processor_id(), turn;

	while ((turn = smp_load_acquire(&s->turn)) >= 0) {
		if (turn == self)
			smp_store_release(&s->turn, step(s) ? next_turn() : -1);
		else
			cpu_relax();
	}
	return 0;
}

static int dump_alone(void *data)
{
	dump_zones(data, -1);
	return 0;
}

/* With all CPUs stopped: CPU 0, whose turn is first, tells the state they begin in. */
static int play(void *data)
{
	struct sequence *s = data;

	if (!raw_smp_processor_id())
		dump_zones("init", -1);
	return take_turns(s);
}

void record_sequence(u32 seed, u32 nr_ops, u32 orders, const char *requests, u32 dump_every)
{
	struct sequence s = {.nr_ops = nr_ops, .dump_every = dump_every, .turn = 0};
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sets); i++)
		if (!strcmp(requests, sets[i].name)) {
			s.gfps = sets[i].gfps;
			s.nr_gfps = sets[i].nr;
		}
	for (i = 0; i < MAX_ORDER; i++)
		if (orders & 1u << i)
			s.orders[s.nr_orders++] = i;
	s.held = vzalloc(sizeof(*s.held) * (nr_ops + 1));
	if (!s.held || !s.nr_gfps || !s.nr_orders || !nr_ops)
		goto end;
	random_seed(seed);
	out("{\"t\":\"seq\",\"seed\":%u,\"nops\":%u,\"omask\":%u,\"gset\":\"%s\"}\n", seed, nr_ops,
	    orders, requests);
	drain_lists();
	msleep(50);
	drain_lists();
	stop_machine(play, &s, cpu_online_mask);
	drain_lists();
	stop_machine(dump_alone, "enddrained", NULL);
end:
	vfree(s.held);
}

/* ---- a state in the middle of a trace ---- */

u64 trace_clock_local(void);

static int stamp_state(void *data)
{
	u64 before = trace_clock_local();

	out("{\"t\":\"stamp\",\"ns0\":%llu}\n", before);
	dump_zones("state", -1);
	out("{\"t\":\"stamp\",\"ns0\":%llu,\"ns1\":%llu}\n", before, trace_clock_local());
	return 0;
}

void record_state(void)
{
	stop_machine(stamp_state, NULL, NULL);
}
