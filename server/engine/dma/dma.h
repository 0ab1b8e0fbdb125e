/*
 * dma.h - addresses for devices: the frame's own where the device reaches it, a
 * bounce buffer where it does not.
 */
#ifndef ENGINE_DMA_H
#define ENGINE_DMA_H

#include "../types.h"

struct dma_state {
	u32 next_handle; /* number of the next one, less 1 */
	u32 nr_handles;
	u32 bounced_pages;
	u32 reserved0;
	ref_t first, last; /* handles, in order of number */
};

#endif
