/*
 * test_frames.c - zones, buddy, per-CPU lists, marks: units, and properties from a
 * seed. What Linux does op by op is in tests/linux; here is what no recording shows.
 */
#include "effort.h"
#include "fixture.h"
#include "frames/buddy.h"
#include "frames/load_state.h"
#include "frames/page_alloc.h"
#include "frames/slab.h"
#include "frames/zone_access.h"

enum { MAX_BLOCKS = 1 << 15 };

/* 256 MiB, of which 96 are HIGHMEM: three zones on a small machine. */
static struct engine_config three_zones(void)
{
	return (struct engine_config){.preset = PRESET_LINUX_6_1,
				      .flags = CONFIG_PAE,
				      .ram = MIB_BYTES(256),
				      .highmem = MIB_BYTES(96)};
}

static pfn_t allocate(struct machine *m, u32 gfp, u32 order)
{
	return machine_op(m, OP_ALLOC_PAGES, gfp, order) == STATUS_OK ? (pfn_t)m->res.values[0] : 0;
}

static u32 release(struct machine *m, pfn_t pfn, u32 order)
{
	return machine_op(m, OP_FREE_PAGES, pfn, order);
}

static const struct engine_event *find_event(const struct machine *m, u32 kind)
{
	for (u32 i = 0; i < m->nr_events; i++) {
		if (m->events[i].kind == kind)
			return &m->events[i];
	}
	return NULL;
}

/* ---- the state inspection, kept ---- */

struct kept {
	struct inspect_sink sink;
	u64 row[NR_ZONES][ROW_STATE_ZONES_N];
	u32 nr;
	char *text;
	size_t length;
};

static void keep_row(struct inspect_sink *sink, u32 type, const u64 *values, u32 nr)
{
	struct kept *k = (struct kept *)sink;

	(void)type;
	memcpy(k->row[k->nr++], values, nr * sizeof *values);
}

static void keep_text(struct inspect_sink *sink, const char *bytes, u32 length)
{
	struct kept *k = (struct kept *)sink;

	k->text = realloc(k->text, k->length + length + 1);
	assert_non_null(k->text);
	memcpy(k->text + k->length, bytes, length);
	k->length += length;
	k->text[k->length] = 0;
}

static struct kept state_rows(struct machine *m)
{
	struct kept k = {.sink = {.row = keep_row, .want_rows = true}};
	const u64 args[OP_ARGS] = {0};

	assert_int_equal(engine_inspect(m->e, INSPECT_STATE, args, &k.sink), STATUS_OK);
	return k;
}

static char *inspected(struct machine *m, u32 question)
{
	struct kept k = {.sink = {.text = keep_text, .want_text = true}};
	const u64 args[OP_ARGS] = {0};

	assert_int_equal(engine_inspect(m->e, question, args, &k.sink), STATUS_OK);
	return k.text;
}

/* ---- boot: lists against a boot that frees every page ---- */

/* A buddy allocator of the plainest kind: arrays, no laziness. */
struct plain {
	pfn_t start, end;
	s32 *order; /* of a free head, else -1 */
	pfn_t *list[NR_ORDERS];
	u32 nr[NR_ORDERS];
};

static bool plain_is_free(const struct plain *p, pfn_t pfn, u32 order)
{
	return pfn >= p->start && pfn < p->end && p->order[pfn] == (s32)order;
}

static void plain_remove(struct plain *p, pfn_t pfn, u32 order)
{
	u32 i = 0;

	while (p->list[order][i] != pfn)
		i++;
	memmove(&p->list[order][i], &p->list[order][i + 1], (--p->nr[order] - i) * sizeof(pfn_t));
	p->order[pfn] = -1;
}

static void plain_free(struct plain *p, pfn_t pfn, u32 order, bool to_tail)
{
	for (; order < MAX_ORDER && plain_is_free(p, pfn ^ (1u << order), order); order++) {
		plain_remove(p, pfn ^ (1u << order), order);
		pfn &= ~(1u << order);
	}
	if (!to_tail && order < MAX_ORDER - 1)
		to_tail = plain_is_free(p, (pfn & ~(1u << order)) ^ (2u << order), order + 1);
	if (!to_tail)
		memmove(&p->list[order][1], &p->list[order][0], p->nr[order] * sizeof(pfn_t));
	p->list[order][to_tail ? p->nr[order] : 0] = pfn;
	p->nr[order]++;
	p->order[pfn] = (s32)order;
}

static void plain_boot(struct plain *p, struct machine *m, bool highmem)
{
	u64 cursor = (u64)p->start << PAGE_SHIFT;
	struct engine_range r;

	while (memblock_next_free(m->e, &cursor, &r)) {
		pfn_t pfn = (pfn_t)((r.start + PAGE_SIZE - 1) >> PAGE_SHIFT);
		pfn_t end = (pfn_t)((r.start + r.size) >> PAGE_SHIFT);

		pfn = pfn < p->start ? p->start : pfn;
		end = end > p->end ? p->end : end;
		while (pfn < end) {
			u32 order = 0;

			while (!highmem && order < MAX_ORDER && !(pfn & (1u << order)) &&
			       pfn + (2u << order) <= end)
				order++;
			plain_free(p, pfn, order, !highmem);
			pfn += 1u << order;
		}
	}
}

/* The engine's list of an order, all types in order of type. Types split a plain list
 * but do not reorder it. */
static void compare_with_plain(struct machine *m, u32 zone, const struct plain *p, u32 order)
{
	const struct zone *z = &m->e->st->frames.zone[zone];
	u32 seen = 0, at[NR_MIGRATETYPES] = {0};

	for (u32 type = 0; type < NR_MIGRATETYPES; type++) {
		pfn_t pfn = z->free_list[order][type].first;
		u32 frontier = 0;

		for (;; seen++) {
			if (!pfn && order == MAX_ORDER && type == MIGRATE_MOVABLE)
				pfn = frontier_block(z, frontier++);
			if (!pfn)
				break;
			while (at[type] < p->nr[order] && p->list[order][at[type]] != pfn)
				at[type]++;
			if (at[type] == p->nr[order])
				fail_msg("zone %u, order %u, type %u: block %u out of order", zone,
					 order, type, pfn);
			pfn = frontier ? 0 : m->e->mem_map[pfn].next;
		}
	}
	assert_int_equal(seen, p->nr[order]);
}

