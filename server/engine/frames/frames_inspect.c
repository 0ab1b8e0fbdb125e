/*
 * frames_inspect.c - the allocator as /proc shows it, and its exact state.
 *
 * The text is Linux 6.1's, byte for byte where the machine has what a line tells;
 * counters of what this machine does not have are left out (meminfo) or 0 (the node
 * counters of zoneinfo, whose names tools look for). Nothing is written, and the
 * frontier's descriptors are not even read.
 */
#include "../event.h"
#include "../text.h"
#include "../wings.h"
#include "buddy.h"
#include "marks.h"
#include "page_alloc.h"
#include "zone_access.h"

enum { PAGE_KIB = PAGE_SIZE / 1024, NR_STATES = FRAME_HOST + 1 };

static const char *const zone_word[NR_ZONES] = {"DMA", "Normal", "HighMem", "Movable"};
static const char *const type_word[NR_MIGRATETYPES] = {"Unmovable", "Movable", "Reclaimable",
						       "HighAtomic", "Isolate"};

/* Pages of the machine by state. */
static void count_states(struct engine *e, u32 pages[NR_STATES])
{
	struct frame_run run;

	for (u32 i = 0; i < NR_STATES; i++)
		pages[i] = 0;
	for (pfn_t pfn = 0; pfn < e->st->layout.max_pfn; pfn += run.count) {
		frame_describe(e, pfn, &run);
		pages[run.state] += run.count;
	}
}

/* ---- zoneinfo ---- */

/* Which state a counter counts; 0 for what this machine has none of (nobody counts
 * free frames here). */
struct counter {
	const char *name;
	u32 state;
};

static const struct counter node_counters[] = {
    {"nr_inactive_anon", 0},
    {"nr_active_anon", FRAME_ANONYMOUS},
    {"nr_inactive_file", 0},
    {"nr_active_file", FRAME_PAGE_CACHE},
    {"nr_unevictable", 0},
    {"nr_slab_reclaimable", 0},
    {"nr_slab_unreclaimable", FRAME_SLAB},
    {"nr_isolated_anon", 0},
    {"nr_isolated_file", 0},
    {"workingset_nodes", 0},
    {"workingset_refault_anon", 0},
    {"workingset_refault_file", 0},
    {"workingset_activate_anon", 0},
    {"workingset_activate_file", 0},
    {"workingset_restore_anon", 0},
    {"workingset_restore_file", 0},
    {"workingset_nodereclaim", 0},
    {"nr_anon_pages", FRAME_ANONYMOUS},
    {"nr_mapped", 0},
    {"nr_file_pages", FRAME_PAGE_CACHE},
    {"nr_dirty", 0},
    {"nr_writeback", 0},
    {"nr_writeback_temp", 0},
    {"nr_shmem", 0},
    {"nr_shmem_hugepages", 0},
    {"nr_shmem_pmdmapped", 0},
    {"nr_file_hugepages", 0},
    {"nr_file_pmdmapped", 0},
    {"nr_anon_transparent_hugepages", 0},
    {"nr_vmscan_write", 0},
    {"nr_vmscan_immediate_reclaim", 0},
    {"nr_dirtied", 0},
    {"nr_written", 0},
    {"nr_throttled_written", 0},
    {"nr_kernel_misc_reclaimable", 0},
    {"nr_foll_pin_acquired", 0},
    {"nr_foll_pin_released", 0},
    {"nr_kernel_stack", 0},
    {"nr_page_table_pages", FRAME_PAGE_TABLE},
    {"nr_sec_page_table_pages", 0},
    {"nr_swapcached", 0},
};

/* After nr_free_pages. */
static const char *const zone_counters[] = {
    "nr_zone_inactive_anon",
    "nr_zone_active_anon",
    "nr_zone_inactive_file",
    "nr_zone_active_file",
    "nr_zone_unevictable",
    "nr_zone_write_pending",
    "nr_mlock",
    "nr_bounce",
    "nr_zspages",
    "nr_free_cma",
};

