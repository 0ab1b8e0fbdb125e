/*
 * fault.c - the ends of a guest, on order. Only in zoned-kernel-faults.elf, which tests
 * start.
 *
 * The order is a Withdraw whose op is FAULT_ORDER + enum fault_order: a number that no op of a
 * test ever has, and an op that changes nothing.
 */
#include "fault.h"

#include "kernel.h"
#include "map/pgtable.h"

static void garbage(void)
{
	static const u8 bytes[64] = "this is no frame";

	link_write(bytes, sizeof bytes);
	link_flush();
}

static _Noreturn void triple_fault(void)
{
	static const struct __attribute__((packed)) {
		u16 limit;
		u32 base;
	} nothing = {0, 0};

	__asm__ volatile("lidt %0\n\tud2" : : "m"(nothing));
	__builtin_unreachable();
}

void fault_inject(struct engine *e, const struct engine_op *op)
{
	if (op->code != OP_WITHDRAW || op->args[0] < FAULT_ORDER)
		return;
	tlb_flush(e, 1, 0, 0, FLUSH_REQUEST); /* an event, not sent yet when the end comes */
	switch ((enum fault_order)(op->args[0] - FAULT_ORDER)) {
	case FAULT_PANIC: panic("a panic on order");
	case FAULT_TRAP: __asm__ volatile("movl $0, 0" : : : "memory"); break;
	case FAULT_TRIPLE: triple_fault();
	case FAULT_HANG:
		for (;;)
			__asm__ volatile("cli; hlt");
	case FAULT_SPIN:
		for (;;)
			__asm__ volatile("pause");
	case FAULT_GARBAGE: garbage(); break;
	case FAULT_EXIT: power_off(0x20);
	}
}