static void check_boot_lists(const struct engine_config *config)
{
	struct machine *m = machine_new(config);
	u32 max = m->e->st->layout.max_pfn;

	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		const struct zone *z = &m->e->st->frames.zone[zone];
		struct plain p = {z->start, z->end, calloc(max, sizeof(s32)), {0}, {0}};

		for (u32 o = 0; o <= MAX_ORDER; o++)
			p.list[o] = calloc(max / 2 + 2, sizeof(pfn_t));
		memset(p.order, 0xff, max * sizeof(s32));
		plain_boot(&p, m, z->start >= m->e->st->layout.low_end_pfn);
		for (u32 o = 0; o <= MAX_ORDER; o++) {
			compare_with_plain(m, zone, &p, o);
			free(p.list[o]);
		}
		free(p.order);
	}
	machine_free(m);
}

static void test_boot_lists(void **state)
{
	struct engine_config config = three_zones();
	struct random r = random_seeded(20260101);

	(void)state;
	check_boot_lists(&config);
	/* Holes in all zones; and so many that the frontier has no room for them. */
	for (u32 round = 0; round < 12; round++) {
		config = three_zones();
		config.nr_reserved = round == 0 ? 0 : round < 6 ? 5 : ENGINE_MAX_RESERVED;
		for (u32 i = 0; i < config.nr_reserved; i++)
			config.reserved[i] =
			    (struct engine_range){MIB_BYTES(24) + random_below(&r, MIB_BYTES(228)),
						  1 + random_below(&r, MIB_BYTES(1) / 8)};
		/* Keep a place for the metadata whole. */
		for (u32 i = 0; i < config.nr_reserved; i++) {
			if (config.reserved[i].start > MIB_BYTES(130) &&
			    config.reserved[i].start < MIB_BYTES(160))
				config.reserved[i].start -= MIB_BYTES(40);
		}
		check_boot_lists(&config);
	}
}

/* ---- the frontier is not to be seen ---- */

static void check_lazy_is_eager(const struct engine_config *config, u64 seed)
{
	struct machine *lazy = machine_new(config), *eager = machine_new(config);
	static const u32 gfps[] = {GFP_KERNEL, GFP_HIGHUSER_MOVABLE, GFP_HIGHUSER,
				   GFP_ATOMIC, __GFP_RECLAIMABLE,    __GFP_MOVABLE,
				   GFP_DMA};
	struct random r = random_seeded(seed);
	struct block {
		pfn_t pfn;
		u32 order;
	} live[4096];
	u32 nr = 0;

	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		frontier_materialise(eager->e, zone);
		assert_int_equal(eager->e->st->frames.zone[zone].frontier.blocks, 0);
	}
	assert_true(lazy->e->st->frames.zone[ZONE_HIGHMEM].frontier.blocks > 10);
	lazy->unchecked = eager->unchecked = true;
	for (u32 i = 0; i < 6000; i++) {
		struct kept a, b;

		if (nr && (nr == 4096 || random_below(&r, 100) < (i / 1000 % 2 ? 60 : 35))) {
			u32 k = (u32)random_below(&r, nr);

			assert_int_equal(release(lazy, live[k].pfn, live[k].order), STATUS_OK);
			assert_int_equal(release(eager, live[k].pfn, live[k].order), STATUS_OK);
			live[k] = live[--nr];
		} else {
			u32 gfp = gfps[random_below(&r, 7)], order = (u32)random_below(&r, 11);
			pfn_t pfn = allocate(lazy, gfp, order);

			assert_int_equal(allocate(eager, gfp, order), pfn);
			if (pfn)
				live[nr++] = (struct block){pfn, order};
		}
		a = state_rows(lazy);
		b = state_rows(eager);
		assert_memory_equal(a.row, b.row, sizeof a.row);
		if (i % 500 == 0) {
			machine_check(lazy);
			machine_check(eager);
		}
	}
	machine_free(lazy);
	machine_free(eager);
}

static void test_lazy_is_eager(void **state)
{
	static const u32 holes_mib[] = {40, 61, 90, 180, 201, 230};
	struct engine_config config = three_zones();

	(void)state;
	check_lazy_is_eager(&config, 20260102);
	/* Several ranges in each zone: the frontier gives them in the list's order. */
	config.nr_reserved = sizeof holes_mib / sizeof holes_mib[0];
	for (u32 i = 0; i < config.nr_reserved; i++)
		config.reserved[i] = (struct engine_range){MIB_BYTES(holes_mib[i]), 4096};
	check_lazy_is_eager(&config, 20260106);
}

/* ---- split, merge, events ---- */

static void test_split_and_merge(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	const struct engine_event *event;
	struct kept before = state_rows(m), after;
	pfn_t pfn;

	(void)state;
	m->owner = 7;
	machine_forget_events(m);
	/* Order 4 has no per-CPU list: straight from the buddy, and straight back. */
	pfn = allocate(m, GFP_KERNEL, 4);
	assert_int_not_equal(pfn, 0);
	assert_int_equal(m->res.values[1], ZONE_NORMAL);
	assert_int_equal(m->e->mem_map[pfn].owner, 7);
	assert_int_equal(m->e->mem_map[pfn].op, m->res.op);
	event = find_event(m, EVENT_SPLIT);
	assert_non_null(event);
	assert_int_equal(event->w[0], pfn);
	assert_int_equal(event->w[2], 4);
	event = find_event(m, EVENT_ALLOC);
	assert_non_null(event);
	assert_int_equal(event->w[0], pfn);
	assert_int_equal(event->w[2], GFP_KERNEL);
	machine_forget_events(m);
	assert_int_equal(release(m, pfn, 4), STATUS_OK);
	assert_int_not_equal(machine_count_events(m, EVENT_FREE), 0);
	assert_int_not_equal(machine_count_events(m, EVENT_MERGE), 0);
	after = state_rows(m);
	assert_int_equal(before.row[ZONE_NORMAL][4], after.row[ZONE_NORMAL][4]);
	machine_free(m);
}

/* A hot pair makes two events and no more. */
static void test_hot_pair_events(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);

	(void)state;
	assert_int_equal(release(m, allocate(m, GFP_HIGHUSER_MOVABLE, 0), 0), STATUS_OK);
	machine_forget_events(m);
	assert_int_equal(release(m, allocate(m, GFP_HIGHUSER_MOVABLE, 0), 0), STATUS_OK);
	assert_int_equal(m->nr_events, 2);
	assert_int_equal(m->events[0].kind, EVENT_ALLOC);
	assert_int_equal(m->events[1].kind, EVENT_FREE);
	machine_free(m);
}