static void say_node_counters(struct engine *e, struct inspect_sink *sink)
{
	u32 pages[NR_STATES];

	count_states(e, pages);
	say(sink, "\n  per-node stats");
	for (u32 i = 0; i < sizeof node_counters / sizeof node_counters[0]; i++)
		say(sink, "\n      %-12s %u", node_counters[i].name,
		    node_counters[i].state ? pages[node_counters[i].state] : 0);
}

static u32 seen_free(const struct zone *z)
{
	return z->free > 0 ? (u32)z->free : 0;
}

static void say_zone(struct engine *e, u32 zone, struct inspect_sink *sink)
{
	const struct zone *z = &e->st->frames.zone[zone];

	say(sink,
	    "\n  pages free     %u\n        boost    %u\n        min      %u\n        low      %u"
	    "\n        high     %u\n        spanned  %u\n        present  %u\n        managed  %u"
	    "\n        cma      0\n        protection: (%u, %u, %u, %u)",
	    seen_free(z), z->boost, z->mark[MARK_MIN] + z->boost, z->mark[MARK_LOW] + z->boost,
	    z->mark[MARK_HIGH] + z->boost, zone_spanned(z), z->present, z->managed, z->reserve[0],
	    z->reserve[1], z->reserve[2], z->reserve[3]);
	if (!z->managed) {
		say(sink, "\n");
		return;
	}
	say(sink, "\n      %-12s %u", "nr_free_pages", seen_free(z));
	for (u32 i = 0; i < sizeof zone_counters / sizeof zone_counters[0]; i++)
		say(sink, "\n      %-12s 0", zone_counters[i]);
	say(sink, "\n  pagesets");
	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		say(sink,
		    "\n    cpu: %u\n              count: %u\n              high:  %u"
		    "\n              batch: %u\n  vm stats threshold: %u",
		    cpu, z->pcp[cpu].count, z->pcp_high, z->pcp_batch, z->stat_threshold);
	say(sink, "\n  node_unreclaimable:  0\n  start_pfn:           %u\n", z->start);
}

u32 inspect_zoneinfo(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	u32 first_populated = (u32)__builtin_ctz(e->st->frames.populated);

	(void)args;
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		const struct zone *z = &e->st->frames.zone[zone];

		say(sink, "Node 0, zone %8s", zone_word[zone]);
		if (zone == first_populated && sink->want_text)
			say_node_counters(e, sink);
		say_zone(e, zone, sink);
		ROW(sink, ROW_ZONEINFO_ZONES, zone, z->start, zone_spanned(z), z->present,
		    z->managed, zone_free_pages(e, zone), zone_pcp_pages(e, zone),
		    z->mark[MARK_MIN] + z->boost, z->mark[MARK_LOW] + z->boost,
		    z->mark[MARK_HIGH] + z->boost, z->boost, z->highatomic, z->reserve[0],
		    z->reserve[1], z->reserve[2], z->reserve[3], z->stat_threshold);
		for (u32 cpu = 0; z->managed && cpu < e->st->layout.cpus; cpu++)
			ROW(sink, ROW_ZONEINFO_PCPS, zone, cpu, z->pcp[cpu].count, z->pcp_high,
			    z->pcp_batch);
	}
	return STATUS_OK;
}

/* ---- buddyinfo, pagetypeinfo ---- */

static u32 blocks_of_order(const struct zone *z, u32 order)
{
	u32 blocks = 0;

	for (u32 type = 0; type < NR_MIGRATETYPES; type++)
		blocks += buddy_count(z, order, type);
	return blocks;
}

/* Linux's fragmentation_index(): 0 is lack of memory, 1000 is fragmentation. */
static s32 fragmentation_index(const struct zone *z, u32 order)
{
	u32 blocks = 0, suitable = 0;
	u64 pages = 0;

	for (u32 o = 0; o <= MAX_ORDER; o++) {
		u32 nr = blocks_of_order(z, o);

		blocks += nr;
		pages += (u64)nr << o;
		suitable += o >= order ? nr : 0;
	}
	if (!blocks)
		return 0;
	if (suitable)
		return -1000;
	return 1000 - (s32)div64(1000 + (pages * 1000 >> order), blocks);
}

