// SPDX-License-Identifier: MIT OR GPL-2.0
/*
 * exhaust.c - each kind of request until it fails: from which zone blocks come, how many in
 * a row, and the counters where that changes.
 */
#include "recorder.h"

#include <linux/delay.h>
#include <linux/sched.h>

#define QUIET	(__GFP_NOWARN | __GFP_NORETRY)
#define PATIENT (QUIET | __GFP_NOMEMALLOC)
#define URGENT	(__GFP_HIGH | __GFP_ATOMIC | QUIET)

static const struct {
	const char *name;
	gfp_t gfp;
	int order;
} requests[] = {
    {"HIGHUSER_MOVABLE noreclaim", __GFP_HIGHMEM | __GFP_MOVABLE | PATIENT, 0},
    {"HIGHUSER noreclaim", __GFP_HIGHMEM | PATIENT, 0},
    {"KERNEL noreclaim", PATIENT, 0},
    {"DMA noreclaim", __GFP_DMA | PATIENT, 0},
    {"HIGHUSER noreclaim order3", __GFP_HIGHMEM | PATIENT, 3},
    {"KERNEL noreclaim order4", PATIENT, 4},
    {"DMA noreclaim order5", __GFP_DMA | PATIENT, 5},
    {"__GFP_HIGH KERNEL", __GFP_HIGH | PATIENT, 0},
    {"GFP_ATOMIC-nokswapd (HIGH|ATOMIC)", URGENT, 0},
    {"HIGHMEM|HIGH|ATOMIC", __GFP_HIGHMEM | URGENT, 0},
    {"DMA|HIGH|ATOMIC", __GFP_DMA | URGENT, 0},
    /* Which of the flags does what. */
    {"HIGH", __GFP_HIGH | QUIET, 0},
    {"HIGHMEM|HIGH", __GFP_HIGHMEM | __GFP_HIGH | QUIET, 0},
    {"ATOMIC", __GFP_ATOMIC | QUIET, 0},
    {"HIGHMEM|ATOMIC", __GFP_HIGHMEM | __GFP_ATOMIC | QUIET, 0},
    {"HIGH|ATOMIC|NOMEMALLOC", __GFP_HIGH | __GFP_ATOMIC | PATIENT, 0},
    {"HIGH|ATOMIC order2", URGENT, 2},
    {"HIGHUSER_MOVABLE order9", __GFP_HIGHMEM | __GFP_MOVABLE | PATIENT, 9},
    {"RECLAIMABLE order1", __GFP_RECLAIMABLE | PATIENT, 1},
    {"MEMALLOC KERNEL", __GFP_MEMALLOC | QUIET, 0},
    {"MEMALLOC HIGHMEM", __GFP_HIGHMEM | __GFP_MEMALLOC | QUIET, 0},
};

/* Blocks in a row from one zone. */
struct run {
	int zone; /* -1: none, the request failed; -2: there was no request yet */
	unsigned long nr, first, last;
};

static void end_run(const char *name, const struct run *run)
{
	if (run->zone == -2)
		return;
	out("{\"t\":\"run\",\"name\":\"%s\",\"z\":%d,\"n\":%lu,\"first\":%lu,\"last\":%lu,", name,
	    run->zone, run->nr, run->first, run->last);
	out_counters("after_next");
	out("}\n");
}

static void give_back(struct list_head *held, int order)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, held, lru)
	{
		list_del(&page->lru);
		__free_pages(page, order);
	}
}

static void exhaust(const char *name, gfp_t gfp, int order)
{
	unsigned long flags, total = 0, per_zone[MAX_NR_ZONES] = {0};
	struct run run = {.zone = -2};
	LIST_HEAD(held);

	drain_lists();
	msleep(20);
	drain_lists();
	local_irq_save(flags);
	out("{\"t\":\"exh\",\"name\":\"%s\",\"gfp\":\"0x%x\",\"order\":%d,", name, (u32)gfp, order);
	out_counters("s");
	out("}\n");
	while (run.zone != -1) {
		struct page *page = alloc_pages(gfp, order);
		int zone = page ? page_zonenum(page) : -1;
		unsigned long pfn = page ? page_to_pfn(page) : 0;

		if (zone != run.zone) {
			end_run(name, &run);
			run = (struct run){.zone = zone, .first = pfn};
		}
		if (!page)
			break;
		run.nr++;
		run.last = pfn;
		total++;
		per_zone[zone]++;
		list_add(&page->lru, &held);
	}
	out("{\"t\":\"fail\",\"name\":\"%s\",\"total\":%lu,\"per\":[%lu,%lu,%lu,%lu],", name, total,
	    per_zone[0], per_zone[1], per_zone[2], per_zone[3]);
	out_counters("s");
	out("}\n");
	give_back(&held, order);
	out("{\"t\":\"freed\",\"name\":\"%s\",", name);
	out_counters("s");
	out("}\n");
	local_irq_restore(flags);
	cond_resched();
	msleep(20);
}

static void dump_now(const char *type)
{
	unsigned long flags;

	drain_lists();
	local_irq_save(flags);
	dump_zones(type, -1);
	local_irq_restore(flags);
}

void record_exhaustion(void)
{
	u32 i;

	dump_now("init");
	for (i = 0; i < ARRAY_SIZE(requests); i++)
		exhaust(requests[i].name, requests[i].gfp, requests[i].order);
	dump_now("end");
}
