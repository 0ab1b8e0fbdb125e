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
	/* Frames that are whole, and that no engine gave: */
	FAULT_OP,     /* the answer to another op */
	FAULT_STATUS, /* one that there is not */
	FAULT_COUNT,  /* more events than there are bytes of them */
	FAULT_KIND,   /* an event that there is not */
	FAULT_WAKE,   /* the end of an op that is not asleep */
	FAULT_TWICE,  /* the right answer, and then another */
};

#endif
