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
#include "map/window.h"
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
	USER_ONLY = 0x20, /* needs a task other than 0 */
	FREES_LAZILY = 0x40,
	/* What most ops are, in one bit: IN_RUNNING, and not USER_ONLY. */
	RUNS_AS_KERNEL = 0x80,
};

/* Every op: its code, its function, when it may run and what else must be known of it. */
#define OPS(X)                                                    \
	X(OP_MEMBLOCK_ADD, op_memblock_add, IN_EARLY)             \
	X(OP_MEMBLOCK_REMOVE, op_memblock_remove, IN_EARLY)       \
	X(OP_MEMBLOCK_RESERVE, op_memblock_reserve, IN_EARLY)     \
	X(OP_MEMBLOCK_FREE, op_memblock_free, IN_EARLY)           \
	X(OP_MEMBLOCK_ALLOC, op_memblock_alloc, IN_EARLY)         \
	X(OP_BOOT, op_boot, IN_EARLY)                             \
	X(OP_ALLOC_PAGES, op_alloc_pages, BOOTED)                 \
	X(OP_FREE_PAGES, op_free_pages, BOOTED)                   \
	X(OP_DRAIN_PCP, op_drain_pcp, BOOTED)                     \
	X(OP_UNBOOST_ZONE, op_unboost_zone, BOOTED)               \
	X(OP_SET_SYSCTL, op_set_sysctl, BOOTED)                   \
	X(OP_SET_POLICY, op_set_policy, IN_EARLY | BOOTED)        \
	X(OP_LOAD_STATE, op_load_state, IN_FRESH | IN_LOADING)    \
	X(OP_KMAP, op_kmap, BOOTED)                               \
	X(OP_KUNMAP, op_kunmap, BOOTED)                           \
	X(OP_KMAP_ATOMIC, op_kmap_atomic, BOOTED)                 \
	X(OP_KUNMAP_ATOMIC, op_kunmap_atomic, BOOTED)             \
	X(OP_KMAP_LOCAL, op_kmap_local, BOOTED)                   \
	X(OP_KUNMAP_LOCAL, op_kunmap_local, BOOTED)               \
	X(OP_WITHDRAW, op_withdraw, BOOTED)                       \
	X(OP_SET_FIXMAP, op_set_fixmap, BOOTED)                   \
	X(OP_CLEAR_FIXMAP, op_clear_fixmap, BOOTED)               \
	X(OP_VMALLOC, op_vmalloc, BOOTED | FREES_LAZILY)          \
	X(OP_VFREE, op_vfree, BOOTED | FREES_LAZILY)              \
	X(OP_VMAP, op_vmap, BOOTED | FREES_LAZILY)                \
	X(OP_VUNMAP, op_vunmap, BOOTED | FREES_LAZILY)            \
	X(OP_IOREMAP, op_ioremap, BOOTED | FREES_LAZILY)          \
	X(OP_IOUNMAP, op_iounmap, BOOTED | FREES_LAZILY)          \
	X(OP_PURGE_VMAP, op_purge_vmap, BOOTED)                   \
	X(OP_FLUSH_TLB, op_flush_tlb, BOOTED)                     \
	X(OP_TASK_CREATE, op_task_create, BOOTED)                 \
	X(OP_TASK_FORK, op_task_fork, BOOTED)                     \
	X(OP_TASK_EXIT, op_task_exit, BOOTED)                     \
	X(OP_SCHEDULE, op_schedule, BOOTED)                       \
	X(OP_MMAP, op_mmap, BOOTED | USER_ONLY)                   \
	X(OP_MUNMAP, op_munmap, BOOTED | USER_ONLY)               \
	X(OP_MPROTECT, op_mprotect, BOOTED | USER_ONLY)           \
	X(OP_BRK, op_brk, BOOTED | USER_ONLY)                     \
	X(OP_FILE_CREATE, op_file_create, BOOTED)                 \
	X(OP_FILE_WRITE, op_file_write, BOOTED)                   \
	X(OP_FILE_READ, op_file_read, BOOTED)                     \
	X(OP_FILE_DELETE, op_file_delete, BOOTED)                 \
	X(OP_ACCESS, op_access, BOOTED)                           \
	X(OP_FAULT, op_fault, BOOTED | USER_ONLY)                 \
	X(OP_PIN_USER_PAGE, op_pin_user_page, BOOTED | USER_ONLY) \
	X(OP_UNPIN_USER_PAGE, op_unpin_user_page, BOOTED)         \
	X(OP_DMA_MAP, op_dma_map, BOOTED)                         \
	X(OP_DMA_SYNC, op_dma_sync, BOOTED)                       \
	X(OP_DMA_UNMAP, op_dma_unmap, BOOTED)                     \
	X(OP_SNAPSHOT, op_snapshot, IN_EARLY | BOOTED)            \
	X(OP_FORK, op_fork, IN_EARLY | BOOTED)

