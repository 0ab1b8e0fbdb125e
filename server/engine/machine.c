/*
 * machine.c - a machine as a whole: made, taken up, and executing one op after
 * another.
 *
 * The way of an op: number it, check who asks, call its function, keep the wings'
 * end-of-op rules. An op that fails still has a number: a failure is a result.
 */
#include "boot/boot.h"
#include "event.h"
#include "map/pgtable.h"
#include "ops.h"
#include "text.h"
#include "user/task.h"

/* When an op may run. */
enum op_phase {
	IN_EARLY = 1 << PHASE_EARLY,
	IN_FRESH = 1 << PHASE_FRESH,
	IN_LOADING = 1 << PHASE_LOADING,
	IN_RUNNING = 1 << PHASE_RUNNING,
	BOOTED = IN_FRESH | IN_RUNNING,
};

struct op_entry {
	op_fn *fn;
	u32 phases;
	bool user_only; /* needs a task other than 0 */
};

static const struct op_entry op_table[OP_CODE_END] = {
    [OP_MEMBLOCK_ADD] = {op_memblock_add, IN_EARLY, false},
    [OP_MEMBLOCK_REMOVE] = {op_memblock_remove, IN_EARLY, false},
    [OP_MEMBLOCK_RESERVE] = {op_memblock_reserve, IN_EARLY, false},
    [OP_MEMBLOCK_FREE] = {op_memblock_free, IN_EARLY, false},
    [OP_MEMBLOCK_ALLOC] = {op_memblock_alloc, IN_EARLY, false},
    [OP_BOOT] = {op_boot, IN_EARLY, false},
    [OP_ALLOC_PAGES] = {op_alloc_pages, BOOTED, false},
    [OP_FREE_PAGES] = {op_free_pages, BOOTED, false},
    [OP_DRAIN_PCP] = {op_drain_pcp, BOOTED, false},
    [OP_UNBOOST_ZONE] = {op_unboost_zone, BOOTED, false},
    [OP_SET_SYSCTL] = {op_set_sysctl, BOOTED, false},
    [OP_SET_POLICY] = {op_set_policy, IN_EARLY | BOOTED, false},
    [OP_LOAD_STATE] = {op_load_state, IN_FRESH | IN_LOADING, false},
    [OP_KMAP] = {op_kmap, BOOTED, false},
    [OP_KUNMAP] = {op_kunmap, BOOTED, false},
    [OP_KMAP_ATOMIC] = {op_kmap_atomic, BOOTED, false},
    [OP_KUNMAP_ATOMIC] = {op_kunmap_atomic, BOOTED, false},
    [OP_KMAP_LOCAL] = {op_kmap_local, BOOTED, false},
    [OP_KUNMAP_LOCAL] = {op_kunmap_local, BOOTED, false},
    [OP_WITHDRAW] = {op_withdraw, BOOTED, false},
    [OP_SET_FIXMAP] = {op_set_fixmap, BOOTED, false},
    [OP_CLEAR_FIXMAP] = {op_clear_fixmap, BOOTED, false},
    [OP_VMALLOC] = {op_vmalloc, BOOTED, false},
    [OP_VFREE] = {op_vfree, BOOTED, false},
    [OP_VMAP] = {op_vmap, BOOTED, false},
    [OP_VUNMAP] = {op_vunmap, BOOTED, false},
    [OP_IOREMAP] = {op_ioremap, BOOTED, false},
    [OP_IOUNMAP] = {op_iounmap, BOOTED, false},
    [OP_PURGE_VMAP] = {op_purge_vmap, BOOTED, false},
    [OP_FLUSH_TLB] = {op_flush_tlb, BOOTED, false},
    [OP_TASK_CREATE] = {op_task_create, BOOTED, false},
    [OP_TASK_FORK] = {op_task_fork, BOOTED, false},
    [OP_TASK_EXIT] = {op_task_exit, BOOTED, false},
    [OP_SCHEDULE] = {op_schedule, BOOTED, false},
    [OP_MMAP] = {op_mmap, BOOTED, true},
    [OP_MUNMAP] = {op_munmap, BOOTED, true},
    [OP_MPROTECT] = {op_mprotect, BOOTED, true},
    [OP_BRK] = {op_brk, BOOTED, true},
    [OP_FILE_CREATE] = {op_file_create, BOOTED, false},
    [OP_FILE_WRITE] = {op_file_write, BOOTED, false},
    [OP_FILE_READ] = {op_file_read, BOOTED, false},
    [OP_FILE_DELETE] = {op_file_delete, BOOTED, false},
    [OP_ACCESS] = {op_access, BOOTED, false},
    [OP_FAULT] = {op_fault, BOOTED, true},
    [OP_PIN_USER_PAGE] = {op_pin_user_page, BOOTED, true},
    [OP_UNPIN_USER_PAGE] = {op_unpin_user_page, BOOTED, false},
    [OP_DMA_MAP] = {op_dma_map, BOOTED, false},
    [OP_DMA_SYNC] = {op_dma_sync, BOOTED, false},
    [OP_DMA_UNMAP] = {op_dma_unmap, BOOTED, false},
    [OP_SNAPSHOT] = {op_snapshot, IN_EARLY | BOOTED, false},
    [OP_FORK] = {op_fork, IN_EARLY | BOOTED, false},
};

