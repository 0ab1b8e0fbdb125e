/*
 * ops.h - the functions behind the ops: one for each, named op_ and the op's name
 * in the proto. machine.c has the table.
 *
 * Each checks everything, then changes; returns a status; fills res->values and
 * res->data. What is checked before it is called: static ranges, that the CPU
 * exists, that a task other than 0 exists, is current on that CPU and is not
 * parked.
 */
#ifndef ENGINE_OPS_H
#define ENGINE_OPS_H

#include "engine.h"

typedef u32 op_fn(struct engine *e, const struct engine_op *op, struct engine_result *res);

/* But for the short ones that come most often, each stays a function of its own: where the
 * whole image is compiled at once, all ops would otherwise be one, and share what registers it
 * has. */
#define OP_FN __attribute__((noinline)) op_fn

OP_FN op_memblock_add, op_memblock_remove, op_memblock_reserve, op_memblock_free, op_memblock_alloc,
    op_boot;
op_fn op_alloc_pages, op_free_pages, op_kmap, op_kunmap, op_kmap_local, op_kunmap_local;
OP_FN op_drain_pcp, op_unboost_zone, op_set_sysctl, op_set_policy, op_load_state;
OP_FN op_kmap_atomic, op_kunmap_atomic, op_withdraw, op_set_fixmap, op_clear_fixmap;
OP_FN op_vmalloc, op_vfree, op_vmap, op_vunmap, op_ioremap, op_iounmap, op_purge_vmap, op_flush_tlb;
OP_FN op_task_create, op_task_fork, op_task_exit, op_schedule;
OP_FN op_mmap, op_munmap, op_mprotect, op_brk;
OP_FN op_file_create, op_file_write, op_file_read, op_file_delete;
OP_FN op_access, op_fault, op_pin_user_page, op_unpin_user_page;
OP_FN op_dma_map, op_dma_sync, op_dma_unmap;
OP_FN op_snapshot, op_fork;

#endif
