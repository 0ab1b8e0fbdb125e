/*
 * marks.c - watermarks, lowmem reserves and per-CPU list sizes.
 *
 * The formulas are those of Linux 6.1, checked against 116 zones of 42 real boots.
 * Marks are set at two times: at boot, from the pages managed then (late_pages come
 * only after), and when a sysctl is set, from the pages managed now.
 *
 * Not modelled: user_min_free_kbytes from a command line, CPUs coming and going.
 */
#include "marks.h"
#include "../event.h"
#include "../ops.h"
#include "buddy.h"
#include "route.h"

enum {
	PAGE_KIB = PAGE_SIZE / 1024,
	/* calculate_min_free_kbytes() */
	MIN_FREE_LEAST = 128,
	MIN_FREE_MOST = 262144,
	/* A HIGHMEM zone's min mark: a thousandth of it, within these. */
	HIGHMEM_MIN_LEAST = 32,
	HIGHMEM_MIN_MOST = 128,
	/* khugepaged runs from this much RAM on, and may raise min to a 20th of lowmem. */
	THP_LEAST_PAGES = (512 << 20) / PAGE_SIZE,
	THP_SHARE = 20,
	/* zone_batchsize(): a 1024th of the zone, at most 1 MiB, in four batches. */
	BATCH_SHARE_SHIFT = 10,
	BATCH_MOST_PAGES = (1 << 20) / PAGE_SIZE,
	BATCHES = 4,
	SCALE_UNIT = 10000, /* of watermark_scale_factor */
	SCALE_MOST = 3000,
	HIGH_FRACTION_LEAST = 8,
	SYSCTL_MOST = 0x7fffffff,
};

u32 div64(u64 n, u32 d)
{
	u64 quotient = 0, rest = 0;

	for (u32 bit = 64; bit-- > 0;) {
		rest = rest << 1 | (n >> bit & 1);
		if (rest >= d) {
			rest -= d;
			quotient |= 1ULL << bit;
		}
	}
	return quotient > UINT32_MAX ? UINT32_MAX : (u32)quotient;
}

u32 mul_div(u32 a, u32 b, u32 c)
{
	return div64((u64)a * b, c);
}

static u32 square_root(u32 n)
{
	u32 root = 0;

	for (u32 bit = 1u << 15; bit; bit >>= 1) {
		if ((root + bit) * (root + bit) <= n)
			root += bit;
	}
	return root;
}

static u32 bit_length(u32 n)
{
	return n ? 32 - (u32)__builtin_clz(n) : 0;
}

static u32 at_least(u32 n, u32 least)
{
	return n < least ? least : n;
}

static u32 at_most(u32 n, u32 most)
{
	return n > most ? most : n;
}

/* Is the zone outside the direct map? ZONE_MOVABLE counts as the zone that it was taken
 * from, or would have been. */
static bool is_highmem(const struct engine *e, u32 zone)
{
	const struct zone *z = &e->st->frames.zone[zone];

	if (zone != ZONE_MOVABLE)
		return zone == ZONE_HIGHMEM;
	return z->start == z->end ? e->st->frames.zone[ZONE_HIGHMEM].managed != 0
				  : z->start >= e->st->layout.low_end_pfn;
}

void marks_defaults(struct frames_state *f)
{
	f->reserve_ratio[ZONE_DMA] = 256;
	f->reserve_ratio[ZONE_NORMAL] = 32;
	f->reserve_ratio[ZONE_HIGHMEM] = 0;
	f->watermark_scale_factor = 10;
	f->watermark_boost_factor = 15000;
}

u32 marks_stat_threshold(const struct engine *e, u32 managed)
{
	u32 units = bit_length(managed >> (27 - PAGE_SHIFT)); /* of 128 MiB */

	return at_most(2 * bit_length(e->st->layout.cpus) * (1 + units), STAT_THRESHOLD_MOST);
}

/* ---- each formula, from the managed pages of each zone ---- */

static void set_pcp(struct engine *e, u32 zone, u32 managed)
{
	const struct frames_state *f = &e->st->frames;
	struct zone *z = &e->st->frames.zone[zone];
	u32 share = at_least(at_most(managed >> BATCH_SHARE_SHIFT, BATCH_MOST_PAGES) / BATCHES, 1);
	u32 batch = (1u << bit_length(share + share / 2)) / 2 - 1;
	u32 pages = z->mark[MARK_LOW] + z->boost;

	if (f->pcp_high_fraction)
		pages = managed / f->pcp_high_fraction;
	z->pcp_batch = at_least(batch, 1);
	z->pcp_high = at_least(pages / e->st->layout.cpus, z->pcp_batch * BATCHES);
}

