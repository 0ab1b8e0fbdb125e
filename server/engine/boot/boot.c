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

/* The page of zeros that reads of untouched memory share. It never was the buddy's. */
static u32 make_zero_page(struct engine *e)
{
	u64 paddr;
	u32 status = memblock_alloc(e, PAGE_SIZE, PAGE_SIZE, 0, 0, MEMBLOCK_TOP_DOWN, &paddr);

	if (status == STATUS_OK)
		e->st->map.zero_pfn = (pfn_t)(paddr >> PAGE_SHIFT);
	return status;
}

/* Every CPU runs on the kernel's own tables from here on. */
static u32 start_cpus(struct engine *e)
{
	u32 pgd = e->st->map.kernel_pgd << PAGE_SHIFT;

	for (u32 cpu = 0; cpu < e->st->layout.cpus; cpu++)
		port_load_cr3(e, cpu, pgd);
	tlb_flush(e, tlb_all_cpus(e), 0, 0, FLUSH_BOOT);
	return STATUS_OK;
}

typedef u32 boot_fn(struct engine *e);

static boot_fn *const steps[] = {
    pgtable_boot, start_cpus, make_zero_page, frames_boot, map_boot, user_boot, dma_boot,
};

u32 boot_finish(struct engine *e)
{
	for (u32 i = 0; i < sizeof steps / sizeof steps[0]; i++) {
		u32 status = steps[i](e);

		if (status != STATUS_OK)
			return status;
	}
	e->st->phase = PHASE_FRESH;
	return STATUS_OK;
}
