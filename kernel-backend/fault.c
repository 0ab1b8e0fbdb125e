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

static void lie(u16 type, u32 count, const void *body, u32 bytes)
{
	send_frame(type, count, body, bytes);
	link_flush();
}

static void answer(u64 op, u32 status)
{
	const struct wire_result result = {op, status, 0};

	lie(WIRE_RESULT, 0, &result, sizeof result);
}

static void tell_events(u32 count, u16 kind)
{
	const struct engine_event event = {.kind = kind};

	lie(WIRE_EVENTS, count, &event, sizeof event);
}

static void wake(u64 op)
{
	const struct engine_completion c = {.op = op, .status = STATUS_OK};

	lie(WIRE_COMPLETION, 0, &c, sizeof c);
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
	case FAULT_OP: answer(op_number(e) + 2, STATUS_NOT_FOUND); break;
	case FAULT_STATUS: answer(op_number(e) + 1, 77); break;
	case FAULT_COUNT: tell_events(3, EVENT_TLB_FLUSH); break;
	case FAULT_KIND: tell_events(1, 999); break;
	case FAULT_WAKE: wake(1); break;
	case FAULT_TWICE: answer(op_number(e) + 1, STATUS_NOT_FOUND);
	}
}