/* What is known of each before it is called. An op that does not exist is of no phase. */
static const u8 op_table[OP_CODE_END] = {
#define RUNS(known)		  (((known) & (IN_RUNNING | USER_ONLY)) == IN_RUNNING ? RUNS_AS_KERNEL : 0)
#define OP_ENTRY(code, fn, known) [code] = (known) | RUNS(known),
    OPS(OP_ENTRY)
#undef OP_ENTRY
};

/* The end of an op, of those that can make too much of the vmalloc window wait for its purge. */
static inline u32 end_of_op(struct engine *e, u32 known, u32 status)
{
	if (known & FREES_LAZILY && e->st->map.vmap.lazy_pages)
		vmap_end_of_op(e);
	return status;
}

/* A switch and not a pointer in the table: where the whole image is compiled at once, the
 * compiler sees that every op is called with the same engine, and need not pass it on. */
static ALWAYS_INLINE void call(struct engine *e, const struct engine_op *op,
			       struct engine_result *res)
{
	switch (op->code) {
#define OP_CALL(code, fn, known) \
	case code: res->status = end_of_op(e, known, fn(e, op, res)); return;
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
	return e->st->magic == MACHINE_MAGIC &&
	       (e->st->phase == PHASE_EARLY || windows_find(e, &layout));
}

u64 engine_op_count(const struct engine *e)
{
	return e->st->op_count;
}

const struct engine_config *engine_config(const struct engine *e)
{
	return &e->st->config;
}

/* Before the machine runs: may this op come now? */
static u32 admit_early(const struct machine_state *st, u32 code)
{
	if (!(op_table[code] >> st->phase & 1))
		return op_table[code] && st->phase == PHASE_LOADING ? STATUS_BUSY : STATUS_INVALID;
	return STATUS_OK;
}

static u32 admit_task(struct engine *e, const struct engine_op *op)
{
	const struct task *t = task_find(e, op->task);

	if (!t)
		return STATUS_NOT_FOUND;
	if (t->parked_op)
		return STATUS_BUSY;
	return t->cpu == op->cpu ? STATUS_OK : STATUS_NOT_OWNER;
}

/* Who asks, and may this op run now? */
static u32 admit(struct engine *e, const struct engine_op *op)
{
	const struct machine_state *st = e->st;
	u32 code = op->code < OP_CODE_END ? op->code : 0, known = op_table[code], status;

	status = st->phase != PHASE_RUNNING ? admit_early(st, code)
		 : known & IN_RUNNING	    ? STATUS_OK
					    : STATUS_INVALID;
	if (status != STATUS_OK)
		return status;
	if (op->cpu >= st->layout.cpus)
		return STATUS_INVALID;
	if (op->task)
		return admit_task(e, op);
	return known & USER_ONLY ? STATUS_NOT_OWNER : STATUS_OK;
}

/* Any op. The first that runs, but for LoadState, makes the machine run. */
static __attribute__((noinline)) bool is_admitted(struct engine *e, const struct engine_op *op,
						  struct engine_result *res)
{
	res->status = admit(e, op);
	if (res->status != STATUS_OK)
		return false;
	if (e->st->phase == PHASE_FRESH && op->code != OP_LOAD_STATE)
		e->st->phase = PHASE_RUNNING;
	return true;
}

/* What most ops are: the machine runs, and who asks is a kernel context, or the task that is
 * current on the CPU that it names, while nobody sleeps. */
static inline bool is_plain(const struct machine_state *st, const struct engine_op *op)
{
	if (op->code >= OP_CODE_END || st->phase != PHASE_RUNNING || op->cpu >= st->layout.cpus)
		return false;
	if (!op->task)
		return op_table[op->code] & RUNS_AS_KERNEL;
	return op_table[op->code] & IN_RUNNING && st->user.cpu[op->cpu].current == op->task &&
	       !st->map.pkmap.nr_sleepers;
}

void engine_execute(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	struct machine_state *st = e->st;

	res->op = ++st->op_count;
	res->data_len = 0;
	for (u32 i = 0; i < OP_VALUES; i++)
		res->values[i] = 0;
	if (__builtin_expect(!is_plain(st, op), 0) && !is_admitted(e, op, res))
		return;
	e->op_owner = op->owner;
	e->op_cpu = op->cpu;
	call(e, op, res);
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