/* ---- illegal frees ---- */

static void test_illegal_frees(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	const struct layout *l = &m->e->st->layout;
	pfn_t one = allocate(m, GFP_KERNEL, 0), four = allocate(m, GFP_KERNEL, 2);
	pfn_t frontier = frontier_block(&m->e->st->frames.zone[ZONE_NORMAL], 0);
	struct kept before = state_rows(m), after;

	(void)state;
	assert_int_equal(release(m, four, 0), STATUS_WRONG_ORDER);
	assert_int_equal(release(m, four, 1), STATUS_WRONG_ORDER);
	assert_int_equal(release(m, four + 1, 0), STATUS_WRONG_ORDER);
	assert_int_equal(release(m, four + 2, 1), STATUS_WRONG_ORDER);
	assert_int_equal(release(m, four + 1, 1), STATUS_INVALID);
	assert_int_equal(release(m, l->max_pfn, 0), STATUS_INVALID);
	assert_int_equal(release(m, 0xffffff, 0), STATUS_INVALID);
	assert_int_equal(release(m, 0, 0), STATUS_RESERVED);
	assert_int_equal(release(m, 16, 0), STATUS_RESERVED);
	assert_int_equal(release(m, 0xa0, 0), STATUS_RESERVED); /* the PC's hole */
	assert_int_equal(release(m, l->metadata_start, 0), STATUS_RESERVED);
	assert_int_equal(release(m, l->metadata_start & ~3u, 2), STATUS_RESERVED);
	assert_int_equal(release(m, HOST_WINDOW_PADDR >> PAGE_SHIFT, 4), STATUS_RESERVED);
	/* Free: in a block never yet taken, inside it, and among the small ones. */
	assert_int_equal(release(m, frontier, 0), STATUS_DOUBLE_FREE);
	assert_int_equal(release(m, frontier + 513, 0), STATUS_DOUBLE_FREE);
	assert_int_equal(release(m, frontier, MAX_ORDER), STATUS_DOUBLE_FREE);
	after = state_rows(m);
	assert_memory_equal(before.row, after.row, sizeof before.row);

	/* Twice: on the per-CPU list, then merged into a larger block. */
	assert_int_equal(release(m, one, 0), STATUS_OK);
	assert_int_equal(release(m, one, 0), STATUS_DOUBLE_FREE);
	assert_int_equal(release(m, four, 2), STATUS_OK);
	assert_int_equal(machine_op(m, OP_DRAIN_PCP, 1), STATUS_OK);
	assert_int_equal(release(m, one, 0), STATUS_DOUBLE_FREE);
	assert_int_equal(release(m, four, 2), STATUS_DOUBLE_FREE);

	/* In use. */
	one = allocate(m, GFP_KERNEL, 0);
	assert_int_equal(machine_op(m, OP_SET_FIXMAP, 1, (u64)one << PAGE_SHIFT, UPROT_READ),
			 STATUS_OK);
	assert_int_equal(release(m, one, 0), STATUS_BUSY);
	assert_int_equal(machine_op(m, OP_CLEAR_FIXMAP, 1), STATUS_OK);
	assert_int_equal(release(m, one, 0), STATUS_OK);
	machine_free(m);
}

static void test_illegal_gfps(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);

	(void)state;
	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, __GFP_DMA | __GFP_HIGHMEM, 0),
			 STATUS_INVALID);
	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, __GFP_MOVABLE | __GFP_RECLAIMABLE, 0),
			 STATUS_INVALID);
	assert_int_equal(machine_op(m, OP_ALLOC_PAGES, GFP_KERNEL, MAX_ORDER + 1), STATUS_INVALID);
	assert_int_equal(page_alloc(m->e, __GFP_DMA | __GFP_HIGHMEM, 0), 0);
	machine_free(m);
}

/* ---- fallback ---- */

/* Allocates until it fails; counts by zone. */
static u32 exhaust(struct machine *m, u32 gfp, u32 got[NR_ZONES])
{
	u32 last = NR_ZONES, turns = 0;

	memset(got, 0, NR_ZONES * sizeof *got);
	m->unchecked = true;
	while (allocate(m, gfp, 0)) {
		u32 zone = (u32)m->res.values[1];

		got[zone]++;
		turns += zone != last;
		last = zone;
	}
	m->unchecked = false;
	assert_int_equal(m->res.status, STATUS_NO_MEMORY);
	machine_check(m);
	return turns;
}

static void test_fallback(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	const struct engine_event *event;
	u32 got[NR_ZONES];

	(void)state;
	machine_forget_events(m);
	/* HIGHMEM, NORMAL, DMA down to LOW, then the three again down to MIN. */
	assert_int_equal(exhaust(m, GFP_HIGHUSER, got), 6);
	assert_true(got[ZONE_HIGHMEM] > 20000 && got[ZONE_NORMAL] > 10000 && got[ZONE_DMA] > 1000);
	event = find_event(m, EVENT_ZONE_FALLBACK);
	assert_non_null(event);
	assert_int_equal(event->w[0], ZONE_HIGHMEM);
	assert_int_equal(event->w[1], ZONE_NORMAL);
	assert_int_equal(event->w[2], FALLBACK_MARK);
	assert_int_equal(machine_count_events(m, EVENT_ALLOC_FAILED), 1);
	/* What is kept back from HIGHMEM's users is there for the kernel's. */
	assert_true(allocate(m, GFP_KERNEL, 0));
	machine_free(m);
}

static void test_never_upwards(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	u32 got[NR_ZONES], high = zone_free_pages(m->e, ZONE_HIGHMEM);

	(void)state;
	exhaust(m, GFP_KERNEL, got);
	assert_int_equal(got[ZONE_HIGHMEM], 0);
	assert_int_equal(zone_free_pages(m->e, ZONE_HIGHMEM), high);
	exhaust(m, GFP_DMA, got);
	assert_int_equal(got[ZONE_NORMAL] + got[ZONE_HIGHMEM], 0);
	machine_free(m);
}

