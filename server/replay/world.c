/*
 * world.c - see world.h.
 */
#include "world.h"

#include <stdlib.h>
#include <string.h>

static void hook_events(void *user, const struct engine_event *events, u32 nr)
{
	struct world *w = user;

	if (w->nr_events + nr > w->max_events) {
		w->max_events = (w->nr_events + nr) * 2;
		w->events = realloc(w->events, w->max_events * sizeof *w->events);
		if (!w->events)
			abort();
	}
	if (nr)
		memcpy(w->events + w->nr_events, events, nr * sizeof *events);
	w->nr_events += nr;
}

static void hook_complete(void *user, const struct engine_completion *c)
{
	struct world *w = user;

	if (w->nr_completions == w->max_completions) {
		w->max_completions = (w->nr_completions + 4) * 2;
		w->completions =
		    realloc(w->completions, w->max_completions * sizeof *w->completions);
		if (!w->completions)
			abort();
	}
	w->completions[w->nr_completions++] = *c;
}

/* Being called ends uv_run(), and that is all that is wanted. */
static void hook_ready(void *user)
{
	(void)user;
}

static void take_events(struct world *w)
{
	uint32_t nr;
	const struct engine_event *events = w->type->take_events(w->backend, &nr);

	hook_events(w, events, nr);
}

bool world_open(struct world *w, const struct backend_type *type,
		const struct engine_config *config, uv_loop_t *loop, struct engine_error *why)
{
	struct backend_hooks hooks = {
	    .user = w, .events = hook_events, .complete = hook_complete, .ready = hook_ready};

	*w = (struct world){.config = *config, .type = type, .loop = loop};
	w->data = malloc(ENGINE_MAX_DATA);
	if (!w->data)
		abort();
	w->backend = type->create(&w->config, &hooks, why);
	if (!w->backend) {
		world_close(w);
		return false;
	}
	take_events(w);
	return true;
}

void world_close(struct world *w)
{
	if (w->backend)
		w->type->free(w->backend);
	free(w->data);
	free(w->events);
	free(w->completions);
	*w = (struct world){0};
}

bool world_execute(struct world *w, const struct engine_op *op)
{
	enum backend_status status;

	w->nr_events = w->nr_completions = 0;
	w->result = (struct engine_result){.data = w->data};
	w->type->submit(w->backend, op, &w->result);
	while ((status = w->type->collect(w->backend)) == BACKEND_MORE || status == BACKEND_WAITING)
		if (status == BACKEND_WAITING)
			uv_run(w->loop, UV_RUN_ONCE);
	take_events(w);
	return status == BACKEND_DONE;
}

const char *world_reason(const struct world *w)
{
	const char *reason = w->type->lost_reason(w->backend);

	return reason ? reason : "";
}
