/*
 * check.c - the audit: every wing recounts itself from the ground up, in an order
 * in which each may rely on what the ones before it have shown.
 */
#include "event.h"
#include "text.h"
#include "wings.h"

static check_fn *const checks[] = {check_boot, check_frames, check_map, check_user, check_dma};

const char *engine_check(struct engine *e, struct engine_error *why)
{
	for (u32 i = 0; i < sizeof checks / sizeof checks[0]; i++) {
		/* Before Boot there is memblock and nothing else. */
		if (e->st->phase == PHASE_EARLY && i > 0)
			break;
		if (!checks[i](e, why))
			return why->text;
	}
	return NULL;
}