u32 inspect_buddyinfo(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	(void)args;
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		const struct zone *z = &e->st->frames.zone[zone];

		if (!z->managed)
			continue;
		say(sink, "Node 0, zone %8s ", zone_word[zone]);
		for (u32 order = 0; order <= MAX_ORDER; order++) {
			say(sink, "%6u ", blocks_of_order(z, order));
			ROW(sink, ROW_BUDDYINFO_BLOCKS, zone, order, blocks_of_order(z, order),
			    (u32)fragmentation_index(z, order));
		}
		say(sink, "\n");
	}
	return STATUS_OK;
}

static void show_free_by_type(struct engine *e, struct inspect_sink *sink)
{
	say(sink, "%-43s ", "Free pages count per migrate type at order");
	for (u32 order = 0; order <= MAX_ORDER; order++)
		say(sink, "%6u ", order);
	say(sink, "\n");
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		const struct zone *z = &e->st->frames.zone[zone];

		for (u32 type = 0; z->managed && type < NR_MIGRATETYPES; type++) {
			say(sink, "Node %4u, zone %8s, type %12s ", 0u, zone_word[zone],
			    type_word[type]);
			for (u32 order = 0; order <= MAX_ORDER; order++) {
				say(sink, "%6u ", buddy_count(z, order, type));
				ROW(sink, ROW_PAGETYPEINFO_FREE, zone, type, order,
				    buddy_count(z, order, type));
			}
			say(sink, "\n");
		}
	}
}

/* Linux counts in steps of a pageblock from the zone's first frame on, even where
 * that is in the middle of one. */
static void show_pageblocks(struct engine *e, u32 zone, struct inspect_sink *sink)
{
	const struct zone *z = &e->st->frames.zone[zone];
	u32 step = pages_of_order(e->st->layout.pageblock_order), nr[NR_MIGRATETYPES] = {0};

	for (pfn_t pfn = z->start; pfn < z->end; pfn += step)
		nr[pageblock_type(e, zone, pfn)]++;
	say(sink, "Node %u, zone %8s ", 0u, zone_word[zone]);
	for (u32 type = 0; type < NR_MIGRATETYPES; type++) {
		say(sink, "%12u ", nr[type]);
		ROW(sink, ROW_PAGETYPEINFO_PAGEBLOCKS, zone, type, nr[type]);
	}
	say(sink, "\n");
}

u32 inspect_pagetypeinfo(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	u32 order = e->st->layout.pageblock_order;

	(void)args;
	say(sink, "Page block order: %u\nPages per block:  %u\n\n", order, pages_of_order(order));
	show_free_by_type(e, sink);
	say(sink, "\n%-23s", "Number of blocks type ");
	for (u32 type = 0; type < NR_MIGRATETYPES; type++)
		say(sink, "%12s ", type_word[type]);
	say(sink, "\n");
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		if (e->st->frames.zone[zone].managed)
			show_pageblocks(e, zone, sink);
	}
	return STATUS_OK;
}

/* ---- meminfo ---- */

static void say_kib(struct inspect_sink *sink, const char *name, u32 pages)
{
	say(sink, "%-16s%8llu kB\n", name, (unsigned long long)pages * PAGE_KIB);
}

