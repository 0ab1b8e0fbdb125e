/*
 * event.h - how events leave the engine.
 *
 * An event is a kind and six words, put into the host's buffer. Code calls the
 * generated event_alloc(), event_free(), ... (contract_events.h), whose arguments
 * are the proto's fields. Counters of all kinds are kept whatever the detail
 * level; records are made only of the wanted ones.
 *
 * Of each there is also event_alloc_fills(), ...: true when the buffer is full with it, so
 * that who has nothing left to do may end with the call of port_events().
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

/* Two words with one store where there are registers for two: what bounds an op in the daemon
 * is its stores. */
static inline void event_words(u32 *w, u32 first, u32 second)
{
#if UINTPTR_MAX > UINT32_MAX && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	u64 both = first | second * (1ULL << 32);

	__builtin_memcpy(w, &both, sizeof both);
#else
	w[0] = first;
	w[1] = second;
#endif
}

/* True: the buffer is full now, which is for port_events(). */
static inline bool event_put(struct engine *e, u32 kind, u32 a, u32 b, u32 c, u32 d, u32 f, u32 g)
{
	struct engine_event *ev = e->next_event;

	ev->kind = (u16)kind;
	ev->reserved0 = 0;
	event_words(&ev->w[0], a, b);
	event_words(&ev->w[2], c, d);
	event_words(&ev->w[4], f, g);
	e->next_event = ++ev;
	return __builtin_expect(ev == e->events_end, 0);
}

#include "contract_events.h" /* IWYU pragma: export */

#endif
