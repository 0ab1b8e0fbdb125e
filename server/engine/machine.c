/*
 * machine.c - a machine as a whole: made, taken up, and executing one op after
 * another.
 *
 * The way of an op: number it, check who asks, call its function, keep the wings'
 * end-of-op rules. An op that fails still has a number: a failure is a result.
 */
#include "boot/boot.h"
#include "event.h"
#include "frames/route.h"
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
	USER_ONLY = 0x80, /* needs a task other than 0 */
};

/* Every op: its code, its function, when it may run, whether it needs a task other than 0. */
#define OPS(X)                                                        \
	X(OP_MEMBLOCK_ADD, op_memblock_add, IN_EARLY, false)          \
	X(OP_MEMBLOCK_REMOVE, op_memblock_remove, IN_EARLY, false)    \
	X(OP_MEMBLOCK_RESERVE, op_memblock_reserve, IN_EARLY, false)  \
	X(OP_MEMBLOCK_FREE, op_memblock_free, IN_EARLY, false)        \
	X(OP_MEMBLOCK_ALLOC, op_memblock_alloc, IN_EARLY, false)      \
	X(OP_BOOT, op_boot, IN_EARLY, false)                          \
	X(OP_ALLOC_PAGES, op_alloc_pages, BOOTED, false)              \
	X(OP_FREE_PAGES, op_free_pages, BOOTED, false)                \
	X(OP_DRAIN_PCP, op_drain_pcp, BOOTED, false)                  \
	X(OP_UNBOOST_ZONE, op_unboost_zone, BOOTED, false)            \
	X(OP_SET_SYSCTL, op_set_sysctl, BOOTED, false)                \
	X(OP_SET_POLICY, op_set_policy, IN_EARLY | BOOTED, false)     \
	X(OP_LOAD_STATE, op_load_state, IN_FRESH | IN_LOADING, false) \
	X(OP_KMAP, op_kmap, BOOTED, false)                            \
	X(OP_KUNMAP, op_kunmap, BOOTED, false)                        \
	X(OP_KMAP_ATOMIC, op_kmap_atomic, BOOTED, false)              \
	X(OP_KUNMAP_ATOMIC, op_kunmap_atomic, BOOTED, false)          \
	X(OP_KMAP_LOCAL, op_kmap_local, BOOTED, false)                \
	X(OP_KUNMAP_LOCAL, op_kunmap_local, BOOTED, false)            \
	X(OP_WITHDRAW, op_withdraw, BOOTED, false)                    \
	X(OP_SET_FIXMAP, op_set_fixmap, BOOTED, false)                \
	X(OP_CLEAR_FIXMAP, op_clear_fixmap, BOOTED, false)            \
	X(OP_VMALLOC, op_vmalloc, BOOTED, false)                      \
	X(OP_VFREE, op_vfree, BOOTED, false)                          \
	X(OP_VMAP, op_vmap, BOOTED, false)                            \
	X(OP_VUNMAP, op_vunmap, BOOTED, false)                        \
	X(OP_IOREMAP, op_ioremap, BOOTED, false)                      \
	X(OP_IOUNMAP, op_iounmap, BOOTED, false)                      \
	X(OP_PURGE_VMAP, op_purge_vmap, BOOTED, false)                \
	X(OP_FLUSH_TLB, op_flush_tlb, BOOTED, false)                  \
	X(OP_TASK_CREATE, op_task_create, BOOTED, false)              \
	X(OP_TASK_FORK, op_task_fork, BOOTED, false)                  \
	X(OP_TASK_EXIT, op_task_exit, BOOTED, false)                  \
	X(OP_SCHEDULE, op_schedule, BOOTED, false)                    \
	X(OP_MMAP, op_mmap, BOOTED, true)                             \
	X(OP_MUNMAP, op_munmap, BOOTED, true)                         \
	X(OP_MPROTECT, op_mprotect, BOOTED, true)                     \
	X(OP_BRK, op_brk, BOOTED, true)                               \
	X(OP_FILE_CREATE, op_file_create, BOOTED, false)              \
	X(OP_FILE_WRITE, op_file_write, BOOTED, false)                \
	X(OP_FILE_READ, op_file_read, BOOTED, false)                  \
	X(OP_FILE_DELETE, op_file_delete, BOOTED, false)              \
	X(OP_ACCESS, op_access, BOOTED, false)                        \
	X(OP_FAULT, op_fault, BOOTED, true)                           \
	X(OP_PIN_USER_PAGE, op_pin_user_page, BOOTED, true)           \
	X(OP_UNPIN_USER_PAGE, op_unpin_user_page, BOOTED, false)      \
	X(OP_DMA_MAP, op_dma_map, BOOTED, false)                      \
	X(OP_DMA_SYNC, op_dma_sync, BOOTED, false)                    \
	X(OP_DMA_UNMAP, op_dma_unmap, BOOTED, false)                  \
	X(OP_SNAPSHOT, op_snapshot, IN_EARLY | BOOTED, false)         \
	X(OP_FORK, op_fork, IN_EARLY | BOOTED, false)