static u32 lowmem_pages(const struct engine *e, const u32 managed[NR_ZONES])
{
	u32 pages = 0;

	for (u32 i = 0; i < NR_ZONES; i++)
		pages += is_highmem(e, i) ? 0 : managed[i];
	return pages;
}

/* What is not outside the direct map shares min_free_kbytes: a ZONE_MOVABLE of lowmem too. */
static void set_marks(struct engine *e, const u32 managed[NR_ZONES])
{
	struct frames_state *f = &e->st->frames;
	u32 lowmem = lowmem_pages(e, managed), min = f->min_free_kbytes / PAGE_KIB;

	for (u32 i = 0; i < NR_ZONES; i++) {
		struct zone *z = &f->zone[i];
		u32 share = lowmem ? mul_div(min, managed[i], lowmem) : 0;
		u32 gap = mul_div(managed[i], f->watermark_scale_factor, SCALE_UNIT);

		z->mark[MARK_MIN] = share;
		if (is_highmem(e, i))
			z->mark[MARK_MIN] = at_most(at_least(managed[i] / 1024, HIGHMEM_MIN_LEAST),
						    HIGHMEM_MIN_MOST);
		gap = at_least(gap, share / 4);
		z->mark[MARK_LOW] = z->mark[MARK_MIN] + gap;
		z->mark[MARK_HIGH] = z->mark[MARK_LOW] + gap;
		/* Computing the marks takes a boost back. */
		if (z->boost)
			event_boost(e, i, z->boost, 0);
		z->boost = 0;
		set_pcp(e, i, managed[i]);
	}
}

static void set_reserves(struct engine *e, const u32 managed[NR_ZONES])
{
	struct frames_state *f = &e->st->frames;

	for (u32 i = 0; i < NR_ZONES - 1; i++) {
		u32 ratio = f->reserve_ratio[i], above = 0;

		for (u32 class = i + 1; class < NR_ZONES; class ++) {
			above += managed[class];
			f->zone[i].reserve[class] = ratio && managed[i] ? above / ratio : 0;
		}
		limits_update(e, i);
	}
}

/* What is left above the high marks in the zones that kernel buffers come from. */
static u32 buffer_pages(struct engine *e, const u32 managed[NR_ZONES])
{
	u32 pages = 0;

	for (u32 i = 0; i <= ZONE_NORMAL; i++) {
		u32 high = e->st->frames.zone[i].mark[MARK_HIGH];

		pages += managed[i] > high ? managed[i] - high : 0;
	}
	return pages;
}

/* min_free_kbytes from pages that buffers come from. 16 times their KiB fits into 32 bits. */
static u32 min_free_of(u32 lowmem)
{
	return at_most(at_least(square_root(lowmem * PAGE_KIB * 16), MIN_FREE_LEAST),
		       MIN_FREE_MOST);
}

/* Huge pages want some pageblocks of each type kept nearly free: two in each zone,
 * and for each pair of types one, up to 5 % of lowmem. Where they are switched off, Linux
 * computes min_free_kbytes once more, from what its first marks have left of lowmem. */
static void adjust_for_huge_pages(struct engine *e, const u32 managed[NR_ZONES])
{
	struct frames_state *f = &e->st->frames;
	u32 zones = (managed[ZONE_DMA] ? 1u : 0) + (managed[ZONE_NORMAL] ? 1u : 0), total = 0,
	    pages;

	for (u32 i = 0; i < NR_ZONES; i++)
		total += managed[i];
	if (total < THP_LEAST_PAGES)
		return;
	if (e->st->config.flags & CONFIG_THP_OFF) {
		f->min_free_kbytes = min_free_of(buffer_pages(e, managed));
	} else {
		pages = (2 + NR_PCP_TYPES * NR_PCP_TYPES) * zones *
			pages_of_order(e->st->layout.pageblock_order);
		pages = at_most(pages, buffer_pages(e, managed) / THP_SHARE);
		f->min_free_kbytes = at_least(f->min_free_kbytes, pages * PAGE_KIB);
	}
	set_marks(e, managed);
}

static void publish(struct engine *e)
{
	for (u32 i = 0; i < NR_ZONES; i++) {
		const struct zone *z = &e->st->frames.zone[i];

		if (!z->managed)
			continue;
		event_marks(e, i, z->mark[MARK_MIN], z->mark[MARK_LOW], z->mark[MARK_HIGH],
			    z->pcp_high, z->pcp_batch);
		zone_check_marks(e, i);
	}
}

