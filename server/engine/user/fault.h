/*
 * fault.h - the page-fault handler.
 */
#ifndef ENGINE_FAULT_H
#define ENGINE_FAULT_H

#include "task.h"

struct fault {
	va_t va;
	u32 code;	    /* FAULT_* bits, as the CPU reports them */
	u32 ret_resolution; /* what was done, or why nothing could be */
	pfn_t ret_pfn;	    /* the frame that is there now; 0: none */
};

/* Handles a fault at a user address of the task, whoever made the access. OK;
 * FAULT (protected, no VMA, beyond the file's end); NO_MEMORY; ATOMIC while the
 * task holds an atomic mapping, for the handler may sleep. Emits
 * EVENT_PAGE_FAULT. */
u32 fault_handle(struct engine *e, struct task *t, struct fault *f);

/* For a pin that only reads: if the page at va is shared with another task, or is
 * the zero page, gives this task one of its own, still write-protected (Linux's
 * FAULT_FLAG_UNSHARE). The page is present. OK or NO_MEMORY. */
u32 fault_unshare(struct engine *e, struct task *t, va_t va);

#endif
