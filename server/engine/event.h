/*
 * event.h - how events leave the engine.
 *
 * An event is a kind and six words, put into the host's buffer. Code calls the
 * generated event_alloc(), event_free(), ... (contract_events.h), whose arguments
 * are the proto's fields. Counters of all kinds are kept whatever the detail
 * level; records are made only of the wanted ones.
 */
#ifndef ENGINE_EVENT_H
#define ENGINE_EVENT_H

#include "port.h"
#include "state.h"

static inline bool event_wanted(struct engine *e, u32 kind)
{
	e->st->event_counts[kind]++;
	return e->event_mask[kind / 32] & 1u << kind % 32;
}

static inline void event_put(struct engine *e, u32 kind, u32 a, u32 b, u32 c, u32 d, u32 f, u32 g)
{
	struct engine_event *ev = e->next_event;

	ev->kind = (u16)kind;
	ev->reserved0 = 0;
	ev->w[0] = a;
	ev->w[1] = b;
	ev->w[2] = c;
	ev->w[3] = d;
	ev->w[4] = f;
	ev->w[5] = g;
	e->next_event = ++ev;
	if (__builtin_expect(ev == e->events_end, 0))
		port_events(e);
}

#include "contract_events.h" /* IWYU pragma: export */

#endif
