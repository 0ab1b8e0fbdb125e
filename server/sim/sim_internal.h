/*
 * sim_internal.h - a simulated machine's body, as the files of this room share it.
 */
#ifndef SIM_INTERNAL_H
#define SIM_INTERNAL_H

#include <setjmp.h>

#include "arena.h"
#include "boot/layout.h"
#include "fiber.h"
#include "sim.h"
#include "tlb.h"

struct sim_cpu {
	u32 cr3;
	struct tlb tlb;
};

struct sim {
	struct engine engine;
	struct engine_config config;
	struct arena arena;
	struct ram_map ram;
	u32 last_range; /* where the last RAM was found */
	bool pae;
	bool quiet;
	struct sim_hooks hooks;
	u64 stale_hits;

	/* The op in progress on the fiber. */
	const struct engine_op *op;
	struct engine_result *res;
	struct fiber *fiber; /* made for the first long op */

	/* Where a broken invariant goes when it is met on the caller's stack. */
	jmp_buf *guard;
	bool lost;
	char lost_reason[ENGINE_ERROR_LENGTH];

	u32 nr_cpus;
	struct sim_cpu *cpu;
};

/* The byte at a physical address; NULL where there is no RAM. */
u8 *sim_ram(struct sim *s, paddr_t paddr);

#endif
