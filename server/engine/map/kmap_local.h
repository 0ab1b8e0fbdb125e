/*
 * kmap_local.h - kmap_local_page() and kmap_atomic(): one stack per task, or per
 * CPU for its own context, of slots in the fixmap range.
 *
 * Depth d on CPU c uses fixmap index fix_kmap_begin + 16 c + d. Lowmem frames take
 * no slot and answer with their direct-map address, but their place on the stack
 * is kept so that order can be enforced.
 */
#ifndef ENGINE_KMAP_LOCAL_H
#define ENGINE_KMAP_LOCAL_H

#include "../boot/layout.h"

struct kmap_entry {
	pfn_t pfn;
	va_t va;
	u32 how;  /* KMAP_* below; of the engine's own temporaries 0 */
	u32 slot; /* 0: lowmem, no slot; else slot + 1 */
};

enum {
	KMAP_ATOMIC = 1,	/* made by kmap_atomic */
	KMAP_COUNTED = 0x10000, /* a use of the frame is counted (see use.h) */
};

enum {
	KMAP_STACK_ENTRIES = 32,
	/* Of the entries and of the slots, what ops may fill. As in Linux, 15 mappings
	 * that need a slot fit. */
	KMAP_OP_ENTRIES = KMAP_STACK_ENTRIES - 4,
	KMAP_OP_SLOTS = KMAP_LOCAL_SLOTS - 1,
};

struct kmap_stack {
	u32 depth;  /* entries */
	u32 slots;  /* of them, with a slot: at most KMAP_OP_SLOTS, outside of an op */
	u32 atomic; /* of them, atomic: > 0 forbids sleeping and moving */
	u32 reserved0;
	struct kmap_entry entry[KMAP_STACK_ENTRIES];
};

/* For the engine's own work (clearing and copying frames): push and pop on the
 * CPU's current stack without the ops' checks. Never fails, four deep: when the
 * slots are used up, one of a lower entry is borrowed and given back, which the
 * one who holds it cannot see. Lowmem frames give their direct-map address. */
va_t kmap_temporary(struct engine *e, u32 cpu, pfn_t pfn);
void kunmap_temporary(struct engine *e, u32 cpu, va_t va);

/* Schedule: unmaps the slots of the stack that leaves, maps those of the one that
 * comes. One that has slots comes back to their CPU, so addresses stay. */
void kmap_switch(struct engine *e, u32 cpu, struct kmap_stack *from, struct kmap_stack *to);

#endif