static void test_user_policy(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m;
	u32 got[NR_ZONES];

	(void)state;
	config.user_fallback = USER_FALLBACK_HIGHMEM_ONLY;
	m = machine_new(&config);
	exhaust(m, GFP_HIGHUSER_MOVABLE, got);
	assert_true(got[ZONE_HIGHMEM] > 20000);
	assert_int_equal(got[ZONE_NORMAL] + got[ZONE_DMA], 0);
	/* The kernel's own use of HIGHMEM is not the user's. */
	assert_true(allocate(m, GFP_KERNEL | __GFP_HIGHMEM, 0));
	assert_int_equal(m->res.values[1], ZONE_NORMAL);
	assert_int_equal(machine_op(m, OP_SET_POLICY, USER_FALLBACK_NO_DMA), STATUS_OK);
	exhaust(m, GFP_HIGHUSER_MOVABLE, got);
	assert_true(got[ZONE_NORMAL] > 10000);
	assert_int_equal(got[ZONE_DMA], 0);
	assert_int_equal(machine_op(m, OP_SET_POLICY, USER_FALLBACK_ANY), STATUS_OK);
	exhaust(m, GFP_HIGHUSER_MOVABLE, got);
	assert_true(got[ZONE_DMA] > 1000);
	machine_free(m);
}

static void test_nofail_empties_the_zones(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	u32 got[NR_ZONES];

	(void)state;
	exhaust(m, GFP_KERNEL | __GFP_NOFAIL, got);
	assert_int_equal(zone_free_pages(m->e, ZONE_NORMAL) + zone_pcp_pages(m->e, ZONE_NORMAL), 0);
	assert_int_equal(zone_free_pages(m->e, ZONE_DMA) + zone_pcp_pages(m->e, ZONE_DMA), 0);
	assert_true(zone_free_pages(m->e, ZONE_HIGHMEM) > 20000);
	machine_free(m);
}

/* ---- marks, boost, per-CPU lists ---- */

static void test_sysctls(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	const struct zone *normal = &m->e->st->frames.zone[ZONE_NORMAL];
	u32 low = normal->mark[MARK_LOW], dma_reserve, values[3] = {8192};
	struct engine_op op = {.code = OP_SET_SYSCTL,
			       .args = {SYSCTL_MIN_FREE_KBYTES},
			       .data = (const u8 *)values,
			       .data_len = 4};

	(void)state;
	machine_forget_events(m);
	assert_int_equal(machine_run(m, &op), STATUS_OK);
	assert_int_not_equal(machine_count_events(m, EVENT_MARKS), 0);
	/* 2048 pages, shared by DMA and NORMAL by their size. */
	assert_in_range(normal->mark[MARK_MIN] + m->e->st->frames.zone[ZONE_DMA].mark[MARK_MIN],
			2046, 2048);
	assert_true(normal->mark[MARK_LOW] > low);
	op.args[0] = SYSCTL_WATERMARK_SCALE_FACTOR;
	values[0] = 3001;
	assert_int_equal(machine_run(m, &op), STATUS_INVALID);
	values[0] = 1000;
	assert_int_equal(machine_run(m, &op), STATUS_OK);
	assert_int_equal(normal->mark[MARK_LOW] - normal->mark[MARK_MIN], normal->managed / 10);
	op.args[0] = SYSCTL_PERCPU_PAGELIST_HIGH_FRACTION;
	values[0] = 7;
	assert_int_equal(machine_run(m, &op), STATUS_INVALID);
	values[0] = 8;
	assert_int_equal(machine_run(m, &op), STATUS_OK);
	assert_int_equal(normal->pcp_high, normal->managed / 8);
	op.args[0] = SYSCTL_LOWMEM_RESERVE_RATIO;
	assert_int_equal(machine_run(m, &op), STATUS_INVALID); /* one value, not three */
	dma_reserve = m->e->st->frames.zone[ZONE_DMA].reserve[ZONE_NORMAL];
	memcpy(values, (u32[]){128, 0, 0}, sizeof values);
	op.data_len = 12;
	assert_int_equal(machine_run(m, &op), STATUS_OK);
	assert_in_range(m->e->st->frames.zone[ZONE_DMA].reserve[ZONE_NORMAL], dma_reserve * 2,
			dma_reserve * 2 + 1);
	assert_int_equal(normal->reserve[ZONE_HIGHMEM], 0);
	machine_free(m);
}

static void test_boost_and_unboost(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	const struct zone *z = &m->e->st->frames.zone[ZONE_NORMAL];
	u32 block = 1u << m->e->st->layout.pageblock_order, low, nr = 0;
	static pfn_t blocks[4096];

	(void)state;
	m->unchecked = true;
	/* NORMAL full of movable blocks, every other one freed: an unmovable request must
	 * break into a pageblock. */
	while (nr < 4096 && (blocks[nr] = allocate(m, __GFP_MOVABLE, 4)))
		nr++;
	for (u32 i = 0; i < nr; i += 2)
		release(m, blocks[i], 4);
	machine_forget_events(m);
	assert_int_equal(z->boost, 0);
	while (!z->boost && allocate(m, GFP_NOWAIT, 4))
		;
	machine_check(m);
	assert_int_equal(z->boost, block);
	assert_int_not_equal(machine_count_events(m, EVENT_STEAL), 0);
	assert_int_not_equal(machine_count_events(m, EVENT_BOOST), 0);
	low = z->mark[MARK_LOW];
	assert_int_equal(machine_op(m, OP_UNBOOST_ZONE, ZONE_NORMAL), STATUS_OK);
	assert_int_equal(m->res.values[0], block);
	assert_int_equal(z->boost, 0);
	assert_int_equal(z->mark[MARK_LOW], low);
	machine_free(m);
}

/* How far down NORMAL a request may go, by what its flags entitle it to. */
static void check_depth(u32 gfp, u32 (*share)(u32 min))
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	const struct zone *z = &m->e->st->frames.zone[ZONE_NORMAL];
	u32 got[NR_ZONES], none = 0, bottom = share(z->mark[MARK_MIN]);

	machine_run(m, &(struct engine_op){.code = OP_SET_SYSCTL,
					   .args = {SYSCTL_WATERMARK_BOOST_FACTOR},
					   .data = (const u8 *)&none,
					   .data_len = 4});
	exhaust(m, gfp, got);
	/* The last refill may reach below. */
	if (z->free > (s32)bottom || z->free + (s32)z->pcp_batch <= (s32)bottom)
		fail_msg("gfp 0x%x leaves NORMAL at %d, not at %u", gfp, z->free, bottom);
	machine_free(m);
}

