/*
 * dma.h - addresses for devices: the frame's own where the device reaches it, a
 * bounce buffer where it does not.
 *
 * A mapping keeps its frames from being freed. A bounce buffer is a block of DMA
 * or NORMAL of the same length, filled from the frames when it is made (if the
 * device will read it), and copied to and fro by DmaSync and DmaUnmap as the
 * direction says.
 */
#ifndef ENGINE_DMA_H
#define ENGINE_DMA_H

#include "../types.h"
#include "../user/numbers.h"

struct dma_state {
	u32 bounced_pages; /* frames of bounce buffers, whole blocks */
	u32 reserved0;
	struct number_table handles; /* of struct dma_mapping, see dma.c */
};

/* Calls fn with the head of the block that each mapping keeps, once a mapping, in
 * order of handle. */
void dma_for_each_use(struct engine *e, void (*fn)(struct engine *e, pfn_t head, void *arg),
		      void *arg);

#endif