u32 inspect_meminfo(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	const struct layout *l = &e->st->layout;
	u32 total[2] = {0}, free[2] = {0}, pages[NR_STATES]; /* of lowmem, of HIGHMEM */
	u32 mem_map = pages_of((u64)l->max_pfn * sizeof(struct page));
	u32 window = (l->vmalloc_end - l->vmalloc_start) >> PAGE_SHIFT;
	u32 used = e->st->map.vmap.used_pages;

	(void)args;
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		const struct zone *z = &e->st->frames.zone[zone];
		bool high = z->start >= l->low_end_pfn;

		total[high] += z->managed;
		free[high] += zone_free_pages(e, zone);
	}
	count_states(e, pages);
	say_kib(sink, "MemTotal:", total[0] + total[1]);
	say_kib(sink, "MemFree:", free[0] + free[1]);
	say_kib(sink, "Cached:", pages[FRAME_PAGE_CACHE]);
	say_kib(sink, "HighTotal:", total[1]);
	say_kib(sink, "HighFree:", free[1]);
	say_kib(sink, "LowTotal:", total[0]);
	say_kib(sink, "LowFree:", free[0]);
	say_kib(sink, "AnonPages:", pages[FRAME_ANONYMOUS]);
	say_kib(sink, "Slab:", pages[FRAME_SLAB]);
	say_kib(sink, "PageTables:", pages[FRAME_PAGE_TABLE]);
	say_kib(sink, "Bounce:", pages[FRAME_BOUNCE]);
	say_kib(sink, "VmallocTotal:", window);
	say_kib(sink, "VmallocUsed:", used);
	say_kib(sink, "MemMap:", mem_map);
	ROW(sink, ROW_MEMINFO_TOTALS, (u64)(total[0] + total[1]) * PAGE_KIB,
	    (u64)(free[0] + free[1]) * PAGE_KIB, (u64)total[1] * PAGE_KIB, (u64)free[1] * PAGE_KIB,
	    (u64)total[0] * PAGE_KIB, (u64)free[0] * PAGE_KIB, (u64)window * PAGE_KIB,
	    (u64)used * PAGE_KIB, (u64)pages[FRAME_PAGE_TABLE] * PAGE_KIB, (u64)mem_map * PAGE_KIB,
	    (u64)pages[FRAME_ANONYMOUS] * PAGE_KIB, (u64)pages[FRAME_PAGE_CACHE] * PAGE_KIB);
	return STATUS_OK;
}

/* ---- the frames' map ---- */

static const char *const state_word[NR_STATES] = {
    [FRAME_FREE] = "free",
    [FRAME_PCP] = "pcp",
    [FRAME_ALLOCATED] = "allocated",
    [FRAME_RESERVED] = "reserved",
    [FRAME_HOLE] = "hole",
    [FRAME_METADATA] = "metadata",
    [FRAME_PAGE_TABLE] = "page-table",
    [FRAME_SLAB] = "slab",
    [FRAME_ANONYMOUS] = "anonymous",
    [FRAME_PAGE_CACHE] = "page-cache",
    [FRAME_VMALLOC] = "vmalloc",
    [FRAME_BOUNCE] = "bounce",
    [FRAME_HOST] = "host",
};

static void show_run(struct engine *e, const struct frame_run *r, struct inspect_sink *sink)
{
	u32 type = pageblock_type(e, r->zone, r->first);

	if (!r->count)
		return;
	say(sink, "%8u %8u %8s %-10s order %2u owner %u\n", r->first, r->count, zone_word[r->zone],
	    state_word[r->state], r->order, r->owner);
	ROW(sink, ROW_FRAME_MAP_RUNS, r->first, r->count, r->zone, r->state, r->order, r->owner,
	    type);
}

static bool runs_alike(struct engine *e, const struct frame_run *a, const struct frame_run *b,
		       bool blocks)
{
	if (a->zone != b->zone || a->state != b->state || a->owner != b->owner)
		return false;
	return !blocks || (a->order == b->order && pageblock_type(e, a->zone, a->first) ==
						       pageblock_type(e, b->zone, b->first));
}