static u32 all_of(u32 min)
{
	return min;
}

static u32 half_of(u32 min)
{
	return min - min / 2;
}

static u32 three_eighths_of(u32 min)
{
	return half_of(min) - half_of(min) / 4;
}

static void test_depth_by_flags(void **state)
{
	(void)state;
	check_depth(GFP_KERNEL, all_of);
	check_depth(GFP_NOWAIT, all_of);
	check_depth(GFP_KERNEL | __GFP_HIGH, half_of);
	check_depth(GFP_ATOMIC | __GFP_NOMEMALLOC, half_of);
	check_depth(GFP_ATOMIC, three_eighths_of);
}

/* Fills NORMAL with order-0 blocks, frees 64 frames of one pageblock, and lets an
 * unmovable request steal them. Returns the pageblock's type after that. */
static u32 steal_from(u32 gfp, u32 state_of_rest)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	const struct zone *z = &m->e->st->frames.zone[ZONE_NORMAL];
	pfn_t block = (z->start + (z->end - z->start) / 4) & ~511u;
	u32 got[NR_ZONES], type;

	exhaust(m, gfp | GFP_KERNEL | __GFP_MEMALLOC, got);
	assert_int_equal(zone_free_pages(m->e, ZONE_NORMAL), 0);
	m->unchecked = true;
	for (u32 i = 0; i < 64; i++)
		assert_int_equal(release(m, block + i, 0), STATUS_OK);
	/* Frames of users, without their tables: the audit would say so. */
	for (u32 i = 64; i < 512; i++)
		page_set_state(&m->e->mem_map[block + i], state_of_rest);
	assert_int_equal(machine_op(m, OP_DRAIN_PCP, 1), STATUS_OK);
	machine_forget_events(m);
	assert_true(allocate(m, GFP_KERNEL | __GFP_MEMALLOC, 4));
	assert_int_equal(machine_count_events(m, EVENT_STEAL), 1);
	type = pageblock_type(m->e, ZONE_NORMAL, block);
	machine_free(m);
	return type;
}

/* A pageblock is claimed when half of it is free or of the request's kind. */
static void test_stealing_a_pageblock(void **state)
{
	(void)state;
	assert_int_equal(steal_from(__GFP_MOVABLE, FRAME_ALLOCATED), MIGRATE_UNMOVABLE);
	assert_int_equal(steal_from(__GFP_MOVABLE, FRAME_ANONYMOUS), MIGRATE_MOVABLE);
	assert_int_equal(steal_from(__GFP_RECLAIMABLE, FRAME_ALLOCATED), MIGRATE_RECLAIMABLE);
}

static void test_per_cpu_lists(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m;
	const struct zone *z;
	pfn_t a, b;

	(void)state;
	config.cpus = 2;
	m = machine_new(&config);
	z = &m->e->st->frames.zone[ZONE_NORMAL];
	assert_int_equal(machine_op_on(m, 0, 0, OP_ALLOC_PAGES, GFP_KERNEL, 0), STATUS_OK);
	a = (pfn_t)m->res.values[0];
	assert_int_equal(z->pcp[0].count, z->pcp_batch - 1);
	assert_int_equal(z->pcp[1].count, 0);
	/* Freed on the other CPU, it is the next that this one gives. */
	assert_int_equal(machine_op_on(m, 1, 0, OP_FREE_PAGES, a, 0), STATUS_OK);
	assert_int_equal(z->pcp[1].count, 1);
	assert_int_equal(machine_op_on(m, 1, 0, OP_ALLOC_PAGES, GFP_KERNEL, 0), STATUS_OK);
	b = (pfn_t)m->res.values[0];
	/* Its list is its pageblock's, not that of the request that had it. */
	if (pageblock_type(m->e, ZONE_NORMAL, a) == MIGRATE_UNMOVABLE)
		assert_int_equal(a, b);
	assert_int_equal(machine_op_on(m, 1, 0, OP_DRAIN_PCP, 0), STATUS_OK);
	assert_int_equal(z->pcp[1].count, 0);
	assert_int_not_equal(z->pcp[0].count, 0);
	assert_int_equal(machine_op_on(m, 1, 0, OP_DRAIN_PCP, 1), STATUS_OK);
	assert_int_equal(m->res.values[0], z->pcp_batch - 1);
	assert_int_equal(z->pcp[0].count, 0);
	machine_free(m);
}

/* What is remembered of marks and policies is what they are: the audit sees each that has
 * changed behind the allocator's back. */
static void test_remembered_ways(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	struct frames_state *f = &m->e->st->frames;
	struct zone *z = &f->zone[ZONE_NORMAL];
	u32 *said[] = {&z->mark[MARK_LOW], &z->reserve[ZONE_HIGHMEM], &f->user_zones,
		       &f->lowest_class,   &f->mobility_off,	      &f->populated};

	(void)state;
	for (u32 i = 0; i < sizeof said / sizeof said[0]; i++) {
		struct engine_error why;
		u32 truth = *said[i];

		*said[i] ^= 1;
		assert_non_null(engine_check(m->e, &why));
		*said[i] = truth;
		machine_check(m);
	}
	machine_free(m);
}

static void test_zero_and_poison(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	u8 bytes[PAGE_SIZE], want[PAGE_SIZE];
	pfn_t pfn, again;

	(void)state;
	assert_int_equal(machine_op(m, OP_SET_POLICY, 0, TOGGLE_ON), STATUS_OK);
	for (u32 gfp = 0; gfp <= __GFP_HIGHMEM; gfp += __GFP_HIGHMEM) {
		pfn = allocate(m, GFP_KERNEL | gfp, 1);
		assert_int_equal(release(m, pfn, 1), STATUS_OK);
		memset(want, 0xaa, sizeof want);
		sim_read_physical(m->sim, (u64)(pfn + 1) << PAGE_SHIFT, bytes, sizeof bytes);
		assert_memory_equal(bytes, want, sizeof bytes);
		again = allocate(m, GFP_KERNEL | gfp | __GFP_ZERO, 1);
		memset(want, 0, sizeof want);
		for (u32 i = 0; i < 2; i++) {
			sim_read_physical(m->sim, (u64)(again + i) << PAGE_SHIFT, bytes,
					  sizeof bytes);
			assert_memory_equal(bytes, want, sizeof bytes);
		}
	}
	machine_free(m);
}

