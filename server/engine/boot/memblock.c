/*
 * memblock.c - the allocator before the allocator. See memblock.h for the arrays and
 * their invariants.
 *
 * A change first counts the regions that it will add and makes room for them, and only
 * then touches the array: it happens wholly or not at all. Making room allocates from
 * memblock itself, which may add a region to `reserved`; that is counted too.
 *
 * Mirrors Linux's mm/memblock.c in what it does, without nodes, flags and the
 * physmem array. Byte ranges stay bytes: rounding to frames is the caller's.
 */
#include "memblock.h"

#include "../event.h"
#include "../ops.h"
#include "../text.h"
#include "../wings.h"
#include "range.h"

enum {
	NR_ARRAYS = 2,
	DEFAULT_ALIGN = 64, /* a cache line: Linux's SMP_CACHE_BYTES */
	MAX_REGIONS = 65536,
};

static const u64 REACH = 1ULL << 36; /* no physical address is beyond */

static struct memblock_array *array_of(struct engine *e, u32 which)
{
	return &e->st->memblock.array[which];
}

static struct memblock_region *regions_of(struct engine *e, struct memblock_array *a)
{
	return a->regions ? at(e, a->regions) : a->initial;
}

static u64 region_end(const struct memblock_region *r)
{
	return r->start + r->size;
}

static u64 align_down(u64 value, u64 align)
{
	return value & ~(align - 1);
}

