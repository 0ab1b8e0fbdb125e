/*
 * world.h - a machine of this program's own, on a back end, that ops are played to.
 */
#ifndef REPLAY_WORLD_H
#define REPLAY_WORLD_H

#include <uv.h>

#include "backend.h"

struct world {
	struct engine_config config;
	const struct backend_type *type;
	struct backend *backend;
	uv_loop_t *loop;
	uint8_t *data;
	/* Of the op that was executed last. */
	struct engine_result result;
	struct engine_event *events;
	uint32_t nr_events, max_events;
	struct engine_completion *completions;
	uint32_t nr_completions, max_completions;
};

/* False with `why`: the configuration contradicts itself, or there is no such back end.
 * The events of boot are in `events`. `loop` is turned while a guest is waited for. */
bool world_open(struct world *w, const struct backend_type *type,
		const struct engine_config *config, uv_loop_t *loop, struct engine_error *why);
void world_close(struct world *w);
/* False: the back end was lost; world_reason(). Blocks until the op is done. */
bool world_execute(struct world *w, const struct engine_op *op);
const char *world_reason(const struct world *w);

#endif