/* ---- LoadState ---- */

static u32 load(struct machine *m, const u32 *words, u32 nr, bool last)
{
	return machine_run(m, &(struct engine_op){.code = OP_LOAD_STATE,
						  .args = {last},
						  .data = (const u8 *)words,
						  .data_len = nr * 4});
}

#define LOAD_HEAD(kind, zone, n) ((kind) | (zone) << 8 | (u32)(n) << 16)

/* A zone with one free block, in the machine's own measures. */
static u32 one_block(const struct zone *z, u32 zone, pfn_t pfn, u32 order, u32 *words)
{
	const u32 all[] = {
	    LOAD_HEAD(LOAD_ZONE, zone, LOAD_ZONE_WORDS),
	    z->start,
	    z->end - z->start,
	    z->present,
	    z->present,
	    10,
	    20,
	    30,
	    0,
	    0,
	    0,
	    0,
	    0,
	    0,
	    1u << order,
	    LOAD_HEAD(LOAD_FREE, zone, 2),
	    order << 8 | MIGRATE_MOVABLE,
	    pfn,
	    LOAD_HEAD(LOAD_PCP, zone, LOAD_PCP_WORDS),
	    0,
	    0,
	    8,
	    1,
	    0,
	    0,
	};

	memcpy(words, all, sizeof all);
	return sizeof all / sizeof all[0];
}

static void test_load_state(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	struct zone zones[NR_ZONES];
	struct kept fresh = state_rows(m), now;
	size_t map_bytes = m->e->st->layout.max_pfn * sizeof(struct page);
	void *map = malloc(map_bytes);
	u32 words[256], nr = 0, junk[] = {LOAD_HEAD(LOAD_FREE, ZONE_NORMAL, 2), 0, 5000};
	pfn_t block = 8192;

	(void)state;
	memcpy(zones, m->e->st->frames.zone, sizeof zones);
	assert_non_null(map);
	memcpy(map, m->e->mem_map, map_bytes);
	/* Refused: the machine is as it was, and still fresh. */
	assert_int_equal(load(m, junk, 3, false), STATUS_INVALID);
	now = state_rows(m);
	assert_memory_equal(fresh.row, now.row, sizeof fresh.row);
	for (u32 zone = 0; zone <= ZONE_HIGHMEM; zone++)
		nr += one_block(&zones[zone], zone,
				zone == ZONE_DMA      ? 2048
				: zone == ZONE_NORMAL ? block
						      : 57344,
				10, words + nr);
	/* Overlapping the metadata. */
	words[nr / 3 + 17] = m->e->st->layout.metadata_start & ~1023u;
	assert_int_equal(load(m, words, nr, true), STATUS_INVALID);
	/* A count that its lists do not bear out. */
	words[nr / 3 + 17] = block;
	words[nr / 3 + 14]++;
	assert_int_equal(load(m, words, nr, true), STATUS_INVALID);
	words[nr / 3 + 14]--;
	/* Free blocks where boot has none, and not all zones. */
	u32 frames[5 + LOAD_ZONE_WORDS];

	memcpy(frames, words, (1 + LOAD_ZONE_WORDS) * 4);
	memcpy(frames + 1 + LOAD_ZONE_WORDS,
	       ((u32[]){LOAD_HEAD(LOAD_FREE, ZONE_DMA, 3), MIGRATE_MOVABLE, 2051, 2053}), 16);
	assert_int_equal(load(m, frames, 5 + LOAD_ZONE_WORDS, true), STATUS_INVALID);
	now = state_rows(m);
	assert_memory_equal(fresh.row, now.row, sizeof fresh.row);
	/* To the byte. */
	assert_memory_equal(zones, m->e->st->frames.zone, sizeof zones);
	assert_memory_equal(map, m->e->mem_map, map_bytes);
	free(map);

	/* Taken, in two ops; nothing else may come between. */
	assert_int_equal(load(m, words, nr / 3, false), STATUS_OK);
	assert_int_equal(machine_op(m, OP_DRAIN_PCP, 1), STATUS_BUSY);
	assert_int_equal(load(m, words + nr / 3, nr - nr / 3, true), STATUS_OK);
	assert_int_equal(m->res.values[0], 3 * 1024);
	assert_int_equal(load(m, words, nr, true), STATUS_INVALID); /* no longer fresh */

	/* Allocated by nobody known: may be freed, once. */
	assert_int_equal(release(m, block + 2048, 3), STATUS_OK);
	assert_int_equal(release(m, block + 2048, 3), STATUS_DOUBLE_FREE);
	assert_int_equal(release(m, m->e->st->layout.metadata_start, 0), STATUS_RESERVED);
	assert_true(allocate(m, GFP_KERNEL, 0));

	/* Page tables come from the reserve: the lists do not change. */
	now = state_rows(m);
	assert_int_equal(machine_op(m, OP_TASK_CREATE), STATUS_OK);
	fresh = state_rows(m);
	assert_memory_equal(fresh.row, now.row, sizeof fresh.row);
	machine_free(m);
}

/* ---- small objects ---- */

static void test_slab(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	struct random r = random_seeded(20260103);
	u32 size = m->e->st->slab.cache[SLAB_DMA].object_size, nr = 0;
	struct engine_error why;
	ref_t live[400];

	(void)state;
	assert_int_not_equal(size, 0);
	/* Beside an op, so that frames have an owner. */
	assert_true(allocate(m, GFP_KERNEL, 0));
	for (u32 i = 0; i < 4000; i++) {
		if (nr && (nr == 400 || random_below(&r, 100) < (i / 500 % 2 ? 75 : 25))) {
			u32 k = (u32)random_below(&r, nr);

			slab_free(m->e, SLAB_DMA, live[k]);
			live[k] = live[--nr];
		} else {
			u8 *object;

			live[nr] = slab_alloc(m->e, SLAB_DMA);
			assert_int_not_equal(live[nr], 0);
			object = at(m->e, live[nr++]);
			for (u32 b = 0; b < size; b++)
				assert_int_equal(object[b], 0);
			memset(object, 0x5a, size);
		}
		engine_forget_events(m->e);
		if (i % 16 == 0 && engine_check(m->e, &why))
			fail_msg("%s", why.text);
	}
	while (nr)
		slab_free(m->e, SLAB_DMA, live[--nr]);
	assert_int_equal(m->e->st->slab.cache[SLAB_DMA].nr_frames, 0);
	engine_forget_events(m->e);
	machine_check(m);
	machine_free(m);
}