/* Index of the first region that ends above `addr`; nr when there is none. */
static u32 find_above(struct engine *e, u32 which, u64 addr)
{
	struct memblock_array *a = array_of(e, which);
	const struct memblock_region *r = regions_of(e, a);
	u32 low = 0, high = a->nr;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (region_end(&r[mid]) > addr)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

/* Does the array hold all of [start, end)? Regions never touch, so one must. */
static bool holds(struct engine *e, u32 which, u64 start, u64 end)
{
	struct memblock_array *a = array_of(e, which);
	u32 i = find_above(e, which, start);

	return i < a->nr && regions_of(e, a)[i].start <= start &&
	       end <= region_end(&regions_of(e, a)[i]);
}

/* Does the array hold any of [start, end)? */
static bool touches(struct engine *e, u32 which, u64 start, u64 end)
{
	struct memblock_array *a = array_of(e, which);
	u32 i = find_above(e, which, start);

	return i < a->nr && regions_of(e, a)[i].start < end;
}

static void region_insert(struct engine *e, struct memblock_array *a, u32 index, u64 start,
			  u64 size)
{
	struct memblock_region *r = regions_of(e, a);

	ENGINE_ASSERT(e, a->nr < a->max);
	for (u32 i = a->nr++; i > index; i--)
		r[i] = r[i - 1];
	r[index] = (struct memblock_region){start, size};
}

static void region_delete(struct engine *e, struct memblock_array *a, u32 index)
{
	struct memblock_region *r = regions_of(e, a);

	a->nr--;
	for (u32 i = index; i < a->nr; i++)
		r[i] = r[i + 1];
	/* A slot out of use is zero: state that nothing refers to would still be in the
	 * digest. */
	r[a->nr] = (struct memblock_region){0, 0};
}

/* ---- free ranges: memory and not reserved ---- */

bool memblock_next_free(struct engine *e, u64 *cursor, struct engine_range *ret)
{
	struct memblock_array *mem = array_of(e, MEMBLOCK_MEMORY);
	struct memblock_array *res = array_of(e, MEMBLOCK_RESERVED);
	const struct memblock_region *m = regions_of(e, mem), *r = regions_of(e, res);
	u32 i = find_above(e, MEMBLOCK_MEMORY, *cursor);
	u32 k = find_above(e, MEMBLOCK_RESERVED, *cursor);
	u64 from = *cursor;

	while (i < mem->nr) {
		from = max_u64(from, m[i].start);
		while (k < res->nr && region_end(&r[k]) <= from)
			k++;
		if (k < res->nr && r[k].start <= from)
			from = region_end(&r[k]);
		if (from >= region_end(&m[i])) {
			i++;
			continue;
		}
		/* The reserved region that hid `from` may be followed by no other before the
		 * end: regions never touch, so the next one starts above. */
		while (k < res->nr && region_end(&r[k]) <= from)
			k++;
		u64 to = k < res->nr ? min_u64(region_end(&m[i]), r[k].start) : region_end(&m[i]);

		*ret = (struct engine_range){from, to - from};
		*cursor = to;
		return true;
	}
	return false;
}

/* The last free range below *cursor, clipped to it; *cursor moves to its start. */
static bool previous_free(struct engine *e, u64 *cursor, struct engine_range *ret)
{
	struct memblock_array *mem = array_of(e, MEMBLOCK_MEMORY);
	struct memblock_array *res = array_of(e, MEMBLOCK_RESERVED);
	const struct memblock_region *m = regions_of(e, mem), *r = regions_of(e, res);
	u64 to = *cursor;
	/* One past the last region that begins below `to`. */
	u32 i = find_above(e, MEMBLOCK_MEMORY, to), k = find_above(e, MEMBLOCK_RESERVED, to);

	i += i < mem->nr && m[i].start < to;
	k += k < res->nr && r[k].start < to;
	while (i > 0) {
		to = min_u64(to, region_end(&m[i - 1]));
		while (k > 0 && r[k - 1].start >= to)
			k--;
		if (k > 0 && region_end(&r[k - 1]) >= to)
			to = r[--k].start;
		if (to <= m[i - 1].start) {
			i--;
			continue;
		}
		while (k > 0 && r[k - 1].start >= to)
			k--;
		u64 from = k > 0 ? max_u64(m[i - 1].start, region_end(&r[k - 1])) : m[i - 1].start;

		*ret = (struct engine_range){from, to - from};
		*cursor = from;
		return true;
	}
	return false;
}

/* A free place in [min, max), outside [avoid, avoid_end). 0: none; frame 0 is never
 * memory. */
static u64 find_free(struct engine *e, u64 size, u64 align, u64 min, u64 max, u32 direction,
		     u64 avoid, u64 avoid_end)
{
	struct engine_range r;
	u64 cursor = direction == MEMBLOCK_TOP_DOWN ? max : min;

	while (direction == MEMBLOCK_TOP_DOWN ? previous_free(e, &cursor, &r)
					      : memblock_next_free(e, &cursor, &r)) {
		u64 from = max_u64(r.start, min), to = min_u64(r.start + r.size, max);
		u64 start;

		if (direction == MEMBLOCK_TOP_DOWN) {
			start = to >= size ? align_down(to - size, align) : 0;
			if (start < avoid_end && avoid < start + size)
				start = avoid >= size ? align_down(avoid - size, align) : 0;
		} else {
			start = align_down(from + align - 1, align);
			if (start < avoid_end && avoid < start + size)
				start = align_down(avoid_end + align - 1, align);
		}
		if (start >= from && start + size <= to && start != 0)
			return start;
		if (direction == MEMBLOCK_TOP_DOWN ? r.start <= min : r.start + r.size >= max)
			return 0;
	}
	return 0;
}

/* ---- room in the arrays ---- */

static u32 make_room(struct engine *e, u32 which, u32 more, u64 avoid, u64 avoid_end);

/* The array moves to one of twice its size, in memory that memblock finds outside
 * [avoid, avoid_end): the range about to be added. */
static u32 array_double(struct engine *e, u32 which, u64 avoid, u64 avoid_end)
{
	struct memblock_array *a = array_of(e, which);
	u32 max = a->max * 2;
	u64 bytes = (u64)max * sizeof(struct memblock_region);
	ref_t old = a->regions;
	u64 where;
	struct memblock_region *to;
	u32 status;

	if (max > MAX_REGIONS)
		return STATUS_LIMIT;
	/* Giving the old array back may cut a region in two, and the new one is one more:
	 * after this, neither needs room. */
	if (which == MEMBLOCK_MEMORY) {
		status = make_room(e, MEMBLOCK_RESERVED, 2, avoid, avoid_end);
		if (status != STATUS_OK)
			return status;
	}
	where = find_free(e, bytes, PAGE_SIZE, PAGE_SIZE, e->st->memblock.limit, MEMBLOCK_TOP_DOWN,
			  avoid, avoid_end);
	if (where == 0)
		return STATUS_NO_MEMORY;
	to = at(e, frame_ref(e, (pfn_t)(where >> PAGE_SHIFT)));
	__builtin_memcpy(to, regions_of(e, a), a->nr * sizeof(struct memblock_region));
	__builtin_memset(to + a->nr, 0, (max - a->nr) * sizeof(struct memblock_region));
	__builtin_memset(regions_of(e, a), 0, a->nr * sizeof(struct memblock_region));
	a->regions = ref_of(e, to);
	a->max = max;
	status = memblock_reserve(e, where, bytes);
	if (status == STATUS_OK && old)
		status = memblock_free(e, (u64)ref_pfn(e, old) << PAGE_SHIFT, bytes / 2);
	ENGINE_ASSERT(e, status == STATUS_OK);
	return STATUS_OK;
}

/* Until the array has room for `more` regions. */
static u32 make_room(struct engine *e, u32 which, u32 more, u64 avoid, u64 avoid_end)
{
	struct memblock_array *a = array_of(e, which);

	while (a->nr + more > a->max) {
		u32 status = array_double(e, which, avoid, avoid_end);

		if (status != STATUS_OK)
			return status;
	}
	return STATUS_OK;
}

/* ---- add and cut ---- */

/* Joins what touches, among the regions from `first` to `last` and their neighbours. */
static void merge(struct engine *e, u32 which, u32 first, u32 last)
{
	struct memblock_array *a = array_of(e, which);
	struct memblock_region *r = regions_of(e, a);

	for (u32 i = first > 0 ? first - 1 : 0; i + 1 < a->nr && i <= last;) {
		if (region_end(&r[i]) != r[i + 1].start) {
			i++;
			continue;
		}
		r[i].size += r[i + 1].size;
		region_delete(e, a, i + 1);
		last -= last > 0;
		event_memblock_merged(e, which, r[i].start, r[i].size);
	}
}

/* Adds the parts of [start, start + size) that are not there. */
static u32 add_range(struct engine *e, u32 which, u64 start, u64 size)
{
	struct memblock_array *a = array_of(e, which);
	u64 end = start + size, from = start;
	u32 first = find_above(e, which, start), gaps = 1, status, i;

	/* One gap before each region that overlaps, and one behind the last, at most. */
	for (i = first; i < a->nr && regions_of(e, a)[i].start < end; i++)
		gaps++;
	status = make_room(e, which, gaps, start, end);
	if (status != STATUS_OK)
		return status;
	/* Making room may have reserved a range below. */
	first = find_above(e, which, start);
	for (i = first; from < end; i++) {
		struct memblock_region *r = regions_of(e, a);
		u64 to = i < a->nr ? min_u64(r[i].start, end) : end;

		if (from < to) {
			event_memblock_added(e, which, from, to - from);
			region_insert(e, a, i, from, to - from);
			from = to;
		} else {
			from = region_end(&r[i]);
		}
	}
	merge(e, which, first, i);
	return STATUS_OK;
}

/* Takes [start, start + size) out; NOT_FOUND when none of it was there. */
static u32 cut_range(struct engine *e, u32 which, u64 start, u64 size)
{
	struct memblock_array *a = array_of(e, which);
	u64 end = start + size;
	u32 status, i;

	if (!touches(e, which, start, end))
		return STATUS_NOT_FOUND;
	/* A region that reaches beyond both ends becomes two. */
	i = find_above(e, which, start);
	if (regions_of(e, a)[i].start < start && end < region_end(&regions_of(e, a)[i])) {
		status = make_room(e, which, 1, start, end);
		if (status != STATUS_OK)
			return status;
	}
	i = find_above(e, which, start);
	while (i < a->nr && regions_of(e, a)[i].start < end) {
		struct memblock_region *r = &regions_of(e, a)[i];
		u64 old_start = r->start, old_end = region_end(r);

		if (old_start < start) {
			r->size = start - old_start;
			event_memblock_split(e, which, old_start, r->size);
			i++;
		} else {
			region_delete(e, a, i);
		}
		if (end < old_end) {
			region_insert(e, a, i++, end, old_end - end);
			event_memblock_split(e, which, end, old_end - end);
		} else if (old_start >= start) {
			event_memblock_split(e, which, old_start, 0);
		}
	}
	return STATUS_OK;
}

u32 memblock_add(struct engine *e, u64 start, u64 size)
{
	return add_range(e, MEMBLOCK_MEMORY, start, size);
}

u32 memblock_remove(struct engine *e, u64 start, u64 size)
{
	return cut_range(e, MEMBLOCK_MEMORY, start, size);
}

u32 memblock_reserve(struct engine *e, u64 start, u64 size)
{
	return add_range(e, MEMBLOCK_RESERVED, start, size);
}

u32 memblock_free(struct engine *e, u64 start, u64 size)
{
	return cut_range(e, MEMBLOCK_RESERVED, start, size);
}

u32 memblock_alloc(struct engine *e, u64 size, u64 align, u64 min, u64 max, u32 direction,
		   u64 *ret_start)
{
	u64 start;
	u32 status;

	if (align == 0)
		align = DEFAULT_ALIGN;
	if (size == 0 || align & (align - 1))
		return STATUS_INVALID;
	if (max == 0)
		max = e->st->memblock.limit;
	start = find_free(e, size, align, min, max, direction, 0, 0);
	if (start == 0)
		return STATUS_NO_MEMORY;
	status = memblock_reserve(e, start, size);
	if (status == STATUS_OK)
		*ret_start = start;
	return status;
}

bool memblock_covers(struct engine *e, u32 which, struct engine_range range)
{
	return holds(e, which, range.start, range_end(range));
}

bool memblock_is_memory(struct engine *e, pfn_t pfn)
{
	u64 start = (u64)pfn << PAGE_SHIFT;

	return holds(e, MEMBLOCK_MEMORY, start, start + PAGE_SIZE);
}

bool memblock_is_reserved(struct engine *e, pfn_t pfn)
{
	u64 start = (u64)pfn << PAGE_SHIFT;

	return touches(e, MEMBLOCK_RESERVED, start, start + PAGE_SIZE);
}

/* ---- ops ---- */

/* What the machine itself lives in: its firmware's and host's frames, its metadata, and
 * memblock's arrays. Nobody takes these away. */
static bool is_own(struct engine *e, u64 start, u64 end)
{
	const struct layout *l = &e->st->layout;
	for (u32 i = 0; i < NR_ARRAYS; i++) {
		struct memblock_array *a = array_of(e, i);
		u64 bytes = (u64)a->max * sizeof(struct memblock_region);

		if (a->regions &&
		    range_overlaps(
			(struct engine_range){(u64)ref_pfn(e, a->regions) << PAGE_SHIFT, bytes},
			start, end))
			return true;
	}
	return range_overlaps(range_of_frames(0, l->firmware_end), start, end) ||
	       range_overlaps(range_of_frames(l->host_start, l->host_end), start, end) ||
	       range_overlaps(range_of_frames(l->metadata_start, l->metadata_end), start, end);
}

u32 op_memblock_add(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u64 start = op->args[0], size = op->args[1];
	struct engine_error ignored;
	struct ram_map ram;

	(void)res;
	/* RAM cannot come from nowhere: what is added is RAM of the configuration that had
	 * been removed, below the end that mem_map was made for. */
	if (!ram_map_make(&e->st->config, (u64)e->st->layout.max_pfn << PAGE_SHIFT, &ram, &ignored))
		return STATUS_INVALID;
	for (u32 i = 0; i < ram.nr; i++)
		if (ram.range[i].start <= start && start + size <= range_end(ram.range[i]))
			return memblock_add(e, start, size);
	return STATUS_INVALID;
}

u32 op_memblock_remove(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	if (is_own(e, op->args[0], op->args[0] + op->args[1]))
		return STATUS_RESERVED;
	return memblock_remove(e, op->args[0], op->args[1]);
}

u32 op_memblock_reserve(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	if (op->args[0] + op->args[1] > REACH)
		return STATUS_INVALID;
	return memblock_reserve(e, op->args[0], op->args[1]);
}

u32 op_memblock_free(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)res;
	if (is_own(e, op->args[0], op->args[0] + op->args[1]))
		return STATUS_RESERVED;
	return memblock_free(e, op->args[0], op->args[1]);
}