u32 inspect_frame_map(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	u32 max = e->st->layout.max_pfn, grain = (u32)args[2];
	bool blocks = args[3];
	pfn_t pfn = (pfn_t)args[0], end;
	struct frame_run shown = {0}, run;

	if (args[0] >= max)
		return STATUS_INVALID;
	end = args[1] && args[1] < max - pfn ? pfn + (pfn_t)args[1] : max;
	for (; pfn < end; pfn += run.count) {
		frame_describe(e, pfn, &run);
		run.count = run.count > end - pfn ? end - pfn : run.count;
		/* A run below the grain joins the one before it, whatever it is. */
		if (shown.count && (runs_alike(e, &run, &shown, blocks) || run.count < grain)) {
			shown.count += run.count;
			continue;
		}
		show_run(e, &shown, sink);
		shown = run;
	}
	show_run(e, &shown, sink);
	return STATUS_OK;
}

/* ---- the exact state, in the recordings' form ---- */

#define FNV_START 14695981039346656037ULL
#define FNV_PRIME 1099511628211ULL
#define LIST_MARK 0x80000000u /* begins a list, with its number */

static u64 fnv(u64 hash, u32 word)
{
	for (u32 i = 0; i < 4; i++)
		hash = (hash ^ (word >> 8 * i & 0xff)) * FNV_PRIME;
	return hash;
}

static u64 hash_list(struct engine *e, const struct pfn_list *l, u64 hash)
{
	for (pfn_t pfn = l->first; pfn; pfn = e->mem_map[pfn].next)
		hash = fnv(hash, pfn);
	return hash;
}

static u64 hash_free_lists(struct engine *e, const struct zone *z)
{
	u64 hash = FNV_START;

	for (u32 o = 0; o <= MAX_ORDER; o++) {
		for (u32 type = 0; type < NR_MIGRATETYPES; type++) {
			hash = fnv(hash, LIST_MARK | o << 8 | type);
			hash = hash_list(e, &z->free_list[o][type], hash);
			if (o < MAX_ORDER || type != MIGRATE_MOVABLE)
				continue;
			for (u32 i = 0; i < z->frontier.blocks; i++)
				hash = fnv(hash, frontier_block(z, i));
		}
	}
	return hash;
}

static u64 hash_pcp_lists(struct engine *e, const struct pcp *pcp)
{
	u64 hash = FNV_START;

	for (u32 i = 0; i < NR_PCP_LISTS; i++)
		hash = hash_list(e, &pcp->list[i], fnv(hash, LIST_MARK | i));
	return hash;
}

static u32 pageblocks_of(const struct engine *e, const struct zone *z)
{
	u32 order = e->st->layout.pageblock_order;

	return ((z->end - 1) >> order) - (z->start >> order) + 1;
}

static u32 type_of_pageblock(struct engine *e, u32 zone, u32 number)
{
	u32 order = e->st->layout.pageblock_order;

	return pageblock_type(e, zone,
			      ((e->st->frames.zone[zone].start >> order) + number) << order);
}

static u64 hash_pageblocks(struct engine *e, u32 zone)
{
	u32 nr = pageblocks_of(e, &e->st->frames.zone[zone]);
	u64 hash = FNV_START;

	for (u32 i = 0; i < nr; i++)
		hash = fnv(hash, type_of_pageblock(e, zone, i));
	return hash;
}

/* "[1,2,3]"; a list's own entries, then the frontier's first `frontier` blocks. */
static void say_list(struct engine *e, const struct zone *z, const struct pfn_list *l, u32 frontier,
		     struct inspect_sink *sink)
{
	const char *comma = "";

	say(sink, "[");
	for (pfn_t pfn = l->first; pfn; pfn = e->mem_map[pfn].next, comma = ",")
		say(sink, "%s%u", comma, pfn);
	for (u32 i = 0; i < frontier; i++, comma = ",")
		say(sink, "%s%u", comma, frontier_block(z, i));
	say(sink, "]");
}

static void say_pcp(struct engine *e, const struct zone *z, u32 cpu, struct inspect_sink *sink)
{
	const struct pcp *pcp = &z->pcp[cpu];

	say(sink, "{\"count\":%u,\"high\":%u,\"batch\":%u,\"free_factor\":%u,\"lists\":[",
	    pcp->count, z->pcp_high, z->pcp_batch, pcp->free_factor);
	for (u32 i = 0; i < NR_PCP_LISTS; i++) {
		say(sink, i ? "," : "");
		say_list(e, z, &pcp->list[i], 0, sink);
	}
	say(sink, "]}");
}