/* What is known of each before it is called: phases, and USER_ONLY. An op that does not exist
 * is of no phase. */
static const u8 op_table[OP_CODE_END] = {
#define OP_ENTRY(code, fn, phases, user_only) [code] = (phases) | ((user_only) ? USER_ONLY : 0),
    OPS(OP_ENTRY)
#undef OP_ENTRY
};

/* A switch and not a pointer in the table: where the whole image is compiled at once, the
 * compiler sees that every op is called with the same engine, and need not pass it on. */
static inline __attribute__((always_inline)) u32 call(struct engine *e, u32 code,
						      const struct engine_op *op,
						      struct engine_result *res)
{
	switch (code) {
#define OP_CALL(code, fn, phases, user_only) \
	case code: return fn(e, op, res);
		OPS(OP_CALL)
#undef OP_CALL
	default: __builtin_unreachable(); /* of no phase: never admitted */
	}
}

static void want_events(struct engine *e, u32 detail)
{
	u64 mask = detail == DETAIL_OPS	      ? 0
		   : detail == DETAIL_NOTABLE ? EVENTS_NOTABLE
					      : EVENTS_ALL;

	e->event_mask[0] = (u32)mask;
	e->event_mask[1] = (u32)(mask >> 32);
}

void engine_set_detail(struct engine *e, u32 detail)
{
	e->st->detail = detail;
	want_events(e, detail);
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
	e->pageblocks = at(e, layout->pageblock_ref);
	e->op_owner = e->op_cpu = 0;
	routes_update(e);
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
	want_events(e, e->st->detail);
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

/* Before the machine runs: may this op come now? The first one that runs makes it run. */
static __attribute__((noinline)) u32 admit_early(struct machine_state *st, u32 code)
{
	if (!(op_table[code] >> st->phase & 1))
		return op_table[code] && st->phase == PHASE_LOADING ? STATUS_BUSY : STATUS_INVALID;
	return STATUS_OK;
}

static __attribute__((noinline)) u32 admit_task(struct engine *e, const struct engine_op *op)
{
	const struct task *t = task_find(e, op->task);

	if (!t)
		return STATUS_NOT_FOUND;
	if (t->parked_op)
		return STATUS_BUSY;
	return t->cpu == op->cpu ? STATUS_OK : STATUS_NOT_OWNER;
}

/* Who asks, and may this op run now? */
static inline u32 admit(struct engine *e, const struct engine_op *op, u32 code)
{
	struct machine_state *st = e->st;
	u32 known = op_table[code], status;

	if (__builtin_expect(st->phase != PHASE_RUNNING, 0)) {
		status = admit_early(st, code);
		if (status != STATUS_OK)
			return status;
	} else if (!(known & IN_RUNNING)) {
		return STATUS_INVALID;
	}
	if (op->cpu >= st->layout.cpus)
		return STATUS_INVALID;
	if (op->task)
		status = admit_task(e, op);
	else
		status = known & USER_ONLY ? STATUS_NOT_OWNER : STATUS_OK;
	if (__builtin_expect(st->phase == PHASE_FRESH, 0) && status == STATUS_OK &&
	    code != OP_LOAD_STATE)
		st->phase = PHASE_RUNNING;
	return status;
}

void engine_execute(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	u32 code = op->code < OP_CODE_END ? op->code : 0, status;

	res->op = ++e->st->op_count;
	res->data_len = 0;
	for (u32 i = 0; i < OP_VALUES; i++)
		res->values[i] = 0;
	status = admit(e, op, code);
	if (__builtin_expect(status != STATUS_OK, 0)) {
		res->status = status;
		return;
	}
	e->op_owner = op->owner;
	e->op_cpu = op->cpu;
	res->status = call(e, code, op, res);
	if (e->st->map.vmap.lazy_pages)
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