static u64 mask_of_detail(u32 detail)
{
	return detail == DETAIL_OPS ? 0 : detail == DETAIL_NOTABLE ? EVENTS_NOTABLE : EVENTS_ALL;
}

void engine_set_detail(struct engine *e, u32 detail)
{
	e->st->detail = detail;
	e->event_mask = mask_of_detail(detail);
}

bool engine_plan(const struct engine_config *config, u64 *ret_lowmem_bytes, u64 *ret_ram_end,
		 struct engine_error *why)
{
	struct layout layout;

	if (!layout_compute(config, &layout, why))
		return false;
	*ret_lowmem_bytes = (u64)layout.low_end_pfn << PAGE_SHIFT;
	*ret_ram_end = (u64)layout.max_pfn << PAGE_SHIFT;
	return true;
}

static void take_up(struct engine *e, const struct layout *layout)
{
	e->page_offset = layout->page_offset;
	e->state_ref = layout->state_ref;
	e->st = at(e, layout->state_ref);
	e->mem_map = at(e, layout->mem_map_ref);
	e->op_no = 0;
	e->op_owner = e->op_task = e->op_cpu = 0;
}

bool engine_create(struct engine *e, const struct engine_config *config, struct engine_error *why)
{
	struct layout layout;

	if (!layout_compute(config, &layout, why))
		return false;
	take_up(e, &layout);
	e->st->magic = MACHINE_MAGIC;
	e->st->phase = PHASE_EARLY;
	e->st->config = *config;
	e->st->layout = layout;
	engine_set_detail(e, config->detail);
	if (!boot_early(e, config, why))
		return false;
	if (config->flags & CONFIG_EARLY)
		return true;
	if (boot_finish(e) != STATUS_OK)
		return refuse(why, "lowmem of %u pages is too small for this machine's own tables",
			      layout.low_end_pfn);
	return true;
}

bool engine_attach(struct engine *e, const struct engine_config *config)
{
	struct layout layout;
	struct engine_error ignored;

	if (!layout_compute(config, &layout, &ignored))
		return false;
	take_up(e, &layout);
	e->event_mask = mask_of_detail(e->st->detail);
	return e->st->magic == MACHINE_MAGIC;
}

u64 engine_op_count(const struct engine *e)
{
	return e->st->op_count;
}

const struct engine_config *engine_config(const struct engine *e)
{
	return &e->st->config;
}

/* Who asks, and may this op run now? An entry without a function is of no phase. */
static u32 admit(struct engine *e, const struct engine_op *op, const struct op_entry *entry)
{
	if (!(entry->phases >> e->st->phase & 1))
		return entry->fn && e->st->phase == PHASE_LOADING ? STATUS_BUSY : STATUS_INVALID;
	if (op->cpu >= e->st->layout.cpus)
		return STATUS_INVALID;
	if (op->task) {
		struct task *t = task_find(e, op->task);

		if (!t)
			return STATUS_NOT_FOUND;
		if (t->parked_op)
			return STATUS_BUSY;
		if (t->cpu != op->cpu)
			return STATUS_NOT_OWNER;
	} else if (entry->user_only) {
		return STATUS_NOT_OWNER;
	}
	return STATUS_OK;
}

void engine_execute(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct machine_state *st = e->st;
	const struct op_entry *entry = &op_table[op->code < OP_CODE_END ? op->code : 0];

	res->op = ++st->op_count;
	res->data_len = 0;
	for (u32 i = 0; i < OP_VALUES; i++)
		res->values[i] = 0;
	res->status = admit(e, op, entry);
	if (res->status != STATUS_OK)
		return;
	e->op_no = res->op;
	e->op_owner = op->owner;
	e->op_task = op->task;
	e->op_cpu = op->cpu;
	if (st->phase == PHASE_FRESH && op->code != OP_LOAD_STATE)
		st->phase = PHASE_RUNNING;
	res->status = entry->fn(e, op, res);
	if (st->map.vmap.lazy_pages)
		vmap_end_of_op(e);
}

/* A snapshot and a fork are made by the host, from a machine whose TLBs hold
 * nothing: the TLBs are not part of the state. The name in `data` is the host's. */
u32 op_snapshot(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	(void)op, (void)res;
	tlb_flush(e, tlb_all_cpus(e), 0, 0, FLUSH_REQUEST);
	return STATUS_OK;
}

u32 op_fork(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	return op_snapshot(e, op, res);
}
