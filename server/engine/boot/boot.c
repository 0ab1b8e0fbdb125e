/*
 * boot.c - the order in which a machine comes to life.
 *
 *   boot_early   memblock knows RAM and what is kept from everybody
 *   (ops)        a machine created early may have its memblock changed here
 *   boot_finish  page tables, then mem_map and zones, then the buddy takes over what
 *                memblock has free, then each wing's own start
 *
 * Nothing here touches a descriptor per frame or a byte of untouched RAM: a machine of
 * 64 GiB starts as fast as a small one.
 *
 * Not modelled: the kernel image (the host window stands for it), initrd, ACPI tables.
 */
#include "boot.h"

#include "../event.h"
#include "../map/pgtable.h"
#include "../ops.h"
#include "../text.h"
#include "../wings.h"
#include "range.h"

/* What boot reserves: in the layout, not in the arrays, is the truth about it. */
static u32 reserve_kept(struct engine *e)
{
	const struct layout *l = &e->st->layout;
	const struct engine_config *config = &e->st->config;
	const struct engine_range kept[] = {
	    range_of_frames(0, l->firmware_end),
	    range_of_frames(l->host_start, l->host_end),
	    range_of_frames(l->metadata_start, l->metadata_end),
	};
	u32 status = STATUS_OK;

	for (u32 i = 0; i < sizeof kept / sizeof kept[0] && status == STATUS_OK; i++)
		if (kept[i].size)
			status = memblock_reserve(e, kept[i].start, kept[i].size);
	for (u32 i = 0; i < config->nr_reserved && status == STATUS_OK; i++)
		status = memblock_reserve(e, config->reserved[i].start, config->reserved[i].size);
	return status;
}

bool boot_early(struct engine *e, const struct engine_config *config, struct engine_error *why)
{
	const struct layout *l = &e->st->layout;
	struct memblock *m = &e->st->memblock;
	struct ram_map ram;
	u32 status;

	if (!ram_map_make(config, (u64)l->max_pfn << PAGE_SHIFT, &ram, why))
		return false;
	m->array[MEMBLOCK_MEMORY].max = MEMBLOCK_INITIAL_REGIONS;
	m->array[MEMBLOCK_RESERVED].max = MEMBLOCK_INITIAL_REGIONS;
	m->limit = (u64)l->low_end_pfn << PAGE_SHIFT;
	/* Reserved first: an array that must double while RAM is added then stays off what
	 * is kept. */
	status = reserve_kept(e);
	for (u32 i = 0; i < ram.nr && status == STATUS_OK; i++)
		status = memblock_add(e, ram.range[i].start, ram.range[i].size);
	if (status != STATUS_OK)
		return refuse(why, "%u ranges of RAM and no lowmem for memblock's own arrays",
			      ram.nr);
	if (l->unused_bytes)
		event_ram_unused(e, l->unused_start, l->unused_bytes);
	return true;
}

/* ---- the rest of boot ---- */

/* Whole free frames of lowmem, at most `enough`. */
static u32 count_free_lowmem(struct engine *e, u32 enough)
{
	struct engine_range r;
	u64 cursor = 0;
	u32 frames = 0;

	while (frames < enough && memblock_next_free(e, &cursor, &r)) {
		u64 end = min_u64(range_end(r), e->st->memblock.limit);
		u64 first = pages_of(r.start), after = end >> PAGE_SHIFT;

		frames += first < after ? (u32)(after - first) : 0;
	}
	return frames;
}

u32 boot_finish(struct engine *e)
{
	static u32 (*const wings[])(struct engine * e) = {frames_boot, map_boot, user_boot,
							  dma_boot};
	u32 need = tables_most(e->st->memblock.array[MEMBLOCK_MEMORY].nr);

	/* Checked first, because there is no way back once CPUs run on the tables. */
	if (count_free_lowmem(e, need + 1) <= need)
		return STATUS_NO_MEMORY;
	if (pgtable_boot(e) != STATUS_OK)
		return STATUS_NO_MEMORY;
	for (u32 i = 0; i < sizeof wings / sizeof wings[0]; i++) {
		u32 status = wings[i](e);

		ENGINE_ASSERT(e, status == STATUS_OK);
	}
	e->st->phase = PHASE_FRESH;
	return STATUS_OK;
}

u32 op_boot(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 status = boot_finish(e);

	(void)op;
	for (u32 zone = 0; status == STATUS_OK && zone < NR_ZONES; zone++)
		res->values[0] += e->st->frames.zone[zone].managed;
	return status;
}

/* ---- the audit ---- */

static bool check_array(struct engine *e, u32 which, struct engine_error *why)
{
	static const char *const names[] = {"memory", "reserved"};
	const struct memblock_array *a = &e->st->memblock.array[which];
	const struct memblock_region *r = a->regions ? at(e, a->regions) : a->initial;

	if (a->nr > a->max)
		return refuse(why, "memblock %s has %u regions in room for %u", names[which], a->nr,
			      a->max);
	for (u32 i = 0; i < a->nr; i++) {
		if (r[i].size == 0 || r[i].start + r[i].size < r[i].start)
			return refuse(why, "memblock %s region %u is empty or has no end",
				      names[which], i);
		if (i > 0 && r[i - 1].start + r[i - 1].size >= r[i].start)
			return refuse(why,
				      "memblock %s regions %u and %u are not apart and in order",
				      names[which], i - 1, i);
	}
	for (u32 i = a->nr; i < a->max; i++)
		if (r[i].start || r[i].size)
			return refuse(why, "memblock %s slot %u is out of use and not zero",
				      names[which], i);
	return true;
}

static bool check_kept(struct engine *e, const char *what, pfn_t start, pfn_t end,
		       struct engine_error *why)
{
	if (start < end && !memblock_covers(e, MEMBLOCK_RESERVED, range_of_frames(start, end)))
		return refuse(why, "the %s, frames %u to %u, is not wholly reserved", what, start,
			      end - 1);
	return true;
}

bool check_boot(struct engine *e, struct engine_error *why)
{
	const struct layout *l = &e->st->layout;
	struct layout again;

	if (!layout_compute(&e->st->config, &again, why))
		return false;
	if (__builtin_memcmp(l, &again, sizeof again) != 0)
		return refuse(why, "the layout does not follow from the configuration");
	return check_array(e, MEMBLOCK_MEMORY, why) && check_array(e, MEMBLOCK_RESERVED, why) &&
	       check_kept(e, "firmware", 0, l->firmware_end, why) &&
	       check_kept(e, "host window", l->host_start, l->host_end, why) &&
	       check_kept(e, "metadata", l->metadata_start, l->metadata_end, why);
}
