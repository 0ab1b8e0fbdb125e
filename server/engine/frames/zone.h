/*
 * zone.h - zones: free lists, per-CPU lists, watermarks and reserves.
 */
#ifndef ENGINE_ZONE_H
#define ENGINE_ZONE_H

#include "../boot/layout.h"

struct frames_state {
	u32 reserved0;
};

#endif
