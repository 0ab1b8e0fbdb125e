/*
 * fault.h - which ends a guest of a test can be ordered to have.
 */
#ifndef KERNEL_BACKEND_FAULT_H
#define KERNEL_BACKEND_FAULT_H

#define FAULT_ORDER 0xfa170000u

enum fault_order {
	FAULT_PANIC = 1,
	FAULT_TRAP, /* a page fault where there may be none */
	FAULT_TRIPLE,
	FAULT_HANG, /* halted for ever */
	FAULT_SPIN,
	FAULT_GARBAGE, /* bytes that are no frame */
	FAULT_EXIT,    /* QEMU exits, with status 0x41 */
};

#endif