/* ---- inspections ---- */

/* A text with each run of digits as one #, and each run of blanks as one. */
static void mask(char *text)
{
	char *to = text;

	for (const char *from = text; *from; from++) {
		bool digit = *from >= '0' && *from <= '9';

		if (digit && to > text && to[-1] == '#')
			continue;
		if (*from == ' ' && to > text && to[-1] == ' ')
			continue;
		*to++ = digit ? '#' : *from;
	}
	*to = 0;
}

static char *read_file(const char *path)
{
	FILE *f = fopen(path, "r");
	char *text = calloc(1, 65536);

	assert_non_null(text);
	if (!f || fread(text, 1, 65535, f) == 0)
		fail_msg("%s cannot be read", path);
	fclose(f);
	return text;
}

/* Line for line what a real one of the same three zones prints, but for numbers. */
static void test_zoneinfo_text(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	char *want = read_file(SOURCE_DIR "/tests/linux/boots/686-pae-2G-mem1G/zoneinfo");
	char *got = inspected(m, INSPECT_ZONEINFO);

	(void)state;
	mask(want);
	mask(got);
	assert_string_equal(got, want);
	free(want);
	free(got);
	machine_free(m);
}

static void test_buddyinfo_text(void **state)
{
	struct engine_config config = {
	    .preset = PRESET_LINUX_6_1, .flags = CONFIG_PAE, .ram = MIB_BYTES(64)};
	struct machine *m = machine_new(&config);
	char *buddy = inspected(m, INSPECT_BUDDYINFO), *types = inspected(m, INSPECT_PAGETYPEINFO);

	(void)state;
	/* The first 16 MiB are the same everywhere: 1 MiB kept, then 256 + 512 + 3 x 1024,
	 * and the first pageblock never marked MOVABLE. */
	assert_non_null(strstr(buddy,
			       "Node 0, zone      DMA      0      0      0      0      0      "
			       "0      0      0      1      1      3 \n"));
	assert_non_null(strstr(types,
			       "Page block order: 9\nPages per block:  512\n\nFree pages count "
			       "per migrate type at order       0      1 "));
	assert_non_null(strstr(types,
			       "Node    0, zone      DMA, type    Unmovable      0      0      "
			       "0      0      0      0      0      0      1      0      0 \n"));
	assert_non_null(strstr(types,
			       "\n\nNumber of blocks type     Unmovable      Movable  "
			       "Reclaimable   HighAtomic      Isolate \nNode 0, zone      DMA    "
			       "        1            7            0            0            0 \n"));
	free(buddy);
	free(types);
	machine_free(m);
}

struct runs {
	struct inspect_sink sink;
	u32 next, nr, pages[FRAME_HOST + 1];
	u32 free[MAX_ORDER + 1]; /* pages, by order */
};

static void add_run(struct inspect_sink *sink, u32 type, const u64 *v, u32 nr)
{
	struct runs *r = (struct runs *)sink;

	(void)type, (void)nr;
	assert_int_equal(v[0], r->next);
	r->next += (u32)v[1];
	r->pages[v[3]] += (u32)v[1];
	if (v[3] == FRAME_FREE)
		r->free[v[4]] += (u32)v[1];
	r->nr++;
}

/* Runs cover every frame once, and their sums are the counters'. */
static void test_frame_map(void **state)
{
	struct engine_config config = three_zones();
	struct machine *m = machine_new(&config);
	struct runs exact = {.sink = {.row = add_run, .want_rows = true}}, coarse = exact,
		    blocks = exact;
	u64 args[OP_ARGS] = {0};
	u32 free_pages = 0, pcp = 0;

	(void)state;
	for (u32 i = 0; i < 50; i++)
		allocate(m, i % 2 ? GFP_KERNEL : GFP_HIGHUSER, i % 5);
	assert_int_equal(engine_inspect(m->e, INSPECT_FRAME_MAP, args, &exact.sink), STATUS_OK);
	assert_int_equal(exact.next, m->e->st->layout.max_pfn);
	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		free_pages += zone_free_pages(m->e, zone);
		pcp += zone_pcp_pages(m->e, zone);
	}
	assert_int_equal(exact.pages[FRAME_FREE], free_pages);
	assert_int_equal(exact.pages[FRAME_PCP], pcp);
	args[2] = 1024;
	assert_int_equal(engine_inspect(m->e, INSPECT_FRAME_MAP, args, &coarse.sink), STATUS_OK);
	assert_int_equal(coarse.next, exact.next);
	assert_true(coarse.nr < exact.nr);
	args[2] = 0;
	args[3] = 1;
	assert_int_equal(engine_inspect(m->e, INSPECT_FRAME_MAP, args, &blocks.sink), STATUS_OK);
	assert_int_equal(blocks.next, exact.next);
	assert_true(blocks.nr > exact.nr);
	for (u32 order = 0; order <= MAX_ORDER; order++) {
		u32 nr = 0;

		for (u32 zone = 0; zone < NR_ZONES; zone++)
			for (u32 type = 0; type < NR_MIGRATETYPES; type++)
				nr += buddy_count(&m->e->st->frames.zone[zone], order, type);
		assert_int_equal(blocks.free[order], nr << order);
	}
	args[0] = m->e->st->layout.max_pfn;
	assert_int_equal(engine_inspect(m->e, INSPECT_FRAME_MAP, args, &exact.sink),
			 STATUS_INVALID);
	machine_free(m);
}

/* ---- anything, at random ---- */

struct live {
	pfn_t pfn;
	u32 order;
};

struct world {
	struct machine *m;
	struct random r;
	u8 *used; /* by frame: in a live block */
	struct live live[MAX_BLOCKS];
	u32 nr, pages;
};

