/*
 * access.c - Access: bytes through the MMU, page by page, as a CPU would move them.
 *
 * The port makes each access as the task's CPU; when it faults, the handler has its
 * turn and the access is made again. The pages that went through before one that
 * cannot stay done: this is the one op that may do a part of its work.
 *
 * A kernel access to a user address is what get_user() and copy_to_user() do, so a
 * fault there is handled like the user's own. One to any other address must not
 * fault: that is an oops.
 */
#include "../boot/memblock.h"
#include "../event.h"
#include "../frames/page_alloc.h"
#include "../map/pgtable.h"
#include "../map/vmalloc.h"
#include "../ops.h"
#include "fault.h"

/* One for a page that is absent, one for write protection, one spurious: a fourth
 * fault on one page means that the tables and the CPU do not agree. */
enum { MAX_FAULTS_A_PAGE = 4 };

/* What stopped an access. */
struct stop {
	u32 status;
	u32 code;
	va_t va;
};

/* The fault that the port has just reported: can it go on? */
static bool handle(struct engine *e, const struct engine_op *op, const struct port_access *a,
		   struct stop *stop)
{
	struct fault f = {.va = a->ret_fault_va, .code = a->ret_error_code};
	bool user_address = f.va < e->st->layout.task_size;

	*stop = (struct stop){STATUS_FAULT, f.code, f.va};
	if (!a->user && (!user_address || !op->task)) {
		event_oops(e, f.va, f.code);
		return false;
	}
	stop->status = fault_handle(e, task_find(e, op->task), &f);
	return stop->status == STATUS_OK;
}

/* The host window is not the machine's: on one back end there is a kernel with its
 * devices, on the other nothing. To a machine's own accesses it is not there, in the
 * same way on both. */
static bool refuse_host_window(struct engine *e, const struct port_access *a, struct stop *stop)
{
	u32 code = (a->mode == ACCESS_WRITE ? FAULT_WRITE : 0) |
		   (a->user ? FAULT_USER | FAULT_PROTECTION : 0);

	*stop = (struct stop){STATUS_FAULT, code, a->va};
	if (!a->user)
		event_oops(e, a->va, code);
	return false;
}

/* The frame behind a kernel address; 0: none. */
static pfn_t kernel_pfn(struct engine *e, va_t va)
{
	u64 entry = pgtable_get(e, 0, va);
	u32 span = entry & PTE_LARGE ? (e->st->layout.pae ? 2u << 20 : 4u << 20) : PAGE_SIZE;

	return entry & PTE_PRESENT ? pte_pfn(entry) + ((va & (span - 1)) >> PAGE_SHIFT) : 0;
}

/* Would a kernel write land in what the engine lives on? A kernel can do that to
 * itself; here it would only break the machine, so it is refused. */
static bool hits_engine(struct engine *e, const struct port_access *a)
{
	struct frame_run run;
	pfn_t pfn;

	if (a->user || a->mode != ACCESS_WRITE || a->va < e->st->layout.task_size)
		return false;
	pfn = kernel_pfn(e, a->va);
	if (!pfn || pfn >= e->st->layout.max_pfn)
		return false;
	frame_describe(e, pfn, &run);
	return pfn == e->st->map.zero_pfn || run.state == FRAME_METADATA ||
	       run.state == FRAME_PAGE_TABLE || run.state == FRAME_SLAB || run.state == FRAME_HOST;
}

/* When a CPU sets an entry's accessed and dirty bits depends on what its TLB holds, which is
 * no state: to a kernel that reads its tables they are clear. They are bits of an entry's
 * first byte, as is the one that says whether there is an entry. */
static void hide_table_bits(struct engine *e, struct port_access *a)
{
	u32 entry_bytes = e->st->layout.pae ? 8 : 4;
	pfn_t pfn = a->user || a->va < e->st->layout.task_size ? 0 : kernel_pfn(e, a->va);

	if (!pfn || pfn >= e->st->layout.max_pfn || !memblock_is_memory(e, pfn) ||
	    !pgtable_is_table(e, pfn))
		return;
	for (u32 i = -a->va % entry_bytes; i < a->length; i += entry_bytes) {
		if (a->bytes[i] & PTE_PRESENT)
			a->bytes[i] &= (u8) ~(PTE_ACCESSED | PTE_DIRTY);
	}
}

/* One access within a page, with its faults. */
static bool access_page(struct engine *e, const struct engine_op *op, struct port_access *a,
			u32 *faults, struct stop *stop)
{
	if (pgtable_in_host_window(e, a->va))
		return refuse_host_window(e, a, stop);
	if (hits_engine(e, a)) {
		*stop = (struct stop){.status = STATUS_RESERVED};
		return false;
	}
	for (u32 tries = 0; !port_access(e, op->cpu, a); tries++) {
		ENGINE_ASSERT(e, tries < MAX_FAULTS_A_PAGE);
		++*faults;
		if (!handle(e, op, a, stop))
			return false;
	}
	if (a->mode != ACCESS_WRITE)
		hide_table_bits(e, a);
	return true;
}

/* What a write writes, at its full length: the pattern over and over. */
static void repeat(const u8 *pattern, u32 pattern_len, u8 *to, u32 length)
{
	for (u32 i = 0; i < length; i += pattern_len) {
		u32 rest = length - i;

		__builtin_memcpy(to + i, pattern, rest < pattern_len ? rest : pattern_len);
	}
}

u32 op_access(struct engine *e, const struct engine_op *op, struct engine_result *res)
{
	va_t va = (va_t)op->args[0];
	u32 length = op->args[1] ? (u32)op->args[1] : op->data_len;
	u32 mode = (u32)op->args[2], done = 0, faults = 0;
	bool user = op->args[3] == PRIVILEGE_USER;
	struct stop stop = {STATUS_OK, 0, 0};

	if (user && !op->task)
		return STATUS_NOT_OWNER;
	if (!length || length - 1 > 0xffffffffu - va)
		return STATUS_INVALID;
	if (mode == ACCESS_WRITE) {
		if (!op->data_len || op->data_len > length)
			return STATUS_INVALID;
		repeat(op->data, op->data_len, res->data, length);
	}
	vmap_before_access(e, op->cpu, va, length);
	while (done < length) {
		u32 chunk = PAGE_SIZE - (va + done) % PAGE_SIZE;
		struct port_access a = {.va = va + done, .mode = mode, .user = user};

		a.length = chunk < length - done ? chunk : length - done;
		a.bytes = res->data + done;
		if (!access_page(e, op, &a, &faults, &stop))
			break;
		done += a.length;
	}
	res->data_len = mode == ACCESS_WRITE ? 0 : done;
	res->values[0] = done;
	res->values[1] = faults;
	if (stop.status == STATUS_FAULT) {
		res->values[2] = stop.code;
		res->values[3] = stop.va;
	}
	return stop.status;
}