u32 op_memblock_alloc(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	/* The answer is a 32-bit address. */
	u64 max = op->args[3] ? min_u64(op->args[3], 1ULL << 32) : e->st->memblock.limit;

	return memblock_alloc(e, op->args[0], op->args[1], op->args[2], max, (u32)op->args[4],
			      &res->values[0]);
}

/* ---- inspection ---- */

/* As /sys/kernel/debug/memblock/memory and .../reserved, one after the other. (x86 has no
 * such files: it gives the arrays up after boot.) */
u32 inspect_memblock(struct engine *e, const u64 args[OP_ARGS], struct inspect_sink *sink)
{
	static const char *const names[NR_ARRAYS] = {"memory", "reserved"};
	bool wide = e->st->layout.pae;

	(void)args;
	for (u32 which = 0; which < NR_ARRAYS; which++) {
		struct memblock_array *a = array_of(e, which);
		const struct memblock_region *r = regions_of(e, a);

		say(sink, "%s:\n", names[which]);
		for (u32 i = 0; i < a->nr; i++) {
			u64 start = r[i].start, last = region_end(&r[i]) - 1;

			/* Linux prints a phys_addr_t, which PAE makes 64 bits wide. */
			say(sink,
			    wide ? "%4u: 0x%016llx..0x%016llx\n" : "%4u: 0x%08llx..0x%08llx\n", i,
			    (unsigned long long)start, (unsigned long long)last);
			ROW(sink, ROW_MEMBLOCK_REGIONS, which, start, r[i].size);
		}
	}
	return STATUS_OK;
}