static void world_alloc(struct world *w)
{
	static const u32 gfps[] = {GFP_KERNEL,
				   GFP_HIGHUSER_MOVABLE,
				   GFP_HIGHUSER,
				   GFP_ATOMIC,
				   GFP_NOWAIT | __GFP_RECLAIMABLE,
				   GFP_USER,
				   GFP_DMA,
				   GFP_KERNEL | __GFP_MEMALLOC,
				   GFP_ATOMIC | __GFP_HIGHMEM,
				   GFP_KERNEL | __GFP_NOFAIL};
	u32 gfp = gfps[random_below(&w->r, sizeof gfps / sizeof gfps[0])];
	u32 order =
	    (u32)(random_below(&w->r, 3) ? random_below(&w->r, 4) : random_below(&w->r, 11));
	u32 class = gfp & __GFP_HIGHMEM ? ZONE_HIGHMEM : gfp & __GFP_DMA ? ZONE_DMA : ZONE_NORMAL;
	struct live *b = &w->live[w->nr];

	if (w->nr == MAX_BLOCKS)
		return;
	*b = (struct live){0, order};
	if (machine_op_on(w->m, (u32)random_below(&w->r, 2), 0, OP_ALLOC_PAGES, gfp, order) !=
	    STATUS_OK) {
		assert_int_equal(w->m->res.status, STATUS_NO_MEMORY);
		return;
	}
	b->pfn = (pfn_t)w->m->res.values[0];
	assert_int_equal(b->pfn & ((1u << order) - 1), 0);
	assert_true(w->m->res.values[1] <= class);
	assert_int_equal(w->m->res.values[1], zone_of_pfn(w->m->e, b->pfn));
	for (u32 i = 0; i < 1u << order; i++) {
		if (w->used[b->pfn + i]++)
			fail_msg("frame %u was allocated twice", b->pfn + i);
	}
	w->nr++;
	w->pages += 1u << order;
}

static void world_free(struct world *w)
{
	u32 k;

	if (!w->nr)
		return;
	k = (u32)random_below(&w->r, w->nr);
	assert_int_equal(machine_op_on(w->m, (u32)random_below(&w->r, 2), 0, OP_FREE_PAGES,
				       w->live[k].pfn, w->live[k].order),
			 STATUS_OK);
	for (u32 i = 0; i < 1u << w->live[k].order; i++)
		w->used[w->live[k].pfn + i] = 0;
	w->pages -= 1u << w->live[k].order;
	w->live[k] = w->live[--w->nr];
}

/* A free that may be illegal: it succeeds only for a block that is live. */
static void world_free_anything(struct world *w)
{
	pfn_t pfn = (pfn_t)random_below(&w->r, w->m->e->st->layout.max_pfn + 10);
	u32 order = (u32)random_below(&w->r, 11), k;

	for (k = 0; k < w->nr && (w->live[k].pfn != pfn || w->live[k].order != order); k++)
		;
	if (k < w->nr)
		return;
	assert_int_not_equal(release(w->m, pfn, order), STATUS_OK);
}

static void world_step(struct world *w, u32 share_of_allocs)
{
	u32 what = (u32)random_below(&w->r, 100), value;

	if (what < share_of_allocs) {
		world_alloc(w);
	} else if (what < 92) {
		world_free(w);
	} else if (what < 97) {
		world_free_anything(w);
	} else if (what < 98) {
		machine_op_on(w->m, (u32)random_below(&w->r, 2), 0, OP_DRAIN_PCP,
			      random_below(&w->r, 2));
	} else if (what < 99) {
		machine_op(w->m, OP_UNBOOST_ZONE, random_below(&w->r, NR_ZONES));
	} else {
		value = (u32)random_below(&w->r, 6000);
		machine_run(w->m, &(struct engine_op){.code = OP_SET_SYSCTL,
						      .args = {SYSCTL_MIN_FREE_KBYTES},
						      .data = (const u8 *)&value,
						      .data_len = 4});
	}
}

/* Nothing lost, nothing found: free, on per-CPU lists, live. */
static void world_count(const struct world *w)
{
	u32 pages = w->pages, managed = 0;

	for (u32 zone = 0; zone < NR_ZONES; zone++) {
		pages += zone_free_pages(w->m->e, zone) + zone_pcp_pages(w->m->e, zone);
		managed += w->m->e->st->frames.zone[zone].managed;
	}
	assert_int_equal(pages, managed);
}

static void run_world(u64 seed, bool pae)
{
	struct engine_config config = three_zones();
	struct world *w = calloc(1, sizeof *w);
	/* The audit follows every op: small RAM, so that it is quick. */
	assert_non_null(w);
	config.ram = MIB_BYTES(96);
	config.highmem = MIB_BYTES(32);
	config.flags = pae ? CONFIG_PAE : 0;
	config.cpus = 2;
	w->m = machine_new(&config);
	w->r = random_seeded(seed);
	w->used = calloc(w->m->e->st->layout.max_pfn, 1);
	for (u32 i = 0, steps = effort(6000); i < steps; i++) {
		static const u32 shares[] = {70, 35, 80, 25};

		world_step(w, shares[i / (steps / 8) % 4]);
		world_count(w);
		machine_forget_events(w->m);
	}
	while (w->nr)
		world_free(w);
	assert_int_equal(machine_op(w->m, OP_DRAIN_PCP, 1), STATUS_OK);
	world_count(w);
	machine_free(w->m);
	free(w->used);
	free(w);
}

static void test_anything_pae(void **state)
{
	(void)state;
	run_world(20260104, true);
}

static void test_anything_two_level(void **state)
{
	(void)state;
	run_world(20260105, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_boot_lists),
	    cmocka_unit_test(test_lazy_is_eager),
	    cmocka_unit_test(test_split_and_merge),
	    cmocka_unit_test(test_hot_pair_events),
	    cmocka_unit_test(test_illegal_frees),
	    cmocka_unit_test(test_illegal_gfps),
	    cmocka_unit_test(test_fallback),
	    cmocka_unit_test(test_never_upwards),
	    cmocka_unit_test(test_user_policy),
	    cmocka_unit_test(test_nofail_empties_the_zones),
	    cmocka_unit_test(test_sysctls),
	    cmocka_unit_test(test_boost_and_unboost),
	    cmocka_unit_test(test_depth_by_flags),
	    cmocka_unit_test(test_stealing_a_pageblock),
	    cmocka_unit_test(test_per_cpu_lists),
	    cmocka_unit_test(test_remembered_ways),
	    cmocka_unit_test(test_zero_and_poison),
	    cmocka_unit_test(test_load_state),
	    cmocka_unit_test(test_slab),
	    cmocka_unit_test(test_zoneinfo_text),
	    cmocka_unit_test(test_buddyinfo_text),
	    cmocka_unit_test(test_frame_map),
	    cmocka_unit_test(test_anything_pae),
	    cmocka_unit_test(test_anything_two_level),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