static void managed_now(const struct engine *e, u32 managed[NR_ZONES])
{
	for (u32 i = 0; i < NR_ZONES; i++)
		managed[i] = e->st->frames.zone[i].managed;
}

/* Takes off what comes late: init memory, which lies where NORMAL begins, and the initrd, at
 * the end of lowmem. Either may be ZONE_MOVABLE's; without both zones they lie in DMA. */
static void take_late_off(const struct engine *e, u32 managed[NR_ZONES])
{
	u32 initrd = initrd_frames(&e->st->config), init = e->st->config.late_pages - initrd;
	u32 first = managed[ZONE_NORMAL] ? ZONE_NORMAL : ZONE_DMA, last = first;

	if (managed[ZONE_MOVABLE] && !is_highmem(e, ZONE_MOVABLE)) {
		last = ZONE_MOVABLE;
		first = managed[ZONE_NORMAL] ? ZONE_NORMAL : ZONE_MOVABLE;
	}
	managed[first] -= at_most(init, managed[first]);
	managed[last] -= at_most(initrd, managed[last]);
}

void marks_boot(struct engine *e)
{
	struct frames_state *f = &e->st->frames;
	u32 managed[NR_ZONES];

	managed_now(e, managed);
	take_late_off(e, managed);
	f->min_free_kbytes = min_free_of(managed[ZONE_DMA] + managed[ZONE_NORMAL]);
	set_marks(e, managed);
	adjust_for_huge_pages(e, managed);
	set_reserves(e, managed);
	for (u32 i = 0; i < NR_ZONES; i++)
		f->zone[i].stat_threshold = marks_stat_threshold(e, managed[i]);
	publish(e);
}

/* ---- ops ---- */

static u32 set_reserve_ratio(struct engine *e, const u32 *value)
{
	u32 managed[NR_ZONES];

	for (u32 i = 0; i < NR_ZONES - 1; i++) {
		if (value[i] > SYSCTL_MOST)
			return STATUS_INVALID;
	}
	__builtin_memcpy(e->st->frames.reserve_ratio, value, sizeof e->st->frames.reserve_ratio);
	managed_now(e, managed);
	set_reserves(e, managed);
	return STATUS_OK;
}

static u32 set_value(struct engine *e, u32 name, u32 value)
{
	struct frames_state *f = &e->st->frames;
	u32 managed[NR_ZONES];

	managed_now(e, managed);
	switch (name) {
	case SYSCTL_MIN_FREE_KBYTES:
		f->min_free_kbytes = value;
		set_marks(e, managed);
		break;
	case SYSCTL_WATERMARK_SCALE_FACTOR:
		if (value < 1 || value > SCALE_MOST)
			return STATUS_INVALID;
		f->watermark_scale_factor = value;
		set_marks(e, managed);
		break;
	case SYSCTL_WATERMARK_BOOST_FACTOR: f->watermark_boost_factor = value; return STATUS_OK;
	case SYSCTL_PERCPU_PAGELIST_HIGH_FRACTION:
		if (value && value < HIGH_FRACTION_LEAST)
			return STATUS_INVALID;
		f->pcp_high_fraction = value;
		for (u32 i = 0; i < NR_ZONES; i++)
			set_pcp(e, i, managed[i]);
		break;
	default: return STATUS_INVALID;
	}
	publish(e);
	return STATUS_OK;
}

u32 op_set_sysctl(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 name = (u32)op->args[0], value[NR_ZONES - 1];
	u32 wanted = name == SYSCTL_LOWMEM_RESERVE_RATIO ? NR_ZONES - 1 : 1;

	(void)res;
	if (op->data_len != wanted * sizeof value[0])
		return STATUS_INVALID;
	__builtin_memcpy(value, op->data, op->data_len);
	if (value[0] > SYSCTL_MOST)
		return STATUS_INVALID;
	return name == SYSCTL_LOWMEM_RESERVE_RATIO ? set_reserve_ratio(e, value)
						   : set_value(e, name, value[0]);
}

u32 op_unboost_zone(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 zone = (u32)op->args[0];
	struct zone *z;

	if (zone >= NR_ZONES)
		return STATUS_INVALID;
	z = &e->st->frames.zone[zone];
	res->values[0] = z->boost;
	if (!z->boost)
		return STATUS_OK;
	event_boost(e, zone, z->boost, 0);
	z->boost = 0;
	zone_check_marks(e, zone);
	return STATUS_OK;
}