static void say_free_lists(struct engine *e, const struct zone *z, struct inspect_sink *sink)
{
	say(sink, ",\"free\":[");
	for (u32 o = 0; o <= MAX_ORDER; o++) {
		say(sink, o ? ",[" : "[");
		for (u32 type = 0; type < NR_MIGRATETYPES; type++) {
			bool has_frontier = o == MAX_ORDER && type == MIGRATE_MOVABLE;

			say(sink, type ? "," : "");
			say_list(e, z, &z->free_list[o][type],
				 has_frontier ? z->frontier.blocks : 0, sink);
		}
		say(sink, "]");
	}
	say(sink, "],\"nr_free_o\":[");
	for (u32 o = 0; o <= MAX_ORDER; o++)
		say(sink, "%s%u", o ? "," : "", blocks_of_order(z, o));
	say(sink, "]");
}

static void say_state(struct engine *e, u32 zone, const u64 hashes[2], struct inspect_sink *sink)
{
	const struct zone *z = &e->st->frames.zone[zone];
	u32 nr = pageblocks_of(e, z);

	say(sink, "{\"t\":\"dump\",\"op\":%llu,\"z\":%u,\"name\":\"%s\",\"start\":%u,",
	    (unsigned long long)e->st->op_count, zone, zone_word[zone], z->start);
	say(sink, "\"spanned\":%u,\"present\":%u,\"managed\":%u,\"wmark\":[%u,%u,%u],",
	    zone_spanned(z), z->present, z->managed, z->mark[MARK_MIN], z->mark[MARK_LOW],
	    z->mark[MARK_HIGH]);
	say(sink, "\"boost\":%u,\"highatomic\":%u,\"reserve\":[%u,%u,%u,%u],", z->boost,
	    z->highatomic, z->reserve[0], z->reserve[1], z->reserve[2], z->reserve[3]);
	say(sink, "\"nr_free\":%d,\"nr_free_diff\":%d,\"pcp\":", z->free, z->pcp[0].free_diff);
	say_pcp(e, z, 0, sink);
	say_free_lists(e, z, sink);
	say(sink, ",\"pb\":\"");
	for (u32 i = 0; i < nr; i++)
		say(sink, "%u", type_of_pageblock(e, zone, i));
	say(sink, "\",\"zh\":\"%016llx\",\"ph\":\"%016llx\",\"bh\":\"%016llx\"",
	    (unsigned long long)hashes[0], (unsigned long long)hash_pcp_lists(e, &z->pcp[0]),
	    (unsigned long long)hashes[1]);
	/* Recordings of one CPU end here; what more there are comes behind. */
	for (u32 cpu = 1; cpu < e->st->layout.cpus; cpu++) {
		say(sink, ",\"pcp%u\":", cpu);
		say_pcp(e, z, cpu, sink);
		say(sink, ",\"nr_free_diff%u\":%d", cpu, z->pcp[cpu].free_diff);
	}
	say(sink, "}\n");
}

u32 inspect_state(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	u32 cpu = (u32)args[0];

	if (cpu >= e->st->layout.cpus)
		return STATUS_INVALID;
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		const struct zone *z = &e->st->frames.zone[zone];
		const struct pcp *pcp = &z->pcp[cpu];
		u64 hashes[2];

		if (!z->managed)
			continue;
		hashes[0] = hash_free_lists(e, z);
		hashes[1] = hash_pageblocks(e, zone);
		if (sink->want_text)
			say_state(e, zone, hashes, sink);
		ROW(sink, ROW_STATE_ZONES, zone, hashes[0], hash_pcp_lists(e, pcp), hashes[1],
		    (u32)z->free, z->boost, z->highatomic, (u32)pcp->free_diff, pcp->count,
		    pcp->free_factor);
	}
	return STATUS_OK;
}
